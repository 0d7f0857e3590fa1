"""What an attack has come to: checks, each of which can fail, tables, and words. Called by `__main__.py`."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any

from rich.table import Table

from decider.server.settings import Settings
from simulator.studies.attack.attacker import CALLS_RATE, FRONTENDS_RATE, PAGES_RATE, WIRE
from simulator.studies.attack.calls import Calls
from simulator.studies.attack.frontends import Frontends
from simulator.studies.attack.web import Web
from simulator.studies.load import quantile

MS, MB = 1e3, 1e6

MOST_RATIO = 2.0
"""Of the customers' p99 under attack, over that without."""

MEMORY = Settings().memory
"""Bytes that the process may take."""

CALLS = Calls.name

MORE_DESCRIPTORS, MORE_THREADS = 10, 8
"""Than before the attack, once it is over."""


@dataclass(slots=True)
class Phase:
    """Of one server. calm, attacked: latencies by stretch, in seconds. rss, descriptors, threads: before the first
    attack, the most, and at the end. cpu: processors that the server kept busy, without and under attack. found: see
    Findings. in_log: see `wrong_in_log`. errors: of the customers."""

    kind: str
    calm: list[array[float]] = field(default_factory=list)
    attacked: list[array[float]] = field(default_factory=list)
    rss: tuple[int, int, int] = (0, 0, 0)
    descriptors: tuple[int, int, int] = (0, 0, 0)
    threads: tuple[int, int, int] = (0, 0, 0)
    peak: int = 0
    exit_code: int = 0
    found: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    in_log: dict[str, int] = field(default_factory=dict)
    cpu: tuple[float, float] = (0.0, 0.0)
    verified: str = ""
    verifies: bool = False

    def note(self, *samples: Sequence[int]) -> None:
        """rss, descriptors, threads; each from the start until now."""
        self.rss, self.descriptors, self.threads = ((of[0], max(of), of[-1]) for of in samples)

    def take(self, found: dict[str, Any]) -> None:
        """What the strangers have found so far."""
        self.found = found

    @property
    def breaches(self) -> Mapping[str, int]:
        """In words."""
        breaches: Mapping[str, int] = self.found.get("breaches", {})
        return breaches

    @property
    def attacks(self) -> int:
        """How many there were."""
        return sum(count for *_, count in self.found.get("outcomes", ()))

    @property
    def untried_calls(self) -> int:
        """Kinds of calls; 1 until somebody has counted them."""
        return int(self.found.get("untried", {CALLS: 1}).get(CALLS, 0))

    def p99(self, stretches: Sequence[array[float]]) -> tuple[float, float]:
        """Pooled, and the median of the stretches; ms."""
        pooled = quantile(sorted(second for stretch in stretches for second in stretch), 0.99)
        each = [quantile(sorted(stretch), 0.99) for stretch in stretches]
        return MS * pooled, MS * median(each) if each else 0.0

    @property
    def ratios(self) -> tuple[float, float]:
        """Of p99, pooled and by stretches."""
        calm, attacked = self.p99(self.calm), self.p99(self.attacked)
        pooled, typical = (under / without if without else 0.0 for under, without in zip(attacked, calm, strict=True))
        return pooled, typical

    def to_json(self) -> dict[str, Any]:
        """With the p99 of each stretch in place of its latencies."""
        kept = {one.name: getattr(self, one.name) for one in fields(self)}
        for name in ("calm", "attacked"):
            kept[name] = [round(MS * quantile(sorted(stretch), 0.99), 2) for stretch in kept[name]]
        return kept

    def progress(self) -> str:
        """A line."""
        calm, attacked = self.p99(self.calm), self.p99(self.attacked)
        return (
            f"{self.attacks:,} attacks, {sum(self.breaches.values())} breaches, "
            f"{sum(self.found.get('failures', {}).values())} not tried; p99 {calm[0]:.1f} -> {attacked[0]:.1f} ms "
            f"(median of stretches {calm[1]:.1f} -> {attacked[1]:.1f}); RSS {self.rss[2] / MB:.0f} MB, at most "
            f"{self.rss[1] / MB:.0f}; descriptors {self.descriptors[2]}, at most {self.descriptors[1]}; "
            f"threads {self.threads[2]}"
        )


def failed(phase: Phase, *, timed: bool) -> Iterator[str]:
    """What must not be, in words. timed: it lasted long enough to compare latencies, and to try everything; a short one
    tries all RPCs."""
    for text, times in phase.breaches.items():
        yield f"{phase.kind}: {text} ({times} times)"
    for text, times in phase.in_log.items():
        yield f"{phase.kind}: {times} {text}"
    for text, times in phase.errors.items():
        yield f"{phase.kind}: {times} calls of customers failed: {text}"
    for text, times in phase.found.get("failures", {}).items():
        yield f"{phase.kind}: {times} attacks were not made: {text}"
    for attack, count in phase.found.get("untried", {}).items():
        if count and (timed or attack == CALLS):
            yield f"{phase.kind}: {count} kinds of {attack} were not tried: attack for longer"
    if not phase.attacks or not all(phase.counts.values()):
        yield f"{phase.kind}: {phase.attacks} attacks beside {phase.counts}: nothing was measured"
    if not phase.verifies:
        yield f"{phase.kind}: verify: {phase.verified}"
    if phase.found.get("exit_code"):
        yield f"{phase.kind}: the strangers' process ended with exit code {phase.found['exit_code']}"
    if phase.exit_code:
        yield f"{phase.kind}: the server ended with exit code {phase.exit_code}"
    if phase.peak > MEMORY:
        yield f"{phase.kind}: the process took {phase.peak / MB:.0f} MB of {MEMORY / MB:.0f}"
    yield from grown(phase)
    if timed and max(phase.ratios) > MOST_RATIO:
        yield f"{phase.kind}: p99 under attack is {phase.ratios[0]:.2f} (pooled), {phase.ratios[1]:.2f} times as long"


def grown(phase: Phase) -> list[str]:
    """What the server has not let go of."""
    found = (("descriptors", phase.descriptors, MORE_DESCRIPTORS), ("threads", phase.threads, MORE_THREADS))
    return [
        f"{phase.kind}: {after} {what} after the attack, {before} before it"
        for what, (before, _, after), most in found
        if after > before + most
    ]


Row = tuple[str, ...]


def figures(phases: Sequence[Phase]) -> list[Row]:
    """What, then a figure for each phase; the first row is the head."""
    rows: list[tuple[str, list[str]]] = [("what", [phase.kind for phase in phases])]
    cells: Sequence[tuple[str, Callable[[Phase], str]]] = (
        ("attacks that ended", lambda one: f"{one.attacks:,}"),
        ("of them breaches", lambda one: f"{sum(one.breaches.values()):,}"),
        ("decisions, rewards, activations acknowledged", lambda one: ", ".join(f"{n:,}" for n in one.counts.values())),
        ("lost, changed or added in the log", lambda one: f"{sum(one.in_log.values()):,}"),
        ("calls of customers that failed", lambda one: f"{sum(one.errors.values()):,}"),
        ("p99 without, ms, pooled; median of stretches", lambda one: _pair(one.p99(one.calm), 1)),
        ("p99 under attack, ms", lambda one: _pair(one.p99(one.attacked), 1)),
        ("ratio", lambda one: _pair(one.ratios, 2)),
        ("processor of the server, without; under attack", lambda one: _pair(one.cpu, 2)),
        ("resident memory before, most, end, MB", lambda one: ", ".join(f"{size / MB:.0f}" for size in one.rss)),
        ("descriptors before, most, end", lambda one: ", ".join(map(str, one.descriptors))),
        ("threads before, most, end", lambda one: ", ".join(map(str, one.threads))),
        ("verify", lambda one: one.verified),
    )
    rows += [(what, [of(phase) for phase in phases]) for what, of in cells]
    return [(what, *row) for what, row in rows]


def _pair(pair: tuple[float, float], digits: int) -> str:
    return "; ".join(f"{one:.{digits}f}" for one in pair)


def outcomes(phases: Sequence[Phase]) -> list[Row]:
    """Kind of attack, who, how often, and how it ended."""
    counted: dict[tuple[str, str, str], Counter[str]] = {}
    for phase in phases:
        for attack, identity, outcome, count in phase.found.get("outcomes", ()):
            counted.setdefault((phase.kind, attack, identity), Counter())[outcome] += count
    rows: list[Row] = [("server", "attack", "by", "times", "ended")]
    for (kind, attack, identity), of in counted.items():
        ended = ", ".join(f"{outcome} {count:,}" for outcome, count in of.most_common(6))
        rows.append((kind, attack, identity, f"{sum(of.values()):,}", ended))
    return rows


def rates() -> list[Row]:
    """How much of each attack there is."""
    rows: list[Row] = [("attack", "a second", "stay open"), (Calls.name, f"{CALLS_RATE:g}", "one for each stranger")]
    rows.append((Web.name, f"{PAGES_RATE:g}", "none"))
    rows.append((Frontends.name, f"{FRONTENDS_RATE:g}", "none"))
    return rows + [(name, f"{rate:g}", str(most or "none")) for name, _, rate, most in WIRE]


def table(phases: Sequence[Phase]) -> list[Table]:
    """For a terminal."""
    made = []
    for rows in (outcomes(phases), figures(phases)):
        one = Table(*rows[0])
        for row in rows[1:]:
            one.add_row(*row)
        made.append(one)
    return made


def page(phases: Sequence[Phase], *, minutes: float, seed: int, rate: float, found: Sequence[str]) -> str:
    """For RESULTS.md."""
    held = "All checks hold." if not found else f"{len(found)} checks fail: {'; '.join(found[:5])}."
    parts = [f"{minutes:g} minutes of attack, seed {seed}. {held}"]
    parts += [_markdown(figures(phases)), f"How much there is of each, times {rate:g}:", _markdown(rates())]
    parts += ["How the attacks ended:", _markdown(outcomes(phases))]
    return "\n\n".join(parts) + "\n"


def _markdown(rows: Sequence[Row]) -> str:
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest])
