"""Requests of every shape, and logs from which a server starts as if it had served for long. Called by `bench.py` and
`growth.py`.

A log is written without a server, with a clock of its own: some decisions' windows are over when the server starts, so
that its model knows something; those of others end a few at a time while it is measured, so that it publishes a new
model in every round of learning although nothing of the load itself is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

from decider.decide.slots import SLOTS, uniform_slots
from decider.experiment.definition import ExperimentVersion
from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.protocol import EventLog, NewReward
from decider.types import (
    CONTEXT_FIELDS,
    NO_FEATURES,
    ActionId,
    Context,
    Decision,
    DecisionId,
    Features,
    Position,
    Reason,
    Time,
    now,
)
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.worlds.scenes import storefront

ID = "bench"
FIELD_VALUES = 20
"""Of each of five fields, where no context comes twice."""

LESSONS = 1_000
A_COMMIT = 250
REWARD_ONE_IN = 10
TRICKLE_WINDOW = 600
"""Seconds of the reward window of what is learned before and beside the load."""

TRICKLE = 20
"""Decisions per second whose windows end while the server is measured."""

SECOND = 1_000_000


class Question(NamedTuple):
    """What a Decide is about. action_features: those of the call."""

    context: Context
    action_features: Mapping[ActionId, Features] = MappingProxyType({})


Ask = Callable[[Random, Sequence[ActionId]], Question]
"""A question about an experiment with these actions."""


def storefront_visitor(random: Random, _: Sequence[ActionId]) -> Question:
    """Five categories; 816 different contexts, some much more often than others."""
    return Question(storefront.visitor(random))


def never_twice(random: Random, _: Sequence[ActionId]) -> Question:
    """Five categories of 20 values each: 3.2 million contexts, all as often."""
    values = (f"value-{random.randrange(FIELD_VALUES)}" for _ in CONTEXT_FIELDS)
    return Question(Context._make([*values, NO_FEATURES]))


def three_numbers(random: Random, _: Sequence[ActionId]) -> Question:
    """A visitor, and three numbers."""
    numbers: Features = {name: round(random.random(), 6) for name in ("basket", "age", "visits")}
    return Question(storefront.visitor(random)._replace(features=numbers))


def priced_actions(random: Random, actions: Sequence[ActionId]) -> Question:
    """A visitor, and two features of each action that only the call knows."""
    known: dict[ActionId, Features] = {
        action: {"price": round(random.random(), 3), "stock": random.choice(("low", "high"))} for action in actions
    }
    return Question(storefront.visitor(random), known)


Declare = Callable[[experiment_pb2.Experiment], None]
"""Adds something to an experiment."""


def nothing(_: experiment_pb2.Experiment) -> None:
    """Adds nothing."""


def experiment(id_: str = ID, *, actions: int, window: float) -> experiment_pb2.Experiment:
    """With the default policy."""
    made = experiment_pb2.Experiment(id=id_)
    made.reward.window.FromMicroseconds(round(window * SECOND))
    made.reward.weights["click"] = 1.0
    for number in range(actions):
        made.actions.add(id=f"action-{number}").payload.update({"title": f"Title {number}"})
    return made


def request(question: Question, *, number: int, experiment_id: str = ID) -> pb.DecideRequest:
    """Of a unit of its own."""
    context = question.context
    made = pb.DecideRequest(
        experiment=experiment_id,
        unit_id=f"visitor-{number:x}",
        context=pb.Context(
            segment=context.segment,
            device=context.device,
            channel=context.channel,
            location=context.location,
            intent_stage=context.intent_stage,
        ),
    )
    if context.features:
        made.context.features.update(context.features)
    for action, features in question.action_features.items():
        made.action_features[action].update(features)
    return made


def requests(ask: Ask, *, actions: int, count: int, seed: int = 2) -> list[pb.DecideRequest]:
    """As many different ones."""
    random, ids = Random(seed), [ActionId(f"action-{number}") for number in range(actions)]
    return [request(ask(random, ids), number=random.getrandbits(40)) for _ in range(count)]


class SetClock:
    """Log time, as it is set."""

    def __init__(self, time: Time) -> None:
        self.time = time

    def __call__(self) -> Time:
        return self.time


def decisions(version: ExperimentVersion, ask: Ask, *, prefix: str, seed: int = 1) -> Iterator[Decision]:
    """Drawn uniformly, without end."""
    random, actions = Random(seed), [action.id for action in version.experiment.actions]
    pmf = uniform_slots(len(actions))
    number = 0
    while True:
        drawn, question = random.randrange(len(actions)), ask(random, actions)
        yield Decision(
            decision_id=DecisionId(f"{prefix}-{number}"),
            version=version.position,
            unit_id=f"visitor-{random.getrandbits(40):x}",
            context=question.context,
            eligible=tuple(actions),
            action_features=question.action_features,
            pmf=pmf,
            action=actions[drawn],
            propensity=pmf[drawn] / SLOTS,
            reason=Reason.EXPLORE,
            model=Position(0),
        )
        number += 1


def append(log: EventLog, entries: Sequence[Decision]) -> None:
    """In one commit; one in ten gets a reward, in the next."""
    marks = [mark for mark in log.append(entries) if mark]
    log.append([NewReward(mark.position, "click", 1.0) for mark in marks[::REWARD_ONE_IN]])


def write_log(
    db: Path,
    ask: Ask,
    *,
    actions: int,
    window: float,
    trickle: float,
    open_decisions: int = 0,
    declare: Declare = nothing,
    beside: Declare = nothing,
) -> None:
    """A log of one experiment. window: of what the load decides. trickle: seconds from now on in which windows of older
    decisions end. open_decisions: so many decisions, `open-0` and so on, wait for their rewards. declare: what the
    experiment has more; beside: what an experiment `beside`, which gets no calls, has more."""
    begin = now()
    clock = SetClock(Time(begin - 2 * TRICKLE_WINDOW * SECOND))
    with closing(open_log(db, clock=clock)) as log:
        old = Versions(log).apply(from_message(experiment(actions=actions, window=TRICKLE_WINDOW))).version
        made = decisions(old, ask, prefix="lesson")
        _append_all(log, islice(made, LESSONS))
        for number in range(round(trickle * TRICKLE)):
            clock.time = Time(begin - TRICKLE_WINDOW * SECOND + number * SECOND // TRICKLE)
            log.append([next(made)])
        clock.time = begin
        served, idle = experiment(actions=actions, window=window), experiment("beside", actions=actions, window=window)
        declare(served)
        beside(idle)
        new = Versions(log).apply(from_message(served)).version
        if beside is not nothing:
            Versions(log).apply(from_message(idle))
        for batch in _batches(islice(decisions(new, ask, prefix="open"), open_decisions)):
            log.append(batch)


def _append_all(log: EventLog, made: Iterable[Decision]) -> None:
    for batch in _batches(made):
        append(log, batch)


def _batches(made: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(made)
    while batch := list(islice(iterator, A_COMMIT)):
        yield batch
