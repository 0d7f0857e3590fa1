"""Experiments: one schema from TOML, JSON and messages to frozen types and back, every check, and the rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.decide.decide import baseline_slots, decide, eligible_actions, in_holdout
from decider.decide.slots import SLOTS, Slots, one_slot, uniform_slots
from decider.errors import FailedPrecondition, InvalidArgument, InvalidExperiment, NotFound
from decider.experiment.checks import MAX_ACTIONS, check_successor
from decider.experiment.definition import Action, Aggregation, Experiment, ExperimentVersion, Learning, RewardDefinition
from decider.experiment.schema import (
    definition_text,
    from_message,
    read_json,
    to_message,
    write_json,
)
from decider.experiment.shape import shape_violations
from decider.experiment_files import read_toml
from decider.policy.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.policy.spec import PolicySpec
from decider.types import ActionId, DecisionId, DecisionRequest, ExperimentId, Features, Reason, Time
from decider.v1 import experiment_pb2 as pb
from tests.conftest import SECOND, feature_maps, sample_experiment, sample_version, spec, texts

ids = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | texts | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
RANGES: dict[str, st.SearchStrategy[float]] = {
    "epsilon": st.floats(0, 1),
    "lambda": st.floats(1e-6, 1e6),
    "gamma_scale": st.floats(1e-6, 1e9),
    "gamma_exponent": st.floats(0, 1),
    "size": st.integers(2, 100),
    "alpha": st.floats(1e-9, 1e6),
    "count": st.integers(0, 10**9),
    "width": st.floats(1e-6, 100),
    "memory": st.floats(0, 1e9),
    "draws": st.integers(1, 10),
}


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    """Any experiment that can be applied."""
    action_ids = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    actions = tuple(
        Action(
            ActionId(id_),
            draw(ids),
            draw(feature_maps),
            draw(st.dictionaries(texts, json_values, max_size=2)),
            retired=index > 0 and draw(st.booleans()),
            eligible_if=draw(st.sampled_from(["", "", "segment == 'vip'", "has(features.age) && features.age > 3"])),
            available_from=draw(st.none() | st.integers(0, 10**15).map(Time)),
            available_until=draw(st.none() | st.integers(10**15 + 1, 10**16).map(Time)),
        )
        for index, id_ in enumerate(action_ids)
    )
    active = [action.id for action in actions if not action.retired]
    low, high = sorted(draw(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2, unique=True)))
    algorithm = draw(st.sampled_from(sorted(ALGORITHMS)))
    terms = ALGORITHMS[algorithm].terms or ("CA", "AC", "CCA", "CCAA")
    holdout = draw(st.just(0.0) | st.floats(0, 1))
    needs_baseline = holdout > 0 or algorithm == "fixed"
    return Experiment(
        id=ExperimentId(draw(ids)),
        actions=actions,
        description=draw(texts),
        paused=draw(st.booleans()),
        baseline=draw(st.sampled_from(active)) if needs_baseline or draw(st.booleans()) else None,
        policy=PolicySpec(
            algorithm,
            {name: draw(RANGES[name]) for name in ALGORITHMS[algorithm].parameters},
            tuple(draw(st.lists(st.sampled_from(terms), min_size=1, max_size=2))),
            (low, high),
        ),
        minimum_propensity=draw(st.floats(0, 1)) / len(active),
        holdout=holdout,
        reward=RewardDefinition(
            window=draw(st.integers(1_000, 90 * 86_400 * SECOND)),
            default=draw(st.floats(low, high)),
            weights=draw(st.dictionaries(ids, st.floats(-1e6, 1e6), max_size=3)),
            minimum=low,
            maximum=high,
            aggregation=draw(st.sampled_from(Aggregation)),
        ),
        learning=draw(st.sampled_from(Learning)),
        salt=draw(texts)[:64],
        sticky=draw(st.just(0) | st.integers(0, 90 * 86_400 * SECOND)),
    )


@settings(max_examples=40)
@given(experiments())
def test_an_experiment_survives_its_message_and_its_json(experiment: Experiment) -> None:
    """The log stores the JSON; what it means must not change on the way, or old decisions do not replay."""
    message = to_message(experiment)
    assert from_message(message) == experiment
    text = write_json(message)
    assert from_message(read_json(text)) == experiment
    assert write_json(to_message(from_message(read_json(text)))) == text


@given(experiments())
def test_the_short_way_to_a_definition_gives_the_same_text(experiment: Experiment) -> None:
    """The text is in the log, and its chain: another one for the same content would be a new version of everything."""
    assert definition_text(experiment) == write_json(to_message(experiment))


def test_numbers_of_any_type_are_written_alike() -> None:
    """Experiments made in Python have whole numbers, negative zeros, and tuples."""
    features: Features = {"whole": 2, "zero": -0.0, "flag": True, "text": "", "large": 1e300}
    action = Action(ActionId("a"), features=features, payload={"list": [1, (None, {"b": 2})], "flag": False})
    content = sample_experiment(actions=(action, Action(ActionId("b"), kind="")), baseline=ActionId("a"))
    assert definition_text(content) == write_json(to_message(content))


@settings(max_examples=25)
@given(experiments())
def test_the_same_content_gives_the_same_json(experiment: Experiment) -> None:
    """Applying an unchanged file must not make a new version, whatever the order of its maps."""
    message = to_message(experiment)
    parsed = json_format.MessageToDict(message, preserving_proto_field_name=True)

    def backwards(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: backwards(item) for name, item in reversed(value.items())}
        return [backwards(item) for item in value] if isinstance(value, list) else value

    again = json_format.ParseDict(backwards(parsed), pb.Experiment())
    assert write_json(to_message(from_message(again))) == write_json(message)


def toml(tmp_path: Path, text: str) -> Experiment:
    """The experiment in a TOML text."""
    path = tmp_path / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    return from_message(read_toml(path))


FULL = """
id = "home"
description = "größer"
state = "paused"
baseline_action = "b"
minimum_propensity = 0.05
holdout = 0.1
learning = "FROZEN"
salt = "s"
[[actions]]
id = "a"
kind = "offer"
features = { price = 9, colour = "red", new = true }
payload = { title = "A", list = [1, 2] }
[[actions]]
id = "b"
state = "ACTION_STATE_ACTIVE"
[[actions]]
id = "c"
state = "retired"
[policy]
interactions = ["CA", "CCA"]
bag = { size = 7 }
[reward]
window = "90s"
default_value = -1
weights = { click = 1, buy = 20.5 }
range = { minimum = -1, maximum = 50 }
aggregation = "max"
"""


def test_a_toml_file_says_everything(tmp_path: Path) -> None:
    """Every field of the schema can be written in a file, enum values short or long."""
    assert toml(tmp_path, FULL) == Experiment(
        id=ExperimentId("home"),
        description="größer",
        paused=True,
        baseline=ActionId("b"),
        minimum_propensity=0.05,
        holdout=0.1,
        learning=Learning.FROZEN,
        salt="s",
        actions=(
            Action(
                ActionId("a"),
                "offer",
                {"price": 9.0, "colour": "red", "new": True},
                {"title": "A", "list": [1, 2]},
            ),
            Action(ActionId("b")),
            Action(ActionId("c"), retired=True),
        ),
        policy=PolicySpec("bag", {"size": 7, "epsilon": 0.0}, ("CA", "CCA"), (-1.0, 50.0)),
        reward=RewardDefinition(90 * SECOND, -1.0, {"buy": 20.5, "click": 1.0}, -1.0, 50.0, Aggregation.MAX),
    )


def test_a_short_file_gets_the_defaults(tmp_path: Path) -> None:
    """What is stored is complete, so that a release with other defaults replays the log the same."""
    experiment = toml(tmp_path, 'id = "x"\nactions = [{ id = "a" }, { id = "b" }]')
    assert experiment == Experiment(
        id=ExperimentId("x"),
        actions=(Action(ActionId("a")), Action(ActionId("b"))),
        policy=spec(DEFAULT_ALGORITHM),
        minimum_propensity=0.001,
        reward=RewardDefinition(600 * SECOND, 0.0, {}, 0.0, 1.0, Aggregation.SUM),
    )
    text = write_json(to_message(experiment))
    for name in (
        "width",
        "memory",
        "draws",
        "minimum_propensity",
        "window",
        "aggregation",
        "LEARNING_ONLINE",
        "_STATE_ACTIVE",
    ):
        assert name in text


def test_a_default_floor_takes_at_most_a_tenth_of_the_traffic() -> None:
    """Each floor costs its size times the number of actions; with many actions it must shrink."""
    message = pb.Experiment(id="x", actions=[pb.Action(id=f"a{i}") for i in range(200)])
    assert from_message(message).minimum_propensity == pytest.approx(0.1 / 200)
    message.minimum_propensity = 0.0
    assert from_message(message).minimum_propensity == 0.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_can_be_asked_for(tmp_path: Path, algorithm: str) -> None:
    """The schema and the table of algorithms must not drift apart."""
    experiment = toml(
        tmp_path,
        f'id = "x"\nactions = [{{ id = "a" }}, {{ id = "b" }}]\nbaseline_action = "a"\npolicy.{algorithm} = {{}}',
    )
    assert experiment.policy == spec(algorithm)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('id = "x"\ncolour = "red"', "colour"),
        ('[[actions]]\nid = "a"\nprice = 3', "price"),
        ('[reward]\nwindow = "soon"', "window"),
        ('state = "asleep"', "state"),
        ("[policy]\nsquarecb = { gama = 1 }", "gama"),
        ("[policy]\nsquarecb = {}\nbag = {}", "oneof"),
        ('actions = "a"', "actions"),
        ("holdout = 1979-05-27", "holdout"),
        ("id = \nholdout = 0.1", "line 1"),
        ('id = "x"\nid = "y"\nholdout = 0.1', "line 2"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_key(tmp_path: Path, text: str, named: str) -> None:
    """Whoever edits a file must learn from the message alone what to mend."""
    with pytest.raises(InvalidExperiment) as refused:
        toml(tmp_path, text)
    assert "experiment.toml" in str(refused.value)
    assert named in str(refused.value)


def scalars(of: Descriptor, *path: FieldDescriptor) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The way to every field of a definition that holds one value."""
    for field in of.fields:
        inside = field.message_type
        if inside is None:
            yield (*path, field)
        elif not inside.full_name.startswith("google."):
            yield from scalars(inside, *path, field)


def written(path: Sequence[FieldDescriptor], value: object) -> tuple[dict[str, Any], str]:
    """A file's content with a value there, and the field's name in an error."""
    content, name = value, ""
    for field in reversed(path):
        if field.containing_type.GetOptions().map_entry:
            content, name = {"x": content}, f"[x]{name}"
            continue
        if field.is_repeated and not (field.message_type and field.message_type.GetOptions().map_entry):
            content, name = [content], f"[0]{name}"
        content, name = {field.name: content}, f".{field.name}{name}"
    assert isinstance(content, dict)
    return content, name.removeprefix(".")


SCALARS = [path for path in scalars(pb.Experiment.DESCRIPTOR) if path[-1].name != "key"]


@pytest.mark.parametrize("path", SCALARS, ids=lambda path: ".".join([field.name for field in path]))
def test_a_value_of_another_type_is_refused_by_its_field(path: Sequence[FieldDescriptor]) -> None:
    """`max_share = true` would be a share of 1: a bound that somebody wrote, and nobody keeps."""
    field = path[-1]
    wrong: list[object] = [[], {}]
    if field.cpp_type != FieldDescriptor.CPPTYPE_BOOL:
        wrong += [True, False]
    else:
        wrong += [1, 0.5, "true"]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        wrong += [1, 0.5]
    elif field.cpp_type not in (FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_DOUBLE):
        wrong += ["many", 1.5, -1, 10**30, float("inf"), float("nan")]
    else:
        wrong += ["many", "", 10**400]
    for value in wrong:
        content, name = written(path, value)
        assert name in [one.field for one in shape_violations(content, pb.Experiment.DESCRIPTOR)], value


def test_numbers_are_read_as_they_are_written(tmp_path: Path) -> None:
    """In quotation marks, too, as before."""
    made = toml(tmp_path, 'id = "x"\nactions = [{ id = "a" }, { id = "b" }]\nminimum_propensity = "0.25"')
    assert made.minimum_propensity == 0.25
    text = 'id = "x"\nactions = [{ id = "a", daily_budget = 3.0 }, { id = "b", max_share = 1 }]'
    assert toml(tmp_path, text).actions[0].daily_budget == 3


def test_a_missing_or_unreadable_file_is_refused(tmp_path: Path) -> None:
    """The same error as for a wrong one, so that the running version stays."""
    with pytest.raises(InvalidExperiment, match=r"none\.toml"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'id = "\xff"')
    with pytest.raises(InvalidExperiment, match=r"latin\.toml"):
        read_toml(tmp_path / "latin.toml")


def message(**fields: Any) -> pb.Experiment:
    """A right message, with these fields changed."""
    right: dict[str, Any] = {"id": "x", "actions": [{"id": "a"}, {"id": "b"}]}
    made: pb.Experiment = json_format.ParseDict({**right, **fields}, pb.Experiment())
    return made


TOO_MANY = [{"id": f"a{i}"} for i in range(MAX_ACTIONS + 1)]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": ""}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"salt": "x" * 65}, "salt"),
        ({"actions": []}, "actions"),
        ({"actions": [{"id": "a", "state": "ACTION_STATE_RETIRED"}]}, "actions"),
        ({"actions": TOO_MANY}, "actions"),
        ({"actions": [{"id": "a"}, {"id": "a"}]}, "actions[1].id"),
        ({"actions": [{"id": "a|b"}]}, "actions[0].id"),
        ({"actions": [{"id": "a", "kind": "a b"}]}, "actions[0].kind"),
        ({"actions": [{"id": "a", "features": {"id": "b"}}]}, "actions[0].features[id]"),
        ({"actions": [{"id": "a", "features": {"kind": "b"}}]}, "actions[0].features[kind]"),
        ({"actions": [{"id": "a", "features": {"x": 1e13}}]}, "actions[0].features[x]"),
        ({"actions": [{"id": "a", "features": {"x": None}}]}, "actions[0].features[x]"),
        ({"actions": [{"id": "a", "features": {"x": [1]}}]}, "actions[0].features[x]"),
        ({"actions": [{"id": "a", "features": {"x": "y" * 257}}]}, "actions[0].features[x]"),
        ({"actions": [{"id": "a", "features": {"": 1}}]}, "actions[0].features"),
        ({"actions": [{"id": "a", "features": {"x" * 65: 1}}]}, "actions[0].features"),
        ({"actions": [{"id": "a", "features": {f"x{i}": 1 for i in range(101)}}]}, "actions[0].features"),
        ({"holdout": 1.5, "baseline_action": "a"}, "holdout"),
        ({"holdout": -0.1}, "holdout"),
        ({"holdout": "NaN"}, "holdout"),
        ({"holdout": 0.1}, "baseline_action"),
        ({"policy": {"fixed": {}}}, "baseline_action"),
        ({"baseline_action": "c"}, "baseline_action"),
        ({"actions": [{"id": "a"}, {"id": "b", "state": 2}], "baseline_action": "b"}, "baseline_action"),
        ({"minimum_propensity": 0.51}, "minimum_propensity"),
        ({"minimum_propensity": -0.01}, "minimum_propensity"),
        ({"minimum_propensity": "NaN"}, "minimum_propensity"),
        ({"policy": {"interactions": ["C"]}}, "policy.interactions[0]"),
        ({"policy": {"interactions": ["CA", "CCCCA"]}}, "policy.interactions[1]"),
        ({"policy": {"interactions": ["CA -q AA"]}}, "policy.interactions[0]"),
        ({"policy": {"interactions": ["AC"]}}, "policy.interactions"),
        ({"policy": {"interactions": ["CA", "AAC"], "thompson": {}}}, "policy.interactions"),
        ({"policy": {"epsilon_greedy": {"epsilon": 1.1}}}, "policy.epsilon_greedy.epsilon"),
        ({"policy": {"softmax": {"lambda": 0}}}, "policy.softmax.lambda"),
        ({"policy": {"squarecb": {"gamma_scale": "NaN"}}}, "policy.squarecb.gamma_scale"),
        ({"policy": {"squarecb": {"gamma_exponent": -1}}}, "policy.squarecb.gamma_exponent"),
        ({"policy": {"bag": {"size": 1}}}, "policy.bag.size"),
        ({"policy": {"cover": {"size": 101}}}, "policy.cover.size"),
        ({"policy": {"rnd": {"alpha": "Infinity"}}}, "policy.rnd.alpha"),
        ({"policy": {"first": {"count": 2_000_000_000}}}, "policy.first.count"),
        ({"reward": {"window": "0s"}}, "reward.window"),
        ({"reward": {"window": "-5s"}}, "reward.window"),
        ({"reward": {"window": "7776001s"}}, "reward.window"),
        ({"reward": {"range": {"minimum": 1, "maximum": 1}}}, "reward.range"),
        ({"reward": {"range": {"minimum": 2, "maximum": 1}}}, "reward.range"),
        ({"reward": {"range": {"minimum": "-Infinity", "maximum": 1}}}, "reward.range"),
        ({"reward": {"default_value": 1.5}}, "reward.default_value"),
        ({"reward": {"default_value": "NaN"}}, "reward.default_value"),
        ({"reward": {"weights": {"a b": 1}}}, "reward.weights"),
        ({"reward": {"weights": {"buy": "Infinity"}}}, "reward.weights[buy]"),
    ],
)
def test_every_violation_names_its_field(fields: dict[str, Any], named: str) -> None:
    """The path in the message is what a tool or a person can jump to."""
    with pytest.raises(InvalidExperiment) as refused:
        from_message(message(**fields))
    assert named in [violation.field for violation in refused.value.violations]


def test_all_violations_are_told_at_once() -> None:
    """One round trip for each mistake would be rude."""
    with pytest.raises(InvalidExperiment) as refused:
        from_message(message(id="", holdout=2, reward={"window": "0s"}))
    assert {v.field for v in refused.value.violations} >= {"id", "holdout", "baseline_action", "reward.window"}


def test_an_unknown_enum_number_is_refused() -> None:
    """A newer client may send one; it must be told, not meet an internal error."""
    wrong = message()
    wrong.reward.aggregation = 99  # type: ignore[assignment]
    with pytest.raises(InvalidExperiment):
        from_message(wrong)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_payload_that_json_cannot_say_is_refused(number: float) -> None:
    """`payload = { x = nan }` in a file must not end the watching of files with a ValueError."""
    wrong = message()
    wrong.actions[0].payload.fields["x"].number_value = number
    with pytest.raises(InvalidExperiment):
        from_message(wrong)


def test_a_range_whose_width_is_no_number_is_refused() -> None:
    """Rewards are learned as shares of the range; an infinite width would make every share 0."""
    with pytest.raises(InvalidExperiment):
        from_message(message(reward={"range": {"minimum": -1.7e308, "maximum": 1.7e308}}))


def _kinds(experiment: Experiment) -> dict[ActionId, str]:
    """As the log keeps them, of removed actions too."""
    return {action.id: action.kind for action in experiment.actions}


def test_an_action_s_id_never_gets_another_kind() -> None:
    """The history of `sale` the offer must not become that of `sale` the banner."""
    old = sample_experiment()
    check_successor(sample_experiment(description="other"), _kinds(old))
    changed = sample_experiment(actions=(*old.actions[1:], Action(ActionId("sale"), "content")))
    with pytest.raises(InvalidExperiment) as refused:
        check_successor(changed, _kinds(old))
    assert [v.field for v in refused.value.violations] == ["actions[3].kind"]


def test_a_removed_action_can_come_back_as_what_it_was_only() -> None:
    """Whoever removed an action by mistake can mend it; another meaning needs another id, also after a removal."""
    old = sample_experiment()
    check_successor(old, _kinds(old))
    other = replace(old.actions[0], kind="another-kind")
    with pytest.raises(InvalidExperiment):
        check_successor(sample_experiment(actions=(other, *old.actions[1:])), _kinds(old))


# --- rules


def request(unit: str = "u", **fields: Any) -> DecisionRequest:
    """A request of a unit."""
    return DecisionRequest(DecisionId("d"), unit, **fields)


def test_the_holdout_has_about_the_share_that_was_asked_for() -> None:
    """Lift is measured against it: within five standard errors of a binomial, fixed units."""
    version, count = sample_version(holdout=0.1), 20_000
    held = sum(in_holdout(version, f"unit-{i}") for i in range(count))
    assert abs(held - 0.1 * count) < 5 * math.sqrt(count * 0.1 * 0.9)
    assert not any(in_holdout(sample_version(holdout=0.0), f"unit-{i}") for i in range(1000))
    assert all(in_holdout(sample_version(holdout=1.0), f"unit-{i}") for i in range(1000))


def test_a_unit_stays_in_the_holdout_across_versions() -> None:
    """A control group that changes members is none; a wider one keeps all its old members."""
    first = sample_version(holdout=0.2)
    later = sample_version(number=7, position=99, holdout=0.2, description="x", policy=spec("bag"), paused=True)
    wider = sample_version(number=8, position=100, holdout=0.3)
    for unit in (f"unit-{i}" for i in range(2000)):
        assert in_holdout(first, unit) == in_holdout(later, unit)
        assert in_holdout(wider, unit) or not in_holdout(first, unit)


@pytest.mark.parametrize("change", [{"salt": "new"}, {"id": "other"}])
def test_another_salt_or_experiment_chooses_another_holdout(change: dict[str, Any]) -> None:
    """Otherwise the same unlucky units would be the control group of everything."""
    one, other = sample_version(holdout=0.5), sample_version(holdout=0.5, **change)
    same = sum(in_holdout(one, f"{i}") == in_holdout(other, f"{i}") for i in range(4000))
    assert abs(same - 2000) < 5 * math.sqrt(4000 * 0.25)


SALE, OUTFIT, OLD, NONE = map(ActionId, ("sale", "outfit", "old", "none"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (SALE, OUTFIT, NONE)),
        ({"eligible": (NONE, SALE)}, (SALE, NONE)),
        ({"eligible": (NONE, SALE, NONE)}, (SALE, NONE)),
        ({"excluded": (OUTFIT,)}, (SALE, NONE)),
        ({"excluded": (OLD,)}, (SALE, OUTFIT, NONE)),
        ({"eligible": (NONE, SALE), "excluded": (SALE,)}, (NONE,)),
        ({"action_features": {SALE: {}}}, (SALE, OUTFIT, NONE)),
    ],
)
def test_eligible_actions_come_in_the_experiment_s_order(
    fields: dict[str, Any], expected: tuple[ActionId, ...]
) -> None:
    """Pmfs are listed in it; retired actions are never chosen."""
    assert eligible_actions(sample_version(), request(**fields)).actions == expected


@pytest.mark.parametrize("field", ["eligible", "excluded", "action_features"])
def test_an_unknown_action_is_named(field: str) -> None:
    """A typo in an action must not silently change who can be chosen."""
    asked: Any = {ActionId("sael"): {}} if field == "action_features" else (ActionId("sael"),)
    with pytest.raises(NotFound, match="sael"):
        eligible_actions(sample_version(), request(**{field: asked}))


def test_a_retired_action_cannot_be_asked_for() -> None:
    """The caller is told that its list is old."""
    with pytest.raises(InvalidArgument, match="retired"):
        eligible_actions(sample_version(), request(eligible=(OLD, SALE)))


def test_no_action_left_is_refused() -> None:
    """There is nothing to answer; the caller must show its own default."""
    with pytest.raises(FailedPrecondition) as refused:
        eligible_actions(sample_version(), request(excluded=(SALE, OUTFIT, NONE)))
    assert refused.value.reason == "NO_ELIGIBLE_ACTION"


def ruled(version: ExperimentVersion, *eligible: ActionId, explore: bool = True) -> tuple[Slots, Reason]:
    """The slots and the reason of a decision between these actions."""
    asked = request(eligible=eligible, explore=explore)
    made = decide(asked, version, Model(make_policy(version.experiment.policy)))
    return made.pmf, made.reason


def test_where_a_rule_decides_nothing_is_explored_anyway() -> None:
    """`explore=false` names another reason only where the policy was asked."""
    assert ruled(sample_version(holdout=1.0), SALE, OUTFIT, explore=False)[1] == Reason.HOLDOUT
    assert ruled(sample_version(), SALE, explore=False)[1] == Reason.ONLY_ELIGIBLE
    assert ruled(sample_version(policy=spec("fixed")), SALE, OUTFIT, explore=False)[1] == Reason.BASELINE
    assert ruled(sample_version(), SALE, OUTFIT, explore=False)[1] == Reason.NO_EXPLORATION


def test_rules_come_before_the_policy_and_in_order() -> None:
    """Holdout first, or a unit of the control group would get what the caller's filter leaves."""
    everybody, fixed = sample_version(holdout=1.0), sample_version(policy=spec("fixed"))
    assert ruled(everybody, SALE, OUTFIT) == (one_slot(1, 2), Reason.HOLDOUT)
    assert ruled(everybody, OUTFIT) == ((SLOTS,), Reason.HOLDOUT)
    assert ruled(sample_version(), SALE) == ((SLOTS,), Reason.ONLY_ELIGIBLE)
    assert ruled(fixed, SALE, OUTFIT) == (one_slot(1, 2), Reason.BASELINE)
    assert ruled(fixed, SALE) == ((SLOTS,), Reason.ONLY_ELIGIBLE)
    assert ruled(sample_version(policy=spec("uniform")), SALE, OUTFIT)[1] in (Reason.EXPLOIT, Reason.EXPLORE)


def test_a_unit_of_the_control_group_without_its_baseline_is_no_control() -> None:
    """It got a random offer and was called HOLDOUT: the group that lift is measured against was not clean."""
    everybody = sample_version(holdout=1.0)
    assert ruled(everybody, SALE, NONE) == (uniform_slots(2), Reason.HOLDOUT_UNAVAILABLE)
    assert ruled(everybody, SALE) == ((SLOTS,), Reason.HOLDOUT_UNAVAILABLE)
    assert ruled(everybody, SALE, NONE, explore=False)[1] == Reason.HOLDOUT_UNAVAILABLE
    assert not everybody.learns_from(Reason.HOLDOUT_UNAVAILABLE, overridden=False)


def test_a_decision_of_an_older_build_keeps_its_reason() -> None:
    """A replay decides by the rules of the build that decided, or no old log would replay."""
    everybody, model = sample_version(holdout=1.0), Model(make_policy(sample_version().experiment.policy))
    asked = request(eligible=(SALE, NONE))
    new, old = decide(asked, everybody, model), decide(asked, everybody, model, rules=1)
    assert (new.reason, old.reason) == (Reason.HOLDOUT_UNAVAILABLE, Reason.HOLDOUT)
    assert new._replace(reason=old.reason) == old


def test_without_the_baseline_everything_is_even() -> None:
    """If the baseline is filtered out, no other action may take its place by chance of order."""
    assert baseline_slots(sample_version(), (SALE, NONE)) == uniform_slots(2)
    assert baseline_slots(sample_version(baseline=None), (SALE, OUTFIT, NONE)) == uniform_slots(3)
