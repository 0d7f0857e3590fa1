"""Caps, daily budgets and shares: never exceeded, whoever writes beside; and what rules withheld is in the log."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from decider.decide.decide import RULES, decide, eligible_actions, in_holdout
from decider.decide.slots import SLOTS, bounded_slots, to_slots
from decider.errors import FailedPrecondition, InvalidExperiment
from decider.experiment.combinations import check_combinations
from decider.experiment.definition import Action, Experiment, ExperimentVersion, RewardDefinition
from decider.experiment.limits import LONGEST_DAY, Cap, Counts, day_at, zone_of
from decider.experiment.schema import definition_text, from_message, parse_toml, read_json
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader, open_to_forget
from decider.log.protocol import EventLog, NewActivation, NewSlate, NewVersion, Tick, UnitDecision
from decider.metrics.requests import RequestMetrics
from decider.policy.make import make_policy
from decider.policy.protocol import Choice, Model
from decider.policy.static import Uniform
from decider.types import (
    NOTHING_REACHED,
    ActionId,
    Context,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    History,
    Position,
    Reached,
    Reason,
    Time,
)  # fmt: skip
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.conftest import SECOND, Clock, spec
from tests.limit_writer import UNITS
from tests.rpc_clients import RpcClient, experiment, rows, status_of
from tests.two_writers import decision

HOME = ExperimentId("home")
SALE, NEWS, NONE = ActionId("sale"), ActionId("news"), ActionId("none")
DAY, HOUR = 86_400, 3_600


def shop(**fields: Any) -> Experiment:
    """An offer, an article and `none`, the baseline, chosen evenly; windows of 10 s."""
    plain: dict[str, Any] = {
        "id": HOME,
        "actions": (Action(SALE, "offer"), Action(NEWS), Action(NONE, "none")),
        "baseline": NONE,
        "policy": spec("uniform"),
        "reward": RewardDefinition(window=10 * SECOND),
    }
    return Experiment(**{**plain, **fields})


def with_budget(made: Experiment, **most: int) -> Experiment:
    """The experiment with these daily budgets, by action."""
    return replace(made, actions=tuple([replace(one, daily_budget=most.get(one.id)) for one in made.actions]))


def apply(log: EventLog, made: Experiment) -> ExperimentVersion:
    """A new version."""
    log.append([NewVersion(made, len(log.versions()) + 1)])
    return log.versions()[-1]


def visit(
    log: EventLog, version: ExperimentVersion, id_: str, at: Time, unit: str = "unit", **fields: Any
) -> UnitDecision | None:
    """A decision in the state of the log, written; None where the log refused it."""
    limits = version.limits
    reached = limits.reached(log.limit_counts(version, unit, at=at)) if limits else None
    request = DecisionRequest(DecisionId(id_), unit, **fields)
    eligible = eligible_actions(version, request, History(reached or NOTHING_REACHED))
    made = decide(request, version, Model(make_policy(version.experiment.policy)), eligible=eligible)
    new = UnitDecision(made, reached=reached, withheld=eligible.withheld)
    (mark,) = log.append([new])
    return new if mark else None


# Days, shares and rules, which are pure.


@pytest.mark.parametrize(
    ("zone", "at", "begin", "hours"),
    [
        ("UTC", "2026-03-29T12:00+00:00", "2026-03-29T00:00+00:00", 24),
        ("Europe/Berlin", "2026-03-29T12:00+00:00", "2026-03-28T23:00+00:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00+00:00", "2026-10-24T22:00+00:00", 25),
        ("Africa/Cairo", "2026-04-24T12:00+00:00", "2026-04-23T22:00+00:00", 23),  # there is no midnight
        ("America/Havana", "2026-11-01T12:00+00:00", "2026-11-01T04:00+00:00", 25),  # there are two
        ("Asia/Kathmandu", "2026-01-01T12:00+00:00", "2025-12-31T18:15+00:00", 24),
        ("Antarctica/Troll", "2026-03-29T12:00+00:00", "2026-03-29T00:00+00:00", 22),
        ("Antarctica/Troll", "2026-10-25T12:00+00:00", "2026-10-24T22:00+00:00", 26),
        ("Antarctica/Casey", "2023-03-09T12:00+00:00", "2023-03-08T13:00+00:00", 27),
        ("Antarctica/Vostok", "1994-01-31T12:00+00:00", "1994-01-30T17:00+00:00", 31),
    ],
)
def test_a_day_is_the_calendar_s(zone: str, at: str, begin: str, hours: int) -> None:
    """A budget of a day in Berlin begins at Berlin's midnight, and some days have 23 or 25 hours; others are odder. A
    day's count must be kept for the longest one."""

    def moment(text: str) -> Time:
        return Time(round(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * SECOND)

    day = day_at(moment(at), zone_of(zone))
    assert day.begin == moment(begin)
    assert day.end - day.begin == hours * HOUR * SECOND <= LONGEST_DAY
    assert day_at(day.begin, zone_of(zone)) == day == day_at(Time(day.end - 1), zone_of(zone))
    assert day_at(day.end, zone_of(zone)).begin == day.end


@given(
    pmf=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    bounds=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=8, max_size=8),
    floor=st.floats(0, 0.05),
)
def test_shares_are_kept(pmf: list[float], bounds: list[tuple[float, float]], floor: float) -> None:
    """To the millionth, whatever the policy says; and all of it is shared out."""
    pmf = [p + 1e-9 for p in pmf]
    slots = to_slots([p / sum(pmf) for p in pmf], minimum=floor)
    ordered = [(min(pair), max(pair)) for pair in bounds[: len(pmf)]]
    total = sum([low for low, _ in ordered])
    shares = [(max(0.6 * low / max(total, 1), floor), max(high, low, floor)) for low, high in ordered]
    made = bounded_slots(slots, shares, minimum=floor)
    assert sum(made) == SLOTS
    raised = sum([high for _, high in shares]) < 1
    for share, (low, high) in zip(made, shares, strict=True):
        assert share >= low * SLOTS - 2
        assert raised or share <= high * SLOTS + 2
    free = [
        index for index in range(len(made)) if shares[index][0] * SLOTS + 2 < made[index] < shares[index][1] * SLOTS - 2
    ]
    for one, other in pairwise([] if raised else free):  # those between their bounds keep their proportion
        assert abs(made[one] * slots[other] - made[other] * slots[one]) <= 3 * SLOTS


def test_shares_are_within_a_point_after_10_000_decisions() -> None:
    """The claim to growth teams. Every decision keeps the bound, so only chance is left: at a share of 0.3 its standard
    error after 10,000 decisions is 0.46 points, and never more than 0.5, at a share of one half."""
    bounds = {SALE: (0.5, 1.0), NEWS: (0.0, 0.3), NONE: (0.0, 1.0)}
    made = shop()
    actions = tuple([replace(one, min_share=bounds[one.id][0], max_share=bounds[one.id][1]) for one in made.actions])
    version = ExperimentVersion(replace(made, actions=actions), number=1, position=Position(1), time=Time(0))
    model = Model(_Favourite())
    drawn = Counter(
        [decide(DecisionRequest(DecisionId(f"d{n}"), f"u{n}"), version, model).action for n in range(10_000)]
    )
    assert drawn.total() == 10_000
    assert abs(drawn[NEWS] / 10_000 - 0.3) < 0.01
    assert abs(drawn[SALE] / 10_000 - 0.5) < 0.01
    assert sqrt(0.5 * 0.5 / 10_000) == 0.005


class _Favourite(Uniform):
    """Wants the article alone."""

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002 - the protocol's
        return [float(choice.id == NEWS) * 0.999 + 0.001 / len(actions) for choice in actions]


def test_the_rule_that_withholds_is_named() -> None:
    """The first that does: a time, a rule on the context, a cap, a budget."""
    made = with_budget(shop(caps=(Cap(1, SECOND, kind="offer"),)), sale=1, news=1)
    news = replace(made.actions[1], eligible_if="segment == 'vip'")
    version = ExperimentVersion(
        replace(made, actions=(made.actions[0], news, made.actions[2])), number=1, position=Position(1), time=Time(0)
    )
    everything = History(Reached((0,), (SALE, NEWS)))
    found = eligible_actions(version, DecisionRequest(DecisionId("d"), "u"), everything)
    assert found == ((NONE,), {SALE: "caps[0]", NEWS: "eligible_if"}, False)
    vip = DecisionRequest(DecisionId("d"), "u", Context("vip"))
    assert eligible_actions(version, vip, everything).withheld == {SALE: "caps[0]", NEWS: "daily_budget"}
    assert eligible_actions(version, vip).withheld == {}


def test_where_limits_leave_nothing_the_baseline_is_served() -> None:
    """An error would make the page show its own fallback, which nobody counts. A unit of the control group counts for
    nobody then; without limits it is an error as before."""
    version = ExperimentVersion(with_budget(shop(holdout=0.5), sale=1), number=1, position=Position(1), time=Time(0))
    model, spent = Model(make_policy(version.experiment.policy)), History(Reached((), (SALE,)))
    for number in range(40):
        request = DecisionRequest(DecisionId("d"), f"u{number}", eligible=(SALE,), excluded=(NONE,))
        made = decide(request, version, model, history=spent)
        held_out = in_holdout(version, request.unit_id)
        assert made.reason == (Reason.HOLDOUT_UNAVAILABLE if held_out else Reason.WITHHELD)
        assert (made.action, made.eligible, made.pmf, made.propensity) == (NONE, (NONE,), (SLOTS,), 1.0)
    nobody = replace(shop(), actions=(replace(shop().actions[0], eligible_if="false"),))
    with pytest.raises(FailedPrecondition, match="no action"):
        eligible_actions(
            ExperimentVersion(nobody, number=1, position=Position(1), time=Time(0)),
            DecisionRequest(DecisionId("d"), "u"),
        )


@pytest.mark.parametrize(
    ("fields", "budgets", "field"),
    [
        ({"baseline": None, "caps": (Cap(1, SECOND, SALE),)}, {}, "baseline_action"),
        ({"baseline": None}, {"sale": 1}, "baseline_action"),
        ({"caps": (Cap(1, SECOND, NONE),)}, {}, r"caps\[0\]"),
        ({"caps": (Cap(1, SECOND, kind="none"),)}, {}, r"caps\[0\]"),
        ({}, {"none": 5}, r"actions\[2\].daily_budget"),
    ],
)
def test_limits_without_a_way_out_are_refused(fields: dict[str, Any], budgets: dict[str, int], field: str) -> None:
    """Something has to be served where nothing is left."""
    with pytest.raises(InvalidExperiment, match=field):
        check_combinations(with_budget(shop(**fields), **budgets), None)


@pytest.mark.parametrize(
    ("shares", "fields", "field"),
    [
        ([(0.6, 1), (0.5, 1), (0, 1)], {}, "come to 1.1"),
        ([(0, 0.3), (0, 0.3), (0, 0.3)], {}, "come to 0.9"),
        ([(0, 0.01), (0, 1), (0, 1)], {"minimum_propensity": 0.1}, r"actions\[0\].max_share"),
        ([(0.1, 1), (0, 1), (0, 1)], {"policy": spec("fixed")}, "policy"),
    ],
)
def test_shares_that_cannot_be_kept_are_refused(
    shares: list[tuple[float, float]], fields: dict[str, Any], field: str
) -> None:
    """A sum above 1, or below it, is a promise that nobody can keep."""
    made = shop(**fields)
    both = zip(made.actions, shares, strict=True)
    actions = tuple([replace(one, min_share=low, max_share=high) for one, (low, high) in both])
    with pytest.raises(InvalidExperiment, match=field):
        check_combinations(replace(made, actions=actions), None)


SHOP = """
id = "home"
baseline_action = "none"
time_zone = "Europe/Berlin"
[[actions]]
id = "sale"
kind = "offer"
min_share = 0.1
max_share = 0.5
daily_budget = 500
[[actions]]
id = "none"
kind = "none"
[[caps]]
action = "sale"
most = 2
per = "7d"
[[caps]]
kind = "offer"
most = 3
per = "1h"
"""


def test_a_file_says_limits() -> None:
    """And the log has all of it, in a text from which the same experiment is made."""
    made = from_message(parse_toml(SHOP, "home.toml"))
    assert made.caps == (Cap(2, 7 * DAY * SECOND, SALE), Cap(3, HOUR * SECOND, kind="offer"))
    assert (made.time_zone, made.actions[0].daily_budget) == ("Europe/Berlin", 500)
    assert from_message(read_json(definition_text(made))) == made
    plain = json.loads(definition_text(shop()))
    assert not {"caps", "time_zone"} & plain.keys(), "definitions from before keep their text"
    assert not {"min_share", "max_share", "daily_budget"} & plain["actions"][0].keys()


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("most = 2", "most = 0", "caps[0].most"),
        ("most = 2", "most = 1001", "caps[0].most"),
        ('per = "7d"', 'per = "367d"', "caps[0].per"),
        ('action = "sale"', 'action = "sales"', "caps[0].action"),
        ('kind = "offer"\nmost', 'kind = "ofer"\nmost', "caps[1].kind"),
        ('action = "sale"', 'action = "sale"\nkind = "offer"', "caps[0]"),
        ("Europe/Berlin", "Europe/Potsdam", "time_zone"),
        ("Europe/Berlin", "../../etc/localtime", "time_zone"),
        ("Europe/Berlin", "localtime", "time_zone"),
        ("daily_budget = 500", "daily_budget = 0", "actions[0].daily_budget"),
        ("min_share = 0.1", "min_share = 0.6", "actions[0].min_share"),
        ("max_share = 0.5", "max_share = 1.5", "actions[0].max_share"),
    ],
)
def test_a_wrong_limit_is_named(old: str, new: str, field: str) -> None:
    """With its field: a cap of nobody would be found in a month."""
    with pytest.raises(InvalidExperiment) as caught:
        from_message(parse_toml(SHOP.replace(old, new), "home.toml"))
    assert field in [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize("text", ["two words", "x" * 65, "a|b", "é"])
@pytest.mark.parametrize("field", ["action", "kind"])
def test_a_cap_of_what_calls_bring_names_what_they_can_bring(field: str, text: str) -> None:
    """Nobody knows these actions beforehand; but a call could never send such an id or kind."""
    made = experiment("home", "none", baseline_action="none", caps=[cap(1, 60, **{field: text})])
    made.actions_in_calls.most = 20
    made.policy.squarecb.SetInParent()
    with pytest.raises(InvalidExperiment) as caught:
        from_message(made)
    assert [violation.field for violation in caught.value.violations] == [f"caps[0].{field}"]
    made.caps[0].CopyFrom(cap(1, 60, **{field: "article-7"}))
    assert getattr(from_message(made).caps[0], field) == "article-7"


# What counts, on every implementation of the log.


def test_a_cap_ends_with_its_period(log: EventLog, clock: Clock) -> None:
    """To the microsecond, by log time: it slides over the visits, and each unit has its own."""
    version = apply(log, shop(caps=(Cap(2, 60 * SECOND, SALE),)))
    log.append([UnitDecision(decision(version, "one", action=SALE))])
    clock.advance(20)
    log.append([UnitDecision(decision(version, "two", action=SALE)), UnitDecision(decision(version, "you", "you"))])
    first = Time(clock.now - 20 * SECOND)
    for at, counted in [
        (clock.now, 2),
        (first + 60 * SECOND - 1, 2),
        (first + 60 * SECOND, 1),
        (first + 80 * SECOND, 0),
    ]:
        assert log.limit_counts(version, "unit", at=Time(at)) == Counts((counted,), ())
    assert log.limit_counts(version, "you", at=clock()) == Counts((1,), ())
    assert log.limit_counts(version, "she", at=clock()) == Counts((0,), ())


def test_a_budget_ends_at_midnight(log: EventLog, clock: Clock) -> None:
    """Of the experiment's zone. A day of another zone that overlaps counts as a whole, so that it is never exceeded."""
    clock.now = round(datetime(2026, 3, 28, 22, 59, 59, tzinfo=UTC).timestamp()) * SECOND
    version = apply(log, with_budget(shop(time_zone="Europe/Berlin"), sale=2))
    log.append([decision(version, "before", action=SALE)])
    assert log.limit_counts(version, "u", at=clock()) == Counts((), (1,))
    clock.advance(1)
    log.append([decision(version, "after", action=SALE), decision(version, "news", action=NEWS)])
    assert log.limit_counts(version, "u", at=clock()) == Counts((), (1,))
    moved = apply(log, with_budget(shop(time_zone="UTC"), sale=2))
    assert log.limit_counts(moved, "u", at=clock()) == Counts((), (2,))


def test_a_decision_in_another_state_is_refused_whole(log: EventLog, clock: Clock) -> None:
    """Two calls that both saw room for one more: the second one is decided anew, and nothing of it is left."""
    version = apply(log, shop(caps=(Cap(1, 60 * SECOND, SALE),)))
    first, second = [
        UnitDecision(decision(version, id_, action=SALE), reached=NOTHING_REACHED, withheld={NEWS: "eligible_if"})
        for id_ in ("first", "second")
    ]
    marks = log.append([first, second, UnitDecision(decision(version, "third", action=NEWS), reached=Reached((0,)))])
    assert [mark and mark.position for mark in marks] == [2, None, 4]
    assert log.withheld(Position(2)) == {NEWS: "eligible_if"}
    assert log.find(DecisionId("second")) is None
    clock.advance(60)
    assert log.append([second]) != [None]


def test_a_slate_counts_slot_by_slot(log: EventLog, clock: Clock) -> None:
    """Two offers of a page are two; a slate whose second slot is in another state is refused as a whole."""
    version = apply(log, shop(caps=(Cap(2, 60 * SECOND, kind="offer"),)))
    slots = [
        UnitDecision(decision(version, f"page/{place}", action=SALE), reached=NOTHING_REACHED) for place in range(3)
    ]
    assert log.append([NewSlate(tuple(slots))]) == [None]
    assert log.head().position == 1
    right = NewSlate((*slots[:2], replace(slots[2], reached=Reached((0,)))))
    assert log.append([right]) != [None]
    assert log.limit_counts(version, "unit", at=clock()) == Counts((2,), ()), "no further than is asked for"
    wider = apply(log, shop(caps=(Cap(9, 60 * SECOND, kind="offer"),)))
    assert log.limit_counts(wider, "unit", at=clock()) == Counts((3,), ())


def test_only_what_was_activated_counts(log: EventLog, clock: Clock) -> None:
    """Where it is required. Until its window is over a decision holds its place: two that wait may both be shown."""
    version = apply(log, with_budget(shop(needs_activation=True, caps=(Cap(5, 60 * SECOND, SALE),)), sale=5, news=5))

    def counts(unit: str = "unit") -> tuple[int, int, int]:
        found = log.limit_counts(version, unit, at=clock())
        return *found.caps, *found.budgets  # type: ignore[return-value]

    marks = log.append([decision(version, id_, action=SALE) for id_ in ("shown", "over", "other", "late")])
    positions = [mark.position for mark in marks if mark]
    assert counts() == (4, 4, 0)
    log.append([NewActivation(positions[0]), NewActivation(positions[2], NEWS)])
    assert counts() == (3, 3, 1)
    clock.advance(10)
    assert counts() == (1, 1, 1)
    log.append([NewActivation(positions[3]), NewActivation(positions[1], SALE), Tick()])
    log.maintain()
    assert counts() == (1, 1, 1)
    clock.advance(50)
    assert counts() == (0, 1, 1)


def test_an_override_counts_what_was_shown(log: EventLog, clock: Clock) -> None:
    """A frontend that shows the offer in place of the article has shown the offer."""
    version = apply(log, with_budget(shop(caps=(Cap(2, 60 * SECOND, SALE),)), sale=5))
    marks = log.append([decision(version, "a", action=NEWS), decision(version, "b", action=SALE)])
    article, offer = [mark.position for mark in marks if mark]
    assert log.limit_counts(version, "unit", at=clock()) == Counts((1,), (1,))
    log.append([NewActivation(article, SALE)])
    assert log.limit_counts(version, "unit", at=clock()) == Counts((2,), (2,))
    log.append([NewActivation(offer, NONE)])
    assert log.limit_counts(version, "unit", at=clock()) == Counts((1,), (1,))


@st.composite
def _steps(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    step = st.one_of(
        st.tuples(st.just("visit"), st.sampled_from("abc"), st.booleans()),
        st.tuples(st.just("shown"), st.integers(0, 20), st.sampled_from([None, SALE, NEWS, NONE])),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3, 10, 31, 20 * HOUR])),
        st.tuples(st.just("apply"), st.integers(0, 3)),
        st.tuples(st.just("tidy")),
    )
    return draw(st.lists(step, max_size=40))


VERSIONS = [
    with_budget(shop(caps=(Cap(2, 30 * SECOND, SALE), Cap(3, 60 * SECOND, kind="content"))), sale=4),
    with_budget(shop(needs_activation=True, caps=(Cap(1, 40 * SECOND, kind="offer"),)), sale=3, news=6),
    shop(),
    with_budget(shop(time_zone="Asia/Tokyo", holdout=0.3), news=3),
]


@given(steps=_steps())
def test_every_log_counts_alike_and_replays(
    steps: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever comes: both implementations count the same, no cap or budget is exceeded, and every decision is that of
    the state at its own position."""
    clock = Clock()
    path = tmp_path_factory.mktemp("limits") / "log.db"
    memory = MemoryLog(clock=clock)
    with closing(open_log(path, clock=clock)) as sqlite:
        logs: list[EventLog] = [memory, sqlite]
        for log in logs:
            log.name_build({"rules": RULES})
        versions = [apply(log, VERSIONS[0]) for log in logs]
        decided: list[Position] = []
        for number, step in enumerate(steps):
            match step:
                case ("visit", unit, all_):
                    eligible = () if all_ else (SALE,)
                    made = [
                        visit(log, version, f"d{number}", clock(), unit, eligible=eligible)
                        for log, version in zip(logs, versions, strict=True)
                    ]
                    assert made[0] == made[1]
                    assert made[0] is not None
                    found = sqlite.locate(DecisionId(f"d{number}"))
                    assert found is not None
                    decided.append(found.position)
                case ("shown", which, action) if decided:
                    entry = NewActivation(decided[which % len(decided)], action)
                    assert memory.append([entry]) == sqlite.append([entry])
                case ("wait", seconds):
                    clock.advance(seconds)
                case ("apply", which):
                    versions = [apply(log, VERSIONS[which]) for log in logs]
                case ("tidy",):
                    sqlite.maintain()
            if versions[0].limits is not None:
                for unit in "abc":
                    counts = [log.limit_counts(v, unit, at=clock()) for log, v in zip(logs, versions, strict=True)]
                    assert counts[0] == counts[1]
        for log in logs:
            assert (result := verify(log)).first is None, result.first and result.first.what
            assert result.equal == result.decisions == log.count_decisions()
        assert sqlite.check(lambda _: None) == []


def test_estimates_stay_unbiased(clock: Clock) -> None:
    """What a cap takes out is in the pmf: over many draws the mean weight of every action among those that were
    eligible is 1, and so is the share with which it was drawn."""
    log = MemoryLog(clock=clock)
    favours = replace(shop().actions[0], max_share=0.5)
    version = apply(log, shop(actions=(favours, *shop().actions[1:]), caps=(Cap(2, 600 * SECOND, kind="offer"),)))
    weights: dict[ActionId, list[float]] = {SALE: [], NEWS: [], NONE: []}
    for number in range(3_000):
        clock.advance(1)
        made = visit(log, version, f"d{number}", clock(), f"unit-{number % 100}")
        assert made is not None
        one = made.decision
        assert sum(one.pmf) == SLOTS
        for action in one.eligible:
            weights[action].append((one.action == action) / one.propensity)
    for action, seen in weights.items():
        mean = sum(seen) / len(seen)
        error = sqrt(sum([(weight - mean) ** 2 for weight in seen])) / len(seen)
        assert abs(mean - 1) < 4 * error, action
    assert len(weights[SALE]) < len(weights[NEWS]), "caps took it out"


def test_what_no_longer_counts_is_deleted(tmp_path: Path, clock: Clock) -> None:
    """Nothing grows for ever: a row lives as long as its cap looks back."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        version = apply(log, with_budget(shop(caps=(Cap(2, 60 * SECOND, SALE),)), sale=900))
        log.append([decision(version, f"d{number}", f"u{number}", action=SALE) for number in range(700)])
        clock.advance(60)
        log.append([decision(version, "new", action=SALE)])
        log.maintain()
        log.maintain()
        assert rows(tmp_path / "log.db", "select count(*) from exposures") == [(1,)]
        assert rows(tmp_path / "log.db", "select sum(count) from daily_counts") == [(701,)]
        clock.advance(4 * DAY)
        log.append([Tick()])
        log.maintain()
        assert rows(tmp_path / "log.db", "select count(*) from daily_counts") == [(0,)]
        assert log.check(lambda _: None) == []


def test_a_forgotten_unit_s_decisions_count_for_budgets_only(tmp_path: Path, clock: Clock) -> None:
    """Its id is gone from what is counted as well."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        version = apply(log, with_budget(shop(caps=(Cap(1, DAY * SECOND, SALE),)), sale=2))
        log.append([decision(version, "mine", "me", action=SALE), decision(version, "yours", "you", action=SALE)])
    with closing(open_to_forget(path)) as log:
        log.forget("me", pseudonym=True, context=True, rebuild=False)
        assert log.limit_counts(version, "me", at=clock()) == Counts((0,), (2,))
        assert log.limit_counts(version, "you", at=clock()) == Counts((1,), (2,))
        assert log.check(lambda _: None) == []
    assert b"me" not in [row[0].encode() for row in rows(path, "select unit_id from exposures")]


# Through the service.


def offers(id_: str, *caps: experiment_pb2.Cap, budget: int | None = None, **fields: Any) -> experiment_pb2.Experiment:
    """`shop` as a message."""
    made = experiment(id_, "sale", "news", "none", baseline_action="none", caps=caps, **fields)
    made.policy.uniform.SetInParent()
    for action, kind in zip(made.actions, ("offer", "content", "none"), strict=True):
        action.kind = kind
    if budget is not None:
        made.actions[0].daily_budget = budget
    return made


def cap(most: int, seconds: float, **of: str) -> experiment_pb2.Cap:
    """A cap."""
    made = experiment_pb2.Cap(most=most, **of)
    made.per.FromMicroseconds(round(seconds * SECOND))
    return made


def test_a_unit_sees_an_action_so_often_and_no_more(client: RpcClient, mine: str) -> None:
    """And then again in the next period."""
    client.apply(offers(mine, cap(2, 6, action="sale")))
    seen = Counter([client.decide(mine, "visitor").action.id for _ in range(30)])
    assert seen["sale"] == 2
    reply = client.decide(mine, "visitor", with_ranking=True)
    assert {one.action: one.propensity for one in reply.ranking} == {"news": 0.5, "none": 0.5}
    found = client.rows("select action, rule from withheld_actions where decision_id = ?", reply.decision_id)
    assert found == [("sale", "caps[0]")]
    assert client.decide(mine, "another", eligible_actions=["sale"]).action.id == "sale"
    client.until(lambda: client.decide(mine, "visitor").action.id == "sale", what="the period is over")


def test_a_budget_holds_for_all_units(client: RpcClient, mine: str) -> None:
    """Also in one batch, where all are decided before the first is written."""
    client.apply(offers(mine, budget=5))
    requests = [
        pb.DecideRequest(experiment=mine, unit_id=f"u{n}", eligible_actions=["sale", "none"]) for n in range(60)
    ]
    replies = [result.response for result in client.decide_batch(requests)]
    seen = Counter([reply.action.id for reply in replies])
    assert seen == {"sale": 5, "none": 55}


def test_nothing_left_is_the_baseline_and_no_error(client: RpcClient, mine: str) -> None:
    """Although the call leaves it out. The reason says so."""
    client.apply(offers(mine, cap(1, 60, kind="offer")))
    assert client.decide(mine, "u", eligible_actions=["sale"]).reason == pb.REASON_ONLY_ELIGIBLE
    reply = client.decide(mine, "u", decision_id=f"{mine}-2", eligible_actions=["sale"], excluded_actions=["none"])
    assert (reply.action.id, reply.propensity, reply.reason) == ("none", 1.0, pb.REASON_WITHHELD)


def test_a_retry_gets_the_stored_decision(client: RpcClient, mine: str) -> None:
    """It was in time, and the cap that it used up is no reason for another answer; nor for counting it twice."""
    client.apply(offers(mine, cap(1, 60, action="sale")))
    first = client.decide(mine, "u", decision_id=f"{mine}-1", eligible_actions=["sale"])
    for _ in range(3):
        assert client.decide(mine, "u", decision_id=f"{mine}-1", eligible_actions=["sale"]) == first
    assert client.decide(mine, "u", eligible_actions=["sale", "none"]).action.id == "none"


def test_a_kept_decision_is_no_new_draw(client: RpcClient, mine: str) -> None:
    """Sticky: the offer that used up the cap stays on the page, and does not count again."""
    made = offers(mine, cap(1, 60, action="sale"), budget=2)
    made.sticky.FromSeconds(600)
    client.apply(made)
    first = client.decide(mine, "u", eligible_actions=["sale", "none"], excluded_actions=["none"])
    again = client.decide(mine, "u")
    assert (again.decision_id, again.reason) == (first.decision_id, pb.REASON_STICKY)
    assert client.decide(mine, "v", eligible_actions=["sale"]).action.id == "sale"


def test_the_control_group_stays_clean(client: RpcClient, mine: str) -> None:
    """It gets the baseline whatever is used up, and uses up nothing."""
    client.apply(offers(mine, cap(1, 600, kind="offer"), budget=3, holdout=0.5))
    replies = [client.decide(mine, f"u{n}") for n in range(60)]
    held_out = [reply for reply in replies if reply.reason == pb.REASON_HOLDOUT]
    assert len(held_out) > 15
    assert {reply.action.id for reply in held_out} == {"none"}
    assert Counter([reply.action.id for reply in replies])["sale"] == 3


def test_slots_of_a_page_count_one_by_one(client: RpcClient, mine: str) -> None:
    """Two offers on a page are two. What limits leave of a page is the baseline, in every slot."""
    made = offers(mine, cap(1, 60, kind="offer"))
    made.actions.add(id="coupon", kind="offer")
    client.apply(made)
    pages = []
    for _ in range(12):
        request = pb.DecideSlateRequest(experiment=mine, unit_id="u", slots=[pb.Slot(), pb.Slot()])
        reply = client.call("DeciderService", "DecideSlate", request)
        pages += [[slot.action.id for slot in reply.decisions]]
    shown = Counter([action for page in pages for action in page])
    assert shown["sale"] + shown["coupon"] == 1
    both = [pb.Slot(eligible_actions=["sale"]), pb.Slot(eligible_actions=["coupon"])]
    reply = client.call(
        "DeciderService", "DecideSlate", pb.DecideSlateRequest(experiment=mine, unit_id="u", slots=both)
    )
    assert [(slot.action.id, slot.reason) for slot in reply.decisions] == [("none", pb.REASON_WITHHELD)] * 2


def test_activations_decide_what_counts(client: RpcClient, mine: str) -> None:
    """A page that was prepared and never shown uses up nothing once its window is over."""
    made = offers(mine, cap(1, 60, action="sale"), window=1.0, activation=experiment_pb2.ACTIVATION_REQUIRED)
    client.apply(made)
    wanted = ["sale", "none"]
    first = client.decide(mine, "u", eligible_actions=["sale"])
    assert first.action.id == "sale"
    client.until(
        lambda: client.decide(mine, "u", eligible_actions=["sale"]).action.id == "sale", what="the window is over"
    )
    shown = client.decide(mine, "v", eligible_actions=["sale"])
    assert client.activate(shown.decision_id)
    time.sleep(1.1)
    assert {client.decide(mine, "v", eligible_actions=wanted).action.id for _ in range(10)} == {"none"}


def test_calls_at_once_keep_to_the_limits(client: RpcClient, mine: str) -> None:
    """A page that asks from many places at once."""
    client.apply(offers(mine, cap(2, 600, action="sale"), cap(3, 600, kind="content"), budget=9))
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.decide, mine, f"u{n % 6}") for n in range(120)]
        replies = [call.result() for call in calls]
    units = dict(client.rows("select decision_id, unit_id from decisions"))
    shown = Counter([(units[reply.decision_id], reply.action.id) for reply in replies])
    assert max([count for (_, action), count in shown.items() if action == "sale"]) == 2
    assert max([count for (_, action), count in shown.items() if action == "news"]) == 3
    assert sum([count for (_, action), count in shown.items() if action == "sale"]) == 9


def test_combinations_are_refused_with_the_experiment(client: RpcClient, mine: str) -> None:
    """Before they serve."""
    status = status_of(lambda: client.apply(offers(mine, cap(1, 60, kind="none"))))
    assert "baseline" in status.message
    assert "caps[0]" in status.message


def test_withheld_actions_are_counted_by_rule() -> None:
    """All caps are one label: a definition may have a hundred."""
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry)
    metrics.observe_withheld(HOME, ["caps[0]", "caps[3]", "daily_budget"])
    labels = {"experiment": HOME, "rule": "caps"}
    assert registry.get_sample_value("decider_withheld_actions_total", labels) == 2


# Two processes, and SIGKILL.


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A log whose limits are soon used up."""
    path = tmp_path / "log.db"
    with closing(open_log(path)) as log:
        apply(log, with_budget(shop(caps=(Cap(3, HOUR * SECOND, SALE), Cap(5, HOUR * SECOND, NEWS))), news=12))
    return path


def worker(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    """A process with 8 threads that decide."""
    command = [sys.executable, "-m", "tests.limit_writer", str(path), name, "8", str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def answers(process: subprocess.Popen[str]) -> Iterator[list[str]]:
    """What it has said in whole lines."""
    assert process.stdout is not None
    return (line.split() for line in process.stdout if line.endswith("\n"))


def test_two_processes_and_a_kill_exceed_nothing(shared: Path) -> None:
    """Many threads of two processes decide for the same few units; one of them is killed, and another one goes on."""
    with worker(shared, "first", 10_000) as first, worker(shared, "second", 40) as second:
        said = [line for line, _ in zip(answers(first), range(60), strict=False)]
        first.kill()
        said += [*answers(first), *answers(second)]
    with worker(shared, "third", 20) as third:
        said += answers(third)
    assert [second.returncode, third.returncode] == [0, 0]
    found = rows(shared, "select decision_id, unit_id, action from decisions")
    assert {(id_, unit, action) for id_, unit, action, _ in said} <= set(found)
    shown = Counter([(unit, action) for _, unit, action in found])
    assert {unit: shown[unit, "sale"] for unit, _ in shown} == {f"unit-{n}": 3 for n in range(UNITS)}
    assert max([shown[f"unit-{n}", "news"] for n in range(UNITS)]) <= 5
    assert sum([shown[f"unit-{n}", "news"] for n in range(UNITS)]) == 12
    with closing(open_reader(shared)) as log:
        result = verify(log)
        assert result.first is None, result.first and result.first.what
        assert result.equal == result.decisions == len(found)
        assert log.check(lambda _: None) == []
