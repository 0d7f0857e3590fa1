"""`simulator import` and `simulator export`: what goes out comes back, and what cannot is told."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
import pytest
import vowpal_wabbit_next as vw
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.decide.slots import SLOTS
from decider.errors import LogLocked
from decider.experiment.definition import Action, Experiment, RewardDefinition
from decider.learn.trainer import Trainer
from decider.log.open import open_log as open_to_write
from decider.log.open import open_reader
from decider.types import CONTEXT_FIELDS, ActionId, ExperimentId, Reason
from simulator.commands.group import main as simulator
from simulator.commands.logs import export_command, import_command
from simulator.logs import export_log as exporting
from simulator.logs.columns import Category, Columns, Field, Number
from simulator.logs.decider_log import load
from simulator.logs.errors import BadLog
from simulator.logs.example import example
from simulator.logs.export_log import export_log
from simulator.logs.import_experiment import action_ids
from simulator.logs.import_fit import fit_to
from simulator.logs.import_log import import_log
from simulator.logs.import_slots import whole_slots
from simulator.logs.open import ReadOptions, open_log
from simulator.verify import verify
from tests.conftest import spec, texts
from tests.rpc_clients import rows as query

PERSONALIZER = Path(__file__).parent / "data" / "personalizer.dsjson"
STORED = Path(__file__).parent / "data" / "log-0.1.0.db"
DEMO = "a copy of the demo's log"
FORMATS = (".dsjson", ".jsonl.gz", ".csv", ".tsv.gz", ".parquet")

# names that any format can hold: a name that begins with _ is no feature in dsjson
field_names = texts.filter(lambda name: name and not name.startswith("_") and "\x00" not in name)
values = texts.filter(bool).map(lambda text: "x" + text.replace("\x00", ""))  # a CSV cannot tell "1" from 1
ids = st.lists(values, min_size=1, max_size=4, unique=True)
times = st.integers(0, 4_000_000_000_000_000)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's log; a copy, because SQLite puts files beside what it reads."""
    return Path(shutil.copy(STORED, tmp_path_factory.mktemp("demo") / "demo.db"))


@st.composite
def fields_of(draw: st.DrawFn, rows: int) -> Field:
    """A field of some decisions."""
    if draw(st.booleans()):
        numbers = st.floats(-1e12, 1e12) | st.just(math.nan)
        return Number(np.array(draw(st.lists(numbers, min_size=rows, max_size=rows))))
    return Category.of(draw(st.lists(values | st.just(""), min_size=rows, max_size=rows)))


@st.composite
def logs(draw: st.DrawFn, *, pmfs: bool | None = None) -> Columns:
    """A small log: several eligible sets, with or without pmfs, units that come back, any context."""
    rows, actions = draw(st.integers(1, 6)), tuple(draw(ids))
    index = st.integers(0, len(actions) - 1)
    sets = draw(st.lists(st.sets(index, min_size=1).map(lambda one: tuple(sorted(one))), min_size=1, unique=True))
    eligible = draw(st.lists(st.integers(0, len(sets) - 1), min_size=rows, max_size=rows))
    slots = [_some_slots(draw, len(sets[code])) for code in eligible]
    places = [draw(st.sampled_from([n for n, share in enumerate(one) if share])) for one in slots]
    known = draw(st.booleans()) if pmfs is None else pmfs
    propensity = [one[place] / SLOTS for one, place in zip(slots, places, strict=True)]
    if not known:
        propensity = draw(st.lists(st.floats(1e-9, 1.0), min_size=rows, max_size=rows))
    time = np.array(sorted(draw(st.lists(times, min_size=rows, max_size=rows))), np.int64)
    reward = np.array(draw(st.lists(st.floats(-5, 5), min_size=rows, max_size=rows)))
    named = draw(st.dictionaries(field_names, st.just(None), max_size=3))
    return Columns(
        name="a log",
        actions=actions,
        action=np.array([sets[code][place] for code, place in zip(eligible, places, strict=True)], np.int32),
        propensity=np.array(propensity),
        reward=reward,
        reward_range=(-5.0, 5.0),
        time=time,
        known=time,
        unit=np.array(draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)), np.int64),
        fields={name: draw(fields_of(rows)) for name in named},
        sets=tuple(sets),
        eligible=np.array(eligible, np.int32),
        pmf=np.concatenate([np.array(one) / SLOTS for one in slots]).astype(np.float32) if known else None,
    )


def _some_slots(draw: st.DrawFn, count: int) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, SLOTS), min_size=count - 1, max_size=count - 1)))
    return [high - low for low, high in zip([0, *cuts], [*cuts, SLOTS], strict=True)]


def contexts(columns: Columns, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """What each decision's context says, by name."""
    found: list[dict[str, Any]] = [{} for _ in range(len(columns))]
    for name, one in columns.fields.items():
        if isinstance(one, Category):
            given = [None if code < 0 else one.values[code] for code in one.codes.tolist()]
        else:
            given = [None if math.isnan(value) else value for value in one.values.tolist()]
        for row, value in enumerate(given):
            if value is not None and (names is None or name in names):
                found[row][name] = value
    return found


def decisions(columns: Columns) -> list[dict[str, Any]]:
    """Everything about each decision that every format keeps, by the actions' ids."""
    starts = columns.starts
    _, unit = np.unique(columns.unit, return_inverse=True)
    first = [unit.tolist().index(one) for one in unit.tolist()]
    kept = []
    for row, context in enumerate(contexts(columns)):
        members = [columns.actions[one] for one in columns.sets[columns.eligible[row]]]
        pmf = None if columns.pmf is None else columns.pmf[starts[row] : starts[row + 1]].tolist()
        kept.append(
            {
                "action": columns.actions[columns.action[row]],
                "propensity": columns.propensity[row],
                "reward": columns.reward[row],
                "eligible": set(members),
                "pmf": None if pmf is None else dict(zip(members, pmf, strict=True)),
                "context": context,
                "time": columns.time[row],
                "unit": first[row],
            }
        )
    return kept


def through(columns: Columns, path: Path, **options: Any) -> Columns:
    """Exported and read back."""
    export_log(columns, path)
    return open_log(str(path), ReadOptions(**options))


@pytest.mark.parametrize("form", FORMATS)
@given(columns=logs())
@settings(max_examples=60)
def test_what_is_exported_comes_back(form: str, columns: Columns, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decisions, eligible sets, propensities and pmfs to the last bit, rewards, contexts, times and units."""
    again = through(columns, tmp_path_factory.mktemp("export") / f"log{form}")
    assert decisions(again) == decisions(columns)
    assert again.left_out == {}


@given(columns=logs())
@settings(max_examples=60)
def test_what_is_imported_comes_back(columns: Columns, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same, but for ids that we do not allow, and pmfs in whole millionths."""
    path = tmp_path_factory.mktemp("import") / "log.db"
    import_log(columns, path)
    names = dict(zip(action_ids(columns.actions), columns.actions, strict=True))
    with closing(open_reader(path)) as log:
        (version,) = log.versions()
        sealed = list(log.sealed_decisions(version.experiment.id, after=_before(columns), until=log.head().time))
    expected = decisions(columns)
    assert len(sealed) == len(expected)
    for one, want in zip(sealed, expected, strict=True):
        decision = one.decision
        assert names[decision.action] == want["action"]
        assert {names[id_] for id_ in decision.eligible} == want["eligible"]
        assert decision.propensity == want["propensity"]
        assert one.rewards == (want["reward"],)
        assert one.deadline - version.experiment.reward.window == want["time"]
        context = {name: given for name, given in zip(CONTEXT_FIELDS, decision.context[:5], strict=True) if given}
        assert {**context, **decision.context.features} == want["context"]
        if want["pmf"] is not None:
            assert {names[id_]: p / SLOTS for id_, p in zip(decision.eligible, decision.pmf, strict=True)} == (
                pytest.approx(want["pmf"], abs=1e-7)
            )
    units = [one.decision.unit_id for one in sealed]
    assert [units.index(unit) for unit in units] == [want["unit"] for want in expected]


def _before(columns: Columns) -> Any:
    return int(columns.time[0]) - 1


@pytest.mark.parametrize("form", [".dsjson", ".csv", ".parquet"])
@given(columns=logs(pmfs=True))
@settings(max_examples=20)
def test_an_export_can_be_imported(form: str, columns: Columns, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Out of one log, through a file, into a log of ours, and out as columns: the same decisions."""
    folder = tmp_path_factory.mktemp("both")
    import_log(through(columns, folder / f"log{form}", reward_range=(-5.0, 5.0)), folder / "log.db")
    again = load(folder / "log.db")
    names = dict(zip(action_ids(columns.actions), columns.actions, strict=True))
    again = replace(again, actions=tuple(names[id_] for id_ in again.actions))  # type: ignore[index]
    assert decisions(again) == decisions(columns)


def test_our_own_log_goes_out_and_in_again(demo: Path, tmp_path: Path) -> None:
    """A real log of the demo, with model, delays and what the actions are; dsjson keeps these too."""
    columns = load(demo)
    assert len(columns) > 300
    again = through(columns, tmp_path / "demo.dsjson")
    assert decisions(again) == decisions(columns)
    assert columns.delay is not None
    assert columns.default is not None
    assert again.delay == pytest.approx(columns.delay, nan_ok=True)
    assert again.default is not None
    assert again.default.tolist() == columns.default.tolist()
    assert again.traits == columns.traits
    assert again.model is not None
    assert columns.model is not None
    assert len(np.unique(again.model)) == len(np.unique(columns.model))
    import_log(again, tmp_path / "again.db")
    assert decisions(load(tmp_path / "again.db")) == decisions(columns)


def test_features_given_with_the_call_come_back_from_dsjson(tmp_path: Path) -> None:
    """A price that changes is a feature of the call; a colour that does not is a trait."""
    given = Category(np.array([0, 1], np.int32), ('{"a":{"price":1.5}}', '{"a":{"price":2.5},"b":{"hot":true}}'))
    columns = replace(example(), action_features=given, traits={"colour": ("red", "blue")})
    again = through(columns, tmp_path / "log.dsjson")
    assert again.action_features is not None
    found = [json.loads(again.action_features.values[code]) for code in again.action_features.codes]
    assert [one["a"]["price"] for one in found] == [1.5, 2.5]
    assert "hot" not in found[0].get("b", {})
    assert found[1]["b"]["hot"] == "true"
    import_log(columns, tmp_path / "log.db")
    stored = load(tmp_path / "log.db")
    assert stored.action_features is not None
    assert [json.loads(stored.action_features.values[code]) for code in stored.action_features.codes] == [
        json.loads(text) for text in given.values
    ]
    assert stored.traits["colour"] == ("red", "blue")


# what vw makes of an export


def vw_says(path: Path, *arguments: str) -> dict[str, float]:
    """The figures that the `vw` command line prints at its end."""
    said, _ = vw.run_cli_driver(["--dsjson", "-d", str(path), "--cb_explore_adf", *arguments])
    lines = [line.partition(" = ") for line in said.splitlines()]
    return {
        name: float(value) for name, equals, value in lines if equals and name in ("number of examples", "average loss")
    }


def uniform_cost(columns: Columns) -> float:
    """What vw reports for a uniform policy: the mean of cost x pmf / propensity."""
    sizes = np.array([len(one) for one in columns.sets])[columns.eligible]
    return float((-columns.reward / sizes / columns.propensity).mean())


@pytest.mark.parametrize("name", [DEMO, str(PERSONALIZER)])
def test_vw_learns_every_exported_line(name: str, demo: Path, tmp_path: Path) -> None:
    """Counts and average loss of the command line are those of the columns: cost, probability and action are right."""
    columns = open_log(str(demo) if name == DEMO else name, ReadOptions(skip_bad=True))
    path = tmp_path / "log.dsjson"
    export_log(columns, path)
    said = vw_says(path, "--epsilon", "1", "-q", "CA")
    assert said["number of examples"] == len(columns)
    assert said["average loss"] == pytest.approx(uniform_cost(columns), abs=2e-6)


def test_vw_sees_our_namespaces(tmp_path: Path) -> None:
    """`-q CA` must cross the context with the action, or vw cannot personalise."""
    export_log(example(), tmp_path / "log.dsjson")
    first = json.loads((tmp_path / "log.dsjson").read_text().splitlines()[0])
    assert first["c"] == {
        "C": {"segment": "vip", "device": "phone", "age": 31.0},
        "_multi": [{"_tag": "a", "A": {"id": "a"}}, {"_tag": "b", "A": {"id": "b"}}],
    }


# what an imported log is


@given(columns=logs(), order=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_a_file_may_name_the_actions_in_any_order(columns: Columns, order: Random) -> None:
    """And more of them: the decisions stay what they are, each probability with its action."""
    columns = replace(columns, fields={})
    names = dict(zip(columns.actions, action_ids(columns.actions), strict=True))
    ids = [*names.values(), ActionId("another")]
    order.shuffle(ids)
    reward = RewardDefinition(minimum=-5.0, maximum=5.0)
    experiment = Experiment(ExperimentId("shop"), tuple([Action(id_) for id_ in ids]), reward=reward)
    fitted = fit_to(experiment, columns, file="shop.toml", renames=names).columns
    assert fitted.actions == tuple(ids)
    assert all(list(members) == sorted(members) for members in fitted.sets), "in the experiment's order"
    known = {id_: action for action, id_ in names.items()} | {"another": "another"}
    assert decisions(replace(fitted, actions=tuple([known[id_] for id_ in fitted.actions]))) == decisions(columns)


def test_an_imported_log_says_so_and_is_paused(tmp_path: Path) -> None:
    """Nobody shall be served by it, and whoever audits must not take it for one of our sampler's."""
    import_log(replace(example(), name="shop/clicks.csv"), tmp_path / "log.db")
    ((build,),) = query(tmp_path / "log.db", "select build from builds")
    assert json.loads(build)["imported_from"] == "shop/clicks.csv"
    with closing(open_reader(tmp_path / "log.db")) as log:
        (version,) = log.versions()
        result = verify(log)
    assert (version.experiment.id, version.experiment.paused) == ("clicks", True)
    assert version.experiment.policy.algorithm == "uniform"
    assert (result.decisions, result.imported) == (0, {"shop/clicks.csv": 2})


def test_sql_and_the_views_work_on_an_imported_log(tmp_path: Path) -> None:
    """Researchers query it as any log."""
    import_log(example(), tmp_path / "log.db")
    sealed = query(tmp_path / "log.db", "select action, reward, segment, features, rewards from sealed_decisions")
    assert sealed == [("b", 1.0, "vip", '{"age":31.0}', 1), ("a", 0.0, None, None, 1)]
    assert query(tmp_path / "log.db", "select outcome, count(*) from joined_rewards group by 1") == [("joined", 2)]


def test_a_new_policy_learns_from_an_imported_log(demo: Path, tmp_path: Path) -> None:
    """Whoever comes from another service must not begin with nothing."""
    columns = load(demo)
    import_log(columns, tmp_path / "log.db", experiment="storefront")
    with closing(open_reader(tmp_path / "log.db")) as log:
        trainer = Trainer(log, ExperimentId("storefront"), spec("squarecb"))
        assert trainer.learn_up_to(log.head().mark) == len(columns)


def test_only_what_is_known_of_a_pmf_is_stored(tmp_path: Path) -> None:
    """The other actions' shares are not invented: the sum below a million says that they are unknown."""
    columns = replace(example(), pmf=None, propensity=np.array([1 / 3, 1e-9]))
    imported = import_log(columns, tmp_path / "log.db")
    assert imported.unknown_pmf
    rows = query(tmp_path / "log.db", "select pmf, propensity, reason from decisions order by position")
    assert rows == [("[0,333333]", 1 / 3, "EXPLORE"), ("[1,0]", 1e-9, "EXPLORE")]
    again = load(tmp_path / "log.db")
    assert again.pmf is None
    assert again.propensity.tolist() == [1 / 3, 1e-9]


@given(logs(pmfs=True))
def test_stored_pmfs_sum_to_one_and_could_draw_what_was_drawn(columns: Columns) -> None:
    """As everywhere in our logs."""
    for row, slots in enumerate(whole_slots(columns)):
        assert sum(slots) == SLOTS
        assert min(slots) >= 0
        assert slots[columns.sets[columns.eligible[row]].index(columns.action[row])] > 0


@pytest.mark.parametrize(
    ("pmf", "action", "slots"),
    [
        ([1 / 3, 1 / 3, 1 / 3], 0, {333333, 333334}),
        ([1.0, 1e-9, 0.0], 1, {999999, 1, 0}),
        ([0.4995, 0.2503, 0.2503], 0, {499450, 250275}),
    ],
)
def test_a_pmf_is_rounded_to_the_nearest_millionths(pmf: list[float], action: int, slots: set[int]) -> None:
    """By largest remainders, whatever was printed; the drawn action keeps one."""
    columns = replace(
        example().take(slice(0, 1)), actions=("a", "b", "c"), sets=((0, 1, 2),), action=np.array([action], np.int32),
        pmf=np.array(pmf, np.float32), propensity=np.array([pmf[action]]),
    )  # fmt: skip
    (found,) = whole_slots(columns)
    assert sum(found) == SLOTS
    assert set(found) <= slots
    assert found[action] > 0


def test_why_an_action_was_drawn_is_kept_or_told_by_the_pmf(tmp_path: Path) -> None:
    """`action_summary` only weighs what a policy drew."""
    logged = replace(example(), reason=Category.of([Reason.FALLBACK, Reason.EXPLOIT]))
    for number, (columns, reasons) in enumerate(
        [(logged, ["FALLBACK", "EXPLOIT"]), (example(), ["EXPLORE", "EXPLOIT"])]
    ):
        import_log(columns, tmp_path / f"{number}.db")
        rows = query(tmp_path / f"{number}.db", "select reason from decisions order by position")
        assert [reason for (reason,) in rows] == reasons


def test_rewards_come_after_their_delay_and_defaults_are_none(tmp_path: Path) -> None:
    """A learner that replays the log must not know rewards before they came."""
    columns = replace(
        example(),
        delay=np.array([7.5, math.nan]),
        default=np.array([False, True]),
        reward=np.array([1.0, -0.5]),
        reward_range=(-1.0, 1.0),
    )
    imported = import_log(columns, tmp_path / "log.db")
    assert imported.rewards == 1
    assert query(tmp_path / "log.db", "select delay_seconds, outcome, value from joined_rewards") == [
        (7.5, "joined", 1.0)
    ]
    again = load(tmp_path / "log.db")
    assert again.reward.tolist() == [1.0, -0.5]
    assert again.delay is not None
    assert again.delay.tolist() == pytest.approx([7.5, math.nan], nan_ok=True)
    assert again.time.tolist() == [0, 1_000_000]


def test_decisions_are_imported_in_the_order_of_their_times(tmp_path: Path) -> None:
    """Time never goes back in a log of ours."""
    columns = replace(example(), time=np.array([9_000_000, 4_000_000]))
    import_log(columns, tmp_path / "log.db")
    again = load(tmp_path / "log.db")
    assert again.time.tolist() == [4_000_000, 9_000_000]
    assert again.propensity.tolist() == [0.75, 0.5]
    assert contexts(again) == [{"device": "desktop"}, {"segment": "vip", "device": "phone", "age": 31.0}]


def test_foreign_action_ids_are_made_ours_and_kept_in_the_payload(tmp_path: Path) -> None:
    """Ids have 1 to 64 plain characters here; two foreign ids never become one."""
    columns = replace(example(), actions=("free shipping!", "free shipping?"))
    imported = import_log(columns, tmp_path / "log.db", experiment="shop")
    assert (imported.experiment, imported.renamed) == ("shop", 2)
    with closing(open_reader(tmp_path / "log.db")) as log:
        actions = log.versions()[0].experiment.actions
    assert len({action.id for action in actions}) == 2
    assert [action.payload["imported_id"] for action in actions] == list(columns.actions)


@given(st.lists(texts, min_size=2, max_size=5, unique=True))
def test_every_text_becomes_an_id_of_its_own(names: list[str]) -> None:
    """Whatever another system calls its actions."""
    made = action_ids(names)
    assert len(set(made)) == len(names)
    assert all(0 < len(id_) <= 64 and id_.isascii() for id_ in made)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (replace(example(), propensity=np.array([0.5, math.nan])), "has no propensities, and a log of ours requires"),
        (
            replace(example(), actions=tuple(str(n) for n in range(1001))),
            "has 1001 actions, an experiment at most 1000",
        ),
        (example().take(slice(0, 0)), "has no decision to import"),
        (replace(example(), time=np.array([-1, 5])), "has decisions before 1970"),
    ],
)
def test_what_a_log_of_ours_cannot_hold_is_refused(columns: Columns, says: str, tmp_path: Path) -> None:
    """Better than a log that lies."""
    with pytest.raises(BadLog, match=says):
        import_log(columns, tmp_path / "log.db")


# what an export cannot hold


def test_a_log_without_propensities_goes_to_tables_only(tmp_path: Path) -> None:
    """dsjson has a probability in every line."""
    columns = replace(example(), propensity=np.full(2, math.nan), pmf=None)
    with pytest.raises(BadLog, match="dsjson requires propensities, and it has none; export it to CSV or Parquet"):
        export_log(columns, tmp_path / "log.dsjson")
    for form in (".csv", ".parquet"):
        again = through(columns, tmp_path / f"log{form}")
        assert np.isnan(again.propensity).all()
        assert again.reward.tolist() == [1.0, 0.0]


def test_what_a_format_cannot_hold_is_told(demo: Path) -> None:
    """A researcher who moves a log must know what stayed behind."""
    columns = load(demo)
    assert exporting.lost_in(columns, ".dsjson") == ("the baseline action", "why an action was drawn")
    assert exporting.lost_in(columns, ".parquet") == (
        "the baseline action",
        "why an action was drawn",
        "delays of rewards, and where there was none",
        "the model that decided",
    )
    coloured = replace(example(), traits={"kind": ("offer", "none"), "colour": ("red", "")}).take(slice(0, 1))
    assert exporting.lost_in(coloured, ".csv") == (
        "kinds of actions that were never drawn",
        "what the actions are (traits)",
    )
    hidden = replace(example(), fields={"_secret": Number(np.zeros(2))})
    assert exporting.lost_in(hidden, ".dsjson") == ("features whose names begin with _ (_secret)",)


def test_texts_that_look_like_numbers_are_told_and_can_be_read_back(tmp_path: Path) -> None:
    """CSV has no types: the message is the option that restores them."""
    columns = replace(example(), fields={"size": Category.of(["40", "42"]), "click": Category.of(["1", ""])})
    (lost,) = export_log(columns, tmp_path / "log.csv").lost
    option = lost.removesuffix(")").rpartition("--column ")[2]
    assert option == "categories=size,context.click"
    again = open_log(str(tmp_path / "log.csv"), ReadOptions(columns=(option,)))
    assert contexts(again) == [{"size": "40", "click": "1"}, {"size": "42"}]


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    """With the ones that there are."""
    with pytest.raises(BadLog, match=r"log\.xlsx: a log is exported to a file that ends in \.dsjson, .*\.parquet"):
        export_log(example(), tmp_path / "log.xlsx")
    with pytest.raises(BadLog, match="has no decision to export"):
        export_log(example().take(slice(0, 0)), tmp_path / "log.csv")


# the commands


@click.group()
def main() -> None:
    """The two commands, as `simulator` has them."""


main.add_command(import_command)
main.add_command(export_command)


def run(*arguments: str | Path) -> Result:
    """One of them."""
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_the_import_command_writes_a_log_and_its_counts(tmp_path: Path) -> None:
    """The line is for people, the JSON for scripts, the notes are on stderr."""
    result = run(
        "import", PERSONALIZER, tmp_path / "shop.db", "--skip-bad", "--as", "shop", "--json", tmp_path / "c.json"
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"8 decisions written to {tmp_path / 'shop.db'}"
    assert "  3 dangling reward (left out)" in result.stdout
    assert "an action's id is its _tag" in result.stderr
    counted = json.loads((tmp_path / "c.json").read_text())
    assert (counted["decisions"], counted["experiment"], counted["rewards"]) == (8, "shop", 6)
    assert counted["left_out"]["several slots"] == 1
    assert counted["source"] == str(PERSONALIZER)
    assert len(load(tmp_path / "shop.db", experiment="shop")) == 8
    assert sorted(one.name for one in tmp_path.iterdir() if "part" in one.name) == []


def test_the_export_command_writes_what_the_suffix_says(demo: Path, tmp_path: Path) -> None:
    """And tells what was lost."""
    result = run("export", demo, tmp_path / "demo.csv.gz", "--json", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    assert "  not kept: why an action was drawn" in result.stdout
    counted = json.loads((tmp_path / "c.json").read_text())
    assert counted["decisions"] == len(load(demo)) == len(open_log(str(tmp_path / "demo.csv.gz"), ReadOptions()))
    assert "why an action was drawn" in counted["lost"]


def test_nothing_is_overwritten_unless_asked_for(demo: Path, tmp_path: Path) -> None:
    """Not even by a command that then fails."""
    path = tmp_path / "log.csv"
    path.write_text("mine")
    refused = run("export", demo, path)
    assert (refused.exit_code, path.read_text()) == (2, "mine")
    assert "log.csv: is there already; name another file, or overwrite it: --force" in refused.stderr
    failed = run("import", PERSONALIZER, path, "--force")
    assert (failed.exit_code, path.read_text()) == (2, "mine")
    assert "personalizer.dsjson:17: is no JSON" in failed.stderr
    assert run("export", demo, path, "--force").exit_code == 0
    assert path.read_text().startswith('"time"')


def test_a_log_that_a_server_writes_is_not_overwritten(tmp_path: Path) -> None:
    """--force is not meant for that."""
    path = tmp_path / "live.db"
    with closing(open_to_write(path)):
        result = run("import", PERSONALIZER, path, "--force", "--skip-bad")
    assert result.exit_code == 2
    assert "another server writes this log" in result.stderr
    assert query(path, "select count(*) from decisions") == [(0,)]
    assert run("import", PERSONALIZER, path, "--force", "--skip-bad").exit_code == 0
    assert query(path, "select count(*) from decisions") == [(8,)]
    assert issubclass(LogLocked, Exception)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("import", "nothing.csv", "x.db"), "nothing.csv: there is no such log"),
        (("import", "open-bandit:random/boys", "x.db"), "there is no log 'random/boys'"),
        (("import", DEMO, "x.db", "--as", "my shop"), "id: 'my shop' is not 1 to 64 letters"),
        (("export", DEMO, "x.xlsx"), "x.xlsx: a log is exported to a file that ends in"),
        (("export", DEMO, "."), "."),
        (("export", DEMO, "no/such/folder/x.csv"), "x.csv: cannot be written"),
        (("export", DEMO, "y.csv", "--json", "no/such/folder/c.json"), "c.json: there is no folder"),
        (("export", DEMO, "y.csv", "--experiment", "other"), "has no experiment 'other'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], says: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts read the code, people the line."""
    monkeypatch.chdir(tmp_path)
    result = run(*[demo if one == DEMO else one for one in arguments])
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["import", "export"])
def test_help_has_an_example(command: str) -> None:
    """The first thing that anybody reads."""
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"  simulator {command} " in result.output


def test_a_failed_write_leaves_nothing_behind(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a log would be read as a whole one."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_csv", fail)
    result = run("export", demo, tmp_path / "log.csv")
    assert result.exit_code == 2
    assert "log.csv: cannot be written (No space left on device)" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_imported_file_is_one_file(tmp_path: Path) -> None:
    """It can be copied and sent."""
    assert run("import", PERSONALIZER, tmp_path / "shop.db", "--skip-bad").exit_code == 0
    assert [one.name for one in tmp_path.iterdir()] == ["shop.db"]
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


def test_verify_names_what_was_imported(tmp_path: Path) -> None:
    """No model of ours drew it: it is neither equal nor a difference, which would look like damage."""
    done = CliRunner().invoke(simulator, ["import", str(PERSONALIZER), str(tmp_path / "shop.db"), "--skip-bad"])
    assert done.exit_code == 0, done.output
    verified = CliRunner().invoke(simulator, ["verify", str(tmp_path / "shop.db")])
    assert verified.exit_code == 0
    assert verified.output.splitlines()[-2:] == [
        "0 of 0 decisions equal",
        f"8 decisions imported from {PERSONALIZER} are not recomputed: another system drew them",
    ]
