"""`make side-by-side`: one log with known truth, evaluated by us and by the rivals, in one table.

The log is `rivals/known.py`'s. Ours are the estimates of `simulator evaluate`; each rival runs in a process of the
rivals' own environment (`rivals/with_*.py`) and gets the same log as arrays. A fixed policy is compared with its true
value on the log's contexts; a policy that learns from the log with the mean of what its successive policies earn there.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TextIO, get_args

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from simulator.evaluate.candidates import FIXED, Candidate
from simulator.evaluate.parse import parse
from simulator.evaluate.result import Estimate
from simulator.evaluate.run import evaluate
from simulator.logs.columns import Columns, Flags, Floats
from simulator.studies.rivals.exchange import About, ToolEstimate, loads
from simulator.studies.rivals.known import LEARNER, KnownLog, arrays, columns, experiment, known_log, vw_lines
from simulator.studies.rivals.with_vw import ARGUMENTS, LOG

ROOT = Path(__file__).parents[2]
INTERPRETER = ROOT / ".venv-rivals/bin/python"
SCRIPTS = ("with_vw_estimators", "with_obp", "with_coba", "with_mabwiser", "with_vw")

HEADINGS = ("tool", "estimator", "estimate", "95 % interval", "truth", "off", "truth inside", "on paper")


class RivalFailed(click.ClickException):
    """A rival's script ended with an error; the message is its last line."""


class FixedPmf:
    """The fixed candidate: its pmf is known for every decision of the log, which units number."""

    def __init__(self, pmfs: Floats) -> None:
        self.name = "learned elsewhere"
        self.estimand = FIXED
        self._pmfs = pmfs

    def pmf(self, block: Columns) -> Floats:
        """Of the block's decisions."""
        return np.asarray(self._pmfs[block.unit])

    def rows(self, columns: Columns) -> Flags | None:  # noqa: ARG002 - the protocol's
        """All."""
        return None


class RecordingCandidate:
    """A candidate whose pmfs are noted: the truth of one that learns depends on them."""

    def __init__(self, inner: Candidate) -> None:
        self._inner = inner
        self._seen: list[Floats] = []
        self.name = inner.name
        self.estimand = inner.estimand

    def pmf(self, block: Columns) -> Floats:
        """The inner one's."""
        self._seen.append(self._inner.pmf(block))
        return self._seen[-1]

    def rows(self, columns: Columns) -> Flags | None:
        """The inner one's."""
        return self._inner.rows(columns)

    @property
    def seen(self) -> Floats:
        """(n, actions): every pmf that it gave, in the order of the log."""
        return np.concatenate(self._seen)


def ours(known: KnownLog, folder: Path) -> list[ToolEstimate]:
    """What `simulator evaluate` says of both candidates."""
    log = columns(known)
    file = folder / "default.toml"
    file.write_text(experiment())
    learning = RecordingCandidate(parse(str(file), log))
    fixed, learned = evaluate(log, [FixedPmf(known.candidate), learning], breakdown=False).policies
    found = arrays(known)
    kinds: tuple[tuple[About, Mapping[str, Estimate], float], ...] = (
        ("fixed policy", fixed.estimates, found.truth),
        ("learning policy", learned.estimates, found.earned(learning.seen)),
    )
    return [
        ToolEstimate(
            tool="ours",
            estimator=name,
            about=about,
            value=one.value,
            truth=truth,
            unbiased=one.unbiased,
            low=one.low,
            high=one.high,
            interval=one.interval,
            note=one.note,
        )
        for about, estimates, truth in kinds
        for name, one in estimates.items()
    ]


def hand_over(known: KnownLog, folder: Path) -> None:
    """The log for the rivals: arrays, and the files for VW with our squarecb's arguments."""
    arrays(known).write(folder)
    (folder / ARGUMENTS).write_text(LEARNER.made_by.replace(" --quiet", ""))
    with (folder / LOG).open("w") as file:
        file.writelines(vw_lines(known))


def rival(script: str, folder: Path, interpreter: Path) -> list[ToolEstimate]:
    """The rows of one rival. Raises RivalFailed."""
    return [
        loads(line) for line in run_module(f"simulator.studies.rivals.{script}", str(folder), interpreter=interpreter)
    ]


def run_module(name: str, *arguments: str, interpreter: Path) -> list[str]:
    """The lines that a module of ours prints in an interpreter, with one thread. Raises RivalFailed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [str(interpreter), "-m", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RivalFailed(f"{name}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return done.stdout.splitlines()


def table(rows: Sequence[ToolEstimate]) -> str:
    """Markdown; first the fixed policy, then the learning ones.

    >>> one = ToolEstimate("ours", "ips", "fixed policy", 0.33, 0.30, True, low=0.29, high=0.37, interval="normal")
    >>> print(table([one]))
    **Fixed policy**
    <BLANKLINE>
    | tool | estimator | estimate | 95 % interval | truth | off | truth inside | on paper |
    |---|---|---:|---|---:|---:|---|---|
    | ours | ips | 0.3300 | 0.2900 to 0.3700, normal | 0.3000 | +10.0 % | yes | unbiased |
    """
    kinds = [about for about in get_args(About) if any(row.about == about for row in rows)]
    return "\n\n".join(_part(about, [row for row in rows if row.about == about]) for about in kinds)


def _part(about: str, rows: Sequence[ToolEstimate]) -> str:
    heading = [f"**{about.capitalize()}**", "", _line(HEADINGS), "|---|---|---:|---|---:|---:|---|---|"]
    return "\n".join([*heading, *[_line(_cells(row)) for row in rows]])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: ToolEstimate) -> Sequence[str]:
    estimator = f"{row.estimator} ({row.settings})" if row.settings else row.estimator
    if row.failure:
        return row.tool, estimator, "fails", row.failure, "", "", "", ""
    inside = {True: "yes", False: "**no**", None: ""}[row.inside]
    interval = "none" if row.inside is None else f"{row.low:.4f} to {row.high:.4f}, {row.interval}"
    return (
        row.tool,
        estimator,
        f"{row.value:.4f}",
        interval,
        f"{row.truth:.4f}",
        f"{100 * row.off:+.1f} %",
        inside,
        _on_paper(row),
    )


def _on_paper(row: ToolEstimate) -> str:
    if row.unbiased:
        return "unbiased"
    return row.note if row.note.startswith("biased") else f"biased: {row.note}".removesuffix(": ")


def _report(known: KnownLog, rows: Sequence[ToolEstimate], *, seed: int) -> str:
    """JSON: the rows, and what they are measured against."""
    facts = {
        "seed": seed,
        "rounds": len(known.log.action),
        "truth": known.truth,
        "logged_mean": float(known.log.reward.mean()),
        "uniform": float(known.log.visits.means.mean()),
        "best": float(known.log.visits.means.max(axis=1).mean()),
    }
    listed = [{**asdict(row), "off": row.off, "inside": row.inside} for row in rows]
    plain = [{key: None if value != value else value for key, value in one.items()} for one in listed]
    return json.dumps({**facts, "rows": plain}, indent=1, allow_nan=False)


def check_there(rivals: Path) -> None:
    """Raises click.UsageError where the rivals' interpreter is not."""
    if not rivals.exists():
        raise click.UsageError(
            f"there is no {rivals}: `make side-by-side` makes it from simulator/studies/rivals/requirements.txt"
        )


rivals_option = click.option(
    "--rivals",
    type=click.Path(path_type=Path, dir_okay=False),
    default=INTERPRETER,
    show_default=".venv-rivals/bin/python",
    help="The rivals' Python.",
)


@click.command()
@click.option("--seed", default=3, show_default=True, help="Of the log.")
@click.option("--rounds", default=50_000, show_default=True, help="Decisions in the log.")
@rivals_option
@click.option("--json", "file", type=click.File("w"), help="Write everything to a file.")
def main(seed: int, rounds: int, rivals: Path, file: TextIO | None) -> None:
    """One log with known truth, evaluated by us and by the rivals.

    \b
    Example: python -m simulator.studies.side_by_side --seed 4 --json side.json
    """
    check_there(rivals)
    known = known_log(seed=seed, rounds=rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hand_over(known, folder)
        steps: dict[str, Callable[[], list[ToolEstimate]]] = {"ours": partial(ours, known, folder)}
        steps |= {script: partial(rival, script, folder, rivals) for script in SCRIPTS}
        rows = _with_progress(steps)
    if file:
        file.write(_report(known, rows, seed=seed))
    click.echo(table(rows))


def _with_progress(steps: Mapping[str, Callable[[], list[ToolEstimate]]]) -> list[ToolEstimate]:
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(steps))
        for name, step in steps.items():
            progress.update(task, description=name)
            rows += step()
            progress.advance(task)
    return rows


if __name__ == "__main__":
    main()
