"""One conformance suite for every policy: whatever an experiment can ask for behaves as the protocol says."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vowpal_wabbit_next import CBLabel, TextFormatParser, Workspace

from decider.decide.slots import to_slots
from decider.errors import ModelMismatch, UnknownCode
from decider.policy.algorithms import ALGORITHMS
from decider.policy.features import vector_of
from decider.policy.make import load_model, make_policy, save_model
from decider.policy.protocol import Choice, Policy, UnusablePmf
from decider.policy.spec import PolicySpec
from decider.policy.static import Uniform
from decider.policy.vw import workspace
from decider.policy.vw.algorithms import VW_ALGORITHMS
from decider.policy.vw.encode import action_line, context_line
from decider.policy.vw.workspace import CACHE_BYTES, EXAMPLE_BYTES, WORKSPACE_BYTES, VwPolicy, example_bytes
from decider.types import ActionId, Context, Features
from tests.conftest import LEARNING, plain_choices, spec

INTERACTIONS = (("CA",), ("CA", "CCA"))
EARLY_END = {"first": {"count": 25.0}}
"""So that short runs see both phases."""


def small(algorithm: str, interactions: Sequence[str]) -> PolicySpec:
    """The spec that the suite runs on."""
    parameters = {name: int(value) for name, value in EARLY_END.get(algorithm, {}).items()}
    return spec(algorithm, *interactions, **parameters)


@pytest.fixture(params=INTERACTIONS, ids="+".join)
def interactions(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Each kind of interactions."""
    given_: tuple[str, ...] = request.param
    return given_


POLICIES = tuple(name for name in ALGORITHMS if name != "fixed")
"""What has a pmf; `fixed` is a rule."""


@pytest.fixture(params=POLICIES)
def every(request: pytest.FixtureRequest, interactions: tuple[str, ...]) -> PolicySpec:
    """Every algorithm there is."""
    return small(request.param, interactions)


@pytest.fixture(params=LEARNING)
def learning(request: pytest.FixtureRequest, interactions: tuple[str, ...]) -> PolicySpec:
    """Every algorithm that learns."""
    return small(request.param, interactions)


@dataclass(frozen=True)
class Round:
    """One sealed decision."""

    context: Context
    actions: tuple[Choice, ...]
    drawn: int
    propensity: float
    reward: float


def rounds(seed: int, count: int, *, actions: int = 4) -> Iterator[Round]:
    """Sealed decisions with categories, flags and numbers of very different sizes, and changing eligible actions."""
    source = Random(seed)
    for _ in range(count):
        context = Context(
            segment=source.choice(["new", "vip", ""]),
            device=source.choice(["mobile", "desktop"]),
            features={"age": source.uniform(18, 80), "basket": source.expovariate(1e-4), "app": source.random() < 0.5},
        )
        ids = sorted(source.sample(range(actions), source.randint(2, actions)))
        drawn = source.randrange(len(ids))
        paying = ids[drawn] == (1 if context.segment == "vip" else 0)
        yield Round(
            context=context,
            actions=tuple(Choice(ActionId(f"a{i}"), "offer", {"price": i * 7.5, "new": i == 2}) for i in ids),
            drawn=drawn,
            propensity=source.choice([1.0, 0.5, 0.25, 0.01]),
            reward=float(source.random() < (0.7 if paying else 0.2)),
        )


def teach(policy: Policy, sealed: Sequence[Round]) -> None:
    """Learn them all."""
    for one in sealed:
        policy.learn(one.context, one.actions, drawn=one.drawn, propensity=one.propensity, reward=one.reward)


def taught(of: PolicySpec, sealed: Sequence[Round]) -> Policy:
    """A fresh policy that has learned them."""
    policy = make_policy(of)
    teach(policy, sealed)
    return policy


def pmfs(policy: Policy, seed: int = 99) -> list[list[float]]:
    """What a policy says about some contexts; compared bit for bit."""
    return [list(policy.pmf(one.context, one.actions)) for one in rounds(seed, 8)]


def assert_pmf(pmf: Sequence[float], count: int) -> None:
    """A distribution over `count` actions that the sampler takes."""
    assert len(pmf) == count
    assert min(pmf) >= 0
    assert abs(sum(pmf) - 1) < 1e-5
    to_slots(pmf)


def test_a_pmf_sums_to_one_and_is_not_negative(every: PolicySpec) -> None:
    """Before learning, and after every few rounds of it: what comes out is a distribution, or no draw is honest."""
    policy = make_policy(every)
    for one in rounds(1, 60):
        assert_pmf(policy.pmf(one.context, one.actions), len(one.actions))
        teach(policy, [one])


def test_pmfs_are_those_of_one_context_after_the_other(every: PolicySpec) -> None:
    """A batch is answered by `pmfs`, and recomputed by `pmf`."""
    policy, asked = taught(every, list(rounds(4, 30))), list(rounds(5, 12))
    for of in (policy, policy.snapshot()):
        for actions in (asked[0].actions, plain_choices(3)):
            alone = [list(of.pmf(one.context, actions)) for one in asked]
            assert [list(pmf) for pmf in of.pmfs([one.context for one in asked], actions)] == alone


def test_the_order_of_features_does_not_matter(every: PolicySpec) -> None:
    """A caller's map has no order, so the pmf must not depend on one."""
    policy = taught(every, list(rounds(2, 40)))
    features: Features = {"age": 30.0, "basket": 12.5, "app": True}
    backwards = dict(reversed(list(features.items())))
    assert policy.pmf(Context(features=features), plain_choices(3)) == policy.pmf(
        Context(features=backwards), plain_choices(3)
    )


@pytest.mark.parametrize(
    "context",
    [Context(), Context(segment="never seen"), Context(features={"brand new": 5.0, "odd|one": "x:y"})],
    ids=["missing", "unknown value", "new features"],
)
def test_new_missing_and_unknown_features_are_accepted(every: PolicySpec, context: Context) -> None:
    """Frontends change without asking; a decision must still come out, and learning must go on."""
    policy = taught(every, list(rounds(3, 30)))
    assert_pmf(policy.pmf(context, plain_choices(3)), 3)
    policy.learn(context, plain_choices(3), drawn=1, propensity=0.5, reward=1.0)
    assert_pmf(policy.pmf(context, plain_choices(3)), 3)


def test_a_new_action_is_accepted(every: PolicySpec) -> None:
    """An action added to a running experiment is served by the model that never saw it."""
    policy = taught(every, list(rounds(4, 40)))
    new = [*plain_choices(3), Choice(ActionId("brand-new"), "cta", {"price": 3.0})]
    assert_pmf(policy.pmf(Context(segment="vip"), new), 4)


def test_inputs_are_not_changed(every: PolicySpec) -> None:
    """The context that was scored is the context that is logged."""
    policy = make_policy(every)
    context = Context(segment="vip", features={"age": 30.0, "app": True})
    actions = plain_choices(3)
    before = copy.deepcopy((context, actions))
    policy.pmf(context, actions)
    policy.learn(context, actions, drawn=0, propensity=0.5, reward=1.0)
    policy.save()
    assert (context, actions) == before


def test_a_loaded_policy_gives_the_same_pmfs(every: PolicySpec) -> None:
    """What serves is a loaded copy of what learned: they must be the same policy."""
    policy = taught(every, list(rounds(5, 80)))
    assert pmfs(load_model(every, save_model(every, policy))) == pmfs(policy)


def test_a_snapshot_is_the_same_policy_and_is_taught_by_nobody(every: PolicySpec) -> None:
    """It serves while the policy that it was taken of learns on: the position in its name must stay true."""
    sealed = list(rounds(14, 80))
    policy = taught(every, sealed[:60])
    before, snapshot = pmfs(policy), policy.snapshot()
    teach(policy, sealed[60:])
    assert pmfs(snapshot) == before
    if every.learns:
        assert pmfs(policy) != before


def test_a_snapshot_takes_nothing_from_its_policy(every: PolicySpec) -> None:
    """A server takes one every half second, `verify` takes fewer: what is learned must not depend on it."""
    sealed = list(rounds(15, 60))
    policy = make_policy(every)
    for one in sealed:
        teach(policy, [one])
        policy.snapshot()
    assert pmfs(policy) == pmfs(taught(every, sealed))


def test_a_vocabulary_counts_features_or_there_is_none(every: PolicySpec) -> None:
    """It becomes a metric: a number of features that cannot be would mislead."""
    vocabulary = taught(every, list(rounds(16, 30))).vocabulary()
    assert vocabulary is None or (vocabulary.known > 0 and vocabulary.left_out >= 0)


def test_the_fixed_policy_has_no_pmf() -> None:
    """It is a rule. An even pmf in its place would serve what nobody asked for, silently."""
    with pytest.raises(UnusablePmf, match="a rule"):
        make_policy(spec("fixed")).pmf(Context(), plain_choices(3))


@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 60), min_size=1, max_size=5))
@settings(max_examples=8)
@pytest.mark.parametrize("algorithm", [name for name in POLICIES if spec(name).resumable])
@pytest.mark.parametrize("terms", INTERACTIONS, ids="+".join)
def test_a_run_interrupted_by_save_and_load_goes_on_the_same(
    algorithm: str, terms: tuple[str, ...], seed: int, cuts: list[int]
) -> None:
    """A restart at any moment must not change a single later decision, or the log no longer replays.

    What VW cannot save whole is marked as not resumable: the trainer then begins at the log's start (test_learning).
    """
    of = small(algorithm, terms)
    sealed = list(rounds(seed, 60))
    policy = make_policy(of)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(sealed)], strict=True):
        teach(policy, sealed[start:end])
        policy = load_model(of, save_model(of, policy))
    assert pmfs(policy) == pmfs(taught(of, sealed))


def test_predictions_in_between_do_not_change_what_is_learned(every: PolicySpec) -> None:
    """How often a model was asked is not in the log, so it must not matter."""
    sealed = list(rounds(6, 60))
    asked = make_policy(every)
    for one in sealed:
        pmfs(asked, seed=len(one.actions))
        teach(asked, [one])
        asked.save()
    assert pmfs(asked) == pmfs(taught(every, sealed))


def test_two_runs_are_equal(every: PolicySpec) -> None:
    """No global randomness: the same log gives the same policy, whatever else the process draws."""
    sealed = list(rounds(7, 60))
    random.seed(1)
    one = pmfs(taught(every, sealed))
    random.seed(2)
    assert pmfs(taught(every, sealed)) == one


class ParsingEverything:
    """Vowpal Wabbit through its public interface, every line parsed anew: the reference for the kept examples."""

    def __init__(self, of: PolicySpec) -> None:
        self._workspace = Workspace(of.made_by.split())
        self._parser = TextFormatParser(self._workspace)

    def _parsed(self, context: Context, actions: Sequence[Choice]) -> list[Any]:
        shared = context_line(context[:5], vector_of(context.features))
        return [self._parser.parse_line(text) for text in (shared, *map(action_line, actions))]

    def pmf(self, context: Context, actions: Sequence[Choice]) -> list[float]:
        """As Policy.pmf."""
        scored: Any = self._workspace.predict_one(self._parsed(context, actions))
        return [float(p) for _, p in sorted(scored)]

    def learn(self, one: Round) -> None:
        """As Policy.learn."""
        examples = self._parsed(one.context, one.actions)
        examples[one.drawn + 1].set_label(CBLabel(label=(0, 1 - one.reward, one.propensity)))
        self._workspace.learn_one(examples)


@pytest.mark.parametrize("algorithm", VW_ALGORITHMS)
def test_kept_action_examples_give_the_same_as_parsing_everything(
    algorithm: str, interactions: tuple[str, ...]
) -> None:
    """Parsed examples carry state of VW's; a label or a score left on one would leak into the next decision."""
    learning = small(algorithm, interactions)
    policy, reference = make_policy(learning), ParsingEverything(learning)
    for one in rounds(8, 80):
        assert list(policy.pmf(one.context, one.actions)) == reference.pmf(one.context, one.actions)
        teach(policy, [one])
        reference.learn(one)
    for one in rounds(9, 5):
        assert list(policy.pmf(one.context, one.actions)) == reference.pmf(one.context, one.actions)


def test_the_cache_of_action_examples_is_bounded_and_its_clearing_harmless() -> None:
    """Action features that come with every call make ever new lines; memory must not grow, results must not change."""
    of = spec("squarecb")
    policy, fresh = make_policy(of), make_policy(of)
    assert isinstance(policy, VwPolicy)
    for price in range(2 * CACHE_BYTES // EXAMPLE_BYTES // 4):
        for _ in range(2):  # what comes once is not even kept
            policy.pmf(Context(), [Choice(ActionId(i), "offer", {"price": float(price)}) for i in "abcd"])
        assert policy.size <= WORKSPACE_BYTES + CACHE_BYTES + 2 * EXAMPLE_BYTES
    for either in (policy, fresh):
        teach(either, list(rounds(10, 20)))
    assert pmfs(policy) == pmfs(fresh)


def _offers(count: int, name: str = "o") -> tuple[Choice, ...]:
    return tuple([Choice(ActionId(f"{name}{number}"), "offer", {"price": float(number)}) for number in range(count)])


def _kept(policy: VwPolicy) -> int:
    return (policy.size - WORKSPACE_BYTES) // (EXAMPLE_BYTES + 250)


@pytest.fixture
def for_twenty(monkeypatch: pytest.MonkeyPatch) -> VwPolicy:
    """A policy whose cache has room for some twenty actions."""
    monkeypatch.setattr(workspace, "CACHE_BYTES", 21 * EXAMPLE_BYTES)
    policy = make_policy(spec("squarecb"))
    assert isinstance(policy, VwPolicy)
    policy.pmf(Context(), plain_choices(2))
    return policy


def test_actions_that_do_not_fit_into_the_cache_do_not_empty_it(for_twenty: VwPolicy) -> None:
    """It was emptied in the middle of every call, so that a set a little too large was never found in it."""
    fresh, actions = make_policy(spec("squarecb")), _offers(25)
    for call in range(12):
        assert list(for_twenty.pmf(Context(), actions)) == list(fresh.pmf(Context(), actions))
        assert call == 0 or _kept(for_twenty) >= 20


def test_what_recurs_finds_room_once_the_cache_keeps_what_comes_no_longer(for_twenty: VwPolicy) -> None:
    """A catalogue is replaced: the new one must not be parsed at every call for ever."""
    old, new = _offers(20, "old"), _offers(10, "new")
    for _ in range(3):
        for_twenty.pmf(Context(), old)
    for _ in range(21 * workspace.PATIENCE // len(new) + 3):
        for_twenty.pmf(Context(), new)
    assert _kept(for_twenty) <= len(new) + 1
    assert pmfs(for_twenty) == pmfs(make_policy(spec("squarecb")))


def test_a_thousand_actions_of_twenty_features_are_kept() -> None:
    """The largest experiment that a server takes, with ordinary features, is parsed once for each model."""
    actions = [Choice(ActionId(f"a{n}"), "offer", {f"f{i}": i + 0.5 for i in range(20)}) for n in range(1000)]
    assert sum(example_bytes(action.vector) for action in actions) <= CACHE_BYTES


def test_a_single_action_gets_everything(every: PolicySpec) -> None:
    """With one action left there is nothing to choose, learned or not."""
    policy = make_policy(every)
    assert policy.pmf(Context(), plain_choices(1)) == pytest.approx([1.0])
    policy.learn(Context(), plain_choices(1), drawn=0, propensity=1.0, reward=1.0)
    assert policy.pmf(Context(), plain_choices(1)) == pytest.approx([1.0])


def test_two_hundred_actions_are_served_and_learned(every: PolicySpec) -> None:
    """Catalogues are long; the pmf must stay one."""
    policy = make_policy(every)
    for drawn in range(0, 200, 20):
        policy.learn(Context(), plain_choices(200), drawn=drawn, propensity=0.005, reward=1.0)
    assert_pmf(policy.pmf(Context(), plain_choices(200)), 200)


def test_learning_moves_mass_to_the_action_that_pays(learning: PolicySpec) -> None:
    """Costs are negative rewards: with the sign wrong the worst action would win."""
    policy = make_policy(learning)
    source = Random(11)
    for _ in range(400):
        drawn = source.randrange(4)
        policy.learn(Context(device="mobile"), plain_choices(4), drawn=drawn, propensity=0.25, reward=float(drawn == 2))
    pmf = policy.pmf(Context(device="mobile"), plain_choices(4))
    assert pmf[2] == max(pmf)
    assert pmf[2] > 0.5


@pytest.mark.parametrize("reward_range", [(0.0, 0.25), (-8.0, 8.0), (100.0, 612.0)])
def test_the_unit_of_rewards_does_not_matter(learning: PolicySpec, reward_range: tuple[float, float]) -> None:
    """Cents or euros: what counts is where in the declared range a reward lies."""
    low, high = reward_range
    scaled = [replace(one, reward=low + one.reward * (high - low)) for one in rounds(12, 60)]
    of = replace(learning, reward_range=reward_range)
    assert pmfs(taught(of, scaled)) == pmfs(taught(learning, list(rounds(12, 60))))


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "extended"])
def test_a_damaged_model_is_refused(learning: PolicySpec, damage: str) -> None:
    """VW loads many damaged files without a word and serves nonsense afterwards."""
    saved = save_model(learning, taught(learning, list(rounds(13, 20))))
    data = {
        "truncated": saved.data[:-7],
        "one bit": saved.data[:40] + bytes([saved.data[40] ^ 1]) + saved.data[41:],
        "empty": b"",
        "extended": saved.data + b"\x00",
    }[damage]
    with pytest.raises(ModelMismatch):
        load_model(learning, replace(saved, data=data))


def test_a_foreign_model_is_refused(every: PolicySpec) -> None:
    """A model means nothing to other arguments, another range or another encoder."""
    saved = save_model(every, make_policy(every))
    others = [small(name, every.interactions) for name in ALGORITHMS if name != every.algorithm]
    if every.learns:
        others += [replace(every, interactions=("AC",)), replace(every, reward_range=(0.0, 2.0))]
    for other in others:
        with pytest.raises(ModelMismatch):
            load_model(other, saved)
    with pytest.raises(ModelMismatch):
        load_model(every, replace(saved, signature=saved.signature.replace("encoder=1", "encoder=0") + " "))


@pytest.mark.parametrize("name", LEARNING)
def test_every_parameter_is_part_of_the_signature(name: str) -> None:
    """Otherwise a changed parameter would go on with a model that it did not make."""
    base = spec(name)
    for parameter, value in base.parameters.items():
        assert spec(name, **{parameter: value + 1}).signature != base.signature


def test_a_model_of_other_learning_code_is_refused(learning: PolicySpec) -> None:
    """With one constant of the code changed, what it has learned means something else."""
    saved = save_model(learning, make_policy(learning))
    older = replace(saved, signature=learning.signature_of(0))
    assert older.signature != saved.signature
    with pytest.raises(ModelMismatch, match="code=0"):
        load_model(learning, older)


def test_learning_code_that_this_build_does_not_have_is_named(learning: PolicySpec) -> None:
    """Whoever audits an old log must learn what is missing, not that the log differs."""
    said = f"made by {learning.algorithm} code 99, which this build does not have"
    with pytest.raises(UnknownCode, match=said):
        make_policy(learning, code=99)
    saved = save_model(learning, make_policy(learning), code=99)
    with pytest.raises(UnknownCode, match=said):
        load_model(learning, saved, code=99)


def test_older_learning_code_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old decisions are recomputed by what made them, new ones are made by the newest."""
    newer = replace(ALGORITHMS["squarecb"], codes={1: ALGORITHMS["squarecb"].codes[1], 2: lambda *_: Uniform()})
    of = spec("squarecb")
    before = taught(of, list(rounds(17, 30)))
    stored = save_model(of, before)
    monkeypatch.setitem(ALGORITHMS, "squarecb", newer)
    assert of.code == 2
    assert isinstance(make_policy(of), Uniform)
    assert pmfs(load_model(of, stored, code=1)) == pmfs(before)
    with pytest.raises(ModelMismatch):
        load_model(of, stored)


@pytest.mark.parametrize("number", [1e12, 1e6, 1e-6, 1e-12])
def test_numbers_of_any_size_leave_a_usable_model(learning: PolicySpec, number: float) -> None:
    """Up to the largest number that the service accepts, and down to the smallest: squares must not overflow."""
    policy = make_policy(learning)
    context = Context(features={"x": number})
    actions = [Choice(ActionId(f"a{i}"), "offer", {"y": number}) for i in range(3)]
    for drawn in (0, 1, 2) * 3:
        policy.learn(context, actions, drawn=drawn, propensity=0.5, reward=float(drawn == 0))
    for asked in (context, Context(segment="somebody else")):
        assert_pmf(policy.pmf(asked, actions), 3)
    assert_pmf(policy.pmf(Context(), plain_choices(3)), 3)
