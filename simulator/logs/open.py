"""A log by its name -> columns: the one place that chooses the reader. Called by the commands.

A name is a data set like `open-bandit:random/men`, the address of a log of ours in PostgreSQL, a file, or a folder of
files of one kind (all of them, in order of name). Its suffix says what a file is, without one its first bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decider.experiment.definition import Experiment
from decider.log.open import DECISIONS_FILE, LogUrl, is_archive, is_part, log_place
from simulator.logs import decider_log, dsjson, open_bandit, tables
from simulator.logs.columns import Columns
from simulator.logs.context_fields import CONTEXT_WORDS, with_context
from simulator.logs.errors import BadLog
from simulator.logs.files import files_of, suffix
from simulator.logs.options import ReadOptions
from simulator.logs.span import Span, select_span

__all__ = ["KINDS", "ReadOptions", "definition_in", "experiments_in", "open_log"]

DATABASE = (".db", ".sqlite", ".sqlite3")
_SAYS_ITSELF = "says itself which actions could be drawn; leave out --actions"
_MAGIC = b"SQLite format 3\x00"

KINDS = (
    "a log of ours (.db, or postgresql://...) or its archive (a folder), dsjson (.dsjson, .json, .jsonl, .log), "
    "a table (.csv, .tsv, .parquet), packed ones (.gz), a folder of those, or open-bandit:random/all"
)
"""The kinds of logs, for messages and help."""


def open_log(name: str, options: ReadOptions) -> Columns:
    """The log's decisions. Raises DeciderError: BadLog, LogError, DatasetError or AmbiguousExperiment.

    >>> open_log("clicks.xlsx", ReadOptions())
    Traceback (most recent call last):
    simulator.logs.errors.BadLog: clicks.xlsx: there is no such log; check the path
    """
    if _is_ours(name):
        name = _shown(name)
        if options.actions is not None:
            raise BadLog(f"{name}: {_SAYS_ITSELF}; or import the table again with it: --actions 200")
        _refuse_options(name, options)
        span = Span(options.since, options.until)
        columns = decider_log.load(
            _log_of(name),
            experiment=options.experiment,
            version=options.version,
            span=span,
            archive=options.archive,
            rewards=dict(options.rewards),
            reward_range=options.reward_range,
            on_note=options.on_note,
        )
        return with_context(columns, options)
    if options.version:
        raise BadLog(f"{name}: has no versions of an experiment, only a log of ours has; leave out --version")
    if options.rewards:
        raise BadLog(f"{name}: has one reward; leave out --reward, or name its column: --column reward=NAME")
    if options.archive:
        raise BadLog(f"{name}: has no archive, only a log of ours has; leave out --archive")
    return select_span(_open_foreign(name, options), Span(options.since, options.until))


def _open_foreign(name: str, options: ReadOptions) -> Columns:
    if name.startswith(open_bandit.PREFIX):
        _refuse_options(name, options)
        return with_context(open_bandit.load(name), options)
    path = Path(name)
    kind = _kind(path)
    if kind in tables.SUFFIXES:
        return tables.load(files_of(path, tables.SUFFIXES), name, options).in_order_of_time()
    _refuse_table_options(name, options)
    return dsjson.load(files_of(path, dsjson.SUFFIXES), name, options).in_order_of_time()


def definition_in(name: str, options: ReadOptions) -> Experiment | None:
    """The newest definition of the log's experiment; None where the log is not of ours. Raises as `open_log` does."""
    if not _is_ours(name):
        return None
    return decider_log.newest_definition(_log_of(name), experiment=options.experiment)


def experiments_in(name: str) -> Sequence[str]:
    """The ids of the experiments of a log of ours; none where it is not of ours. Raises as `open_log` does."""
    return decider_log.experiments(_log_of(name)) if _is_ours(name) else ()


def _is_ours(name: str) -> bool:
    if isinstance(log_place(name), LogUrl):
        return True
    return not name.startswith(open_bandit.PREFIX) and _kind(Path(name)) in DATABASE


def _shown(name: str) -> str:
    """The same; where it is an address, its password is left out of every message."""
    place = log_place(name)
    return place if isinstance(place, LogUrl) else name


def _log_of(name: str) -> Path | LogUrl:
    """A log or an archive. The decisions of a part are read with the rest of it, which says what they are of."""
    place = log_place(name)
    return place if isinstance(place, LogUrl) else _whole(place)


def _whole(path: Path) -> Path:
    return path.parent if path.name == DECISIONS_FILE and is_part(path.parent) else path


def _refuse_options(name: str, options: ReadOptions) -> None:
    """An option that this kind of log has no use for is an error, not ignored."""
    others = [text for text in options.columns if text.partition("=")[0].strip() not in CONTEXT_WORDS]
    if others or options.mapping or (options.reward_range and not options.rewards):
        raise BadLog(
            f"{name}: has fixed columns; leave out --column (but for context=NAME and ignore=NAME), --mapping and "
            "--reward-range (but beside --reward)"
        )
    _refuse_table_options(name, options)


def _refuse_table_options(name: str, options: ReadOptions) -> None:
    if options.empty_reward is not None:
        raise BadLog(f"{name}: leave out --empty-reward, it is for tables (.csv, .tsv, .parquet)")
    if options.actions is not None:
        raise BadLog(f"{name}: {_SAYS_ITSELF}")


def _kind(path: Path) -> str:
    """The suffix that says how to read a file or folder. Raises BadLog."""
    if is_archive(_whole(path)):
        return DATABASE[0]
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        raise BadLog(f"{path}: there is no such log; check the path")
    if _starts_with(path, _MAGIC):
        return DATABASE[0]
    kind = suffix(path)
    if kind in (*DATABASE, *tables.SUFFIXES, *dsjson.SUFFIXES):
        return kind
    if _starts_with(path, b"{"):
        return dsjson.SUFFIXES[0]
    raise BadLog(f"{path}: unknown log format; a log is {KINDS}")


def _kind_of_folder(path: Path) -> str:
    for suffixes in (tables.SUFFIXES, dsjson.SUFFIXES):
        if any(suffix(one) in suffixes for one in path.rglob("*") if one.is_file()):
            kinds = {suffix(one) for one in files_of(path, (*tables.SUFFIXES, *dsjson.SUFFIXES))}
            if not kinds <= set(suffixes):
                raise BadLog(f"{path}: the folder has files of several kinds ({', '.join(sorted(kinds))}); name one")
            return suffixes[0]
    raise BadLog(f"{path}: the folder has no log; a log is {KINDS}")


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start
