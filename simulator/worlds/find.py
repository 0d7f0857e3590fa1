"""The name of a world -> the world. Called by every command that takes a WORLD.

storefront   clicks-10   ...   data:digits   fitted:LOG
"""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from importlib import import_module

from decider.errors import DeciderError
from simulator.worlds import scenes
from simulator.worlds.world import World


class NoSuchWorld(DeciderError):
    """There is no world of this name."""

    reason = "NO_SUCH_WORLD"


def names() -> list[str]:
    """Of all worlds that need no data: one a file of `scenes/`.

    >>> "storefront" in names()
    True
    """
    return sorted(name.replace("_", "-") for _, name, _ in pkgutil.iter_modules(scenes.__path__))


def find(name: str) -> World:
    """The world of that name. Raises NoSuchWorld.

    >>> find("storefront").line
    'The home banner of a fashion store: segment and stage of buying decide what is clicked.'
    """
    if name not in names():
        close = get_close_matches(name, names(), n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(names())}"
        raise NoSuchWorld(f"there is no world {name!r}; {advice}")
    world: World = import_module(f"{scenes.__name__}.{name.replace('-', '_')}").WORLD
    return world
