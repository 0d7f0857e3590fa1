"""What learns beside another host's leader tells whether it goes on."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from decider.server import standby_learner
from decider.server.settings import Settings
from decider.server.standby_learner import StandbyLearner
from tests.rpc_clients import until


class Stuck:
    """A learner, once a test says so. See Learner."""

    def __init__(self, *_: object, **__: object) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()

    def step(self) -> bool:
        """A round."""
        return not self.goes_on.wait()

    def lag(self) -> dict[str, float]:
        """None."""
        return {}

    def finish(self) -> None:
        """Nothing to store."""


def ignore(*_: object) -> None:
    """Nothing."""


def test_a_learner_that_hangs_beside_a_leader_is_told_from_one_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep its experiments from all others, and whoever takes over waits for it."""
    monkeypatch.setattr(standby_learner, "Learner", Stuck)
    process: Any = SimpleNamespace(
        log=SimpleNamespace(share=ignore),
        of_log=SimpleNamespace(register=ignore, unregister=ignore),
        settings=Settings(guard="off", learn_interval=0.05),
        memory=None,
        metrics=SimpleNamespace(observe_learning=ignore, observe_failure=ignore),
        look_after_log=ignore,
        try_to=lambda work: work(),
        trim=ignore,
    )
    learner: Any = StandbyLearner(process, copies=SimpleNamespace())  # type: ignore[arg-type]
    try:
        for _ in range(50):
            until(learner.has_gone_on, what="it rests or goes on")
        learner.learner.goes_on.clear()
        until(lambda: not learner.has_gone_on(), what="it hangs")
        learner.learner.goes_on.set()
        until(learner.has_gone_on, what="it goes on")
    finally:
        learner.learner.goes_on.set()
        learner.stop()
