"""An evaluation in the terminal: what may be trusted first, then the policies side by side. Called by `cli.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from simulator.evaluate.result import (
    Difference,
    Estimate,
    Evaluation,
    FieldImportance,
    Finding,
    LogSummary,
    PolicyResult,
)
from simulator.report.terminal.checks import candidate_panel, log_panel, verdict_text
from simulator.text import NOTHING, between, figure, signed, signed_between

LEVEL = "95 % intervals"


def shown(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Everything, in the order in which it should be read: what is not fine comes before any number.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> len(list(shown(evaluation()))) > 3
    True
    """
    yield log_panel(_notable(evaluation.log))
    for policy in evaluation.policies:
        if policy.diagnostics.verdict != "fine":
            yield candidate_panel(policy.name, policy.diagnostics)
    yield side_by_side(evaluation)
    for policy in evaluation.policies:
        if policy.estimates and policy.name != "logged":
            yield estimates_table(policy)
    if evaluation.importance:
        yield importance_table(evaluation.importance)


def _notable(log: LogSummary) -> LogSummary:
    """Only the findings that are not fine, and how many are: `simulator inspect` shows all."""
    notable = tuple([finding for finding in log.findings if finding.verdict != "fine"])
    fine = Finding("others", "fine", f"{len(log.findings) - len(notable)} checks; see them all: simulator inspect")
    return replace(log, findings=(*notable, fine))


def side_by_side(evaluation: Evaluation) -> Table:
    """One row a policy: its headline estimate, and its difference to the logged policies.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> side_by_side(evaluation()).row_count
    2
    """
    table = _table(f"Mean reward a decision, {LEVEL}")
    table.add_column("policy", overflow="fold", ratio=1)
    for heading in ("estimate", "- logged", "ESS"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for policy in evaluation.policies:
        table.add_row(
            Text.assemble(policy.name, "\n", (policy.estimand, "dim")),
            _headline(policy),
            _two_lines(policy.difference),
            figure(policy.diagnostics.ess),
            verdict_text(policy.diagnostics.verdict),
        )
    return table


def _headline(policy: PolicyResult) -> Text:
    if policy.refused:
        return Text("refused\n(see above)", "bold red")
    return _two_lines(policy.estimates.get(policy.headline))


def _two_lines(estimate: Estimate | Difference | None) -> Text:
    """The value above its interval, so that narrow terminals show both."""
    return Text(interval(estimate).replace(" (", "\n(", 1)) if estimate else Text(NOTHING)


def interval(estimate: Estimate | Difference) -> str:
    """Value and interval, a difference with its sign.

    >>> interval(Estimate(0.12346, 0.1199, 0.1271, "default"))
    '0.1235 (0.1199 to 0.1271)'
    """
    value, ends = (signed, signed_between) if isinstance(estimate, Difference) else (figure, between)
    known = ends(estimate.low, estimate.high)
    return value(estimate.value) + (f" ({known})" if known != NOTHING else "")


def estimates_table(policy: PolicyResult) -> Table:
    """Every estimate of one policy; what is biased says so.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> estimates_table(uniform()).row_count == len(uniform().estimates)
    True
    """
    table = _table(f"{policy.name}: {policy.estimand}, {policy.decisions:,} decisions, {LEVEL}")
    table.add_column("estimator", no_wrap=True)
    table.add_column("estimate", justify="right", no_wrap=True)
    table.add_column("interval and what to know", overflow="fold", ratio=1)
    for name, estimate in policy.estimates.items():
        note = estimate.note or ("look at this one first" if name == policy.headline else "")
        kind = "no interval" if estimate.interval == "none" else estimate.interval
        told = Text(f"{kind}; {note}" if note else kind, "" if estimate.unbiased else "yellow")
        table.add_row(name, Text(interval(estimate)), told)
    return table


def importance_table(importance: tuple[FieldImportance, ...]) -> Table:
    """What each field of the context is worth to what learns.

    >>> importance_table(()).row_count
    0
    """
    table = _table(f"What a policy loses when it does not see a field, {LEVEL}")
    table.add_column("policy", overflow="fold")
    table.add_column("without", no_wrap=True)
    table.add_column("loses", justify="right", no_wrap=True)
    for one in importance:
        table.add_row(Text(one.policy), Text(one.field), Text(interval(one.loss)))
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
