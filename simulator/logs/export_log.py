"""Columns of any log -> a file that others read: dsjson, CSV or Parquet, by its suffix. Called by `simulator export`.

Kept by all: decisions in their order, actions and eligible sets, propensities to the last bit, pmfs as float32,
rewards, contexts, times, which decisions are of one person. What a format cannot hold is reported (`lost`).
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from simulator.logs.arrow import all_numbers
from simulator.logs.columns import KIND, Category, Columns
from simulator.logs.errors import BadLog
from simulator.logs.export_dsjson import dsjson_lines
from simulator.logs.export_table import field_name, write_csv, write_parquet
from simulator.logs.files import suffix

DSJSON = (".dsjson", ".json", ".jsonl")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
KINDS = (*DSJSON, *DELIMITERS, ".parquet")

REPORT_EVERY = 1_000
"""Lines between two reports of progress."""


@dataclass(frozen=True, slots=True)
class ExportCounts:
    """What was written. lost: what the log has and this kind of file cannot hold."""

    decisions: int
    lost: tuple[str, ...]


def export_log(
    columns: Columns, path: Path, *, kind: str | None = None, on_progress: Callable[[float], None] = lambda _: None
) -> ExportCounts:
    """Write the decisions; `kind` is the suffix that `path` would have. Raises BadLog.

    >>> from tempfile import TemporaryDirectory
    >>> from simulator.logs.example import example
    >>> with TemporaryDirectory() as folder:
    ...     exported = export_log(example(), Path(folder, "log.csv"))
    ...     Path(folder, "log.csv").read_text().splitlines()[0], exported.lost
    ('"time","unit_id","action","propensity","reward","segment","device","age","pmf.a","pmf.b"', ())
    """
    kind = kind or path.name
    form, packed = suffix(Path(kind)), kind.endswith(".gz")
    check_kind(Path(kind))
    if not len(columns):
        raise BadLog(f"{columns.name}: has no decision to export")

    def done(count: int) -> None:
        on_progress(count / len(columns))

    if form in DSJSON:
        _write_lines(columns, path, packed=packed, done=done)
    elif form in DELIMITERS:
        write_csv(columns, path, delimiter=DELIMITERS[form], packed=packed, done=done)
    else:
        write_parquet(columns, path, done=done)
    return ExportCounts(len(columns), lost_in(columns, form))


def check_kind(path: Path) -> None:
    """Raises BadLog where the suffix is none of those that can be written."""
    form = suffix(path)
    if form not in KINDS or (form == ".parquet" and path.name.endswith(".gz")):
        raise BadLog(f"{path}: a log is exported to a file that ends in {', '.join(KINDS)} (text also in .gz)")


def _write_lines(columns: Columns, path: Path, *, packed: bool, done: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("wb"))
        file = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="wb", mtime=0)) if packed else raw
        for number, line in enumerate(dsjson_lines(columns), start=1):
            file.write(line.encode())
            if number % REPORT_EVERY == 0:
                done(number)
    done(len(columns))


def lost_in(columns: Columns, form: str) -> tuple[str, ...]:
    """What a log has that a kind of file (".csv") cannot hold, in words for people."""
    always = {
        "the baseline action": columns.baseline is not None,
        "why an action was drawn": columns.reason is not None,
        "which units of a person are linked: a person is one unit": columns.person is not None,
    }
    if form in DSJSON:
        return tuple([what for what, there in {**always, **_lost_in_dsjson(columns)}.items() if there])
    lost = {**always, **_lost_in_tables(columns)}
    if form in DELIMITERS:
        looks = ",".join(field_name(name) for name in columns.fields if _looks_like_numbers(columns, name))
        lost[f"that some texts are no numbers (read it with --column categories={looks})"] = bool(looks)
    return tuple([what for what, there in lost.items() if there])


def _lost_in_dsjson(columns: Columns) -> dict[str, bool]:
    hidden = [name for name in (*columns.fields, *columns.traits) if name.startswith("_")]
    return {f"features whose names begin with _ ({', '.join(hidden)})": bool(hidden)}


def _lost_in_tables(columns: Columns) -> dict[str, bool]:
    return {
        "kinds of actions that were never drawn": _has_undrawn_kind(columns),
        "what the actions are (traits)": bool(columns.traits.keys() - {"kind"}),
        "features of actions that came with the call": bool(columns.action_features and columns.action_features.values),
        "delays of rewards, and where there was none": columns.delay is not None or columns.default is not None,
        "the model that decided": columns.model is not None and len(np.unique(columns.model)) > 1,
    }


def _has_undrawn_kind(columns: Columns) -> bool:
    undrawn = np.setdiff1d(np.arange(len(columns.actions)), columns.action).tolist()
    return any(columns.traits["kind"][action] != KIND for action in undrawn) if "kind" in columns.traits else False


def _looks_like_numbers(columns: Columns, name: str) -> bool:
    field = columns.fields[name]
    return isinstance(field, Category) and all_numbers(pa.array(field.values, pa.string()))
