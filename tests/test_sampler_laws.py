"""Laws of the one sampler: slots sum exactly, every ticket has an action, the drawn share is the propensity."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decider.decide.slots import (
    MANY,
    SLOTS,
    Slots,
    check_pmf,
    draw,
    hash_ticket,
    one_slot,
    to_slots,
    to_slots_many,
    uniform_slots,
)
from decider.policy.protocol import UnusablePmf

weights = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1e-9, 1.0]), min_size=1, max_size=40).filter(
    lambda values: sum(values) > 1e-6
)


@st.composite
def pmfs(draw_: st.DrawFn) -> list[float]:
    """Distributions in float64, and as VW gives them: rounded to float32."""
    values = np.array(draw_(weights))
    pmf = values / values.sum()
    return [float(p) for p in (pmf.astype(np.float32) if draw_(st.booleans()) else pmf)]


minimums = st.floats(0, 1) | st.sampled_from([0.0, 0.0025, 0.01, 1e-7])


def floor_of(minimum: float, count: int) -> int:
    """The documented floor in slots: `minimum`, but at most an equal share."""
    return min(math.ceil(minimum * SLOTS - 1e-6), SLOTS // count)


@given(pmfs(), minimums)
@example([0.1] * 10, 0.0)
@example([1.0] + [0.0] * 999, 0.001)
@example([1 / 3] * 3, 1.0)
def test_slots_sum_exactly(pmf: list[float], minimum: float) -> None:
    """A sum that is off by one leaves a ticket without an action, or makes the logged propensity a lie."""
    slots = to_slots(pmf, minimum=minimum)
    assert len(slots) == len(pmf)
    assert sum(slots) == SLOTS


@given(pmfs(), minimums)
def test_rows_of_a_matrix_get_the_slots_that_each_would_get_alone(pmf: list[float], minimum: float) -> None:
    """Replay rounds whole blocks; it must not differ from what is served, not by one slot."""
    rows = [pmf, pmf[::-1], [1.0] + [0.0] * (len(pmf) - 1)]
    together = to_slots_many(np.array(rows), minimum=minimum)
    assert [tuple(row) for row in together.tolist()] == [to_slots(row, minimum=minimum) for row in rows]


def slots_by_loop(pmf: list[float], floor: int) -> list[int]:
    """As the documentation of `to_slots` says it, one action after the other."""
    above = [max(p - floor / SLOTS, 0.0) for p in pmf]
    rest, edges = SLOTS - floor * len(pmf), list(accumulate(above))
    if not edges[-1] > 0:
        return [floor + share for share in uniform_slots(len(pmf), total=rest)]
    whole = [int(edge * (rest / edges[-1]) + 0.5) for edge in edges]
    return [edge - before + floor for edge, before in zip(whole, [0, *whole], strict=False)]


@given(st.integers(0, 2**32), st.integers(MANY - 3, 1_100), st.sampled_from([0.0, 1e-6, 1e-4, 1.0]))
def test_many_actions_get_the_slots_that_a_loop_gives_them(seed: int, count: int, minimum: float) -> None:
    """Arrays take over for large sets of actions; what they serve must be what a replay of an older log recomputes."""
    random = np.random.default_rng(seed)
    weights = random.random(count) ** random.integers(1, 60)
    weights[random.random(count) < random.random()] = 0.0
    weights[random.integers(count)] = 1.0
    pmf = (weights / weights.sum()).tolist()
    assert list(to_slots(pmf, minimum=minimum)) == slots_by_loop(pmf, floor_of(minimum, count))


@given(pmfs(), minimums)
def test_every_action_has_at_least_the_floor(pmf: list[float], minimum: float) -> None:
    """Off-policy estimates divide by propensities: the promised minimum bounds their variance."""
    slots = to_slots(pmf, minimum=minimum)
    assert min(slots) >= floor_of(minimum, len(pmf))
    assert min(slots) / SLOTS >= min(minimum, SLOTS // len(pmf) / SLOTS) - 1e-11


@given(pmfs())
def test_an_impossible_action_gets_no_ticket_without_a_floor(pmf: list[float]) -> None:
    """A policy that gave an action probability 0 must never see it drawn."""
    slots = to_slots(pmf)
    assert all(share == 0 for share, p in zip(slots, pmf, strict=True) if p == 0)


@given(pmfs(), minimums)
@example([1e-12, 1.0, 1e-12], 0.3)
def test_rounding_moves_an_action_by_less_than_one_slot(pmf: list[float], minimum: float) -> None:
    """Beyond the documented formula nothing may shift probability between actions; checked in exact fractions."""
    slots = to_slots(pmf, minimum=minimum)
    floor = floor_of(minimum, len(pmf))
    above = [max(Fraction(p) - (Fraction(floor / SLOTS) if floor else 0), Fraction(0)) for p in pmf]
    rest = SLOTS - floor * len(pmf)
    total = sum(above)
    for share, part in zip(slots, above, strict=True):
        exact = floor + (rest * part / total if total else Fraction(rest, len(pmf)))
        assert abs(share - exact) < 1 + 1e-6


@given(pmfs(), minimums)
def test_every_ticket_has_an_action(pmf: list[float], minimum: float) -> None:
    """Float buckets leave some keys without an action; here all boundaries of every action are tried."""
    slots = to_slots(pmf, minimum=minimum)
    start = 0
    for index, share in enumerate(slots):
        if share:
            assert draw(slots, start) == index
            assert draw(slots, start + share - 1) == index
        start += share
    assert start == SLOTS


@pytest.mark.parametrize(
    ("pmf", "minimum"), [([0.7, 0.0, 0.2, 0.1], 0.0), ([1 / 3, 1 / 3, 1 / 3], 0.0), ([0.999, 0.001, 0.0], 0.0025)]
)
def test_the_drawn_share_is_the_propensity(pmf: list[float], minimum: float) -> None:
    """What is logged as the propensity is the share of all 1,000,000 tickets that draw the action, exactly."""
    slots = to_slots(pmf, minimum=minimum)
    counts = Counter(draw(slots, ticket) for ticket in range(SLOTS))
    assert tuple(counts[index] for index in range(len(pmf))) == slots


def test_a_ticket_beyond_the_slots_is_refused() -> None:
    """A wrong ticket must not silently become the last action."""
    with pytest.raises(ValueError, match="beyond"):
        draw((1, 2), 3)


@pytest.mark.parametrize(
    "pmf",
    [
        [],
        [0.0, 0.0],
        [0.6, 0.6],
        [0.5, 0.4],
        [1.1, -0.1],
        [-1e-9, 1.0],
        [math.nan, 1.0],
        [1.0, math.nan],
        [0.5, math.nan, 0.5],
        [math.nan],
        [math.inf, 0.0],
        [math.inf, -math.inf, 1.0],
    ],
)
def test_an_unusable_pmf_is_refused(pmf: list[float]) -> None:
    """A policy that fails must lead to the fallback, never to a draw from nonsense."""
    with pytest.raises(UnusablePmf):
        check_pmf(pmf, len(pmf))


@given(pmfs(), st.integers(0, 50))
def test_a_pmf_is_taken_for_as_many_actions_as_it_has(pmf: list[float], count: int) -> None:
    """A probability too few or too many would move every action's share to its neighbour."""
    check_pmf(pmf, len(pmf))
    if count != len(pmf):
        with pytest.raises(UnusablePmf):
            check_pmf(pmf, count)


@given(st.integers(1, 1000), st.integers(0, SLOTS))
def test_uniform_slots_are_even_and_complete(count: int, total: int) -> None:
    """Uniform means: no action has more than one slot beyond another."""
    slots = uniform_slots(count, total=total)
    assert (len(slots), sum(slots)) == (count, total)
    assert max(slots) - min(slots) <= 1


@given(st.integers(1, 50).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_one_slot_gives_everything_to_one(place: tuple[int, int]) -> None:
    """A rule that decides leaves no chance."""
    index, count = place
    slots = one_slot(index, count)
    assert (slots[index], sum(slots), len(slots)) == (SLOTS, SLOTS, count)


def test_the_ticket_of_a_key_never_changes() -> None:
    """Golden values: another hash would draw other actions, and no old log would replay."""
    assert hash_ticket("home", "", "draw", "0198c0de") == 861790
    assert hash_ticket("home", "", "holdout", "0198c0de") == 982350
    assert hash_ticket("", "", "", "") == 62469
    assert hash_ticket("startseite", "größe", "draw", "😀") == 829352


def test_parts_of_a_key_do_not_run_into_each_other() -> None:
    """Otherwise experiment `ab` with salt `c` would draw as experiment `a` with salt `bc`."""
    assert hash_ticket("ab", "c", "draw", "1") != hash_ticket("a", "bc", "draw", "1")


@pytest.mark.parametrize("purpose", ["draw", "holdout"])
def test_tickets_are_uniform(purpose: str) -> None:
    """Shares of traffic are as declared only if tickets are uniform: chi-square over 100 cells, fixed keys."""
    cells = np.bincount(
        [hash_ticket("home", "", purpose, str(key)) * 100 // SLOTS for key in range(50_000)], minlength=100
    )
    chi_square = float(((cells - 500.0) ** 2 / 500.0).sum())
    assert 53 < chi_square < 162  # 0.0001 and 0.9999 quantiles with 99 degrees of freedom


def test_holdout_and_draw_tickets_are_independent() -> None:
    """The holdout group must not be drawn otherwise than everybody: correlation within four standard errors of 0."""
    keys = [str(key) for key in range(20_000)]
    draws = np.array([hash_ticket("home", "", "draw", key) for key in keys], dtype=float)
    holdouts = np.array([hash_ticket("home", "", "holdout", key) for key in keys], dtype=float)
    assert abs(float(np.corrcoef(draws, holdouts)[0, 1])) < 4 / math.sqrt(len(keys))


def test_slots_are_consecutive_ranges_in_the_order_of_actions() -> None:
    """The order of a pmf is the order of its slots: the same ticket means the same action on every machine."""
    slots: Slots = to_slots([0.2, 0.3, 0.5])
    assert [draw(slots, edge) for edge in (0, *list(accumulate(slots))[:-1])] == [0, 1, 2]
