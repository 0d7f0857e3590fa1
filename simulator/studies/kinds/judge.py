"""One log of a kind -> what the evaluation says of it, as counts that add up. Called by the command, in its workers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from decider.errors import DeciderError
from simulator.evaluate.result import Evaluation, Finding, PolicyResult
from simulator.evaluate.run import evaluate
from simulator.evaluate.verdicts import ORDER
from simulator.studies.kinds.known import Case, Kind, Question
from simulator.studies.kinds.registry import KINDS

BALANCE = r"(?i)balance|columns left out|reward model against weights"
"""In the name of every finding that compares fields with draws and rewards."""

UNREADABLE = "unreadable"
"""The verdict of a log that ends in an error."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one log's evaluation says about one candidate. fine: log and candidate are; refused: no number is shown.

    holds: the headline interval has the truth, also where only `--force` shows it; difference_holds: that of the
    difference to the logged policy; None where there is none.
    """

    verdict: str
    fine: bool
    refused: bool
    holds: bool
    width: float
    difference_holds: bool | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to one question of a kind, counted. verdicts: by verdict. missed: of the answered logs alone;
    missed_forced: of all. misleading: logs where log and candidate were fine and the interval missed."""

    kind: str
    question: str
    verdicts: Counter[str] = field(default_factory=Counter)
    logs: int = 0
    answered: int = 0
    missed: int = 0
    missed_forced: int = 0
    misleading: int = 0
    differences: int = 0
    differences_missed: int = 0
    finite: int = 0
    width: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Answers) -> Answers:
        """Of the logs of both."""
        return _sum(self, other)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The evaluations of a kind's logs, counted. verdicts: of the log, UNREADABLE among them. caused: a
    finding that is not fine names the cause, or the reader does. refused: the log is fit for use, but a candidate is
    not; balance: a finding of balance is not fine. findings: "name: verdict" -> logs where one was not fine."""

    kind: str
    verdicts: Counter[str] = field(default_factory=Counter)
    logs: int = 0
    caused: int = 0
    refused: int = 0
    balance: int = 0
    findings: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Verdicts) -> Verdicts:
        """Of the logs of both."""
        return _sum(self, other)


Counts = Answers | Verdicts
Counted = TypeVar("Counted", Answers, Verdicts)


def _sum(one: Counted, other: Counted) -> Counted:
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__}
    return replace(one, **{name: mine + its for name, (mine, its) in pairs.items() if not isinstance(mine, str)})


def make_case(kind: Kind, *, seed: int, number: int) -> Case:
    """The log with this number: the same in every process."""
    return kind.make(np.random.default_rng((seed, crc32(kind.name.encode()), number)))


def judge(kind: Kind, case: Case) -> list[Counts]:
    """The evaluation of one log, counted."""
    if case.columns is None:
        return [_unreadable(kind, case.error)]
    candidates = [one.candidate(case.columns) for one in case.questions]
    try:
        found = evaluate(case.columns, candidates, force=True, breakdown=False)
    except DeciderError as error:
        return [_unreadable(kind, str(error))]
    answers = [
        _count(kind, question, answer_to(question, policy, found, logged=case.logged))
        for question, policy in zip(case.questions, found.policies, strict=True)
    ]
    return [_verdicts(kind, found), *answers]


def _unreadable(kind: Kind, error: str) -> Verdicts:
    caused = bool(kind.cause) and bool(re.search(kind.cause, error))
    return Verdicts(
        kind.name,
        Counter({UNREADABLE: 1}),
        1,
        int(caused),
        findings=Counter({f"error: {re.sub('[0-9]+', '#', error)}": 1}),
    )


def answer_to(question: Question, policy: PolicyResult, found: Evaluation, *, logged: float) -> Answer:
    """Of an evaluation that was forced: what would have been refused is known by the verdict."""
    verdict, estimate, less = policy.diagnostics.verdict, policy.estimates[policy.headline], policy.difference
    return Answer(
        verdict=verdict,
        fine=verdict == "fine" and found.log.verdict == "fine",
        refused=verdict == "do not use",
        holds=estimate.low <= question.truth <= estimate.high,
        width=estimate.high - estimate.low,
        difference_holds=None if less is None else less.low <= question.truth - logged <= less.high,
    )


def _count(kind: Kind, question: Question, one: Answer) -> Answers:
    finite, compared = isfinite(one.width), one.difference_holds is not None
    return Answers(
        kind=kind.name,
        question=question.name,
        verdicts=Counter({one.verdict: 1}),
        logs=1,
        answered=int(not one.refused),
        missed=int(not one.refused and not one.holds),
        missed_forced=int(not one.holds),
        misleading=int(one.fine and not one.holds),
        differences=int(compared),
        differences_missed=int(one.difference_holds is False),
        finite=int(finite),
        width=one.width if finite else 0.0,
        squares=one.width**2 if finite else 0.0,
    )


def _verdicts(kind: Kind, found: Evaluation) -> Verdicts:
    findings = [*found.log.findings, *[one for policy in found.policies for one in policy.diagnostics.findings]]
    wrong = [one for one in findings if one.verdict != "fine"]
    names = {f"{one.name}: {one.verdict}" for one in wrong}
    return Verdicts(
        kind=kind.name,
        verdicts=Counter({found.log.verdict: 1}),
        logs=1,
        caused=int(_names_cause(kind, wrong)),
        refused=int(found.log.verdict != ORDER[-1] and any(one.verdict == ORDER[-1] for one in wrong)),
        balance=int(any(re.search(BALANCE, one.name) for one in wrong)),
        findings=Counter(names),
    )


def _names_cause(kind: Kind, wrong: Sequence[Finding]) -> bool:
    return bool(kind.cause) and any(re.search(kind.cause, f"{one.name}: {one.text}") for one in wrong)


def as_plain(counts: Counts) -> dict[str, Any]:
    """For JSON; `asdict` does not know how to copy a Counter."""
    return {name: getattr(counts, name) for name in counts.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """Some logs of one kind. first: the number of the first."""

    kind: str
    first: int
    logs: int
    seed: int


def run(task: JudgeTask) -> list[Counts]:
    """Pure: equal tasks have equal results, in every process."""
    kind = KINDS[task.kind]
    found: dict[tuple[str, str], Counts] = {}
    for number in range(task.first, task.first + task.logs):
        add(found, judge(kind, make_case(kind, seed=task.seed, number=number)))
    return list(found.values())


def add(found: dict[tuple[str, str], Counts], counts: Iterable[Counts]) -> None:
    """To what was found so far, by kind and question."""
    for one in counts:
        key = (one.kind, one.question if isinstance(one, Answers) else "")
        known = found.get(key)
        found[key] = one if known is None else known + one  # type: ignore[operator]
