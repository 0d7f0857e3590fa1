"""The study behind the defaults: its worlds, its rivals, its measure, its command."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import NormalDist

import numpy as np
import pytest
from click.testing import CliRunner

from decider.policy.protocol import Choice
from decider.policy.static import Uniform
from decider.types import Context
from simulator.rivals import LinTs, LinUcb
from simulator.study import CONTENDERS, DEFAULT, RIVALS, WORLDS, Task, headings, lift_share, main, run, simulate
from simulator.worlds.logistic import (
    ACTIONS,
    FIELDS,
    LEAST,
    MOST,
    SPREAD,
    Floats,
    World,
    draw_visits,
    mean_purchase,
)

VALUES = sum(FIELDS.values())
CLICKS, *_, INTERACTIONS = WORLDS


def names(world: World) -> str:
    """For pytest."""
    return world.name


def bernstein(variance: float, largest: float, *, risk: float = 1e-9) -> float:
    """How far a sum of independent centred numbers, each at most `largest`, is from 0 at the given risk."""
    log = math.log(2 / risk)
    third = largest * log / 3
    return third + math.sqrt(third**2 + 2 * variance * log)


def one_hot(contexts: Sequence[Context]) -> Floats:
    """(contexts, 1 + values): a constant, then a column for each value of each field."""
    values = [(field, f"{field}-{value}") for field, size in FIELDS.items() for value in range(size)]
    return np.array([[1.0, *[float(getattr(c, field) == value) for field, value in values]] for c in contexts])


@pytest.mark.parametrize("world", WORLDS, ids=names)
def test_rewards_have_the_means_that_policies_are_judged_by(world: World) -> None:
    """Every figure of the study rests on these means. Checked for all visits and for each segment in each stage.

    A reward in [0, M] with mean m has at most the variance m (M - m); a click has exactly that.
    """
    visits = draw_visits(world, seed=1, rounds=20_000)
    largest = world.reward_range[1]
    pairs = [(context.segment, context.intent_stage) for context in visits.contexts]
    groups = [[True] * len(pairs), *[[pair == group for pair in pairs] for group in sorted(set(pairs))]]
    assert len(groups) == 1 + FIELDS["segment"] * FIELDS["intent_stage"]
    for group in groups:
        rounds = np.array(group)[visits.seen]
        means = visits.means[visits.seen[rounds]]
        apart = np.abs((visits.rewards[rounds] - means).sum(axis=0))
        variances = (means * (largest - means)).sum(axis=0)
        assert all(a <= bernstein(v, largest) for a, v in zip(apart, variances, strict=True))


@pytest.mark.parametrize("world", [world for world in WORLDS if not world.amounts], ids=names)
def test_a_world_has_its_rate(world: World) -> None:
    """2 % and 10 % are different problems."""
    visits = draw_visits(world, seed=2, rounds=3_000)
    assert visits.means[visits.seen].mean() == pytest.approx(world.rate, abs=1e-9)


@pytest.mark.parametrize("median", [5.0, 40.0, 90.0, 500.0])
def test_the_mean_purchase_is_that_of_the_clipped_log_normal(median: float) -> None:
    """Against the integral over quantiles; at the extremes nearly all is clipped."""
    quantiles = [NormalDist(sigma=SPREAD).inv_cdf((i + 0.5) / 50_000) for i in range(50_000)]
    amounts = np.clip(median * np.exp(quantiles), LEAST, MOST)
    assert mean_purchase(median) == pytest.approx(amounts.mean(), rel=1e-5)


def test_purchases_are_within_the_declared_range() -> None:
    """A reward outside it would be clipped or refused by the server."""
    world = next(world for world in WORLDS if world.amounts)
    rewards = draw_visits(world, seed=3, rounds=5_000).rewards
    bought = rewards[rewards > 0]
    assert LEAST <= bought.min() < bought.max() <= MOST
    assert len(bought) < rewards.size / 10


@pytest.mark.parametrize(("world", "low", "high"), [(CLICKS, 0.0, 1e-9), (INTERACTIONS, 0.5, 10.0)], ids=["no", "yes"])
def test_only_the_world_with_interactions_has_them(world: World, low: float, high: float) -> None:
    """It tells policies that can learn pairs of fields from those that cannot."""
    visits = draw_visits(world, seed=3, rounds=5_000)
    odds = np.log(visits.means / (1 - visits.means))
    columns = one_hot(visits.contexts)
    residual = odds - columns @ np.linalg.lstsq(columns, odds, rcond=None)[0]
    assert low <= np.abs(residual).max() <= high


def test_delay_changes_nothing_but_when_rewards_are_known() -> None:
    """So that the column next to it shows what the delay alone costs."""
    delayed = next(world for world in WORLDS if world.delay)
    one, other = (draw_visits(world, seed=4, rounds=500) for world in (CLICKS, delayed))
    assert one.contexts == other.contexts
    assert (one.rewards == other.rewards).all()


def _taught(
    policy: LinUcb | LinTs, *, rounds: int, reward_range: tuple[float, float]
) -> list[tuple[Context, int, float]]:
    random = Random(5)
    low, high = reward_range
    visits = draw_visits(CLICKS, seed=5, rounds=rounds)
    examples = [(visits.contexts[i], random.randrange(len(ACTIONS)), random.uniform(low, high)) for i in visits.seen]
    for context, drawn, reward in examples:
        policy.learn(context, ACTIONS, drawn=drawn, propensity=1.0, reward=reward)
    return examples


def test_the_rivals_are_ridge_regressions() -> None:
    """A rival with an error would make the default look good. Against numpy's solution of all examples at once."""
    policy = LinUcb(alpha=0.7, actions=len(ACTIONS), values=VALUES, reward_range=(-1.0, 3.0))
    examples = _taught(policy, rounds=400, reward_range=(-1.0, 3.0))
    asked = [context for context, _, _ in examples[:20]]
    expected = np.array([_ridge(examples, action, asked) for action in range(len(ACTIONS))])
    for number, context in enumerate(asked):
        estimate, deviation = policy.scores(context)
        assert estimate == pytest.approx(expected[:, 0, number])
        assert deviation == pytest.approx(expected[:, 1, number])
        best = int(np.argmax(expected[:, 0, number] + 0.7 * expected[:, 1, number]))
        assert policy.pmf(context, ACTIONS) == [float(action == best) for action in range(len(ACTIONS))]


def _ridge(examples: Sequence[tuple[Context, int, float]], action: int, asked: Sequence[Context]) -> Floats:
    """(2, asked): estimates and deviations of one action."""
    mine = [(context, (reward + 1) / 4) for context, drawn, reward in examples if drawn == action]
    x, y = one_hot([context for context, _ in mine]), np.array([reward for _, reward in mine])
    inverse = np.linalg.inv(np.eye(1 + VALUES) + x.T @ x)
    z = one_hot(asked)
    return np.array([z @ inverse @ x.T @ y, np.sqrt(np.diag(z @ inverse @ z.T))])


def test_lin_ts_chooses_as_often_as_its_posterior_says() -> None:
    """Of two actions: the probability that a normal difference is positive."""
    policy = LinTs(alpha=0.5, actions=2, values=VALUES, seed=6)
    context = Context("segment-0", "device-0", "channel-0", "location-0", "intent_stage-0")
    for reward in (1.0, 0.0, 1.0):
        policy.learn(context, ACTIONS[:2], drawn=0, propensity=1.0, reward=reward)
    estimate, deviation = policy.scores(context)
    probability = NormalDist().cdf((estimate[0] - estimate[1]) / (0.5 * math.hypot(*deviation)))
    draws = 4_000
    chosen = sum(policy.pmf(context, ACTIONS[:2])[0] for _ in range(draws))
    assert 0.5 < probability < 0.95
    assert abs(chosen - draws * probability) <= bernstein(draws * probability * (1 - probability), 1.0)


def test_what_a_rival_saves_is_what_it_learned() -> None:
    """The protocol's promise: equal states have equal bytes."""
    fresh, one, same = (LinUcb(alpha=0.1, actions=len(ACTIONS), values=VALUES) for _ in range(3))
    for policy in (one, same):
        _taught(policy, rounds=10, reward_range=(0.0, 1.0))
    assert one.save() == same.save() != fresh.save()


class Recorder(Uniform):
    """Uniform, and notes what it is taught and when."""

    def __init__(self) -> None:
        self.asked: list[Context] = []
        self.taught: list[tuple[int, Context, int, float, float]] = []

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        self.asked.append(context)
        return super().pmf(context, actions)

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        assert actions == ACTIONS
        self.taught.append((len(self.asked), context, drawn, propensity, reward))


@pytest.mark.parametrize(
    ("delay", "batch", "learned"),
    [
        (0, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (4, 3, [6, 6, 9, 9, 9]),
        (10, 1, []),
    ],
)
def test_a_policy_learns_its_own_draws_once_their_rewards_are_known(delay: int, batch: int, learned: list[int]) -> None:
    """Each exactly once, in order, with the reward of the action that was drawn and the propensity of the draw."""
    world = replace(CLICKS, delay=delay, batch=batch, rate=0.4)
    visits = draw_visits(world, seed=7, rounds=10)
    policy = Recorder()
    simulate(policy, visits, world, floor=0.0, random=Random(7))
    assert [when for when, *_ in policy.taught] == learned
    for number, (_, context, drawn, propensity, reward) in enumerate(policy.taught):
        assert context == policy.asked[number] == visits.contexts[visits.seen[number]]
        assert (propensity, reward) == (1 / len(ACTIONS), visits.rewards[number, drawn])


def test_a_floor_costs_its_share() -> None:
    """The table's rows with floors are about this: each action keeps 0.01, the policy's choice gets the rest."""
    visits = draw_visits(CLICKS, seed=8, rounds=1)
    policy = CONTENDERS["LinUCB 0.1"].make(CLICKS, 8)
    means = visits.means[visits.seen[0]]
    best = policy.pmf(visits.contexts[visits.seen[0]], ACTIONS).index(1.0)
    earned = simulate(policy, visits, CLICKS, floor=0.01, random=Random(8))
    assert earned == pytest.approx([0.01 * means.sum() + (1 - 0.01 * len(ACTIONS)) * means[best]])


def test_the_share_is_0_for_uniform_and_1_for_the_best() -> None:
    """The scale of every figure, also when only the first rounds are read off."""
    visits = draw_visits(CLICKS, seed=9, rounds=100)
    means = visits.means[visits.seen]
    for rounds in (100, 20):
        assert lift_share(visits, means.mean(axis=1)[:rounds]) == pytest.approx(0)
        assert lift_share(visits, means.max(axis=1)[:rounds]) == pytest.approx(1)
        assert lift_share(visits, (means.mean(axis=1) + means.max(axis=1))[:rounds] / 2) == pytest.approx(0.5)


def test_the_default_beats_uniform() -> None:
    """With 2,000 visits at a click rate of 10 %: a lower bound of the mean share over five seeds (t, 4, 99.9 %)."""
    shares = np.array([run(Task(DEFAULT, 0, seed, 2_000)).share for seed in range(100, 105)])
    error = shares.std(ddof=1) / math.sqrt(len(shares))
    assert shares.mean() - 7.17 * error > 0.2, shares


def test_equal_tasks_have_equal_results() -> None:
    """In whatever process, after whatever other task: the tables can be made again."""
    task = Task("LinTS 0.1", 1, 100, 300)
    first = run(task)
    run(Task("rnd", 0, 101, 50))
    assert run(task) == first


@pytest.mark.parametrize("policy", CONTENDERS)
def test_every_policy_runs_in_every_world(policy: str) -> None:
    """None of the table's rows may fail after half an hour."""
    results = [run(Task(policy, world, 100, 30)) for world in range(len(WORLDS))]
    assert [result.world for result in results] == [world.name for world in WORLDS]
    assert all(math.isfinite(x) and x <= 1 for result in results for x in (result.early, result.share))


def test_the_command_prints_both_tables_and_writes_every_run(tmp_path: Path) -> None:
    """What `make defaults` does, with little of everything."""
    file = tmp_path / "study.json"
    options = ["--seeds", "2", "--rounds", "40", "--workers", "1", "--policies", "^default$|^Lin", "--json", str(file)]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]
    policies = [DEFAULT, "LinUCB 0.1", "LinUCB 0.3", "LinTS 0.1"]
    assert [row[0] for row in rows] == ["policy", *policies, "difference", *[f"default - {rival}" for rival in RIVALS]]
    assert all(len(row) == 1 + len(headings(40)) for row in rows)
    runs = json.loads(file.read_text())
    assert len(runs) == len(policies) * len(WORLDS) * 2
    mine = [r["share"] for r in runs if r["policy"] == DEFAULT and r["world"] == "purchases"]
    cell = f"{np.mean(mine):.3f} ±{abs(mine[0] - mine[1]) / 2:.3f}"
    assert rows[1][1 + headings(40).index("purchases")] == cell


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "not a regular expression"), ("nobody", "matches none of: def")]
)
def test_a_pattern_that_selects_nothing_is_refused(pattern: str, message: str) -> None:
    """Before the long run, with the names there are."""
    result = CliRunner().invoke(main, ["--policies", pattern])
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_help_has_an_example() -> None:
    """What a person tries first."""
    assert "--policies '^default$|^Lin'" in CliRunner().invoke(main, ["--help"]).output
