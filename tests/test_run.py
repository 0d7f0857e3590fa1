"""A policy plays a world: by the code that serves, learning what the server would have learned; what is said of it."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from decider.decide.decide import decide
from decider.decide.slots import SLOTS, hash_ticket
from decider.errors import DeciderError
from decider.experiment.schema import from_message, to_message
from decider.learn.trainer import Trainer
from decider.log.memory import MemoryLog
from decider.log.protocol import NewReward, NewVersion, Tick
from decider.policy.protocol import Choice, CountsUnderWay, Model, PlainPolicy
from decider.policy.static import Uniform
from decider.types import ActionId, Context, Decision, DecisionId, DecisionRequest, Time
from simulator.commands.group import main
from simulator.evaluate.result import to_json
from simulator.load_policy import BadPolicy
from simulator.report.pages.run import write_run_report
from simulator.report.run import terminal_parts, whole_table
from simulator.report.table import sparkline
from simulator.run.example import example_result
from simulator.run.play import Rounds, play, play_reference
from simulator.run.policies import LearningPolicy, StaticPolicy, find_policy
from simulator.run.result import KNOWN, LEARNS, SINGLE, Band, band, summarize, summarize_reference, tasks_of
from simulator.run.task import Run, Task, run, share_of_lift
from simulator.worlds.registry import NoSuchWorld, find
from simulator.worlds.world import Visits, World
from tests.browser import UNDRAWN, Browser, assert_readable

STOREFRONT = find("storefront")
MILLION = 1_000_000


class RecordingPolicy(Uniform):
    """A policy that notes what it is told. heard: of every question, how many decisions it had learned by then.
    under_way: how many it was said that there were, and that were sealed."""

    def __init__(self, inner: PlainPolicy | None = None) -> None:
        self._inner = inner or Uniform()
        self.heard: list[int] = []
        self.under_way: list[tuple[int, int]] = []
        self.learned: list[tuple[int, float, float]] = []
        self.decided = self.sealed = 0

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """That of the policy inside."""
        self.heard.append(len(self.learned))
        self.under_way.append((self.decided, self.sealed))
        return self._inner.pmf(context, actions)

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """As the policy inside does."""
        self.learned.append((drawn, propensity, reward))
        self._inner.learn(context, actions, drawn=drawn, propensity=propensity, reward=reward)

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """As the policy inside does."""
        self.decided += decided
        self.sealed += sealed
        if isinstance(self._inner, CountsUnderWay):
            self._inner.count_under_way(decided=decided, sealed=sealed)


class Broken(RecordingPolicy):
    """Its probabilities are none."""

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """Not a number."""
        super().pmf(context, actions)
        return [math.nan] * len(actions)


def with_window(world: World, seconds: float, *, batch: int = 1) -> World:
    """The world with another reward window."""
    reward = replace(world.experiment.reward, window=round(seconds * MILLION))
    return replace(world, experiment=replace(world.experiment, reward=reward), batch=batch)


ACTIONS = len(STOREFRONT.actions)


@st.composite
def made_visits(draw: st.DrawFn) -> Visits:
    """A few rounds of a world with any means, any eligible actions and any delays."""
    cases, rounds = draw(st.integers(1, 3)), draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    eligible = rng.random((cases, ACTIONS)) < draw(st.sampled_from([0.3, 0.7, 1.0]))
    eligible[np.arange(cases), rng.integers(0, ACTIONS, cases)] = True
    means = rng.choice([0.0, 0.1, 0.5, 1.0], (cases, ACTIONS))
    seen = rng.integers(0, cases, rounds)
    rewards = (rng.random((rounds, ACTIONS)) < means[seen]).astype(np.float64)
    return Visits(
        contexts=tuple([Context(segment=f"{case}") for case in range(cases)]),
        means=means,
        eligible=eligible,
        seen=seen,
        units=np.arange(rounds),
        delays=np.round(rng.exponential(3.0, rounds), 6),
        rewards=rewards,
        names=np.where(rewards > 0, 0, -1).astype(np.int8),
    )


def played(visits: Visits, policy: PlainPolicy, *, world: World = STOREFRONT, **how: Any) -> Rounds:
    """With the same luck each time."""
    given: dict[str, Any] = {"floor": 0.0, "random": Random(1)} | how
    return play(world, visits, policy, **given)


# The code that serves


class Tickets(Random):
    """The luck that a server has: the tickets of its decision ids."""

    def __init__(self, world: World) -> None:
        super().__init__(0)
        self._experiment = world.experiment
        self._next = 0

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:  # noqa: ARG002
        """The next decision's."""
        self._next += 1
        return hash_ticket(self._experiment.id, self._experiment.salt, "draw", f"{self._next - 1}")


def served(world: World, visits: Visits) -> tuple[list[Decision], int]:
    """The decisions of a server that gets these visits, learns in log order from its log, and publishes every model;
    and how many of them it has learned."""
    now = Time(0)
    log = MemoryLog(clock=lambda: now)
    start = 1_000 * MILLION
    now = Time(start)
    log.append([NewVersion(world.experiment, 1)])
    (version,) = log.versions()
    trainer = Trainer(log, world.experiment.id, world.experiment.policy)
    coming: dict[int, list[NewReward]] = defaultdict(list)
    decisions = []
    for number in range(len(visits)):
        at = start + round(world.arrives(number) * MILLION)
        for due in sorted(time for time in coming if time <= at):
            now = Time(due)
            log.append(coming.pop(due))
        now = Time(at)
        log.append([Tick()])
        trainer.replay_up_to(log.head().mark)
        model = trainer.model()  # each one: it knows what is under way
        case = visits.seen[number]
        eligible = tuple([ActionId(world.actions[a]) for a in np.flatnonzero(visits.eligible[case])])
        request = DecisionRequest(DecisionId(f"{number}"), f"{number}", visits.contexts[case], eligible)
        decision = decide(request, version, Model(model.policy, model.position))
        decisions.append(decision)
        (mark,) = log.append([decision])
        assert mark
        action = world.actions.index(decision.action)
        if visits.names[number, action] >= 0:
            reward = NewReward(mark.position, world.reward_names[0], float(visits.rewards[number, action]))
            coming[at + round(visits.delays[number] * MILLION)].append(reward)
    return decisions, trainer.learned


@pytest.mark.parametrize("policy", ["thompson", "squarecb", "epsilon_greedy", "bag", "rnd"])
def test_what_plays_is_what_serves_bit_for_bit(policy: str) -> None:
    """The figures of a simulated world are those of the service: the same pmfs, draws, propensities and rewards learned
    in the same order, as by a server that reads its log, saves and loads every model, and counts late rewards as 0."""
    message = to_message(STOREFRONT.experiment)
    getattr(message.policy, policy).SetInParent()
    world = with_window(replace(STOREFRONT, experiment=from_message(message)), 10.0)
    drawn = world.draw(5, 150)
    rng = np.random.default_rng(5)
    eligible = rng.random(drawn.eligible.shape) < 0.6
    eligible[np.arange(len(eligible)), rng.integers(0, ACTIONS, len(eligible))] = True
    eligible[::7, 1:] = False
    eligible[::7, 0] = True  # some have no choice
    clicks = rng.random(drawn.rewards.shape) < 0.4
    visits = replace(
        drawn,
        eligible=eligible,
        delays=np.round(drawn.delays / 16, 6),
        rewards=clicks.astype(np.float64),
        names=np.where(clicks, 0, -1).astype(np.int8),
    )
    player = find_policy(policy, world)
    assert isinstance(player, LearningPolicy)
    assert player.floor == world.experiment.minimum_propensity
    watched = RecordingPolicy(player.make(1))

    mine = play(world, visits, watched, floor=player.floor, random=Tickets(world))

    decisions, learned = served(world, visits)
    menus = [np.flatnonzero(visits.eligible[case]) for case in visits.seen]
    for number, decision in enumerate(decisions):
        means = visits.means[visits.seen[number], menus[number]].tolist()
        assert mine.earned[number] == sum([s * m for s, m in zip(decision.pmf, means, strict=True)]) / SLOTS
        assert mine.got[number] == visits.rewards[number, world.actions.index(decision.action)]
    assert len(watched.learned) == learned > 100
    late = visits.delays > 10.0
    assert late.any()
    for number, (index, propensity, reward) in enumerate(watched.learned):
        assert propensity == decisions[number].propensity
        assert index == decisions[number].eligible.index(decisions[number].action)
        assert reward == (0.0 if late[number] else mine.got[number])
    menus_and_pmfs = {(decision.eligible, decision.pmf) for decision in decisions}
    assert len(menus_and_pmfs) > len({decision.eligible for decision in decisions}), "it has learned"
    assert 1.0 in {decision.propensity for decision in decisions}, "some had no choice"


def test_what_falls_back_on_the_baseline_is_not_learned() -> None:
    """As in the server: those decisions were not the policy's."""
    world = with_window(STOREFRONT, 1.0)
    visits = world.draw(1, 30)
    broken = Broken()
    mine = played(visits, broken, world=world)
    assert not broken.learned
    assert mine.earned.tolist() == play_reference(visits, visits.always(0), random=Random(1)).tolist()


# Laws of playing


@given(made_visits(), st.integers(0, 99))
def test_nothing_earns_more_than_the_best(visits: Visits, seed: int) -> None:
    """Regret is never negative, or the best would not be the best."""
    pmfs = np.random.default_rng(seed).random(visits.means.shape) * visits.eligible + 1e-9 * visits.eligible
    any_policy = play_reference(visits, pmfs / pmfs.sum(axis=1, keepdims=True), random=Random(1))
    best = play_reference(visits, visits.best, random=Random(1))
    assert (any_policy <= best + 1e-12).all()
    assert (played(visits, Uniform()).earned <= best + 1e-12).all()


@given(made_visits())
def test_an_even_choice_earns_the_mean_of_the_eligible_means(visits: Visits) -> None:
    """By the sampler that serves, up to whole slots; and as often right as there are best actions."""
    mine = played(visits, Uniform())
    for number, case in enumerate(visits.seen):
        open_ = visits.eligible[case]
        assert mine.earned[number] == pytest.approx(visits.means[case][open_].mean(), abs=ACTIONS / SLOTS)
        best = visits.means[case][open_] >= visits.means[case][open_].max()
        assert mine.right[number] == pytest.approx(best.mean(), abs=ACTIONS / SLOTS)
        assert mine.got[number] in visits.rewards[number][open_]


@given(made_visits(), st.integers(1, 5))
def test_who_never_learns_does_not_feel_delays_or_batches(visits: Visits, batch: int) -> None:
    """Delay acts through learning alone."""
    now = played(visits, Uniform(), delayed=False)
    later = played(visits, Uniform(), world=with_window(STOREFRONT, 2.0, batch=batch))
    for name in ("earned", "right", "got", "cases"):
        assert getattr(now, name).tolist() == getattr(later, name).tolist()


@given(made_visits(), st.integers(1, 4), st.booleans(), st.sampled_from([0.5, 2.0, 5.0, 60.0]))
def test_what_is_known_at_a_round_is_what_was_sealed_by_then(
    visits: Visits, batch: int, delayed: bool, window: float
) -> None:
    """A decision is learned when its window has ended, not before; those of a batch share a model; what comes late
    counts as nothing."""
    world = with_window(STOREFRONT, window, batch=batch)
    watched = RecordingPolicy()
    mine = played(visits, watched, world=world, delayed=delayed)
    arrives = [number // batch * batch / world.traffic for number in range(len(visits))]
    asked = [number for number, case in enumerate(visits.seen) if visits.eligible[case].sum() > 1]
    assert watched.under_way == list(zip(asked, watched.heard, strict=True))
    for number, heard in zip(asked, watched.heard, strict=True):
        known = [a for a in arrives[:number] if (a + window <= arrives[number] if delayed else a < arrives[number])]
        assert heard == len(known)
    for number, (_, propensity, reward) in enumerate(watched.learned):
        late = delayed and visits.delays[number] > window
        assert reward == (0.0 if late else mine.got[number])
        assert 0 < propensity <= 1


@given(made_visits())
def test_the_floor_is_kept(visits: Visits) -> None:
    """A policy that is sure of itself still explores; every eligible action has the least share."""

    class Sure(Uniform):
        def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002
            return [1.0, *[0.0] * (len(actions) - 1)]

    watched = RecordingPolicy(Sure())
    played(visits, watched, world=with_window(STOREFRONT, 0.1), floor=0.1)
    assert all(propensity >= 0.1 for _, propensity, _ in watched.learned)


# Names of policies


@pytest.mark.parametrize(
    ("name", "learns", "floor"),
    [
        ("default", True, 0.0),
        ("squarecb:gamma_scale=100", True, 0.0),
        ("epsilon_greedy:epsilon=0.1,floor=0.02", True, 0.02),
        ("bag:size=3,interactions=CA+CCA", True, 0.0),
        ("tests.custom_policy:first", True, 0.0),
        ("uniform", False, None),
        ("best", False, None),
        ("fixed:sale", False, None),
    ],
)
def test_a_name_gives_what_plays(name: str, learns: bool, floor: float | None) -> None:
    """Every kind that --help names."""
    player = find_policy(name, STOREFRONT)
    assert isinstance(player, LearningPolicy if learns else StaticPolicy)
    if isinstance(player, LearningPolicy) and floor:
        assert player.floor == floor
    one = run(Task("storefront", name, seed=1, rounds=50))
    assert one.rounds == list(range(1, 51))
    assert all(math.isfinite(value) for value in one.earned)
    assert one == run(Task("storefront", name, seed=1, rounds=50))


@pytest.mark.parametrize(
    ("text", "learns"),
    [
        ("minimum_propensity = 0.03\n[policy]\nsoftmax = { lambda = 5 }\n", True),
        ('baseline_action = "sale"\n[policy]\nfixed = {}\n', False),
    ],
)
def test_a_file_gives_its_policy_and_its_floor(tmp_path: Path, text: str, learns: bool) -> None:
    """The same file as `simulator evaluate` takes."""
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    player = find_policy(f"{file}", STOREFRONT)
    assert isinstance(player, LearningPolicy if learns else StaticPolicy)
    if isinstance(player, LearningPolicy):
        assert player.floor == 0.03


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nonsense", "there is no policy 'nonsense'; there are default, ALGORITHM"),
        ("fixed:nothing", "storefront has no such action; it has new-arrivals, sale"),
        ("squarecb:gama=1", "there is no parameter 'gama'; there are gamma_scale, gamma_exponent, interactions, floor"),
        ("squarecb:gamma_scale=x", "gamma_scale=x is no number"),
        ("squarecb:gamma_scale", "there is no parameter 'gamma_scale'"),
        ("squarecb:gamma_scale=-1", "gamma_scale"),
        ("default:floor=2", "default:floor=2: minimum_propensity"),
        ("fixed", "fixed: names no action (fixed:ACTION); it has new-arrivals"),
        ("bag:size=2.7", "bag:size=2.7: size=2.7 is no whole number"),
        ("bag:size=nan", "size=nan is no whole number"),
        ("bag:size=-1", "size=-1 is no whole number"),
        ("bag:size=1e20", "size=1e+20 is no whole number"),
        ("os:getcwd", "os:getcwd: what it makes has no pmf and no learn"),
        ("sys:exit", "sys:exit: SystemExit; a policy is one of"),
        ("default:interactions=C", "interactions"),
        ("missing.toml", "missing.toml"),
        ("tests.nothing:make", "No module named 'tests.nothing'"),
        ("tests.custom_policy:second", "has no attribute 'second'"),
    ],
)
def test_a_name_that_is_wrong_is_refused_with_the_way_out(name: str, said: str) -> None:
    """Before the work, and so that the next try is right."""
    with pytest.raises((DeciderError, OSError)) as refused:
        find_policy(name, STOREFRONT)
    assert said in str(refused.value)


def test_a_python_policy_plays() -> None:
    """One's own idea is tried in a line."""
    own, same = (run(Task("storefront", name, 3, 200)) for name in ("tests.custom_policy:first", "fixed:new-arrivals"))
    assert own.earned == pytest.approx(same.earned)


# How well


def test_the_default_learns_the_storefront_and_beats_any_single_action_in_5000_decisions() -> None:
    """By its deployed curve, with delays, from nothing, every draw of exploration counted: worth it within a week of a
    small shop. The bound is a 95 % band over seeds."""
    runs = [run(task) for task in tasks_of("storefront", ["default"], seeds=range(1, 7), rounds=5_000, delayed=True)]
    ahead = band(np.array([one.earned[-1] - one.fixed[-1] for one in runs]))
    learned = summarize("default", runs, learns=True)
    assert ahead.low is not None
    assert ahead.low > 0
    assert learned.beats_single_after is not None
    assert learned.beats_single_after <= 5_000
    assert learned.whole.share
    assert learned.last_fifth.share
    assert learned.whole.share.low
    assert learned.whole.share.low > 0.3
    assert learned.last_fifth.share.mean > learned.whole.share.mean


# What is said of runs


def made_run(seed: int, **sums: list[float]) -> Run:
    """Ten rounds at five points."""
    zero = [0.0] * 5
    given = dict.fromkeys(("earned", "got", "best", "uniform", "fixed", "right"), zero) | sums
    return Run(Task("w", "p", seed, 10), [2, 4, 6, 8, 10], **given)


def test_figures_are_those_of_a_calculation_by_hand() -> None:
    """Reward, regret, share and right, over all rounds and over the last fifth."""
    one = made_run(
        1,
        earned=[1.0, 2.0, 3.0, 4.0, 6.0],
        best=[2.0, 4.0, 6.0, 8.0, 10.0],
        uniform=[0.0, 0.0, 0.0, 0.0, 0.0],
        fixed=[1.5, 1.9, 3.1, 3.9, 5.0],
        right=[0.0, 0.0, 0.0, 0.0, 2.0],
    )
    found = summarize("p", [one], learns=True)
    whole, last = found.whole, found.last_fifth
    assert (whole.visits, last.visits) == (10, 2)
    assert (whole.reward.mean, last.reward.mean) == (0.6, 1.0)
    assert (whole.total_regret.mean, last.total_regret.mean) == (4.0, 0.0)
    assert (whole.regret.mean, last.regret.mean) == (0.4, 0.0)
    assert whole.share
    assert last.share
    assert (whole.share.mean, last.share.mean) == (0.6, 1.0)
    assert whole.right
    assert last.right
    assert (whole.right.mean, last.right.mean) == (0.2, 1.0)
    assert found.beats_single_after == 8, "it was ahead once before, but did not stay"
    assert found.curve.reward.mean == (0.5, 0.5, 0.5, 0.5, 0.6)
    assert found.curve.right
    assert found.curve.right.mean == (0.0, 0.0, 0.0, 0.0, 1.0)
    assert whole.reward.low is None, "one seed has no band"


def test_bands_are_those_of_student() -> None:
    """Three seeds with 1, 2, 3: 2 ± 4.303 / sqrt(3)."""
    found = band(np.array([1.0, 2.0, 3.0]))
    assert found.low is not None
    assert found.mean == 2.0
    assert found.mean - found.low == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.high == pytest.approx(4.0 - found.low)


def test_bands_hold_nothing_that_cannot_be() -> None:
    """With two seeds Student's t says -40 % to 220 %; nobody can read a share of actions that is above all of them."""
    runs = [
        made_run(seed, earned=earned, best=[1.0, 2.0, 3.0, 4.0, 5.0], uniform=[0.0] * 5, fixed=[0.5] * 5)
        for seed, earned in ((1, [0.7, 1.5, 2.3, 3.1, 4.0]), (2, [0.9, 1.9, 2.9, 3.9, 4.8]))
    ]
    found = summarize("p", runs, learns=True)
    whole = found.whole
    assert whole.share
    assert whole.share.low == pytest.approx(0.88 - 12.706 * 0.08, rel=1e-3), "worse than a uniform choice is possible"
    assert whole.share.high == 1.0
    assert whole.regret.low == whole.total_regret.low == 0.0
    assert whole.right
    assert (whole.right.low, whole.right.high) == (whole.right.mean, whole.right.mean), "both seeds chose alike"
    assert found.curve.share.high
    assert max(found.curve.share.high) == 1.0
    lines = whole_table(replace(example_result(), policies=(found,))).lines(foot=False)
    assert "to 100 %" in str(list(lines))


def test_who_earns_more_than_the_best_action_of_each_visit_has_no_limit() -> None:
    """Where asking pays later, a share is above 100 %, and so is its band."""
    found = band(np.array([1.1, 1.2]), highest=1.0)
    assert found.high is not None
    assert found.high > found.mean > 1.0


def test_a_world_without_lift_has_no_share(tmp_path: Path) -> None:
    """Where all actions are as good there is nothing to attain: no division by zero, and all is still written."""
    flat = [0.3 * point for point in (2, 4, 6, 8, 10)]
    other = [sum([0.1] * 3 * point) for point in (2, 4, 6, 8, 10)]  # the same up to rounding
    runs = [made_run(seed, earned=flat, best=other, uniform=flat, fixed=flat) for seed in (1, 2)]
    assert math.isnan(runs[0].share())
    policy = summarize("p", runs, learns=True)
    assert policy.whole.share is None
    result = replace(example_result(), policies=(summarize_reference("best", runs), policy))
    assert list(terminal_parts(result))
    assert json.loads(to_json(result))["policies"][1]["curve"]["share"]["mean"] == [None] * 5
    page = write_run_report(result, tmp_path)
    assert "share.png" not in {file.name for file in tmp_path.iterdir()}
    assert "nan" not in page.read_text(encoding="utf-8")


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3))
@example([1.0, 0.0, 2.2250738585e-313])
def test_a_share_is_a_number_or_nothing(figures: list[float]) -> None:
    """Whatever a world earns."""
    earned, best, uniform = map(np.array, figures)
    share = share_of_lift(earned, best=best, uniform=uniform)
    assert not np.isinf(share)
    assert np.isnan(share) or best != uniform


# The command


def simulator(*arguments: str) -> Result:
    """`simulator run` as at the command line."""
    return CliRunner().invoke(main, ["run", *arguments])


def test_the_command_shows_references_and_policies_and_writes_json(tmp_path: Path) -> None:
    """A screen for people, and the same figures for programs."""
    file = tmp_path / "run.json"
    result = simulator(
        "storefront", "--policy", "default", "--policy", "fixed:sale", "--rounds", "300", "--seeds", "2", "--json",
        f"{file}", "--workers", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in ("uniform", SINGLE, "best", "default", "fixed:sale", "±", LEARNS, "The last 60 visits"):
        assert text in " ".join(result.stdout.split())
    said = json.loads(file.read_text(encoding="utf-8"))
    assert (said["schema"], said["rounds"], said["seeds"], said["delayed"]) == (1, 300, [1, 2], True)
    policies = {policy["name"]: policy for policy in said["policies"]}
    assert list(policies) == ["uniform", SINGLE, "best", "default", "fixed:sale"]
    assert [policy["reference"] for policy in policies.values()] == [True] * 3 + [False] * 2
    assert [policy["estimand"] for policy in policies.values()] == [KNOWN] * 3 + [LEARNS, KNOWN]
    assert policies["uniform"]["whole"]["share"]["mean"] == 0.0
    assert policies["best"]["whole"]["share"]["mean"] == 1.0
    assert policies["best"]["whole"]["right"]["mean"] == 1.0
    expected = [run(Task("storefront", "fixed:sale", seed, 300)).earned[-1] / 300 for seed in (1, 2)]
    assert policies["fixed:sale"]["whole"]["reward"]["mean"] == pytest.approx(np.mean(expected))


def test_workers_seeds_and_what_was_kept_do_not_change_figures(tmp_path: Path) -> None:
    """Whoever runs it again finds the same, but for the seconds."""

    def figures(*how: str) -> Any:
        file = tmp_path / "run.json"
        asked = ["storefront", "--policy", "default", "--policy", "best", "--rounds", "2000", "--seeds", "2"]
        result = simulator(*asked, "--json", f"{file}", *how)
        assert result.exit_code == 0, result.output
        said = json.loads(file.read_text(encoding="utf-8"))
        del said["seconds"]
        return said

    alone = figures("--workers", "1")
    assert figures("--workers", "2", "--keep", f"{tmp_path / 'keep'}") == alone
    assert len(list((tmp_path / "keep").glob("*.json"))) == 4
    assert figures("--keep", f"{tmp_path / 'keep'}") == alone
    assert figures("--workers", "1", "--no-delay") != alone
    assert figures("--workers", "1", "--first-seed", "7") != alone


def test_one_seed_has_no_bands_and_says_so() -> None:
    """A figure of one seed may be luck."""
    result = simulator("storefront", "--policy", "uniform", "--rounds", "20", "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert "one seed: no intervals" in result.stdout
    assert "±" not in result.stdout
    assert result.stdout.count("uniform ") == 2, "asked for by its name, it is not shown twice in a table"


def test_nothing_is_written_with_a_sign_and_fits_on_80_columns() -> None:
    """`-0.0 %` looks like a loss; a small curve that is broken into two lines is none."""
    figures = replace(example_result().policies[0].whole, share=Band(-1e-9, None, None), right=None)
    one = replace(example_result(), policies=(replace(example_result().policies[0], whole=figures),))
    ((_, cells),) = whole_table(one).lines(foot=False)
    assert {column.heading: cell.text for column, cell in cells}["Share of lift"] == "0 %"
    console = Console(width=80)
    with console.capture() as captured:
        for part in terminal_parts(example_result()):
            console.print(part)
    assert sparkline(example_result().policies[2].curve.share.mean) in captured.get()


def test_files_are_there_even_if_nobody_reads_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`simulator run ... | head -3` ends the output early, not the work."""

    def closed(_: object) -> list[str]:
        raise BrokenPipeError

    monkeypatch.setattr("simulator.commands.run.terminal_parts", closed)
    file, folder = tmp_path / "run.json", tmp_path / "page"
    simulator(
        "storefront",
        "--policy",
        "uniform",
        "--rounds",
        "9",
        "--seeds",
        "1",
        "--json",
        f"{file}",
        "--report",
        f"{folder}",
    )
    assert json.loads(file.read_text(encoding="utf-8"))["rounds"] == 9
    assert (folder / "index.html").exists()


def test_policies_given_twice_are_played_once() -> None:
    """A repeated name is no other policy."""
    result = simulator("storefront", *["--policy", "fixed:sale"] * 2, "--rounds", "20", "--seeds", "1")
    assert result.stdout.count("fixed:sale") == 3, "in both tables and in one line below"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["storefrnt"], "did you mean storefront?"),
        (["storefront", "--policy", "nonsense"], "there is no policy 'nonsense'"),
        (["storefront", "--rounds", "0"], "'--rounds': 0 is not in the range"),
        (["storefront", "--rounds", "10000001"], "'--rounds': 10000001 is not in the range"),
        (["storefront", "--seeds", "0"], "'--seeds': 0 is not in the range"),
        (["storefront", "--seeds", "10001"], "'--seeds': 10001 is not in the range"),
        (["fitted:"], "fitted:: names no log; write fitted:LOG"),
        (["storefront", "--policy", "FILE", "--json", "FILE"], "--json FILE: is the log itself or another file"),
        (["fitted:FILE", "--json", "FILE"], "--json FILE: is the log itself"),
        (["storefront", "--workers", "0"], "0 is not in the range x>=1"),
        (["storefront", "--report", "FILE/page"], "FILE"),
        (["storefront", "--keep", "FILE"], "is a file"),
        (["storefront", "--json", "none/run.json"], "there is no folder none"),
    ],
)
def test_bad_input_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    """An hour of work must not end in 'there is no such folder'."""
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    result = simulator("--policy", "default", "--rounds", "10000000", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not result.stdout


def test_no_policy_is_refused() -> None:
    """The command names the option."""
    result = simulator("storefront")
    assert result.exit_code == 2
    assert "--policy" in result.stderr


def test_no_such_world() -> None:
    """Far from any name, all are listed."""
    with pytest.raises(NoSuchWorld, match=r"there are .*storefront"):
        find("zzz")
    with pytest.raises(BadPolicy):
        run(Task("storefront", "nonsense", 1, 1))


# The page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's page, with a name that would like to be a script."""
    hostile = replace(example_result().policies[3], name="<script>document.title='taken'</script>")
    return write_run_report(
        replace(example_result(), policies=(*example_result().policies, hostile)),
        tmp_path_factory.mktemp("page") / "new",
    )


def test_the_same_runs_give_the_same_bytes(page: Path, tmp_path: Path) -> None:
    """A page in version control changes only when its figures do."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_run_report(example_result(), folder)
    names = {file.name for file in (tmp_path / "a").iterdir()}
    assert names == {"index.html", "reward.png", "share.png", "regret.png", "right.png"}
    assert names == {file.name for file in page.parent.iterdir()}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_browser_shows_the_page(chromium: Browser, page: Path) -> None:
    """Every plot is decoded, nothing is cut off on a phone or a desk, by day or by night; names are text."""
    shown = chromium.page(page)
    assert shown.run("document.images.length") == 4
    assert shown.run(UNDRAWN) == []
    assert shown.run("document.querySelectorAll('#whole tbody tr').length") == 6
    assert shown.run("document.querySelectorAll('#last-fifth tbody tr').length") == 6
    assert shown.run("document.title") == "What policies earn in a simulated world: storefront"
    assert shown.run("document.scripts.length") == 0
    assert all(address.startswith(("file:", "data:")) for address in shown.requests)
    assert_readable(shown)
