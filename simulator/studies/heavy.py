"""`make lift`, second part: heavy amounts and a small holdout, of which a million decisions are needed to say anything.

The holdout has not seen the largest amounts yet, so that its mean and its variance are too low together. Logs are drawn
as sums by bucket, which is all that the service keeps, so that a log takes milliseconds: every unit comes once. The
lift and a guardrail are the service's own, at 30 looks; no log has a difference. Results: RESULTS.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import click
import numpy as np
from rich.console import Console

from decider.estimate.guardrail import guardrail_evidence
from decider.estimate.lift import HOLDOUT, GroupSums, lift
from decider.estimate.sample import Floats
from decider.experiment.strata import BUCKETS
from simulator.commands.options import counted
from simulator.studies.results import write_results

MARKERS = ("<!-- heavy amounts -->\n", "<!-- /heavy amounts -->")

LOOKS, FIRST = 30, 0.01
"""Of a log: how many, each further on by the same factor; where the first one is."""

Amounts = Callable[[np.random.Generator, int], Floats]


def lognormal(sigma: float) -> Amounts:
    """With that deviation of the logarithm."""
    return lambda rng, count: np.exp(sigma * rng.standard_normal(count))


def pareto(index: float) -> Amounts:
    """The smallest is 1. An index of 2 and less: no variance."""
    return lambda rng, count: rng.pareto(index, count) + 1.0


class Scene(NamedTuple):
    """holdout: its share; buyers: share of decisions with an amount. decisions: of the whole log."""

    name: str
    amounts: Amounts
    holdout: float
    buyers: float
    decisions: int = 1_000_000


SCENES = (
    Scene("lognormal 1.6, 10 % buy", lognormal(1.6), 0.01, 0.1),
    Scene("lognormal 1.6, 10 % buy", lognormal(1.6), 0.02, 0.1),
    Scene("lognormal 1.6, 10 % buy", lognormal(1.6), 0.1, 0.1),
    Scene("lognormal 1.2, 3 % buy", lognormal(1.2), 0.02, 0.03),
    Scene("Pareto 2.1, 10 % buy", pareto(2.1), 0.01, 0.1),
    Scene("Pareto 2.1, 10 % buy", pareto(2.1), 0.02, 0.1),
    Scene("Pareto 2.1, 10 % buy", pareto(2.1), 0.1, 0.1),
)


class Found(NamedTuple):
    """Of one log, at any look. known: there was an interval; wrong: it excluded 0. judged: the guardrail could be;
    crossed: it was."""

    known: bool
    wrong: bool
    judged: bool
    crossed: bool


def sums_at_looks(scene: Scene, seed: int) -> Iterator[GroupSums]:
    """All so far, at each look."""
    rng = np.random.default_rng(seed)
    shares = np.array([[1.0 - scene.holdout], [scene.holdout]])
    assert HOLDOUT == 1, "the order of the groups"
    found = GroupSums(np.zeros((2, BUCKETS)), np.zeros((2, BUCKETS)))
    ends = np.geomspace(scene.decisions * FIRST, scene.decisions, LOOKS).astype(int).tolist()
    for first, last in itertools.pairwise([0, *ends]):
        made = rng.poisson((last - first) * shares / BUCKETS, (2, BUCKETS))
        place = np.repeat(np.arange(2 * BUCKETS), rng.binomial(made, scene.buyers).ravel())
        rewards = np.bincount(place, scene.amounts(rng, len(place)), 2 * BUCKETS).astype(np.float64)
        found = found.plus(GroupSums(made.astype(np.float64), rewards.reshape(2, BUCKETS)))
        yield found


def judge(scene: Scene, seed: int) -> Found:
    """One log. The guardrail says that the policy's units must not bring more of the amounts: refunds."""
    lifts, evidence = [], []
    for sums in sums_at_looks(scene, seed):
        lifts.append(lift({0: sums}))
        evidence.append(guardrail_evidence({0: sums}, margin=0.0, is_upper=True))
    return Found(
        known=any(one.is_known for one in lifts),
        wrong=any(one.answer in {"yes", "no"} for one in lifts),
        judged=any(one.is_known for one in evidence),
        crossed=any(one.crossed for one in evidence),
    )


def line(scene: Scene, logs: Sequence[Found]) -> str:
    """A row of the table."""
    known, wrong, judged, crossed = (sum(column) for column in zip(*logs, strict=True))
    cells = (
        *(scene.name, f"{100 * scene.holdout:g} %"),
        *(share(known, len(logs)), share(wrong, len(logs)), share(wrong, known)),
        *(share(judged, len(logs)), share(crossed, len(logs)), share(crossed, judged)),
    )
    return f"| {' | '.join(cells)} |\n"


def share(count: int, logs: int) -> str:
    """In per cent with its standard error.

    >>> share(3, 100), share(0, 0)
    ('3.0 ± 1.7 %', '-')
    """
    if not logs:
        return "-"
    found = count / logs
    return f"{100 * found:.1f} ± {100 * math.sqrt(found * (1 - found) / logs):.1f} %"


def report(found: Sequence[tuple[Scene, Sequence[Found]]]) -> str:
    """The table in Markdown."""
    (_, logs), *_ = found
    return (
        f"{len(logs):,} logs of each kind, {found[0][0].decisions:,} decisions each, {LOOKS} looks.\n\n"
        "| amounts, no lift | holdout | had an interval | claimed a lift | of those with an interval "
        "| guardrail judged | crossed | of those judged |\n|---|--:|--:|--:|--:|--:|--:|--:|\n"
    ) + "".join([line(scene, rows) for scene, rows in found])


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--logs", type=click.IntRange(min=1), default=1_000, show_default=True, help="Of each kind.")
@click.option("--publish", is_flag=True, help="Write the table into simulator/studies/RESULTS.md.")
def main(logs: int, publish: bool) -> None:
    """How often a lift of heavy amounts is claimed, and a guardrail of them crossed, where there is no difference."""
    rows: list[tuple[Scene, Sequence[Found]]] = []
    with counted(Console(stderr=True), len(SCENES), "kinds of logs") as progress:
        for scene in SCENES:
            rows.append((scene, [judge(scene, seed) for seed in range(logs)]))
            progress()
    text = report(rows)
    click.echo(text, nl=False)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
