"""flagd's event streams: clients wait on one for the news that other versions serve. Called by `flagd.py`; `look` by a
thread of the process, now and then.

A stream takes no thread. Between two events of a stream at least LOOK_INTERVAL passes, however many versions are
applied: pages answer each with a bulk evaluation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import grpc
from google.protobuf.struct_pb2 import Struct

from decider.server.flags.evaluations import OBJECT
from decider.server.methods import Stream
from decider.serving.current import Current
from decider.types import ExperimentId, Position

LOOK_INTERVAL = 1.0
"""Seconds between two looks at what serves."""

KEEP_ALIVE_LOOKS = 20
"""After so many looks each stream gets a sign of life: a proxy between would end one that is silent, and a page that
connects anew asks for all flags anew."""

READY, CHANGED, KEEP_ALIVE = "provider_ready", "configuration_change", "keep_alive"
"""Types of events; clients act on the first two, and pass over what they do not know."""

STOPS = "this server stops; connect anew"


Write = Callable[[str, Struct | None], bytes]
"""(type, data) -> the message of an event."""


class FlagEvents:
    """Every open stream of this process."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._known = self._versions()
        self._watchers: set[_Watcher] = set()
        self._lock = threading.Lock()
        self._looks = 0
        self._ended = False

    def _versions(self) -> Mapping[ExperimentId, Position]:
        """The version that serves of each experiment; a pause is a version."""
        return {id_: one.version.position for id_, one in self._current.copy().items()}

    def open(self, stream: Stream, write: Write) -> None:
        """Say that this server is ready, and from then on what changes."""
        watcher = _Watcher(stream, write)
        with self._lock:
            ended = self._ended
            if not ended:
                self._watchers.add(watcher)
        if ended:
            watcher.end()
            return
        stream.on_end(lambda: self._forget(watcher))
        watcher.begin()

    def _forget(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def look(self) -> None:
        """Tell what has changed since the last look: an experiment that is new, has another version, or has ended."""
        known = self._versions()
        changed = {id_ for id_ in known.keys() | self._known.keys() if known.get(id_) != self._known.get(id_)}
        self._known = known
        self._looks += 1
        if changed:
            for watcher in self._all():
                watcher.tell(changed)
        elif self._looks % KEEP_ALIVE_LOOKS == 0:
            for watcher in self._all():
                watcher.keep_alive()

    def end(self) -> None:
        """End all streams, also those that come later: clients go to another server."""
        self._ended = True
        for watcher in self._all():
            watcher.end()

    def _all(self) -> Collection[_Watcher]:
        with self._lock:
            return [*self._watchers]


class _Watcher:
    """One stream. What changes while an event leaves is told behind it, in one."""

    def __init__(self, stream: Stream, write: Write) -> None:
        self._stream, self._write = stream, write
        self._lock = threading.Lock()
        self._changed: set[ExperimentId] = set()
        self._sending = True  # until `begin` has been told

    def begin(self) -> None:
        """The first event: until it comes a client is not ready."""
        self._stream.send(self._write(READY, None), self._sent)

    def tell(self, changed: Collection[ExperimentId]) -> None:
        """Of these, what the caller may see."""
        seen = [id_ for id_ in changed if self._stream.rights.sees(id_)]
        with self._lock:
            self._changed.update(seen)
            if self._sending or not self._changed:
                return
            self._sending, told = True, self._changed
            self._changed = set()
        self._stream.send(self._write(CHANGED, _data(told)), self._sent)

    def keep_alive(self) -> None:
        """Unless an event is on its way anyway."""
        with self._lock:
            if self._sending:
                return
            self._sending = True
        self._stream.send(self._write(KEEP_ALIVE, None), self._sent)

    def _sent(self) -> None:
        with self._lock:
            self._sending = False
        self.tell(())

    def end(self) -> None:
        """An error, since some clients connect anew behind errors alone."""
        self._stream.end(grpc.StatusCode.UNAVAILABLE, STOPS)


def _data(changed: Collection[ExperimentId]) -> Struct:
    """The keys of the flags, as clients expect them: the names of an object.

    >>> data = _data([ExperimentId("home")]); sorted(data["flags"])
    ['home', 'home:object']
    """
    flags: dict[str, Any] = {f"{id_}{view}": {} for id_ in sorted(changed) for view in ("", OBJECT)}
    data = Struct()
    data.update({"flags": flags})
    return data
