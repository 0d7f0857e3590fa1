"""Results in a folder, one file per task, so that a sweep that was killed goes on where it was. Called by `sweep.py`.

A file is written whole or not at all. It names the function, the task and the version of the code: a result of other
code is not taken for one of this code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cattrs import Converter

_CONVERTER = Converter()
# A field of type float may hold an int, and must be read as one: a figure is kept as it was.
_CONVERTER.register_structure_hook(float, lambda value, _: value if type(value) is int else float(value))


@dataclass(frozen=True, slots=True)
class ResultFile:
    """Where one task's result is or will be. key: all that the result depends on, as JSON has it."""

    file: Path
    key: dict[str, Any]

    def read(self, kind: Any) -> Any:
        """The result; None where there is none that can be used: a damaged file counts as none. Raises OSError."""
        try:
            text = self.file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            stored = json.loads(text)
            result = _CONVERTER.structure(stored["result"], kind)
        except Exception:  # of any damage: the conversion raises whatever the types of the fields raise
            return None
        # cattrs converts what it can ("1" to 1) and fills in defaults; only what would be written the same is ours
        return result if _to_json(self.key, result) == json.dumps(stored) else None

    def write(self, result: Any) -> None:
        """All of it or nothing, whenever the process is killed. Raises OSError."""
        part = self.file.with_suffix(f".{os.getpid()}.part")
        try:
            part.write_text(_to_json(self.key, result), encoding="utf-8")
            part.replace(self.file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.file.parent)) from error


def _to_json(key: dict[str, Any], result: Any) -> str:
    return json.dumps(key | {"result": _CONVERTER.unstructure(result)})


def result_file(folder: Path, function: Callable[..., Any], task: Any, version: str) -> ResultFile:
    """Of one task: another function, version or task has another file."""
    name = f"{function.__module__}:{function.__qualname__}"
    key = {"function": name, "version": version, "task": _CONVERTER.unstructure(task)}
    digest = blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=12).hexdigest()
    return ResultFile(folder / f"{digest}.json", key)


def make_folder(folder: Path) -> Path:
    """The folder, made if need be; raises OSError if nothing can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / f"trial.{os.getpid()}.part"
    trial.touch()
    trial.unlink()
    return folder
