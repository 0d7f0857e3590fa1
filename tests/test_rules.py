"""Rules on the context, and times, by which an action may be chosen: before sampling, exact in a replay, and refused by
name where they are wrong."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import RULES, decide, eligible_actions
from decider.decide.slots import SLOTS
from decider.errors import FailedPrecondition, InvalidExperiment
from decider.experiment.definition import Action, ExperimentVersion
from decider.experiment.rules import LONGEST_RULE, rule_problem
from decider.experiment.schema import from_message, parse_toml
from decider.log.memory import MemoryLog
from decider.log.open import open_reader
from decider.log.protocol import EventLog, LoggedDecision, NewVersion, UnitDecision
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.types import ActionId, Context, DecisionId, DecisionRequest, Features, Position, Time
from decider.v1 import decider_service_pb2 as pb
from simulator.verify import verify
from tests.conftest import SECOND, Clock, contexts, sample_experiment, spec
from tests.rpc_clients import InProcessClient, RpcClient, code_of, experiment, reason_of, status_of

A, B, C = map(ActionId, "abc")
NOBODY = Context()
ENDLESS = "features.all(a, features.all(b, features.all(c, features[a] != 'spam')))"
"""Takes more iterations than CEL allows, where a context has many features."""

MANY = Context(features={f"f{number}": "v" for number in range(99)})


def version(**rules: str) -> ExperimentVersion:
    """Three actions, some with a rule."""
    actions = tuple([Action(id_, eligible_if=rules.get(id_, "")) for id_ in (A, B, C)])
    home = sample_experiment(actions=actions, baseline=None, holdout=0.0)
    return ExperimentVersion(home, number=1, position=Position(1), time=Time(0))


def eligible(of: ExperimentVersion, context: Context = NOBODY, at: Time | None = None) -> str:
    """The ids of the eligible actions, put together."""
    return "".join(eligible_actions(of, DecisionRequest(DecisionId("d"), "unit", context, at=at)).actions)


@pytest.mark.parametrize(
    ("rule", "context", "expected"),
    [
        ("segment == 'vip'", Context(segment="vip"), "abc"),
        ("segment == 'vip'", Context(segment="new"), "bc"),
        ("segment == 'vip'", Context(), "bc"),
        ("device in ['mobile', 'tablet']", Context(device="tablet"), "abc"),
        ("features.age >= 18", Context(features={"age": 18.0}), "abc"),
        ("features.age >= 18", Context(features={"age": 17.9}), "bc"),
        ("features.age >= 18", Context(), "bc"),
        ("!has(features.age) || features.age >= 18", Context(), "abc"),
        ("features.app", Context(features={"app": True}), "abc"),
        ("features.app", Context(features={"app": "yes"}), "bc"),
        ("features['cart value'] > 50", Context(features={"cart value": 60.0}), "abc"),
        ("location.startsWith('de')", Context(location="de-berlin"), "abc"),
        ("1 / 0 == 1", Context(), "bc"),
        ("segment == 'vip'", Context(segment="vip\0"), "bc"),
        ("features.size == 'xl'", Context(features={"size": "xl\0"}), "bc"),
        (ENDLESS, Context(features={"a": "b"}), "abc"),
        (ENDLESS, MANY, "bc"),
        (f"true || {ENDLESS}", MANY, "abc"),
    ],
)
def test_a_rule_leaves_out_what_it_does_not_allow(rule: str, context: Context, expected: str) -> None:
    """Also where it cannot be computed: an offer that needs an age is not for those whose age nobody knows."""
    assert eligible(version(a=rule), context) == expected


def test_the_pmf_is_of_what_is_left() -> None:
    """Left out before sampling: the propensity is exact, and no probability goes to an action that is not allowed."""
    of = version(a="segment == 'vip'", b="device == 'tv'")
    model = Model(make_policy(of.experiment.policy))
    for number in range(50):
        made = decide(DecisionRequest(DecisionId(f"d{number}"), "unit", Context(segment="vip")), of, model)
        assert made.eligible == (A, C)
        assert sum(made.pmf) == SLOTS
        assert made.action in (A, C)


def test_all_allowed_is_the_same_object() -> None:
    """Caches know the whole set by its identity."""
    of = version(a="segment == 'vip'")
    request = DecisionRequest(DecisionId("d"), "unit", Context(segment="vip"))
    assert eligible_actions(of, request).actions is of.all_active


def test_where_no_action_is_left_the_rules_are_named() -> None:
    """The caller named no actions at all: it must know where to look."""
    of = version(a="false", b="false", c="segment == 'vip'")
    with pytest.raises(FailedPrecondition, match="eligible_if") as error:
        eligible(of)
    assert error.value.reason == "NO_ELIGIBLE_ACTION"


@given(contexts)
def test_rules_say_the_same_again(context: Context) -> None:
    """A replay computes them once more, for the actions that were left."""
    of = version(a="segment != '' && size(segment) < 5", b="has(features.age)", c="device == '' || !(channel == '')")
    try:
        first = eligible_actions(of, DecisionRequest(DecisionId("d"), "unit", context)).actions
    except FailedPrecondition:
        return
    assert eligible_actions(of, DecisionRequest(DecisionId("d"), "unit", context, eligible=first)).actions == first


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("segmnt == 'vip'", "undeclared reference to 'segmnt'"),
        ("segment + 1", "no matching overload"),
        ("segment", "is a STRING, not true or false"),
        ("segment == ", "Syntax error"),
        ("x" * (LONGEST_RULE + 1), "longer than"),
        ("unit_id == 'me'", "undeclared reference"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(rule: str, problem: str) -> None:
    """When the experiment is applied, not when a visitor comes; what is possible is said."""
    assert problem in str(rule_problem(rule))
    message = experiment("home")
    message.actions[1].eligible_if = rule
    with pytest.raises(InvalidExperiment, match="eligible_if") as error:
        from_message(message)
    assert "actions[1].eligible_if" in str(error.value)
    assert "intent_stage, features" in str(error.value)


def test_times_hold_to_the_microsecond() -> None:
    """From is included, until is not."""
    action = Action(A, available_from=Time(10 * SECOND), available_until=Time(20 * SECOND))
    home = sample_experiment(actions=(action, Action(B)), baseline=None, holdout=0.0)
    of = ExperimentVersion(home, number=1, position=Position(1), time=Time(0))
    found = {at: eligible(of, at=Time(at)) for at in (10 * SECOND - 1, 10 * SECOND, 20 * SECOND - 1, 20 * SECOND)}
    assert list(found.values()) == ["b", "ab", "ab", "b"]
    assert eligible(of, at=None) == "ab"


def sold(log: EventLog, made: DecisionRequest) -> ExperimentVersion:
    """A log's experiment in which `a` can be had from second 1000 to 2000 of `made.at`, and its first version."""
    assert made.at is not None
    log.name_build({"rules": RULES})
    begin, end = Time(made.at + 1000 * SECOND), Time(made.at + 2000 * SECOND)
    actions = (Action(A, available_from=begin, available_until=end), Action(B), Action(C))
    log.append([NewVersion(sample_experiment(actions=actions, baseline=None, holdout=0.0, policy=spec("uniform")), 1)])
    return log.versions()[-1]


def write(log: EventLog, of: ExperimentVersion, request: DecisionRequest, **changes: Any) -> None:
    """A decision for a request, and what was withheld; or something else in its place."""
    found = eligible_actions(of, request)
    decided = decide(request, of, Model(make_policy(of.experiment.policy)), eligible=found)
    log.append([UnitDecision(decided, **{"withheld": found.withheld, **changes})])


def test_times_are_computed_again(log: EventLog, clock: Clock) -> None:
    """Whoever reads that an offer was not to be had then can prove it; also where a commit has waited."""
    of = sold(log, DecisionRequest(DecisionId("first"), "u", at=clock()))
    for number, seconds in enumerate((0, 500, 499, 1, 900, 99, 1, 500)):
        at = clock()
        clock.advance(seconds)
        write(log, of, DecisionRequest(DecisionId(f"d-{number}"), "u", at=at if seconds == 99 else clock()))
    rules = [log.withheld(one.position).get(A) for one in log.decisions(of.position)]
    assert rules == ["available_from"] * 3 + [None] * 3 + ["available_until"] * 2
    result = verify(log)
    assert (result.first, result.equal, result.decisions) == (None, 8, 8)


@pytest.mark.parametrize(
    ("seconds", "without", "changes", "what"),
    [
        (0, "", {}, "eligible"),
        (1500, "a", {"withheld": {A: "available_until"}}, "eligible"),
        (0, "a", {"withheld": {A: "available_until"}}, "withheld"),
        (2700, "", {}, "eligible"),
        (2700, "a", {"withheld": {A: "available_from"}}, "withheld"),
        (2700, "a", {"withheld": {A: "eligible_if"}}, "withheld"),
    ],
    ids=["before", "withheld within", "other rule before", "behind", "other rule behind", "no such rule"],
)
def test_what_contradicts_the_times_is_found(
    log: EventLog, clock: Clock, seconds: int, without: str, changes: dict[str, Any], what: str
) -> None:
    """An offer that is served after its end costs money, and one that is held back is not offered."""
    request = DecisionRequest(DecisionId("wrong"), "u", at=clock())
    of = sold(log, request)
    clock.advance(seconds)
    write(log, of, request._replace(at=None, excluded=(A,) if without else ()), **changes)
    result = verify(log)
    assert (result.equal, result.decisions) == (0, 1)
    assert result.first is not None
    assert what in result.first.what


def test_a_file_says_rules_and_times() -> None:
    """As people write them."""
    text = """
    id = "home"
    [[actions]]
    id = "a"
    eligible_if = "segment == 'vip'"
    available_from = "2026-12-01T00:00:00Z"
    available_until = "2026-12-24T18:00:00+01:00"
    [[actions]]
    id = "b"
    """
    (action, _) = from_message(parse_toml(text, "home.toml")).actions
    assert action.eligible_if == "segment == 'vip'"
    assert action.available_from == 1_796_083_200 * SECOND
    assert action.available_until == 1_798_131_600 * SECOND


@pytest.mark.parametrize("value", ["2026-12-01T00:00:00Z", "3"])
def test_a_time_without_quotation_marks_is_refused_by_name(value: str) -> None:
    """TOML has times of its own."""
    text = f'id = "home"\nactions = [{{ id = "a", available_from = {value} }}]'
    with pytest.raises(InvalidExperiment, match=r"actions\[0\].available_from: must be a text"):
        parse_toml(text, "home.toml")


def test_an_end_before_the_beginning_is_refused() -> None:
    """The action could never be chosen."""
    message = experiment("home")
    message.actions[0].available_from.FromSeconds(20)
    message.actions[0].available_until.FromSeconds(20)
    with pytest.raises(InvalidExperiment, match="available_until"):
        from_message(message)


def test_a_frontend_gets_what_is_allowed(client: RpcClient) -> None:
    """It need not know the rules."""
    message = experiment("allowed")
    message.actions[0].eligible_if = "segment == 'vip'"
    message.actions[1].available_until.FromSeconds(1)
    client.apply(message)
    served = {client.decide("allowed", f"u{n}", context=pb.Context(segment="new")).action.id for n in range(20)}
    assert served == {"c"}
    served = {client.decide("allowed", f"u{n}", context=pb.Context(segment="vip")).action.id for n in range(40)}
    assert served == {"a", "c"}
    status = status_of(lambda: client.decide("allowed", excluded_actions=["c"]))
    assert (code_of(status), reason_of(status)) == ("FAILED_PRECONDITION", "NO_ELIGIBLE_ACTION")


def test_a_rule_that_takes_too_long_leaves_out_its_action_and_nothing_else(client: RpcClient) -> None:
    """Whatever a caller sends: neither its call nor others of its batch fail; `simulator verify` computes the same."""
    message = experiment(uuid.uuid4().hex)
    message.actions[1].eligible_if = ENDLESS
    client.apply(message)
    asked = [pb.DecideRequest(experiment=message.id, unit_id="u", decision_id=uuid.uuid4().hex) for _ in range(2)]
    asked[1].context.features.update(MANY.features)
    results = client.call("DeciderService", "DecideBatch", pb.DecideBatchRequest(requests=asked)).results
    assert [one.WhichOneof("result") for one in results] == ["response", "response"]
    assert results[1].response.action.id != message.actions[1].id
    alone = pb.DecideRequest(experiment=message.id, unit_id="u", context=asked[1].context)
    assert client.call("DeciderService", "Decide", alone).action.id != message.actions[1].id


class BrokenLog(MemoryLog):
    """A fault that nobody thought of, in one decision."""

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """Raises for one id."""
        if decision_id == "bad":
            raise ZeroDivisionError("a bug")
        return super().find(decision_id)


def test_an_unexpected_error_is_that_of_its_request_alone(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A page of many places must not go dark for a fault in one; the server's log says it once."""
    log = BrokenLog(clock=clock)
    log.append([NewVersion(version().experiment, 1)])
    current = Current()
    current.put(log.versions()[-1], Model(make_policy(version().experiment.policy)))
    service = DeciderService(current, log, append=log.append)
    asked = [pb.DecideRequest(experiment=version().experiment.id, unit_id="u", decision_id=id_) for id_ in ("a", "bad")]
    results = service.DecideBatch(pb.DecideBatchRequest(requests=[*asked, asked[0]])).results
    assert [one.WhichOneof("result") for one in results] == ["response", "error", "response"]
    assert (results[1].error.code, results[1].error.message) == (
        code_pb2.INTERNAL,
        "internal error; the server's log has the details",
    )
    assert [record.exc_text for record in caplog.records].count(None) == len(caplog.records) - 1
    assert log.find(DecisionId("a")) is not None


def test_decisions_under_rules_replay(tmp_path: Path) -> None:
    """Rules are computed from what the log has: the context, and the definition of the version."""
    ages: list[Features] = [{"age": 12.0}, {"age": 40.0}, {}, {"age": 40.0, **MANY.features}]
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        message = experiment("home")
        message.actions[0].eligible_if = "features.age >= 18"
        message.actions[1].available_until.FromSeconds(1)
        message.actions[2].eligible_if = ENDLESS
        client.apply(message)
        for number in range(60):
            context = pb.Context()
            context.features.update(ages[number % 4])
            client.decide("home", f"u{number}", context=context)
    with closing(open_reader(tmp_path / "log.db")) as log:
        found = verify(log)
    assert found.equal == found.decisions == 60


rules = st.sampled_from(["", "segment == 'vip'", "device != ''", "has(features.age) && features.age > 20"])


@given(contexts, st.lists(rules, min_size=3, max_size=3))
def test_nothing_is_served_that_a_rule_forbids(context: Context, texts: list[str]) -> None:
    """Computed here in Python, for all rules of the table above."""
    means = {
        "": True,
        "segment == 'vip'": context.segment == "vip",
        "device != ''": context.device != "",
        "has(features.age) && features.age > 20": isinstance(age := context.features.get("age"), float) and age > 20,
    }
    expected = "".join([id_ for id_, text in zip("abc", texts, strict=True) if means[text]])
    of = version(**dict(zip("abc", texts, strict=True)))
    if expected:
        assert eligible(of, context) == expected
    else:
        with pytest.raises(FailedPrecondition):
            eligible(of, context)
