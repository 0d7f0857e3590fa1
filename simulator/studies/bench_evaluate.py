"""`make bench`, last part: how fast evaluation is beside the rivals, as ratios measured in one run on one core.

Progressive evaluation against VW's command line and coba; point estimates and the bootstrap against Open Bandit
Pipeline; and a log of ours with a million decisions, from the file to the estimates of five static policies, with the
memory that it takes. Contestants take turns, each in a process of its own that counts its own processor time, so that
whatever else runs on the machine is not counted: ours are here, the rivals' in `rivals/speed.py`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from decider.estimate.bootstrap import bootstrap
from decider.estimate.dr import DoublyRobust
from decider.estimate.ips import Ips
from decider.estimate.sample import by_unit
from decider.estimate.snips import Snips
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from simulator.evaluate.parse import parse
from simulator.evaluate.run import evaluate
from simulator.evaluate.scores import score
from simulator.logs.columns import Category
from simulator.logs.decider_log import load
from simulator.studies.rivals.exchange import Arrays, Points, seconds, usual_seconds
from simulator.studies.rivals.known import ACTIONS, columns, experiment, known_log, value_names
from simulator.studies.rivals.written import write_log
from simulator.studies.side_by_side import check_there, hand_over, rivals_option, run_module

SEED = 3
LOG, NUMBERS_LOG, DEFAULT, TABLE = "fields.db", "numbers.db", "default.toml", "table.csv"
"""Two logs: the five fields of the context, and the three numbers as well, which make every context a new one."""

STATIC = ("logged", "uniform", "fixed:action-0", "fixed:action-1", f"table:{TABLE}")
"""The five policies of the million decisions."""

WIDTH = 100
"""Of the table, in letters, whether a terminal shows it or not."""

Measured = dict[str, float]


def progressive(folder: Path) -> Measured:
    """Decisions a second of our squarecb over the log: the pass alone, and with the terminal's table."""
    log = columns(known_log(seed=SEED, rounds=len(Arrays.read(folder).action)))
    once, whole = (parse(str(folder / DEFAULT), log) for _ in range(2))
    return {
        "ours": len(log) / seconds(lambda: score(log, [once])),
        "evaluate": len(log) / seconds(lambda: evaluate(log, [whole], breakdown=False)),
    }


def points(folder: Path) -> Measured:
    """Rows a second of our point estimates; seconds of 1,000 bootstrap resamples."""
    given = Points.read(folder)
    rows = len(given.action)
    pmf, predicted = (one[np.arange(rows), given.action] for one in (given.pmf, given.predicted))
    weighting = {"propensity": given.propensity, "reward": given.reward, "pmf": pmf}
    model = {"predicted": predicted, "expected": (given.pmf * given.predicted).sum(axis=1)}
    weight = pmf / given.propensity
    sample = by_unit(weight * given.reward, weight, np.arange(rows), low=0.0, high=10.0, max_weight=10.0)
    return {
        "our IPS": rows / usual_seconds(lambda: Ips().add_many(**weighting)),
        "our SNIPS": rows / usual_seconds(lambda: Snips().add_many(**weighting)),
        "our DR": rows / usual_seconds(lambda: DoublyRobust().add_many(**weighting, **model)),
        "our bootstrap": seconds(lambda: bootstrap(sample, seed=1)),
    }


def stored(folder: Path, *, file: str = LOG) -> Measured:
    """A log of ours, loaded and evaluated for five static policies: seconds, and megabytes above the start."""
    os.chdir(folder)
    start, started = _most_megabytes(), time.process_time()
    log = load(Path(file))
    loaded, holds = time.process_time() - started, _megabytes_above(start)
    evaluated = evaluate(log, [parse(name, log) for name in STATIC], breakdown=False)
    if any(policy.refused for policy in evaluated.policies):
        raise RuntimeError("a policy was refused: nothing was measured")
    return {
        f"{file} loaded": loaded,
        f"{file} evaluated": time.process_time() - started,
        f"{file} loaded, MB": holds,
        f"{file} evaluated, MB": _megabytes_above(start),
    }


def _most_megabytes() -> float:
    """The most memory that this process ever had. (getrusage would count that of the process that started it.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _megabytes_above(start: float) -> float:
    """How much more the most has become. (The kernel counts pages in batches, so its most can fall a little.)"""
    return max(0.0, _most_megabytes() - start)


OURS: dict[str, Callable[[Path], Measured]] = {
    "progressive": progressive,
    "points": points,
    "stored": stored,
    "stored-numbers": partial(stored, file=NUMBERS_LOG),
}
TURNS = ("vw", "coba", "obp")
"""The rivals' contests, see `rivals/speed.py`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row of the table: names of what was measured. as_seconds: they are seconds, not rates."""

    what: str
    ours: str
    rival: str
    as_seconds: bool = False

    def cells(self, rounds: Sequence[Measured]) -> tuple[str, str, str, str, str]:
        """Medians over the rounds; the ratio is above 1 where we are faster.

        >>> Comparison("IPS", "ours", "obp").cells([{"ours": 3e6, "obp": 2e6}, {"ours": 1e6, "obp": 1e6}])
        ('IPS', '2,000,000', 'obp', '1,500,000', '1.25')
        """
        ours, theirs = ([one[name] for one in rounds] for name in (self.ours, self.rival))
        faster = [one / other for one, other in zip(ours, theirs, strict=True)]
        ratio = statistics.median([1 / one for one in faster] if self.as_seconds else faster)
        form = "{:.2f} s" if self.as_seconds else "{:,.0f}"
        mine, other = (form.format(statistics.median(one)) for one in (ours, theirs))
        return self.what, mine, self.rival, other, f"{ratio:.2f}"


COMPARISONS = (
    Comparison("progressive, decisions/s", "ours", "vw"),
    Comparison("", "ours", "vw, no interactions"),
    Comparison("", "ours", "coba"),
    Comparison("  with checks and intervals", "evaluate", "vw"),
    Comparison("", "evaluate", "coba"),
    Comparison("IPS, rows/s", "our IPS", "obp IPS"),
    Comparison("SNIPS, rows/s", "our SNIPS", "obp SNIPS"),
    Comparison("DR, rows/s", "our DR", "obp DR"),
    Comparison("1,000 resamples", "our bootstrap", "obp bootstrap", as_seconds=True),
)


def prepare(folder: Path, *, decisions: int, rows: int, stored_decisions: int) -> None:
    """Every file that a contestant reads."""
    (folder / DEFAULT).write_text(experiment())
    hand_over(known_log(seed=SEED, rounds=decisions), folder)
    Points.random(rows, actions=len(ACTIONS)).write(folder)
    log = columns(known_log(seed=SEED, rounds=stored_decisions))
    defined = from_message(read_toml(folder / DEFAULT))
    fields = {name: one for name, one in log.fields.items() if isinstance(one, Category)}
    write_log(log, defined, folder / NUMBERS_LOG)
    write_log(replace(log, fields=fields), defined, folder / LOG)
    (folder / TABLE).write_text(_table_policy())


def _table_policy() -> str:
    """The same distribution for each segment, over a half of the actions."""
    header = ["action", *[f"segment={value}" for value in value_names("segment")]]
    half = len(ACTIONS) // 2
    rows = [[id_, *[str(1 / half)] * (len(header) - 1)] for id_ in ACTIONS[:half]]
    return "\n".join([",".join(cells) for cells in [header, *rows]])


def turn(folder: Path, rivals: Path) -> Measured:
    """Every contestant once."""
    python, module = Path(sys.executable), "simulator.studies.bench_evaluate"
    said = [run_module(module, "--contestant", name, "--folder", str(folder), interpreter=python) for name in OURS]
    said += [run_module("simulator.studies.rivals.speed", name, str(folder), interpreter=rivals) for name in TURNS]
    return {name: value for lines in said for name, value in json.loads(lines[-1]).items()}


def shown(rounds: Sequence[Measured], *, stored_decisions: int) -> Table:
    """The table."""
    table = Table(title=f"10 actions, 8 features, one core; medians of {len(rounds)} rounds, in which all take turns")
    for heading in ("what", "ours", "rival", "rival's", "ratio"):
        table.add_column(heading, justify="right" if heading in ("ours", "rival's", "ratio") else "left")
    for comparison in COMPARISONS:
        table.add_row(*comparison.cells(rounds))
    median = {name: statistics.median([one[name] for one in rounds]) for name in rounds[0]}
    for file, what in ((LOG, "five fields"), (NUMBERS_LOG, "and numbers")):
        table.add_row(f"{stored_decisions:,} stored, {what}")
        table.add_row("  loaded", f"{median[f'{file} loaded']:.1f} s")
        table.add_row("  and five policies evaluated", f"{median[f'{file} evaluated']:.1f} s")
        for step in ("loaded", "evaluated"):
            most = median[f"{file} {step}, MB"] / stored_decisions * 1e6
            table.add_row(f"  memory, {step}", f"{most:,.0f} MB/million")
    return table


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Rounds in which all take turns.")
@click.option("--decisions", default=50_000, show_default=True, help="Of progressive evaluation.")
@click.option("--rows", default=1_000_000, show_default=True, help="Of point estimates and the bootstrap.")
@click.option("--stored", "stored_decisions", default=1_000_000, show_default=True, help="Of the log in SQLite.")
@rivals_option
@click.option("--contestant", type=click.Choice(list(OURS)), hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
def main(
    rounds: int,
    decisions: int,
    rows: int,
    stored_decisions: int,
    rivals: Path,
    contestant: str | None,
    folder: Path | None,
) -> None:
    """Speed of evaluation, as ratios of processor time measured in one run.

    \b
    Example: python -m simulator.studies.bench_evaluate --rounds 5
    """
    if contestant and folder:
        click.echo(json.dumps(OURS[contestant](folder)))
        return
    check_there(rivals)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name, _progress() as progress:
        task = progress.add_task("writing the logs", total=rounds)
        prepare(Path(name), decisions=decisions, rows=rows, stored_decisions=stored_decisions)
        measured = []
        progress.update(task, description="rounds")
        for _ in range(rounds):
            measured.append(turn(Path(name), rivals))
            progress.advance(task)
    Console(width=WIDTH).print(shown(measured, stored_decisions=stored_decisions))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


if __name__ == "__main__":
    main()
