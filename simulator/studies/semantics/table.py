"""The sums of the study as Markdown tables. Called by the command."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simulator.studies.semantics.judge import Judged, Learned, Result, Sums
from simulator.studies.semantics.scenes import SCENES

MARKERS = ("<!-- semantics: make semantics writes this -->\n", "<!-- /semantics -->")

HEADS = (
    "scene", "logs", "policy, estimator", "mean weight", "truth", "estimate - truth", "covers, %", "refused, %",
    "expected",
)  # fmt: skip
LESSONS = ("scene", "logs", "lessons/log", "reward - truth", "within 1.96 errors, %")
EXPECTED = {"hold": "holds", "be noticed": "refused", "miss": "misses"}


def summary(results: Sequence[Result], *, visits: int, seed: int) -> str:
    """Both tables, and what happens in each scene."""
    judged = [one for one in results if isinstance(one, Judged)]
    learned = [one for one in results if isinstance(one, Learned)]
    names = dict.fromkeys(one.scene for one in results)
    scenes = "\n".join(f"- **{name}**: {SCENES[name].text}." for name in names)
    return (
        f"Logs from seed {seed}, {visits} visits (or pages) each; after ± stands the standard "
        f"error over logs.\n\n{scenes}\n\n{_table(HEADS, [_row(one) for one in judged])}\n"
        f"{_table(LESSONS, [_lesson(one) for one in learned])}"
    )


def _row(one: Judged) -> list[str]:
    must = SCENES[one.scene].must
    biased = one.estimator == "iips" or (one.scene == "slates, backward" and one.estimator == "rips")
    return [
        one.scene,
        f"{one.logs}",
        f"{one.policy}, {one.estimator}",
        figures(one.weight),
        f"{one.truth.mean:.4f}",
        figures(one.off, sign="+"),
        share(one.covered, one.logs),
        share(one.refused, one.logs),
        "biased" if biased else EXPECTED[must],
    ]


def _lesson(one: Learned) -> list[str]:
    return [
        one.scene,
        f"{one.off.count}",
        f"{one.lessons.mean:.0f}",
        figures(one.off, sign="+"),
        share(one.within, one.off.count),
    ]


def figures(sums: Sums, *, sign: str = "") -> str:
    """A mean with its standard error.

    >>> figures(Sums(4, 4.0, 4.04), sign="+")
    '+1.0000 ± 0.0577'
    """
    return f"{sums.mean:{sign}.4f} ± {sums.error:.4f}"


def share(part: int, whole: int) -> str:
    """In per cent, with its standard error.

    >>> share(190, 200)
    '95.0 ± 1.5'
    """
    found = part / whole
    return f"{100 * found:.1f} ± {100 * math.sqrt(found * (1 - found) / whole):.1f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
