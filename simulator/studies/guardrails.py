"""`make guardrails`: how often a guardrail is crossed where nothing harms, and how soon where something does.

Somebody looks after every decision. The evidence is that of the service (`decider/estimate/guardrail.py`), computed
for all decisions of a log at once; `tests/test_lift.py` holds the two against each other. Logs with several strata are
looked at 200 times, by the service's own function. Results: RESULTS.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import click
import numpy as np
from rich.console import Console
from scipy.special import log_ndtr

from decider.estimate.guardrail import ALPHA, alpha_of, guardrail_evidence
from decider.estimate.lift import SCALE, START, STRATUM_START, LiftSums, with_unseen
from decider.estimate.sample import Floats, Longs
from decider.experiment.strata import BUCKETS
from simulator.commands.options import counted
from simulator.studies.lift import (
    DECISIONS,
    LONG,
    STRATA_LOOKS,
    Log,
    Scene,
    cluster_paths,
    group_paths,
    simulate,
)
from simulator.studies.results import write_results

MARKERS = ("<!-- guardrails -->\n", "<!-- /guardrails -->")

TEN = 10
"""Guardrails of one experiment: all that it may have."""


class Case(NamedTuple):
    """One row. margin: of the lift, declared as `at_most`. together: guardrails of the experiment."""

    scene: Scene
    margin: float = 0.0
    together: int = 1

    @property
    def harms(self) -> bool:
        """Whether the policy's lift is beyond the margin."""
        return self.scene.harm * self.scene.rate > self.margin


CASES = (
    Case(Scene("right, 10 %")),
    Case(Scene("right, 1 %", rate=0.01)),
    Case(Scene("right, 0.3 %, long", rate=0.003, decisions=LONG)),
    Case(Scene("right, 1 %, 8 visits", visits=8, rate=0.01, apart=1.0)),
    Case(Scene("right, 0.3 %, 50 visits, long", visits=50, rate=0.003, apart=1.0, decisions=LONG)),
    Case(Scene("right, 1 %, 8 visits, once a unit", visits=8, rate=0.01, once=True)),
    Case(Scene("right, 2 %, 8 visits, season", visits=8, rate=0.02, apart=0.5, season=0.8)),
    Case(Scene("right, amounts, 5 % of 8 visits", visits=8, rate=0.05, spread=1.2, apart=0.5)),
    Case(Scene("right, 1 %, holdout 2 %", rate=0.01, shares=(0.02,))),
    Case(Scene("right, 2 %, ramp 5, 10, 20 %, season", visits=8, rate=0.02, season=0.8, shares=(0.05, 0.1, 0.2))),
    Case(Scene("at the margin: 1.2 %, 1 %", rate=0.01, harm=0.2), margin=0.002),
    Case(Scene("right, ten guardrails of 1 %", rate=0.01), together=TEN),
    Case(Scene("10 % becomes 13 %", harm=0.3), margin=0.002),
    Case(Scene("1 % becomes 2 %", rate=0.01, harm=1.0), margin=0.002),
    Case(Scene("1 % becomes 2 %, in the middle", rate=0.01, harm=1.0, since=0.5), margin=0.002),
    Case(Scene("1 % becomes 2 %, 8 visits", visits=8, rate=0.01, apart=1.0, harm=1.0), margin=0.002),
    Case(Scene("1 % becomes 1.5 %, long", rate=0.01, harm=0.5, decisions=LONG), margin=0.002),
    Case(Scene("0.3 % becomes 0.8 %, long", rate=0.003, harm=5 / 3, decisions=LONG), margin=0.002),
)


class Crossing(NamedTuple):
    """Of one log. after: decisions since the harm began until a guardrail was crossed; infinite: never. judged: whether
    there was ever enough to judge it."""

    after: float
    judged: bool


def evidence_path(log: Log, margin: float) -> Floats:
    """(n,) log e-value after every decision of a log with one stratum; nan where too little is known. Whether that is
    so is asked at the pauses of `cluster_paths`."""
    groups = group_paths(log, log.bucket, buckets=BUCKETS)
    lift = groups[0].mean - groups[1].mean
    mean, variance, units = (np.stack(both) for both in zip(*groups, strict=True))
    units, clusters = np.maximum(units, 1e-9), cluster_paths(log)
    variance = with_unseen(mean, variance, units)
    by_unit = variance * units
    carry = np.take_along_axis(clusters, by_unit.argmax(axis=0)[None, :], axis=0)[0]
    square = np.where(clusters < START, by_unit.max(axis=0) / units, variance).sum(axis=0)
    k = 1 / (1 / units).sum(axis=0) / SCALE
    x = (lift - margin) / np.sqrt(np.maximum(square, 1e-300)) * np.sqrt(k / (1 + k))
    evidence = math.log(2) - 0.5 * np.log1p(k) + 0.5 * x**2 + log_ndtr(x)
    known = (units.min(axis=0) >= STRATUM_START) & (carry >= START) & (square > 0)
    return np.where(known, evidence, np.nan)


def evidence_at_looks(log: Log, margin: float, looks: int = STRATA_LOOKS) -> tuple[Longs, Floats]:
    """(looks,) the last decision of each look, and the service's own log e-value; nan where too little is known."""
    ends = np.linspace(0, len(log.unit), looks + 1).astype(np.int64)
    sums, found = LiftSums(BUCKETS), []
    for first, last in itertools.pairwise(ends):
        part = slice(first, last)
        sums.add_many(
            bucket=log.bucket[part], holdout=log.holdout[part], reward=log.reward[part], stratum=log.stratum[part]
        )
        evidence = guardrail_evidence(sums.strata, margin=margin, is_upper=True)
        found.append(evidence.log_evalue if evidence.is_known else math.nan)
    return ends[1:] - 1, np.array(found)


def judge(case: Case, seed: int) -> Crossing:
    """One log of a case; of several guardrails the first that is crossed counts."""
    found = [_judge(case, seed * case.together + one) for one in range(case.together)]
    return Crossing(min(one.after for one in found), any(one.judged for one in found))


def _judge(case: Case, seed: int) -> Crossing:
    log = simulate(case.scene, seed)
    if len(case.scene.shares) > 1:
        at, evidence = evidence_at_looks(log, case.margin)
    else:
        at, evidence = np.arange(len(log.unit)), evidence_path(log, case.margin)
    crossed = at[evidence >= math.log(1 / alpha_of(case.together))]
    after = crossed[0] + 1 - case.scene.since * len(log.unit) if len(crossed) else math.inf
    return Crossing(float(after), bool(np.isfinite(evidence).any()))


def logs_of(case: Case, logs: int) -> int:
    """Long ones are fewer, and those of ten guardrails."""
    return max(1, logs // (5 if case.scene.decisions > DECISIONS else case.together))


def line(case: Case, found: Sequence[Crossing]) -> str:
    """A row of the table."""
    after = np.array([one.after for one in found])
    crossed, judged = np.isfinite(after), np.mean([one.judged for one in found])
    later = np.quantile(after, [0.5, 0.9], method="higher")
    times = [f"{one:,.0f}" if math.isfinite(one) else "not found" for one in later] if case.harms else ["-", "-"]
    cells = (case.scene.name, f"{case.margin:g}", f"{len(found):,}", _share(crossed.astype(np.float64)), *times)
    return f"| {' | '.join(cells)} | {100 * judged:.0f} % |"


def _share(crossed: Floats) -> str:
    """In per cent with its standard error, or with an upper bound where none was (the rule of three).

    >>> _share(np.array([0.0, 1.0])), _share(np.zeros(300))
    ('50.0 ± 35.4 %', '0 (at most 1.0 %)')
    """
    share, logs = float(crossed.mean()), len(crossed)
    if share == 0:
        return f"0 (at most {300 / logs:.1f} %)"
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / logs):.1f} %"


def report(found: Sequence[tuple[Case, Sequence[Crossing]]]) -> str:
    """The table in Markdown."""
    head = (
        f"A guardrail is crossed at {100 * ALPHA:.0f} % / number of guardrails.\n\n"
        "| log | margin | logs | crossed at any decision | median until it was, decisions | 90 % within | judged |\n"
        "|---|--:|--:|--:|--:|--:|--:|\n"
    )
    return head + "".join([f"{line(case, rows)}\n" for case, rows in found])


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--logs", type=click.IntRange(min=1), default=1_000, show_default=True, help="Of each kind.")
@click.option("--publish", is_flag=True, help="Write the table into simulator/studies/RESULTS.md.")
def main(logs: int, publish: bool) -> None:
    """How often guardrails are crossed where nothing harms, and after how many decisions where something does."""
    rows: list[tuple[Case, Sequence[Crossing]]] = []
    with counted(Console(stderr=True), len(CASES), "cases") as progress:
        for case in CASES:
            rows.append((case, [judge(case, seed) for seed in range(logs_of(case, logs))]))
            progress()
    text = report(rows)
    click.echo(text, nl=False)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
