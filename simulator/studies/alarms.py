"""`make alarms`: how often the evidence of the metrics rings where nothing is wrong, and how soon where something is.

Months of traffic with a season and a policy that learns, looked at all the time; then faults. The code is that of the
service (`decider/estimate/split.py`, `propensities.py`, `missing_rewards.py`). Results: RESULTS.md. The functions of
one log each are called by `tests/test_alarms.py`, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from rich.console import Console

from decider.estimate.missing_rewards import MissingRewards
from decider.estimate.outage import UsualShare
from decider.estimate.propensities import propensity_log_evalue
from decider.estimate.sample import Floats
from decider.estimate.split import StratumSplit, split_log_evalue
from decider.experiment.strata import BUCKETS
from decider.log.totals import DAYS
from simulator.commands.options import counted
from simulator.studies.lift import Scene, simulate

PAGE = Path(__file__).parent / "RESULTS.md"
MARKERS = ("<!-- alarms -->\n", "<!-- /alarms -->")

ALARM = math.log(1_000)
LOW = math.log(20)
"""Where one in twenty may ring: it shows with few logs whether the bound holds."""

LOOKS = 90
DAY = 2_000
"""Decisions of a day of the propensities' and the rewards' logs."""

SHARE, STEP, SEASON = 0.1, 50, 0.5
"""Of rewarded decisions at the beginning; decisions from look to look; how much the share goes up and down each day."""

Path_ = tuple[Sequence[float], Sequence[int]]
"""The evidence at each look, and after how many decisions that is."""


def split_path(scene: Scene, seed: int, *, lost: float = 0.0) -> Path_:
    """LOOKS looks. lost: share of the holdout's units whose decisions are missing."""
    log = simulate(scene, seed)
    n = len(log.unit)
    unlucky = np.random.default_rng([seed, 1]).random(int(log.unit.max()) + 1) < lost
    there = ~(log.holdout & unlucky[log.unit])
    shape = (LOOKS, len(scene.shares), 2, BUCKETS)
    look = np.arange(n) * LOOKS // n
    place = np.ravel_multi_index((look, log.stratum, log.holdout.astype(np.int64), log.bucket), shape)
    counts = np.bincount(place[there], minlength=math.prod(shape)).reshape(shape).cumsum(axis=0).astype(np.float64)
    found = [
        split_log_evalue([StratumSplit(share, "", one) for share, one in zip(scene.shares, strata, strict=True)])
        for strata in counts
    ]
    return np.nan_to_num(found, nan=0.0).tolist(), [n * (look + 1) // LOOKS for look in range(LOOKS)]


def propensity_path(days: int, seed: int, *, tilt: float = 0.0, after: int = 0, looks: int = 10) -> Path_:
    """So many looks a day. The policy learns: it begins with equal chances, and ends with 78 % for one action in each
    of two segments. tilt: the first action's odds are really larger by that, from day `after` on; only decisions from
    there on are counted."""
    rng = np.random.default_rng(seed)
    sums = np.zeros((2, days * looks, 4))
    for day in range(days):
        best = rng.integers(0, 2, DAY)
        greedy = 0.7 * (1 - math.exp(-3 * day / 30))
        pmf = np.full((DAY, 4), (1 - greedy) / 4)
        pmf[np.arange(DAY), best] += greedy
        real = pmf * np.where(day >= after, [1 + tilt, 1, 1, 1], 1.0)
        real /= real.sum(axis=1, keepdims=True)
        drawn = (rng.random((DAY, 1)) > real.cumsum(axis=1)[:, :-1]).sum(axis=1)
        terms = np.stack([(drawn[:, np.newaxis] == np.arange(4)) - pmf, pmf * (1 - pmf)])
        sums[:, day * looks : (day + 1) * looks] = terms.reshape(2, looks, -1, 4).sum(axis=2)
    found = [_evidence(sums, look, looks) for look in range(after * looks, days * looks)]
    return found, [(one + 1) * DAY // looks for one in range(len(found))]


def _evidence(sums: Floats, look: int, looks: int) -> float:
    """As the totals have it: the newest days apart, and those before together."""
    first = max(0, look // looks - DAYS + 1)
    days = [
        sums[:, day * looks : min((day + 1) * looks, look + 1)].sum(axis=1) for day in range(first, look // looks + 1)
    ]
    excess, variance = np.stack([sums[:, : first * looks].sum(axis=1), *days], axis=1)
    return propensity_log_evalue(excess, variance, days=DAYS)


def rewards_path(days: int, seed: int, *, left: float = 1.0, after: int = 0) -> Path_:
    """A look after every STEP decisions. The share turns with the day, and the policy doubles it in a month. left: so
    much of it still comes, from day `after` on, at any hour; only decisions from there on are counted."""
    rng = np.random.default_rng(seed)
    look = np.arange(days * DAY // STEP)
    time = look * STEP / DAY
    hour = rng.random()
    share = SHARE * (2 - np.exp(-time / 10)) * (1 + SEASON * np.sin(2 * np.pi * (time + hour)))
    fault = time >= after if left < 1 else np.zeros(len(time), np.bool_)
    rewarded = rng.binomial(STEP, np.where(fault, left, 1.0) * share)
    test, found = MissingRewards(UsualShare.known(10_000, int(10_000 * SHARE))), []
    for count in rewarded.tolist():
        test.add(decisions=STEP, rewarded=count)
        found.append(test.value)
    begin = after * DAY // STEP
    return found[begin:], [(one + 1) * STEP for one in range(len(found) - begin)]


class Case(NamedTuple):
    """One row. path: of one log, by seed. fault: whether something is wrong."""

    alarm: str
    name: str
    path: Callable[..., Path_]
    fault: bool = False


ONCE, BACK = Scene("", decisions=30_000), Scene("", visits=8, decisions=30_000)
RAMP = Scene("", visits=8, shares=(0.05, 0.1, 0.2), decisions=30_000)

CASES = (
    Case("split", "right, 1 visit a unit", partial(split_path, ONCE)),
    Case("split", "right, 8 visits", partial(split_path, BACK)),
    Case("split", "right, 8 visits, ramp 5, 10, 20 %", partial(split_path, RAMP)),
    Case("split", "half of the holdout lost, 1 visit", partial(split_path, ONCE, lost=0.5), fault=True),
    Case("split", "half of the holdout lost, 8 visits", partial(split_path, BACK, lost=0.5), fault=True),
    Case("split", "a tenth of the holdout lost, 1 visit", partial(split_path, ONCE, lost=0.1), fault=True),
    Case("propensities", "right, 3 months", partial(propensity_path, 90, looks=2)),
    Case("propensities", "wrong by 20 %, from the start", partial(propensity_path, 15, tilt=0.2), fault=True),
    Case("propensities", "wrong by 20 %, after 60 days", partial(propensity_path, 75, tilt=0.2, after=60), fault=True),
    Case("propensities", "wrong by 5 %, from the start", partial(propensity_path, 90, tilt=0.05, looks=2), fault=True),
    Case("rewards", "right, 3 months", partial(rewards_path, 90)),
    Case("rewards", "all lost, or the policy's", partial(rewards_path, 12, left=0.0, after=10), fault=True),
    Case("rewards", "nine of ten lost", partial(rewards_path, 12, left=0.1, after=10), fault=True),
    Case("rewards", "half lost", partial(rewards_path, 40, left=0.5, after=10), fault=True),
)


class Judged(NamedTuple):
    """highest: evidence of each log. after: decisions until the alarm; infinite where it stays quiet."""

    highest: Floats
    after: Floats


def judge(case: Case, logs: int) -> Judged:
    """So many logs of a case."""
    paths = [case.path(seed) for seed in range(logs)]
    rang = [next((n for value, n in zip(*path, strict=True) if value >= ALARM), math.inf) for path in paths]
    return Judged(np.array([max(path[0]) for path in paths]), np.array(rang))


def line(case: Case, found: Judged) -> str:
    """A row of the table."""
    shares = [_share((found.highest >= level).astype(np.float64)) for level in (LOW, ALARM)]
    later = np.quantile(found.after, [0.5, 0.9], method="higher")
    times = [f"{one:,.0f}" if math.isfinite(one) else "not found" for one in later] if case.fault else ["-", "-"]
    return f"| {case.alarm} | {case.name} | {' | '.join([shares[0] if not case.fault else '-', shares[1], *times])} |"


def _share(rang: Floats) -> str:
    """In per cent with its standard error, or with an upper bound where none rang (the rule of three)."""
    share, logs = float(rang.mean()), len(rang)
    if share == 0:
        return f"0 (at most {300 / logs:.1f} %)"
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / logs):.1f} %"


def report(logs: int) -> str:
    """The table, with a progress bar."""
    rows = []
    with counted(Console(stderr=True), len(CASES), "cases") as progress:
        for case in CASES:
            rows.append(line(case, judge(case, logs)))
            progress()
    head = "| alarm | log | above ln 20 | above ln 1000 | median until alarm | 90 % within |\n|---|---|--:|--:|--:|--:|"
    return "\n".join([f"{logs} logs of each kind; times in decisions after the fault.\n", head, *rows, ""])


def placed(page: str, text: str) -> str:
    """The page with the text between its markers. Raises ValueError where it has none."""
    begin, end = MARKERS
    if begin not in page or end not in page:
        raise ValueError(f"the page lacks {begin.strip()}")
    return re.sub(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", lambda _: text, page, flags=re.DOTALL)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--logs", type=click.IntRange(min=1), default=200, show_default=True, help="Of each kind.")
@click.option("--publish", is_flag=True, help="Write the table into simulator/studies/RESULTS.md.")
def main(logs: int, publish: bool) -> None:
    """How often alarms ring where nothing is wrong, and after how many decisions where something is."""
    text = report(logs)
    click.echo(text, nl=False)
    if publish:
        PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
