"""The bake-off: rivals choose with their own code, everybody meets the same visits, the tables say what was found."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import nct
from scipy.stats import t as student

from decider.policy.algorithms import ALGORITHMS
from decider.types import Context
from simulator.compare.paired import paired
from simulator.run.play import play
from simulator.run.policies import find_policy
from simulator.run.sweep import sweep
from simulator.run.task import Task, run
from simulator.run.versions import version_of
from simulator.studies.bakeoff import __main__ as bakeoff
from simulator.studies.bakeoff import table
from simulator.studies.bakeoff.aims import aims
from simulator.studies.bakeoff.before import BEFORE
from simulator.studies.bakeoff.plan import BEST_RIVALS, DEFAULT, LABELS, OTHERS, Seeds, in_plan, tasks
from simulator.studies.bakeoff.plot import shares
from simulator.studies.bakeoff.power import smallest_told
from simulator.studies.bakeoff.results import HERE, HorizonShares, SeedResult, depends_on, play_task, read, rows, write
from simulator.studies.bakeoff.rival_inputs import RivalInputs, WorldSample, sample
from simulator.studies.bakeoff.rivals import RIVALS, NoSuchRival, rival
from simulator.studies.bakeoff.vectors import Vectors
from simulator.studies.bakeoff.verdicts import (
    BETTER,
    EVEN,
    UNKNOWN,
    WORSE,
    Against,
    Cell,
    against_rivals,
    best,
    cells,
    changes,
    together,
    verdict,
)
from simulator.worlds.registry import data_names, find, names

ROOT = Path(__file__).parent.parent
INTERPRETER = ROOT / ".venv-bakeoff/bin/python"
STOREFRONT = find("storefront")

needs_rivals = pytest.mark.skipif(
    not INTERPRETER.exists(), reason="the bake-off's environment is not there: `make bakeoff ARGS=--help` makes it"
)


def test_a_vector_has_one_place_for_each_value() -> None:
    """A rival that mixes up two values would be beaten by our encoding, not by our policy."""
    seen = (Context("new", "mobile"), Context("vip", features={"age": 20.0, "member": True}), Context(device="tv"))
    vectors = Vectors.seen_in((*seen, Context(features={"age": 60.0})))
    matrix = np.array([vectors.of(context) for context in seen])
    assert matrix.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, -1], [0, 0, 0, 0, 1, 0]]


def test_what_the_sample_did_not_have_is_left_out() -> None:
    """A world may show a value later on: the vector keeps its length."""
    vectors = Vectors.seen_in((Context("new", features={"age": 20.0}), Context("new", features={"age": 30.0})))
    assert vectors.of(Context("vip", features={"age": 40.0, "height": 1.8})).tolist() == [0.0, 3.0]


def test_binary_rewards_are_told_from_amounts() -> None:
    """contextualbandits learns from 0 and 1 only: it must sit out where a purchase has an amount, and nowhere else."""
    assert sample(STOREFRONT).binary
    assert not sample(find("purchases")).binary
    assert [
        one.policy for one in tasks(["purchases"], list(OTHERS), Seeds(1, 0, 0)) if "contextual" in one.policy
    ] == []


def test_a_rival_is_played_through_its_name() -> None:
    """`simulator run WORLD --policy rival:NAME` and the bake-off must mean the same; it has no floor."""
    learner = find_policy("rival:vw", STOREFRONT)
    assert getattr(learner, "floor", None) == 0.0
    assert 0.1 < run(Task("storefront", "rival:vw", seed=1, rounds=3_000, delayed=False)).share() < 1


def test_an_unknown_rival_is_refused_with_the_names_that_there_are() -> None:
    """A typo must not become a run of something else."""
    with pytest.raises(NoSuchRival, match=r"there is no rival .mabwiser-lin.; .*mabwiser-linucb"):
        find_policy("rival:mabwiser-lin", STOREFRONT)


def test_everybody_meets_the_same_visits() -> None:
    """Differences are paired by seed: all policies have the same best and even rewards there, and the same horizons."""
    found = [run(Task("storefront", policy, seed=7, rounds=4_000)) for policy in ("default", "rival:vw", "first")]
    assert len({(one.best[-1], one.uniform[-1], tuple(one.rounds)) for one in found}) == 1
    assert play_task(found[0].task).horizons == [4_000]


def test_long_runs_count_at_short_horizons_and_slow_rivals_stop() -> None:
    """One run of 100,000 rounds is three results; who is too slow for it plays the other seeds."""
    planned = tasks(["storefront", "data:iris"], [DEFAULT, "rival:mabwiser-lints-0.1"], Seeds(1, 1, 1))
    assert len(set(planned)) == len(planned)
    longest = {(one.world, one.policy): one.rounds for one in sorted(planned, key=lambda one: one.rounds)}
    assert longest == {
        ("storefront", DEFAULT): 100_000,
        ("storefront", "rival:mabwiser-lints-0.1"): 20_000,
        ("data:iris", DEFAULT): 4_000,
        ("data:iris", "rival:mabwiser-lints-0.1"): 4_000,
    }


def test_the_plan_has_its_seeds_at_every_horizon() -> None:
    """15, 9 and 3 as the plan says, from 20,001 on: a long run counts at the shorter horizons, too."""
    runs = Seeds(at_4k=15, at_20k=9, at_100k=3).runs()
    assert sorted(seed for seed, _ in runs) == list(range(20_001, 20_016))
    assert [rounds for _, rounds in runs] == sorted(rounds for _, rounds in runs)
    assert [sum(rounds >= horizon for _, rounds in runs) for horizon in (4_000, 20_000, 100_000)] == [15, 9, 3]


def test_a_slow_rival_plays_the_first_rounds_of_a_long_seed() -> None:
    """It meets the visitors whom the others meet there, so that it has as many seeds as they."""
    planned = tasks(["clicks"], [DEFAULT, "rival:mabwiser-lints-0.1"], Seeds(12, 6, 3))
    reached = {
        policy: [
            len({one.seed for one in planned if one.policy == policy and one.rounds >= h}) for h in (4_000, 20_000)
        ]
        for policy in (DEFAULT, "rival:mabwiser-lints-0.1")
    }
    assert reached == {policy: [12, 6] for policy in reached}


def test_the_plan_names_the_rivals_of_every_world() -> None:
    """A world that was forgotten would be played by all rivals; a misspelled rival by none."""
    assert set(BEST_RIVALS) == {*names(), *data_names()}
    for world, rivals in BEST_RIVALS.items():
        assert 2 <= len(rivals) <= 5, world
        assert set(rivals) <= RIVALS.keys(), world
    planned = {one.policy for one in tasks(["season"], list(LABELS), Seeds(1, 0, 0), in_plan)}
    assert planned == {DEFAULT, BEFORE, "rival:coba-squarecb", "rival:mabwiser-linucb"}


def test_the_default_before_plays_as_it_did() -> None:
    """Before and after are paired on the same visits; the share is that of the default when code 2 was the newest."""
    found = run(Task("storefront", BEFORE, seed=7, rounds=1_200, delayed=False)).share()
    assert found == pytest.approx(0.6529520963910623, rel=1e-6)


def test_a_changed_default_does_not_run_the_others_again() -> None:
    """An hour of rivals is kept while our default is made better; its own runs are not."""
    names = (DEFAULT, "squarecb", "rival:vw")
    default, ours, theirs = (depends_on(Task("storefront", name, seed=1, rounds=10)) for name in names)
    assert default == version_of(Task("storefront", DEFAULT, seed=1, rounds=10))
    assert "--squarecb" in ours
    before = depends_on(Task("storefront", BEFORE, seed=1, rounds=10))
    assert BEFORE in before
    assert len({default, ours, theirs, before}) == 4
    assert "mabwiser" in depends_on(Task("storefront", "rival:mabwiser-lints-0.1", seed=1, rounds=10))


def made_up(policy: str, found: Sequence[float], *, world: str = "a", first: int = 1) -> list[SeedResult]:
    """Shares of one policy in one world, by seed."""
    return [SeedResult(world, False, policy, first + seed, 4_000, share, 1.0) for seed, share in enumerate(found)]


OURS = (0.80, 0.81, 0.79, 0.80, 0.82)
FOUND = [
    *made_up(DEFAULT, OURS),
    *made_up("rival:vw", [share - 0.3 - 0.001 * place for place, share in enumerate(OURS)]),
    *made_up("rival:coba-squarecb", [share + 0.1 + 0.001 * place for place, share in enumerate(OURS)]),
    *made_up("rival:mabwiser-linucb", [0.7, 0.9, 0.8, 0.75, 0.85]),
]


def test_verdicts_are_of_our_default_and_not_of_the_rival() -> None:
    """A sign turned round would publish losses as wins."""
    found = {one.policy: one for one in against_rivals(cells(FOUND)[Cell("a", False, 4_000)])}
    assert found["rival:vw"].conclusion == BETTER
    assert found["rival:vw"].low <= found["rival:vw"].difference <= found["rival:vw"].high
    assert found["rival:vw"].difference == pytest.approx(0.302)
    assert found["rival:coba-squarecb"].conclusion == WORSE
    assert found["rival:mabwiser-linucb"].conclusion not in (BETTER, WORSE)
    hardest = best(found.values())
    assert hardest
    assert hardest.policy == "rival:coba-squarecb"


def test_rivals_with_fewer_seeds_are_compared_on_those_alone() -> None:
    """Slow rivals play fewer seeds; pairing them with others' seeds would compare different visitors."""
    some = [*FOUND[:15], *made_up("rival:mabwiser-lints-0.1", [0.60, 0.62, 0.61], first=3)]
    found = {one.policy: one for one in against_rivals(cells(some)[Cell("a", False, 4_000)])}
    assert found["rival:mabwiser-lints-0.1"].ours == pytest.approx(np.mean(OURS[2:]))
    assert found["rival:vw"].ours == pytest.approx(np.mean(OURS))
    alone = {one.policy: one for one in against_rivals(cells(FOUND[:15])[Cell("a", False, 4_000)])}
    assert found["rival:vw"].high - found["rival:vw"].low > alone["rival:vw"].high - alone["rival:vw"].low


def test_means_are_of_those_that_played_everywhere() -> None:
    """One that left out the hard worlds would look good."""
    rows = [*FOUND, *made_up(DEFAULT, [0.2], world="b"), *made_up("rival:vw", [0.1], world="b")]
    text = table.overall(cells(rows))
    assert "| our default (thompson) | 0.50 (0.20) |" in text
    assert "| VW's own defaults | 0.30 (0.10) |" in text
    assert "LinUCB" not in text


def test_of_one_seed_nothing_is_said() -> None:
    """There is no interval: to count it as even would look like a result."""
    text = table.summary([*made_up(DEFAULT, [0.8]), *made_up("rival:vw", [0.2])])
    assert "| VW's own defaults | 1 with one seed |" in text
    assert "| a, immediate | 0.80 ? 0.20 VW's own defaults |" in text


def test_the_tables_count_wins_and_name_losses() -> None:
    """Losses are shown as openly as wins: by name, with their size."""
    text = table.summary(FOUND)
    assert "| VW's own defaults | 1 better, 0 even, 0 worse |" in text
    assert "| coba VowpalSquarecbLearner | 0 better, 0 even, **1 worse** |" in text
    assert "| **all rivals there** | 0 better, 0 even, **1 worse** |" in text
    assert "| all rivals there, corrected for all cells | 0 better, 0 even, **1 worse** |" in text
    assert "| worse than a rival: none | **1 of 1** |" in text
    assert "- a, immediate rewards, 4,000 rounds: coba VowpalSquarecbLearner by 0.102 (0." in text
    assert "| MABWiser LinTS, alpha 0.1 | - |" in text
    assert "| a, immediate | 0.80 **<** 0.91 coba VowpalSquarecbLearner |" in text
    assert table.results(FOUND).count("0.804 ±0.005") == 1
    assert "anywhere" in table.summary(made_up(DEFAULT, OURS))


def against(ours: float, p: float, conclusion: str) -> list[Against]:
    """A cell with one rival."""
    return [Against("rival:vw", ours, 0.5, ours - 0.6, ours - 0.4, conclusion, p, 0.01, 12)]


def test_verdicts_are_corrected_for_the_number_of_cells() -> None:
    """Of a hundred cells without any difference, five are significant alone. Holm: the smallest p times all cells, the
    next times one less, until one is too large."""
    told = [(0.4, 0.001, WORSE), (0.6, 0.012, BETTER), (0.6, 0.024, BETTER), (0.4, 0.03, WORSE), (0.4, np.nan, UNKNOWN)]
    verdicts = {Cell(str(place), False, 4_000): against(*one) for place, one in enumerate(told)}
    assert list(together(verdicts).values()) == [UNKNOWN, WORSE, BETTER, BETTER, WORSE]
    del verdicts[Cell("0", False, 4_000)]
    verdicts[Cell("5", False, 4_000)] = against(0.6, 0.04, BETTER)
    corrected = together(verdicts)
    assert [corrected[Cell(name, False, 4_000)] for name in "1235"] == [BETTER, EVEN, EVEN, EVEN]


def test_a_cell_is_lost_to_any_rival_and_won_against_all() -> None:
    """The best rival in the mean may be the one that nothing can be said of."""
    (lost,), (won,), (even,) = (against(0.5, 0.01, one) for one in (WORSE, BETTER, EVEN))
    assert [verdict(found) for found in ([won, lost, even], [won, even], [won, won])] == [WORSE, EVEN, BETTER]


def test_a_rival_with_one_seed_hides_no_loss_and_lets_no_cell_be_won() -> None:
    """In whatever order the rivals come."""
    (lost,), (won,), (unknown,) = against(0.4, 1e-4, WORSE), against(0.6, 1e-4, BETTER), against(0.3, np.nan, UNKNOWN)
    for found, said in (([lost, unknown], WORSE), ([won, unknown], UNKNOWN)):
        for order in (found, found[::-1]):
            assert verdict(order) == said
            assert list(together({Cell("a", False, 4_000): order}).values()) == [said]


@pytest.mark.parametrize("seeds", [3, 6, 12])
def test_power_is_that_of_the_noncentral_t(seeds: int) -> None:
    """ "Not told apart" says little where the least difference that can be told is large."""
    critical = float(student.isf(0.025, seeds - 1))
    shift = smallest_told(1.0, critical=critical, seeds=seeds)
    assert nct.sf(critical, seeds - 1, shift) == pytest.approx(0.8, abs=1e-4)


def test_a_difference_that_is_told_has_its_power_beside() -> None:
    """The wider the interval, the larger; of one seed nothing is known."""
    found = {one.policy: one for one in against_rivals(cells(FOUND)[Cell("a", False, 4_000)])}
    assert found["rival:vw"].told_from < 0.05 < found["rival:mabwiser-linucb"].told_from
    alone = against_rivals(cells([*made_up(DEFAULT, [0.8]), *made_up("rival:vw", [0.2])])[Cell("a", False, 4_000)])
    assert np.isnan(alone[0].told_from)
    assert np.isnan(alone[0].told_among(100))
    one = found["rival:vw"]
    assert one.told_from < one.told_among(100) < one.told_among(1_000)


def test_before_and_after_are_paired_by_seed_over_all_cells() -> None:
    """Worlds of one seed share their luck: cells are no independent samples."""
    rows = [*made_up(DEFAULT, OURS), *made_up(DEFAULT, OURS, world="b")]
    rows += [
        *made_up(BEFORE, [share - 0.03 for share in OURS]),
        *made_up(BEFORE, [one - 0.01 for one in OURS], world="b"),
    ]
    (change,) = changes(cells(rows)).values()
    assert (change.ours - change.before, change.low, change.high) == pytest.approx((0.02, 0.02, 0.02))
    assert changes(cells(FOUND)) == {}


def test_what_is_missing_of_an_aim_is_said() -> None:
    """With the amount: a loss is no footnote."""
    found = cells([*FOUND, *made_up(BEFORE, [share - 0.015 + 0.001 * place for place, share in enumerate(OURS)])])
    lost, won, gained, old, *_ = aims(found, {cell: against_rivals(one) for cell, one in found.items()})
    assert lost[1] == "**1 of 1**"
    assert won[1] == "**0 of 1, 1 missing**"
    assert gained[1].startswith("**+0.013 (+0.011 to +0.015), 0.007 missing")
    assert gained[1:] == old[1:]


def test_the_change_is_told_without_the_worlds_that_were_made_for_it() -> None:
    """A gain in a world that was made to show it says nothing of those that were there before."""
    rows = [*made_up(DEFAULT, OURS), *made_up(BEFORE, OURS), *made_up("rival:vw", OURS)]
    rows += [
        one
        for policy, more in ((DEFAULT, 0.1), (BEFORE, 0.0), ("rival:vw", 0.0))
        for one in made_up(policy, [share + more for share in OURS], world="shelf")
    ]
    found = cells(rows)
    _, _, gained, old, *_ = aims(found, {cell: against_rivals(one) for cell, one in found.items()})
    assert gained[1].startswith("reached: +0.050")
    assert old[1].startswith("**+0.000")


def test_results_survive_their_file(tmp_path: Path) -> None:
    """The tables are made of the file, not of the run."""
    write(tmp_path / "results.csv", FOUND)
    assert [(one.policy, one.seed, round(one.share, 6)) for one in read(tmp_path / "results.csv")] == [
        (one.policy, one.seed, round(one.share, 6)) for one in FOUND
    ]


def test_the_plot_is_made_of_the_same_results() -> None:
    """The same results give the same bytes; the alternative text counts what the picture shows."""
    plot = shares(FOUND, 4_000)
    assert plot.svg == shares(FOUND, 4_000).svg
    assert plot.alt == "Our default is ahead of the best rival in 0 of 1 rows."
    assert b"immediate rewards" in plot.svg


def test_an_earlier_run_stands_beside_what_is_played(tmp_path: Path) -> None:
    """Rivals take hours and do not change with our default: their results are taken from the run that has them."""
    earlier = [*made_up("rival:vw", [0.1], first=20_001, world="rare"), *made_up(DEFAULT, [0.2], world="rare")]
    write(tmp_path / "earlier.csv", earlier)
    arguments = ["--worlds", "rare", "--policies", "^rival:vw$", "--everybody", "--seeds-4k", "1", "--seeds-20k", "0"]
    more = ["--seeds-100k", "0", "--workers", "1", "--folder", f"{tmp_path}", "--beside", f"{tmp_path}/earlier.csv"]
    done = CliRunner().invoke(bakeoff.main, [*arguments, *more])
    assert done.exit_code == 0, done.output
    found = {(one.policy, one.delayed): one for one in read(tmp_path / "results.csv")}
    assert set(found) == {("rival:vw", False), ("rival:vw", True), (DEFAULT, False)}
    assert found["rival:vw", False].share != 0.1
    assert found[DEFAULT, False].share == 0.2


def test_the_results_show_what_was_found() -> None:
    """Nobody edits a table by hand."""
    found, text = read(HERE / "results.csv"), (HERE.parent / "RESULTS.md").read_text(encoding="utf-8")
    assert table.START in text
    assert table.placed(text, table.summary(found)) == text
    assert (HERE / "RESULTS.md").read_text(encoding="utf-8") == table.results(found)


@pytest.mark.parametrize("name", [name for name, one in ALGORITHMS.items() if one.deprecated])
def test_a_deprecated_algorithm_earned_what_is_said_of_it(name: str) -> None:
    """In the cells of the bake-off of 2026-11 that several seeds played; learning code 2 was the default."""
    names, told = [DEFAULT, name], Counter[str]()
    for there in cells([one for one in read(HERE / "results-code-2.csv") if one.policy in names]).values():
        seeds = sorted(there[DEFAULT].keys() & there[name].keys())
        if len(seeds) > 1:
            both = np.array([[there[policy][seed] for seed in seeds] for policy in names])
            told.update([one.conclusion for one in paired(both, names, reference=0)])
    assert told.total() == 72
    said = ALGORITHMS[name].deprecated
    assert f"in {told[WORSE]} and more in {told[BETTER]};" in said


def test_what_was_played_is_not_played_again(tmp_path: Path) -> None:
    """The bake-off takes an hour; a kill must not cost it."""
    planned = [Task("storefront", "rival:vw", seed=1, rounds=500, delayed=delayed) for delayed in (False, True)]
    first = sweep(planned[:1], play_task, result=HorizonShares, folder=tmp_path, workers=1, version=depends_on)
    again = sweep(planned, play_task, result=HorizonShares, folder=tmp_path, workers=1, version=depends_on)
    assert again[0] == first[0]  # its seconds, too: it was read
    assert again[1].task.delayed
    assert rows(first) == []  # no horizon is that short


SAME_CHOICES = """
import json
import numpy as np
from simulator.studies.bakeoff import with_coba, with_contextualbandits, with_mabwiser
from simulator.studies.bakeoff.rival_inputs import RivalInputs, sample
from simulator.worlds.registry import find
from contextualbandits import online
from sklearn.linear_model import SGDClassifier

world = find("storefront")
visits = world.draw(5, ROUNDS)
given = RivalInputs.of(world, sample(world), seed=3)
choices = given.choices
found = {}
catalogue_context = find("catalogue").draw(1, 1).contexts[0]

class Public(with_mabwiser.Linear):  # nothing but MAB's public methods
    def pmf(self, context, actions):
        if self._models is None:
            return super().pmf(context, actions)
        chosen = self._mab.predict_expectations(self._rows(context))
        best = max(chosen, key=chosen.get)
        return [float(number == best) for number in range(len(actions))]

    def learn(self, context, actions, *, drawn, propensity, reward):
        self._mab.partial_fit(np.array([drawn]), np.array([given.scaled(reward)]), self._rows(context))
        self._models = True

class Plain(with_contextualbandits.Bootstrapped):  # its own decision_function and scikit-learn's own classifier
    def learn(self, *arguments, **named):
        super().learn(*arguments, **named)
        self._scores = self._chooser.decision_function

def public(make, parameter):
    policy = make(given, parameter)
    other = Public.__new__(Public)
    other.__dict__ = make(given, parameter).__dict__
    return policy, other

def plain(name):
    base = SGDClassifier(loss="log_loss", random_state=3)
    chooser = getattr(online, name)(base, 6, batch_train=True, random_state=3, njobs_arms=1)
    return with_contextualbandits.make(given, name), Plain(given, chooser)

pairs = {
    "linucb": public(with_mabwiser.lin_ucb, 1.0),
    "lints": public(with_mabwiser.lin_ts, 0.1),
    "lingreedy": public(with_mabwiser.lin_greedy, 0.1),
    "ucb": plain("BootstrappedUCB"),
    "ts": plain("BootstrappedTS"),
}
for name, pair in pairs.items():
    rounds, same, chosen = ROUNDS if name.startswith("lin") else ROUNDS // 3, 0, set()
    for number in range(rounds):
        context = visits.contexts[visits.seen[number]]
        ours, theirs = (one.pmf(context, choices) for one in pair)
        same += ours == theirs
        drawn = ours.index(max(ours))
        chosen.add(drawn)
        for one in pair:
            one.learn(context, choices, drawn=drawn, propensity=1.0, reward=float(visits.rewards[number, drawn]))
    found[name] = [same / rounds, len(chosen)]

coba = with_coba.make(given, "VowpalEpsilonLearner")
far = 0.0
for number in range(200):
    context = visits.contexts[visits.seen[number]]
    some = choices[number % 3:]
    pmf, ids = coba.pmf(context, some), with_coba._told(some)
    asked = coba._contexts(context)
    far = max(far, *[abs(coba._learner.score(asked, ids, one) - p) for one, p in zip(ids, pmf)])
    coba.learn(context, some, drawn=0, propensity=pmf[0], reward=float(visits.rewards[number, number % 3]))
found["coba"] = far

eligible = {}
for name, (policy, _) in pairs.items():
    if name in ("linucb", "ucb"):
        context = visits.contexts[0]
        every = policy.pmf(context, choices)
        without = [one for one, p in zip(choices, every) if not p]
        eligible[name] = [sum(policy.pmf(context, without)), sum(policy.pmf(context, choices[2:3]))]
found["eligible"] = eligible

catalogue = find("catalogue")
coba = with_coba.make(RivalInputs.of(catalogue, sample(catalogue), seed=3), "VowpalSquarecbLearner")
known = list(catalogue.version.choices.values())
of_first = [one for one in known[1:] if one.features["style"] == known[0].features["style"]]
others = [one for one in known[1:] if not one.features.items() & known[0].features.items()]
menu = [known[0], of_first[0], others[0]]
for number in range(60):
    coba.learn(catalogue_context, menu[:1] + menu[2:], drawn=number % 2, propensity=0.5, reward=1.0 - number % 2)
pmf = coba.pmf(catalogue_context, menu[1:])
found["features"] = pmf[0] > pmf[1]
print(json.dumps(found))
"""


@needs_rivals
def test_rivals_choose_as_their_public_methods_do() -> None:
    """We go around slow layers of theirs; a rival that chooses otherwise would be one of our making."""
    rounds = 600
    done = subprocess.run(
        [INTERPRETER, "-c", SAME_CHOICES.replace("ROUNDS", str(rounds))],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("eligible") == {"linucb": [1.0, 1.0], "ucb": [1.0, 1.0]}
    assert found.pop("coba") < 1e-6
    assert found.pop("features")  # an unseen item is taken for what its features say
    assert {name: same for name, (same, _) in found.items()} == dict.fromkeys(found, 1.0)
    assert min(different for _, different in found.values()) > 1  # else equal choices say little


def test_a_rival_is_given_the_declared_range() -> None:
    """LinUCB's alpha means something else for rewards of 200 than for clicks."""
    purchases = find("purchases")
    given = RivalInputs.of(purchases, WorldSample(Vectors({}, {}), (0.0, 20.0)), seed=1)
    reward = purchases.experiment.reward
    assert (given.scaled(reward.minimum), given.scaled(reward.maximum)) == (0.0, 1.0)
    assert [choice.id for choice in given.choices] == list(purchases.actions)


def test_every_policy_of_the_tables_has_a_name_for_people() -> None:
    """And each of the algorithms that we offer and that learns is among them."""
    assert len(set(LABELS.values())) == len(LABELS)
    assert {name.removeprefix("rival:") for name in OTHERS} == RIVALS.keys()


def test_equal_seeds_make_equal_runs() -> None:
    """A result may be read from the folder instead of being run."""
    visits = STOREFRONT.draw(3, 300)
    first, second = (
        play(STOREFRONT, visits, rival("vw", STOREFRONT, seed=1), floor=0.0, random=Random(1)).earned.tolist()
        for _ in range(2)
    )
    assert first == second
