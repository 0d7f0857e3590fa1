"""Tables of an evaluation, and their order in the terminal: what may be trusted first, then the policies side by side.

Called by `simulator evaluate` and by the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from rich.console import RenderableType

from simulator.evaluate.result import (
    Difference,
    Estimate,
    Evaluation,
    FieldImportance,
    LogSummary,
    PolicyResult,
    Segment,
)
from simulator.report.checks import candidate_panel, log_panel, notable
from simulator.report.table import Cell, Column, Table, difference, estimate, in_terminal
from simulator.text import between, count, figure, printable, signed, signed_between

LOGGED = "logged"
INTERVAL = "95 % interval"


class Answer(Enum):
    """What may be said of a policy against what it is compared with."""

    MORE = "would have earned more"
    LESS = "would have earned less"
    UNCLEAR = "with no significant difference"
    ALONE = "without a comparison"
    UNRELIABLE = "with an estimate that should not be relied on"
    REFUSED = "not supported by this log"


Side = LogSummary | PolicyResult
"""One row of the policies side by side: the log is what they are compared with."""

Named = tuple[str, Estimate | Difference]
"""An estimator's name and what it found; without a name: the difference."""

IN_SHORT = {
    Answer.MORE: "more",
    Answer.LESS: "less",
    Answer.UNCLEAR: "no significant difference",
    Answer.UNRELIABLE: "not to be relied on",
}


def terminal_parts(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Everything, in the order in which it should be read: warnings come before any estimate."""
    yield log_panel(notable(evaluation.log))
    for policy in evaluation.policies:
        if policy.diagnostics.verdict != "fine":
            yield candidate_panel(policy.name, policy.diagnostics, policy.decisions)
    yield in_terminal(side_by_side(evaluation))
    for policy in candidates(evaluation):
        if policy.estimates:
            yield in_terminal(estimates_table(policy))
    if evaluation.importance:
        yield in_terminal(importance_table(evaluation.importance, evaluation.log.decisions))
    yield from missing_importance(evaluation)


def candidates(evaluation: Evaluation) -> list[PolicyResult]:
    """The policies that are compared. What was logged is what they are compared with, and has the log's own row.

    >>> from simulator.evaluate.example import evaluation
    >>> [result.name for result in candidates(evaluation())]
    ['uniform']
    """
    return [result for result in evaluation.policies if result.name != LOGGED]


def answer(result: PolicyResult) -> Answer:
    """What may be said of a candidate: nothing where the log cannot carry it, else what its interval shows.

    >>> from simulator.evaluate.example import uniform
    >>> answer(uniform()).value
    'with an estimate that should not be relied on'
    """
    if result.refused:
        return Answer.REFUSED
    if result.diagnostics.verdict == "do not use":
        return Answer.UNRELIABLE
    if result.difference is None:
        return Answer.ALONE
    if result.difference.low > 0:
        return Answer.MORE
    return Answer.LESS if result.difference.high < 0 else Answer.UNCLEAR


def side_by_side(evaluation: Evaluation) -> Table[Side]:
    """The log, then one row a policy: its headline estimate, and its difference to what was logged."""
    policies = candidates(evaluation)
    columns: Sequence[Column[Side]] = (
        Column("Policy", lambda one: _name(one, policies), "name"),
        Column("Estimand", lambda one: _estimand(one, evaluation), narrow="joined"),
        Column("Reward/decision", _headline, "number", INTERVAL),
        Column("Difference", _difference, "number", INTERVAL),
        Column("ESS", lambda one: _evidence(one)[0], "number"),
        Column("Effective successes", lambda one: _evidence(one)[1], "number", narrow="left out"),
        Column("Verdict", _verdict, "verdict"),
    )
    return Table(
        "The policies side by side",
        columns,
        (evaluation.log, *policies),
        look=lambda one: "logged" if isinstance(one, LogSummary) else "",
    )


def _name(one: Side, policies: list[PolicyResult]) -> Cell:
    return Cell(LOGGED) if isinstance(one, LogSummary) else Cell(one.name, link=f"#policy-{policies.index(one) + 1}")


def _estimand(one: Side, evaluation: Evaluation) -> Cell:
    if isinstance(one, PolicyResult):
        return Cell(one.estimand)
    logged = [policy.estimand for policy in evaluation.policies if policy.name == LOGGED]
    return Cell("mean of the log", note=", ".join(logged))


def _headline(one: Side) -> Cell:
    if isinstance(one, LogSummary):
        return estimate(one.mean_reward, one.mean_reward_low, one.mean_reward_high)
    if one.refused:
        return Cell("refused", note="this log cannot answer it", tone="do not use")
    found = one.estimates.get(one.headline)
    by = f"by {_words(one.headline)}"
    return estimate(found.value, found.low, found.high, note=by) if found else Cell("-")


def _difference(one: Side) -> Cell:
    if isinstance(one, LogSummary) or one.refused or one.difference is None:
        return Cell("-")
    found = one.difference
    return difference(found.value, found.low, found.high, note=IN_SHORT[answer(one)])


def _evidence(one: Side) -> tuple[str, str]:
    """Effective sample size and successes."""
    if isinstance(one, LogSummary):
        return count(one.decisions), "-"
    return figure(one.diagnostics.ess), figure(one.diagnostics.effective_successes)


def _verdict(one: Side) -> Cell:
    verdict = one.verdict if isinstance(one, LogSummary) else one.diagnostics.verdict
    return Cell(verdict, tone=verdict)


def headline_first(result: PolicyResult) -> list[tuple[str, Estimate]]:
    """Estimates by name: the one to look at first, then the others in their order.

    >>> from simulator.evaluate.example import uniform
    >>> headline_first(uniform())[0][0] == uniform().headline
    True
    """
    return sorted(result.estimates.items(), key=lambda named: named[0] != result.headline)


def estimates_table(result: PolicyResult) -> Table[Named]:
    """Every estimate of one policy, and whether it is biased; below them the difference to what was logged."""
    below = [("", result.difference)] if result.difference else []
    columns: Sequence[Column[Named]] = (
        Column("Estimator", lambda row: _estimator(*row, result), "name"),
        Column("Value", lambda row: (figure if isinstance(row[1], Estimate) else signed)(row[1].value), "number"),
        Column(INTERVAL, lambda row: _interval(row[1]), "number"),
        Column("Interval by", lambda row: _words(row[1].interval)),
        Column("Bias", lambda row: _bias(row[1]), "prose", narrow="joined"),
    )
    return Table(
        f"{result.name}: {result.estimand}, {count(result.decisions)} decisions",
        columns,
        [*headline_first(result), *below],
        look=lambda row: "foot" if not row[0] else "headline" if row[0] == result.headline else "",
    )


def _estimator(name: str, found: Estimate | Difference, result: PolicyResult) -> Cell:
    if isinstance(found, Difference):
        return Cell(f"difference to {compared_with(result)}")
    return Cell(_words(name), note="look here first" if name == result.headline else "")


def compared_with(result: PolicyResult) -> str:
    """What a candidate is compared with, in words."""
    found = result.difference
    return "what was logged" if found is None or found.to == LOGGED else found.to


def difference_text(result: PolicyResult) -> str:
    """The difference with its interval, for a sentence; empty where there is none."""
    found = result.difference
    return f"{signed(found.value)} ({signed_between(found.low, found.high)})" if found else ""


def _value(found: Estimate | Difference) -> str:
    return (figure if isinstance(found, Estimate) else signed)(found.value)


def _interval(found: Estimate | Difference) -> str:
    return (between if isinstance(found, Estimate) else signed_between)(found.low, found.high)


def _bias(found: Estimate | Difference) -> Cell:
    if isinstance(found, Difference):
        return Cell(f"by {_words(found.estimator)}, on the same decisions")
    if found.unbiased:
        return Cell(found.note or "-")
    biased = found.note if found.note.startswith("biased") else f"biased: {found.note}"
    return Cell(biased.removesuffix(": "), tone="caution")


def segments_table(segments: tuple[Segment, ...]) -> Table[Segment]:
    """The estimate in each value of each field of the context. Only on the page: there may be hundreds."""
    columns: Sequence[Column[Segment]] = (
        Column("Field", lambda one: one.field),
        Column("Value", lambda one: one.value, "name"),
        Column("Decisions", lambda one: count(one.decisions), "number"),
        Column("ESS", lambda one: figure(one.ess), "number"),
        Column("As logged", lambda one: _estimate(one.logged), "number"),
        Column(
            "This policy", lambda one: _estimate(one.estimate) if one.estimate else Cell("too few decisions"), "number"
        ),
    )
    return Table("Segments", columns, segments)


def _estimate(found: Estimate) -> Cell:
    return estimate(found.value, found.low, found.high)


def importance_table(importance: tuple[FieldImportance, ...], decisions: int) -> Table[FieldImportance]:
    """What each field of the context is worth to what learns. decisions: of the log."""
    columns: Sequence[Column[FieldImportance]] = (
        Column("Field left out", lambda one: one.field, "name"),
        Column("Policy that learns", lambda one: one.policy or "-"),
        Column("Reward lost", lambda one: signed(one.loss.value), "number"),
        Column(INTERVAL, lambda one: signed_between(one.loss.low, one.loss.high), "number", "of all fields"),
        Column("In words", lambda one: _field_answer(one, decisions)),
    )
    note = importance_sample(importance, decisions)
    return Table("What a policy loses when it does not see a field", columns, importance, note=note)


def importance_sample(importance: tuple[FieldImportance, ...], decisions: int) -> str:
    """Which of the log's decisions the figures are about.

    >>> importance_sample((FieldImportance("device", Estimate(0.1, 0.0, 0.2, ""), decisions=600),), 2_000)
    'Over the first 600 of 2,000 decisions. More time (--importance-seconds) takes more of them.'
    """
    used = min([one.decisions for one in importance], default=0)
    if used == decisions:
        return f"Over all {count(decisions)} decisions."
    more = "More time (--importance-seconds) takes more of them."
    return f"Over the first {count(used)} of {count(decisions)} decisions. {more}"


def _field_answer(one: FieldImportance, decisions: int) -> str:
    """The answer; where there is none, what is too small for one."""
    if one.answer != "cannot tell":
        return one.answer
    return "this log cannot tell" if one.decisions == decisions else "so few decisions cannot tell"


def missing_importance(evaluation: Evaluation) -> list[str]:
    """A line for each policy that has no importance of fields, with the reason."""
    return [
        printable(f"Importance of fields for {name}: not computed, {reason}.")
        for name, reason in evaluation.importance_missing.items()
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")
