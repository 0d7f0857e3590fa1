"""What the commands share: options, progress on stderr, exit codes, output. Called by the other modules here."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from decider.errors import DeciderError
from simulator.logs.columns import Columns
from simulator.logs.errors import BadLog
from simulator.logs.open import ReadOptions, open_log
from simulator.logs.options import DROP, LARGEST_NUMBER
from simulator.logs.span import is_moment
from simulator.run.engine import EngineUnavailable
from simulator.run.engines import ENGINES, PROCESSES, engine_of

REFUSED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit codes, besides 0."""

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
VISITS = click.IntRange(1, 10_000_000)
"""All visits of a seed are drawn beforehand: so many fit into the memory of a large machine."""
SEED_COUNT = click.IntRange(1, 10_000)


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def with_options(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of `--help`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _empty_reward(_: click.Context, __: click.Parameter, text: str | None) -> float | Literal["drop"] | None:
    if text is None or text == DROP:
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise click.BadParameter(f"{text!r} is neither a number nor {DROP}")
    return number


def _actions(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | int | None:
    """A number, ids between commas, or `@FILE` with one id a line."""
    if text is None:
        return None
    if re.fullmatch(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?", text):
        return _action_count(text)
    if Path(text).is_file():
        raise click.BadParameter(f"{text}: is a file; did you mean --actions @{text}? As an action's id: {text},")
    ids = [one.strip() for one in (_lines(Path(text[1:])) if text.startswith("@") else text.split(","))]
    ids = [one for one in ids if one]
    twice = next((one for one in ids if ids.count(one) > 1), None) if len(set(ids)) < len(ids) else None
    if twice or not ids:
        raise click.BadParameter(f"{text}: names {f'{twice!r} twice' if twice else 'no action'}")
    return tuple(ids)


def _action_count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text) or not int(text):
        raise click.BadParameter(f"{text} is no number of actions from 1 to 999999; as an action's id: {text},")
    return int(text)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{file}: cannot be read ({error}); it has one action a line") from error


class VersionNumbers(click.ParamType[tuple[int, ...]]):
    """A version of an experiment, or the first and the last of several.

    >>> VersionNumbers().convert("3-5", None, None), VersionNumbers().convert("2", None, None)
    ((3, 4, 5), (2,))
    """

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers."""
        first, _, last = str(value).partition("-")
        if not (first.isdecimal() and (last or first).isdecimal() and 1 <= int(first) <= int(last or first) <= 99_999):
            self.fail(f"{value!r} is no version's number, like 3, and no range of them, like 3-5", param, ctx)
        return tuple(range(int(first), int(last or first) + 1))


def _all_numbers(_: click.Context, __: click.Parameter, given: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    return tuple(sorted({number for numbers in given for number in numbers}))


def _moment(_: click.Context, __: click.Parameter, text: str) -> str:
    if text and not is_moment(text):
        raise click.BadParameter(f"{text!r} is no date (2026-11-28), time (2026-11-28T14:30Z) or duration (7d, 24h)")
    return text


def _reward_weights(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """NAME or NAME=WEIGHT, several times."""
    weights: dict[str, float] = {}
    for text in given:
        name, sign, weight = text.partition("=")
        if name in weights:
            raise click.BadParameter(f"{name!r} is there twice")
        weights[name] = _reward_weight(text, weight) if sign else 1.0
    return tuple(weights.items())


def _reward_weight(text: str, weight: str) -> float:
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST_NUMBER:
        raise click.BadParameter(f"{text!r} is no NAME=WEIGHT, like click=0.1")
    return number


archive_option = click.option(
    "--archive",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="Where the archived parts of a log of ours are; without it only what the log still holds is read.",
)

experiment_option = click.option("--experiment", metavar="ID", help="Which one, where a log of ours has several.")

span_options = with_options(
    click.option(
        "--since",
        default="",
        callback=_moment,
        metavar="TIME",
        help="Only decisions from then on: 2026-11-28, a time in UTC, or 7d before the last one.",
    ),
    click.option("--until", default="", callback=_moment, metavar="TIME", help="Only decisions before that time."),
)

_columns = with_options(
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="WORD=NAME",
        help="What a table's column is, like reward=clicked; times without a zone are UTC. Of every log: context=NAME "
        "is context whatever it looks like, ignore=NAME is not.",
    ),
    click.option("--mapping", type=FILE, help='The same as a TOML file: reward = "clicked".'),
)
_rows = with_options(
    click.option("--reward-range", nargs=2, type=float, metavar="LOW HIGH", help="Declared; otherwise as seen."),
    click.option(
        "--empty-reward",
        metavar="NUMBER|drop",
        callback=_empty_reward,
        help="What an empty reward of a table means: 0, nothing happened; drop, nobody knows.",
    ),
    click.option(
        "--actions",
        metavar="IDS|@FILE|NUMBER",
        callback=_actions,
        help="Actions of a table that were never drawn: a,b,c, a file with one a line, or how many there are in all.",
    ),
    click.option("--skip-bad", is_flag=True, help="Leave bad rows out and count them."),
)

table_options = with_options(_columns, _rows)
"""How to read a table."""

read_options = with_options(
    _columns,
    click.option(
        "--reward",
        "rewards",
        multiple=True,
        callback=_reward_weights,
        metavar="NAME[=WEIGHT]",
        help="Of a log of ours: count these rewards instead of what the policy learned from; may be repeated.",
    ),
    _rows,
    click.option(
        "--version",
        type=VersionNumbers(),
        multiple=True,
        callback=_all_numbers,
        metavar="N",
        help="Of the experiment, or N-M; may be repeated.  [default: the newest that agree]",
    ),
    span_options,
    archive_option,
)
"""How to read a log of which the experiment is known."""

log_options = with_options(experiment_option, read_options)
"""How to read a log."""


def _writable(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    """Said before the work, not after it."""
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"{file}: there is no folder {file.parent}; make it first")
    return file


def _engine(_: click.Context, __: click.Parameter, name: str) -> str:
    """Said before the work, not after it."""
    try:
        engine_of(name, workers=None)
    except EngineUnavailable as error:
        raise click.BadParameter(str(error)) from error
    return name


json_option = click.option(
    "--json", "json_file", type=FILE, callback=_writable, metavar="FILE", help="Write the result as JSON, too."
)
report_option = click.option("--report", type=FOLDER, metavar="DIR", help="Write a page with plots.")
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Runs at a time.  [default: one per core]"
)
on_option = click.option(
    "--on",
    default=PROCESSES,
    show_default=True,
    callback=_engine,
    metavar=ENGINES,
    help="What does the work: processes of this machine, Ray here, or Ray on a cluster that runs already (the client "
    "port of its head node). The figures are the same, bit for bit.",
)
at_once_option = click.option(
    "--no-delay", is_flag=True, help="Every reward is learned at once, not when its window ends."
)


@contextmanager
def bar(console: Console, what: str) -> Iterator[Callable[[float], None]]:
    """A progress bar; call what it gives with the fraction that is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)


@contextmanager
def counted(console: Console, total: int, what: str) -> Iterator[Callable[..., None]]:
    """A progress bar; call what it gives once for each of `total` things that are done."""
    done = count(1)
    with bar(console, what) as progress:
        yield lambda *_: progress(next(done) / total)


@contextmanager
def bad_input() -> Iterator[None]:
    """Bad input, and what cannot be written, is one line and exit code 2; so is every unexpected error."""
    try:
        yield
    except (DeciderError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt as interrupt:
        click.echo(f"Interrupted: {interrupt}" if str(interrupt) else "Interrupted", err=True)
        sys.exit(INTERRUPTED)
    except MemoryError as error:
        click.echo(f"Error: out of memory ({str(error) or 'no more of it'}); ask for less at a time", err=True)
        sys.exit(BAD_INPUT)
    except Exception as error:
        if os.environ.get("SIMULATOR_TRACEBACK"):
            raise
        click.echo(f"Error: {type(error).__name__}: {error} (where: SIMULATOR_TRACEBACK=1)", err=True)
        sys.exit(BAD_INPUT)


def refuse_overwriting(json_file: Path | None, *others: str | Path | None) -> None:
    """Raises BadLog where the JSON would be written over what is read or made.

    >>> refuse_overwriting(Path("shop.db"), "other.db", Path("shop.db"))
    Traceback (most recent call last):
    simulator.logs.errors.BadLog: --json shop.db: is the log itself or another file that is read; name another file
    """
    for other in others:
        if json_file is not None and other is not None and json_file.resolve() == Path(other).resolve():
            raise BadLog(f"--json {json_file}: is the log itself or another file that is read; name another file")


def read_log(name: str, console: Console, *, reward_range: tuple[float, float] | None, **given: Any) -> Columns:
    """The log of that name, read as `log_options` said, with a progress bar. Raises DeciderError."""

    def note(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    if reward_range and not -LARGEST_NUMBER <= reward_range[0] < reward_range[1] <= LARGEST_NUMBER:
        raise BadLog(f"--reward-range {reward_range[0]} {reward_range[1]}: must be two finite numbers, the lower first")
    with bar(console, "reading") as progress:
        options = ReadOptions(reward_range=reward_range or None, on_progress=progress, on_note=note, **given)
        return open_log(name, options)


def write_json(file: Path | None, text: str) -> None:
    """Write it, if a file was named. Raises OSError."""
    if file is not None:
        file.write_text(text + "\n", encoding="utf-8")


def print_results(parts: Iterable[RenderableType], *, highlight: bool = True, **files: Path | None) -> None:
    """The parts, then where each file is. Write files first: then `| head` leaves none out."""
    console = Console(emoji=False, markup=False, highlight=highlight)
    for part in parts:
        console.print(part)
    for name, file in files.items():
        if file:
            console.print(f"{name.capitalize()}: {file}", soft_wrap=True)
