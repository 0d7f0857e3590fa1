"""A drive's result in the terminal. Called by the command."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from simulator.drive.earned import Earned
from simulator.drive.latency import SHOWN, Percentiles
from simulator.drive.result import Result
from simulator.text import figure, percent


def shown(result: Result) -> Iterator[RenderableType]:
    """Line by line."""
    yield from reconciliation(result)
    yield from latencies(result)
    yield from calls(result)
    if result.earned:
        yield from earned(result.earned)


def reconciliation(result: Result) -> Iterator[RenderableType]:
    """Sent against logged, and the verdict."""
    told, fate = result.reconciliation, result.rewards
    logged = ["logged"] if told.log else []
    yield f"Sent against {told.log}" if told.log else "Sent against answered; the log itself was not read: give --db"
    table = _table("sent", "acknowledged", *logged)
    for name, tally in (("decisions", told.decisions), ("rewards", told.rewards)):
        table.add_row(name, *map(str, [tally.sent, tally.acknowledged, tally.logged][: 2 + len(logged)]))
    yield table
    answers = ", ".join(f"{count} {name}" for name, count in told.outcomes.items())
    yield (
        f"{fate.happened} rewards happened: {fate.lost} lost on the way, {fate.late} sent late, "
        f"{fate.duplicate} twice, {fate.reordered} out of order; answers: {answers}"
    )
    yield verdict(result)
    yield from (f"  {example}" for example in told.examples)


def verdict(result: Result) -> str:
    """One plain line, for scripts, too."""
    told = result.reconciliation
    return f"lost {told.lost}, doubled {told.doubled}, different {told.different}"


def latencies(result: Result) -> Iterator[RenderableType]:
    """Of the calls, in milliseconds; from when they were due, where they had a time."""
    yield f"\nLatency in ms: of decisions from {measured_from(result)}; of rewards from when each was due"
    table = _table("calls", *(name.replace("_", ".") for name in SHOWN))
    for name, found in ((call_name(result), result.decide), ("rewards", result.reward)):
        if found:
            table.add_row(name, str(found.calls), *_milliseconds(found))
    yield table


def measured_from(result: Result) -> str:
    """The moment from which a decision's latency counts.

    >>> from simulator.drive.example import found
    >>> measured_from(found())
    'when each call was due'
    """
    return "when each call was due" if result.rate else "sending, as each client waits for its answer"


def call_name(result: Result) -> str:
    """Of the call that decides.

    >>> from simulator.drive.example import found
    >>> call_name(found())
    'Decide'
    """
    return "Decide" if result.batch == 1 else f"DecideBatch of {result.batch}"


def _milliseconds(found: Percentiles) -> list[str]:
    return [figure(1000 * getattr(found, name)) for name in SHOWN]


def calls(result: Result) -> Iterator[str]:
    """The rate, errors and kills."""
    wanted = f" of {figure(result.rate)} wanted" if result.rate else ""
    yield f"{figure(result.achieved)} decisions a second{wanted}"
    if result.errors:
        told = ", ".join(f"{count} {name}" for name, count in result.errors.items())
        yield f"attempts that failed and were sent again with the same ids: {told}"
    if result.kills:
        times = ", ".join(f"{figure(round(kill.back, 1))}" for kill in result.kills)
        yield f"SIGKILL {len(result.kills)} times; seconds until the next decision was acknowledged: {times}"


def earned(found: Earned) -> Iterator[RenderableType]:
    """Beside what others would have earned on the same visits."""
    yield f"\nReward a visit, by the world's true means of what was chosen in {found.visits} visits"
    table = _table("reward", "regret")
    for name, reward in beside(found):
        table.add_row(name, figure(reward), figure(found.best - reward))
    yield table
    share = "" if math.isnan(found.share) else f"share of the attainable lift {percent(found.share)}, "
    yield f"{share}a best action in {percent(found.right)} of the visits"


def beside(found: Earned) -> tuple[tuple[str, float], ...]:
    """Who would have earned how much a visit; this drive first.

    >>> from simulator.drive.example import found
    >>> [name for name, _ in beside(found().earned)][:2]
    ['this drive', 'best action of every visit']
    """
    return (
        ("this drive", found.earned),
        ("best action of every visit", found.best),
        (f"best single action ({found.fixed_action})", found.fixed),
        ("an even choice", found.uniform),
    )


def _table(*headings: str) -> Table:
    table = Table("", box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
