"""Worlds made of data: classification data sets as bandits, and worlds fitted to a log of known truth."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from decider.experiment.features import read_features
from decider.log.protocol import NewVersion
from decider.log.sqlite.reader import SqliteReader
from decider.log.sqlite.writer import SqliteLog
from decider.policy.make import make_policy
from decider.types import CONTEXT_FIELDS, ActionId, Context
from simulator.datasets import classification as data_sets
from simulator.datasets import wheels
from simulator.datasets.wheels import DatasetError, DownloadFailed, WrongChecksum
from simulator.evaluate.reward_model import RewardModel
from simulator.logs.columns import Category, Columns, Floats, Number
from simulator.logs.contexts import Contexts
from simulator.logs.decider_log import AmbiguousExperiment
from simulator.logs.errors import BadLog
from simulator.logs.export_log import export_log
from simulator.logs.import_log import import_log
from simulator.logs.open import ReadOptions, open_log
from simulator.run.play import play
from simulator.run.task import Task, run
from simulator.worlds.fitted import ThinLog
from simulator.worlds.registry import NoSuchWorld, data_names, find, names
from simulator.worlds.resampled import LoggedRewards
from simulator.worlds.world import Visits, World
from tests.logged_worlds import ACTIONS, DEVICES, SEGMENTS, logged_world, means_of


@pytest.fixture(scope="module")
def wheels_there() -> None:
    """The real wheels; without a network and without them in the cache there is nothing to test."""
    try:
        for wheel in (data_sets.SCIKIT_LEARN, data_sets.RIVER):
            wheels.fetch(wheel)
    except DownloadFailed as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 20,000 decisions whose true means are `means_of`."""
    path = tmp_path_factory.mktemp("logs") / "shop.parquet"
    export_log(logged_world(seed=3, decisions=20_000, epsilon=0.5).columns, path)
    return path


def write(columns: Columns, path: Path) -> Columns:
    """The log as a file; the same columns again."""
    export_log(columns, path)
    return columns


def check_law_of_visits(world: World, visits: Visits, rounds: int) -> None:
    """What every world promises in `world.py`."""
    cases, actions = len(visits.contexts), len(world.actions)
    assert len(visits) == rounds
    assert visits.means.shape == visits.eligible.shape == (cases, actions)
    assert visits.rewards.shape == visits.names.shape == (rounds, actions)
    assert visits.units.shape == visits.delays.shape == visits.seen.shape == (rounds,)
    assert visits.seen.min() >= 0
    assert visits.seen.max() < cases
    assert visits.eligible.any(axis=1).all()
    assert (visits.delays >= 0).all()
    reward = world.experiment.reward
    assert visits.rewards.min() >= reward.minimum
    assert visits.rewards.max() <= reward.maximum
    assert set(np.unique(visits.names)) <= set(range(-1, len(world.reward_names)))
    assert (visits.rewards[visits.names == -1] == reward.default).all()
    assert visits.best[visits.seen].sum(axis=1) == pytest.approx(1)


def check_rewards_have_the_means(visits: Visits) -> None:
    """Within five standard errors of each action's mean over the rounds."""
    gap = visits.rewards - visits.means[visits.seen]
    error = gap.std(axis=0) / len(visits) ** 0.5
    assert (np.abs(gap.mean(axis=0)) <= 5 * error + 1e-12).all()


def same(one: Visits, other: Visits) -> bool:
    """Whether two draws are equal in everything."""
    arrays = ("means", "eligible", "seen", "units", "delays", "rewards", "names")
    return one.contexts == other.contexts and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


# Classification data sets.


@pytest.mark.usefixtures("wheels_there")
@pytest.mark.parametrize(
    ("name", "examples", "features", "classes", "of_the_rarest"),
    [
        ("iris", 150, 4, 3, 50),
        ("wine", 178, 13, 3, 48),
        ("breast-cancer", 569, 30, 2, 212),
        ("digits", 1797, 64, 10, 174),
        ("bananas", 5300, 2, 2, 2376),
        ("phishing", 1250, 9, 2, 548),
        ("image-segments", 2310, 18, 7, 330),
        ("shuttle", 49097, 9, 2, 3511),
    ],
)
def test_every_data_set_is_read_whole(
    name: str, examples: int, features: int, classes: int, of_the_rarest: int
) -> None:
    """Figures are compared with those of others only if the data are theirs: no example lost, no label mixed up."""
    found = data_sets.load(name)
    assert len(found.features) == len(found.labels) == examples
    assert {len(one) for one in found.features} == {features}
    assert {type(value) for one in found.features for value in one.values()} == {float}
    assert len(found.classes) == classes
    assert min(Counter(found.labels.tolist()).values()) == of_the_rarest
    line = find(f"data:{name}").line
    assert f"{examples} examples, {features} features, {classes} classes" in line
    assert "BSD-3-Clause" in line


def test_the_list_of_data_sets_is_that_of_the_data_worlds() -> None:
    """They are listed apart from the worlds that need no download, and without one."""
    assert data_names() == [f"data:{name}" for name in data_sets.names()]
    assert len(data_names()) == 8
    assert not set(data_names()) & set(names())


@pytest.mark.usefixtures("wheels_there")
def test_known_examples_have_their_classes() -> None:
    """The first iris of the file is a setosa: features and labels belong together, and names to their columns."""
    iris = data_sets.load("iris")
    assert iris.features[0] == {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    assert (iris.classes[iris.labels[0]], iris.classes[iris.labels[-1]]) == ("setosa", "virginica")
    cancer = data_sets.load("breast-cancer")
    assert (cancer.features[0]["mean_radius"], cancer.features[0]["worst_area"]) == (17.99, 2019.0)
    assert cancer.classes[cancer.labels[0]] == "malignant"
    digits = data_sets.load("digits")
    assert [digits.classes[label] for label in digits.labels[:4]] == ["0", "1", "2", "3"]
    assert digits.features[0]["pixel_0_2"] == 5.0
    shuttle = data_sets.load("shuttle")
    assert shuttle.classes[shuttle.labels[0]] == "anomaly"


@pytest.mark.usefixtures("wheels_there")
@pytest.mark.parametrize("name", data_names())
def test_data_worlds_keep_the_law_of_visits(name: str) -> None:
    """Everything that plays or drives a world rests on it."""
    world = find(name)
    visits = world.draw(3, 700)
    check_law_of_visits(world, visits, 700)
    assert (visits.rewards == visits.means[visits.seen]).all(), "the right class earns 1, surely"
    assert set(visits.rewards.sum(axis=1)) == {1.0}
    assert same(visits, world.draw(3, 700))
    assert not np.array_equal(visits.seen, world.draw(4, 700).seen)
    assert np.array_equal(visits.seen[:100], world.draw(3, 100).seen), "shorter runs are the beginning of longer ones"


@pytest.mark.usefixtures("wheels_there")
@pytest.mark.parametrize("name", data_names())
def test_a_server_would_take_every_context_of_the_data(name: str) -> None:
    """These worlds are also driven against live servers, which refuse what is too long, too many or too large."""
    contexts = find(name).draw(1, 1).contexts[:300]
    assert not any(any(context[:5]) for context in contexts)
    for context in contexts:
        message = json_format.ParseDict(dict(context.features), Struct())
        assert not read_features(message, reserved=CONTEXT_FIELDS)[1]


@pytest.mark.usefixtures("wheels_there")
def test_all_examples_come_once_before_one_comes_again() -> None:
    """A policy meets what it has seen only when the data are through, and then in another order."""
    seen = find("data:wine").draw(5, 2 * 178 + 10).seen
    once, again = seen[:178], seen[178:356]
    assert sorted(once) == sorted(again) == list(range(178))
    assert not np.array_equal(once, again)
    assert not np.array_equal(once, np.arange(178))


@pytest.mark.usefixtures("wheels_there")
def test_our_default_learns_the_irises() -> None:
    """The reward must tell the classes: after 600 examples much more is right than an even choice's third."""
    result = run(Task("data:iris", "default", seed=1, rounds=600, delayed=False))
    assert result.best[-1] == 600
    assert result.uniform[-1] == pytest.approx(200)
    assert result.earned[-1] > 200 + 5 * (600 * 2 / 9) ** 0.5
    assert run(Task("data:iris", "fixed:setosa", seed=1, rounds=600)).earned[-1] == pytest.approx(200)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("data:digit", "did you mean data:digits"),
        ("storefrnt", "did you mean storefront"),
        ("zzz", "there are .*data:wine.*fitted:LOG"),
    ],
)
def test_an_unknown_world_is_answered_with_the_nearest_one(name: str, advice: str) -> None:
    """A typing error must not start a download."""
    with pytest.raises(NoSuchWorld, match=advice):
        find(name)


def test_an_unknown_data_set_is_refused_with_the_known_ones() -> None:
    """Callers of the reader see what there is."""
    with pytest.raises(DatasetError, match="no data set 'moons'; there are bananas, breast-cancer"):
        data_sets.load("moons")


@pytest.mark.parametrize("wheel", [data_sets.SCIKIT_LEARN, data_sets.RIVER])
def test_without_a_network_the_file_to_bring_is_named(
    wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel with compiled code has many files; the message says which one, and where it goes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DownloadFailed, match=rf"put {wheel.file} into {tmp_path}"):
        wheels.read(wheel, "anything")


def test_another_wheel_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new release may hold other data under the same name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = wheels.cache_path(data_sets.RIVER)
    path.parent.mkdir()
    path.write_bytes(b"another")
    with pytest.raises(WrongChecksum, match="delete the file and run again"):
        wheels.read(data_sets.RIVER, "river/datasets/banana.zip")


@pytest.mark.usefixtures("wheels_there")
def test_the_data_need_nothing_of_the_libraries_they_are_shipped_with() -> None:
    """They would bring a hundred megabytes and their own versions of numpy."""
    assert data_sets.load("iris").classes
    assert not {"sklearn", "river"} & set(sys.modules)


# Rewards with a given mean.

REWARDS = st.lists(st.integers(-50, 50), min_size=2, max_size=8, unique=True)


@settings(max_examples=300, deadline=None)
@given(values=REWARDS, data=st.data())
def test_resampled_rewards_have_exactly_the_wanted_mean(values: list[int], data: st.DataObject) -> None:
    """The figures of a world are its means; rewards with another mean would teach policies another world."""
    weights = data.draw(st.lists(st.floats(0.01, 10), min_size=len(values), max_size=len(values)))
    wanted = data.draw(st.floats(min(values), max(values)))
    outcomes, mass = np.sort(np.array(values, np.float64)), np.array(weights) / sum(weights)
    shares = LoggedRewards(outcomes, np.array(weights)).shares(np.array([wanted]))
    start, end = shares.start[0], shares.start[0] + shares.width[0]
    edges = np.concatenate([[0.0], np.cumsum(mass)])
    inside = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
    assert shares.width[0] > 0
    assert -1e-9 <= start <= end <= 1 + 1e-9
    assert float(inside @ outcomes) / float(inside.sum()) == pytest.approx(wanted, abs=1e-7)


@settings(max_examples=100, deadline=None)
@given(share=st.floats(0.001, 0.999), wanted=st.floats(0, 1), luck=st.floats(0, 1, exclude_max=True))
def test_clicks_stay_clicks(share: float, wanted: float, luck: float) -> None:
    """Where rewards are 0 and 1 the resampled ones are a draw with the wanted probability, and nothing else."""
    clicks = LoggedRewards(np.array([0.0, 1.0]), np.array([1 - share, share]))
    (reward,) = clicks.rewards(np.array([luck]), clicks.shares(np.array([wanted])))
    if abs(luck - (1 - wanted)) > 1e-9:
        assert reward == float(luck >= 1 - wanted)


@given(luck=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2), wanted=st.floats(0, 60))
def test_more_luck_is_never_less_reward(luck: list[float], wanted: float) -> None:
    """All policies share a round's luck; it must mean the same for all actions."""
    orders = LoggedRewards(np.array([0.0, 20.0, 35.0, 60.0]), np.array([90.0, 5.0, 3.0, 2.0]))
    shares = orders.shares(np.array([wanted, wanted]))
    less, more = orders.rewards(np.sort(np.array(luck)), shares)
    assert less <= more


def test_a_better_action_is_ordered_more_often_at_the_same_prices() -> None:
    """As in a shop: twice the mean is twice the orders, not orders of twice the size."""
    orders = LoggedRewards(np.array([0.0, 20.0, 40.0]), np.array([90.0, 5.0, 5.0]))
    luck = (np.arange(10_000) + 0.5) / 10_000
    rewards = orders.rewards(luck, orders.shares(np.full(10_000, 2 * orders.mean)))
    assert Counter(rewards.tolist()) == {0.0: 8_000, 20.0: 1_000, 40.0: 1_000}


# Worlds fitted to a log.


def test_a_fitted_world_says_everywhere_that_it_is_fitted(shop: Path) -> None:
    """Nobody must take its figures for evidence about real visitors, nor its experiment for the shop's own."""
    world = find(f"fitted:{shop}")
    assert world.fitted == str(shop)
    assert world.name == f"fitted:{shop}"
    assert "FITTED" in world.line
    assert str(shop) in world.line
    assert "no real visitors" in world.line
    assert world.experiment.id == "fitted-shop.parquet"
    assert "fitted to" in world.experiment.description
    assert not find("storefront").fitted


def test_fitted_worlds_keep_the_law_of_visits(shop: Path) -> None:
    """Everything that plays or drives a world rests on it; the same seed gives the same visits."""
    world = find(f"fitted:{shop}")
    visits = world.draw(1, 5_000)
    check_law_of_visits(world, visits, 5_000)
    check_rewards_have_the_means(visits)
    assert same(visits, world.draw(1, 5_000))
    assert not np.array_equal(visits.seen, world.draw(2, 5_000).seen)
    assert len(visits.contexts) == len(SEGMENTS) * len(DEVICES), "equal contexts are one case"
    assert world.actions == ACTIONS
    assert set(np.unique(visits.rewards)) == {0.0, 1.0}
    assert len(world.draw(1, 0)) == 0


def true_means(visits: Visits) -> Floats:
    """(cases, actions): what the world that wrote the log would have paid."""
    segment = np.array([SEGMENTS.index(context.segment) for context in visits.contexts])
    device = np.array([DEVICES.index(context.device) for context in visits.contexts])
    return means_of(segment, device)


def test_fitted_means_are_near_the_true_ones(shop: Path) -> None:
    """20,000 decisions, about 300 for each case and action: a Bernoulli mean is known to 0.03 or so."""
    visits = find(f"fitted:{shop}").draw(1, 5_000)
    truth = true_means(visits)
    crude = np.abs(truth - truth.mean(axis=0)).mean()
    assert np.abs(visits.means - truth).mean() < 0.35 * crude
    assert np.abs(visits.means - truth).max() < 4 * (0.25 / 300) ** 0.5


def test_a_fitted_world_ranks_policies_as_the_true_one(shop: Path) -> None:
    """That is its use: uniform below what logged, that below the best; and the best there is good in truth, too."""
    visits = find(f"fitted:{shop}").draw(1, 5_000)
    logging = visits.uniform * 0.5
    desktop = np.array([context.device == "desktop" for context in visits.contexts])
    logging[np.arange(len(desktop)), np.where(desktop, 1, 0)] += 0.5
    for means in (visits.means, true_means(visits)):
        uniform, logged, best = (
            (pmf * means).sum(axis=1)[visits.seen].mean() for pmf in (visits.uniform, logging, visits.best)
        )
        assert uniform < logged < best
    truth = true_means(visits)
    assert (visits.best * truth).sum(axis=1)[visits.seen].mean() > 0.95 * truth.max(axis=1)[visits.seen].mean()


def test_visitors_come_as_often_as_in_the_log(shop: Path) -> None:
    """Chi-squared over the cases; would fail once in 10,000 seeds."""
    columns = logged_world(seed=3, decisions=20_000, epsilon=0.5).columns
    segment, device = columns.fields["segment"], columns.fields["device"]
    assert isinstance(segment, Category)
    assert isinstance(device, Category)
    logged = Counter((segment.values[s], device.values[d]) for s, d in zip(segment.codes, device.codes, strict=True))
    visits = find(f"fitted:{shop}").draw(11, 30_000)
    drawn = Counter((visits.contexts[case].segment, visits.contexts[case].device) for case in visits.seen)
    assert drawn.keys() == logged.keys()
    expected = {case: count * 30_000 / 20_000 for case, count in logged.items()}
    statistic = sum((drawn[case] - count) ** 2 / count for case, count in expected.items())
    assert statistic < chi2.ppf(0.9999, len(expected) - 1)


def test_our_default_learns_in_a_fitted_world(shop: Path) -> None:
    """The rewards must teach what the means say."""
    world = find(f"fitted:{shop}")
    visits = world.draw(1, 3_000)
    policy = make_policy(world.experiment.policy)
    played = play(world, visits, policy, floor=world.experiment.minimum_propensity, random=Random(1), delayed=False)
    uniform = (visits.uniform * visits.means).sum(axis=1)[visits.seen]
    late = slice(1_500, None)
    gain = played.earned[late] - uniform[late]
    assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5


def odd(decisions: int = 2_000) -> Columns:
    """Two eligible sets, a number, a category that may be missing, units that come thrice, rewards in money."""
    columns = logged_world(seed=9, decisions=decisions, repeats=3).columns
    rng = np.random.default_rng(9)
    eligible = rng.integers(0, 2, decisions).astype(np.int32)
    sets = (tuple(range(5)), (0, 1, 3))
    action = np.where(eligible == 1, np.array([0, 1, 3])[rng.integers(0, 3, decisions)], rng.integers(0, 5, decisions))
    order = np.round(rng.uniform(5, 80, decisions), 2)
    bought = rng.random(decisions) < 0.1 + 0.1 * (action == 3)
    segment = columns.fields["segment"]
    assert isinstance(segment, Category)
    some = np.where(rng.random(decisions) < 0.3, -1, segment.codes).astype(np.int32)
    age = np.where(rng.random(decisions) < 0.3, np.nan, rng.integers(18, 80, decisions))
    return replace(
        columns,
        action=action.astype(np.int32),
        propensity=np.where(eligible == 1, 1 / 3, 1 / 5),
        pmf=np.concatenate([np.full(3 if one else 5, 1 / 3 if one else 1 / 5, np.float32) for one in eligible]),
        reward=np.where(bought, order, np.where(rng.random(decisions) < 0.02, -4.0, 0.0)),
        reward_range=(-4.0, 80.0),
        sets=sets,
        eligible=eligible,
        fields={"segment": Category(some, segment.values), "age": Number(age)},
    )


def test_context_eligible_actions_and_unit_stay_together(tmp_path: Path) -> None:
    """A visitor who could not get an offer must not be given one in the simulation."""
    path = tmp_path / "odd.parquet"
    write(odd(), path)
    columns = open_log(str(path), ReadOptions())
    sets = [frozenset(columns.actions[member] for member in members) for members in columns.sets]
    rows = zip(Contexts().of(columns), columns.eligible, columns.unit, strict=True)
    logged = {(who(context), sets[code], int(unit)) for context, code, unit in rows}
    world = find(f"fitted:{path}")
    visits = world.draw(2, 20_000)
    check_law_of_visits(world, visits, 20_000)
    check_rewards_have_the_means(visits)
    menus = [frozenset(np.array(world.actions)[row].tolist()) for row in visits.eligible]
    pairs = zip(visits.seen, visits.units, strict=True)
    drawn = {(who(visits.contexts[case]), menus[case], int(unit)) for case, unit in pairs}
    assert drawn <= logged
    assert len(drawn) > 0.99 * len(logged), "20,000 draws leave out about e^-10 of 2,000 decisions"
    assert len({menus[case] for case in visits.seen}) == 2


def who(context: Context) -> tuple[object, ...]:
    """A context that can be a key."""
    return (*context[:5], *sorted(context.features.items()))


def test_rewards_in_money_are_those_that_were_paid(tmp_path: Path) -> None:
    """An order of a size that nobody ever made would be an invention."""
    columns = write(odd(), tmp_path / "odd.csv")
    visits = find(f"fitted:{tmp_path / 'odd.csv'}").draw(2, 3_000)
    assert set(np.unique(visits.rewards)) <= set(np.unique(columns.reward))
    assert visits.means.min() >= columns.reward.min()
    assert visits.means.max() <= columns.reward.max()


def test_equal_contexts_are_worth_the_same_whoever_comes() -> None:
    """The folds of the reward model keep units apart; a world has one mean for one case."""
    columns = logged_world(seed=2, decisions=2_000).columns
    model = RewardModel(columns)
    again = replace(columns, unit=np.arange(2_000)[::-1])
    assert np.array_equal(model.predict_new(columns), model.predict_new(again))
    assert not np.array_equal(model.predict(columns), model.predict(again))


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A log of ours, with delays and a default of 0.1, of which two versions of the experiment are known."""
    columns = logged_world(seed=4, decisions=1_500).columns
    rewarded = columns.reward > 0
    delay = np.where(rewarded, np.random.default_rng(4).exponential(30.0, 1_500), np.nan)
    reward = np.where(rewarded, 1.0, 0.1)
    path = tmp_path / "ours.db"
    import_log(replace(columns, reward=reward, default=~rewarded, delay=delay), path, experiment="home")
    with closing(SqliteReader(path)) as reader:
        (version,) = reader.versions()
    actions = tuple(
        replace(action, retired=action.id == "gift", kind="offer" if action.id == "sale" else action.kind)
        for action in version.experiment.actions
    )
    newer = replace(version.experiment, actions=actions, baseline=ActionId("none"), paused=False, holdout=0.1)
    with closing(SqliteLog(path)) as log:
        log.append([NewVersion(newer, number=2)])
    return path


def test_the_newest_version_is_what_a_fitted_world_tries(ours: Path) -> None:
    """Retired actions are no choice any more; default, delays and pace are those of the log."""
    world = find(f"fitted:{ours}")
    visits = world.draw(1, 4_000)
    check_law_of_visits(world, visits, 4_000)
    check_rewards_have_the_means(visits)
    experiment = world.experiment
    assert experiment.id == "fitted-home"
    assert set(world.actions) == set(ACTIONS) - {"gift"}
    assert [action.kind for action in experiment.actions if action.id == "sale"] == ["offer"]
    assert (experiment.baseline, experiment.paused, experiment.holdout) == ("none", False, 0.0)
    assert experiment.reward.default == 0.1
    assert set(np.unique(visits.rewards)) == {0.1, 1.0}
    assert np.array_equal(visits.names == -1, visits.rewards == 0.1)
    assert world.traffic == pytest.approx(1.0, rel=0.01)
    assert visits.delays.mean() == pytest.approx(30.0, abs=5 * 30 / 1_500**0.5 / 0.4)
    assert visits.delays.max() * 1e6 < experiment.reward.window
    assert visits.means.shape[1] == 4


def test_a_late_reward_is_learned_as_the_default(ours: Path) -> None:
    """As the server does: a fitted world's default need not be 0."""
    world = find(f"fitted:{ours}")
    visits = world.draw(1, 50)
    late = replace(visits, delays=np.full(50, 1e9))
    learned: list[float] = []

    class Uniform:
        """Learns nothing, but remembers what it was told."""

        def pmf(self, _context: object, actions: list[str]) -> list[float]:
            return [1 / len(actions)] * len(actions)

        def learn(self, *_: object, reward: float, **__: object) -> None:
            learned.append(reward)

    short = replace(world.experiment, reward=replace(world.experiment.reward, window=1_000))
    play(replace(world, experiment=short), late, Uniform(), floor=0.0, random=Random(1))  # type: ignore[arg-type]
    assert set(learned) == {0.1}
    assert len(learned) > 40


def test_the_experiment_of_a_log_can_be_named(ours: Path) -> None:
    """A log may hold several experiments; a # may also be a part of the path."""
    assert find(f"fitted:{ours}#home").experiment.id == "fitted-home"
    with pytest.raises(AmbiguousExperiment, match="no experiment 'cart'; it has home"):
        find(f"fitted:{ours}#cart")
    moved = ours.rename(ours.with_name("a#b.db"))
    assert find(f"fitted:{moved}").experiment.id == "fitted-home"


def test_without_delays_there_is_time_enough_for_a_reward(shop: Path) -> None:
    """The window of an import without delays is a millisecond: on a live server every reward would be late."""
    world = find(f"fitted:{shop}")
    assert world.experiment.reward.window == 600_000_000
    assert set(world.draw(1, 100).delays) == {0.0}


def test_a_log_that_has_grown_is_another_world(tmp_path: Path) -> None:
    """A cached world of an old log would be shown under the name of the new one."""
    path = tmp_path / "log.csv"
    columns = logged_world(seed=1, decisions=900).columns
    write(columns.take(slice(0, 400)), path)
    assert "400 decisions" in find(f"fitted:{path}").line
    write(columns, path)
    assert "900 decisions" in find(f"fitted:{path}").line


def test_actions_that_were_never_drawn_are_no_choice(tmp_path: Path) -> None:
    """Nothing is known of them; a model would give them the average of the others."""
    columns = logged_world(seed=1, decisions=900).columns
    seldom = columns.take(columns.action != 4)
    write(seldom, tmp_path / "log.csv")
    world = find(f"fitted:{tmp_path / 'log.csv'}")
    assert set(world.actions) == set(ACTIONS) - {"gift"}
    check_law_of_visits(world, world.draw(1, 500), 500)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (logged_world(seed=1, decisions=60).columns, r"has 60 decisions with a final reward; .* 100 at least"),
        (
            replace(logged_world(seed=1, decisions=200).columns, reward=np.zeros(200)),
            "every decision has the reward 0; nothing says which action is better",
        ),
        (
            (lambda one: one.take(one.action == 0))(logged_world(seed=1, decisions=900).columns),
            "the log drew sale; nothing says what others are worth",
        ),
    ],
)
def test_a_log_that_says_too_little_is_refused_with_the_reason(columns: Columns, reason: str, tmp_path: Path) -> None:
    """A world of one action, or of no reward, would let every policy look perfect."""
    write(columns, tmp_path / "thin.csv")
    with pytest.raises(ThinLog, match=reason):
        find(f"fitted:{tmp_path / 'thin.csv'}")


def test_a_log_that_is_not_there_is_named() -> None:
    """The way out is to look at the path."""
    with pytest.raises(BadLog, match=r"nowhere\.db: there is no such log; check the path"):
        find("fitted:nowhere.db")


def test_the_storefront_is_found_again_in_its_own_log(tmp_path: Path) -> None:
    """All the way round: a known world plays, its log is fitted, and the best policy of the fit is good in truth."""
    storefront = find("storefront")
    visits, rng = storefront.draw(1, 15_000), np.random.default_rng(1)
    action = rng.integers(0, len(storefront.actions), len(visits))
    contexts = [visits.contexts[case] for case in visits.seen]
    count = len(storefront.actions)
    write(
        Columns(
            name="storefront",
            actions=storefront.actions,
            action=action.astype(np.int32),
            propensity=np.full(len(visits), 1 / count),
            reward=visits.rewards[np.arange(len(visits)), action],
            reward_range=(0.0, 1.0),
            time=np.arange(len(visits)) * 500_000,
            known=np.arange(len(visits)) * 500_000,
            unit=visits.units,
            fields={name: Category.of([getattr(one, name) for one in contexts]) for name in CONTEXT_FIELDS},
            sets=(tuple(range(count)),),
            eligible=np.zeros(len(visits), np.int32),
        ),
        tmp_path / "storefront.parquet",
    )
    fitted = find(f"fitted:{tmp_path / 'storefront.parquet'}")
    again = fitted.draw(1, 15_000)
    order = [fitted.actions.index(id_) for id_ in storefront.actions]
    true = {context[:5]: row for context, row in zip(visits.contexts, visits.means, strict=True)}
    truth = np.array([true[context[:5]] for context in again.contexts])
    uniform, chosen, best = (
        (pmf * truth).sum(axis=1)[again.seen].mean()
        for pmf in (np.full(truth.shape, 1 / count), again.best[:, order], (truth == truth.max(axis=1)[:, None]) * 1.0)
    )
    assert uniform + 0.5 * (best - uniform) < chosen <= best
    assert fitted.traffic == pytest.approx(2.0, rel=0.01)
