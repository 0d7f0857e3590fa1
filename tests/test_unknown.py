"""An experiment that this process has not seen yet: it looks at the log before it says that there is none."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from decider.errors import LogError, NotFound
from decider.log.open import open_log
from decider.log.protocol import NewVersion
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.serving.unknown import INTERVAL, LookForUnknown
from decider.types import ExperimentId
from tests.conftest import sample_experiment

HOME = ExperimentId("home")


def test_what_another_process_has_applied_serves_at_once(tmp_path: Path) -> None:
    """Whoever applies an experiment may call another worker next."""
    with closing(open_log(tmp_path / "log")) as here, closing(open_log(tmp_path / "log")) as there:
        current = Current()
        current.look = LookForUnknown(Follower(here, current, Copies()).follow)
        there.append([NewVersion(sample_experiment(), 1)])
        assert current[HOME].version.number == 1


def test_strangers_cause_no_load() -> None:
    """Names that are not there cost one look an interval, however many ask."""
    looks, now = list[int](), [0.0]
    current = Current()
    current.look = LookForUnknown(lambda: looks.append(1), clock=lambda: now[0])
    for _ in range(100):
        with pytest.raises(NotFound):
            current[HOME]
    assert len(looks) == 1
    now[0] = INTERVAL
    with pytest.raises(NotFound):
        current[HOME]
    assert len(looks) == 2


def test_a_log_that_cannot_be_read_is_no_other_answer() -> None:
    """The follower tells of it."""

    def fail() -> None:
        raise LogError("locked")

    current = Current()
    current.look = LookForUnknown(fail)
    with pytest.raises(NotFound):
        current[HOME]
