"""The worlds: that they are what they say they are, since every figure of a policy rests on that; and their command."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from statistics import NormalDist

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.experiment.definition import Action
from decider.experiment.schema import from_message, to_message
from decider.policy.make import make_policy
from decider.policy.protocol import Choice, UnusablePmf
from decider.policy.static import Uniform
from decider.server.convert import decision_request, reward_name
from decider.text import figure
from decider.types import CONTEXT_FIELDS, ActionId, Context
from decider.v1 import decider_service_pb2 as pb
from simulator.commands.group import main
from simulator.report import world_figures
from simulator.report.pages.worlds import write_worlds
from simulator.report.world_figures import TIME, UNKNOWN, Portrait, plain, portrait
from simulator.report.worlds import SHADES
from simulator.run.play import Way, play, play_reference
from simulator.worlds import scenes
from simulator.worlds.logistic import FIELDS, LEAST, MOST, SPREAD, mean_purchase
from simulator.worlds.registry import find, names
from simulator.worlds.scene import Outcome, Visitor, chance, define, mixture, scene
from simulator.worlds.world import Flags, Floats, Visits, World
from tests.browser import FAINT, OVERFLOWING, UNDRAWN, Browser, Page

NAMES = names()
MANY = ("shelf", "catalogue")
"""Those with many actions."""
TOLD = [name for name in NAMES if name not in ("clicks", "rare", "purchases", "interactions", *MANY)]
"""Those whose effects are told in their file; the effects of the others are drawn."""
ROUNDS = 10_000
CARD = 40
"""Groups of cases for which the means are checked."""


@cache
def drawn(name: str, seed: int = 1, rounds: int = ROUNDS) -> Visits:
    """The visits of a world; drawn once."""
    return find(name).draw(seed, rounds)


@cache
def drawing(name: str) -> Portrait:
    """The portrait of a world; made once."""
    return portrait(find(name))


def bernstein(variance: float, largest: float, *, risk: float = 1e-9) -> float:
    """How far a sum of centred numbers, each at most `largest`, is from 0 at this risk (Freedman: martingales too)."""
    log = math.log(2 / risk)
    third = largest * log / 3
    return third + math.sqrt(third**2 + 2 * variance * log)


def groups_of(visits: Visits) -> Iterator[Flags]:
    """All visits, then the visits of the most frequent cases."""
    yield np.ones(len(visits), np.bool_)
    counts = np.bincount(visits.seen)
    for case in np.argsort(-counts)[:CARD]:
        yield visits.seen == case


# What every world promises


@pytest.mark.parametrize("name", NAMES)
def test_rewards_have_the_means_that_policies_are_judged_by(name: str) -> None:
    """Checked for all visits and for the most frequent cases. A reward in [a, b] has at most the variance (b-m)(m-a).

    Rewards of somebody who has not answered yet hang together (one taste, many visits), so there a unit counts as one.
    """
    world, visits = find(name), drawn(name)
    low, high = world.experiment.reward.minimum, world.experiment.reward.maximum
    for group in groups_of(visits):
        means = visits.means[visits.seen[group]]
        _, unit, often = np.unique(visits.units[group], return_inverse=True, return_counts=True)
        together = often[unit] if visits.answers else np.ones(len(means))
        variance = ((means - low) * (high - means) * together[:, None]).sum(axis=0)
        apart = np.abs((visits.rewards[group] - means).sum(axis=0))
        limits = [bernstein(one, (high - low) * together.max()) for one in variance]
        assert (apart <= limits).all(), (name, apart, limits)


def test_after_an_answer_rewards_have_the_means_of_what_was_told() -> None:
    """The case that somebody is in from then on is judged by its own means."""
    visits = drawn("asking")
    assert visits.answers
    told = visits.answers.seen
    for case in np.unique(told):
        group = told == case
        means = visits.means[told[group]]
        apart = np.abs((visits.rewards[group] - means).sum(axis=0))
        assert all(a <= bernstein(v, 1.0) for a, v in zip(apart, (means * (1 - means)).sum(axis=0), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_visits_are_those_of_the_seed_whatever_comes_after_them(name: str) -> None:
    """All policies meet the same visitors, in every process; figures at 4,000 rounds are those of a longer run."""
    world = find(name)
    long, short, other = world.draw(1, 600), world.draw(1, 200), world.draw(2, 600)
    for part in ("units", "delays", "rewards", "names"):
        assert np.array_equal(getattr(long, part)[:200], getattr(short, part)), part
    assert np.array_equal(long.means[long.seen[:200]], short.means[short.seen])
    assert [long.contexts[case] for case in long.seen[:200]] == [short.contexts[case] for case in short.seen]
    assert not np.array_equal(long.delays, other.delays)
    assert not np.array_equal(long.rewards, other.rewards)


@pytest.mark.parametrize("name", NAMES)
def test_arrays_fit_together(name: str) -> None:
    """What plays and drives a world takes the shapes for granted."""
    world, visits = find(name), drawn(name)
    cases, actions = len(visits.contexts), len(world.actions)
    assert visits.means.shape == visits.eligible.shape == (cases, actions)
    assert visits.rewards.shape == visits.names.shape == (ROUNDS, actions)
    assert visits.seen.shape == visits.units.shape == visits.delays.shape == (ROUNDS,)
    assert visits.seen.max() < cases
    assert visits.eligible.any(axis=1).all(), "somebody has no action left"
    assert 2 <= actions <= (200 if name in MANY else 8)


@pytest.mark.parametrize("name", NAMES)
def test_rewards_have_a_declared_name_and_are_in_the_declared_range(name: str) -> None:
    """A reward outside it would be clipped by the server, and the means would no longer be those of the policy."""
    world, visits = find(name), drawn(name)
    reward = world.experiment.reward
    assert set(world.reward_names) == set(reward.weights)
    assert [reward_name(pb.RewardRequest(name=one)) for one in world.reward_names] == list(world.reward_names)
    assert reward.minimum <= visits.rewards.min() < visits.rewards.max() <= reward.maximum
    assert reward.minimum <= visits.means.min() < visits.means.max() <= reward.maximum
    assert reward.default == 0
    assert np.array_equal(visits.rewards == 0, visits.names < 0)
    assert set(np.unique(visits.names)) == set(range(-1, len(world.reward_names))), "a name that never comes"
    for index, one in enumerate(world.reward_names):
        assert (np.sign(visits.rewards[visits.names == index]) == np.sign(reward.weights[one])).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_experiment_can_be_applied_as_it_is(name: str) -> None:
    """A drive applies it to a server: it must survive the wire, and have the defaults that any experiment has."""
    experiment = find(name).experiment
    assert from_message(to_message(experiment)) == experiment
    message = to_message(experiment)
    message.ClearField("policy")
    message.ClearField("minimum_propensity")
    assert from_message(message) == experiment
    assert experiment.baseline in find(name).actions
    assert experiment.id == find(name).name == name


def request(context: Context, unit: int) -> pb.DecideRequest:
    """As a frontend sends it."""
    message = pb.DecideRequest(unit_id=f"unit-{unit}")
    for field in CONTEXT_FIELDS:
        setattr(message.context, field, getattr(context, field))
    if context.features:
        features = Struct()
        features.update(dict(context.features))
        message.context.features.CopyFrom(features)
    return message


@pytest.mark.parametrize("name", NAMES)
def test_the_server_takes_every_context_as_it_is(name: str) -> None:
    """Otherwise a drive would learn from other contexts than a run."""
    for unit, context in enumerate(drawn(name).contexts):
        assert decision_request(request(context, unit)).context == context


@pytest.mark.parametrize("name", NAMES)
def test_delays_are_as_in_real_life(name: str) -> None:
    """Most rewards come well inside the window, a few after it; the window spans some hundred visits."""
    world, visits = find(name), drawn(name)
    window = world.experiment.reward.window / 1e6
    assert 0 <= (visits.delays > window).mean() <= 0.15
    assert visits.delays.mean() < window / 3
    assert visits.delays.min() >= 0
    assert 300 <= window * world.traffic <= 1_500


@pytest.mark.parametrize("name", NAMES)
def test_personalising_pays(name: str) -> None:
    """A world where one action is best for all could not tell a policy that personalises from an A/B test."""
    visits = drawn(name)
    singles = [visits.always(action) for action in range(visits.means.shape[1])]
    uniform, best, *others = [
        float(play_reference(visits, pmfs, random=Random(1)).mean()) for pmfs in (visits.uniform, visits.best, *singles)
    ]
    single = max(others)
    assert uniform <= single < best
    assert best - single >= 0.15 * (best - uniform)


@pytest.mark.parametrize("name", TOLD)
def test_every_action_is_of_use(name: str) -> None:
    """Actions that are never best make a world easier than it looks. Real experiments have one; two are too many."""
    visits = drawn(name)
    seen = visits.seen if visits.answers is None else np.concatenate([visits.seen, visits.answers.seen])
    assert (visits.best[seen].max(axis=0) == 0).sum() <= 1


class Stubborn(Uniform):
    """Every other time it has no usable pmf, as a model that has gone wrong."""

    def __init__(self) -> None:
        self.asked = 0

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        self.asked += 1
        if self.asked % 2:
            raise UnusablePmf("gone wrong")
        return super().pmf(context, actions)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_policy_and_a_broken_one_can_play_it(name: str) -> None:
    """A short run of everything: delays, batches, actions that come and go, answers, and the baseline."""
    world, visits = find(name), drawn(name, rounds=800)
    for policy in (make_policy(world.experiment.policy), Stubborn()):
        played = play(world, visits, policy, floor=world.experiment.minimum_propensity, random=Random(1))
        assert len(played.earned) == 800
        assert np.isfinite(played.earned).all()
        assert 0 <= played.right.min() <= played.right.max() <= 1


# What the files say of their worlds


def sure(name: str, where: Callable[[Context], bool], *, first: int = 0, last: int = ROUNDS) -> set[str]:
    """The actions that are best in every case of these visits, before and after an answer."""
    world, visits = find(name), drawn(name)
    rounds = slice(first, last)
    seen = [visits.seen[rounds]] + ([visits.answers.seen[rounds]] if visits.answers else [])
    cases = [case for case in np.unique(np.concatenate(seen)) if where(visits.contexts[case])]
    assert cases, "nobody is like that"
    return {world.actions[action] for case in cases for action in np.flatnonzero(visits.best[case])}


def number(context: Context, name: str) -> float:
    """A feature that is a number."""
    return float(context.features[name])


BEST: dict[str, list[tuple[str, Callable[[Context], bool]]]] = {
    "product-cta": [
        ("wishlist", lambda c: c.intent_stage == "browse"),
        ("reviews", lambda c: c.intent_stage == "compare" and c.device == "mobile"),
        ("compare-models", lambda c: c.intent_stage == "compare" and c.device == "desktop"),
        ("buy-now", lambda c: c.intent_stage == "cart"),
        ("outfit", lambda c: c.intent_stage == "bought"),
    ],
    "cart-offer": [
        ("none", lambda c: c.segment in ("member", "vip") and number(c, "days_since") < 2),
        ("reminder", lambda c: c.segment in ("member", "vip") and number(c, "days_since") >= 3),
        ("discount-5", lambda c: c.segment == "bargain" and number(c, "days_since") < 2),
        ("discount-15", lambda c: c.segment == "bargain" and number(c, "days_since") >= 2),
        ("free-shipping", lambda c: c.segment == "new" and number(c, "days_since") <= 3),
    ],
    "push": [
        ("lunch", lambda c: c.location == "work" and 11 <= number(c, "hour") < 14),
        ("store-nearby", lambda c: c.location == "city" and 10 <= number(c, "hour") < 20 and c.segment != "quiet"),
        ("evening-sale", lambda c: c.location == "home" and 18 <= number(c, "hour") < 22 and c.segment == "offers"),
        ("none", lambda c: c.location in ("home", "transit", "work") and number(c, "hour") < 9),
    ],
    "email": [
        (
            "preview",
            lambda c: number(c, "orders") >= 9 and number(c, "spend") >= 500 and number(c, "recency_days") < 60,
        ),
        (
            "new-collection",
            lambda c: number(c, "recency_days") <= 15 and number(c, "orders") <= 5 and number(c, "spend") <= 250,
        ),
        ("sale", lambda c: 60 <= number(c, "recency_days") <= 100 and number(c, "orders") <= 2),
        ("win-back", lambda c: number(c, "recency_days") >= 250 and 6 <= number(c, "orders") <= 9),
        ("none", lambda c: number(c, "recency_days") >= 300 and number(c, "orders") == 1),
    ],
    "asking": [
        ("ask", lambda c: c.channel in ("email", "direct") and "taste" not in c.features),
        ("bestsellers", lambda c: c.channel in ("search", "social") and "taste" not in c.features),
        ("denim", lambda c: c.features.get("taste") == "denim"),
        ("shoes", lambda c: c.features.get("taste") == "shoes"),
    ],
    "anonymous": [
        ("checkout", lambda c: c.intent_stage == "cart"),
        ("lookbook", lambda c: c.segment == "vip" and c.intent_stage != "cart"),
        ("sale", lambda c: c.segment == "bargain" and c.intent_stage == "browse"),
        ("guide", lambda c: c.segment == "new" and c.intent_stage != "cart" and c.channel == "search"),
        ("guide", lambda c: not c.segment and c.channel == "search"),
        ("lookbook", lambda c: not c.segment and c.channel == "social"),
        ("sale", lambda c: not c.segment and c.channel == "direct"),
    ],
    "channels": [
        ("app-message", lambda c: c.features.get("prefers") == "app"),
        ("email", lambda c: c.features.get("prefers") == "email"),
        ("store-event", lambda c: c.features.get("prefers") == "store"),
        ("web-banner", lambda c: c.features.get("prefers", c.channel) == "web"),
        ("app-message", lambda c: c.channel == "app" and not c.features),
    ],
    "arrival": [
        ("sale", lambda c: c.segment == "bargain" and c.channel != "social"),
        ("new-in", lambda c: c.segment == "new" and c.channel in ("search", "email")),
    ],
    "storefront": [
        ("finish-checkout", lambda c: c.intent_stage == "checkout"),
        ("free-shipping", lambda c: c.segment == "new" and c.intent_stage == "cart"),
        ("sale", lambda c: c.segment == "bargain" and c.intent_stage in ("browse", "compare")),
        ("new-arrivals", lambda c: c.segment == "vip" and c.intent_stage == "browse"),
    ],
}


@pytest.mark.parametrize(("name", "best", "where"), [(name, *one) for name in BEST for one in BEST[name]])
def test_the_best_action_is_the_one_that_the_file_names(name: str, best: str, where: Callable[[Context], bool]) -> None:
    """A known best policy is what makes it a world; a reader should be able to believe the file's own words."""
    assert sure(name, where) == {best}


def test_returning_customers_are_three_kinds_that_no_context_tells_apart() -> None:
    """Else a policy without a history could find out, and the world would show nothing."""
    world, visits = find("returning"), drawn("returning")
    cases = np.unique(visits.seen)
    best = {(visits.contexts[case][:5], world.actions[int(visits.best[case].argmax())]) for case in cases}
    assert len({context for context, _ in best}) * 3 == len(best)
    assert {action for _, action in best} == {"new-in", "reduced", "lookbook"}
    assert not any(context.features or context.segment for context in visits.contexts)


def mobile_social(context: Context) -> bool:
    """Who likes the new action."""
    return context.device == "mobile" and context.channel == "social"


def desktop_regular(context: Context) -> bool:
    """Who likes the old one."""
    return context.device == "desktop" and context.segment == "regular"


def test_the_new_action_is_best_for_some_from_the_day_on_which_it_is_there() -> None:
    """What was learned before must not keep a policy from finding it."""
    visits, world = drawn("arrival"), find("arrival")
    assert "video" not in sure("arrival", mobile_social, last=2_000)
    assert sure("arrival", mobile_social, first=2_000) == {"video"}
    assert sure("arrival", desktop_regular, last=8_000) == {"catalogue"}
    assert sure("arrival", desktop_regular, first=8_000) == {"outfit"}
    there = visits.eligible[visits.seen]
    for action, first, last in (("video", 2_000, ROUNDS), ("catalogue", 0, 8_000), ("sale", 0, ROUNDS)):
        column = there[:, world.actions.index(action)]
        assert column.sum() == last - first
        assert column[first:last].all()


def test_the_season_turns_smoothly_and_comes_back() -> None:
    """Forgetting is worth something there, and a jump would be another problem than a drift."""
    world, visits = find("season"), drawn("season", rounds=24_000)
    woman = [
        [case for case, context in enumerate(visits.contexts) if context == Context("women", "mobile", "search")][place]
        for place in range(48)
    ]
    order = sorted(woman, key=lambda case: int(np.argmax(visits.seen == case)))
    means = visits.means[order]
    steps = np.abs(np.diff(np.log(means / (1 - means)), axis=0, append=np.log(means[:1] / (1 - means[:1]))))
    assert steps.max() < 0.2
    assert {world.actions[action] for action in means.argmax(axis=1)} >= {"coats", "dresses", "knitwear"}
    year = visits.means[visits.seen]
    assert len(np.unique(visits.seen[:12_000])) >= 0.9 * len(visits.contexts), "the second year has the same cases"
    assert year[:12_000].mean(axis=0) == pytest.approx(year[12_000:].mean(axis=0), rel=0.05)


def test_who_has_answered_is_known_and_is_not_asked_again() -> None:
    """Otherwise `ask` would be an action like any other."""
    world, visits = find("asking"), drawn("asking")
    ask = world.actions.index("ask")
    assert visits.answers
    assert visits.answers.action == ask
    assert visits.eligible[visits.seen, ask].all()
    assert not visits.eligible[visits.answers.seen, ask].any()
    assert np.array_equal(visits.rewards[:, ask] > 0, visits.answers.given), "an answer and its worth come together"
    way, round_ = Way(visits), int(np.argmax(visits.answers.given))
    before = [way.case(number) for number in range(round_ + 1)]
    way.chose(round_, ask)
    unit = visits.units[round_]
    later = int(np.flatnonzero(visits.units[round_ + 1 :] == unit)[0]) + round_ + 1
    assert "taste" not in visits.contexts[before[-1]].features
    assert "taste" in visits.contexts[way.case(later)].features


def test_people_come_back_where_the_file_says_so() -> None:
    """Six times, four times, and once a campaign at most."""
    assert np.unique(drawn("asking").units[2_000:8_000], return_counts=True)[1].mean() == pytest.approx(5, abs=1)
    channels = drawn("channels")
    assert set(np.bincount(channels.units)[400:2_000]) == {4}
    first = np.array([not context.features for context in channels.contexts])[channels.seen]
    _, where = np.unique(channels.units, return_index=True)
    assert set(np.flatnonzero(first)) <= set(where), "who is not known has not been there"
    email = drawn("email").units.reshape(-1, find("email").batch)
    assert all(len(set(campaign)) == len(campaign) for campaign in email.tolist())
    assert len(np.unique(email)) <= 4 * find("email").batch
    assert find("email").arrives(499) == 0 < find("email").arrives(500)


def test_of_most_anonymous_visitors_nothing_is_known() -> None:
    """85 in 100, within what chance allows (z = 6)."""
    visits = drawn("anonymous")
    unknown = np.array([not (context.segment or context.intent_stage) for context in visits.contexts])[visits.seen]
    assert unknown.mean() == pytest.approx(0.85, abs=6 * math.sqrt(0.85 * 0.15 / ROUNDS))


def test_no_message_is_right_for_about_half_and_many_carts_need_no_offer() -> None:
    """`none` must be learned, not only allowed."""
    shares = {name: drawn(name).best[drawn(name).seen].mean(axis=0) for name in ("push", "cart-offer", "email")}
    none = {name: share[find(name).actions.index("none")] for name, share in shares.items()}
    assert 0.35 <= none["push"] <= 0.65
    assert 0.15 <= none["cart-offer"] <= 0.5
    assert 0.05 <= none["email"] <= 0.4


# The family whose effects are drawn


@pytest.mark.parametrize(
    ("name", "rate"), [("clicks", 0.1), ("rare", 0.02), ("interactions", 0.1), ("shelf", 0.004), ("catalogue", 0.05)]
)
def test_a_world_has_its_rate(name: str, rate: float) -> None:
    """2 % and 10 % are different problems. Of the visits that came, within what chance allows."""
    for seed in (1, 2):
        means = drawn(name, seed).means[drawn(name, seed).seen].mean(axis=1)
        assert abs((means - rate).sum()) <= bernstein(len(means) * means.var(), 1.0)


@pytest.mark.parametrize("median", [5.0, 40.0, 90.0, 500.0])
def test_the_mean_purchase_is_that_of_the_clipped_log_normal(median: float) -> None:
    """Against the integral over quantiles; at the extremes nearly all is clipped."""
    quantiles = [NormalDist(sigma=SPREAD).inv_cdf((i + 0.5) / 50_000) for i in range(50_000)]
    amounts = np.clip(median * np.exp(quantiles), LEAST, MOST)
    assert mean_purchase(median) == pytest.approx(amounts.mean(), rel=1e-5)


def test_purchases_are_rare_and_of_many_amounts() -> None:
    """20 to 200, as an experiment would declare it."""
    rewards = drawn("purchases").rewards
    bought = rewards[rewards > 0]
    assert LEAST <= bought.min() < bought.max() <= MOST
    assert len(bought) < rewards.size / 10
    assert len(np.unique(bought)) > 100


def one_hot(contexts: Sequence[Context]) -> Floats:
    """(contexts, 1 + values): a constant, then a column for each value of each field."""
    values = [(field, f"{field}-{value}") for field, size in FIELDS.items() for value in range(size)]
    return np.array([[1.0, *[float(getattr(c, field) == value) for field, value in values]] for c in contexts])


@pytest.mark.parametrize(
    ("name", "low", "high"), [("clicks", 0.0, 1e-9), ("rare", 0.0, 1e-9), ("interactions", 0.5, 10.0)]
)
def test_only_the_world_with_interactions_has_them(name: str, low: float, high: float) -> None:
    """It tells policies that can learn pairs of fields from those that cannot."""
    visits = drawn(name)
    odds = np.log(visits.means / (1 - visits.means))
    columns = one_hot(visits.contexts)
    residual = odds - columns @ np.linalg.lstsq(columns, odds, rcond=None)[0]
    assert low <= np.abs(residual).max() <= high


@pytest.mark.parametrize("name", ["clicks", "rare", "purchases", "interactions", *MANY])
def test_a_seed_draws_another_truth(name: str) -> None:
    """So that five seeds say how a policy does in such worlds, not in one of them."""
    assert not np.allclose(drawn(name, 1).means, drawn(name, 2).means)


# The family with many actions


@pytest.mark.parametrize("name", MANY)
def test_features_tell_many_actions_apart(name: str) -> None:
    """Log-odds are what contexts and actions say alone, and what each field says with each feature: a model that sees
    the features can learn them all, and one that does not has each action to learn alone."""
    visits, world = drawn(name), find(name)
    odds = np.log(visits.means / (1 - visits.means))
    odds = odds - odds.mean(axis=0) - odds.mean(axis=1, keepdims=True)
    contexts = columns([dict(zip(CONTEXT_FIELDS, one[:5], strict=True)) for one in visits.contexts])
    actions = columns([dict(action.features) for action in world.experiment.actions])
    inside = contexts @ np.linalg.pinv(contexts) @ odds @ np.linalg.pinv(actions.T) @ actions.T
    assert np.abs(odds - odds.mean() - (inside - inside.mean())).max() < 1e-9
    assert odds.std() > 0.3
    ids = {tuple(sorted(action.features.items())) for action in world.experiment.actions}
    assert len(ids) > len(world.actions) / 2


def columns(rows: Sequence[dict[str, object]]) -> Floats:
    """A column for each value of each name."""
    values = sorted({pair for row in rows for pair in row.items()})
    return np.array([[float(row[name] == value) for name, value in values] for row in rows])


def test_a_position_on_the_shelf_makes_no_other_item_the_best() -> None:
    """As in the Open Bandit Dataset: places are seen more or less, whatever lies there."""
    visits = drawn("shelf")
    best: dict[tuple[str, ...], set[int]] = {}
    rate: dict[object, list[float]] = {}
    for context, means in zip(visits.contexts, visits.means, strict=True):
        best.setdefault(context[:5], set()).add(int(means.argmax()))
        rate.setdefault(context.features["position"], []).append(float(means.mean()))
    assert {len(found) for found in best.values()} == {1}
    assert len({round(sum(found), 6) for found in rate.values()}) == 3


# A scene told in functions

probabilities = st.integers(0, 10).map(lambda tenth: tenth / 40)
tables = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["one", "two"])),
    st.lists(
        st.builds(Outcome, st.sampled_from(["buy", "leave"]), st.sampled_from([0.5, 1.0, 3.0]), probabilities),
        max_size=4,
    ),
    max_size=4,
)
SMALL = define(
    "small",
    actions=[Action(ActionId("one")), Action(ActionId("two"))],
    baseline="one",
    window=60,
    weights={"buy": 2.0, "leave": -1.0},
    reward_range=(-3.0, 6.0),
)


def told(table: dict[tuple[str, str], list[Outcome]]) -> World:
    """A world where the segment and the action say what may follow."""
    return scene(
        name="small",
        line="A small world.",
        experiment=SMALL,
        visitor=lambda random, _: Visitor(Context(segment=random.choice("ab"))),
        outcomes=lambda context, action, _: table.get((context.segment, action), []),
        delay=1.0,
    )


@settings(max_examples=60, deadline=None)
@given(tables)
def test_a_scene_has_the_means_and_the_rewards_of_its_table(table: dict[tuple[str, str], list[Outcome]]) -> None:
    """Mean = sum of worth x probability; nothing happens that is not in the table, and under its own name."""
    world = told(table)
    visits = world.draw(1, 60)
    weights = {"buy": 2.0, "leave": -1.0}
    assert world.reward_names == ("buy", "leave")
    for case, context in enumerate(visits.contexts):
        for index, action in enumerate(world.actions):
            possible = table.get((context.segment, action), [])
            mean = sum(weights[name] * value * probability for name, value, probability in possible)
            assert visits.means[case, index] == pytest.approx(mean)
            rounds = visits.seen == case
            happened = {
                (world.reward_names[which], reward) if which >= 0 else None
                for which, reward in zip(visits.names[rounds, index], visits.rewards[rounds, index], strict=True)
            }
            assert happened <= {None, *((o.name, weights[o.name] * o.value) for o in possible if o.probability)}
    nothing = visits.names < 0
    assert (visits.rewards[nothing] == 0).all()


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0.1, 0.2, 0.9])), min_size=1, max_size=5))
def test_a_mixture_has_the_mean_of_its_parts(parts: list[tuple[int, float]]) -> None:
    """What an anonymous visitor earns is the average over those who may be behind it."""
    total = sum(weight for weight, _ in parts)
    mixed = mixture((weight / total, [Outcome("click", 1.0, p), Outcome("buy", 9.0, p / 9)]) for weight, p in parts)
    mean = sum(weight * p for weight, p in parts) / total
    assert [outcome.name for outcome in mixed] == ["click", "buy"]
    assert [outcome.value * outcome.probability for outcome in mixed] == pytest.approx([mean, mean])


@given(st.floats(-20, 20), st.floats(-5, 5), st.floats(-5, 5))
def test_a_chance_has_the_odds_of_what_is_known(base: float, vip: float, sale: float) -> None:
    """Log-odds add up; what is not named, and numbers, count nothing."""
    context = Context(segment="vip", features={"wants": "sale", "orders": 3.0, "known": True})
    odds = base + vip + sale
    assert chance(base, {"vip": vip, "sale": sale, "other": 9.0}, context) == pytest.approx(1 / (1 + math.exp(-odds)))


# Their pictures


def test_the_picture_shows_the_field_that_matters_most() -> None:
    """It is computed: from what the best action of each value earns, not from what a file says."""
    shown = {name: drawing(name).picture.field for name in TOLD}
    assert shown["product-cta"] == "intent_stage"
    assert shown["push"] == "hour"
    assert shown["cart-offer"] == "segment"
    assert shown["season"] == TIME
    assert shown["asking"] == "taste"
    assert shown["channels"] == "prefers"
    assert shown["storefront"] == "segment"


def test_a_picture_of_many_actions_shows_the_best() -> None:
    """200 rows are no picture; the best of each column are among the 20."""
    one = drawing("catalogue")
    assert len(one.rows) == 20
    assert {one.world.actions.index(action) for action in one.picture.best} <= set(one.rows)
    assert one.left_out == "180 more that earn less"
    assert drawing("storefront").rows == list(range(6))


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_adds_up(name: str) -> None:
    """Its cells are means of what is in the world, and no field alone brings more than all of them together."""
    one, world = drawing(name), find(name)
    picture = one.picture
    assert picture.means.shape == (len(world.actions), len(picture.groups))
    assert len(set(picture.groups)) == len(picture.groups) == len(picture.best) == len(picture.shares)
    assert 2 <= len(picture.groups) <= 6
    assert picture.shares.sum() == pytest.approx(1)
    assert 0 < picture.lift <= 1
    assert one.uniform <= one.single < one.best
    best = [world.actions.index(action) for action in picture.best]
    assert picture.means[best, range(len(best))].tolist() == np.nanmax(picture.means, axis=0).tolist()
    visits = world.draw(world_figures.SEED, world_figures.ROUNDS)
    if visits.eligible.all():
        assert picture.means @ picture.shares == pytest.approx(visits.means[visits.seen].mean(axis=0))


def test_numbers_are_shown_in_ranges_and_what_is_not_known_by_name() -> None:
    """A column for each of a thousand numbers would be no picture."""
    hours = drawing("push").picture.groups
    assert [re.sub(r"\d+", "N", group) for group in hours] == [*["up to N"] * (len(hours) - 1), "over N"]
    assert UNKNOWN in drawing("asking").picture.groups
    fields = drawing("cart-offer").fields
    assert fields["cart_value"] == "a number from 30 to 120"
    assert fields["segment"] == "bargain, member, new, vip"
    assert "not known of 8" in drawing("anonymous").fields["segment"]


def test_many_values_are_shown_as_the_most_frequent_and_others() -> None:
    """A field with fifty values still fits a terminal."""
    values = [f"v{n}" for n in range(50)]
    world = replace(
        told({}),
        draw=scene(
            name="small",
            line="-",
            experiment=SMALL,
            visitor=lambda random, _: Visitor(Context(location=random.choices(values, range(50))[0])),
            outcomes=lambda c, a, _: [Outcome("buy", 1.0, 0.1 + 0.4 * ((int(c.location[1:]) % 2) == (a == "one")))],
            delay=1.0,
        ).draw,
    )
    picture = portrait(world, rounds=2_000).picture
    assert picture.field == "location"
    assert len(picture.groups) == 5
    assert picture.groups[-1] == "others"


# The command


def invoke(*arguments: str, columns: int = 80) -> tuple[int, str]:
    """Exit code, and what was written to either stream."""
    result = CliRunner().invoke(main, ["worlds", *arguments], env={"COLUMNS": f"{columns}"})
    return result.exit_code, result.output


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portraits that were made already."""
    monkeypatch.setattr("simulator.commands.worlds.portrait", lambda world: drawing(world.name))


@pytest.mark.usefixtures("quick")
def test_the_list_has_a_line_a_picture_and_the_lift_of_every_world() -> None:
    """Readable in 80 columns and without colours: a shade and a number in every cell."""
    code, output = invoke()
    assert code == 0
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) <= 80
    for name in NAMES:
        one = drawing(name)
        assert f"\n{name}: " in output
        assert f"Best single action {figure(one.single)} ({one.single_action})" in " ".join(output.split())
    assert all(shade in output for shade in SHADES)
    assert " ".join(output.split()).count("Beyond one action") == len(NAMES) + 1, "each world, and the legend"
    assert "data:digits" in output
    assert "fitted:LOG" in output


@pytest.mark.usefixtures("quick")
def test_one_world_is_told_in_full(tmp_path: Path) -> None:
    """Everything that one needs to know before a run or a drive."""
    code, output = invoke("push", "--json", str(tmp_path / "push.json"))
    assert code == 0
    for part in (
        "evening-sale offer",
        "location: city, home, transit, work",
        "hour: a number from 7 to 22",
        "unsubscribe x -4; a reward lies in -4 to +1",
        "Window 2 h (mean delay 33",
        "hour alone brings",
    ):
        assert part in " ".join(output.split()), part
    found = json.loads((tmp_path / "push.json").read_text())
    assert found == [plain(drawing("push"))]
    assert found[0]["earned"]["best_single_action"] == "none"
    assert list(found[0]["picture"]["means"]) == list(find("push").actions)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    """A typing error costs no search."""
    code, output = invoke("storefrnt")
    assert code == 2
    assert "did you mean storefront?" in output


BROKEN = """
from simulator.worlds.scenes.push import ACTIONS
from simulator.worlds.scene import Outcome, Visitor, define, scene
from decider.types import Context

WORLD = scene(
    name="{name}",
    line="A broken one.",
    experiment=define("broken", actions=ACTIONS, baseline="{baseline}", window=600, weights={{"click": 1.0}}),
    visitor=lambda random, number: Visitor(Context()),
    outcomes=lambda context, action, phase: [Outcome({outcome})],
    delay=60.0,
)
"""
RIGHT = {"baseline": "none", "outcome": '"click", 1.0, 0.5'}


@pytest.mark.parametrize(
    ("number", "wrong", "said"),
    [
        (1, {"name": "push"}, "broken_1.py: WORLD is a world named 'push'; it must be the world 'broken-1'"),
        (2, {"baseline": "nothing"}, "broken_2.py:9: InvalidExperiment: baseline_action: 'nothing' is not one"),
        (3, {"name": '"'}, "broken_3.py: SyntaxError: unterminated"),
        (4, {"outcome": "'click', 1.0, typo"}, "broken_4.py:11: NameError: name 'typo' is not defined"),
        (
            5,
            {"outcome": "'clik', 1.0, 0.5"},
            "broken-5: ValueError: an outcome is named 'clik'; rewards have the names",
        ),
        (6, {"outcome": "'click', 5.0, 0.5"}, "an outcome is worth 5; the range is 0 to 1"),
        (7, {"outcome": "'click', 1.0, 1.5"}, "sum to 1 at most; they sum to 1.5"),
        (8, {"outcome": "'click', 1.0, -0.5"}, "probabilities must be 0 at least"),
    ],
)
def test_a_mistake_in_a_worlds_file_is_told_with_its_place(
    number: int, wrong: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adding a world is adding a file: whoever writes it makes mistakes, and every command must say where."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    monkeypatch.setattr(scenes, "__path__", [*scenes.__path__, str(folder)])
    right = RIGHT | {"name": f"broken-{number}"}
    (folder / f"broken_{number}.py").write_text(BROKEN.format(**right | wrong), encoding="utf-8")
    code, output = invoke(f"broken-{number}")
    assert code == 2
    assert said in " ".join(output.split())
    assert "Traceback" not in output


def test_figures_that_differ_are_shown_as_different() -> None:
    """Shades of equal numbers puzzle: the least difference of means in a column still shows."""
    assert [figure(x) for x in (0.0069, 0.00688, 0.123456, 1.234, 123.4)] == [
        "0.0069",
        "0.00688",
        "0.1235",
        "1.234",
        "123.4",
    ]


def test_where_one_action_is_best_for_all_no_field_brings_anything() -> None:
    """A share of what is nothing but rounding would be any number."""
    world = find("push")
    draw = world.draw

    def same(seed: int, rounds: int) -> Visits:
        visits = draw(seed, rounds)
        means = np.tile([0.1, 0.2, 0.3, 0.1, 0.1], (len(visits.contexts), 1))
        return replace(visits, means=means, eligible=np.ones(means.shape, np.bool_))

    one = portrait(replace(world, draw=same), rounds=997)
    assert math.isnan(one.picture.lift)
    assert one.beyond_single == pytest.approx(0.0, abs=1e-9)


def test_help_has_examples() -> None:
    """What a person tries first."""
    code, output = invoke("--help")
    assert code == 0
    assert "simulator worlds storefront" in output


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of all worlds."""
    return write_worlds([drawing(name) for name in NAMES], tmp_path_factory.mktemp("worlds") / "new")


@pytest.fixture(scope="module")
def shown(chromium: Browser, page: Path) -> Page:
    """The page, opened from the disk."""
    return chromium.page(page)


def test_the_page_has_a_picture_of_every_world_as_a_file_too(page: Path) -> None:
    """For slides."""
    assert {file.name for file in page.parent.iterdir()} == {"index.html", *(f"{name}.png" for name in NAMES)}
    assert all((page.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in NAMES)


def test_the_same_worlds_give_the_same_bytes(page: Path, tmp_path: Path) -> None:
    """A page in version control changes only when a world does."""
    write_worlds([drawing("push")], tmp_path)
    assert (tmp_path / "push.png").read_bytes() == (page.parent / "push.png").read_bytes()


def test_a_browser_draws_every_picture_and_loads_nothing(shown: Page) -> None:
    """An SVG that is no XML is an empty box that only a browser notices."""
    assert shown.run("document.images.length") == len(NAMES)
    assert shown.run(UNDRAWN) == []
    assert shown.run("document.scripts.length") == 0
    own, *others = shown.requests
    assert own.startswith("file:")
    assert all(address.startswith("data:") for address in others)


def test_a_browser_shows_the_worlds_side_by_side(shown: Page) -> None:
    """Name by name, in the order of the list."""
    rows = shown.run("[...document.querySelectorAll('#side-by-side tbody tr')].map(r => r.cells[0].innerText.trim())")
    assert rows == NAMES
    assert shown.run("document.querySelectorAll('section.world').length") == len(NAMES)


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_cut_off_on_a_phone_or_a_desk(shown: Page, width: int) -> None:
    """Also with everything unfolded."""
    shown.resize(width)
    shown.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.run(OVERFLOWING) == []
    assert shown.run("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_by_day_and_by_night(shown: Page, scheme: str) -> None:
    """Contrast as WCAG asks for."""
    shown.prefer(scheme=scheme)
    assert shown.run(FAINT) == []
    if folder := os.environ.get("PICTURES"):
        shown.screenshot(Path(folder) / f"worlds-{scheme}.png")
