"""Checks of a log and of a candidate on it: the verdict first, in words and in colour.

Called by `simulator inspect`, by the tables of an evaluation and by its page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from decider.text import between, count, duration, figure, percent, printable
from simulator.evaluate.answer import log_answer
from simulator.evaluate.result import Diagnostics, Finding, LogSummary, Verdict
from simulator.evaluate.verdicts import by_severity
from simulator.report.table import STYLES, Cell, Column, Facts, Table, estimate, facts_in_terminal, in_terminal

FINDINGS: Sequence[Column[Finding]] = (
    Column("Verdict", lambda one: Cell(one.verdict, tone=one.verdict), "verdict"),
    Column("Check", lambda one: one.name.replace("_", " "), "name"),
    Column("Found", lambda one: f"{one.text} Needed: {one.needed}" if one.needed else one.text, "prose"),
)


def findings_table(findings: Iterable[Finding]) -> Table[Finding]:
    """One row a check, the worst first: verdict, name, what was found and what logging would be needed."""
    return Table("", FINDINGS, by_severity(findings))


def log_facts(log: LogSummary) -> Facts:
    """A log's figures."""
    mean = estimate(log.mean_reward, log.mean_reward_low, log.mean_reward_high)
    holdout = log.holdout
    control = estimate(holdout.estimate.value, holdout.estimate.low, holdout.estimate.high) if holdout else None
    return {
        "Decisions": Cell(count(log.decisions), note=f"over {duration(3600 * log.hours)}"),
        "Units": Cell(count(log.units), note="visitors, customers or devices"),
        "Actions": Cell(count(log.actions)),
        "Mean reward as logged": mean,
        **({"Control group": control} if control else {}),
        "A reward lies in": Cell(between(*log.reward_range)),
    }


def candidate_facts(diagnostics: Diagnostics, decisions: int, *, rows: str = "decisions") -> Facts:
    """How much of the log the candidate can use. rows: what is weighted, in words."""
    return {
        "Effective sample size": Cell(figure(diagnostics.ess), note=f"of {count(decisions)} {rows}"),
        "Effective successes": Cell(figure(diagnostics.effective_successes)),
        "Largest weight": Cell(figure(diagnostics.max_weight), note=f"possible: {figure(diagnostics.possible_weight)}"),
        "Mean weight": Cell(figure(diagnostics.mean_weight), note="should be about 1"),
        "Top 1 % of weights": Cell(percent(diagnostics.top_share)),
        "Smallest propensity": Cell(figure(diagnostics.smallest_propensity)),
        "Support violations": Cell(
            count(diagnostics.support_violations), note=f"{percent(diagnostics.missing_mass)} of its probability"
        ),
    }


def inspection_parts(log: LogSummary) -> Iterator[RenderableType]:
    """What `simulator inspect` prints: whether the log can be used and what to do first, then every check."""
    yield Text(printable(log_answer(log)), STYLES[log.verdict] or "bold")
    yield log_panel(log)


def log_panel(log: LogSummary) -> Panel:
    """A log's figures and what was found about it, under its verdict."""
    left_out = ", ".join(f"{count(n)} {kind.replace('_', ' ')}" for kind, n in log.left_out.items() if n)
    figures = facts_in_terminal(log_facts(log)).append(f"\nLeft out: {left_out}." if left_out else "")
    return _panel(log.name, log.verdict, figures, log.findings)


def notable(log: LogSummary) -> LogSummary:
    """With only those findings that are not fine, and how many are: `simulator inspect` shows all."""
    worse = tuple([finding for finding in log.findings if finding.verdict != "fine"])
    fine = Finding("others", "fine", f"{len(log.findings) - len(worse)} checks; see them all: simulator inspect")
    return replace(log, findings=(*worse, fine))


def candidate_panel(name: str, diagnostics: Diagnostics, decisions: int, *, rows: str = "decisions") -> Panel:
    """A candidate's figures and what was found about it that is not fine, under its verdict. See `candidate_facts`."""
    worse = [finding for finding in diagnostics.findings if finding.verdict != "fine"]
    figures = facts_in_terminal(candidate_facts(diagnostics, decisions, rows=rows))
    return _panel(name, diagnostics.verdict, figures, worse)


def _panel(name: str, verdict: Verdict, figures: Text, findings: Iterable[Finding]) -> Panel:
    title = Text.assemble(f"{name}: ", (verdict, STYLES[verdict]))
    table = in_terminal(findings_table(findings))
    body = Group(figures, Text(), table) if table.row_count else figures
    return Panel(body, title=title, title_align="left", border_style=STYLES[verdict], padding=(0, 1))
