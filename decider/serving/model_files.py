"""The newest models of a leader in a folder, for workers on the same machine. Called by the server.

To store every model in the log would make the log many times as large; a worker that finds none here takes the newest
that is stored there. What is here may be lost at any moment: it is learned again from the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from decider.log.protocol import ModelName
from decider.policy.protocol import Model
from decider.policy.saved import SavedModel
from decider.serving.follower import Copies, Owner

logger = logging.getLogger(__name__)


def _key(owner: Owner) -> str:
    return sha256("\0".join(owner).encode()).hexdigest()[:32]


KEPT = 2
"""Files of an owner: a worker may look for the model before the newest one."""


class ModelFiles(Copies):
    """A file for each model in a folder that is there."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def _path(self, name: ModelName) -> Path:
        return self._folder / f"{_key((name.experiment, name.signature))}-{name.position}.model"

    def load(self, name: ModelName) -> SavedModel | None:
        """See Copies. Whether it is whole is looked at by `load_model`."""
        try:
            content = self._path(name).read_bytes()
        except OSError:
            return None
        return SavedModel(name.signature, content[:64].decode("ascii", "replace"), content[64:])


class LeaderFiles(ModelFiles):
    """The leader's end: it keeps each model in memory as well."""

    def put(self, name: ModelName, model: Model, save: Callable[[], SavedModel]) -> None:
        """See Copies. A disk that is full holds up no learning: workers go on with the model before."""
        super().put(name, model, save)
        saved, path = save(), self._path(name)
        try:
            unfinished = path.with_suffix(".new")
            unfinished.write_bytes(saved.checksum.encode() + saved.data)
            unfinished.replace(path)
            for old in self._paths((name.experiment, name.signature))[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            logger.error("experiment %s: its newest model does not reach the workers: %s", name.experiment, error)

    def drop(self, owner: Owner) -> None:
        """See Copies."""
        super().drop(owner)
        for path in self._paths(owner):
            path.unlink(missing_ok=True)

    def _paths(self, owner: Owner) -> list[Path]:
        """Its files, the newest one last."""
        return sorted(self._folder.glob(f"{_key(owner)}-*.model"), key=lambda path: path.stat().st_mtime_ns)
