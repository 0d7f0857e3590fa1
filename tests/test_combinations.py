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
from decider.experiment.definition import Action, Learning, RewardDefinition
from decider.experiment.feature_schema import FeatureRule, FeatureSchema, FeatureType
from decider.experiment.schema import from_message, parse_toml
from decider.learn.versions import Versions
from decider.log.open import open_log, open_reader
from decider.log.protocol import NewVersion
from decider.policy.algorithms import ALGORITHMS
from decider.types import ActionId, Time
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, spec
from tests.rpc_clients import InProcessClient, experiment, fields_of, reason_of, refused, status_of

A, B = ActionId("a"), ActionId("b")


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


def acting(**first: Any) -> dict[str, Any]:
    """The field `actions`: the first one has something special, the second one a rule that is never true."""
    return {"actions": (Action(ActionId("a"), **first), Action(ActionId("b"), eligible_if="1 == 2")), "baseline": None}


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        (acting(eligible_if="false"), "actions", "change a rule"),
        (acting(eligible_if="1 / 0 == 1"), "actions", "change a rule"),
        (acting(eligible_if="false", retired=True), "actions", "change a rule"),
        ({"actions": (Action(A), Action(B, eligible_if="false", min_share=0.5))}, "actions[1].min_share", "never true"),
    ],
)
def test_rules_that_are_never_true_are_refused_where_they_contradict_the_rest(
    tmp_path: Path, clock: Clock, changes: dict[str, Any], field: str, text: str
) -> None:
    """Each call would be refused, or the share would never be reached."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        with pytest.raises(InvalidExperiment) as told:
            Versions(log).apply(sample_experiment(**{"baseline": None, "holdout": 0.0} | changes))
        assert not log.versions()
    assert [violation.field for violation in told.value.violations] == [field]
    assert text in str(told.value)


PLAN = FeatureSchema({"segment": FeatureRule(values=("vip",)), "age": FeatureRule(FeatureType.NUMBER)})


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (acting(available_until=Time(1)), "available_until of action 'a' is over"),
        (acting(eligible_if="segment == 'vpi'") | {"schema": PLAN}, "'vpi', which is not among"),
        (acting(eligible_if="features.age == 'old'") | {"schema": PLAN}, "that it is a number"),
        (acting() | {"minimum_propensity": 0.5}, "decides nothing"),
        (acting(available_until=Time(3 * 10**15)), None),
        (acting(available_until=Time(1), retired=True) | {"actions": (Action(A), Action(B))}, None),
        (acting(eligible_if="segment == 'vip'") | {"schema": PLAN}, None),
        (acting(eligible_if="segment == ''") | {"schema": PLAN}, None),
        (acting(eligible_if="features.segment == 'vpi'") | {"schema": PLAN}, None),
        (acting(eligible_if="segment != 'vpi'") | {"schema": PLAN}, None),
        (acting(eligible_if="segment == 'vpi' || true") | {"schema": PLAN}, None),
        (acting(eligible_if="location == 'here'") | {"schema": PLAN}, None),
        (acting() | {"minimum_propensity": 0.4}, None),
        (acting() | {"minimum_propensity": 0.5, "policy": spec("uniform")}, None),
        (acting() | {"policy": spec("cover")}, "its policy cover is deprecated: in 72 comparisons"),
        (acting() | {"policy": spec("squarecb")}, None),
    ],
)
def test_what_may_be_a_mistake_is_said(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], warning: str | None
) -> None:
    """It can be meant: a file that is applied again after an end, a value that callers will send. So it is no error."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        Versions(log).apply(sample_experiment(**{"holdout": 0.0, "minimum_propensity": 0.0} | changes))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (warning is not None)
    assert (warning or "") in caplog.text


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


@pytest.mark.parametrize("name", ["thompson", "uniform", "fixed", "squarecb", "epsilon_greedy"])
def test_overrides_are_learned_by_policies_without_propensities_alone(name: str) -> None:
    """What was shown in place of the drawn action has no known propensity; those that learn nothing need none."""
    text = f"""
        id = "page"
        override = "learn"
        baseline_action = "a"
        actions = [{{ id = "a" }}, {{ id = "b" }}]
        policy.{name} = {{}}
        """
    if ALGORITHMS[name].uses_propensity:
        with pytest.raises(InvalidExperiment) as told:
            from_message(parse_toml(text, name="page.toml"))
        assert [violation.field for violation in told.value.violations] == ["override"]
    else:
        assert from_message(parse_toml(text, name="page.toml")).learns_overrides
    assert ALGORITHMS[name].uses_propensity == (name in ("squarecb", "epsilon_greedy"))
