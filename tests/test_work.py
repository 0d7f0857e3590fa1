"""No request stops the others: what a decision costs is estimated before anything is computed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import combinations_with_replacement, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import SlotsCache, decide
from decider.errors import InvalidExperiment, UnknownCode
from decider.experiment.definition import Action, Experiment, ExperimentVersion
from decider.experiment.workload import Workload
from decider.learn.versions import Versions
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader
from decider.policy.algorithms import ALGORITHMS
from decider.policy.protocol import Choice, Model
from decider.policy.spec import PolicySpec
from decider.policy.static import Uniform
from decider.policy.work import ESTIMATE, NANOSECOND, NEW_FEATURE, Budget, Shape, interaction_features
from decider.types import (
    CONTEXT_FIELDS,
    NO_FEATURES,
    ActionId,
    Context,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    Features,
    Position,
    Reason,
    Time,
)
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, sample_version, spec
from tests.rpc_clients import InProcessClient, experiment, fields_of, status_of

BUDGET = Budget(0.05)
HUNDRED: Features = {f"x{number}": float(number) for number in range(100)}

TERMS = st.text("CA", min_size=2, max_size=4)
SPECS = st.builds(
    lambda name, terms, size: PolicySpec(
        name,
        ALGORITHMS[name].defaults | ({"size": size} if "size" in ALGORITHMS[name].parameters else {}),
        tuple(terms),
    ),
    st.sampled_from(sorted(ALGORITHMS)),
    st.lists(TERMS, max_size=4),
    st.integers(2, 100),
)
COUNTS = st.integers(0, 100)
SIZES = st.dictionaries(st.integers(0, 200), st.integers(1, 100), min_size=1)
SHAPES = st.builds(Shape, COUNTS, SIZES)


@given(SPECS, SHAPES, st.integers(0, 10), st.integers(0, 10), st.integers(0, 10))
def test_more_features_or_actions_never_cost_less(
    policy: PolicySpec, shape: Shape, more: int, own: int, few: int
) -> None:
    """What fits with all actions and fields is not estimated again for fewer: that rests on this."""
    larger = Shape(shape.context + more, {size + own: number + few for size, number in shape.actions.items()})
    assert 0 < policy.seconds(shape) <= policy.seconds(larger)


@pytest.mark.parametrize("term", ["CA", "CC", "AA", "CCA", "CAC", "CAA", "CCC", "CCAA", "CACA", "CCCA", "AAAA"])
@pytest.mark.parametrize(("context", "action"), [(0, 2), (1, 1), (3, 2), (5, 4)])
def test_the_features_of_a_term_are_counted_as_vowpal_wabbit_makes_them(term: str, context: int, action: int) -> None:
    """A wrong count is wrong by thousands for long terms."""
    own = {"C": range(context), "A": range(action)}
    parts = [list(combinations_with_replacement(own[name], term.count(name))) for name in "CA"]
    assert interaction_features(term, context=context, action=action) == len(list(product(*parts)))


def test_a_term_counts_once_in_whatever_order_its_letters_are() -> None:
    """Vowpal Wabbit drops the second; counted twice, an ordinary experiment could be refused."""
    shape = Shape(20, {5: 10})
    assert spec("squarecb", "CA", "AC").seconds(shape) == spec("squarecb", "CA").seconds(shape)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ordinary_decisions_are_far_below_the_default_budget(algorithm: str) -> None:
    """Fifty actions, three features each, twenty of the visitor: nobody may meet the budget there."""
    assert spec(algorithm).seconds(Shape(25, {3: 50})) < BUDGET.seconds / 2


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if spec(name).learns])
@pytest.mark.parametrize(("actions", "own"), [(1000, 100), (1000, 20), (300, 100), (100, 20)])
def test_every_feature_of_an_action_counts_wherever_it_comes_from(algorithm: str, actions: int, own: int) -> None:
    """A new model parses all of them, and the largest experiments do so at every call: none of it was counted, and a
    decision of 4 ms took 119."""
    ids, features = [ActionId(f"a{number}") for number in range(actions)], _numbers(own, "f")
    defined, plain = dict.fromkeys(ids, features), dict.fromkeys(ids, NO_FEATURES)
    policy = spec(algorithm)
    seconds = Workload(policy, defined, ids).seconds(Context(), ids, {})
    assert seconds == Workload(policy, plain, ids).seconds(Context(), ids, defined)
    read = sum(map(len, defined.values()))
    assert seconds >= Workload(policy, plain, ids).seconds(Context(), ids, {}) + NANOSECOND * NEW_FEATURE * read


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("actions", "own"), [(100, 20), (1000, 10)])
def test_long_catalogues_with_features_fit_the_default_budget(
    algorithm: str, actions: int, own: int, clock: Clock
) -> None:
    """The count of what is parsed must refuse nothing that is ordinary."""
    versions = Versions(MemoryLog(clock=clock), budget=BUDGET)
    content = wide(actions, "CA", own=own, algorithm=algorithm)
    version = versions.apply(content).version
    features: Features = {f"x{number}": 1.0 for number in range(5)}
    assert version.work.fits(BUDGET, Context("vip", "mobile", features=features), [*version.active], {})


@given(
    policy=SPECS,
    own=st.lists(st.integers(0, 30), min_size=2, max_size=6),
    free=st.integers(0, 100),
    fields=st.lists(st.sampled_from(["", "x"]), min_size=5, max_size=5),
    sent=st.lists(st.integers(0, 30), max_size=3),
    seconds=st.floats(0.0001, 0.1),
)
def test_the_short_way_and_the_estimate_agree(
    policy: PolicySpec, own: list[int], free: int, fields: list[str], sent: list[int], seconds: float
) -> None:
    """A server takes the short way, a replay may not know it: they must decide the same."""
    features = {ActionId(f"a{place}"): _numbers(count, "own") for place, count in enumerate(own)}
    extra = {ActionId(f"a{place}"): _numbers(count, "sent") for place, count in enumerate(sent) if place < len(own)}
    work, context = Workload(policy, features, [*features]), _context(fields, _numbers(free, "x"))
    exact = work.seconds(context, [*features], extra) <= seconds
    assert work.fits(Budget(seconds), context, [*features], extra) == exact


def test_features_sent_with_the_call_replace_those_of_the_same_name() -> None:
    """As the policy sees them: a price that an action has and that the call sends is one feature."""
    own: dict[ActionId, Features] = {ActionId("a"): {"price": 1.0}, ActionId("b"): {}}
    work = Workload(spec("squarecb", "AAA"), own, [*own])

    def seconds(**sent: float) -> float:
        return work.seconds(Context(), [*own], {ActionId("a"): sent})

    assert work.seconds(Context(), [*own], {}) == seconds(price=2.0) < seconds(cost=2.0)


def _numbers(count: int, name: str) -> Features:
    return {f"{name}{number}": 1.0 for number in range(count)}


def _context(fields: Sequence[str], features: Features = NO_FEATURES) -> Context:
    return Context._make([*fields, *[""] * (len(CONTEXT_FIELDS) - len(fields)), features])


def wide(actions: int, *terms: str, own: int = 0, algorithm: str = "squarecb", **parameters: float) -> Experiment:
    """An experiment of many actions."""
    return sample_experiment(
        actions=tuple(Action(ActionId(f"a{number}"), features=_numbers(own, "f")) for number in range(actions)),
        baseline=ActionId("a1"),
        minimum_propensity=0.0,
        policy=spec(algorithm, *terms, **parameters),
    )


def version_of(content: Experiment) -> ExperimentVersion:
    """The experiment as applied."""
    return ExperimentVersion(content, number=1, position=Position(1), time=Time(0))


class Unaffordable(Uniform):
    """A policy that must not be asked."""

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002
        raise AssertionError("asked")


SHAPES_OF_F7 = {
    "100 actions, CCCC": (wide(100, "CCCC", own=20), {}),
    "100 actions, CCAA": (wide(100, "CCAA"), dict.fromkeys([ActionId(f"a{n}") for n in range(100)], HUNDRED)),
    "1000 actions, three terms": (wide(1000, "CCCC", "CCAA", "CAAA"), {}),
    "rnd of 20": (wide(50, "CCA", algorithm="rnd"), dict.fromkeys([ActionId(f"a{n}") for n in range(50)], HUNDRED)),
}


@pytest.mark.parametrize("shape", SHAPES_OF_F7)
def test_a_dear_decision_gets_the_baseline_action(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    """One such call held the interpreter for seconds, and everybody else's decision with it."""
    content, action_features = SHAPES_OF_F7[shape]
    version = version_of(replace(content, id=ExperimentId(shape)))
    request = DecisionRequest(DecisionId("d"), "u", Context("vip", features=HUNDRED), action_features=action_features)
    cache = SlotsCache()
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            asked = request._replace(decision_id=DecisionId(f"d{number}"))
            made = decide(asked, version, Model(Unaffordable()), cache, BUDGET)
            assert (made.action, made.propensity, made.reason) == ("a1", 1.0, Reason.FALLBACK)
    (said,) = [record.getMessage() for record in caplog.records]
    assert shape in said
    assert "--decide-budget 0.05" in said
    assert "100 context features" in said


def test_an_ordinary_decision_of_the_same_experiment_is_made_by_the_policy() -> None:
    """A budget that turns an experiment off for everybody would be worse than the fault."""
    version = sample_version(policy=spec("squarecb", "CCCC"), id="ordinary")
    request = DecisionRequest(DecisionId("d"), "u", Context("vip", features={"age": 31.0}))
    made = decide(request, version, Model(Uniform()), SlotsCache(), BUDGET)
    assert made == decide(request, version, Model(Uniform()))
    assert made.reason == Reason.EXPLORE


def test_what_costs_nothing_is_not_estimated() -> None:
    """A single eligible action, the control group: a rule decides them, whatever the features are."""
    content = wide(100, "CCCC", own=20)
    one = DecisionRequest(DecisionId("d"), "u", Context(features=HUNDRED), eligible=(ActionId("a7"),))
    made = decide(one, version_of(content), Model(Unaffordable()), None, BUDGET)
    assert made.reason == Reason.ONLY_ELIGIBLE
    everybody = version_of(replace(content, holdout=1.0))
    made = decide(one._replace(eligible=()), everybody, Model(Unaffordable()), None, BUDGET)
    assert made.reason == Reason.HOLDOUT


@pytest.mark.parametrize(
    ("content", "field", "budget"),
    [
        (wide(1000, "CCCC", "CCAA", "CAAA", own=20), "policy.interactions", BUDGET),
        (wide(1000, "AAAA", own=30), "policy.interactions", BUDGET),
        (wide(1000, "CA", own=100), "actions", BUDGET),
        (wide(1000, "CA", algorithm="bag", own=100, size=100), "actions", BUDGET),
        (wide(1000, algorithm="rnd"), "actions", Budget(0.001)),
    ],
)
def test_an_experiment_that_could_never_be_served_is_refused(
    content: Experiment, field: str, budget: Budget, clock: Clock
) -> None:
    """An operator's mistake must be told to the operator, not to each visitor."""
    versions = Versions(MemoryLog(clock=clock), budget=budget)
    with pytest.raises(InvalidExperiment) as refused:
        versions.apply(content)
    (violation,) = refused.value.violations
    assert violation.field == field
    assert f"--decide-budget allows {budget.seconds:g} s" in violation.description
    with pytest.raises(InvalidExperiment):
        versions.apply(content, validate_only=True)


def test_a_pause_is_never_refused(clock: Clock) -> None:
    """An experiment from before the budget: the brake must work, and its file, unchanged, is no error."""
    log, content = MemoryLog(clock=clock), wide(1000, "AAAA", own=20)
    Versions(log).apply(content)
    versions = Versions(log, budget=BUDGET)
    assert not versions.apply(content).changed
    assert versions.set_paused(content.id, paused=True).version.experiment.paused
    with pytest.raises(InvalidExperiment):
        versions.set_paused(content.id, paused=False)


def _feature_rows(experiment_id: str, number: int) -> pb.DecideRequest:
    request = pb.DecideRequest(experiment=experiment_id, unit_id="u", decision_id=f"dear-{number}")
    request.context.features.update(dict(HUNDRED))
    return request


def _expensive(id_: str) -> experiment_pb2.Experiment:
    message = experiment(id_, *[f"a{number}" for number in range(100)])
    message.baseline_action = "a1"
    message.policy.squarecb.SetInParent()
    message.policy.interactions[:] = ["CCCC"]
    return message


def test_dear_requests_do_not_stop_others_and_are_replayed(tmp_path: Path) -> None:
    """Twenty such calls took a minute, in which every other call ran into its deadline."""
    db = tmp_path / "log.db"
    with closing(InProcessClient(db)) as client, ThreadPoolExecutor(4) as callers:
        client.apply(_expensive("dear"))
        client.apply(experiment("other"))
        dear = [callers.submit(client.send, _feature_rows("dear", number)) for number in range(20)]
        others = [client.decide("other", f"u{number}") for number in range(200)]
        assert {reply.result().reason for reply in dear} == {pb.REASON_FALLBACK}
        assert len({reply.decision_id for reply in others}) == 200
        assert client.decide("dear").reason != pb.REASON_FALLBACK
        again = client.send(_feature_rows("dear", 3))
        assert again == dear[3].result()
    with closing(open_reader(db)) as log:
        result = verify(log)
        (build,) = log.builds().values()
    assert (result.decisions, result.equal) == (221, 221)
    assert build["budget"] == {"seconds": 0.05, "estimate": ESTIMATE}


def test_a_refused_experiment_is_named_to_the_caller(tmp_path: Path) -> None:
    """With the field and the way out, as for every wrong field."""
    message = _expensive("dear")
    message.policy.interactions[:] = ["AAAA"]
    for action in message.actions:
        action.features.update({f"f{number}": number for number in range(60)})
    with closing(InProcessClient(tmp_path / "log.db")) as client:
        status = status_of(lambda: client.apply(message))
        assert fields_of(status) == ["policy.interactions"]
        assert not client.page().experiments


def _log_with(path: Path, clock: Clock, build: dict[str, object], budget: Budget | None) -> None:
    with closing(open_log(path, clock=clock)) as log:
        log.name_build(build)
        applied = Versions(log).apply(sample_experiment(id=ExperimentId("old"), policy=spec("squarecb", "CCCC")))
        request = DecisionRequest(DecisionId("d"), "u", Context(features=_numbers(30, "x")))
        model = Model(
            ALGORITHMS["squarecb"].codes[1](applied.version.experiment.policy.parameters, ("CCCC",), (0, 1), None)
        )
        log.append([decide(request, applied.version, model, budget=budget)])


def test_a_log_from_before_the_budget_replays(tmp_path: Path, clock: Clock) -> None:
    """Its decisions were made by the policy, however dear they were."""
    _log_with(tmp_path / "old.db", clock, {"codes": {"squarecb": 1}}, None)
    with closing(open_reader(tmp_path / "old.db")) as log:
        result = verify(log)
    assert (result.decisions, result.equal) == (1, 1)


def test_a_replay_uses_the_budget_of_the_build_that_decided(tmp_path: Path, clock: Clock) -> None:
    """Somebody lowers it on Tuesday: Monday's decisions must still replay."""
    tight = Budget(0.001)
    build: dict[str, object] = {"codes": {"squarecb": 1}, "budget": tight._asdict()}
    _log_with(tmp_path / "tight.db", clock, build, tight)
    with closing(open_reader(tmp_path / "tight.db")) as log:
        (version,) = log.versions()
        (logged,) = log.decisions(version.position)
        assert logged.decision.reason == Reason.FALLBACK
        assert verify(log).equal == 1


def test_a_budget_of_another_estimate_is_not_recomputed(tmp_path: Path, clock: Clock) -> None:
    """To call its decisions different would accuse a log that is right."""
    build: dict[str, object] = {"budget": Budget(0.05, ESTIMATE + 1)._asdict()}
    _log_with(tmp_path / "newer.db", clock, build, None)
    with closing(open_reader(tmp_path / "newer.db")) as log, pytest.raises(UnknownCode, match="estimated by version 2"):
        verify(log)


def test_the_estimate_looks_at_all_fields_of_a_context() -> None:
    """A field that is given is a feature."""
    work = Workload(spec("squarecb"), {ActionId("a"): {}}, [ActionId("a")])
    costs = [
        work.seconds(_context(["x"] * given), [ActionId("a")], {ActionId("a"): NO_FEATURES})
        for given in range(len(CONTEXT_FIELDS) + 1)
    ]
    assert costs == sorted(set(costs))
