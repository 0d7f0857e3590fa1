"""Simulated visitors who come to the shop beside a person. They begin with the first look at the shop, and they go when
nobody has looked for a while: whoever runs the demo without a browser has nothing of them in the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.drive.live import new_run
from simulator.drive.plan import plan
from simulator.drive.send import Drive
from simulator.drive.shop.places import PLACES, Place

RATE = 10.0
"""Visitors a second and place."""

VISITORS = 6_000
"""That are drawn at once: ten minutes of them."""

NOBODY_LOOKS = 30.0
"""Seconds after which they go."""

RUN = "crowd"
"""What the ids of their decisions begin with."""


@dataclass
class Crowd:
    """target: the server. rate: see RATE. clock: seconds."""

    target: str
    rate: float = RATE
    clock: Callable[[], float] = time.monotonic
    _looked: float = -NOBODY_LOOKS
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _drives: dict[Place, Drive] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Somebody looks at the shop: visitors come, if they do not yet."""
        with self._lock:
            self._looked = self.clock()
            if self._threads or self._ended.is_set():
                return
            self._threads = [threading.Thread(target=self._come, args=(place,), daemon=True) for place in PLACES]
            for thread in self._threads:
                thread.start()

    @property
    def is_here(self) -> bool:
        """Whether any visitors come."""
        return bool(self._threads)

    def end(self) -> None:
        """They all go, now."""
        self._ended.set()
        with self._lock:
            drives, threads = list(self._drives.values()), list(self._threads)
        for drive in drives:
            drive.stop()
        for thread in threads:
            thread.join()

    def _come(self, place: Place) -> None:
        """As long as somebody looks. A server that does not answer ends it: the demo says so by itself."""
        while self._is_watched():
            drive = self._next(place)
            with self._lock:
                self._drives[place] = drive
            drive.run(alongside=[self._stop_when_alone])
            if drive.failure:
                break
        with self._lock:
            self._threads = [one for one in self._threads if one is not threading.current_thread()]

    def _next(self, place: Place) -> Drive:
        experiment = place.experiment()
        made = plan(
            place.visitors(), experiment, run=f"{RUN}-{new_run()}", visitors=VISITORS, seed=time.time_ns() % 2**32,
            clients=1, rate=self.rate, window=experiment.reward.window / 1e6,
        )  # fmt: skip
        return Drive(made, self.target)

    def _stop_when_alone(self, drive: Drive) -> None:
        drive.wait_until(lambda: not self._is_watched())
        if not self._is_watched():
            drive.stop()

    def _is_watched(self) -> bool:
        return not self._ended.is_set() and self.clock() - self._looked < NOBODY_LOOKS
