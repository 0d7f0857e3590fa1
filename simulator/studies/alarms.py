"""`make alarms`: how often the evidence of the metrics rings where nothing is wrong, and how soon where something is.

Months of traffic with a season and a policy that learns, looked at all the time; then faults. The code is that of the
service (`decider/estimate/split.py`, `propensities.py`, `missing_actions.py`, `missing_rewards.py` and
`segment_rewards.py`); two rules that compare with the past have no evidence, and are computed here as
`decider/metrics/ops/rules.yml` has them. Results: RESULTS.md. The functions of one log each are called by
`tests/test_alarms.py`, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import click
import numpy as np
from rich.console import Console

from decider.estimate.sample import Floats
from simulator.commands.options import counted
from simulator.studies.alarm_logs import (
    Path_,
    action_path,
    channels_path,
    greedy_path,
    half_path,
    propensity_path,
    rewards_path,
    segments_path,
    split_path,
)
from simulator.studies.lift import Scene
from simulator.studies.results import write_results

MARKERS = ("<!-- alarms -->\n", "<!-- /alarms -->")

ALARM = math.log(1_000)
LOW = math.log(20)
"""Where one in twenty may ring: it shows with few logs whether the bound holds."""


class Case(NamedTuple):
    """One row. path: of one log, by seed. fault: whether something is wrong."""

    alarm: str
    name: str
    path: Callable[..., Path_]
    fault: bool = False


ONCE, BACK = Scene("", decisions=30_000), Scene("", visits=8, decisions=30_000)
OFTEN = Scene("", visits=50, decisions=100_000)
RAMP = Scene("", visits=8, shares=(0.05, 0.1, 0.2), decisions=30_000)
DIFFER, ALIKE = (0, 1, 2, 3, 0, 1), (0,) * 6
"""The best action of each segment."""

CASES = (
    Case("split", "right, 1 visit a unit", partial(split_path, ONCE)),
    Case("split", "right, 8 visits", partial(split_path, BACK)),
    Case("split", "right, 50 visits", partial(split_path, OFTEN)),
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
    Case("channels", "right, 3 months", partial(channels_path, 90)),
    Case("channels", "30 % of the visits: all lost", partial(channels_path, 12, left=0.0, after=10), fault=True),
    Case("channels", "5 % of them: all lost", partial(channels_path, 12, left=0.0, after=10, channel=3), fault=True),
    Case("segments", "right, 3 months", partial(segments_path, 90)),
    Case("segments", "all rewards lost for a day", partial(segments_path, 11, after=10, all_left=0.0)),
    Case("segments", "9 % of the visits: all lost", partial(segments_path, 20, left=0.0, after=15), fault=True),
    Case("segments", "9 % of the visits: nine of ten lost", partial(segments_path, 20, left=0.1, after=15), fault=True),
    Case("actions", "right, 3 months", partial(action_path, 90, looks=4)),
    Case("actions", "one at 5 % is never drawn", partial(action_path, 17, after=15, missing=True), fault=True),
    Case("actions", "one at the floor of 1 %", partial(action_path, 65, after=60, missing=True, looks=4), fault=True),
    Case("one action", "segments differ, 2 months", partial(greedy_path, 60, best=DIFFER)),
    Case("one action", "one action is the best, 2 months", partial(greedy_path, 60, best=ALIKE)),
    Case("one action", "everywhere, after 30 days", partial(greedy_path, 32, best=DIFFER, fault=30), fault=True),
    Case("fewer", "right, 3 months", partial(half_path, 90)),
    Case("fewer", "half lost", partial(half_path, 24, left=0.5, after=20), fault=True),
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


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--logs", type=click.IntRange(min=1), default=200, show_default=True, help="Of each kind.")
@click.option("--publish", is_flag=True, help="Write the table into simulator/studies/RESULTS.md.")
def main(logs: int, publish: bool) -> None:
    """How often alarms ring where nothing is wrong, and after how many decisions where something is."""
    text = report(logs)
    click.echo(text, nl=False)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
