"""All that a result depends on besides its task, as a short text: a kept result of other code is not taken for ours.

Given to `sweep` by the commands, for tasks of `task.py`; `compare/on_log.py` adds its log.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

from simulator.logs.files import stamp
from simulator.run.sweep import packages
from simulator.run.task import Task
from simulator.worlds.fitted import PREFIX, log_of

_ROOT = Path(__file__).parents[2]
_APART = tuple(
    _ROOT / room
    for room in (
        *("decider/server", "decider/client", "decider/metrics", "decider/cli.py"),
        *("simulator/commands", "simulator/report", "simulator/drive", "simulator/studies"),
    )
)
"""No result depends on these. All other code counts: a room that is missing here only costs a run that was not due."""


def version_of(task: Task) -> str:
    """Of the packages, of the code, of what the policy's name names, and of the log that the world is fitted to."""
    log = log_of(task.world) if task.world.startswith(PREFIX) else ""
    return f"{version_of_policy(task.policy)}, {state(log)}"


def version_of_policy(name: str) -> str:
    """Of the packages, of the code, and of the file that the name names, if any."""
    contents = [file.read_bytes() for file in _files(name) if file.is_file()]
    return f"{code_version()}, {_digest(*contents)}"


def code_version() -> str:
    """Of the packages and of the code."""
    return f"{packages()}, {_code()}"


def state(*files: str) -> str:
    """Of files too large to be read for it: their names, sizes and times. One that is not there counts as none.

    >>> state("nowhere.csv") == state()
    True
    """
    return _digest(*[repr(found).encode() for name in files if (found := stamp(name))])


def sources() -> list[Path]:
    """The files of this code base that a result can depend on."""
    files = [file for top in ("decider", "simulator") for file in (_ROOT / top).rglob("*") if file.suffix in _SUFFIXES]
    return sorted(file for file in files if not any(file.is_relative_to(apart) for apart in _APART))


_SUFFIXES = (".py", ".toml")


@cache
def _code() -> str:
    return _digest(*[file.read_bytes() for file in sources()])


def _files(policy: str) -> Iterator[Path]:
    """A TOML file, or the source of somebody's own policy."""
    yield Path(policy)
    module, colon, _ = policy.partition(":")
    if colon and all(part.isidentifier() for part in module.split(".")):
        try:
            found = find_spec(module)
        except (ImportError, ValueError):
            return
        if found and found.origin:
            yield Path(found.origin)


def _digest(*parts: bytes) -> str:
    return blake2b(b"".join(blake2b(part).digest() for part in parts), digest_size=6).hexdigest()
