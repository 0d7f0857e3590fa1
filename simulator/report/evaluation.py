"""Tables of an evaluation, and their order in the terminal: the answers first, then what may be trusted, then figures.

Called by `simulator evaluate` and by the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from decider.text import between, count, figure, printable, signed, signed_between
from simulator.evaluate.answer import LOGGED, best_first, conclude
from simulator.evaluate.result import (
    Conclusion,
    Difference,
    Estimate,
    Evaluation,
    FieldImportance,
    HoldoutMean,
    LogSummary,
    PageResults,
    PolicyResult,
    Segment,
)
from simulator.evaluate.verdicts import LEAST_ESS
from simulator.report.checks import candidate_panel, log_panel, notable
from simulator.report.slates import page_estimates_table, pages_table, pages_text
from simulator.report.table import STYLES, Cell, Column, Table, Tone, difference, estimate, in_terminal

INTERVAL = "95 % interval"
HOLDOUT = "holdout"

Side = LogSummary | HoldoutMean | PolicyResult
"""One row of the policies side by side: the log is what they are compared with."""

Named = tuple[str, Estimate | Difference]
"""An estimator's name and what it found; without a name: the difference."""

TONES: Mapping[Conclusion, Tone] = {"more": "fine", "refused": "do not use", "not to be relied on": "do not use"}
"""Colours of answers; the others have none: earning less or the same is no fault of the log."""

TOO_FEW = "too few decisions"
"""Where a segment has no estimate."""

TO_DO = "What to do:"

WHOLE, ALONE = ", whole pages", ", each slot behind the logged ones"
"""Of what an answer is, in a log with slates."""

ONE_EACH = "Each interval is for one policy alone. Of several, the one that looks best looks better than it is."


def terminal_parts(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Everything, in the order in which it should be read: the answers, then warnings, then tables."""
    yield Text(heading(evaluation.log), "bold")
    yield from _answers(evaluation)
    if evaluation.log.holdout and lift_text(evaluation.log.holdout):
        yield Text(printable(lift_text(evaluation.log.holdout)))
    yield log_panel(notable(evaluation.log))
    for policy in candidates(evaluation):
        if policy.diagnostics.verdict != "fine":
            yield candidate_panel(policy.name, policy.diagnostics, policy.decisions)
    yield in_terminal(side_by_side(evaluation))
    for policy in candidates(evaluation):
        if policy.estimates:
            yield in_terminal(estimates_table(policy))
    if evaluation.slates:
        yield from _pages(evaluation.slates)
    if evaluation.importance:
        yield in_terminal(importance_table(evaluation.importance, evaluation.log.decisions))
    yield from missing_importance(evaluation)


def _pages(slates: PageResults) -> Iterator[RenderableType]:
    yield Text(pages_text(slates), "bold")
    for policy in slates.policies:
        if policy.diagnostics.verdict != "fine":
            yield candidate_panel(f"{policy.name}, pages", policy.diagnostics, policy.decisions, rows="pages")
    yield in_terminal(pages_table(slates))
    for policy in slates.policies:
        if policy.estimates:
            yield in_terminal(page_estimates_table(policy))


def candidates(evaluation: Evaluation) -> list[PolicyResult]:
    """The policies that are compared. What was logged is what they are compared with, and has the log's own row.

    >>> from simulator.evaluate.example import evaluation
    >>> [result.name for result in candidates(evaluation())]
    ['uniform']
    """
    return [result for result in evaluation.policies if result.name != LOGGED]


def lift_text(holdout: HoldoutMean) -> str:
    """What the policy earned more than the control group, in one sentence, or why that is not said.

    >>> mean, lift = Estimate(0.1, 0.08, 0.12, ""), Difference("holdout", "mean", 0.05, 0.01, 0.09, "")
    >>> lift_text(HoldoutMean("a", 0.1, decisions=900, units=800, estimate=mean, lift=lift))
    "The policy earned 0.05 more a decision than the holdout, which always got 'a' (95 %: +0.01 to +0.09)."
    """
    lift = holdout.lift
    if lift is None:
        return holdout.no_lift
    if holdout.verdict == "do not use" and holdout.units < LEAST_ESS:
        return f"The holdout cannot be compared with the policy: it has {holdout.units} units, too few for an interval."
    if holdout.verdict == "do not use":
        return "The holdout cannot be compared with the policy: its units were not split off as declared."
    which = f"the holdout, which always got {holdout.action!r}"
    interval = f"(95 %: {signed_between(lift.low, lift.high)})"
    if lift.low <= 0 <= lift.high:
        return f"The policy earned neither clearly more nor clearly less a decision than {which} {interval}."
    more = f"{figure(abs(lift.value))} {'more' if lift.low > 0 else 'less'}"
    return f"The policy earned {more} a decision than {which} {interval}."


def heading(log: LogSummary) -> str:
    """The experiment, or the log where it names none, and the days that it spans.

    >>> from simulator.evaluate.example import evaluation
    >>> heading(evaluation().log)
    'example, 1970-01-01, 00:00 UTC'
    """
    return printable(f"{subject(log)}, {span(log)}")


def subject(log: LogSummary) -> str:
    """What the log is about: its experiment, or its own name where it names none, without the folders of a whole path.

    >>> from simulator.evaluate.example import evaluation
    >>> from dataclasses import replace
    >>> subject(replace(evaluation().log, name="/home/ana/clicks.csv"))
    'clicks.csv'
    """
    file = PurePath(log.name)
    return log.experiment or (file.name if file.is_absolute() else log.name)


def span(log: LogSummary) -> str:
    """From when to when. Within one day: the hours."""
    first, last = log.first_decision, log.last_decision
    if not first:
        return "without times"
    if first[:16] == last[:16]:
        return f"{first[:10]}, {first[11:16]} UTC"
    if first[:10] == last[:10]:
        return f"{first[:10]}, {first[11:16]} to {last[11:16]} UTC"
    return f"{first[:10]} to {last[:10]}"


def _answers(evaluation: Evaluation) -> Iterator[RenderableType]:
    """Three lines for each policy, the best first; of whole pages before single slots."""
    ordered = best_first(candidates(evaluation))
    if evaluation.slates:
        for policy in best_first(evaluation.slates.policies):
            yield from _answer(policy, WHOLE)
    for policy in ordered:
        yield from _answer(policy, ALONE if evaluation.slates else "")
    if len(ordered) > 1:
        yield Text(ONE_EACH, "dim")


def _answer(policy: PolicyResult, which: str) -> Iterator[RenderableType]:
    if policy.answer:
        style = STYLES[TONES.get(policy.answer.conclusion, "")]
        yield Text.assemble(printable(policy.name), which, ": ", (policy.answer.effect, style or "bold"))
        for text in (policy.answer.certainty, f"{TO_DO} {policy.answer.advice}"):
            yield Padding(Text(printable(text)), (0, 0, 0, 2))


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
        (evaluation.log, *([evaluation.log.holdout] if evaluation.log.holdout else []), *policies),
        look=lambda one: "" if isinstance(one, PolicyResult) else "logged",
    )


def _name(one: Side, policies: list[PolicyResult]) -> Cell:
    if isinstance(one, LogSummary):
        return Cell(LOGGED)
    if isinstance(one, HoldoutMean):
        return Cell(HOLDOUT, note=f"always {one.action}")
    return Cell(one.name, link=f"#policy-{policies.index(one) + 1}")


def _estimand(one: Side, evaluation: Evaluation) -> Cell:
    if isinstance(one, PolicyResult):
        return Cell(one.estimand)
    if isinstance(one, HoldoutMean):
        return Cell("mean of the control group")
    logged = [policy.estimand for policy in evaluation.policies if policy.name == LOGGED]
    return Cell("mean of the log", note=", ".join(logged))


def _headline(one: Side) -> Cell:
    if isinstance(one, LogSummary):
        return estimate(one.mean_reward, one.mean_reward_low, one.mean_reward_high)
    if isinstance(one, HoldoutMean):
        return _estimate(one.estimate)
    if one.refused:
        return Cell("refused", note="this log cannot answer it", tone="do not use")
    found = one.estimates.get(one.headline)
    by = f"by {_words(one.headline)}"
    return estimate(found.value, found.low, found.high, note=by) if found else Cell("-")


def _difference(one: Side) -> Cell:
    if isinstance(one, HoldoutMean):
        return difference(-one.lift.value, -one.lift.high, -one.lift.low) if one.lift else Cell("-")
    if isinstance(one, LogSummary) or one.refused or one.difference is None:
        return Cell("-")
    found = one.difference
    return difference(found.value, found.low, found.high, note=conclude(one))


def _evidence(one: Side) -> tuple[str, str]:
    """Effective sample size and successes."""
    if not isinstance(one, PolicyResult):
        return count(one.decisions), "-"
    return figure(one.diagnostics.ess), figure(one.diagnostics.effective_successes)


def _verdict(one: Side) -> Cell:
    verdict = one.diagnostics.verdict if isinstance(one, PolicyResult) else one.verdict
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


def _interval(found: Estimate | Difference) -> str:
    return (between if isinstance(found, Estimate) else signed_between)(found.low, found.high)


def _bias(found: Estimate | Difference) -> Cell:
    if isinstance(found, Difference):
        where = "of both groups" if HOLDOUT in found.estimator else "on the same decisions"
        return Cell(f"by {_words(found.estimator)}, {where}")
    if found.unbiased:
        return Cell(found.note or "-")
    biased = found.note if found.note.startswith("biased") else f"biased: {found.note}"
    return Cell(biased.removesuffix(": "))


def segments_table(segments: tuple[Segment, ...]) -> Table[Segment]:
    """The estimate in each value of each field of the context. Only on the page: there may be hundreds."""
    columns: Sequence[Column[Segment]] = (
        Column("Field", lambda one: one.field),
        Column("Value", lambda one: one.value, "name"),
        Column("Decisions", lambda one: count(one.decisions), "number"),
        Column("ESS", lambda one: figure(one.ess), "number"),
        Column("As logged", lambda one: _estimate(one.logged), "number"),
        Column("This policy", lambda one: _estimate(one.estimate) if one.estimate else Cell(TOO_FEW), "number"),
        Column("Difference", lambda one: _signed(one.difference), "number", "simultaneous"),
    )
    return Table("Segments", columns, segments)


def _signed(found: Estimate | None) -> Cell:
    return difference(found.value, found.low, found.high) if found else Cell("-")


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
