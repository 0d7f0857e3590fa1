"""Drive a live server with the uniformly logged visitors of the Open Bandit Dataset, by rejection replay.

Where the server chooses the item that was logged, its logged click is what the visitor would have done: it is sent and
the row counts. Elsewhere nobody knows; there the server is told that the logged item was shown, so that it learns
nothing from its own choice. Over uniformly logged rows the rows that match are an unbiased sample of what the policy
would have met (Li, Chu, Langford and Wang, WSDM 2011, theorem 1). Called by `simulator drive open-bandit`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decider.client import Client
from decider.types import Features
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.datasets import open_bandit
from simulator.datasets.open_bandit import Row, action_id, context
from simulator.drive.target import TIMEOUT, failures
from simulator.drive.target import apply as apply_experiment

WINDOW = 1
"""Seconds. Short, so that the policy learns while the rows are sent; the answer to a decision follows at once."""


@dataclass(slots=True)
class Pass:
    """What was counted while the rows were sent once: the rows and their clicks, and those that matched.

    late: answers that may have come after the window; such a decision can have been learned with reward 0.
    """

    rows: int = 0
    clicks: int = 0
    matched: int = 0
    matched_clicks: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class DriveSummary:
    """experiment: its id. had_learned: the policy knew this experiment before the first row was sent."""

    experiment: str
    had_learned: bool
    passes: list[Pass]


def experiment(campaign: str) -> experiment_pb2.Experiment:
    """The campaign's items as actions of an experiment like `open-bandit-random-men`, with the default policy."""
    return experiment_pb2.Experiment(
        id=f"open-bandit-{campaign.replace('/', '-')}",
        description=f"Open Bandit Dataset, small sample, {campaign} (CC BY 4.0), by rejection replay",
        actions=[_action(item, features) for item, features in open_bandit.items(campaign).items()],
        reward=reward(),
    )


def reward() -> experiment_pb2.RewardDefinition:
    """A click is worth 1, in the window."""
    return experiment_pb2.RewardDefinition(window=Duration(seconds=WINDOW), weights={"click": 1.0})


def _action(item: int, features: Features) -> experiment_pb2.Action:
    action = experiment_pb2.Action(id=action_id(item), kind="content")
    action.features.update(features)
    return action


def apply(target: str, definition: experiment_pb2.Experiment) -> bool:
    """Make the experiment run; whether it had learned anything before. Raises DriveFailed."""
    return bool(apply_experiment(target, definition).applied.model)


def send(
    client: Client,
    experiment_id: str,
    rows: Sequence[Row],
    *,
    name: str = "pass-1",
    on_row: Callable[[], None] = lambda: None,
) -> Pass:
    """Send the rows once, one after the other; `name` tells the units of one pass from those of another."""
    counted = Pass()
    for number, row in enumerate(rows, start=1):
        started = time.monotonic()
        reply = client.decide(experiment_id, f"{name}-row-{number}", features=context(row))
        matched = _answer(client, reply, row)
        _count(counted, row, matched=matched, late=time.monotonic() - started >= WINDOW)
        on_row()
    return counted


def _answer(client: Client, reply: pb.DecideResponse, row: Row) -> bool:
    """The logged click if the logged item was chosen; otherwise that the logged item was shown instead."""
    shown = action_id(row.item_id)
    matched = reply.action.id == shown
    # By the stub, which raises: the client's own methods would go on without an answer, and send it later.
    if matched:
        request = pb.RewardRequest(decision_id=reply.decision_id, name="click", value=row.click)
        client.stub.Reward(request, timeout=TIMEOUT)
    else:
        client.stub.Activate(pb.ActivateRequest(decision_id=reply.decision_id, action=shown), timeout=TIMEOUT)
    return matched


def _count(counted: Pass, row: Row, *, matched: bool, late: bool) -> None:
    counted.rows += 1
    counted.clicks += row.click
    counted.matched += matched
    counted.matched_clicks += matched * row.click
    counted.late += late


def drive(target: str, campaign: str, *, passes: int, limit: int | None, console: Console) -> DriveSummary:
    """Apply the campaign's experiment and send its rows (the first `limit`), with a progress bar.

    Raises DriveFailed or DatasetError.
    """
    definition = experiment(campaign)
    rows = open_bandit.load(campaign)[:limit]
    had_learned = apply(target, definition)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with failures(target), Client(target, timeout=TIMEOUT) as client, Progress(*columns, console=console) as progress:
        task = progress.add_task("visitors", total=passes * len(rows))
        counted = [
            send(client, definition.id, rows, name=f"pass-{number}", on_row=lambda: progress.advance(task))
            for number in range(1, passes + 1)
        ]
    return DriveSummary(definition.id, had_learned, counted)


def summary(driven: DriveSummary) -> str:
    """One plain line.

    >>> summary(DriveSummary("open-bandit-random-men", False, [Pass(rows=9, matched=2, matched_clicks=1)]))
    'matched 2 of 9 rows, 1 clicks'
    """
    matched = sum(counted.matched for counted in driven.passes)
    rows = sum(counted.rows for counted in driven.passes)
    clicks = sum(counted.matched_clicks for counted in driven.passes)
    return f"matched {matched} of {rows} rows, {clicks} clicks"
