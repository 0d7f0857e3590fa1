"""Learns a share of the experiments while another process leads. Called by `leading.py`."""

from __future__ import annotations

import threading
from collections.abc import Callable

from decider.learn.guard import Guard
from decider.learn.learner import Learner, Options, Pace
from decider.metrics.learner import LagCollector
from decider.server.process import Process
from decider.serving.follower import Copies


def options_of(process: Process, guard: Guard, *, stopping: Callable[[], bool]) -> Options:
    """What a learner is given: as the settings say."""
    settings = process.settings
    return {
        "pace": Pace(settings.learn_interval, settings.store_interval, settings.store_bytes, settings.keep_bytes),
        "memory": process.memory,
        "guard": guard if settings.guard == "on" else None,
        "stopping": stopping,
        "on_learned": process.metrics.observe_learning,
        "on_failed": process.metrics.observe_failure,
    }


class StandbyLearner:
    """Learns in a thread of its own, from the beginning until `stop`. process: whose log is open. copies: where models
    are put."""

    def __init__(self, process: Process, copies: Copies) -> None:
        self._process = process
        self._stopping = threading.Event()
        self.learner = Learner(
            process.log,
            process.log.share(),
            copies,
            **options_of(process, Guard(process.log), stopping=self._stopping.is_set),
        )
        self._lag = LagCollector(self.learner.lag)
        process.of_log.register(self._lag)
        self._rests = self._went_on = True
        self._thread = threading.Thread(target=self._learn, name="learner", daemon=True)
        self._thread.start()

    def _learn(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            self._rests = False
            self._process.look_after_log()
            self._went_on = True
            behind = self._process.try_to(self.learner.step)
            self._process.try_to(self._process.trim)
            pause = 0.0 if behind else self._process.settings.learn_interval
            self._rests = self._went_on = True

    def has_gone_on(self) -> bool:
        """Whether a part of a round has ended since this was asked last, or it rests between two."""
        gone_on, self._went_on = self._went_on, False
        return gone_on or self._rests

    def stop(self) -> None:
        """Store what it has learned, and leave it to others."""
        self._stopping.set()
        self._thread.join()
        self._process.of_log.unregister(self._lag)
        self._process.try_to(self.learner.finish)
