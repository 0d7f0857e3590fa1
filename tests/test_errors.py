"""Every error a caller can meet, over gRPC: its code, its text and its google.rpc details, which programs read."""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from tests.rpc_clients import InProcessClient, code_of, detail, experiment, fields_of, reason_of, status_of, until

NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A server with an experiment `e` (a, b, retired), a paused one and one that declares its rewards."""
    opened = InProcessClient(tmp_path_factory.mktemp("errors") / "log.db")
    with_retired = experiment("e", "a", "b", "retired")
    with_retired.actions[2].state = experiment_pb2.ACTION_STATE_RETIRED
    opened.apply(with_retired)
    opened.apply(experiment("paused"))
    opened.pause("paused")
    declared = experiment("declared")
    declared.reward.weights["click"] = 1.0
    declared.reward.weights["purchase"] = 2.0
    declared.reward.range.maximum = 10
    declared.reward.out_of_range = experiment_pb2.OUT_OF_RANGE_REFUSE
    opened.apply(declared)
    opened.decide("e", "one", decision_id="taken")
    opened.decide("e", decision_id="rewarded")
    opened.decide("declared", decision_id="declared")
    opened.reward("declared", name="click", reward_id="r-1")
    yield opened
    opened.close()


class Case(NamedTuple):
    """A call that must fail, and how."""

    name: str
    call: Callable[[InProcessClient], object]
    code: str
    reason: str
    text: str
    fields: tuple[str, ...] = ()


def features(**values: float | str | bool) -> Struct:
    """A map of features as a message."""
    struct = Struct()
    struct.update(values)
    return struct


def decide(name: str, code: str, reason: str, text: str, experiment_id: str = "e", **request: Any) -> Case:
    """A case of Decide."""
    fields = {"unit_id": "unit", **request}
    return Case(f"decide: {name}", lambda client: client.decide(experiment_id, **fields), code, reason, text)


def bad_decide(name: str, field: str, text: str, **request: Any) -> Case:
    """A case of Decide with a wrong field."""
    case = decide(name, "INVALID_ARGUMENT", "INVALID_ARGUMENT", text, **request)
    return case._replace(fields=(field,))


def bad_feature(name: str, value: Value | float | str, text: str, field: str = "context.features[f]") -> Case:
    """A case of Decide with a wrong feature `f`."""
    message = value if isinstance(value, Value) else Value(number_value=value) if isinstance(value, float) else None
    struct = Struct(fields={"f": message or Value(string_value=str(value))})
    return bad_decide(name, field, text, context=pb.Context(features=struct))


def bad_reward(name: str, field: str, text: str, /, decision_id: str = "rewarded", **request: Any) -> Case:
    """A case of Reward with a wrong field."""
    wrong = "INVALID_ARGUMENT"
    return Case(f"reward: {name}", lambda client: client.reward(decision_id, **request), wrong, wrong, text, (field,))


UNIT_ID = "must have 1 to 256 characters, none of them a control character"
KEY = "must have 1 to 128 characters, none of them a control character"
NOT_A_FEATURE = r"must be a category \(string\), a number or a flag \(true or false\)"

CALLS = [
    decide(
        "unknown experiment", "NOT_FOUND", "EXPERIMENT_NOT_FOUND",
        "there is no experiment 'nowhere'; there are: declared, e, paused", experiment_id="nowhere",
    ),
    decide(
        "paused", "FAILED_PRECONDITION", "EXPERIMENT_PAUSED",
        "experiment 'paused' is paused; resume it with ResumeExperiment", experiment_id="paused",
    ),
    decide(
        "only inactive eligible actions", "FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION",
        "eligible_actions names no active action of experiment 'e': x, retired; active are a, b",
        eligible_actions=["x", "retired"],
    ),
    decide(
        "inactive eligible actions beside an excluded one", "FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION",
        "no action of experiment 'e' is left: 2 active, eligible_actions names 1, excluded_actions 1",
        eligible_actions=["a", "x"], excluded_actions=["a", "y"],
    ),
    bad_decide(
        "actions in a call that may not have them", "actions",
        "experiment 'e' takes no actions from calls: declare them in it, or set its actions_in_calls",
        actions=[pb.CalledAction(id="x")],
    ),
    decide(
        "no action left", "FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION",
        "no action of experiment 'e' is left: 2 active, eligible_actions names 1, excluded_actions 1",
        eligible_actions=["a"], excluded_actions=["a"],
    ),
    decide(
        "id of another unit", "ALREADY_EXISTS", "DECISION_ID_REUSED",
        "decision_id 'taken' belongs to another unit or experiment; take a new id", decision_id="taken",
    ),
    bad_decide("no unit_id", "unit_id", UNIT_ID, unit_id=""),
    bad_decide("long unit_id", "unit_id", UNIT_ID, unit_id="u" * 257),
    bad_decide("control character in unit_id", "unit_id", UNIT_ID, unit_id="a\nb"),
    bad_decide("NUL in unit_id", "unit_id", UNIT_ID, unit_id="a\x00b"),
    bad_decide("long decision_id", "decision_id", KEY, decision_id="d" * 129),
    bad_decide("control character in decision_id", "decision_id", KEY, decision_id="a\tb"),
    *(
        bad_decide(
            f"long {name}", f"context.{name}", "is longer than 256 characters", context=pb.Context(**{name: "x" * 257})
        )
        for name in ("segment", "device", "channel", "location", "intent_stage")
    ),
    bad_feature("NaN", NAN, r"nan is not a finite number up to 1e\+12"),
    bad_feature("infinity", INF, r"inf is not a finite number up to 1e\+12"),
    bad_feature("minus infinity", -INF, r"-inf is not a finite number up to 1e\+12"),
    bad_feature("too large", 1e13, r"10000000000000.0 is not a finite number up to 1e\+12"),
    bad_feature("list", Value(list_value=ListValue()), NOT_A_FEATURE),
    bad_feature("map", Value(struct_value=Struct()), NOT_A_FEATURE),
    bad_feature("null", Value(null_value=0), NOT_A_FEATURE),
    bad_feature("nothing", Value(), NOT_A_FEATURE),
    bad_feature("long category", "x" * 257, "is longer than 256 characters"),
    *(
        bad_decide(
            f"reserved name {name}", f"context.features[{name}]", "is reserved: it has a field of its own",
            context=pb.Context(features=features(**{name: "x"})),
        )
        for name in ("segment", "device", "channel", "location", "intent_stage")
    ),
    bad_decide(
        "too many features", "context.features", "has 101 features; at most 100 are possible",
        context=pb.Context(features=features(**{f"f{i}": i for i in range(101)})),
    ),
    bad_decide(
        "long feature name", "context.features", "a name has 1 to 64 characters",
        context=pb.Context(features=features(**{"x" * 65: 1.0})),
    ),
    bad_decide(
        "empty feature name", "context.features", "a name has 1 to 64 characters",
        context=pb.Context(features=features(**{"": 1.0})),
    ),
    bad_decide(
        "NaN for an action", "action_features[a][price]", "nan is not a finite number",
        action_features={"a": features(price=NAN)},
    ),
    *(
        bad_decide(
            f"reserved name {name} for an action", f"action_features[a][{name}]",
            "is reserved: it has a field of its own", action_features={"a": features(**{name: "x"})},
        )
        for name in ("id", "kind")
    ),
    Case(
        "decide: every wrong field is named", lambda client: client.decide(
            "e", "", decision_id="\n", context=pb.Context(segment="x" * 257, features=features(f=NAN))
        ), "INVALID_ARGUMENT", "INVALID_ARGUMENT", "unit_id: must have",
        ("unit_id", "decision_id", "context.segment", "context.features[f]"),
    ),
    Case(
        "reward: unknown decision", lambda client: client.reward("unknown"), "NOT_FOUND", "DECISION_NOT_FOUND",
        "there is no decision 'unknown'",
    ),
    bad_reward("no decision_id", "decision_id", KEY, decision_id=""),
    bad_reward("long decision_id", "decision_id", KEY, decision_id="d" * 129),
    bad_reward("bad name", "name", "'two words' is not 1 to 64 letters, digits", name="two words"),
    bad_reward("long name", "name", "is not 1 to 64 letters, digits", name="n" * 65),
    bad_reward("line end in name", "name", "is not 1 to 64 letters, digits", name="click\n"),
    bad_reward("NaN", "value", "nan is not a finite number", value=NAN),
    bad_reward("infinity", "value", "inf is not a finite number", value=INF),
    bad_reward(
        "above the range", "value",
        r"11.5 x weight 1 is not in the experiment's reward.range \[0, 10\], and reward.out_of_range is refuse; send "
        "another value, declare", decision_id="declared", name="click", value=11.5,
    ),
    bad_reward(
        "below the range", "value", r"-1 x weight 1 is not in the experiment's reward.range", decision_id="declared",
        name="click", value=-1.0,
    ),
    bad_reward("beyond every range", "value", "is not a finite number within", value=2e12),
    bad_reward(
        "above the range by its weight", "value", r"6 x weight 2 is not in the experiment's reward.range \[0, 10\]",
        decision_id="declared", name="purchase", value=6.0,
    ),
    bad_reward(
        "undeclared name", "name", "experiment 'declared' has no reward 'refund'; it has click, purchase",
        decision_id="declared", name="refund",
    ),
    bad_reward("default name undeclared", "name", "has no reward 'reward'", decision_id="declared"),
    bad_reward("to retract without reward_id", "reward_id", "is needed to retract: the one that the", retract=True),
    bad_reward("to correct without reward_id", "reward_id", "is needed to correct", correct=True, value=1.0),
    bad_reward("to correct without value", "value", "to take it back send retract", correct=True, reward_id="r"),
    bad_reward(
        "to correct and retract", "correct", "send one of the two", correct=True, retract=True, reward_id="r", value=1.0
    ),
    bad_reward(
        "to retract under another name", "name", "reward 'r-1' was sent as 'click'; send that name, or none",
        decision_id="declared", name="purchase", retract=True, reward_id="r-1",
    ),
    bad_reward(
        "to correct beyond the range", "value", "6 x weight 2 is not in", decision_id="declared", name="purchase",
        correct=True, reward_id="never sent", value=6.0,
    ),
    bad_reward(
        "to retract an unknown name", "name", "has no reward 'unknown'; it has click, purchase", decision_id="declared",
        name="unknown", retract=True, reward_id="never sent",
    ),
    bad_reward("long reward_id", "reward_id", KEY, reward_id="r" * 129),
    bad_reward("control character in reward_id", "reward_id", KEY, reward_id="\x7f"),
    bad_reward("time beyond year 9999", "occurred_at", "Timestamp is not valid", occurred_at=Timestamp(seconds=10**12)),
    bad_reward("time with wrong nanos", "occurred_at", "Timestamp is not valid", occurred_at=Timestamp(nanos=-1)),
    Case(
        "activate: long action of an unknown decision", lambda client: client.activate("unknown", "x" * 129),
        "INVALID_ARGUMENT", "INVALID_ARGUMENT", KEY, ("action",),
    ),
    Case(
        "activate: unknown action", lambda client: client.activate("rewarded", "x"), "NOT_FOUND", "ACTION_NOT_FOUND",
        "experiment 'e' has no action 'x'; it has a, b, retired",
    ),
    Case(
        "activate: no decision_id", lambda client: client.activate(""), "INVALID_ARGUMENT", "INVALID_ARGUMENT",
        KEY, ("decision_id",),
    ),
    Case(
        "decide batch: empty", lambda client: client.decide_batch([]), "INVALID_ARGUMENT", "INVALID_ARGUMENT",
        "requests: has 0 requests; 1 to 1000 are possible", ("requests",),
    ),
    Case(
        "decide batch: too many", lambda client: client.decide_batch([pb.DecideRequest()] * 1001), "INVALID_ARGUMENT",
        "INVALID_ARGUMENT", "requests: has 1001 requests; 1 to 1000 are possible", ("requests",),
    ),
    Case(
        "reward batch: empty", lambda client: client.reward_batch([]), "INVALID_ARGUMENT", "INVALID_ARGUMENT",
        "requests: has 0 requests; 1 to 1000 are possible", ("requests",),
    ),
    Case(
        "reward batch: too many", lambda client: client.reward_batch([pb.RewardRequest()] * 1001), "INVALID_ARGUMENT",
        "INVALID_ARGUMENT", "requests: has 1001 requests; 1 to 1000 are possible", ("requests",),
    ),
    *(
        Case(
            f"{name}: unknown experiment", call, "NOT_FOUND", "EXPERIMENT_NOT_FOUND",
            "there is no experiment 'nowhere'",
        )
        for name, call in (
            ("get", lambda client: client.get("nowhere")),
            ("pause", lambda client: client.pause("nowhere")),
            ("resume", lambda client: client.resume("nowhere")),
        )
    ),
    *(
        Case(
            f"list: page of {size}", lambda client, size=size: client.page(page_size=size), "INVALID_ARGUMENT",  # type: ignore[misc]
            "INVALID_ARGUMENT", rf"page_size: {size} is not in \[0, 1000\]", ("page_size",),
        )
        for size in (-1, 1001)
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CALLS, ids=[case.name for case in CALLS])
def test_call_is_refused_with_reason_and_fields(client: InProcessClient, case: Case) -> None:
    """A person must see what to do, a program which field: both are part of the contract."""
    before = entries(client)
    check(client, case)
    assert entries(client) == before


def entries(client: InProcessClient) -> list[tuple[Any, ...]]:
    """How many entries of each kind that a caller can make."""
    return client.rows("select kind, count(*) from entries where kind <> 'tick' group by kind")


def check(client: InProcessClient, case: Case) -> None:
    """The call fails exactly so."""
    status = status_of(lambda: case.call(client))
    assert (code_of(status), reason_of(status)) == (case.code, case.reason), status.message
    assert tuple(fields_of(status)) == case.fields
    info = detail(status, error_details_pb2.ErrorInfo())
    assert info is not None
    assert info.domain == "decider.v1"
    assert re.search(case.text, status.message), status.message


Change = Callable[[experiment_pb2.Experiment], object]


def set_fields(**fields: Any) -> Change:
    """Set plain fields of the experiment."""

    def change(message: experiment_pb2.Experiment) -> None:
        for name, value in fields.items():
            setattr(message, name, value)

    return change


def policy(**algorithm: Any) -> Change:
    """Take this policy."""
    return lambda message: message.policy.CopyFrom(experiment_pb2.Policy(**algorithm))


def parameter(algorithm: str, name: str, value: float) -> tuple[str, Change, str, str]:
    """A case of a policy's parameter out of its range."""

    def change(message: experiment_pb2.Experiment) -> None:
        setattr(getattr(message.policy, algorithm), name, value)

    return f"{algorithm} {name} {value}", change, f"policy.{algorithm}.{name}", r"is not in \["


def reward(**fields: Any) -> Change:
    """Set fields of the reward definition; a pair is the range, a map the weights."""

    def change(message: experiment_pb2.Experiment) -> None:
        for name, value in fields.items():
            if name == "range":
                message.reward.range.minimum, message.reward.range.maximum = value
            elif isinstance(value, Mapping):
                message.reward.weights.update(value)
            else:
                setattr(message.reward, name, value)

    return change


def window(seconds: int = 0, nanos: int = 0) -> Change:
    """Set the window."""

    def change(message: experiment_pb2.Experiment) -> None:
        message.reward.window.seconds, message.reward.window.nanos = seconds, nanos

    return change


def first_action(**fields: Any) -> Change:
    """Set fields of the first action; `features` are a map."""

    def change(message: experiment_pb2.Experiment) -> None:
        for name, value in fields.items():
            if name in ("features", "payload"):
                getattr(message.actions[0], name).update(value)
            else:
                setattr(message.actions[0], name, value)

    return change


def all_retired(message: experiment_pb2.Experiment) -> None:
    """Retire every action."""
    for action in message.actions:
        action.state = experiment_pb2.ACTION_STATE_RETIRED


def retired_baseline(message: experiment_pb2.Experiment) -> None:
    """The baseline is retired."""
    message.actions[0].state = experiment_pb2.ACTION_STATE_RETIRED
    message.baseline_action = "a"


def no_actions(message: experiment_pb2.Experiment) -> None:
    """No action at all."""
    del message.actions[:]


NOT_AN_ID = "is not 1 to 64 letters, digits, '-', '_' or '.'"
BASELINE_NEEDED = "is needed for a holdout and for the fixed policy"

EXPERIMENTS: list[tuple[str, Change, str, str]] = [
    ("no id", set_fields(id=""), "id", NOT_AN_ID),
    ("bad id", set_fields(id="two words"), "id", NOT_AN_ID),
    ("long id", set_fields(id="x" * 65), "id", NOT_AN_ID),
    ("line end in id", set_fields(id="x\n"), "id", NOT_AN_ID),
    ("long salt", set_fields(salt="s" * 65), "salt", "is longer than 64 characters"),
    ("no actions", no_actions, "actions", "has no active action"),
    ("only retired actions", all_retired, "actions", "has no active action"),
    (
        "too many actions",
        lambda m: m.actions.extend(experiment_pb2.Action(id=f"n{i}") for i in range(998)),
        "actions",
        "has 1001 actions; at most 1000 are possible",
    ),
    ("bad action id", first_action(id="a b"), "actions[0].id", NOT_AN_ID),
    ("action twice", first_action(id="b"), "actions[1].id", "'b' is there twice"),
    ("bad kind", first_action(kind="a b"), "actions[0].kind", NOT_AN_ID),
    ("NaN feature", first_action(features={"f": NAN}), "actions[0].features[f]", "nan is not a finite number"),
    ("list feature", first_action(features={"f": [1]}), "actions[0].features[f]", "must be a category"),
    ("reserved feature", first_action(features={"kind": "x"}), "actions[0].features[kind]", "is reserved"),
    ("NaN payload", first_action(payload={"p": NAN}), "actions[0].payload", ""),
    ("unknown action state", first_action(state=77), "actions[0].state", ""),
    ("unknown state", set_fields(state=77), "state", ""),
    ("unknown learning", set_fields(learning=77), "learning", ""),
    ("bad interaction", policy(interactions=["CB"]), "policy.interactions[0]", "is not made of 2 to 4 of C and A"),
    ("short interaction", policy(interactions=["CA", "C"]), "policy.interactions[1]", "is not made of 2 to 4"),
    ("long interaction", policy(interactions=["CCCCA"]), "policy.interactions[0]", "is not made of 2 to 4"),
    parameter("epsilon_greedy", "epsilon", 1.5),
    parameter("epsilon_greedy", "epsilon", NAN),
    parameter("softmax", "lambda", 0.0),
    parameter("squarecb", "gamma_scale", -1.0),
    parameter("squarecb", "gamma_exponent", 2.0),
    parameter("bag", "size", 1),
    parameter("bag", "epsilon", -0.5),
    parameter("cover", "size", 101),
    parameter("rnd", "size", 0),
    parameter("rnd", "alpha", INF),
    parameter("first", "count", 2_000_000_000),
    ("negative holdout", set_fields(holdout=-0.1), "holdout", r"is not in \[0, 1\]"),
    ("NaN holdout", set_fields(holdout=NAN), "holdout", r"is not in \[0, 1\]"),
    ("holdout without baseline", set_fields(holdout=0.1), "baseline_action", BASELINE_NEEDED),
    ("fixed without baseline", policy(fixed=experiment_pb2.Fixed()), "baseline_action", BASELINE_NEEDED),
    ("unknown baseline", set_fields(baseline_action="x"), "baseline_action", "'x' is not one of the active actions"),
    ("retired baseline", retired_baseline, "baseline_action", "'a' is not one of the active actions"),
    ("large floor", set_fields(minimum_propensity=0.5), "minimum_propensity", r"is not in \[0, 0.333333\]"),
    ("negative floor", set_fields(minimum_propensity=-0.1), "minimum_propensity", r"is not in \["),
    ("NaN floor", set_fields(minimum_propensity=NAN), "minimum_propensity", r"is not in \["),
    ("no window", window(), "reward.window", r"is not in \[0.001 s, 90 days\]"),
    ("short window", window(nanos=999_000), "reward.window", r"is not in \[0.001 s, 90 days\]"),
    ("long window", window(seconds=90 * 86400, nanos=1000), "reward.window", r"is not in \[0.001 s, 90 days\]"),
    ("window that no clock holds", window(seconds=2**62), "reward.window", ""),
    ("negative window", window(seconds=-5), "reward.window", r"is not in \[0.001 s, 90 days\]"),
    ("empty range", reward(range=(1, 1)), "reward.range", "is not an interval with minimum < maximum"),
    ("upside-down range", reward(range=(1, 0)), "reward.range", "is not an interval with minimum < maximum"),
    ("infinite range", reward(range=(0, INF)), "reward.range", "is not an interval with minimum < maximum"),
    ("range beyond what can be computed", reward(range=(-1.7e308, 1.7e308)), "reward.range", ""),
    ("default out of range", reward(default_value=2), "reward.default_value", r"2.0 is not in the range \[0.0, 1.0\]"),
    ("NaN default", reward(default_value=NAN), "reward.default_value", "nan is not in the range"),
    ("bad weight name", reward(weights={"a b": 1.0}), "reward.weights", NOT_AN_ID),
    ("infinite weight", reward(weights={"click": INF}), "reward.weights[click]", "inf is not a finite number"),
    ("unknown treatment of what is out of range", reward(out_of_range=77), "reward.out_of_range", "is none of OUT_OF_"),
    ("unknown aggregation", reward(aggregation=77), "reward.aggregation", ""),
]


@pytest.mark.parametrize(("change", "field", "text"), [c[1:] for c in EXPERIMENTS], ids=[c[0] for c in EXPERIMENTS])
def test_experiment_is_refused_with_field(client: InProcessClient, change: Change, field: str, text: str) -> None:
    """An experiment with a hole in it would decide wrongly for days; the text must name the field to mend."""
    versions = client.rows("select count(*) from experiments")
    message = experiment("refused")
    change(message)
    status = status_of(lambda: client.apply(message))
    assert (code_of(status), reason_of(status)) == ("INVALID_ARGUMENT", "INVALID_EXPERIMENT"), status.message
    assert field in fields_of(status)
    assert re.search(text, status.message), status.message
    assert client.rows("select count(*) from experiments") == versions


def test_action_id_is_not_reused_with_another_kind(client: InProcessClient) -> None:
    """What the policy learned about an id would be applied to something else."""
    client.apply(experiment("reused", "a", "b"))
    other = experiment("reused", "a", "b")
    other.actions[1].kind = "offer"
    text = "action 'b' was of kind 'content' before; an id is never reused: take a new one"
    wrong = "INVALID_ARGUMENT"
    check(client, Case("", lambda d: d.apply(other), wrong, "INVALID_EXPERIMENT", text, ("actions[1].kind",)))
    assert client.get("reused").version == 1


def test_removed_action_comes_back_only_as_what_it_was(client: InProcessClient) -> None:
    """A mistake can be mended; with another kind its history would be about something else."""
    client.apply(experiment("removed", "a", "b"))
    client.apply(experiment("removed", "a"))
    assert client.apply(experiment("removed", "a", "b")).changed
    client.apply(experiment("removed", "a"))
    other = experiment("removed", "a", "b")
    other.actions[1].kind = "another"
    status = status_of(lambda: client.apply(other))
    assert (reason_of(status), fields_of(status)) == ("INVALID_EXPERIMENT", ["actions[1].kind"])


def nan_features(count: int) -> Struct:
    """So many wrong features, with names as long as they may be."""
    return Struct(fields={f"{i:064d}": Value(number_value=NAN) for i in range(count)})


UNKNOWN_ACTION = pb.ActivateRequest(decision_id="one-of-many", action="x")

LARGE: list[tuple[str, Callable[[InProcessClient], object], str]] = [
    ("experiment of 20,000 characters", lambda client: client.decide("x" * 20_000), "EXPERIMENT_NOT_FOUND"),
    ("action of 20,000 characters", lambda d: d.decide("e", eligible_actions=["x" * 20_000]), "NO_ELIGIBLE_ACTION"),
    ("one of 1,000 actions", lambda d: d.call("DeciderService", "Activate", UNKNOWN_ACTION), "ACTION_NOT_FOUND"),
    (
        "1,000 unknown actions",
        lambda d: d.decide("e", eligible_actions=[f"{i:064d}" for i in range(1000)]),
        "NO_ELIGIBLE_ACTION",
    ),
    ("100 wrong features", lambda d: d.decide("e", context=pb.Context(features=nan_features(100))), "INVALID_ARGUMENT"),
    (
        "300 wrong actions",
        lambda d: d.apply(experiment("w", *[f"? {i:030d}" for i in range(300)])),
        "INVALID_EXPERIMENT",
    ),
]


@pytest.mark.parametrize(("call", "reason"), [c[1:] for c in LARGE], ids=[c[0] for c in LARGE])
def test_error_reaches_the_caller_however_large_the_input(
    client: InProcessClient, call: Callable[[InProcessClient], object], reason: str
) -> None:
    """gRPC cuts trailers off at 8 to 16 KiB: an error that quotes too much arrives as another error without details."""
    if reason == "ACTION_NOT_FOUND":
        client.apply(experiment("many", *[f"action-number-{i:050d}" for i in range(1000)]))
        client.decide("many", decision_id=UNKNOWN_ACTION.decision_id)
    assert reason_of(status_of(lambda: call(client))) == reason


def test_too_large_request_is_resource_exhausted(tmp_path: Path) -> None:
    """A bound on what one call may cost in memory."""
    opened = InProcessClient(tmp_path / "log.db", max_request_bytes=2000)
    try:
        opened.apply(experiment("e"))
        status = status_of(lambda: opened.decide("e", "u" * 3000))
        assert code_of(status) == "RESOURCE_EXHAUSTED"
        assert "larger than max (3" in status.message
        assert opened.rows("select count(*) from decisions") == [(0,)]
    finally:
        opened.close()


def test_call_whose_deadline_passed_while_it_waited_is_not_done(tmp_path: Path) -> None:
    """Nobody waits for the answer any more: a decision that nobody shows would be logged as if it had been."""
    opened = InProcessClient(tmp_path / "log.db", threads=1)
    try:
        opened.apply(experiment("e"))
        with closing(sqlite3.connect(opened.db, isolation_level=None)) as other:
            other.execute("begin immediate")
            busy = opened.future("Decide", pb.DecideRequest(experiment="e", unit_id="unit", decision_id="in-time"))
            time.sleep(0.3)  # the only thread waits for the lock, so what comes now waits for the thread
            late = pb.DecideRequest(experiment="e", unit_id="unit", decision_id="too-late")
            status = status_of(lambda: opened.call("DeciderService", "Decide", late, timeout=0.3))
            other.execute("rollback")
        assert code_of(status) == "DEADLINE_EXCEEDED"
        assert busy.result().decision_id == "in-time"
        opened.decide("e", decision_id="afterwards")
        ids = opened.rows("select decision_id from decisions order by position")
        assert ids == [("in-time",), ("afterwards",)]
    finally:
        opened.close()


def test_more_calls_at_once_than_allowed_are_refused(tmp_path: Path) -> None:
    """A queue without a bound makes every caller wait for answers that come too late."""
    opened = InProcessClient(tmp_path / "log.db", max_concurrent_rpcs=1)
    try:
        opened.apply(experiment("e"))
        with closing(sqlite3.connect(opened.db, isolation_level=None)) as other:
            other.execute("begin immediate")
            first = opened.future("Decide", pb.DecideRequest(experiment="e", unit_id="unit", decision_id="first"))
            status = until(
                lambda: refused_status(opened), what="a call is refused while another one waits for the lock"
            )
            other.execute("rollback")
        assert first.result().decision_id == "first"
        assert "Concurrent RPC limit exceeded" in status
        until(lambda: not refused_status(opened), what="calls are taken again")
    finally:
        opened.close()


def refused_status(client: InProcessClient) -> str:
    """The text with which a call is refused; empty if it is not."""
    status = status_of(lambda: client.get("e"))
    return status.message if code_of(status) == grpc.StatusCode.RESOURCE_EXHAUSTED.name else ""
