"""`decider serve` whose processes can be told to kill themselves in the middle of something. Run as a program, by
`crew.py`.

A moment that is taken at random falls into a commit or into the writing of a file once in many kills. Here a fuse does
it: an empty file in the folder that FUSES names, called POINT-PID, or POINT where it is for whoever comes there first.
"""

from __future__ import annotations

import os
import runpy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decider.learn.leader import Leader
from decider.learn.trainer import Trainer
from decider.log import open as log_open
from decider.log.protocol import EventLog

FUSES = "DECIDER_STUDY_FUSES"
"""A variable of the environment."""

UNFINISHED = ".new"
"""How the name of a model's file ends as long as it is written."""

STARTED = "started"
"""The point after which the log is open."""


def fuse(folder: Path, point: str, pid: int | None = None) -> Path:
    """Where the fuse of a point is. pid: of the process that is to die; None: the first one that comes there."""
    return folder / (point if pid is None else f"{point}-{pid}")


def burn(point: str) -> None:
    """Die, where there is a fuse for it."""
    if _takes(point):
        die()


def die() -> None:
    """As by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def _takes(point: str) -> bool:
    folder = Path(os.environ[FUSES])
    for path in (fuse(folder, point, os.getpid()), fuse(folder, point)):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        return True
    return False


def around(owner: type, method: str, *, before: str = "", after: str = "") -> None:
    """Put points before and after a method."""
    plain: Callable[..., Any] = getattr(owner, method)

    def pointed(*args: Any, **kwargs: Any) -> Any:
        if before:
            burn(before)
        answer = plain(*args, **kwargs)
        if after:
            burn(after)
        return answer

    setattr(owner, method, pointed)


def _write_half(path: Path, content: bytes) -> int:
    """Half of a model's file is there."""
    if path.suffix == UNFINISHED and _takes("model file"):
        _write_bytes(path, content[: len(content) // 2])
        die()
    return _write_bytes(path, content)


_write_bytes = Path.write_bytes


def _point_log(plain: Callable[..., EventLog]) -> Callable[..., EventLog]:
    """Opens a log, whatever implements it, with points around its commits and the storing of models."""

    def open_pointed(*args: Any, **kwargs: Any) -> EventLog:
        log = plain(*args, **kwargs)
        if log.__class__ not in _pointed:
            _pointed.add(log.__class__)
            around(log.__class__, "append", before="before commit", after="after commit")
            around(log.models.__class__, "store", before="before storing", after="stored")
        burn(STARTED)
        return log

    return open_pointed


_pointed: set[type] = set()


def set_points() -> None:
    """All of them. A leader comes to those of a commit, too: whose they are says the fuse. Before the server is
    imported, which takes the name of what opens a log with it."""
    log_open.open_log = _point_log(log_open.open_log)
    around(Trainer, "_learn", before="learning")
    around(Leader, "_publish_all", before="before publishing", after="published")
    Path.write_bytes = _write_half  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    set_points()
    runpy.run_module("decider.cli", run_name="__main__")
