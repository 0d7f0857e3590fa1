"""Tables of runs, and their order in the terminal: what each policy earned of what could be earned, over all visits and
at the end. Called by `simulator run` and by its page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from decider.text import between, count, figure, percent
from simulator.report.table import Cell, Column, Facts, Table, in_terminal, sparkline
from simulator.run.result import LEARNS, SINGLE, Band, Figures, PolicyRuns, WorldRuns


def terminal_parts(found: WorldRuns) -> Iterator[RenderableType]:
    """Both tables, and what must be known to read them."""
    yield Text(f"{found.world}: {found.line}", "bold")
    yield Text(conditions(found))
    yield in_terminal(whole_table(found))
    yield in_terminal(last_fifth_table(found))
    for policy in found.policies:
        if not policy.reference:
            yield Text(f"{policy.name}: {against_single(policy)}")
    yield Text(f"{found.seconds:.1f} s", "dim")


def conditions(found: WorldRuns) -> str:
    """Under which all of it was played.

    >>> from simulator.run.example import example_result
    >>> conditions(example_result()).split("; ")[1:]
    ['200 visits x 2 seeds', 'rewards are learned when their window ends.']
    """
    seeds = len(found.seeds)
    learned = "when their window ends" if found.delayed else "at once"
    fitted = f" The world's means are fitted to {found.fitted}: they are no truth." if found.fitted else ""
    return (
        f"Estimand: {LEARNS}; {found.rounds:,} visits x {seeds} seed{'s' * (seeds > 1)}; "
        f"rewards are learned {learned}.{fitted}"
    )


def against_single(policy: PolicyRuns) -> str:
    """When it has paid to have more than one action.

    >>> from simulator.run.example import example_result
    >>> against_single(example_result().policies[2])
    'beats the best single action after 2 decisions'
    """
    if policy.beats_single_after is None:
        return f"does not beat the {SINGLE} by its mean reward so far"
    many = policy.beats_single_after
    return f"beats the {SINGLE} after {many:,} decision{'s' * (many > 1)}"


def run_facts(found: WorldRuns) -> Facts:
    """How much was played. Only on the page: the conditions above the terminal's tables say it."""
    return {
        "Visits": Cell(count(found.rounds), note="of each seed"),
        "Seeds": Cell(count(len(found.seeds)), note="each with other visitors"),
        "Policies": Cell(count(sum(not one.reference for one in found.policies))),
    }


def whole_table(found: WorldRuns) -> Table[PolicyRuns]:
    """What was earned in all visits, and the share of the lift while they came."""
    so_far: Column[PolicyRuns] = Column(
        "Share of lift so far", lambda one: sparkline(one.curve.share.mean), narrow="joined"
    )
    return _table(f"All {count(found.rounds)} visits", found, lambda one: one.whole, so_far)


def last_fifth_table(found: WorldRuns) -> Table[PolicyRuns]:
    """The same of the last visits, when much has been learned."""
    return _table(f"The last {count(found.policies[0].last_fifth.visits)} visits", found, lambda one: one.last_fifth)


def _table(
    title: str, found: WorldRuns, of: Callable[[PolicyRuns], Figures], *more: Column[PolicyRuns]
) -> Table[PolicyRuns]:
    bands = "95 % intervals over seeds" if len(found.seeds) > 1 else "one seed: no intervals"
    columns: Sequence[Column[PolicyRuns]] = (
        Column("Policy", lambda one: Cell(label(one), note="for comparison" if one.reference else ""), "name"),
        *more,
        Column("Reward/visit", lambda one: _cell(of(one).reward, figure), "number"),
        Column("Share of lift", lambda one: _cell(of(one).share, _percent), "number"),
        Column("Best action", lambda one: _cell(of(one).right, _percent), "number"),
        Column("Regret/visit", lambda one: _cell(of(one).regret, figure), "number"),
        Column("Total regret", lambda one: _cell(of(one).total_regret, figure), "number"),
    )
    return Table(f"{title}, {bands}", columns, found.policies, look=lambda one: "logged" if one.reference else "")


def label(policy: PolicyRuns) -> str:
    """Its name; that of the uniform choice in words.

    >>> from simulator.run.example import example_result
    >>> label(example_result().policies[0])
    'uniform choice'
    """
    return "uniform choice" if policy.reference and policy.name == "uniform" else policy.name


def _cell(band: Band | None, written: Callable[[float], str]) -> Cell:
    """The mean, and half of its band; both ends where a limit cuts one of them."""
    if band is None:
        return Cell("-")
    if band.low is None or band.high is None:
        return Cell(written(band.mean))
    down, up = band.mean - band.low, band.high - band.mean
    even = math.isclose(down, up, rel_tol=1e-6, abs_tol=1e-9)
    return Cell(written(band.mean), f"±{written(up)}" if even else between(band.low, band.high, written=written))


def _percent(x: float) -> str:
    """To a tenth of a percent: smaller differences are noise."""
    return percent(round(x, 3))
