"""Importance of a context field: a learner with all fields less one without this field. Called by `simulator evaluate`.

Both learn from the same decisions in the same order, and the difference is estimated on the same decisions, so what the
two have in common cancels. A positive loss means that the field is useful.

evaluation --> learners that the log can carry --> one pass with and without each field, until the time is up
           --> losses, each judged against what the learner gains over drawing evenly
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from simulator.evaluate.candidates import LEARNER, Candidate, UniformPolicy
from simulator.evaluate.estimates import Estimator
from simulator.evaluate.result import Estimate, Evaluation, FieldAnswer, FieldImportance, PolicyResult
from simulator.evaluate.scores import Scores, Scoring
from simulator.logs.columns import Columns, Floats

SECONDS = 60.0
"""Time limit, unless another one is given."""

STEP = 200
"""Decisions between two looks at the clock."""

SMALL = 0.1
"""A field that is worth less than this share of what the learner gains over drawing evenly hardly matters."""

MISSED = 0.05
"""In so many logs the interval of some field may miss its loss."""

Fresh = Callable[[], Candidate]
"""Makes a candidate anew, before it has learned anything."""


@dataclass(frozen=True, slots=True)
class WithoutField:
    """A candidate that never sees one field of the context."""

    inner: Candidate
    field: str

    @property
    def name(self) -> str:
        """The candidate's, and the field."""
        return f"{self.inner.name} without {self.field}"

    @property
    def estimand(self) -> str:
        """As of the candidate with all fields."""
        return self.inner.estimand

    def pmf(self, block: Columns) -> Floats:
        """As the candidate, of contexts without the field."""
        fields = {name: field for name, field in block.fields.items() if name != self.field}
        return self.inner.pmf(replace(block, fields=fields))

    def rows(self, columns: Columns) -> None:
        """All."""


def add_importance(
    evaluation: Evaluation,
    columns: Columns,
    fresh: Mapping[str, Fresh],
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Evaluation:
    """The evaluation with the importance of every field, or the reason why a policy has none. fresh: by policy.

    All learn from the first decision on, in the order of the log, and stop together when the time is up: so a shorter
    time asks the same of a shorter log. An interrupt ends this, and never what was evaluated before.

    >>> from simulator.evaluate.example import evaluation
    >>> from simulator.logs.example import example
    >>> add_importance(evaluation(), example(), {"uniform": UniformPolicy}).importance_missing
    {'uniform': 'this policy does not learn along the log'}
    """
    fields = [name for name in columns.fields if name not in columns.set_aside]
    asked = [result for result in evaluation.policies if result.name in fresh]
    reasons = {result.name: _why_not(result, columns, fields) for result in asked}
    missing = {name: reason for name, reason in reasons.items() if reason}
    learners = {name: fresh[name] for name, reason in reasons.items() if not reason}
    try:
        found = _measure(columns, fields, learners, _Limit(seconds, clock), on_progress) if learners else ()
    except KeyboardInterrupt:
        found = ()
        missing |= dict.fromkeys(learners, "it was interrupted before there was anything to say")
    return replace(evaluation, importance=found, importance_missing=missing)


def _why_not(result: PolicyResult, columns: Columns, fields: Sequence[str]) -> str:
    """Why a policy can have no importance; empty where it can."""
    if result.refused:
        return "this log cannot carry this policy"
    if result.estimand != LEARNER:
        return "this policy does not learn along the log"
    if not columns.has_propensities:
        return "the log has no propensities"
    return "" if fields else "the log has no context field"


class _Limit:
    """A time that is over `seconds` after this was made."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._start = clock()

    def spent(self) -> float:
        """The share of it that is over: 1 and more at its end."""
        return (self._clock() - self._start) / self._seconds


def _measure(
    columns: Columns,
    fields: Sequence[str],
    learners: Mapping[str, Fresh],
    limit: _Limit,
    on_progress: Callable[[float], None],
) -> tuple[FieldImportance, ...]:
    """Of every learner and field, over the decisions that the limit allows."""
    candidates = [one for fresh in learners.values() for one in (fresh(), *without_fields(fresh, fields))]
    even, *scores = _score_until(columns, [UniformPolicy(), *candidates], limit, on_progress)
    width = 1 + len(fields)
    groups = [scores[start : start + width] for start in range(0, len(scores), width)]
    return tuple(
        [
            one
            for name, (full, *reduced) in zip(learners, groups, strict=True)
            for one in _judge(name, full, even, dict(zip(fields, reduced, strict=True)))
        ]
    )


def without_fields(fresh: Fresh, fields: Sequence[str]) -> list[WithoutField]:
    """The candidate once without each of the fields.

    >>> [one.name for one in without_fields(UniformPolicy, ["device"])]
    ['uniform without device']
    """
    return [WithoutField(fresh(), field) for field in fields]


def _score_until(
    columns: Columns, candidates: Sequence[Candidate], limit: _Limit, on_progress: Callable[[float], None]
) -> list[Scores]:
    """Scores of the first decisions, as many as the limit allows. An interrupt ends them like the limit."""
    scoring = Scoring(columns, candidates)
    try:
        for done in scoring.steps(STEP):
            spent = limit.spent()
            on_progress(max(done / len(columns), spent))
            if spent >= 1:
                break
    except KeyboardInterrupt:
        if not scoring.done:
            raise
    return scoring.finish()


def _judge(name: str, full: Scores, even: Scores, reduced: Mapping[str, Scores]) -> list[FieldImportance]:
    """The loss without each field, with intervals that hold for all fields at once. even: the uniform policy's scores.

    By its own 95 % interval one of many useless fields would look useful: the error is shared among them (Bonferroni).
    """
    estimator = Estimator(full)
    gain = estimator.subtract(Estimator(even).terms)
    level = 1 - MISSED / len(reduced)
    losses = {field: estimator.subtract(Estimator(less).terms, level=level) for field, less in reduced.items()}
    return [
        FieldImportance(field, loss, name, len(full.columns), answer_of(loss, gain)) for field, loss in losses.items()
    ]


def answer_of(loss: Estimate, gain: Estimate) -> FieldAnswer:
    """What may be said of a field. gain: what the policy earns more than one that draws evenly, on the same decisions.

    An interval around 0 says that nothing is lost only where it is narrow: all of it must be small beside the least
    gain that the log allows. Losses and gain scale alike, so the unit of the reward does not matter.

    >>> gain = Estimate(0.1, 0.08, 0.12, "")
    >>> [answer_of(Estimate(0.0, -width, width, ""), gain) for width in (0.001, 0.05)]
    ['no significant loss', 'cannot tell']
    """
    if loss.low > 0:
        return "useful"
    if loss.high < 0:
        return "better without"
    return "no significant loss" if loss.high < SMALL * gain.low else "cannot tell"
