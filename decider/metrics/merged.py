"""The metrics of several processes as those of one: counters and histograms added up. Called by `server/crew.py`.

Not prometheus_client's own way (PROMETHEUS_MULTIPROC_DIR), which is chosen for a process before its imports, makes each
count slower, knows no collectors, and keeps a file of every process that ever was. Here a process counts in its own
memory, and leaves a snapshot now and then; whoever takes its place counts on from there, so that no counter falls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from prometheus_client.core import Metric as Metric

COUNTED = ("counter", "histogram")
"""Kinds of families that are added up."""

ADDED = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_open_fds",
    "decider_connections",
    "decider_connections_limit",
)
"""Gauges that are added up as well; of the others the first process's counts."""

Snapshot = list[list[Any]]
"""JSON: a list [name, kind, help, [[name, labels, value] of each sample]] for each family."""


class Source(Protocol):
    """What has families, like a registry."""

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        ...


class Several:
    """The families of several sources, one after the other."""

    def __init__(self, *sources: Source) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """See Source."""
        for source in self._sources:
            yield from source.collect()


def snapshot(source: Source) -> Snapshot:
    """What a process leaves for others."""
    return [
        [family.name, family.type, family.documentation, [[s.name, s.labels, s.value] for s in family.samples]]
        for family in source.collect()
    ]


def counted(before: Snapshot, *, without: Sequence[str] = ()) -> Snapshot:
    """Of a snapshot, what its process's successor counts on from. without: experiments that are named no longer."""
    return [
        [name, kind, text, [one for one in samples if one[1].get("experiment") not in without]]
        for name, kind, text, samples in before
        if kind in COUNTED
    ]


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One family of each name."""
    known: dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for one in snapshots:
        for name, kind, text, samples in one:
            _, _, values = known.setdefault(name, (kind, text, {}))
            for sample, labels, value in samples:
                key = sample, tuple(labels.items())
                if key in values and kind not in COUNTED and name not in ADDED:
                    continue
                values[key] = values.get(key, 0.0) + value
    return [
        [name, kind, text, [[sample, dict(labels), value] for (sample, labels), value in values.items()]]
        for name, (kind, text, values) in known.items()
    ]


def families(merged: Snapshot) -> Iterator[Metric]:
    """Of a snapshot, as the exposition writes them."""
    for name, kind, text, samples in merged:
        family = Metric(name, text, kind)
        for sample, labels, value in samples:
            family.add_sample(sample, labels, value)
        yield family
