"""What the faults have come to: laws, each of which can be broken, a table, and words. Called by `__main__.py`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.table import Table

from simulator.studies.faults.check import Counts
from simulator.studies.faults.kinds import KINDS
from simulator.studies.faults.watch import Takeover
from simulator.studies.soak.check import Replay

MOST_TAKEOVER = 5.0
"""Seconds until another leader publishes."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault. at, ended, recovered: seconds since 1970; all works again at the last. gaps: the longest time without an
    answer, by host. failed: calls without an answer, by code. takeover: of the first new leader. restarts: groups that
    had ended by themselves."""

    number: int
    kind: str
    did: str
    at: float
    ended: float
    recovered: float
    gaps: Mapping[str, float]
    failed: Mapping[str, int]
    takeover: Takeover
    takes_leader: bool
    restarts: int

    def to_json(self) -> dict[str, Any]:
        """A line of the file of faults."""
        return {**asdict(self), "takeover": self.takeover._asdict()}

    def line(self, count: int) -> str:
        """For whoever waits."""
        led, published = self.takeover
        another = "" if led is None else f", another leader after {led:.1f} s"
        another += "" if published is None else f", {published:.1f} s without a publication"
        gaps = ", ".join(f"{host} {gap:.1f} s" for host, gap in self.gaps.items())
        return (
            f"{self.number} of {count}: {self.kind}: {self.did}; longest without an answer: {gaps}; "
            f"all well {self.recovered - self.ended:.1f} s after its end{another}"
        )


@dataclass(slots=True)
class Outcome:
    """Of a run. broken: it did not come to its end, and why. exit_codes: of the groups at the end."""

    seed: int
    happened: list[Happened] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    refused: Mapping[str, int] = field(default_factory=dict)
    replays: Sequence[Replay] = ()
    exit_codes: Mapping[str, int] = field(default_factory=dict)
    broken: str = ""

    @property
    def verified(self) -> str:
        """N of N."""
        return "; ".join(f"{one.equal} of {one.decisions}" for one in self.replays) or "not run"


def laws(outcome: Outcome, *, timed: bool = True) -> Iterator[str]:
    """What must not be. timed: the machine has nothing else to do, so that takeovers are held against their bound."""
    counts = outcome.counts
    if outcome.broken:
        yield outcome.broken
    for what, times in (("lost", counts.lost), ("doubled", counts.doubled), ("answered in two ways", counts.differing)):
        for kind, number in during(outcome, times).items():
            yield f"{number} {what} during: {kind}"
    if counts.strange:
        yield f"{len(counts.strange)} decisions in the log that nobody asked for"
    for text, times_ in outcome.refused.items():
        yield f"{times_} calls of clients were refused: {text}"
    for one in outcome.happened:
        longest = max(math.inf if seconds is None else seconds for seconds in one.takeover)
        if one.takes_leader and longest >= (MOST_TAKEOVER if timed else math.inf):
            yield f"fault {one.number}, {one.kind}: takeover {tuple(one.takeover)}, {MOST_TAKEOVER:g} s are allowed"
        if one.restarts:
            yield f"fault {one.number}, {one.kind}: a whole server ended by itself"
    for replay in outcome.replays:
        if not replay.ok:
            yield f"verify of {replay.what}: {replay.equal} of {replay.decisions}: {replay.text[-400:]}"
    for host, code in outcome.exit_codes.items():
        if code:
            yield f"{host} ended with exit code {code}"
    if not outcome.broken and not (outcome.happened and counts.decisions and counts.rewards and outcome.replays):
        yield "nothing was measured"


def during(outcome: Outcome, times: Sequence[float]) -> Counter[str]:
    """How often, by the kind of fault that was there or had been there last."""
    found: Counter[str] = Counter()
    for at in times:
        before = [one.kind for one in outcome.happened if one.at <= at]
        found[before[-1] if before else "before all faults"] += 1
    return found


Row = tuple[str, ...]


def rows(outcome: Outcome) -> list[Row]:
    """By kind; the first is the head."""
    head = (
        "fault", "times", "lost", "doubled", "longest without an answer at a host, s: median, most",
        "all well after its end, s: median, most", "another leader after, s: median, most",
        "between publications, s: median, most",
    )  # fmt: skip
    made: list[Row] = [head]
    lost, doubled = during(outcome, outcome.counts.lost), during(outcome, outcome.counts.doubled)
    for kind in KINDS:
        those = [one for one in outcome.happened if one.kind == kind.name]
        if those:
            made.append(
                (
                    kind.name,
                    str(len(those)),
                    str(lost[kind.name]),
                    str(doubled[kind.name]),
                    _typical([max(one.gaps.values()) for one in those]),
                    _typical([one.recovered - one.ended for one in those]),
                    _typical([one.takeover.led for one in those]),
                    _typical([one.takeover.published for one in those]),
                )
            )
    return made


def _typical(seconds: Sequence[float | None]) -> str:
    there = [one for one in seconds if one is not None]
    return f"{median(there):.1f}, {max(there):.1f}" if there else "-"


def table(outcome: Outcome) -> Table:
    """For a terminal."""
    head, *rest = rows(outcome)
    made = Table(*head)
    for row in rest:
        made.add_row(*row)
    return made


def words(outcome: Outcome) -> str:
    """In sentences."""
    counts = outcome.counts
    failed: Counter[str] = Counter()
    for one in outcome.happened:
        failed.update(one.failed)
    codes = ", ".join(f"{code} {times:,}" for code, times in failed.most_common()) or "none"
    return (
        f"{len(outcome.happened)} faults, seed {outcome.seed}: {counts.decisions:,} decisions and {counts.rewards:,} "
        f"rewards acknowledged, {len(counts.lost)} lost, {len(counts.doubled)} doubled; {counts.asked_again:,} "
        f"decisions asked again, {len(counts.differing)} answered in another way; {counts.in_log:,} decisions in the "
        f"log, {len(counts.strange)} of them nobody's; verify: {outcome.verified}. Calls without an answer, sent again "
        f"by the clients: {codes}."
    )


def page(outcome: Outcome, found: Sequence[str]) -> str:
    """For RESULTS.md."""
    held = "All laws hold." if not found else f"{len(found)} laws are broken: {'; '.join(found[:5])}."
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows(outcome)]
    lines = "\n".join([head, "|" + "---|" * len(rows(outcome)[0]), *rest])
    return f"{words(outcome)} {held}\n\n{lines}\n"
