"""Findings in the terminal: the verdict first, in colour and in words. Called by `simulator inspect` and `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from simulator.evaluate.result import Diagnostics, Finding, LogSummary, Verdict
from simulator.evaluate.verdicts import by_severity
from simulator.text import between, duration, figure, percent

COLOURS: dict[Verdict, str] = {"fine": "green", "caution": "yellow", "do not use": "bold red"}
"""The words are always there too: not everybody sees colours, and files have none."""


def verdict_text(verdict: Verdict) -> Text:
    """A verdict in its colour.

    >>> verdict_text("caution").plain
    'caution'
    """
    return Text(verdict, COLOURS[verdict])


def findings_table(findings: Iterable[Finding]) -> Table:
    """One row a check, the worst first: verdict, name, what was found and what logging would be needed.

    >>> findings_table([Finding("decisions", "fine", "2 decisions.")]).row_count
    1
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("verdict", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("found", ratio=1)
    for finding in by_severity(findings):
        table.add_row(verdict_text(finding.verdict), finding.name, _found(finding))
    return table


def _found(finding: Finding) -> Text:
    text = Text(finding.text)
    return text.append(f" Needed: {finding.needed}", "dim") if finding.needed else text


def log_panel(log: LogSummary) -> Panel:
    """A log's figures and what was found about it, under its verdict.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> str(log_panel(evaluation().log).title).split(":")[0]
    'example'
    """
    figures = Text.assemble(
        f"{log.decisions:,} decisions of {log.units:,} units in {duration(3600 * log.hours)}, {log.actions:,} actions.",
        f" Mean reward {figure(log.mean_reward)} ({between(log.mean_reward_low, log.mean_reward_high)}).",
    )
    left_out = ", ".join(f"{count:,} {kind}" for kind, count in log.left_out.items() if count)
    lines = [figures, Text(f"Left out: {left_out}.")] if left_out else [figures]
    return _panel(log.name, log.verdict, Group(*lines, Text(), findings_table(log.findings)))


def candidate_panel(name: str, diagnostics: Diagnostics) -> Panel:
    """A candidate's figures and what was found about it, under its verdict.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> str(candidate_panel("uniform", uniform().diagnostics).title).split(":")[0]
    'uniform'
    """
    figures = Text(
        f"Effective sample size {figure(diagnostics.ess)}, of rewarded decisions "
        f"{figure(diagnostics.effective_successes)}; mean weight {figure(diagnostics.mean_weight)}, largest "
        f"{figure(diagnostics.max_weight)}, top 1 % {percent(diagnostics.top_share)}; not in the log "
        f"{percent(diagnostics.missing_mass)}."
    )
    notable = [finding for finding in diagnostics.findings if finding.verdict != "fine"]
    body = Group(figures, Text(), findings_table(notable)) if notable else figures
    return _panel(name, diagnostics.verdict, body)


def _panel(name: str, verdict: Verdict, body: Group | Text) -> Panel:
    title = Text.assemble(f"{name}: ", verdict_text(verdict))
    return Panel(body, title=title, title_align="left", border_style=COLOURS[verdict], padding=(0, 1))
