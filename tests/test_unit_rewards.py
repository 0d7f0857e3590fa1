"""Rewards that name a unit: credited as the experiment says, once, for every id of the person; on every log."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.experiment.definition import Attribution, ExperimentVersion, OutOfRange, RewardDefinition
from decider.experiment.schema import definition_text, from_message, read_json
from decider.log.memory import MemoryLog
from decider.log.open import open_reader
from decider.log.protocol import (
    MOST_UNITS,
    Entry,
    EventLog,
    Mark,
    NewActivation,
    NewLink,
    NewReward,
    NewRewardChange,
    NewUnitReward,
    NewUnitRewardChange,
    NewVersion,
    Tick,
)
from decider.log.sqlite.writer import SqliteLog
from decider.types import ANY_NAME, START, ActionId, ExperimentId, Position, Time
from tests.archives import archive, ends
from tests.conftest import SECOND, Clock, sample_experiment
from tests.test_log_readers import plain
from tests.two_writers import decision

WINDOW = 10 * SECOND
HOME, MAIL = ExperimentId("home"), ExperimentId("mail")


def apply(
    log: EventLog, rule: Attribution | None = Attribution.LAST, id_: ExperimentId = HOME, **more: Any
) -> ExperimentVersion:
    """A version of an experiment that credits rewards by unit like this."""
    activation = {name: more.pop(name, False) for name in ("needs_activation", "learns_overrides")}
    reward = RewardDefinition(window=WINDOW, maximum=500.0, attribution=rule, **more)
    number = sum(version.experiment.id == id_ for version in log.versions()) + 1
    log.append([NewVersion(sample_experiment(id=id_, reward=reward, **activation), number)])
    return log.versions()[-1]


def decide(log: EventLog, version: ExperimentVersion, unit: str = "anna") -> Position:
    """One decision for a unit."""
    (mark,) = log.append([decision(version, f"{unit}-{log.head().position}", unit)])
    assert mark is not None
    return mark.position


def buy(unit: str = "anna", value: float = 80.0, id_: str | None = "order", **more: Any) -> NewUnitReward:
    """A purchase in a store."""
    return NewUnitReward(unit, "purchase", value, id_, **more)


def change(value: float | None, unit: str = "anna", id_: str = "order", **more: Any) -> NewUnitRewardChange:
    """A change of it; None: it is returned."""
    return NewUnitRewardChange(unit, id_, value, "purchase", **more)


def earned(log: EventLog) -> dict[Position, tuple[float, ...]]:
    """What each decision has earned, those without anything left out."""
    ids = {version.experiment.id for version in log.versions()}
    found = [one for id_ in ids for one in log.sealed_decisions(id_, after=Time(0), until=Time(2**60))]
    return {one.position: one.rewards for one in found if one.rewards}


@pytest.mark.parametrize("rule", Attribution)
def test_a_purchase_is_credited_as_the_experiment_says(log: EventLog, clock: Clock, rule: Attribution) -> None:
    """The shop decides what it believes in: the last page, the first, or each; and each gets the whole value."""
    version = apply(log, rule)
    places = []
    for unit in ("anna", "anna", "bert", "anna"):
        places.append(decide(log, version, unit))
        clock.advance(1)
    (mark,) = log.append([buy()])
    assert mark is not None
    chosen = {"first": places[:1], "last": places[3:], "all": [places[0], places[1], places[3]]}[rule]
    assert earned(log) == dict.fromkeys(chosen, (80.0,))
    assert [one.place.position for one in log.credits(mark.position)] == chosen


def test_only_open_windows_count(log: EventLog, clock: Clock) -> None:
    """A purchase long after the page has nothing to do with it; what is sealed was learned."""
    version = apply(log, Attribution.ALL)
    old = decide(log, version)
    clock.advance(6)
    closed, new = decide(log, version), decide(log, version)
    log.append([NewReward(closed, "click", 1.0, final=True)])
    clock.advance(4)
    log.append([buy()])
    assert earned(log) == {closed: (1.0,), new: (80.0,)}
    clock.advance(6)
    (mark,) = log.append([buy(id_="later")])
    assert mark is not None, "it is stored"
    assert log.credits(mark.position) == []
    assert log.refused_rewards() == {("purchase", "no_decision"): 1}
    assert old


def test_where_activation_is_required_only_what_was_shown_is_credited(log: EventLog) -> None:
    """Nobody buys because of a page that was never rendered."""
    version = apply(log, needs_activation=True)
    shown, drawn = decide(log, version), decide(log, version)
    log.append([NewActivation(shown)])
    log.append([buy()])
    assert earned(log) == {shown: (80.0,)}
    assert drawn > shown


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_an_overridden_decision_is_credited_only_where_it_is_learned(
    log: EventLog, required: bool, learned: bool
) -> None:
    """Its action was not shown: what is earned is due to the last decision whose action was."""
    version = apply(log, needs_activation=required, learns_overrides=learned)
    shown, overridden = decide(log, version), decide(log, version)
    log.append([NewActivation(shown), NewActivation(overridden, ActionId("b"))])
    log.append([buy()])
    assert earned(log) == {overridden if learned else shown: (80.0,)}


def test_every_experiment_with_a_rule_is_credited_or_the_one_that_is_named(log: EventLog) -> None:
    """One purchase may be due to a page and to a mail."""
    page, mail, other = apply(log), apply(log, Attribution.FIRST, MAIL), apply(log, None, ExperimentId("other"))
    at = {id_: decide(log, version) for id_, version in ((HOME, page), (MAIL, mail), ("other", other))}
    log.append([buy()])
    assert earned(log) == {at[HOME]: (80.0,), at[MAIL]: (80.0,)}
    log.append([buy(id_="second", value=5.0, experiment=MAIL)])
    assert earned(log) == {at[HOME]: (80.0,), at[MAIL]: (80.0, 5.0)}


def test_an_experiment_that_does_not_take_the_reward_is_left_out(log: EventLog) -> None:
    """A name that it does not know, or a value that it refuses, is no reason to lose the others."""
    names = apply(log, weights={"click": 1.0})
    refuses = apply(log, id_=MAIL, out_of_range=OutOfRange.REFUSE)
    weighs = apply(log, id_=ExperimentId("weighs"), weights={"purchase": 0.5})
    places = [decide(log, version) for version in (names, refuses, weighs)]
    log.append([buy(value=600.0)])
    assert earned(log) == {places[2]: (300.0,)}


def test_the_rule_of_the_newest_decision_counts_for_its_experiment(log: EventLog) -> None:
    """A rule may change while windows are open."""
    first = decide(log, apply(log, Attribution.ALL))
    second = decide(log, apply(log, Attribution.FIRST))
    log.append([buy()])
    assert earned(log) == {first: (80.0,)}
    assert second > first


def test_a_reward_id_counts_once_for_a_person_also_if_the_unit_decided_again(log: EventLog) -> None:
    """The till sends again after a timeout; meanwhile the customer has opened another page."""
    version = apply(log)
    at = decide(log, version)
    log.append([buy()])
    decide(log, version)
    log.append([NewLink("anna", "customer-7")])
    head = log.head()
    assert log.append([buy(), buy("customer-7"), buy(value=1.0)]) == [None] * 3
    assert log.head() == head
    assert earned(log) == {at: (80.0,)}
    assert log.refused_rewards() == {("purchase", "duplicate"): 3}


def test_a_purchase_that_found_no_decision_is_not_credited_to_a_later_one(log: EventLog) -> None:
    """What is shown after a purchase has not caused it, however often the till sends it."""
    version = apply(log)
    log.append([buy()])
    decide(log, version)
    assert log.append([buy()]) == [None]
    assert earned(log) == {}


def test_a_reward_by_decision_and_one_by_unit_with_one_id_are_one(log: EventLog) -> None:
    """The page and the till may both report an order."""
    version = apply(log)
    at = decide(log, version)
    log.append([NewReward(at, "purchase", 80.0, 1.0, "order")])
    assert log.append([buy()]) == [None]
    assert log.append([buy(id_="other"), NewReward(at, "purchase", 80.0, 1.0, "other")])[1] is None
    assert earned(log) == {at: (80.0, 80.0)}


def test_a_purchase_counts_once_whichever_way_it_comes_first(log: EventLog) -> None:
    """The page names one decision, the till the person, whose newest decision is another one: it is one order."""
    version = apply(log)
    old, new = decide(log, version), decide(log, version)
    by_page = NewReward(old, "purchase", 80.0, 1.0, "order")
    assert log.append([buy()])[0] is not None
    assert log.append([by_page]) == [None]
    assert earned(log) == {new: (80.0,)}
    assert log.append([replace(by_page, reward_id="other")])[0] is not None
    assert log.append([buy(id_="other")]) == [None]
    assert earned(log) == {new: (80.0,), old: (80.0,)}
    assert log.refused_rewards() == {("purchase", "duplicate"): 2}
    assert log.check(lambda _: None) == []


SAME_OR_NOT: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[float]]] = {
    "the same": ("anna", {}, {}, [80.0, 80.0]),
    "the page says its last word": ("anna", {"final": True}, {}, [80.0, 80.0]),
    "on another device": ("phone", {}, {}, [80.0, 80.0]),
    "another person": ("bert", {}, {}, [80.0, 80.0, 80.0]),
    "another name": ("anna", {"name": "click"}, {}, [80.0, 80.0, 80.0]),
    "another experiment": ("anna", {}, {"experiment": MAIL}, [80.0, 80.0]),
    "no id": ("anna", {"reward_id": None}, {}, [80.0, 80.0, 80.0]),
}


@pytest.mark.parametrize("case", SAME_OR_NOT)
@pytest.mark.parametrize("page_first", [True, False])
def test_which_purchase_is_the_same_does_not_depend_on_the_order(log: EventLog, case: str, page_first: bool) -> None:
    """By id, person, experiment and name. An experiment that has it is no reason to keep it from another one."""
    unit, of_page, of_till, expected = SAME_OR_NOT[case]
    page, mail = apply(log), apply(log, id_=MAIL)
    log.append([NewLink("anna", "phone")])
    at = decide(log, page, unit)
    decide(log, page), decide(log, mail)
    sent: list[Entry] = [replace(NewReward(at, "purchase", 80.0, 1.0, "order"), **of_page), buy(**of_till)]
    for one in sent if page_first else reversed(sent):
        log.append([one])
    assert [value for values in earned(log).values() for value in values] == expected


def test_a_change_of_a_decision_makes_no_second_purchase(log: EventLog) -> None:
    """A correction by the page must not count beside what the till has sent: it changes that."""
    version = apply(log)
    old, new = decide(log, version), decide(log, version)
    log.append([buy()])
    assert log.append([NewRewardChange(old, "order", 60.0, "purchase")])[0] is not None
    assert earned(log) == {new: (60.0,)}
    assert log.append([NewRewardChange(old, "order", 60.0, "purchase")]) == [None]
    assert log.append([NewRewardChange(old, "order", None, "visit")])[0] is not None, "another reward"
    assert earned(log) == {new: (60.0,)}


@pytest.mark.parametrize("on", ["phone", "anna"])
@pytest.mark.parametrize("name", ["purchase", ANY_NAME])
def test_a_till_takes_back_and_corrects_what_the_page_has_sent(log: EventLog, name: str, on: str) -> None:
    """Goods that were bought on the page are returned in the store; a DUPLICATE that changes nothing would leave them
    a success."""
    page, mail = apply(log), apply(log, id_=MAIL)
    log.append([NewLink("anna", "phone")])
    old = decide(log, page, on)
    new, letter = decide(log, page), decide(log, mail)
    log.append([NewReward(old, "purchase", 80.0, 1.0, "order"), NewReward(new, "visit", 1.0, 1.0, "other")])
    assert [one.name for one in log.by_decision("anna", "order", None)] == ["purchase"]
    assert log.by_decision("anna", "order", MAIL) == log.by_decision("bert", "order", None) == []
    assert log.append([change(60.0, experiment=HOME)])[0] is not None
    assert earned(log) == {old: (60.0,), new: (1.0,)}
    assert log.append([replace(change(None), name=name, experiment=HOME)])[0] is not None
    assert earned(log) == {new: (1.0,)}
    assert log.append([replace(change(None), name=name, experiment=HOME)]) == [None]
    assert log.append([replace(change(None), name="visit", experiment=HOME)])[0] is not None
    assert log.append([buy(experiment=HOME)]) == [None]
    assert earned(log) == {new: (1.0,)}, letter
    assert log.check(lambda _: None) == []


@pytest.mark.parametrize("weights", [{}, {"purchase": 1.0, "visit": 0.1}])
@pytest.mark.parametrize("page_first", [True, False])
def test_a_retraction_without_a_name_crosses_between_page_and_till(
    log: EventLog, page_first: bool, weights: dict[str, float]
) -> None:
    """Queues reorder: whichever way the return is sent, and whatever the name of the purchase will be."""
    version = apply(log, weights=weights)
    old, new = decide(log, version), decide(log, version)
    by_page = NewRewardChange(old, "order", None, ANY_NAME, 0.0 if weights else 1.0)
    by_till = replace(change(None), name=ANY_NAME)
    assert log.append([by_page if page_first else by_till])[0] is not None
    assert log.append([buy() if page_first else NewReward(old, "purchase", 80.0, 1.0, "order")]) == [None]
    assert log.append([buy(), NewReward(old, "purchase", 80.0, 1.0, "order")]) == [None, None]
    assert earned(log) == {}
    log.append([change(60.0)])
    assert earned(log) == ({} if weights else {old if page_first else new: (60.0,)}), "else nobody knows its weight"
    assert log.check(lambda _: None) == []


def test_a_correction_without_a_name_crosses_where_any_name_has_the_same_weight(log: EventLog) -> None:
    """It counts at once; its purchase, whatever its name, must not count beside it."""
    version = apply(log)
    old, new = decide(log, version), decide(log, version)
    log.append([replace(change(20.0), name=ANY_NAME)])
    assert log.append([NewReward(old, "purchase", 80.0, 1.0, "order"), buy()]) == [None, None]
    assert earned(log) == {new: (20.0,)}


def test_an_old_log_learns_that_a_reward_without_a_name_is_any(tmp_path: Path, clock: Clock) -> None:
    """What refuses the second one lies in the log: one from before is changed when it is opened."""
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as log:
        version = apply(log)
        at = decide(log, version)
        (sql,) = log._writer.execute("select sql from sqlite_master where name = 'counted_by_unit'").fetchone()
        log._writer.execute("drop trigger counted_by_unit")
        log._writer.execute(sql.replace("(new.name = '' or u.name in (new.name, ''))", "u.name = new.name"))
        log._writer.execute("delete from _sqlite_migrations where name = 'know_any_name'")
        log.append([replace(change(None), name=ANY_NAME)])
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as log:
        assert log.append([NewReward(at, "purchase", 80.0, 1.0, "order")]) == [None]


def test_without_an_id_each_is_a_reward(log: EventLog) -> None:
    """As for a decision."""
    version = apply(log)
    at = decide(log, version)
    log.append([buy(id_=None), buy(id_=None)])
    assert earned(log) == {at: (80.0, 80.0)}


def test_a_final_purchase_seals_all_that_it_is_credited_to(log: EventLog, clock: Clock) -> None:
    """And later rewards by unit find nothing there."""
    version = apply(log, Attribution.ALL)
    places = [decide(log, version), decide(log, version)]
    (mark,) = log.append([buy(final=True)])
    assert mark is not None
    assert log.seals(places).keys() == set(places)
    assert len(log.credits(mark.position)) == 2
    ends_at = {one.deadline for one in log.sealed_decisions(HOME, after=Time(0), until=Time(2**60))}
    assert ends_at == {clock.now + 1}
    (again,) = log.append([buy(id_="second")])
    assert again is not None
    assert log.credits(again.position) == []


# --- changes


def test_a_change_follows_to_every_decision_that_was_credited(log: EventLog, clock: Clock) -> None:
    """A purchase that is returned in a store was no success anywhere."""
    version = apply(log, Attribution.ALL)
    places = [decide(log, version), decide(log, version)]
    log.append([buy()])
    decide(log, version)
    clock.advance(1)
    log.append([change(60.0)])
    assert earned(log) == dict.fromkeys(places, (60.0,))
    assert log.append([change(60.0)]) == [None]
    log.append([NewLink("anna", "customer-7"), change(None, "customer-7")])
    assert earned(log) == {}


def test_a_change_may_come_before_its_reward(log: EventLog) -> None:
    """Queues reorder."""
    version = apply(log)
    at = decide(log, version)
    log.append([change(60.0)])
    assert log.append([buy()]) == [None]
    assert earned(log) == {at: (60.0,)}
    log.append([change(None, id_="returned")])
    assert log.append([buy(id_="returned")]) == [None]
    assert earned(log) == {at: (60.0,)}


def test_a_late_change_changes_what_is_still_open(log: EventLog, clock: Clock) -> None:
    """Each decision has its own window."""
    version = apply(log, Attribution.ALL)
    old = decide(log, version)
    clock.advance(6)
    new = decide(log, version)
    log.append([buy()])
    clock.advance(5)
    (mark,) = log.append([change(None)])
    assert mark is not None
    assert earned(log) == {old: (80.0,)}
    assert new > old


# --- persons


def test_links_are_transitive_idempotent_and_reach_what_was_decided_before(log: EventLog) -> None:
    """A visitor signs in on a second device: the store knows the customer, the pages knew two visitors."""
    version = apply(log, Attribution.ALL)
    phone, laptop = decide(log, version, "phone"), decide(log, version, "laptop")
    assert None not in log.append([NewLink("phone", "customer"), NewLink("customer", "laptop")])
    again = [NewLink("phone", "customer"), NewLink("customer", "phone"), NewLink("laptop", "phone"), NewLink("x", "x")]
    assert log.append(again) == [None] * 4
    assert log.units_of("laptop") == ["customer", "laptop", "phone"]
    assert log.units_of("nobody") == ["nobody"]
    assert log.persons() == dict.fromkeys(["phone", "laptop", "customer"], "customer")
    log.append([buy("customer")])
    assert earned(log) == {phone: (80.0,), laptop: (80.0,)}


def test_a_person_has_a_bounded_number_of_units(log: EventLog) -> None:
    """One wrong link in a loop must not make everybody one person."""
    log.append([NewLink("0", str(number)) for number in range(1, MOST_UNITS)])
    assert len(log.units_of("0")) == MOST_UNITS
    log.append([NewLink("a", "b")])
    assert log.append([NewLink("0", "one too many"), NewLink("b", "3")]) == [None, None]
    assert len(log.units_of("b")) == 2


def test_an_experiment_without_a_rule_has_the_definition_that_it_had() -> None:
    """Old definitions must not become new versions, and their digests must stay."""
    assert "attribution" not in definition_text(sample_experiment())
    one = sample_experiment(reward=RewardDefinition(attribution=Attribution.FIRST))
    assert from_message(read_json(definition_text(one))) == one


# --- a law over all logs and readers

UNITS = ("anna", "bert", "card", "desk")
moves = st.lists(
    st.tuples(
        st.sampled_from(["decide", "decide", "decide", "buy", "buy", "change", "link", "activate", "close", "reward"]),
        st.integers(0, 3),  # unit
        st.integers(0, 3),  # another unit, experiment, order or decision
        st.sampled_from([0, 0, 1, 4]),  # seconds before it
    ),
    max_size=22,
)


class Brute:
    """What is right, in a few lines, from the rules in words alone."""

    def __init__(self, rules: Sequence[Attribution], activation: bool) -> None:
        self.rules, self.activation = rules, activation
        self.person = {unit: {unit} for unit in UNITS}
        self.decisions: list[dict[str, Any]] = []
        self.orders: dict[tuple[str, ...], list[dict[str, Any]]] = {}

    def open(self, at: int, units: set[str], experiment: int | None = None) -> list[dict[str, Any]]:
        """Those that a reward can reach."""
        return [
            one
            for one in self.decisions
            if one["unit"] in units and at < one["time"] + WINDOW and not one["closed"]
            and experiment in (None, one["experiment"]) and (one["activated"] or not self.activation)
            and not one["overridden"]
        ]  # fmt: skip

    def told(self, at: int, units: set[str], order: str, experiment: int | None) -> set[int]:
        """The experiments that have an order by a decision."""
        return {
            one["experiment"]
            for one in self.decisions
            if one["unit"] in units and at < one["time"] + WINDOW and order in one["rewards"]
            and experiment in (None, one["experiment"])
        }  # fmt: skip

    def by_unit(self, one: dict[str, Any], order: str) -> bool:
        """Whether the experiment of a decision has an order by unit."""
        return any(
            who in self.person[one["unit"]]
            and id_ == order
            and one["experiment"] in {c["experiment"] for c in credited}
            for (who, id_), credited in self.orders.items()
        )

    def known(self, unit: str, order: str) -> list[dict[str, Any]] | None:
        """To which an order was credited; None: it has not come."""
        found = [credited for (who, id_), credited in self.orders.items() if who in self.person[unit] and id_ == order]
        return found[-1] if found else None

    def buy(self, at: int, unit: str, order: str, value: float, experiment: int | None = None) -> None:
        """An order."""
        if self.known(unit, order) is not None:
            return
        chosen = []
        for number, rule in enumerate(self.rules):
            ours = self.open(at, self.person[unit], number)
            ours = ours if experiment in (None, number) else []
            chosen += {"first": ours[:1], "last": ours[-1:], "all": ours}[rule]
        told = self.told(at, self.person[unit], order, experiment)
        new = [one for one in chosen if one["experiment"] not in told]
        if (chosen or told) and not new:
            return
        self.orders[unit, order] = new
        for one in new:
            one["rewards"][order] = value

    def change(self, at: int, unit: str, order: str, value: float | None) -> None:
        """What it is worth from here on."""
        if self.known(unit, order) is None:
            self.buy(at, unit, order, value or 0.0)
        of_page = [
            one
            for one in self.decisions
            if one["unit"] in self.person[unit] and at < one["time"] + WINDOW and order in one["by page"]
        ]
        for one in [*(self.known(unit, order) or []), *of_page]:
            if at < one["time"] + WINDOW and not one["closed"] and (order, value) not in one["changes"]:
                one["rewards"][order] = value
            one["changes"].add((order, value))

    def link(self, unit: str, other: str) -> None:
        """One person."""
        both = self.person[unit] | self.person[other]
        self.person |= dict.fromkeys(both, both)


def play(log: EventLog, clock: Clock, brute: Brute, script: Sequence[tuple[Any, ...]]) -> None:
    """Carry it out on a log and on the rules in words; compare."""
    versions = [
        apply(log, rule, id_, needs_activation=brute.activation)
        for rule, id_ in zip(brute.rules, (HOME, MAIL), strict=True)
    ]
    for number, (kind, first, second, wait) in enumerate(script):
        clock.advance(wait)
        unit, other, at = UNITS[first], UNITS[second], clock.now
        order, one = f"order-{second}", brute.decisions[second % len(brute.decisions)] if brute.decisions else None
        entries: list[Entry] = []
        match kind:
            case "decide":
                position = decide(log, versions[second % 2], unit)
                fresh = {"unit": unit, "experiment": second % 2, "time": at, "position": position}
                brute.decisions.append(
                    fresh
                    | {"closed": False, "activated": False, "overridden": False, "rewards": {}, "changes": set()}
                    | {"by page": set()}
                )
            case "buy":
                experiment = [None, HOME, MAIL][number % 3]
                brute.buy(at, unit, order, number, [None, 0, 1][number % 3])
                entries = [buy(unit, number, order, experiment=experiment)]
            case "change":
                value = None if number % 2 else 0.5
                brute.change(at, unit, order, value)
                entries = [change(value, unit, order)]
            case "link" if unit != other:
                brute.link(unit, other)
                entries = [NewLink(unit, other)]
            case "activate" if one and at < one["time"] + WINDOW and not one["closed"]:
                action = None if one["overridden"] or number % 3 else ActionId("b")
                one["overridden"] |= action is not None and not one["activated"]
                one["activated"] = True
                entries = [NewActivation(one["position"], action)]
            case "close" | "reward" if one:
                if at < one["time"] + WINDOW and not one["closed"]:
                    entries = [NewReward(one["position"], "purchase", 7.0, 1.0, order, final=kind == "close")]
                    if not brute.by_unit(one, order):
                        one["by page"] |= {order} - {*one["rewards"]}
                        one["rewards"].setdefault(order, 7.0)
                        one["closed"] = kind == "close" and one["rewards"][order] == 7.0
        log.append(entries)
        for person in UNITS:
            assert log.units_of(person) == sorted(brute.person[person])
    assert log.persons() == {unit: min(units) for unit, units in brute.person.items() if len(units) > 1}
    clock.advance(100)
    log.append([Tick()])
    expected = {one["position"]: sorted(v for v in one["rewards"].values() if v is not None) for one in brute.decisions}
    assert {at: sorted(rewards) for at, rewards in earned(log).items()} == {at: v for at, v in expected.items() if v}


@settings(max_examples=80)
@given(
    script=moves,
    rules=st.tuples(st.sampled_from(Attribution), st.sampled_from(Attribution)),
    activation=st.booleans(),
)
def test_attribution_is_what_the_rules_in_words_say(
    script: list[tuple[Any, ...]], rules: tuple[Attribution, Attribution], activation: bool
) -> None:
    """On both logs, in the totals, after archive and restore."""
    with TemporaryDirectory() as folder:
        path, clock, other_clock = Path(folder) / "log.db", Clock(), Clock()
        memory = MemoryLog(clock=other_clock)
        with closing(SqliteLog(path, clock=clock)) as log:
            play(log, clock, Brute(rules, activation), script)
            play(memory, other_clock, Brute(rules, activation), script)
            assert list(log.rewards_between("", "z")) == list(memory.rewards_between("", "z"))
            start = Mark(START, Time(0))
            assert plain(log.totals(start, log.head().mark)) == plain(memory.totals(start, memory.head().mark))
            assert log.refused_rewards() == memory.refused_rewards()
            assert [log.credits(Position(at)) for at in range(log.head().position)] == [
                memory.credits(Position(at)) for at in range(memory.head().position)
            ]
            assert log.check(lambda _: None) == []
            before, persons = earned(log), log.persons()
        archive(path, Path(folder) / "archive", [ends(path)[-1]])
        with closing(open_reader(Path(folder) / "archive")) as restored:
            assert earned(restored) == before  # type: ignore[arg-type]
            assert restored.persons() == persons
            assert restored.check(lambda _: None) == []
