"""The name of a world -> the world. Called by every command that takes a WORLD.

storefront   clicks   ...   data:digits   fitted:LOG   fitted:LOG#EXPERIMENT
"""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from decider.errors import DeciderError
from simulator.worlds import classification, fitted, scenes
from simulator.worlds.scene import BadScene, located
from simulator.worlds.world import World


class NoSuchWorld(DeciderError):
    """There is no world of this name."""

    reason = "NO_SUCH_WORLD"


def names() -> list[str]:
    """Of all worlds that need no data: one per file of `scenes/`."""
    return sorted(name.replace("_", "-") for _, name, _ in pkgutil.iter_modules(scenes.__path__))


def data_names() -> list[str]:
    """Of the worlds that are made of classification data sets, which are downloaded at their first use.

    >>> [name for name in data_names() if "digits" in name]
    ['data:digits']
    """
    return classification.world_names()


def find(name: str) -> World:
    """The world of that name. Raises NoSuchWorld, BadScene, DatasetError where data are missing, or what
    `fitted.world` raises.

    >>> find("storefront").line
    'The home banner of a fashion store: segment and stage of buying decide what is clicked.'
    """
    if name.startswith(fitted.PREFIX):
        return fitted.world(name)
    if name in data_names():
        return classification.world(name)
    if name not in names():
        raise NoSuchWorld(f"there is no world {name!r}; {_advice(name)}")
    return _scene(name)


def _scene(name: str) -> World:
    """Of its file. Raises BadScene."""
    file = f"{name.replace('-', '_')}.py"
    try:
        world = import_module(f"{scenes.__name__}.{Path(file).stem}").WORLD
    except Exception as error:  # whoever writes a world makes mistakes of every kind
        raise BadScene(located(error, file)) from error
    if not isinstance(world, World) or world.name != name:
        given = f"a world named {world.name!r}" if isinstance(world, World) else f"{world!r}"
        raise BadScene(f"{file}: WORLD is {given}; it must be the world {name!r}, named as its file")
    return world


def log_of(name: str) -> str:
    """The log that a name speaks of: what a world is fitted to, or else the name.

    >>> log_of("fitted:shop.db#home"), log_of("shop.db")
    ('shop.db', 'shop.db')
    """
    return fitted.log_of(name) if name.startswith(fitted.PREFIX) else name


def _advice(name: str) -> str:
    close = get_close_matches(name, [*names(), *data_names()], n=1)
    everything = ", ".join([*names(), *data_names()])
    return f"did you mean {close[0]}?" if close else f"there are {everything}, and fitted:LOG for a log of yours"
