"""Was the control group split off as declared, and which versions were read? Called by `checks/log.py`.

The split is tested by units, not decisions, each at its first decision, against the share of the version in which it
came. A wrong split says nothing against the policy's own propensities: policies are evaluated as before. It forbids the
comparison with the control group, since what made units go missing may depend on what they did.
"""

from __future__ import annotations

import numpy as np

from decider.estimate.sample_ratio import SampleRatio
from decider.text import count, figure, percent
from simulator.evaluate.result import Finding, Verdict
from simulator.evaluate.verdicts import ALARM, MATERIAL, alarm, caution_if
from simulator.logs.columns import Columns
from simulator.logs.holdout_split import Split

LOOK = 1024
"""Units from one look at the evidence to the next; it holds at every look."""

FEW = 0.05
"""Where less of the log than this is read, that is said first."""


def split_finding(columns: Columns) -> Finding | None:
    """Units in the control group against the declared share. None where none is declared. value: the evidence."""
    split = columns.split
    if split is None or not len(split.share):
        return None
    evidence = split_evidence(split)
    seen, declared = float(split.control.mean()), float(split.share.mean())
    text = f"{percent(seen)} of {count(len(split.share))} units are in the holdout, {percent(declared)} were declared"
    if evidence < 1 / ALARM:
        return Finding("holdout split", "fine", f"{text}: consistent with chance.", evidence)
    return Finding(
        "holdout split",
        "caution",
        f"{text}. That is no chance (evidence of a wrong split at odds of {figure(evidence)}): decisions of one group "
        "are missing. Do not compare the policy with the holdout; what other policies would have earned is estimated "
        "from the policy's decisions alone.",
        evidence,
        "Find out where decisions or units of one group got lost: after the draw, on the way into the log, or in it.",
    )


def split_evidence(split: Split) -> float:
    """The highest wealth of a bet against the declared shares at any look, an e-process over the units.

    >>> even = np.arange(5000) % 10 == 0
    >>> split_evidence(Split(np.full(5000, 0.1), even, 0.1, 0)) < 2
    True
    >>> split_evidence(Split(np.full(5000, 0.2), even, 0.2, 0)) > 1e6
    True
    """
    ratio = SampleRatio(events=1)
    for start in range(0, len(split.share), LOOK):
        rows = slice(start, start + LOOK)
        ratio.add_many(split.share[rows, np.newaxis], np.array([np.count_nonzero(split.control[rows])]))
    return ratio.highest


def split_verdict(columns: Columns) -> Verdict:
    """Of the comparison with the control group."""
    split, versions = columns.split, columns.versions
    mixed = caution_if(bool(versions and versions.mixed))
    if split is None or not len(split.share) or split_evidence(split) < 1 / ALARM:
        return mixed
    off = abs(float(split.control.mean()) / float(split.share.mean()) - 1.0)
    return alarm(significant=True, material=off > MATERIAL)


def units_in_both(columns: Columns) -> Finding | None:
    """Units with decisions in both groups while one share was declared: one hash of the unit decides, so there is none.

    None where no share is declared.
    """
    if columns.split is None or not columns.split.declared:
        return None
    both = columns.split.in_both
    if not both:
        return _linked_in_both(columns)
    return Finding(
        "units in both groups",
        "caution",
        f"{count(both)} units are both in the holdout and served by the policy, under one declared share: the two "
        "groups are not independent, and the comparison between them is too small.",
        float(both),
        "The same unit_id at every call, and a log that only our service wrote.",
    )


def _linked_in_both(columns: Columns) -> Finding:
    """Links change nobody's group, so a person's devices may be of both. value: how many such persons there are."""
    group = columns.holdout
    if group is None or columns.person is None or group.person is None:
        both = 0
    else:
        both = len(np.intersect1d(columns.person, group.person))
    if group is None or not both:
        return Finding("units in both groups", "fine", "No unit is both in the holdout and served by the policy.", 0.0)
    share = both / len(group.units.size)
    return Finding(
        "units in both groups",
        caution_if(share > MATERIAL),
        f"{count(both)} persons ({percent(share)} of those in the holdout) have linked units in both groups: what one "
        "group sees may bring rewards to the other. The interval of their difference counts with that; the difference "
        "itself can be too small.",
        float(both),
        "One unit_id for all devices of a person, where it is known before the first decision.",
    )


def versions_read(columns: Columns) -> Finding | None:
    """Versions that differ in their holdout or reward: left out, or pooled by the user. value: share that is read."""
    read = columns.versions
    if read is None or not (read.others or read.mixed):
        return None
    if read.mixed:
        return Finding(
            "versions",
            "caution",
            f"{_span(read.numbers)} are read together although they differ ({'; '.join(read.mixed)}): a mean over "
            "them, or a difference between their groups, can even have the wrong sign.",
            None,
            "One --version at a time, or only those that agree.",
        )
    kept = read.whole - read.decisions
    share = kept / read.whole
    few = f"Only {percent(share)} of the log's decisions are read. " if share < FEW else ""
    return Finding(
        "versions",
        "caution",
        f"{few}{_span(read.numbers)} made {count(kept)} decisions ({percent(share)}), and only these are evaluated. "
        f"{_span(read.others)} made {count(read.decisions)} with another holdout or reward ({'; '.join(read.apart)}), "
        "which must not be pooled with them.",
        share,
        f"For the others: --version {_range(read.others)}",
    )


def versions_apart(columns: Columns) -> str:
    """Why the policy and the control group are not compared over these versions; empty where they agree."""
    read = columns.versions
    if read is None or not read.mixed:
        return ""
    newest = max(read.begins, default=read.numbers[-1])
    return (
        f"{_span(read.numbers)} differ ({'; '.join(read.mixed)}): a difference between the policy and the holdout over "
        f"them can even have the wrong sign, so there is none. Read one version: --version {newest}."
    )


def _span(numbers: tuple[int, ...]) -> str:
    return f"Version {numbers[0]}" if len(numbers) == 1 else f"Versions {numbers[0]} to {numbers[-1]}"


def _range(numbers: tuple[int, ...]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
