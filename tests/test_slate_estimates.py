"""Whole pages: which decisions are one, and what another policy would have earned a page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import decide
from decider.decide.slate import decide_slate, slot_id
from decider.decide.slots import SLOTS
from decider.estimate.iips import Iips
from decider.estimate.rips import Rips
from decider.experiment.definition import Action, ExperimentVersion
from decider.log.open import open_log, open_reader
from decider.log.protocol import EventLog, NewActivation, NewReward, NewSlate, NewVersion
from decider.policy.make import make_policy
from decider.policy.protocol import Choice, Model
from decider.types import ActionId, Context, Decision, DecisionId, DecisionRequest, Position
from simulator.commands.group import main
from simulator.evaluate.candidates import LoggedPolicies, ServedPolicy, TablePolicy, UniformPolicy
from simulator.evaluate.replay_decisions import ReplayedPolicy
from simulator.evaluate.result import PageResults, to_json
from simulator.evaluate.run import evaluate
from simulator.evaluate.scores import score
from simulator.evaluate.slates import Layout, PageScores, as_pages, reward_kind
from simulator.logs.columns import Category, Columns, Pages
from simulator.logs.decider_log import load
from simulator.logs.slates import pages_of
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, spec

ACTIONS = ("a", "b", "c", "d")
HOME = sample_experiment(
    actions=tuple([Action(ActionId(one)) for one in ACTIONS]), baseline=ActionId("a"), policy=spec("uniform")
)


def requests(slate: str, slots: int) -> list[DecisionRequest]:
    """Of one page."""
    return [DecisionRequest(slot_id(slate, place), f"u-{slate}") for place in range(slots)]


def serving(log: EventLog) -> tuple[ExperimentVersion, Model]:
    """What decides: the newest version, which has learned nothing."""
    version = log.versions()[-1]
    return version, Model(make_policy(version.experiment.policy))


def write_pages(log: EventLog, *, pages: int, slots: int = 2) -> list[tuple[Decision, ...]]:
    """Pages of a log, as the service writes them."""
    pages_of = [decide_slate(requests(f"p{number}", slots), *serving(log)) for number in range(pages)]
    made = [tuple([slot.decision for slot in page]) for page in pages_of]
    for decisions in made:
        log.append([NewSlate(decisions)])
    return made


def position_of(log: EventLog, decision: Decision) -> Position:
    """Of a decision that is in the log."""
    found = log.find(decision.decision_id)
    assert found is not None
    return found.position


@pytest.fixture
def shop(tmp_path: Path, clock: Clock) -> Path:
    """A closed log of 120 pages with two slots; clicks on `b` wherever it is, and one decision without a slate."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        log.append([NewVersion(HOME, 1)])
        made = write_pages(log, pages=120)
        log.append([decide(requests("p0", 1)[0]._replace(decision_id=DecisionId("alone")), *serving(log))])
        clicked = [one for page in made for one in page if one.action == "b"]
        log.append([NewReward(position_of(log, one), "click", 1.0) for one in clicked])
        clock.advance(60)
        log.append([NewVersion(replace(HOME, paused=True), 2)])
    return path


def pages_in(columns: Columns) -> list[int]:
    """How many slots each whole page has."""
    return Layout.of(columns.pages).sizes.tolist() if columns.pages else []


def asked(columns: Columns, *candidates: TablePolicy | UniformPolicy | LoggedPolicies) -> PageResults:
    """Of whole pages."""
    found = evaluate(columns, candidates, force=True, breakdown=False).slates
    assert found is not None
    return found


# Which decisions are a page.


def test_pages_are_found_in_a_log_of_ours(shop: Path) -> None:
    """The product of the propensities is the probability of the page; the lone decision is no page."""
    columns = load(shop)
    assert len(columns) == 241
    assert pages_in(columns) == [2] * 120
    assert columns.pages is not None
    pages = as_pages(columns, Layout.of(columns.pages), "sum")
    assert pages.propensity == pytest.approx(1 / 12, rel=1e-5)
    assert set(pages.actions) == {", ".join(page) for page in permutations(ACTIONS, 2)}


def test_every_log_tells_the_same_slots(log: EventLog) -> None:
    """Arrow batches are made by each implementation of the log in its own way."""
    log.append([NewVersion(HOME, 1)])
    write_pages(log, pages=2, slots=3)
    one = decide(DecisionRequest(DecisionId("plain"), "unit"), *serving(log))
    ids = ["p0/12", "p0/012", "x/", "/7", "no/٣", "a/100", "plain"]
    log.append([one._replace(decision_id=DecisionId(id_)) for id_ in ids])
    found = [text for batch in log.arrow(HOME.id, log.head()).decisions for text in batch["slot"].to_pylist()]
    assert found == [*[f"p{n}/{k}" for n in range(2) for k in range(3)], "p0/12", "", "", "/7", "", "", ""]


TOGETHER = st.tuples(st.sampled_from(["p/", "q/", "p/q/"]), st.integers(0, 3), st.integers(0, 1))


@given(st.lists(TOGETHER, unique_by=lambda one: (one[0], one[1]), max_size=12))
def test_a_page_is_a_run_from_slot_0_without_a_gap(made: list[tuple[str, int, int]]) -> None:
    """Callers choose ids as they like: what is no run of slots in one commit is no page."""
    ids = Category.of([f"{slate}{place}" for slate, place, _ in made])
    time = np.array([at for *_, at in made], np.int64)
    same = np.zeros(len(made), np.int64)
    found = pages_of(ids, unit=same, time=time, version=same)
    expected: list[list[int]] = []
    for row, (slate, place, at) in enumerate(made):
        if place == 0:
            expected.append([row])
        elif expected and expected[-1][-1] == row - 1 and made[row - 1] == (slate, place - 1, at):
            expected[-1].append(row)
    if all(len(rows) == 1 for rows in expected):
        assert found is None
        return
    assert found is not None
    assert [np.flatnonzero(found.page == number).tolist() for number in range(len(expected))] == expected
    assert found.slots[found.page >= 0].tolist() == [len(rows) for rows in expected for _ in rows]


def test_a_log_without_slates_has_no_pages(tmp_path: Path, clock: Clock) -> None:
    """Nothing is said of pages where there are none."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        log.append([NewVersion(HOME, 1)])
        write_pages(log, pages=30, slots=1)
        clock.advance(60)
        log.append([NewVersion(replace(HOME, paused=True), 2)])
    columns = load(tmp_path / "log.db")
    assert columns.pages is None
    assert evaluate(columns, [UniformPolicy()], breakdown=False).slates is None


def test_a_page_that_lost_a_slot_is_left_out_and_counted(tmp_path: Path, clock: Clock) -> None:
    """Half of a page has earned half; counted as a page it would be too little."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        log.append([NewVersion(HOME, 1)])
        made = write_pages(log, pages=40)
        for page in made[:7]:
            other = next(one for one in page[1].eligible if one != page[1].action)
            log.append([NewActivation(position_of(log, page[1]), other)])
        clock.advance(60)
        log.append([NewVersion(replace(HOME, paused=True), 2)])
    columns = load(tmp_path / "log.db")
    found = asked(columns, UniformPolicy())
    assert len(columns) == 73
    assert (found.pages, found.incomplete, found.slots, found.most_slots) == (33, 7, 66, 2)


def test_a_page_that_lost_all_slots_is_counted_as_well(tmp_path: Path, clock: Clock) -> None:
    """A reader compares the pages of the evaluation with those of the shop: none may be gone without a word."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        log.append([NewVersion(HOME, 1)])
        made = write_pages(log, pages=40)
        for page in made[:7]:
            for slot in page:
                other = next(one for one in HOME.actions if one.id != slot.action)
                log.append([NewActivation(position_of(log, slot), other.id)])
        half = next(one for one in made[7][1].eligible if one != made[7][1].action)
        log.append([NewActivation(position_of(log, made[7][1]), half)])
        clock.advance(60)
        log.append([NewVersion(replace(HOME, paused=True), 2)])
    columns = load(tmp_path / "log.db")
    found = asked(columns, UniformPolicy())
    assert (len(columns), columns.left_out["overridden"]) == (65, 15)
    assert (found.pages, found.incomplete) == (32, 8)


def test_pages_that_nobody_asked_for_are_not_left_out(tmp_path: Path, clock: Clock) -> None:
    """A version is the choice of the reader: its pages are counted where the choice is told."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        log.append([NewVersion(HOME, 1)])
        write_pages(log, pages=40)
        log.append([NewVersion(replace(HOME, reward=replace(HOME.reward, maximum=9.0)), 2)])
        version, model = serving(log)
        for number in range(5):
            page = decide_slate(requests(f"new{number}", 2), version, model)
            log.append([NewSlate(tuple([slot.decision for slot in page]))])
        clock.advance(60)
        log.append([NewVersion(replace(HOME, paused=True), 3)])
    found = asked(load(tmp_path / "log.db", version=(1,)), UniformPolicy())
    assert (found.pages, found.incomplete) == (40, 0)


# Rewards.


def test_the_reward_of_a_page_counts_once(tmp_path: Path, clock: Clock) -> None:
    """A reward for a slate is that of every slot: the sum would count a purchase as often as the page has slots."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        log.append([NewVersion(HOME, 1)])
        made = write_pages(log, pages=60, slots=3)
        for page in made[::4]:
            clock.advance(0.01)
            log.append([NewReward(position_of(log, one), "buy", 1.0) for one in page])
        clock.advance(60)
        log.append([NewVersion(replace(HOME, paused=True), 2)])
    found = asked(load(tmp_path / "log.db"), UniformPolicy())
    assert found.reward == "page"
    assert found.mean_reward.value == 0.25
    assert set(found.policies[0].estimates) == {"ips", "snips"}


def test_rewards_of_slots_add_up(shop: Path) -> None:
    """Both slots may be clicked; here each page has one click where `b` is on it: half of the pages."""
    columns = load(shop)
    found = asked(columns, UniformPolicy())
    nothing = replace(columns, reward=np.zeros(len(columns)), delay=np.full(len(columns), np.nan))
    assert asked(nothing, UniformPolicy()).reward == "sum", "no reward says nothing of what is rewarded"
    assert found.reward == "sum"
    assert found.mean_reward.value == pytest.approx(0.5, abs=0.2)
    assert set(found.policies[0].estimates) == {"ips", "snips", "rips", "snrips", "iips"}


# Weights and estimates.


def hand_made() -> Columns:
    """Two pages of two slots and two actions, drawn with 0.8 for `a` and 0.2 for `b` in the first slot."""
    return Columns(
        name="by hand",
        actions=("a", "b"),
        action=np.array([0, 1, 1, 0], np.int32),
        propensity=np.array([0.8, 1.0, 0.2, 1.0]),
        reward=np.array([1.0, 0.0, 0.0, 1.0]),
        reward_range=(0.0, 1.0),
        time=np.zeros(4, np.int64),
        known=np.ones(4, np.int64),
        unit=np.array([0, 0, 1, 1]),
        fields={},
        sets=((0, 1), (1,), (0,)),
        eligible=np.array([0, 1, 0, 2], np.int32),
        pmf=np.array([0.8, 0.2, 1.0, 0.8, 0.2, 1.0], np.float32),
        pages=Pages(np.array([0, 0, 1, 1]), np.array([2, 2, 2, 2])),
    )


def test_a_page_by_hand() -> None:
    """Weights 0.5/0.8 and 0.5/0.2: IPS (0.625 + 2.5) / 2; slot by slot (0.625 x 1 + 1 x 1) / 2."""
    found = asked(hand_made(), UniformPolicy()).policies[0]
    assert found.diagnostics.mean_weight == pytest.approx((0.625 + 2.5) / 2)
    assert found.diagnostics.possible_weight == pytest.approx(2.5)
    values = {name: one.value for name, one in found.estimates.items()}
    assert values["ips"] == values["rips"] == pytest.approx((0.625 + 2.5) / 2)
    assert values["snips"] == 1.0
    assert values["snrips"] == pytest.approx(0.625 / 3.125 + 2.5 / 3.125)
    assert values["iips"] == pytest.approx((0.625 + 1.0) / 2)


@given(st.integers(1, 4), st.data())
def test_whole_pages_and_prefixes_agree_where_the_rest_has_no_weight(slots: int, data: st.DataObject) -> None:
    """RIPS is IPS where only the last slot earns, and IIPS where only the first one does."""
    rows = st.lists(st.lists(st.floats(0, 5), min_size=slots, max_size=slots), min_size=1, max_size=5)
    weight = np.array(data.draw(rows))
    first, last = np.zeros_like(weight), np.zeros_like(weight)
    first[:, 0], last[:, -1] = 1.0, 1.0
    assert Rips.terms(weight=weight, reward=last) == pytest.approx(weight.prod(axis=1))
    assert Rips.terms(weight=weight, reward=first) == pytest.approx(Iips.terms(weight=weight, reward=first))


def test_the_logged_policy_has_weight_one_on_every_page(shop: Path) -> None:
    """So its estimate is the pages' mean reward, to the last bit."""
    columns = load(shop)
    (scores,) = score(columns, [LoggedPolicies("fixed policy")])
    assert columns.pages is not None
    layout = Layout.of(columns.pages)
    assert (PageScores(scores, layout).weight == 1).all()
    assert reward_kind(columns, layout) == "sum"


class Favourite:
    """A policy that wants `c` most, then what is nearest to it in the alphabet."""

    def pmf(self, _: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """Among those that are left."""
        wanted = [{"a": 1.0, "b": 3.0, "c": 9.0, "d": 2.0}[one.id] for one in actions]
        return [one / sum(wanted) for one in wanted]

    def learn(self, *_: object, **__: object) -> None:
        """Nothing."""


def test_a_candidate_fills_slots_as_decide_slate_does(shop: Path) -> None:
    """Behind the same first slot its second one has the same pmf as served, to the last slot of the sampler."""
    columns = load(shop)
    with closing(open_reader(shop)) as log:
        version = log.versions()[0]
        logged = [one.decision for one in log.decisions(version.position)]
    replayed = ReplayedPolicy("mine", version, Favourite(), actions=columns.actions)
    scored = ServedPolicy(replayed).pmf(columns)
    compared = 0
    for row in range(0, 240, 2):
        slate = logged[row].decision_id.removesuffix("/0")
        served = [one.decision for one in decide_slate(requests(slate, 2), version, Model(Favourite()))]  # type: ignore[arg-type]
        for place in range(2):
            by_action = dict(zip(served[place].eligible, served[place].pmf, strict=True))
            expected = [by_action.get(ActionId(one), 0) / SLOTS for one in columns.actions]
            assert scored[row + place].tolist() == expected
            compared += 1
            if served[place].action != logged[row + place].action:
                break
    assert compared > 130


def left(pmf: Sequence[float], taken: Sequence[int]) -> list[float]:
    """A pmf over the actions that are left; even where it gives all of them 0."""
    rest = [0.0 if at in taken else one for at, one in enumerate(pmf)]
    rest = rest if sum(rest) else [float(at not in taken) for at in range(len(pmf))]
    return [one / sum(rest) for one in rest]


def every_page(logging: Sequence[float], slots: int) -> tuple[Columns, list[float]]:
    """A log with each page once that the logging pmf can draw, and their probabilities."""
    pages = [
        page
        for page in permutations(range(len(logging)), slots)
        if all(left(logging, page[:place])[one] for place, one in enumerate(page))
    ]
    behind = [page[:place] for page in pages for place in range(slots)]
    pmfs = [left(logging, taken) for taken in behind]
    action = np.array([one for page in pages for one in page], np.int32)
    propensity = np.array([pmf[one] for pmf, one in zip(pmfs, action.tolist(), strict=True)])
    sets = [tuple([at for at in range(len(logging)) if at not in taken]) for taken in behind]
    rows, number = len(action), np.repeat(np.arange(len(pages)), slots)
    columns = Columns(
        name="every page",
        actions=ACTIONS[: len(logging)],
        action=action,
        propensity=propensity,
        reward=np.zeros(rows),
        reward_range=(0.0, 1.0),
        time=np.zeros(rows, np.int64),
        known=np.ones(rows, np.int64),
        unit=number,
        fields={"none": Category.of([""] * rows)},
        sets=tuple(dict.fromkeys(sets)),
        eligible=np.array([list(dict.fromkeys(sets)).index(one) for one in sets], np.int32),
        pmf=np.array([pmf[at] for pmf, members in zip(pmfs, sets, strict=True) for at in members], np.float32),
        pages=Pages(number, np.full(rows, slots)),
    )
    return columns, propensity.reshape(-1, slots).prod(axis=1).tolist()


PMFS = st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]), min_size=4, max_size=4).filter(any)


@given(PMFS, PMFS, st.integers(2, 3))
def test_the_mean_weight_is_1_with_what_the_log_cannot_draw(
    logging: list[float], wanted: list[float], slots: int
) -> None:
    """Over all pages that can come, by their probabilities: for whole pages and up to each place."""
    columns, probability = every_page(logging, slots)
    candidate = TablePolicy("mine", "none", ("",), np.array([wanted]) / sum(wanted))
    (scores,) = score(columns, [candidate])
    assert columns.pages is not None
    pages = PageScores(scores, Layout.of(columns.pages))
    assert np.array(probability) @ (pages.weight.cumprod(axis=1) + pages.unseen) == pytest.approx(1, abs=1e-6)
    assert sum(probability) == pytest.approx(1)


@given(st.permutations([0.1, 0.2, 0.3, 0.4]), st.permutations([0.05, 0.15, 0.3, 0.5]), st.integers(2, 3))
def test_the_largest_possible_weight_is_that_of_the_rarest_page(
    logging: list[float], wanted: list[float], slots: int
) -> None:
    """Where each page has come once there is nothing beyond: a larger bound makes intervals wide for no reason."""
    columns, _ = every_page(logging, slots)
    (scores,) = score(columns, [TablePolicy("mine", "none", ("",), np.array([wanted]))])
    assert columns.pages is not None
    pages = PageScores(scores, Layout.of(columns.pages))
    assert pages.possible == pytest.approx(np.maximum.accumulate(pages.weight.cumprod(axis=1).max(axis=0)), rel=1e-5)


def test_what_the_log_cannot_draw_is_missing_from_the_page() -> None:
    """Weight and missing probability together have mean 1: behind a draw that the log never makes there is no more."""
    columns = replace(
        hand_made(),
        action=np.array([0, 1, 0, 1], np.int32),
        propensity=np.ones(4),
        eligible=np.array([0, 1, 0, 1], np.int32),
        pmf=np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], np.float32),
    )
    (scores,) = score(columns, [UniformPolicy()])
    assert columns.pages is not None
    pages = PageScores(scores, Layout.of(columns.pages))
    assert (pages.weight.prod(axis=1) + pages.unseen[:, -1]).tolist() == [1.0, 1.0]
    found = asked(columns, UniformPolicy()).policies[0]
    assert found.diagnostics.missing_mass == 0.5
    assert found.estimates["ips"].high >= 0.25 + 0.5 * 2
    assert "On 2 of 2 pages" in " ".join(found.diagnostics.reasons)


# The command.


def test_the_command_shows_pages_and_the_json_has_them(shop: Path, tmp_path: Path) -> None:
    """What a person sees without asking for it, once the log has slates."""
    file = tmp_path / "result.json"
    result = CliRunner().invoke(
        main,
        ["evaluate", str(shop), "--policy", "uniform", "--policy", "fixed:b", "--json", str(file), "--force"],
        env={"COLUMNS": "120"},
    )
    assert result.exit_code == 0, result.output
    assert "Slates: 120 pages with 2 slots. A page earns the sum of what its slots earn." in result.output
    assert "fixed:b, whole pages: " in result.output
    assert "fixed:b, each slot behind the logged ones: " in result.output
    found = json.loads(file.read_text())["slates"]
    assert (found["pages"], found["slots"], found["incomplete"], found["reward"]) == (120, 240, 0, "sum")
    assert [one["name"] for one in found["policies"]] == ["uniform", "fixed:b"]
    fixed = found["policies"][1]["estimates"]
    assert fixed["ips"]["low"] <= 1.0 <= fixed["ips"]["high"]
    assert "slot" in fixed["rips"]["note"]


def test_the_page_of_the_report_has_them(shop: Path, tmp_path: Path) -> None:
    """The same tables, for those who do not use a terminal."""
    arguments = ["evaluate", str(shop), "--policy", "uniform", "--report", str(tmp_path / "report")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Slates: 120 pages with 2 slots." in page


def test_a_refused_page_has_no_figures(shop: Path) -> None:
    """Whoever wants a page that hardly came must not get a number: what decisions can carry, pages may not."""
    columns = load(shop)
    sharp = np.array([[0.997, 0.001, 0.001, 0.001]])
    candidate = TablePolicy("sharp", "none", ("",), sharp)
    columns = replace(columns, fields={"none": Category.of([""] * len(columns))}).take(np.arange(40))
    found = evaluate(columns, [candidate], breakdown=False).slates
    assert found is not None
    assert (found.policies[0].refused, found.policies[0].estimates) == (True, {})
    assert json.loads(to_json(found))["policies"][0]["refused"]


def test_the_log_replays(shop: Path) -> None:
    """What the pages were made of."""
    with closing(open_reader(shop)) as log:
        found = verify(log)
    assert found.equal == found.decisions == 241


# The example of the README.

README = Path(__file__).parent.parent / "simulator" / "README.md"


def draw_shop(path: Path, clock: Clock) -> None:
    """Pages with two slots by an even policy; the second slot is clicked less, and less still behind a sale."""
    names = ("sale", "outfit", "gift", "none")
    actions = tuple([Action(ActionId(one)) for one in names])
    clicks = dict(zip(names, (0.3, 0.2, 0.1, 0.05), strict=True))
    random = Random(1)
    with closing(open_log(path, clock=clock)) as log:
        log.append([NewVersion(replace(HOME, actions=actions, baseline=actions[3].id), 1)])
        for page in write_pages(log, pages=600):
            for place, one in enumerate(page):
                behind_sale = place == 1 and page[0].action == "sale"
                if random.random() < clicks[one.action] * (0.7 if place else 1) * (0.3 if behind_sale else 1):
                    clock.advance(0.001)
                    log.append([NewReward(position_of(log, one), "click", 1.0)])
        clock.advance(60)
        log.append([NewVersion(replace(HOME, actions=actions, baseline=actions[3].id, paused=True), 2)])


def test_the_example_of_the_readme_is_what_the_command_prints(tmp_path: Path, clock: Clock) -> None:
    """All draws are whole numbers, so the figures are the same on every machine."""
    draw_shop(tmp_path / "shop.db", clock)
    arguments = ["evaluate", str(tmp_path / "shop.db"), "--policy", "fixed:sale", "--policy", "fixed:outfit"]
    result = CliRunner().invoke(main, arguments, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    printed = iter([line.strip() for line in result.output.splitlines()])
    (shown,) = re.findall(r"^### Whole pages$.*?^```text\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    for line in shown.splitlines():
        assert line == "..." or line.strip() in printed, "in this order"
