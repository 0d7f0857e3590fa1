"""The name of an engine, as given to `--on` -> what runs a sweep's tasks. Called by `sweep.py` and the commands."""

from __future__ import annotations

import re

from simulator.run.engine import Engine, EngineUnavailable
from simulator.run.processes import Processes
from simulator.run.ray_tasks import RayTasks

PROCESSES, RAY = "processes", "ray"
ENGINES = f"{PROCESSES}|{RAY}|{RAY}://HOST:PORT"
"""Their names, for help and errors."""

CLIENT_PORT = 10001
"""Where Ray's head node listens for clients, if it was not told otherwise."""

_ADDRESS = re.compile(r"ray://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")


def engine_of(on: str, *, workers: int | None) -> Engine:
    """The engine of that name. workers: tasks at a time; None: one per core. Raises EngineUnavailable.

    >>> engine_of("spark", workers=None)
    Traceback (most recent call last):
    simulator.run.engine.EngineUnavailable: spark: is nothing to run on; there are processes|ray|ray://HOST:PORT
    """
    if on == PROCESSES:
        return Processes(workers)
    return RayTasks(address_of(on), workers)


def address_of(on: str) -> tuple[str, int] | None:
    """Host and port of a cluster; None for Ray on this machine. Raises EngineUnavailable.

    >>> address_of("ray"), address_of("ray://head"), address_of("ray://[::1]:10002")
    (None, ('head', 10001), ('::1', 10002))
    """
    if on == RAY:
        return None
    found = _ADDRESS.fullmatch(on)
    if found is None or not 0 < int(found["port"] or CLIENT_PORT) < 2**16:
        raise EngineUnavailable(f"{on}: is nothing to run on; there are {ENGINES}")
    return found["host"].strip("[]"), int(found["port"] or CLIENT_PORT)
