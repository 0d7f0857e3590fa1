"""How often a page's key may call: the law of its buckets, and what they remember."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.server.rates import BURST, Rate, Rates, neighbours

TICKS = 1000
"""Of a second: the clock of these tests moves by whole ones, so that a model in fractions can follow it."""

WAITS = st.sampled_from([0, 0, 1, 100, 900, 1500, 2900, 5900, 6100, 13_000]) | st.integers(0, 3000)

CALLS = st.lists(st.tuples(WAITS, st.sampled_from("aab"), st.sampled_from([1, 1, 3, 5, 11])), min_size=3, max_size=40)
"""(ticks since the call before, address, calls in it)."""

RATES = st.sampled_from([0.3, 1.0, 2.0])
TOTALS = st.sampled_from([1.5, 1_000.0, 1_000.0])


class Model:
    """A token bucket in fractions, as textbooks have it: what is in it, and when that was."""

    def __init__(self, rate: float) -> None:
        self.rate = Fraction(rate)
        self.burst = max(Fraction(1), self.rate * int(BURST))
        self.there, self.at = self.burst, Fraction(0)

    def fill(self, at: Fraction) -> Fraction:
        """What is in it now."""
        self.there, self.at = min(self.burst, self.there + (at - self.at) * self.rate), at
        return self.there


@given(CALLS, RATES, TOTALS)
def test_it_takes_what_a_token_bucket_would(
    calls: Sequence[tuple[int, str, int]], address: float, total: float
) -> None:
    """Every call of a page with the rates of its key: neither one more nor one less is taken, whatever came between,
    and what is refused uses up nothing."""
    now = 0.0
    rates = Rates(Rate(address), Rate(total), clock=lambda: now)
    buckets, in_all = {name: Model(address) for name in "ab"}, Model(total)
    ticks = 0
    for after, name, many in calls:
        ticks += after
        at = Fraction(ticks, TICKS)
        now = ticks / TICKS
        both = [buckets[name], in_all]
        wait = rates.take(name, many)
        if all(many <= one.fill(at) for one in both):
            assert wait == 0.0
            for one in both:
                one.there -= many
        else:
            possible = all(many <= one.burst for one in both)
            assert 0 < wait < math.inf if possible else wait > 0


@given(CALLS, RATES)
def test_who_waits_as_long_as_was_said_is_taken(calls: Sequence[tuple[int, str, int]], rate: float) -> None:
    """`Retry-After` would else send a page into the next refusal."""
    now = 0.0
    rates = Rates(Rate(rate), Rate(100_000.0), clock=lambda: now)
    for after, name, many in calls:
        now += after / TICKS
        wait = rates.take(name, many)
        if 0 < wait < math.inf:
            now += wait
            assert rates.take(name, many) == 0.0


def test_addresses_do_not_fill_the_memory() -> None:
    """A stranger has as many addresses of IPv6 as he likes: only those are remembered of which a call was taken lately,
    and a key takes no more than its rate from all of them."""
    now = 0.0
    rates = Rates(Rate(20.0), Rate(100.0), clock=lambda: now)
    taken, most = 0, 0
    for number in range(50_000):
        now += 0.001
        taken += not rates.take(f"address {number}", 1)
        most = max(most, len(rates))
    assert taken == pytest.approx(100 * 50 + 500, abs=1)
    assert most <= 100 * 2 * (BURST + 1) + 500
    now += 60
    rates.take("another", 1)
    assert len(rates) == 1


def test_nothing_that_counts_is_forgotten() -> None:
    """Addresses are forgotten in two steps: who has just used up his burst is not among them, whoever comes between."""
    now = 0.0
    rates = Rates(Rate(1.0), Rate(1_000.0), clock=lambda: now)
    taken = 0
    for step in range(600):
        now = step / 10
        rates.take(f"{step % 7}", 1)
        taken += rates.take("greedy", 1) == 0.0
    assert taken == 5 + 59
    assert rates.take("at once", 5) == 0.0
    for step in range(1, 36):
        now = 59.9 + step / 10
        rates.take(f"{step % 7}", 1)
    assert [rates.take("at once", 1) == 0.0 for _ in range(5)] == [True, True, True, False, False]


def test_who_was_away_has_one_burst_and_not_more() -> None:
    """Also where he is remembered from two times."""
    now = 0.0
    rates = Rates(Rate(1.0), Rate(1_000.0), clock=lambda: now)
    for at, name in ((0.0, "other"), (5.9, "ann"), (6.1, "other"), (6.2, "ann")):
        now = at
        assert rates.take(name, 1) == 0.0
    now = 11.9
    assert [rates.take("ann", 1) == 0.0 for _ in range(6)] == [True] * 5 + [False]


def test_one_address_leaves_the_rest_to_others() -> None:
    """What is refused of one address must not count for the key."""
    now = 0.0
    rates = Rates(Rate(1.0), Rate(10.0), clock=lambda: now)
    assert [rates.take("loud", 1) for _ in range(1_000)].count(0.0) == 5
    assert [rates.take(f"{number}", 1) for number in range(45)] == [0.0] * 45
    assert rates.take("late", 1) > 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("203.0.113.7:80", "unknown"),
        ("<script>", "unknown"),
        ("fe80::1%" + "x" * 10_000, "unknown"),
    ],
)
def test_what_counts_as_one_address(address: str, expected: str) -> None:
    """Who has one address of a network of IPv6 has all; what is no address is nobody's own bucket."""
    assert neighbours(address) == expected
