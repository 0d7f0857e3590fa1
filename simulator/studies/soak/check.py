"""After the soak: is everything that was acknowledged in the log or the archive once, and does all of it replay?

Called by `__main__.py`, once the server has ended.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from decider.log.open import open_reader
from simulator.studies.soak.traffic import DECIDED, REWARDED

_EQUAL = re.compile(r"^(\d+) of (\d+) decisions equal", re.MULTILINE)
FIRST_ID, AFTER_ALL_IDS = "0", ":"
"""Between these are all ids of digits."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Of decisions or of rewards. twice: how many are in more than one place, or more than once."""

    acknowledged: int
    in_log: int
    in_archive: int
    lost: int
    twice: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What `simulator verify` said. equal, decisions: None where it did not say."""

    what: str
    code: int
    equal: int | None
    decisions: int | None
    text: str

    @property
    def ok(self) -> bool:
        """N of N."""
        return self.code == 0 and bool(self.decisions) and self.equal == self.decisions


@dataclass(frozen=True, slots=True)
class _Found:
    """How often each number was found. archived: the last position in the archive."""

    decisions: NDArray[np.uint8]
    rewards: NDArray[np.uint8]
    archived: int = 0


def count(db: Path, archive: Path, ledger: bytes) -> tuple[Counts, Counts]:
    """(decisions, rewards). Raises LogError."""
    kept = _in_archive(archive, len(ledger))
    live = _in_log(db, len(ledger), after=kept.archived)
    bits = np.frombuffer(ledger, dtype=np.uint8)
    return (
        _counts(bits & DECIDED > 0, live.decisions, kept.decisions),
        _counts(bits & REWARDED > 0, live.rewards, kept.rewards),
    )


def _counts(acknowledged: NDArray[np.bool_], live: NDArray[np.uint8], kept: NDArray[np.uint8]) -> Counts:
    times = live + kept
    return Counts(
        acknowledged=int(acknowledged.sum()),
        in_log=int(live.sum()),
        in_archive=int(kept.sum()),
        lost=int((acknowledged & (times == 0)).sum()),
        twice=int((times > 1).sum()),
    )


def _in_log(db: Path, size: int, *, after: int) -> _Found:
    """Entries at positions after the archive's last: what lies before is archived, and remembered for retries only."""
    with closing(open_reader(db)) as log:
        decisions = (
            one.decision.decision_id for one in log.decisions_between(FIRST_ID, AFTER_ALL_IDS) if one.position > after
        )
        counted = _times(decisions, size)
        rewards = (one.decision_id for one in log.rewards_between(FIRST_ID, AFTER_ALL_IDS) if one.position > after)
        return _Found(counted, _times(rewards, size))


def _times(ids: Iterable[str], size: int) -> NDArray[np.uint8]:
    found = np.zeros(size, dtype=np.uint8)
    for id_ in ids:
        found[int(id_)] += 1
    return found


def _in_archive(folder: Path, size: int) -> _Found:
    """Of all parts that are finished."""
    found = _Found(np.zeros(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8))
    places = [_read(file, ("position", "decision_id")) for file in _files(folder, "decisions")]
    if not places:
        return found
    positions, numbers = (np.concatenate(column) for column in zip(*places, strict=True))
    numbers = numbers.astype(np.int64)
    np.add.at(found.decisions, numbers, 1)
    order = np.argsort(positions)
    for file in _files(folder, "rewards"):
        _, of = _read(file, ("position", "decision"))
        np.add.at(found.rewards, numbers[order][np.searchsorted(positions[order], of)], 1)
    return _Found(found.decisions, found.rewards, archived=_last_position(folder))


def _files(folder: Path, table: str) -> Sequence[Path]:
    return sorted(file for file in folder.glob(f"*/{table}.parquet") if not file.parent.name.startswith("."))


def _last_position(folder: Path) -> int:
    """Parts are named LOG-FIRST-LAST."""
    return max(int(file.parent.name.rpartition("-")[2]) for file in _files(folder, "decisions"))


def _read(file: Path, columns: Sequence[str]) -> Sequence[NDArray[np.generic]]:
    table = parquet.read_table(file, columns=list(columns))
    return [table[column].to_numpy() for column in columns]


def replay(db: Path, copy: Path | None, archive: Path | None) -> Sequence[Replay]:
    """`simulator verify` of the log, of its copy, and of log and archive together; two at a time."""
    runs = [("the log", [str(db)])]
    runs += [("the copy", [str(copy)])] if copy else []
    runs += [("log + archive", [str(db), "--archive", str(archive)])] if archive else []
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda run: _verify(*run), runs))


def _verify(what: str, arguments: Sequence[str]) -> Replay:
    command = [sys.executable, "-m", "simulator.cli", "verify", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = _EQUAL.search(done.stdout)
    equal, decisions = (int(said[1]), int(said[2])) if said else (None, None)
    return Replay(what, done.returncode, equal, decisions, (done.stdout + done.stderr).strip())
