"""What the processes of a log on one machine tell each other that is not in the log: files in a folder beside it (among
the machine's temporary files, where the log is in PostgreSQL), each written by one process alone. Called by `crew.py`
and `serve.py`.

All of it is about now: a folder of processes that are gone is worth nothing, and the next leader removes it.
"""

from __future__ import annotations

import glob
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from decider.errors import LogError
from decider.learn.leader import Progress
from decider.log.place import LogUrl, options_of
from decider.metrics.merged import Snapshot, Source, counted, merge, snapshot
from decider.serving.follower import Owner
from decider.types import ExperimentId, Position

LEADER = "leader"

SUFFIXES = (".json", ".model", ".new")
"""Of the files in a board."""


def worker_name(number: int) -> str:
    """How a worker is called in the output, on /readyz and in its file."""
    return f"worker {number}"


JUST_NOW = 60.0
"""Seconds since the last change of a folder in which somebody may be about to report."""

_STATE, _PARENT = "state", "parent"
"""What the leader says, and the parent."""

_LEFT = "{} before"
"""What processes have counted that were renewed while their successors served."""


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


class Report(NamedTuple):
    """What a process says of itself. at: of the monotonic clock, which all processes share. problem: why it should get
    no calls; empty where it should. starts: of processes of this name. metrics: counted since the first of them.
    warnings: see Process."""

    pid: int
    at: float
    problem: str
    starts: int
    metrics: Snapshot
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LeaderState:
    """held: models that cannot be learned yet, and why. forgotten: experiments that metrics name no longer."""

    progress: Sequence[Progress] = ()
    held: Mapping[Owner, str] = field(default_factory=dict)
    forgotten: Sequence[ExperimentId] = ()

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "progress": [[one.experiment, one.version, one.position, one.head] for one in self.progress],
            "held": [[*owner, problem] for owner, problem in self.held.items()],
            "forgotten": [*self.forgotten],
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> LeaderState:
        """What had this content."""
        return cls(
            progress=[
                Progress(ExperimentId(id_), version, Position(at), Position(head))
                for id_, version, at, head in content["progress"]
            ],
            held={(ExperimentId(id_), signature): problem for id_, signature, problem in content["held"]},
            forgotten=[ExperimentId(id_) for id_ in content["forgotten"]],
        )


class Renewal(NamedTuple):
    """How far the parent is with putting new processes in the places of all. asked: how often that was asked for. left:
    who is still to be renewed. problem: why the last time was given up."""

    asked: int = 0
    left: Sequence[str] = ()
    problem: str = ""


def make_board(db: Path | LogUrl) -> Path:
    """A new folder. Raises LogError."""
    place = _place(db)
    try:
        return Path(tempfile.mkdtemp(prefix=f"{place.name}-workers-", dir=place.parent))
    except OSError as error:
        raise LogError(f"{place.parent}: cannot be written there ({error}); choose another place") from error


def _place(db: Path | LogUrl) -> Path:
    """Folders of a log are beside this path."""
    if isinstance(db, Path):
        return db
    which = f"{db} {options_of(db)}"
    return Path(tempfile.gettempdir()) / f"decider-{sha256(which.encode()).hexdigest()[:16]}"


def remove_board(folder: Path) -> None:
    """Whatever is left of it; a folder that only has such a name keeps what is somebody else's."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix in SUFFIXES:
                path.unlink(missing_ok=True)
        folder.rmdir()


class Board:
    """A folder that is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remove_others(self, db: Path | LogUrl) -> None:
        """Folders of processes that were killed. Called by the leader. Of a file it has the lease, so nobody else is
        there; a log in PostgreSQL may have other processes on this machine."""
        for other in boards(db):
            if other.folder != self.folder and (isinstance(db, Path) or other.is_left()):
                remove_board(other.folder)

    def is_left(self) -> bool:
        """Whether nobody is there any more: all who ever reported are gone, and that was not just now."""
        try:
            pids = [json.loads(path.read_text())["pid"] for path in self.folder.glob("*.json") if path.stem != _STATE]
            return not any(map(lives, pids)) and time.time() - self.folder.stat().st_mtime > JUST_NOW
        except (OSError, ValueError):
            return False

    def report(self, name: str, report: Report) -> None:
        """Say it to all. A disk that is full keeps nobody from serving: then it is not said."""
        self._write(name, report._asdict())

    def read(self, name: str) -> Report | None:
        """The newest report of a process; None: there is none."""
        found = self._read(name)
        return Report(**found) if found else None

    def read_all(self, name: str) -> list[Report]:
        """The reports that belong to a name: of who serves, and of those before who left while that one served
        already; of these the gauges only while the last one is there."""
        report, before = self.read(name), self.read(_LEFT.format(name))
        if before is None:
            return [report] if report else []
        if not lives(before.pid):
            before = before._replace(metrics=counted(before.metrics))
        return [report, before] if report and report.pid != before.pid else [before]

    def forget_before(self, name: str, experiment: ExperimentId) -> None:
        """No longer name an experiment in that; who still leaves hears of it from the leader's state."""
        report = self.read(_LEFT.format(name))
        if report is not None and not lives(report.pid):
            metrics = counted(report.metrics, without=[experiment])
            self.report(_LEFT.format(name), report._replace(metrics=metrics))

    def is_handed_over(self, name: str) -> bool:
        """Whether who reported last under this name goes on as one of those before."""
        report, before = self.read(name), self.read(_LEFT.format(name))
        return report is None or (before is not None and before.pid == report.pid)

    def tell_renewal(self, renewal: Renewal) -> None:
        """Say it to whoever asked for it. Called by the parent."""
        self._write(_PARENT, {"pid": os.getpid(), **renewal._asdict()})

    def read_renewal(self) -> tuple[int, Renewal] | None:
        """The parent's process id, and what it says; None where there is none."""
        found = self._read(_PARENT)
        if found is None or not lives(pid := found.pop("pid")):
            return None
        return pid, Renewal(**found)

    def lead(self, state: LeaderState) -> None:
        """Say it to all workers."""
        self._write(_STATE, state.content())

    def leader_state(self) -> LeaderState:
        """What the leader said last."""
        return LeaderState.of(self._read(_STATE) or LeaderState().content())

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.folder / f"{name}.json"
        with suppress(OSError):
            unfinished = path.with_suffix(".new")
            unfinished.write_text(json.dumps(content))
            unfinished.replace(path)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return found


class Reporter:
    """The reports of one process. metrics: its own; with what its predecessors of this name had counted they are the
    process's `counts`. beside: the predecessor still counts, and goes on with that under another name."""

    def __init__(self, board: Board, name: str, metrics: Source, *, beside: bool = False) -> None:
        self._board = board
        self._name = name
        self._metrics = metrics
        before = board.read(name)
        self._before = counted(before.metrics) if before and not beside else []
        self._starts = before.starts + 1 if before else 1

    def counts(self) -> Snapshot:
        """What it has counted, and its gauges."""
        return merge([snapshot(self._metrics), self._before])

    def forget(self, experiments: Sequence[ExperimentId]) -> None:
        """No longer name experiments that predecessors have named."""
        if experiments:
            self._before = counted(self._before, without=experiments)

    def leave(self) -> None:
        """Somebody else reports under this name from now on."""
        self._name = _LEFT.format(self._name)
        earlier = self._board.read(self._name)
        self._before = merge([self._before, counted(earlier.metrics) if earlier else []])
        self.report("")

    def is_free(self) -> bool:
        """Whether nobody else reports under this name any more."""
        return self._board.is_handed_over(self._name)

    def report(self, problem: str, warnings: Sequence[str] = ()) -> None:
        """See Board."""
        counts = self.counts()
        self._board.report(
            self._name, Report(os.getpid(), time.monotonic(), problem, self._starts, counts, [*warnings])
        )


def boards(db: Path | LogUrl) -> list[Board]:
    """All that there are, of a log on this machine."""
    place = _place(db)
    return [Board(folder) for folder in place.parent.glob(f"{glob.escape(place.name)}-workers-*")]
