"""Tables and lines of a drive, and their order in the terminal. Called by `simulator drive` and by its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.console import RenderableType
from rich.text import Text

from decider.text import count, figure, percent
from simulator.drive.earnings import Earnings
from simulator.drive.latency import Percentiles
from simulator.drive.reconcile import SentCounts
from simulator.drive.result import DriveResult
from simulator.report.table import Cell, Column, Facts, Table, facts_in_terminal, in_terminal

Sent = tuple[str, SentCounts]
Calls = tuple[str, Percentiles]
"""What was sent or called, by its name."""


def terminal_parts(result: DriveResult) -> Iterator[RenderableType]:
    """Sent against logged and the verdict; latencies, rate and kills; what was earned beside what others would have."""
    yield Text(log_line(result))
    yield in_terminal(counts_table(result))
    yield facts_in_terminal(reward_facts(result))
    yield Text(answers(result))
    yield Text(verdict(result))
    yield from (Text(f"  {example}") for example in result.reconciliation.examples)
    yield Text(f"\nDecisions are measured from {measured_from(result)}, rewards from when each was due")
    yield in_terminal(latency_table(result))
    yield from map(Text, pace_lines(result))
    if result.earned:
        yield Text(f"\n{estimand(result.earned)}")
        yield in_terminal(rewards_table(result.earned))
        yield facts_in_terminal(earned_facts(result.earned))


def log_line(result: DriveResult) -> str:
    """With what the answers were compared."""
    if log := result.reconciliation.log:
        return f"Sent against the log {log}"
    return "Sent against answered; the log itself was not read: give --db"


def counts_table(result: DriveResult) -> Table[Sent]:
    """What was sent against what is in the log."""
    told = result.reconciliation
    columns: Sequence[Column[Sent]] = (
        Column("What", lambda row: row[0], "name"),
        Column("Sent", lambda row: count(row[1].sent), "number"),
        Column("Acknowledged", lambda row: count(row[1].acknowledged), "number"),
        Column("In the log", lambda row: count(row[1].logged) if told.log else "-", "number"),
    )
    return Table("", columns, [("decisions", told.decisions), ("rewards", told.rewards)])


def reward_facts(result: DriveResult) -> Facts:
    """What became of the rewards on their way, on purpose."""
    fate = result.rewards
    return {
        "Rewards that happened": Cell(count(fate.happened)),
        "Lost on the way": Cell(count(fate.lost), note="never sent, on purpose"),
        "Sent late": Cell(count(fate.late)),
        "Sent twice": Cell(count(fate.duplicate)),
        "Out of order": Cell(count(fate.reordered)),
        "Servers killed": Cell(count(len(result.kills)), note="SIGKILL"),
    }


def answers(result: DriveResult) -> str:
    """How the server answered the rewards."""
    return f"Answers to rewards: {_join(result.reconciliation.outcomes)}"


def _join(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count(n)} {name}" for name, n in counts.items())


def verdict(result: DriveResult) -> str:
    """One plain line, for scripts, too."""
    told = result.reconciliation
    return f"lost {told.lost}, doubled {told.doubled}, different {told.different}"


def latency_table(result: DriveResult) -> Table[Calls]:
    """Of the calls, in milliseconds; from when they were due, where they had a time."""
    columns: Sequence[Column[Calls]] = (
        Column("Milliseconds", lambda row: row[0], "name"),
        Column("Calls", lambda row: count(row[1].calls), "number"),
        Column("p50", lambda row: _ms(row[1].p50), "number"),
        Column("p90", lambda row: _ms(row[1].p90), "number"),
        Column("p99", lambda row: _ms(row[1].p99), "number"),
        Column("p99.9", lambda row: _ms(row[1].p99_9), "number"),
        Column("Longest", lambda row: _ms(row[1].max), "number"),
    )
    return Table("", columns, list(calls_of(result).items()))


def calls_of(result: DriveResult) -> dict[str, Percentiles]:
    """Those that were made, by name.

    >>> from simulator.drive.example import example_result
    >>> list(calls_of(example_result()))
    ['Decide', 'rewards']
    """
    decides = "Decide" if result.batch == 1 else f"DecideBatch of {result.batch}"
    both = {decides: result.decide, "rewards": result.reward}
    return {name: one for name, one in both.items() if one}


def measured_from(result: DriveResult) -> str:
    """The moment from which a decision's latency counts.

    >>> from simulator.drive.example import example_result
    >>> measured_from(example_result())
    'when each call was due'
    """
    return "when each call was due" if result.rate else "sending, as each client waits for its answer"


def _ms(seconds: float) -> str:
    return figure(1000 * seconds)


def pace_lines(result: DriveResult) -> Iterator[str]:
    """The rate, errors and kills."""
    wanted = f" of {figure(result.rate)} wanted" if result.rate else ""
    clients = f"{count(result.clients)} client{'s' * (result.clients != 1)}"
    yield f"{figure(result.achieved)} decisions per second{wanted}, by {clients}"
    if result.errors:
        yield f"Attempts that failed and were sent again with the same ids: {_join(result.errors)}"
    if result.kills:
        times = ", ".join(figure(round(kill.back, 1)) for kill in result.kills)
        yield f"Seconds from each SIGKILL until the next decision was acknowledged: {times}"


class Chooser(NamedTuple):
    """Who would have earned how much per visit."""

    name: str
    reward: float


def choosers(found: Earnings) -> tuple[Chooser, ...]:
    """This drive, and what it is compared with."""
    return (
        Chooser("this drive", found.earned),
        Chooser("best action of every visit", found.best),
        Chooser(f"best single action ({found.fixed_action})", found.fixed),
        Chooser("uniform choice", found.uniform),
    )


def estimand(found: Earnings) -> str:
    """What the rewards are."""
    return (
        "Estimand: mean reward per visit, by the world's true means of the actions that were drawn, "
        f"in {count(found.visits)} visits"
    )


def rewards_table(found: Earnings) -> Table[Chooser]:
    """Beside what others would have earned on the same visits."""
    columns: Sequence[Column[Chooser]] = (
        Column("Who chooses", lambda one: one.name, "name"),
        Column("Reward/visit", lambda one: figure(one.reward), "number"),
        Column("Regret/visit", lambda one: figure(found.best - one.reward), "number"),
    )
    return Table("", columns, choosers(found), look=lambda one: "" if one.name == "this drive" else "logged")


def earned_facts(found: Earnings) -> Facts:
    """How near it came to the best."""
    return {
        "Share of the attainable lift": Cell(percent(found.share)),
        "A best action was drawn": Cell(percent(found.right), note="of the visits"),
    }
