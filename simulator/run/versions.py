"""All that a run depends on besides its task, as a short text: a kept result of other code is not taken for ours.

Called by `sweep` through the commands, for tasks of `task.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

from simulator.logs.files import stamp
from simulator.run.sweep import packages
from simulator.run.task import Task
from simulator.worlds.fitted import PREFIX, log_of

_ROOT = Path(__file__).parents[2]
_CODE = (
    *("decider/policy/**/*.py", "decider/decide/*.py", "decider/experiment/*.py", "simulator/*.toml"),
    *(f"simulator/run/{name}.py" for name in ("play", "policies", "task")),
    *(f"simulator/worlds/{name}.py" for name in ("find", "logistic", "scene", "world")),
)
_FROM_DATA = {
    "data": ("simulator/worlds/classification.py", "simulator/datasets/*.py"),
    "fitted": (
        *(f"simulator/worlds/{name}.py" for name in ("fitted", "resampled")),
        *("simulator/evaluate/reward_model.py", "simulator/evaluate/replay_decisions.py", "simulator/logs/*.py"),
    ),
}
"""By what a world's name begins with: what makes it, besides `_CODE`."""


def version_of(task: Task) -> str:
    """Of the packages, of the code that plays, of the world's own file, and of what a policy's name names.

    >>> version_of(Task("storefront", "uniform", seed=1, rounds=10)).startswith(packages())
    True
    """
    own = digest([*_world(task.world), *_policy(task.policy)])
    return f"{packages()}, {digest(sources(*_CODE))}, {own}{_log(task.world)}"


@lru_cache
def sources(*patterns: str) -> tuple[Path, ...]:
    """Files of this code base.

    >>> [file.name for file in sources("simulator/run/play.py")]
    ['play.py']
    """
    return tuple(sorted(file for pattern in patterns for file in _ROOT.glob(pattern)))


def _world(name: str) -> Iterator[Path]:
    """A scene's file, or the code of worlds made of data."""
    yield _ROOT / "simulator/worlds/scenes" / f"{name.replace('-', '_')}.py"
    yield from sources(*_FROM_DATA.get(name.partition(":")[0], ()))


def _log(world: str) -> str:
    """The state of the log that a world is fitted to; nothing for others."""
    if not world.startswith(PREFIX):
        return ""
    return f", {blake2b(repr(stamp(Path(log_of(world)))).encode(), digest_size=6).hexdigest()}"


def _policy(name: str) -> Iterator[Path]:
    """A TOML file, or the source of somebody's own policy."""
    yield Path(name)
    module, colon, _ = name.partition(":")
    if colon and all(part.isidentifier() for part in module.split(".")):
        spec = _spec(module)
        yield from [Path(spec)] if spec else []


def _spec(module: str) -> str | None:
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        return None
    return found.origin if found else None


def digest(files: Iterable[Path]) -> str:
    """Of their contents; those that are not there count as nothing.

    >>> digest([]) == digest([Path("nowhere")])
    True
    """
    contents = [_content(file, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
    return blake2b(b"".join(contents), digest_size=6).hexdigest()


@lru_cache(maxsize=256)
def _content(file: Path, _modified: int, _size: int) -> bytes:
    """Its digest."""
    return blake2b(file.read_bytes()).digest()
