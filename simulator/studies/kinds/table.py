"""Counts of all kinds -> Markdown: wrong logs, right logs, and false alarms. Called by `__main__.py`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from decider.estimate.binomial import Proportion, proportion_interval
from simulator.evaluate.verdicts import ORDER
from simulator.studies.kinds.judge import UNREADABLE, Answers, Counts, Verdicts
from simulator.studies.kinds.known import Must
from simulator.studies.kinds.registry import KINDS

START, END = "<!-- kinds: make kinds writes this -->", "<!-- /kinds -->"
"""What stands between them in `simulator/studies/RESULTS.md` is written by `make kinds ARGS=--publish`."""

TITLES: Mapping[Must, str] = {
    "alarm": "Wrong logs: a finding must name the cause",
    "cover": "Hard logs: the answers must cover the truth",
    "silence": "Right logs: they must be answered, and without an alarm",
}
HEAD = (
    "kind",
    "policy",
    "log",
    "policy's verdict",
    "cause named",
    "covers, answered",
    "covers, all",
    "difference covers",
    "width",
    "fine and missed",
)
SUMMARY = ("log", "cause named", "covers, answered", "covers, all", "fine and missed")
ALARMS = ("kind", "logs", "do not use", "at most", "a policy refused", "at most", "caution for balance", "at most")
UPPER = 0.9
"""Level of the two-sided Clopper-Pearson interval whose upper end is a 95 % bound."""

NOTHING = "-"


def report(counts: Sequence[Counts], *, seed: int) -> str:
    """All tables: what each kind does by policy, and the false alarms of the right ones."""
    logs, answers = by_kind(counts)
    parts = [size_of(logs, seed=seed)]
    for must, title in TITLES.items():
        kinds = {name: one for name, one in logs.items() if KINDS[name].must == must}
        if kinds:
            parts += [f"## {title}", judged(kinds, answers)]
    right = [one for name, one in logs.items() if KINDS[name].must == "silence"]
    if right:
        parts += ["## False alarms", false_alarms(right), cautions(right)]
    return "\n\n".join(parts) + "\n"


def summary(counts: Sequence[Counts], *, seed: int) -> str:
    """A row for each kind, over its policies; and the false alarms over all right kinds."""
    logs, answers = by_kind(counts)
    parts = [size_of(logs, seed=seed)]
    for must, title in TITLES.items():
        rows = [_summary_row(one, answers[name]) for name, one in logs.items() if KINDS[name].must == must]
        parts += [markdown((title, *SUMMARY), rows, words=1)] if rows else []
    right = [one for name, one in logs.items() if KINDS[name].must == "silence"]
    parts += [markdown(ALARMS, [_alarm_row("all right logs", right)], words=1)] if right else []
    return "\n\n".join(parts)


def by_kind(counts: Sequence[Counts]) -> tuple[dict[str, Verdicts], dict[str, list[Answers]]]:
    """The verdicts, and the answers (none where no log could be read), by kind."""
    logs = {one.kind: one for one in counts if isinstance(one, Verdicts)}
    answers: dict[str, list[Answers]] = {name: [] for name in logs}
    for one in counts:
        if isinstance(one, Answers):
            answers[one.kind].append(one)
    return logs, answers


def size_of(logs: Mapping[str, Verdicts], *, seed: int) -> str:
    """How many logs there are."""
    total, most = sum(one.logs for one in logs.values()), max(one.logs for one in logs.values())
    return f"{total:,} logs from seed {seed}, {most:,} of each kind."


def _summary_row(one: Verdicts, answers: Sequence[Answers]) -> list[str]:
    """Over its policies; the standard error is that of as many logs, since one log's answers are not independent."""
    pairs = [(answer.answered - answer.missed, answer.answered) for answer in answers]
    forced = [(answer.logs - answer.missed_forced, answer.logs) for answer in answers]
    misleading = [(answer.misleading, answer.logs) for answer in answers]
    return [
        one.kind,
        verdicts(one.verdicts, one.logs),
        share(one.caused, one.logs) if KINDS[one.kind].cause else NOTHING,
        *[_mean_share(each) for each in (pairs, forced, misleading)],
    ]


def _mean_share(pairs: Sequence[tuple[int, int]]) -> str:
    count = max(1, len(pairs))
    return share(sum(part for part, _ in pairs) / count, sum(whole for _, whole in pairs) / count)


def judged(logs: Mapping[str, Verdicts], answers: Mapping[str, Sequence[Answers]]) -> str:
    """A row for each kind and candidate; what is of the log stands in the kind's first row alone."""
    rows = []
    for name, one in logs.items():
        mine = answers[name]
        whole = [name, verdicts(one.verdicts, one.logs)]
        caused = share(one.caused, one.logs) if KINDS[name].cause else NOTHING
        for index, found in enumerate(mine):
            kind, verdict = whole if not index else ("", "")
            rows.append([kind, found.question, verdict, *_of_answers(found, caused if not index else "")])
        if not mine:
            rows.append([name, NOTHING, whole[1], NOTHING, caused, *[NOTHING] * 5])
    return markdown(HEAD, rows, words=2)


def _of_answers(found: Answers, caused: str) -> list[str]:
    return [
        verdicts(found.verdicts, found.logs),
        caused,
        share(found.answered - found.missed, found.answered),
        share(found.logs - found.missed_forced, found.logs),
        share(found.differences - found.differences_missed, found.differences),
        mean_width(found),
        share(found.misleading, found.logs),
    ]


def verdicts(counted: Mapping[str, int], logs: int) -> str:
    """Per cent of fine, caution, do not use; and of what could not be read, where there is any.

    >>> verdicts({"fine": 3, "do not use": 1}, 4), verdicts({"unreadable": 2}, 2)
    ('75 / 0 / 25', '0 / 0 / 0, 100 not read')
    """
    shares = " / ".join(f"{100 * counted.get(one, 0) / logs:.0f}" for one in ORDER)
    unread = counted.get(UNREADABLE, 0)
    return f"{shares}, {100 * unread / logs:.0f} not read" if unread else shares


def share(part: float, whole: float) -> str:
    """Per cent with its standard error.

    >>> share(95, 100), share(0, 0)
    ('95.0 ± 2.2', '-')
    """
    if not whole:
        return NOTHING
    mean = part / whole
    return f"{100 * mean:.1f} ± {100 * math.sqrt(mean * (1 - mean) / whole):.1f}"


def mean_width(found: Answers) -> str:
    """Of the finite intervals, with its standard error."""
    if found.finite < 2:
        return NOTHING
    mean = found.width / found.finite
    variance = max(0.0, found.squares / found.finite - mean**2) / (found.finite - 1)
    return f"{mean:.3g} ± {math.sqrt(variance):.1g}"


def false_alarms(right: Sequence[Verdicts]) -> str:
    """Rates with their upper 95 % bounds, by kind and over all."""
    rows = [_alarm_row(one.kind, [one]) for one in right]
    return markdown(ALARMS, [*rows, _alarm_row("**all**", right)], words=1)


def _alarm_row(name: str, logs: Sequence[Verdicts]) -> list[str]:
    total = sum(one.logs for one in logs)
    counts = (
        sum(one.verdicts[ORDER[-1]] + one.verdicts[UNREADABLE] for one in logs),
        sum(one.refused for one in logs),
        sum(one.balance for one in logs),
    )
    return [name, f"{total:,}", *[cell for count in counts for cell in (f"{count:,}", upper_bound(count, total))]]


def upper_bound(part: int, whole: int) -> str:
    """The exact upper 95 % bound of a share (Clopper & Pearson).

    >>> upper_bound(0, 5_000)
    '0.06 %'
    """
    return f"{100 * proportion_interval(Proportion(part, whole), UPPER, method='exact').high:.2g} %"


def cautions(right: Sequence[Verdicts]) -> str:
    """Which findings of right logs are not fine, how often, and in which kind most of all."""
    total = sum(one.logs for one in right)
    found = sum((one.findings for one in right), Counter[str]())
    rows = []
    for name, count in found.most_common():
        most = max(right, key=lambda one: one.findings[name] / one.logs)
        rows.append([name, f"{100 * count / total:.2f} %", f"{most.kind}: {share(most.findings[name], most.logs)} %"])
    return markdown(("finding", "of all right logs", "most often in"), rows, words=1)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """A table; the first columns hold words, the others figures.

    >>> print(markdown(("kind", "logs"), [("a", "3")], words=1))
    | kind | logs |
    |---|--:|
    | a | 3 |
    """
    rule = "|---" * words + "|--:" * (len(head) - words) + "|"
    first, *others = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([first, rule, *others])


def placed(text: str, part: str) -> str:
    """The text with the part between its markers. Raises ValueError where it has none.

    >>> placed(f"a {START} old {END} b", "new") == f"a {START}\\nnew\\n{END} b"
    True
    """
    before, rest = text.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n{part}\n{END}{after}"
