"""Results in a folder, one file a task, so that a sweep that was killed goes on where it was. Called by `sweep.py`.

A file is written whole or not at all. Its name says the function, the task and the version of the code: what other
code has found is not taken for what this code would find.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from simulator.run.plain import NotThis, from_plain, to_plain


@dataclass(frozen=True, slots=True)
class Place:
    """Where one task's result is or will be. wanted: everything that it depends on, as plain values."""

    file: Path
    wanted: dict[str, Any]

    def read(self, kind: Any) -> Any:
        """The result; None where there is none that can be used: a damaged file counts as none."""
        try:
            found = json.loads(self.file.read_bytes())
            return from_plain(kind, found["result"]) if _is_of(found, self.wanted) else None
        except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, NotThis, KeyError):
            return None

    def write(self, result: Any) -> None:
        """All of it or nothing, whenever the process is killed. Raises OSError."""
        part = self.file.with_suffix(f".{os.getpid()}.part")
        text = json.dumps(self.wanted | {"result": to_plain(result)}, ensure_ascii=False)
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(self.file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.file.parent)) from error


def _is_of(found: Any, wanted: dict[str, Any]) -> bool:
    return isinstance(found, dict) and {key: found.get(key) for key in wanted} == wanted


def place(folder: Path, function: Callable[..., Any], task: Any, version: str) -> Place:
    """Of one task's result.

    >>> from simulator.run.task import Task, run
    >>> place(Path("kept"), run, Task("storefront", "uniform", seed=1, rounds=10), "1").file.parent
    PosixPath('kept')
    """
    name = f"{function.__module__}:{function.__qualname__}"
    wanted = json.loads(json.dumps({"function": name, "version": version, "task": to_plain(task)}))
    digest = blake2b(json.dumps(wanted, sort_keys=True).encode(), digest_size=12).hexdigest()
    return Place(folder / f"{digest}.json", wanted)


def prepared(folder: Path) -> Path:
    """The folder, made if need be; raises OSError if nothing can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / f"trial.{os.getpid()}.part"
    trial.touch()
    trial.unlink()
    return folder
