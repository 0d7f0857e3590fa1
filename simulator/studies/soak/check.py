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


def count_decisions(db: Path, archive: Path, ledger: bytes) -> Counts:
    """Raises LogError."""
    live = _live_decisions(db, len(ledger), after=_last_position(archive))
    kept = _archived_decisions(archive, len(ledger))
    return _counts(ledger, DECIDED, live + kept, in_archive=int(kept.sum()))


def count_rewards(db: Path, archive: Path, ledger: bytes) -> Counts:
    """Raises LogError."""
    return _counts(ledger, REWARDED, _all_rewards(db, archive, len(ledger)), in_archive=_archived_rewards(archive))


def _counts(ledger: bytes, bit: int, times: NDArray[np.uint8], *, in_archive: int) -> Counts:
    acknowledged = np.frombuffer(ledger, dtype=np.uint8) & bit > 0
    return Counts(
        acknowledged=int(acknowledged.sum()),
        in_log=int(times.sum()) - in_archive,
        in_archive=in_archive,
        lost=int((acknowledged & (times == 0)).sum()),
        twice=int((times > 1).sum()),
    )


def _live_decisions(db: Path, size: int, *, after: int) -> NDArray[np.uint8]:
    """How often each number is in the log, behind the archive: what lies before is remembered for retries only."""
    with closing(open_reader(db)) as log:
        found = log.decisions_between(FIRST_ID, AFTER_ALL_IDS)
        return _times((one.decision.decision_id for one in found if one.position > after), size)


def _all_rewards(db: Path, archive: Path, size: int) -> NDArray[np.uint8]:
    """Of log and archive together: a reward may be in the log while its decision is in the archive."""
    both = open_reader(db, archive=[archive]) if _files(archive, "decisions") else open_reader(db)
    with closing(both) as log:
        return _times((one.decision_id for one in log.rewards_between(FIRST_ID, AFTER_ALL_IDS)), size)


def _times(ids: Iterable[str], size: int) -> NDArray[np.uint8]:
    found = np.zeros(size, dtype=np.uint8)
    for id_ in ids:
        found[int(id_)] += 1
    return found


def _archived_decisions(folder: Path, size: int) -> NDArray[np.uint8]:
    """How often each number is in the parts that are finished, read without the code that made them."""
    found = np.zeros(size, dtype=np.uint8)
    for file in _files(folder, "decisions"):
        ids = parquet.read_table(file, columns=["decision_id"])["decision_id"]
        np.add.at(found, ids.to_numpy().astype(np.int64), 1)
    return found


def _archived_rewards(folder: Path) -> int:
    return sum(parquet.read_metadata(file).num_rows for file in _files(folder, "rewards"))


def _files(folder: Path, table: str) -> Sequence[Path]:
    return sorted(file for file in folder.glob(f"*/{table}.parquet") if not file.parent.name.startswith("."))


def _last_position(folder: Path) -> int:
    """Parts are named LOG-FIRST-LAST; 0 where there is none."""
    return max((int(file.parent.name.rpartition("-")[2]) for file in _files(folder, "decisions")), default=0)


def replay(db: Path, copy: Path | None, archive: Path | None) -> Sequence[Replay]:
    """`simulator verify` of the log, of its copy, and of log and archive together; two at a time."""
    runs = [("the log", [str(db)])]
    runs += [("the copy", [str(copy)])] if copy else []
    runs += (
        [("log + archive", [str(db), "--archive", str(archive)])] if archive and _files(archive, "decisions") else []
    )
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda run: verify(*run), runs))


def verify(what: str, arguments: Sequence[str]) -> Replay:
    """`simulator verify` of a log, named with its options."""
    command = [sys.executable, "-m", "simulator.cli", "verify", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = _EQUAL.search(done.stdout)
    equal, decisions = (int(said[1]), int(said[2])) if said else (None, None)
    return Replay(what, done.returncode, equal, decisions, (done.stdout + done.stderr).strip())
