"""The life of a process that a parent has made: a leader or a worker. Called by `supervise.py`, in the new process.

It has two pipes. On its lifeline the parent says what to do, and where that ends, the parent is gone, however it ended,
and the child drains. On the other one it says that it serves, and then that it lives.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn, Protocol

from decider.errors import DeciderError
from decider.server.allocator import keep_what_is_there

logger = logging.getLogger(__name__)

READY, LIVES, STARTS, LEAVES, ENDS = b"r", b"l", b"s", b"t", b"e"
"""What a child says: it serves, leads, or stands by; it is well; it stood by and learns to lead; it has been asked to
end, and wants somebody in its place; it drains."""

LOOK, LEAVE, STOP = "look", "leave", "stop"
"""What it is told. Behind LEAVE and STOP: seconds."""

Say = Callable[[bytes], None]
"""Tells the parent one of these."""

BEAT = 0.5
"""Seconds between two signs of life."""

FORMAT = "%(asctime)s %(levelname)s {}: %(message)s"


class ChildServer(Protocol):
    """A LeaderServer or a WorkerServer."""

    def start(self) -> bool:
        """Take calls, or lead; False if it was asked to stop before. Raises DeciderError."""
        ...

    def request_look(self) -> None:
        """At experiment files."""

    def request_leave(self, seconds: float) -> None:
        """Somebody else is in its place: let nobody come, and wait so long for those who are there to go."""

    def has_left(self) -> bool:
        """Whether that is so, or the time over."""
        ...

    def request_stop(self) -> None:
        """Ask it to stop."""

    def wait(self, seconds: float) -> bool:
        """Wait until that was asked, at most so many seconds. Returns whether it was."""
        ...

    def is_well(self) -> bool:
        """Whether its threads go on with their work."""
        ...

    def waits(self) -> bool:
        """Whether it waits for somebody else, and that ends by itself. Any thread may ask, at any time."""
        ...

    def stop(self, grace: float | None = None) -> None:
        """Drain, within so many seconds."""


def speak_as(name: str) -> None:
    """Lines of the output say whose they are."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter(FORMAT.format(name)))


def live(
    name: str, make: Callable[[Say], ChildServer], lifeline: int, said: int, *, grace: float, replaceable: bool
) -> NoReturn:
    """From the fork to the end. replaceable: whether another one can serve before it ends."""
    code = 1
    try:
        _receive_signals_as_a_program()
        speak_as(name)
        faulthandler.enable()  # where it hangs, the parent aborts it: then it says where each thread is
        os.set_blocking(said, False)
        server = make(partial(_say, said))
        signal.signal(signal.SIGTERM, lambda *_: server.request_stop())
        signal.signal(signal.SIGHUP, lambda *_: server.request_look())
        left = [grace]
        threading.Thread(target=_obey, args=(lifeline, server, left), name="lifeline", daemon=True).start()
        threading.Thread(target=_live_on, args=(server, said), name="waits", daemon=True).start()
        if server.start():
            keep_what_is_there()
            if replaceable:
                signal.signal(signal.SIGTERM, _LeaveFirst(said, server))
            _serve(server, said)
        _say(said, ENDS)
        server.stop(left[0])
        code = 0
    except (DeciderError, OSError) as error:
        print(f"Error: {name}: {error}", file=sys.stderr)
    except BaseException:
        logger.exception("%s ends", name)
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _receive_signals_as_a_program() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGUSR2):  # sent to all of them, as Ctrl-C is: the parent says what to do
        signal.signal(number, signal.SIG_IGN)


class _LeaveFirst:
    """What SIGTERM does to a worker: the first one asks the parent for a successor, the second one stops it."""

    def __init__(self, said: int, server: ChildServer) -> None:
        self._said = said
        self._server = server
        self._asked = False

    def __call__(self, *_: object) -> None:
        if self._asked:
            self._server.request_stop()
        self._asked = True
        _say(self._said, LEAVES)


def _serve(server: ChildServer, said: int) -> None:
    """Until it is to stop, or has left."""
    _say(said, READY)
    while not server.wait(BEAT):  # a signal that another thread receives does not wake an endless wait
        if server.has_left():
            return
        if server.is_well():
            _say(said, LIVES)


def _live_on(server: ChildServer, said: int) -> None:
    """The thread that says so while it waits: to end it then would help nobody."""
    while True:
        time.sleep(BEAT)
        if server.waits():
            _say(said, LIVES)


def _say(said: int, what: bytes) -> None:
    """A parent that reads nothing, or is gone, holds up nobody."""
    with suppress(OSError):
        os.write(said, what)


def _obey(lifeline: int, server: ChildServer, left: list[float]) -> None:
    """The thread that reads what the parent says. left: seconds for the drain."""
    with os.fdopen(lifeline) as lines:
        for line in lines:
            what, _, seconds = line.strip().partition(" ")
            if what == LOOK:
                server.request_look()
            elif what == LEAVE:
                server.request_leave(float(seconds))
            elif what == STOP:
                left[0] = float(seconds)
                break
    server.request_stop()  # also where the parent is gone
