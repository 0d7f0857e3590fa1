"""The studies of the default's propensities and of its start from nothing: their sums, on few decisions."""

from __future__ import annotations

import numpy as np
import pytest

from decider.decide.slots import SLOTS, draw, hash_ticket
from decider.policy.protocol import Choice
from decider.types import ActionId, Context
from simulator.studies import from_nothing, propensities
from simulator.studies.codes import BEFORE, codes, policy_of
from simulator.studies.from_nothing import Start, ahead_after, running
from simulator.studies.propensities import Audit, Drawn, Recorder, always, audit, even, recorded, worth_of
from simulator.studies.results import PAGE
from simulator.worlds.registry import find

ACTIONS = tuple(Choice(ActionId(name)) for name in "abc")
PMF = (500_000, 499_000, 1_000)


def drawn(ticket: int) -> Drawn:
    """A decision by PMF."""
    return Drawn(Context(), ACTIONS, PMF, draw(PMF, ticket))


def test_an_audit_passes_exact_propensities_and_finds_wrong_ones() -> None:
    """A tenth more of a rare action than its propensity says is found in a hundred thousand draws."""
    right, wrong = Audit(), Audit()
    counts = [0, 0, 0]
    for number in range(100_000):
        counts[draw(PMF, hash_ticket("test", str(number)))] += 1
    right.add("world", ACTIONS, PMF, counts)
    wrong.add("world", ACTIONS, (499_000, 499_000, 2_000), counts)
    assert right.draws == wrong.draws == 100_000
    assert right.p_value() > 0.001 > wrong.p_value()
    assert all(abs(z) < 4 for _, z in right.mean_weights())
    assert min(wrong.mean_weights())[0] == pytest.approx(0.5, abs=0.15)


def test_exact_propensities_are_found_wrong_as_often_as_is_said() -> None:
    """Actions of a draw exclude each other: were bins taken for independent, it would be nearly twice as often."""
    rng, found = np.random.default_rng(3), []
    for _ in range(2_000):
        one = Audit()
        for slots in ((930_000, 70_000), (700_000, 290_000, 10_000), (600_000, 399_000, 1_000)):
            actions = ACTIONS[: len(slots)]
            one.add("world", actions, slots, rng.multinomial(2_000, np.array(slots) / SLOTS).tolist())
        found.append(one.p_value())
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.04)


def test_the_worth_of_a_log_is_that_of_its_weights() -> None:
    """Every ticket once: as drawn and expected are then the same, and a mean weight is 1."""
    decisions = [drawn(ticket) for ticket in range(0, SLOTS, 500)]
    same = worth_of(decisions, lambda one: [slot / SLOTS for slot in one.slots])
    assert same == pytest.approx((1, 1, 1))
    rare = worth_of(decisions, always(ActionId("c")))
    assert rare == pytest.approx((0.001, 0.001, 1))
    share = 9 / (1 / 0.5 + 1 / 0.499 + 1 / 0.001)
    assert worth_of(decisions, even) == pytest.approx((share, share, 1))
    gone = worth_of(decisions, always(ActionId("not there")))
    assert gone == worth_of(decisions, even)


def test_a_recorder_refuses_a_propensity_that_was_not_drawn_by() -> None:
    """What the study says would be of other draws."""
    recorder = Recorder(policy_of(find("storefront"), BEFORE), minimum=0.001)
    recorder.pmf(Context(), ACTIONS)
    with pytest.raises(ValueError, match="tickets"):
        recorder.learn(Context(), ACTIONS, drawn=0, propensity=0.123, reward=0.0)


def test_both_studies_run_on_few_visits() -> None:
    """From the worlds to the tables."""
    world, one = find("storefront"), Audit()
    recorder = recorded(world, policy_of(world, codes()[-1]), seed=5, visits=120)
    assert len(recorder.learned) >= 119
    audit(world, recorder, one, contexts=4, draws=50)
    assert one.draws == 200
    assert "200 draws" in propensities.audit_report([(2, one)])
    few = {(code, "uniform"): worth_of(recorder.learned, even) for code in codes()}
    assert "| storefront | uniform |" in propensities.worth_report([("storefront", few)], seeds=1, visits=120)
    starts = (Start(BEFORE), Start(3), Start(3, logged=50))
    leads = [(one, [from_nothing.lead(seed, start=one, visits=60) for seed in (5, 6)]) for one in starts]
    assert from_nothing.report(leads[:1]).count("\n") == 5
    *_, codes_, logs = from_nothing.report(leads).strip().split("\n\n")
    assert "| code 3 after a log of 50 |" in from_nothing.report(leads)
    assert codes_.startswith("Code 3 is ahead ")
    assert codes_.endswith("sooner than code 2, paired by seed.")
    assert logs.startswith("Code 3 after a log of 50 is ahead ")
    assert logs.endswith("sooner than code 3, paired by seed.")


def test_who_begins_with_a_log_has_learned_it() -> None:
    """What was logged by somebody else counts from the first visit on, before any reward of its own is final."""
    cold, warm = ([from_nothing.lead(seed, start=Start(3, n), visits=200).mean() for seed in (5, 6)] for n in (0, 500))
    assert min(warm) > max(cold) + 0.01


def test_a_run_from_nothing_is_played_by_the_code_that_is_named() -> None:
    """The same bits each time: two codes on the same visits differ in nothing else."""
    first, again, other = (from_nothing.lead(3, start=Start(code), visits=1_500).tolist() for code in (2, 2, 3))
    assert first == again != other


def test_ahead_is_who_stays_ahead() -> None:
    """A lead that is lost again does not count, neither in all nor in the running sum."""
    lead = np.array([1.0, -3.0, 1.0, 1.0, 1.0, 1.0])
    assert ahead_after(np.cumsum(lead)) == 5
    assert ahead_after(running(lead, 2)) == 4
    assert ahead_after(np.array([])) is None


@pytest.mark.parametrize("study", [propensities, from_nothing])
def test_the_page_has_the_studies_places(study: object) -> None:
    """`--publish` after an hour must find its place."""
    begin, end = study.MARKERS  # type: ignore[attr-defined]
    assert begin in PAGE.read_text(encoding="utf-8")
    assert end in PAGE.read_text(encoding="utf-8")
