"""The off-policy estimators: the papers' formulas in plain Python, laws, a world with a known truth, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.estimate.bootstrap import GROUPS, bootstrap, bootstrap_ratio
from decider.estimate.checks import BadArgument, PropensityError
from decider.estimate.clipped_ips import ClippedIps
from decider.estimate.cressie_read_value import CressieRead
from decider.estimate.dm import DirectMethod
from decider.estimate.dr import DoublyRobust
from decider.estimate.dr_shrinkage import DrShrinkage
from decider.estimate.ips import Ips
from decider.estimate.mean import Interval, Mean
from decider.estimate.mips import Mips
from decider.estimate.replay import RejectionReplay, tickets
from decider.estimate.sample import Floats, Longs, Sample, by_unit
from decider.estimate.slope import limits_for, slope, strengths_for
from decider.estimate.sndr import Sndr
from decider.estimate.snips import Snips
from decider.estimate.switch_dr import SwitchDr
from decider.estimate.terms import MeanOfTerms


class Row(NamedTuple):
    """One decision; w is its weight."""

    propensity: float
    reward: float
    pmf: float
    predicted: float
    expected: float
    ticket: float

    @property
    def w(self) -> float:
        """pmf / propensity."""
        return self.pmf / self.propensity


Rows = list[Row]
LIMIT, STRENGTH, MAX_WEIGHT = 1.5, 3.0, 1000.0


def mean(terms: list[float]) -> float:
    """Exactly rounded."""
    return math.fsum(terms) / len(terms)


def ips(rows: Rows) -> float | None:
    """Dudik, Langford & Li 2011."""
    return mean([one.w * one.reward for one in rows]) if rows else None


def clipped_ips(rows: Rows) -> float | None:
    """Ionides 2008."""
    return mean([min(one.w, LIMIT) * one.reward for one in rows]) if rows else None


def snips(rows: Rows) -> float | None:
    """Swaminathan & Joachims 2015."""
    weight = math.fsum(one.w for one in rows)
    return math.fsum(one.w * one.reward for one in rows) / weight if weight else None


def dm(rows: Rows) -> float | None:
    """Dudik, Langford & Li 2011."""
    return mean([one.expected for one in rows]) if rows else None


def dr(rows: Rows) -> float | None:
    """Dudik, Langford & Li 2011."""
    return mean([one.expected + one.w * (one.reward - one.predicted) for one in rows]) if rows else None


def sndr(rows: Rows) -> float | None:
    """Thomas & Brunskill 2016, one step."""
    weight = math.fsum(one.w for one in rows)
    if not weight:
        return None
    return mean([one.expected for one in rows]) + mean(
        [one.w / (weight / len(rows)) * (one.reward - one.predicted) for one in rows]
    )


def switch_dr(rows: Rows) -> float | None:
    """Wang, Agarwal & Dudik 2017."""
    terms = [one.w * (one.reward - one.predicted) if one.w <= LIMIT else 0.0 for one in rows]
    return mean([one.expected for one in rows]) + mean(terms) if rows else None


def dr_shrinkage(rows: Rows) -> float | None:
    """Su, Dimakopoulou, Krishnamurthy & Dudik 2020."""
    terms = [STRENGTH * one.w / (one.w**2 + STRENGTH) * (one.reward - one.predicted) for one in rows]
    return mean([one.expected for one in rows]) + mean(terms) if rows else None


def replay(rows: Rows) -> float | None:
    """Li, Chu, Langford & Wang 2011, with rejection sampling."""
    accepted = [one.reward for one in rows if one.ticket * MAX_WEIGHT < one.w]
    return mean(accepted) if accepted else None


def cressie_read(rows: Rows) -> float | None:
    """Karampatziakis, Langford & Mineiro 2020, as in microsoft/vw-estimators, with exact fractions."""
    if not rows:
        return None
    n, w, r = len(rows), [Fraction(one.w) for one in rows], [Fraction(one.reward) for one in rows]
    fake = Fraction(MAX_WEIGHT) if sum(w) < n else Fraction(0)
    a = (fake + sum(w)) / (1 + n)
    b = (fake**2 + sum(x**2 for x in w)) / (1 + n)
    gamma, beta = (b - a) / (a * a - b), (1 - a) / (a * a - b)
    probability = [(-gamma - beta * x) / (1 + n) for x in w]
    seen = sum((q * x * y for q, x, y in zip(probability, w, r, strict=True)), Fraction(0))
    missing = max(Fraction(0), 1 - sum((q * x for q, x in zip(probability, w, strict=True)), Fraction(0)))
    return float(seen + missing * sum(r) / n)


@dataclass(frozen=True)
class Case:
    """An estimator, the arguments that it takes, and its formula."""

    make: Callable[[], Any]
    arguments: tuple[str, ...]
    formula: Callable[[Rows], float | None]

    def columns(self, rows: Rows) -> dict[str, Floats]:
        """What `add_many` wants."""
        return {name: np.array([getattr(one, name) for one in rows], np.float64) for name in self.arguments}

    def one_by_one(self, rows: Rows) -> Any:
        """After `add` of each."""
        estimator = self.make()
        for one in rows:
            estimator.add(**{name: getattr(one, name) for name in self.arguments})
        return estimator

    def at_once(self, rows: Rows) -> Any:
        """After one `add_many`."""
        estimator = self.make()
        estimator.add_many(**self.columns(rows))
        return estimator


WEIGHTED = ("propensity", "reward", "pmf")
MODELLED = (*WEIGHTED, "predicted", "expected")
CASES = {
    "ips": Case(Ips, WEIGHTED, ips),
    "clipped-ips": Case(lambda: ClippedIps(LIMIT), WEIGHTED, clipped_ips),
    "snips": Case(Snips, WEIGHTED, snips),
    "dm": Case(DirectMethod, ("expected",), dm),
    "dr": Case(DoublyRobust, MODELLED, dr),
    "sndr": Case(Sndr, MODELLED, sndr),
    "switch-dr": Case(lambda: SwitchDr(LIMIT), MODELLED, switch_dr),
    "dr-shrinkage": Case(lambda: DrShrinkage(STRENGTH), MODELLED, dr_shrinkage),
    "mips": Case(Mips, WEIGHTED, ips),
    "cressie-read": Case(lambda: CressieRead(max_weight=MAX_WEIGHT), WEIGHTED, cressie_read),
    "replay": Case(lambda: RejectionReplay(MAX_WEIGHT), (*WEIGHTED, "ticket"), replay),
}
WITH_TERMS = [name for name, case in CASES.items() if hasattr(case.make(), "terms")]

every = pytest.mark.parametrize("name", CASES)


def on_one_side(rows: Rows) -> bool:
    """Whether the sum of weights is on one side of n beyond rounding: Cressie-Read jumps there, whoever computes it."""
    apart = math.fsum(one.w - 1 for one in rows)
    return abs(apart) > 1e-9 or all(one.w == 1 for one in rows)


rewards = st.floats(-10, 10, allow_subnormal=False)
decision = st.builds(
    Row,
    propensity=st.floats(1e-3, 1),
    reward=rewards,
    pmf=st.one_of(st.just(0.0), st.floats(1e-6, 1)),
    predicted=rewards,
    expected=rewards,
    ticket=st.floats(0, 1, exclude_max=True),
)
logs = st.lists(decision, max_size=20).filter(on_one_side)


def agree(one: float | None, other: float | None, rows: Rows) -> bool:
    """Equal to 1e-12 of what is added up."""
    if one is None or other is None:
        return one is other
    size = [abs(row.expected) + (1 + row.w) * (abs(row.reward) + abs(row.predicted)) for row in rows]
    return abs(one - other) <= 1e-12 * max(1.0, mean(size))


@every
@given(rows=logs)
@settings(max_examples=60, deadline=None)
def test_it_is_the_papers_formula(name: str, rows: Rows) -> None:
    """Written twice by different means: as the paper has it, exactly rounded, and as numpy is fast."""
    case = CASES[name]
    assert agree(case.at_once(rows).value, case.formula(rows), rows)
    assert agree(case.one_by_one(rows).value, case.formula(rows), rows)
    assert case.at_once(rows).count == case.one_by_one(rows).count == len(rows)


@every
@given(rows=logs, data=st.data())
@settings(max_examples=50, deadline=None)
def test_parts_merge_to_the_whole(name: str, rows: Rows, data: st.DataObject) -> None:
    """A log is read in pieces, and by several processes: no cut may change the answer."""
    case = CASES[name]
    first, second = sorted(data.draw(st.tuples(st.integers(0, len(rows)), st.integers(0, len(rows)))))
    a, b, c = case.at_once(rows[:first]), case.one_by_one(rows[first:second]), case.at_once(rows[second:])
    whole = case.at_once(rows)
    before = (a.value, b.value, c.value)
    for merged in ((a + b) + c, a + (b + c)):
        assert agree(merged.value, whole.value, rows)
        assert merged.count == whole.count
    assert (a.value, b.value, c.value) == before
    pieces = case.at_once(rows[:first])
    pieces.add_many(**case.columns(rows[first:]))
    assert agree(pieces.value, whole.value, rows)


def test_a_weight_at_the_limit_is_still_corrected() -> None:
    """Wang, Agarwal & Dudik switch above it; a uniform log has one weight only, often the limit itself."""
    switch = SwitchDr(limit=2.0)
    switch.add(propensity=0.25, reward=1.0, pmf=0.5, predicted=0.0, expected=0.5)
    switch.add_many(**{name: np.array([x]) for name, x in zip(MODELLED, (0.25, 1.0, 0.5, 0.0, 0.5), strict=True)})
    assert switch.value == 2.5


@every
def test_nothing_seen_is_no_value(name: str) -> None:
    """0 would be an estimate."""
    case = CASES[name]
    empty = case.make()
    empty.add_many(**case.columns([]))
    assert empty.value is None
    assert (empty + case.make()).value is None
    assert empty.count == 0


@pytest.mark.parametrize("name", WITH_TERMS)
@given(rows=logs.filter(lambda rows: any(one.pmf for one in rows)))
@settings(max_examples=50, deadline=None)
def test_the_mean_of_the_terms_is_the_value(name: str, rows: Rows) -> None:
    """Intervals are computed from the terms: they must be about the same number."""
    case = CASES[name]
    estimator = case.at_once(rows)
    columns = case.columns(rows)
    copies = {key: column.copy() for key, column in columns.items()}
    terms = estimator.terms(**columns)
    assert terms.shape == (len(rows),)
    assert agree(float(terms.mean()), estimator.value, rows)
    if isinstance(estimator, MeanOfTerms):
        assert float(terms.mean()) == estimator.value
    assert all((columns[key] == copies[key]).all() for key in columns), "the caller's columns are not ours to change"


def test_ratio_estimators_know_that_no_weight_is_no_answer() -> None:
    """0 / 0 is neither 0 nor an exception: the candidate does nothing that the log shows."""
    half, none = np.full(3, 0.5), np.zeros(3)
    weightless = Snips()
    weightless.add_many(propensity=half, reward=half, pmf=none)
    assert (weightless.value, weightless.count) == (None, 3)
    assert np.isnan(Snips.terms(propensity=half, reward=half, pmf=none)).all()
    robust = Sndr()
    robust.add_many(propensity=half, reward=half, pmf=none, predicted=half, expected=half)
    assert (robust.value, robust.count) == (None, 3)


class Log(NamedTuple):
    """Arrays of a log, as the estimators want them."""

    propensity: Floats
    reward: Floats
    pmf: Floats
    predicted: Floats
    expected: Floats

    @property
    def weighted(self) -> dict[str, Floats]:
        """Arguments of those without a reward model."""
        return {"propensity": self.propensity, "reward": self.reward, "pmf": self.pmf}

    @property
    def modelled(self) -> dict[str, Floats]:
        """Arguments of those with one."""
        return self._asdict()


class TestOwnLog:
    """A policy evaluated on its own log: nothing is counterfactual, so nothing may be off."""

    @pytest.mark.parametrize("size", [1, 7, 1000, 300_001])
    def test_ips_is_the_logs_mean_to_the_last_bit(self, size: int) -> None:
        """Also where floats round: the same sum in the same order."""
        random = np.random.default_rng(size)
        p, reward = random.uniform(0.001, 1, size), random.normal(0.1, 3, size)
        own, mean_reward = Ips(), Mean()
        own.add_many(propensity=p, reward=reward, pmf=p)
        mean_reward.add_many(reward)
        assert own.value == mean_reward.value == float(reward.mean())
        assert own.mean.interval() == mean_reward.interval()

    @given(st.lists(st.tuples(st.floats(1e-300, 1), st.floats(-1e6, 1e6)), min_size=1), st.integers(0, 100))
    @settings(deadline=None)
    def test_also_in_pieces_and_one_by_one(self, rows: list[tuple[float, float]], cut: int) -> None:
        """However the log is read, as long as its mean is read in the same way."""
        own, mean_reward = Ips(), Mean()
        for p, reward in rows[:cut]:
            own.add(propensity=p, reward=reward, pmf=p)
            mean_reward.add(reward)
        rest = np.array(rows[cut:]).reshape(-1, 2)
        own.add_many(propensity=rest[:, 0], reward=rest[:, 1], pmf=rest[:, 0])
        mean_reward.add_many(rest[:, 1])
        assert own.value == mean_reward.value
        assert (own + Ips()).value == (Ips() + own).value == own.value

    def test_the_others_that_use_rewards_give_it_too(self) -> None:
        """To rounding: they divide, or take a detour through the model."""
        random = np.random.default_rng(3)
        p, reward = random.uniform(0.01, 1, 5000), random.normal(0.1, 3, 5000)
        for estimator in (Snips(), CressieRead(), CressieRead(max_weight=50.0), ClippedIps(1.0), Mips()):
            estimator.add_many(propensity=p, reward=reward, pmf=p)
            assert estimator.value == pytest.approx(reward.mean(), rel=1e-12)


ACTIONS, CONTEXTS = 6, 4
CATEGORY = np.array([0, 0, 0, 1, 1, 2])


class World:
    """A few contexts and actions, rewards 0 or 1 whose probabilities depend on both; everything is known."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.mean_reward = self.random.uniform(0.05, 0.9, (CONTEXTS, ACTIONS))
        self.logged = self.random.dirichlet(np.full(ACTIONS, 2.0), CONTEXTS) * 0.7 + 0.3 / ACTIONS
        self.candidate = self.random.dirichlet(np.full(ACTIONS, 0.6), CONTEXTS)
        self.model = np.clip(self.mean_reward + self.random.normal(0.1, 0.2, self.mean_reward.shape), 0, 1)

    @property
    def truth(self) -> float:
        """What the candidate earns; contexts are equally likely."""
        return float((self.candidate * self.mean_reward).sum(axis=1).mean())

    @property
    def max_weight(self) -> float:
        """The largest that can occur."""
        return float((self.candidate / self.logged).max())

    def draw(self, size: int) -> tuple[Longs, Longs, Floats]:
        """context, action, reward: (size,) each, by the logged policy."""
        context = self.random.integers(0, CONTEXTS, size)
        beyond = self.random.random(size)[:, None] > self.logged.cumsum(axis=1)[context]
        action = beyond[:, :-1].sum(axis=1)
        reward = (self.random.random(size) < self.mean_reward[context, action]).astype(np.float64)
        return context, action, reward

    def log(self, size: int) -> Log:
        """Decisions drawn by the logged policy."""
        context, action, reward = self.draw(size)
        return Log(
            propensity=self.logged[context, action],
            reward=reward,
            pmf=self.candidate[context, action],
            predicted=self.model[context, action],
            expected=(self.candidate * self.model).sum(axis=1)[context],
        )

    def category_log(self, size: int) -> dict[str, Floats]:
        """What MIPS wants: the probabilities are those of the drawn action's category."""
        context, action, reward = self.draw(size)
        categories = np.eye(3)[CATEGORY]
        drawn = (context, CATEGORY[action])
        return {
            "propensity": (self.logged @ categories)[drawn],
            "reward": reward,
            "pmf": (self.candidate @ categories)[drawn],
        }


def standard_errors_off(values: list[float], truth: float) -> float:
    """Of the mean of independent estimates from the truth."""
    return float(abs(np.mean(values) - truth) / (np.std(values, ddof=1) / math.sqrt(len(values))))


class TestWorld:
    """A world whose truth is known. 1,500 logs of 200 decisions; a right estimate is 4.5 errors off once in 150,000."""

    LOGS, SIZE, BOUND = 1500, 200, 4.5

    @pytest.mark.parametrize(
        ("estimator", "takes", "unbiased"),
        [
            (Ips, WEIGHTED, True),
            (DoublyRobust, MODELLED, True),
            (lambda: ClippedIps(math.inf), WEIGHTED, True),
            (lambda: SwitchDr(math.inf), MODELLED, True),
            (lambda: DrShrinkage(math.inf), MODELLED, True),
            (lambda: ClippedIps(0.8), WEIGHTED, False),
            (DirectMethod, ("expected",), False),
            (lambda: SwitchDr(0.0), MODELLED, False),
            (lambda: DrShrinkage(1e-3), MODELLED, False),
        ],
    )
    def test_unbiased_where_it_is_said_to_be(
        self, estimator: Callable[[], Any], takes: tuple[str, ...], unbiased: bool
    ) -> None:
        """The biased ones are here so that the bound is seen to find a bias."""
        world = World(seed=11)
        values = []
        for _ in range(self.LOGS):
            log, one = world.log(self.SIZE), estimator()
            one.add_many(**{name: getattr(log, name) for name in takes})
            values.append(one.value)
        assert (standard_errors_off(values, world.truth) < self.BOUND) is unbiased

    def test_mips_is_unbiased_where_categories_say_all(self) -> None:
        """And less noisy than IPS, whose weights tell actions apart that earn the same (its theorem 3.6)."""
        world = World(seed=12)
        assert standard_errors_off(self.mips_values(world), world.truth) > self.BOUND
        world.mean_reward = world.mean_reward[:, [0, 0, 0, 3, 3, 5]]
        values = self.mips_values(world)
        assert standard_errors_off(values, world.truth) < self.BOUND
        ips_values = [float(Ips.terms(**world.log(self.SIZE).weighted).mean()) for _ in range(self.LOGS)]
        assert np.std(values) < np.std(ips_values)

    def mips_values(self, world: World) -> list[float]:
        """Estimates on many logs."""
        return [float(Mips.terms(**world.category_log(self.SIZE)).mean()) for _ in range(self.LOGS)]

    def test_replay_is_unbiased_and_wasteful(self) -> None:
        """Accepted decisions are distributed as the candidate's; only one in max_weight is accepted."""
        world, replayed = World(seed=13), RejectionReplay(World(seed=13).max_weight)
        log, size = world.log(300_000), 300_000
        replayed.add_many(**log.weighted, ticket=tickets(size, seed=5))
        error = math.sqrt(world.truth * (1 - world.truth) / replayed.accepted.count)
        assert replayed.value == pytest.approx(world.truth, abs=self.BOUND * error)
        share = 1 / world.max_weight
        assert replayed.accepted.count == pytest.approx(
            size * share, abs=self.BOUND * math.sqrt(size * share * (1 - share))
        )

    @pytest.mark.parametrize("estimator", [Snips, Sndr])
    def test_the_terms_of_a_ratio_give_its_error(self, estimator: Callable[[], Any]) -> None:
        """Delta method: the standard error from the terms is how much the estimate varies between logs."""
        world, values, errors = World(seed=14), [], []
        for _ in range(600):
            log, one = world.log(1000), estimator()
            columns = log.weighted if isinstance(one, Snips) else log.modelled
            one.add_many(**columns)
            values.append(one.value)
            errors.append(one.terms(**columns).std() / math.sqrt(1000))
        assert np.mean(errors) == pytest.approx(np.std(values), rel=4.5 / math.sqrt(2 * 600))
        assert standard_errors_off(values, world.truth) < self.BOUND + 1  # a bias of the order of 1 / n is its own

    def test_snips_error_is_the_papers(self) -> None:
        """Swaminathan & Joachims' variance of the ratio, written out."""
        log = World(seed=15).log(500)
        w = log.pmf / log.propensity
        terms = Snips.terms(**log.weighted)
        value = float((w * log.reward).sum() / w.sum())
        expected = math.fsum((w**2 * (log.reward - value) ** 2).tolist()) / math.fsum(w.tolist()) ** 2
        assert float(terms.var()) / 500 == pytest.approx(expected, rel=1e-12)


class TestCressieRead:
    """Cressie-Read beyond its formula."""

    CASE = CASES["cressie-read"]

    @staticmethod
    def rows(*weighted: tuple[float, float]) -> Rows:
        """From (w, reward), logged with 1/8 each."""
        return [Row(0.125, reward, w / 8, 0.0, 0.0, 0.0) for w, reward in weighted]

    def test_weights_that_are_1_on_average(self) -> None:
        """The border between the two cases, hit exactly: the smallest weight is the one that is not seen."""
        rows = self.rows((2.0, 1.0), (0.0, 0.5), (1.0, -3.0))
        assert self.CASE.at_once(rows).value == pytest.approx(self.CASE.formula(rows), rel=1e-12)

    def test_a_weight_above_the_largest_makes_it_the_largest(self) -> None:
        """What was seen can occur, whatever was declared."""
        rows = self.rows((4.0, 1.0), (0.0, 0.0), (0.0, 1.0), (0.5, 1.0), (0.0, 1.0), (0.0, 0.0))
        declared, at_once, one_by_one = (
            CressieRead(max_weight=4.0),
            CressieRead(max_weight=2),
            CressieRead(max_weight=2),
        )
        declared.add_many(**self.CASE.columns(rows))
        at_once.add_many(**self.CASE.columns(rows))
        for row in rows:
            one_by_one.add(propensity=row.propensity, reward=row.reward, pmf=row.pmf)
        assert at_once.max_weight == one_by_one.max_weight == 4.0
        assert at_once.value == one_by_one.value == declared.value
        low = CressieRead(max_weight=2.0)
        low.add_many(**self.CASE.columns(rows[1:]))
        assert (at_once + low).max_weight == (low + at_once).max_weight == 4.0


class TestReplay:
    """Rejection replay beyond its formula."""

    def test_a_deterministic_candidate_on_a_uniform_log_is_plain_matching(self) -> None:
        """Li et al.'s algorithm: whoever agrees is kept, whatever the ticket."""
        random = np.random.default_rng(1)
        agrees, reward = random.random(1000) < 0.25, random.random(1000)
        replayed = RejectionReplay(max_weight=4.0)
        replayed.add_many(
            propensity=np.full(1000, 0.25), reward=reward, pmf=agrees.astype(np.float64), ticket=tickets(1000, seed=2)
        )
        assert replayed.accepted.count == agrees.sum()
        assert replayed.value == reward[agrees].mean()

    def test_the_largest_weight_is_always_accepted_and_none_never(self) -> None:
        """Whatever the ticket: 0 is one too."""
        replayed, almost_one = RejectionReplay(max_weight=2.0), math.nextafter(1, 0)
        for ticket in (0.0, 0.5, almost_one):
            replayed.add(propensity=0.5, reward=1.0, pmf=1.0, ticket=ticket)
            replayed.add(propensity=0.5, reward=0.0, pmf=0.0, ticket=ticket)
        replayed.add_many(
            propensity=np.full(4, 0.5),
            reward=np.array([1.0, 1.0, 0.0, 0.0]),
            pmf=np.array([1.0, 1.0, 0.0, 0.0]),
            ticket=np.array([0.0, almost_one, 0.0, almost_one]),
        )
        assert (replayed.value, replayed.accepted.count, replayed.count) == (1.0, 5, 10)

    def test_a_weight_above_the_largest_is_refused(self) -> None:
        """It would be accepted too rarely, and silently so."""
        replayed = RejectionReplay(max_weight=2.0)
        with pytest.raises(BadArgument, match="max_weight is 2"):
            replayed.add(propensity=0.25, reward=1.0, pmf=1.0, ticket=0.0)
        with pytest.raises(BadArgument, match="weight of row 1 is 4"):
            replayed.add_many(propensity=np.array([0.5, 0.25]), reward=np.ones(2), pmf=np.ones(2), ticket=np.zeros(2))
        with pytest.raises(BadArgument, match="max_weight"):
            RejectionReplay(math.inf)
        with pytest.raises(BadArgument, match="max_weight"):
            RejectionReplay(2.0) + RejectionReplay(3.0)

    @pytest.mark.parametrize("start", range(9))
    def test_a_ticket_depends_on_the_place_only(self, start: int) -> None:
        """Evaluating the log in pieces accepts the same decisions."""
        assert (tickets(20, seed=3)[start:] == tickets(20 - start, seed=3, start=start)).all()
        assert (tickets(20, seed=3) != tickets(20, seed=4)).all()

    def test_tickets_are_uniform(self) -> None:
        """Ten bins of 10,000: each within 4.5 standard errors."""
        counts = np.histogram(tickets(100_000, seed=6), bins=10, range=(0, 1))[0]
        assert np.abs(counts - 10_000).max() < 4.5 * math.sqrt(100_000 * 0.1 * 0.9)


class TestSlope:
    """The choice of a parameter."""

    def test_narrower_as_long_as_they_agree(self) -> None:
        """The order of the list does not matter, the widths do."""
        wide, middle, narrow = Interval(1.0, 0.0, 2.0), Interval(1.4, 1.0, 1.8), Interval(1.5, 1.4, 1.6)
        biased = Interval(9.0, 8.99, 9.01)
        assert slope([biased, narrow, wide, middle]) == 1
        assert slope([wide, biased]) == 0
        assert slope([middle]) == 0

    def test_agreement_is_with_all_that_are_wider(self) -> None:
        """Tucker & Lee, theorem 1: h_m + (sqrt(6) - 1) h_j, on both sides of the bound."""
        bound = 0.1 + (math.sqrt(6) - 1) * 1.0
        inside, outside = bound - 1e-9, bound + 1e-9
        assert slope([Interval(0.0, -1.0, 1.0), Interval(inside, inside - 0.1, inside + 0.1)]) == 1
        assert slope([Interval(0.0, -1.0, 1.0), Interval(outside, outside - 0.1, outside + 0.1)]) == 0
        widest_only = [Interval(0.0, -10.0, 10.0), Interval(0.0, -1.0, 1.0), Interval(5.0, 4.9, 5.1)]
        assert slope(widest_only) == 1

    def test_infinite_widths_agree_with_everything(self) -> None:
        """An interval of one decision says nothing, so it forbids nothing."""
        assert slope([Interval(0.0, -math.inf, math.inf), Interval(5.0, 4.0, 6.0)]) == 1

    def test_of_equal_widths_the_later_one_counts(self) -> None:
        """Grids go from much bias to none: limits that cut nothing off are the same as no limit."""
        assert slope([Interval(1.0, 0.0, 2.0)] * 3) == 2

    def test_nothing_to_choose_from(self) -> None:
        """An empty grid is the caller's mistake."""
        with pytest.raises(ValueError, match="no estimate"):
            slope([])

    @pytest.mark.parametrize("grid", [limits_for, strengths_for])
    def test_grids_end_with_the_unbiased_one(self, grid: Callable[[Floats], tuple[float, ...]]) -> None:
        """SLOPE needs one that is right, however wide; a candidate without any weight has no other."""
        values = grid(np.random.default_rng(1).lognormal(0, 2, 1000))
        assert list(values) == sorted(values)
        assert len(values) >= 8
        assert values[-1] == math.inf
        assert grid(np.zeros(5)) == (math.inf,)

    @staticmethod
    def heavy(offset: float) -> Log:
        """Weights up to 200 on one decision in 100 or so; the model is `offset` below the truth, which is 1."""
        random = np.random.default_rng(21)
        size = 20_000
        rare = random.random(size) < 0.005
        p = np.where(rare, 0.005, 0.995)
        pmf = np.where(rare, 1.0, 0.0) * 0.7 + 0.3 * p
        reward = 1 + random.normal(0, 0.3, size)
        return Log(p, reward, pmf, np.full(size, 1 - offset), np.full(size, 1 - offset))

    @pytest.mark.parametrize("chosen", [SwitchDr.tune, DrShrinkage.tune])
    def test_a_right_model_is_trusted_and_a_wrong_one_is_not(self, chosen: Callable[..., Any]) -> None:
        """Where the model is right, large weights are noise; where it is wrong, they are the answer."""
        right, wrong = self.heavy(0.0).modelled, self.heavy(20.0).modelled
        trusted, corrected = chosen(**right), chosen(**wrong)
        assert trusted.count == 0
        trusted.add_many(**right)
        corrected.add_many(**wrong)
        full = DoublyRobust()
        full.add_many(**right)
        assert abs(trusted.value - 1) < 0.01
        assert trusted.mean.interval().high - trusted.value < 0.5 * (full.mean.interval().high - full.mean.value)
        full = DoublyRobust()
        full.add_many(**wrong)
        assert corrected.value == pytest.approx(full.value, rel=0.05)

    def test_clipping_only_where_it_costs_nothing(self) -> None:
        """Large weights may be cut off where what they weigh is noise around 0; not where it is what is earned."""
        log = self.heavy(0.0)
        noise = np.where(log.propensity < 0.5, log.reward - 1, log.reward)
        clipped = ClippedIps.tune(propensity=log.propensity, reward=noise, pmf=log.pmf)
        assert clipped.limit < 1
        assert ClippedIps.tune(propensity=log.propensity, reward=log.reward, pmf=log.pmf).limit > 100

    def test_the_callers_grid_and_interval_are_used(self) -> None:
        """Units that come back need another interval; a study wants its own grid."""
        log = self.heavy(0.0)
        seen: list[int] = []

        def interval(terms: Floats) -> Interval:
            seen.append(len(terms))
            return Interval(0.0, -1.0, 1.0)

        p, reward, pmf = log.propensity, log.reward, log.pmf
        clipped = ClippedIps.tune(propensity=p, reward=reward, pmf=pmf, limits=[1.0, 4.0], interval=interval)
        assert SwitchDr.tune(**log.modelled, limits=[1.0, 2.0], interval=interval).limit == 2.0
        assert DrShrinkage.tune(**log.modelled, strengths=[1.0, 3.0], interval=interval).strength == 3.0
        assert clipped.limit == 4.0
        assert seen == [20_000] * 6


class TestErrors:
    """A wrong number never becomes an estimate: every library that lets it through prints nonsense with confidence."""

    BAD: tuple[tuple[str, float, type[BadArgument]], ...] = (
        ("propensity", 0.0, PropensityError),
        ("propensity", 5e-324, PropensityError),
        ("propensity", -0.1, PropensityError),
        ("propensity", 1.1, PropensityError),
        ("propensity", math.nan, PropensityError),
        ("pmf", -0.1, PropensityError),
        ("pmf", 1.1, PropensityError),
        ("pmf", math.nan, PropensityError),
        ("reward", math.nan, BadArgument),
        ("reward", math.inf, BadArgument),
        ("reward", -math.inf, BadArgument),
        ("predicted", math.nan, BadArgument),
        ("expected", math.inf, BadArgument),
        ("ticket", 1.0, BadArgument),
        ("ticket", -0.1, BadArgument),
        ("ticket", math.nan, BadArgument),
    )
    GOOD = Row(propensity=0.5, reward=1.0, pmf=0.25, predicted=0.5, expected=0.5, ticket=0.5)

    @every
    @pytest.mark.parametrize(("argument", "value", "error"), BAD)
    def test_a_bad_number_is_named_with_its_row(
        self, name: str, argument: str, value: float, error: type[BadArgument]
    ) -> None:
        """The first bad row, from 0; and what was there before is still there."""
        case = CASES[name]
        if argument not in case.arguments:
            return
        bad = self.GOOD._replace(**{argument: value})
        estimator = case.one_by_one([self.GOOD])
        value_before = estimator.value
        with pytest.raises(error, match=argument) as raised:
            estimator.add(**{key: getattr(bad, key) for key in case.arguments})
        assert (raised.value.argument, raised.value.row) == (argument, None)
        with pytest.raises(error, match=argument) as raised:
            estimator.add_many(**case.columns([self.GOOD, self.GOOD, bad, self.GOOD, bad]))
        assert (raised.value.argument, raised.value.row) == (argument, 2)
        assert isinstance(raised.value, ValueError)
        assert (estimator.count, estimator.value) == (1, value_before)

    @every
    def test_columns_of_different_lengths_are_refused(self, name: str) -> None:
        """numpy would stretch a column of one row over all the others."""
        case = CASES[name]
        for argument in case.arguments:
            columns = case.columns([self.GOOD] * 3)
            columns[argument] = columns[argument][:1]
            estimator = case.make()
            if len(case.arguments) == 1:
                columns[argument] = columns[argument].reshape(1, 1)
            with pytest.raises(BadArgument, match="has shape") as raised:
                estimator.add_many(**columns)
            assert raised.value.argument in case.arguments
            assert estimator.count == 0

    def test_rounding_above_one_is_not_an_error(self) -> None:
        """A group's probability is a sum of floats."""
        estimator = Mips()
        estimator.add(propensity=0.5, reward=1.0, pmf=1 + 2e-16)
        estimator.add_many(propensity=np.array([1 + 4e-16]), reward=np.ones(1), pmf=np.array([1 + 2e-16]))
        assert estimator.value == pytest.approx(1.5)

    @pytest.mark.parametrize(
        ("make", "argument"),
        [
            (lambda: ClippedIps(0.0), "limit"),
            (lambda: ClippedIps(math.nan), "limit"),
            (lambda: SwitchDr(-1.0), "limit"),
            (lambda: SwitchDr(math.nan), "limit"),
            (lambda: DrShrinkage(0.0), "strength"),
            (lambda: DrShrinkage(math.nan), "strength"),
            (lambda: CressieRead(min_weight=1.0), "min_weight"),
            (lambda: CressieRead(max_weight=0.9), "max_weight"),
            (lambda: RejectionReplay(0.5), "max_weight"),
            (lambda: ClippedIps(1.0) + ClippedIps(2.0), "limit"),
            (lambda: SwitchDr(1.0) + SwitchDr(2.0), "limit"),
            (lambda: DrShrinkage(1.0) + DrShrinkage(2.0), "strength"),
        ],
    )
    def test_a_bad_parameter_is_named(self, make: Callable[[], Any], argument: str) -> None:
        """Also where two estimators of different things would be merged into one."""
        with pytest.raises(BadArgument, match=argument):
            make()


def plain_bootstrap(top: Floats, bottom: Floats, seed: int) -> Interval:
    """As in the textbooks: every unit is drawn."""
    random = np.random.default_rng(seed)
    ratios = []
    for _ in range(1000):
        drawn = random.choice(len(top), len(top))
        ratios.append(top[drawn].sum() / bottom[drawn].sum())
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high))


def sample_of(terms: Floats) -> Sample:
    """Every decision a unit of its own."""
    return by_unit(terms, np.ones(len(terms)), np.arange(len(terms)), low=0, high=1, max_weight=1)


class TestBootstrap:
    """The percentile bootstrap. 1,000 resamples leave an arm of the interval 6 % of noise (one standard error)."""

    ARM = 4.5 * math.sqrt(2) * 0.06

    def same_arms(self, one: Interval, other: Interval) -> None:
        """Both arms are as long, but for the noise of two bootstraps."""
        assert one.value == pytest.approx(other.value, rel=1e-12)
        assert one.high - one.value == pytest.approx(other.high - other.value, rel=self.ARM)
        assert one.value - one.low == pytest.approx(other.value - other.low, rel=self.ARM)

    @pytest.mark.parametrize("units", [50, 3000, GROUPS])
    def test_it_is_the_plain_bootstrap(self, units: int) -> None:
        """Units of different sizes, skewed terms."""
        random = np.random.default_rng(units)
        size = random.integers(1, 4, units).astype(np.float64)
        total = random.lognormal(0, 1, units) * size
        self.same_arms(bootstrap_ratio(total, size, seed=1), plain_bootstrap(total, size, seed=2))

    def test_groups_change_nothing(self) -> None:
        """Terms as IPS has them: most are 0, a few large. On average over seeds both arms are as long."""
        random = np.random.default_rng(1)
        units, seeds = GROUPS + 2000, range(6)
        total = np.where(random.random(units) < 0.004, random.lognormal(2, 1, units), 0.0)
        size = random.integers(1, 4, units).astype(np.float64)
        grouped = [bootstrap_ratio(total, size, seed=seed) for seed in seeds]
        plain = [plain_bootstrap(total, size, seed=100 + seed) for seed in seeds]
        noise = self.ARM / math.sqrt(len(seeds))
        for end in ("low", "high"):
            arms = [np.mean([abs(getattr(one, end) - one.value) for one in many]) for many in (grouped, plain)]
            assert arms[0] == pytest.approx(arms[1], rel=noise)

    def test_the_variance_over_many_groupings_is_right(self) -> None:
        """Averaged over seeds the noise goes, and what is left would be a bias of the grouping."""
        random = np.random.default_rng(9)
        total = random.lognormal(0, 1.5, 3 * GROUPS)
        size = np.ones(len(total))
        half = [bootstrap_ratio(total, size, seed=seed, resamples=200, level=0.68) for seed in range(40)]
        widths = [one.high - one.low for one in half]
        right = 2 * 0.9945 * total.std() / math.sqrt(len(total))
        assert np.mean(widths) == pytest.approx(right, abs=4.5 * np.std(widths) / math.sqrt(40) + 0.01 * right)

    def test_it_covers(self) -> None:
        """200 samples of 400: at least the 1-in-100,000 quantile of a binomial of 0.94 (it is a bit short)."""
        random = np.random.default_rng(5)
        covered = 0
        for seed in range(200):
            interval = bootstrap(sample_of((random.random(400) < 0.3).astype(np.float64)), seed=seed, resamples=300)
            covered += interval.low <= 0.3 <= interval.high
        assert covered >= 200 * 0.94 - 4.3 * math.sqrt(200 * 0.94 * 0.06)

    def test_units_that_come_back_make_it_wider(self) -> None:
        """Every visitor twice, with the same reward: half as much is known as it seems."""
        terms = np.random.default_rng(6).random(4000)
        twice, units = np.repeat(terms, 2), np.repeat(np.arange(4000), 2)
        clustered = bootstrap(by_unit(twice, twice, units, low=0, high=1, max_weight=1), seed=1)
        self.same_arms(clustered, bootstrap(sample_of(terms), seed=2))
        naive = bootstrap(sample_of(twice), seed=3)
        assert (clustered.high - clustered.low) / (naive.high - naive.low) == pytest.approx(math.sqrt(2), rel=0.2)

    def test_a_self_normalised_estimate(self) -> None:
        """SNIPS is a ratio of two totals: the value is its own, the width that of the delta method."""
        log = World(seed=31).log(5000)
        w = log.pmf / log.propensity
        interval = bootstrap_ratio(w * log.reward, w, seed=1)
        direct = Snips()
        direct.add_many(**log.weighted)
        assert interval.value == pytest.approx(direct.value, rel=1e-12)
        error = Snips.terms(**log.weighted).std() / math.sqrt(5000)
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=self.ARM)

    def test_the_seed_is_all_the_chance_there_is(self) -> None:
        """A report can be made again."""
        sample = sample_of(np.random.default_rng(7).random(100))
        assert bootstrap(sample, seed=1) == bootstrap(sample, seed=1)
        assert bootstrap(sample, seed=1) != bootstrap(sample, seed=2)
        narrow, wide = bootstrap(sample, seed=1, level=0.5), bootstrap(sample, seed=1, level=0.99)
        assert wide.low < narrow.low < narrow.value < narrow.high < wide.high

    def test_too_little_to_say_anything(self) -> None:
        """One unit, or weight in so few that a resample has none: no interval, instead of one of width 0."""
        one = bootstrap(sample_of(np.ones(1)), seed=1)
        assert (one.value, one.low, one.high) == (1.0, -math.inf, math.inf)
        none = bootstrap(sample_of(np.ones(0)), seed=1)
        assert math.isnan(none.value)
        assert (none.low, none.high) == (-math.inf, math.inf)
        thin = bootstrap_ratio(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]), seed=1)
        assert (thin.value, thin.low, thin.high) == (1.0, -math.inf, math.inf)


class TestMean:
    """`Mean.add_many`, on which the estimates stand."""

    @given(st.lists(st.floats(-1e6, 1e6), max_size=50), st.integers(0, 50))
    @settings(deadline=None)
    def test_many_at_once_are_many_one_by_one(self, numbers: list[float], cut: int) -> None:
        """Value and interval, after numbers that came singly."""
        singly, mixed = Mean(), Mean()
        for number in numbers:
            singly.add(number)
        for number in numbers[:cut]:
            mixed.add(number)
        mixed.add_many(np.array(numbers[cut:]))
        assert mixed.count == singly.count == len(numbers)
        assert mixed.value == pytest.approx(singly.value, rel=1e-12, abs=1e-8)
        assert mixed.interval().high == pytest.approx(singly.interval().high, rel=1e-9, abs=1e-8)

    def test_the_interval_is_the_textbooks(self) -> None:
        """z times the sample's standard deviation over the root of n."""
        numbers = np.random.default_rng(8).normal(5, 2, 1000)
        mean_of = Mean()
        mean_of.add_many(numbers)
        width = 1.959963984540054 * numbers.std(ddof=1) / math.sqrt(1000)
        assert mean_of.interval().high - mean_of.value == pytest.approx(width, rel=1e-9)
