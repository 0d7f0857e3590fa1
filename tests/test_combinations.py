"""Settings that cannot work together are refused when they are applied, and old logs that have them still work."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.durations import microseconds_of
from decider.errors import InvalidExperiment
from decider.experiment.definition import Learning, RewardDefinition
from decider.experiment.schema import parse_toml
from decider.learn.versions import Versions
from decider.log.open import open_log, open_reader
from decider.log.protocol import NewVersion
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, spec
from tests.rpc_clients import InProcessClient, experiment, fields_of, reason_of, refused, status_of


def weighted(weights: dict[str, float], minimum: float = 0.0, maximum: float = 1.0, default: float = 0.0) -> Any:
    """The field `reward` of an experiment."""
    return {"reward": RewardDefinition(weights=weights, minimum=minimum, maximum=maximum, default=default)}


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"holdout": 1.0}, "holdout", "the policy never decides"),
        ({"learning": Learning.FROZEN}, "learning", "Begin with ONLINE"),
        (weighted({"click": 0.0, "buy": 0.0}), "reward.weights", "are all 0"),
        (weighted({"click": 1.0, "complaint": -5.0}), "reward.weights[complaint]", "declare a minimum below 0"),
        (weighted({"click": 0.0, "buy": 1.0}, 5, 9, 5), "reward.weights[click]", "is never in"),
        (weighted({"click": 1e-12}, 5, 9, 5), "reward.weights[click]", "is never in"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    tmp_path: Path, clock: Clock, changes: dict[str, Any], field: str, text: str
) -> None:
    """Applied without a word it would run for weeks and learn nothing."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        with pytest.raises(InvalidExperiment) as told:
            Versions(log).apply(sample_experiment(**changes))
        assert not log.versions()
    assert [violation.field for violation in told.value.violations] == [field]
    assert text in str(told.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"holdout": 1.0, "policy": spec("fixed")},
        {"holdout": 0.99},
        {"learning": Learning.FROZEN, "policy": spec("uniform")},
        weighted({"click": 0.0, "buy": 1.0}),
        weighted({"click": 1.0, "complaint": -5.0}, -5),
        weighted({"cost": 1.0}, -10, 0),
        weighted({"cents": 0.01}, 10, 200, 10),
    ],
)
def test_what_can_work_is_applied(tmp_path: Path, clock: Clock, changes: dict[str, Any]) -> None:
    """A check that refuses what somebody needs is worse than none."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        assert Versions(log).apply(sample_experiment(**changes)).changed


def test_a_model_that_has_learned_may_be_frozen(tmp_path: Path, clock: Clock) -> None:
    """Only from the first version on is there nothing to freeze."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        Versions(log).apply(sample_experiment())
        assert Versions(log).apply(sample_experiment(learning=Learning.FROZEN)).changed


def test_an_old_log_with_such_a_combination_goes_on(tmp_path: Path, clock: Clock) -> None:
    """It was applied by a build that did not refuse it: it is read, paused and resumed; only what is new is checked."""
    old = sample_experiment(holdout=1.0)
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        log.append([NewVersion(old, 1)])
        versions = Versions(log)
        assert not versions.apply(old).changed
        assert versions.set_paused(old.id, paused=True).changed
        assert versions.set_paused(old.id, paused=False).changed
        with pytest.raises(InvalidExperiment):
            versions.apply(sample_experiment(holdout=1.0, description="another"))
    with closing(open_reader(tmp_path / "log.db")) as log:
        assert verify(log).decisions == 0


def test_the_api_and_a_dry_run_refuse_it_alike(tmp_path: Path) -> None:
    """CI asks with validate_only; what passes there must not fail at the release."""
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        message = experiment("e", holdout=1.0, baseline_action="a")
        for validate_only in (True, False):
            status = status_of(partial(client.apply, message, validate_only=validate_only))
            assert (reason_of(status), fields_of(status)) == ("INVALID_EXPERIMENT", ["holdout"])


FILE = """
id = "e"
{before}

[[actions]]
id = "a"

[reward]
window = {window}
"""


def test_a_server_names_file_field_and_way_out(tmp_path: Path) -> None:
    """The person who reads it has the file open."""
    (tmp_path / "e.toml").write_text(FILE.format(before='learning = "frozen"', window='"10m"'))
    code, output = refused(tmp_path / "log.db", "--experiments", str(tmp_path / "e.toml"))
    assert code == 1
    assert f"{tmp_path / 'e.toml'}: learning: FROZEN from the first version on" in output


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("1h30m", 5400), ("7d", 604_800), ("600s", 600), ("500ms", 0.5), ("1.5s", 1.5), ("1d12h", 129_600)],
)
def test_windows_are_written_as_people_say_them(text: str, seconds: float) -> None:
    """ "10m" was refused: "must be a text in seconds"."""
    message = parse_toml(FILE.format(before="", window=f'"{text}"'), "e.toml")
    assert message.reward.window.ToMicroseconds() == round(seconds * 1e6)


@pytest.mark.parametrize("window", ["600", '"10"', '"ten minutes"', '"30m1h"', '"-5s"', '"1w"', '""', '"10 m"'])
def test_a_window_that_is_no_duration_is_shown_examples(window: str) -> None:
    """A guess at what was meant would be a reward window that nobody wanted."""
    with pytest.raises(InvalidExperiment) as told:
        parse_toml(FILE.format(before="", window=window), "e.toml")
    assert str(told.value) == 'e.toml: reward.window: must be a duration like "10m", "1h30m", "7d", "600s" or "500ms"'


@given(st.lists(st.integers(0, 1000), min_size=5, max_size=5))
def test_a_duration_is_the_sum_of_its_parts(numbers: list[int]) -> None:
    """In whole microseconds: a window that is off by one of them seals another decision."""
    units = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000))
    text = "".join(f"{number}{unit}" for number, (unit, _) in zip(numbers, units, strict=True))
    assert microseconds_of(text) == sum(number * size for number, (_, size) in zip(numbers, units, strict=True))
