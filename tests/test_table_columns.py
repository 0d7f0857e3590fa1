"""What the columns of a table are taken for: ids as people write them, ids by their look, empty ids and rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from simulator.commands.group import main
from simulator.evaluate.checks.never_drawn import never_drawn
from simulator.evaluate.parse import parse
from simulator.load_policy import BadPolicy
from simulator.logs.columns import Category, Columns, Field, Number
from simulator.logs.errors import BadLog
from simulator.logs.id_fields import id_fields
from simulator.logs.names import plain
from simulator.logs.open import ReadOptions, open_log
from tests.test_foreign_logs import decision, drawn, read, table, written
from tests.test_foreign_logs import field as values_of

OLD_LOG = Path(__file__).parent / "data" / "log-0.1.0.db"


def unit_count(columns: Columns) -> int:
    """How many units a log has."""
    return len(np.unique(columns.unit))


# names


@pytest.mark.parametrize(
    "name", ["userId", "UserID", "user-id", "User ID", "user_ID", "USERID", " user_id ", "\ufeffuser.id", "customerNo"]
)
def test_a_unit_is_recognised_as_people_write_it(name: str, tmp_path: Path) -> None:
    """600 rows of 20 units that are taken for 600 units give intervals that are much too short."""
    rows = [f"u{n % 20},{'ab'[n % 2]},{n % 3 == 0},0.5" for n in range(600)]
    notes: list[str] = []
    columns = read(table(tmp_path, f"{name},Action,REWARD, propensity", *rows), on_note=notes.append)
    assert unit_count(columns) == 20
    assert columns.has_propensities
    assert not columns.fields
    assert f"{name.strip(chr(0xFEFF)).strip()}: unit_id (600 rows, 20 units)" in notes[0]


@pytest.mark.parametrize("name", ["visitorId", "cookie_id", "deviceId", "accountUUID", "member", "household_id", "uid"])
def test_units_have_many_names(name: str, tmp_path: Path) -> None:
    """Everybody calls whom a decision is for by another name."""
    rows = [f"u{n % 20},a,1" for n in range(200)]
    assert unit_count(read(table(tmp_path, f"{name},action,reward", *rows))) == 20


def test_a_session_is_a_unit_only_if_nothing_better_is_there(tmp_path: Path) -> None:
    """A user has several sessions; they are not independent."""
    rows = [f"s{n},u{n % 20},a,1" for n in range(200)]
    assert unit_count(read(table(tmp_path, "sessionId,userId,action,reward", *rows))) == 20
    assert unit_count(read(table(tmp_path, "sessionId,x,action,reward", *rows))) == 200


def test_a_customer_of_two_kinds_is_no_unit(tmp_path: Path) -> None:
    """`customer` may say new or returning: two units in all would make every interval useless."""
    rows = [f"{('new', 'returning')[n % 2]},a,1" for n in range(200)]
    columns = read(table(tmp_path, "customer,action,reward", *rows))
    assert set(columns.fields) == {"customer"}
    assert unit_count(columns) == 200


@given(st.lists(st.sampled_from(["user", "id", "event", "at"]), min_size=1, max_size=3))
def test_all_ways_of_writing_a_name_are_one(words: list[str]) -> None:
    """Case styles and what stands between the words do not matter."""
    camel = words[0] + "".join(word.title() for word in words[1:])
    ways = ["_".join(words), "-".join(words), " ".join(words).title(), "".join(words).upper(), camel]
    assert len({plain(way) for way in ways}) == 1


# ids by their look


def category(values: Sequence[str]) -> Category:
    """A field of these texts."""
    return Category.of(list(values))


RNG = np.random.default_rng(5)
IDS: dict[str, tuple[str, Field]] = {
    "as many as rows": ("note", category([f"text {n} of a visitor" for n in range(100)])),
    "a prefix and a number": ("who", category([f"u{n % 20}" for n in range(600)])),
    "UUIDs": ("key", category([f"{n % 40:08x}-1234-4abc-8def-0123456789ab" for n in range(1000)])),
    "hashes": ("x", category([f"{(n % 50) * 2654435761 % 2**32:08x}a1" for n in range(1000)])),
    "names of many": ("login", category([f"{'abcdefghij'[n % 10]}{'klmnop'[n % 6]}x" for n in range(900)])),
    "customer numbers": ("customer_number", Number(np.array([100.0 + n % 30 for n in range(900)]))),
    "large numbers": ("who", Number(np.array([700_000.0 + 37 * (n % 40) for n in range(2000)]))),
    "numbers of the rows": ("row", Number(np.arange(200.0))),
}
REAL: dict[str, tuple[str, Field]] = {
    "age": ("age", Number(np.floor(RNG.uniform(18, 90, 3000)))),
    "price": ("price", Number(RNG.choice([9.99, 19.99, 29.99], 3000))),
    "cents": ("cents", Number(np.floor(RNG.lognormal(9, 1, 3000)))),
    "salary": ("salary", Number(np.round(RNG.normal(50_000, 9_000, 3000), -3))),
    "seconds": ("seconds", Number(np.floor(RNG.exponential(40_000, 3000)))),
    "birth year": ("birth_year", Number(np.floor(RNG.uniform(1940, 2005, 3000)))),
    "visits": ("number_of_visits", Number(RNG.poisson(3, 3000).astype(float))),
    "a measure": ("score", Number(RNG.normal(size=3000))),
    "hour": ("hour", category([f"h{n}" for n in RNG.integers(0, 24, 2000)])),
    "shop": ("store_id", category([f"store-{n}" for n in RNG.integers(0, 50, 3000)])),
    "device": ("device", category(list(RNG.choice(["web", "app", "tv"], 60)))),
    "city": ("place", category([f"{'abcdefghij'[int(n) % 10]}ville" for n in RNG.exponential(8, 3000)])),
    "hashed category": ("user_feature_0", category(list(RNG.choice(["81ce123cbb5b", "4ae385d792f8"], 900)))),
    "few rows": ("device", category(["web", "app", "tv"])),
}  # fmt: skip


@pytest.mark.parametrize("kind", IDS)
def test_what_looks_like_an_id_is_found(kind: str) -> None:
    """By its values, whatever it is called."""
    name, field = IDS[kind]
    assert list(id_fields({name: field}, but=frozenset())) == [name]
    assert id_fields({name: field}, but=frozenset({name})) == {}


@pytest.mark.parametrize("kind", REAL)
def test_a_real_feature_is_no_id(kind: str) -> None:
    """Without it the reward model would know less, and the user would be asked for nothing."""
    name, field = REAL[kind]
    assert id_fields({name: field}, but=frozenset()) == {}


def test_a_field_like_an_id_is_set_aside_and_context_insists(tmp_path: Path) -> None:
    """Nothing can be learned from it; what was left out, and how to have it, is said."""
    path = table(tmp_path, "hash,action,reward,device", *[f"x{n},a,1,web" for n in range(60)])
    notes: list[str] = []
    columns = read(path, on_note=notes.append)
    assert set(columns.fields) == {"device"}
    assert columns.set_aside == {"hash": "looks like an id: 60 different values in 60 rows"}
    assert "hash: left out, looks like an id" in notes[0]
    assert "--column context=NAME" in notes[0]
    insisted = read(path, "context=hash")
    assert set(insisted.fields) == {"hash", "device"}
    assert (insisted.set_aside, insisted.insisted) == ({}, frozenset({"hash"}))
    ignored = read(path, "ignore=hash")
    assert (set(ignored.fields), ignored.set_aside) == ({"device"}, {})


def test_context_takes_a_column_that_is_called_like_something_else(tmp_path: Path) -> None:
    """`click` may be a feature, and a mapping file may name several."""
    mapping = tmp_path / "mapping.toml"
    mapping.write_text('context = ["click", "p"]\n')
    columns = read(table(tmp_path, "action,reward,click,p", "a,1,0,7", "b,0,1,8"), mapping=mapping)
    assert set(columns.fields) == {"click", "p"}
    assert not columns.has_propensities


def test_every_log_can_ignore_a_field_and_insist_on_one(tmp_path: Path) -> None:
    """A log of ours and dsjson, too; a name that is none is refused with those that are."""
    ours = open_log(str(OLD_LOG), ReadOptions())
    one, *others = ours.fields
    assert set(read(OLD_LOG, f"ignore={one}").fields) == set(others)
    assert read(OLD_LOG, f"context={one}").insisted == frozenset({one})
    with pytest.raises(BadLog, match="has no context field 'nothing' \\(ignore\\); it has "):
        read(OLD_LOG, "ignore=nothing")
    with pytest.raises(BadLog, match="named as context and to be ignored"):
        read(OLD_LOG, f"ignore={one}", f"context={one}")
    multi = decision()["c"]["_multi"]
    lines = [decision(EventId=f"e{n}", c={"sid": f"s{n}", "x": "y", "_multi": multi}) for n in range(60)]
    path = written(tmp_path, *lines)
    assert (set(read(path).fields), set(read(path).set_aside)) == ({"x"}, {"sid"})
    assert set(read(path, "context=sid", "ignore=x").fields) == {"sid"}


# names that stand twice


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Nobody knows which of the two is meant."""
    for header in ("action,reward,x,x", "action,reward,x, x"):
        with pytest.raises(BadLog, match="1 column name stands twice: 'x'"):
            read(table(tmp_path, header, "a,1,2,3"))
        with pytest.raises(BadLog, match="stands twice: 'x'"):
            read(table(tmp_path, header.replace(",", "\t"), "a\t1\t2\t3", name="log.tsv"))
    path = tmp_path / "log.parquet"
    arrays = [pa.array(["a"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(arrays, ["action", "reward", "reward"]), path)
    with pytest.raises(BadLog, match="stands twice: 'reward'"):
        read(path)
    with pytest.raises(BadLog, match="reward is named twice, 'x' and 'y'"):
        read(table(tmp_path, "action,x,y", "a,1,2"), "reward=x", "reward=y")


def test_two_columns_that_may_be_the_same_thing_are_refused(tmp_path: Path) -> None:
    """`userId` and `user_id`: the message says how to choose."""
    path = table(tmp_path, "action,reward,userId,user_id", "a,1,u,v")
    with pytest.raises(
        BadLog, match="'userId' and 'user_id' may both be the unit_id; say which: --column unit_id=NAME"
    ):
        read(path)
    assert set(read(path, "unit_id=userId", "ignore=user_id").fields) == set()


def test_empty_headers_and_context_beside_its_mark(tmp_path: Path) -> None:
    """A spreadsheet leaves columns without a name; `context.x` beside `x` is one field twice."""
    notes: list[str] = []
    assert len(read(table(tmp_path, ",action,reward,,", "0,a,1,,", "1,b,0,,"), on_note=notes.append)) == 2
    assert "3 columns without a name: ignored" in notes[0]
    with pytest.raises(BadLog, match=r"'x' and 'context\.x' are one field"):
        read(table(tmp_path, "action,reward,x,context.x", "a,1,2,3"))


def test_a_policy_table_with_a_name_twice_or_of_numbers_says_what_to_do(tmp_path: Path) -> None:
    """The second column or row would silently win."""
    path = table(tmp_path, "action,reward,age,device", "a,1,30,web", "b,0,31,app")
    columns = read(path)
    wide = table(tmp_path, "action,device=web,device=web", "a,1,0", "b,0,1", name="wide.csv")
    with pytest.raises(BadPolicy, match="the column 'device=web' stands twice"):
        parse(f"table:{wide}", columns)
    long = table(tmp_path, "action,device=web", "a,1", "a,0", name="long.csv")
    with pytest.raises(BadPolicy, match="the action 'a' stands twice"):
        parse(f"table:{long}", columns)
    numbers = table(tmp_path, "\ufeffaction, age=30", "a,1", "b,0", name="numbers.csv")
    with pytest.raises(BadPolicy, match=r"it holds numbers; if .* make it a category: --column categories=age"):
        parse(f"table:{numbers}", columns)
    assert parse(f"table:{numbers}", read(path, "categories=age")).name == f"table:{numbers}"


# empty ids


@pytest.mark.parametrize("nothing", ["", " ", "NULL", "None", "nan", "N/A", "(not set)"])
def test_a_decision_without_an_id_is_one_of_its_own(nothing: str, tmp_path: Path) -> None:
    """200 decisions of which 100 have no id are not 101."""
    rows = [f"{f'e{n}' if n % 2 == 0 else nothing},{'ab'[n % 2]},{n % 4 == 1},0.5" for n in range(200)]
    columns = read(table(tmp_path, "event_id,action,reward,propensity", *rows))
    assert (len(columns), columns.reward.mean()) == (200, 0.25)
    assert columns.counts["without a decision id"] == 100
    assert columns.left_out == {}


def test_rows_without_a_unit_are_units_of_their_own(tmp_path: Path) -> None:
    """They are not one visitor who came a hundred times; in Parquet null is nothing, too."""
    rows = [f"{'' if n % 2 else f'u{n % 8}'},a,1" for n in range(200)]
    columns = read(table(tmp_path, "user_id,action,reward", *rows))
    assert unit_count(columns) == 104
    assert columns.counts["without a unit id"] == 100
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"userId": [1.0, math.nan, None, 1.0], "action": ["a"] * 4, "reward": [1] * 4}), path)
    assert unit_count(read(path)) == 3


def test_a_row_of_a_long_table_without_a_decision_id_is_bad(tmp_path: Path) -> None:
    """Nobody knows which other rows it belongs to."""
    path = table(tmp_path, "decision_id,action,chosen,reward", "1,a,1,1", ",a,1,1", ",b,0,1", "2,b,1,0")
    with pytest.raises(BadLog, match=r"log\.csv:3: has no decision_id, which says which rows are one decision"):
        read(path)
    columns = read(path, skip_bad=True)
    assert (drawn(columns), columns.left_out) == (["a", "b"], {"bad decision id": 2})


def test_copies_of_rows_are_counted_where_they_cannot_be_chance(tmp_path: Path) -> None:
    """An export that ran twice; without an id the times tell."""
    rows = [f"{1_700_000_000 + 7 * n},u{n % 50},{'ab'[n % 2]},{n % 3 == 0}" for n in range(300)]
    header = "time,user_id,action,reward"
    assert "exact copies of rows" not in read(table(tmp_path, header, *rows)).counts
    columns = read(table(tmp_path, header, *rows, *rows[:60]))
    assert (len(columns), columns.counts["exact copies of rows"]) == (360, 60)
    same = [f"1700000000,u{n % 50},{'ab'[n % 2]},0" for n in range(300)]
    assert "exact copies of rows" not in read(table(tmp_path, header, *same)).counts, "a day's rows are alike by chance"
    assert "exact copies of rows" not in read(table(tmp_path, "action,reward", *["a,1"] * 300)).counts


def coarse_rows(count: int, kinds: int = 5) -> list[str]:
    """Rows without ids and without times: many are alike by chance."""
    rng = np.random.default_rng(count)
    return [
        f"2026-01-{1 + 20 * n // count:02},{'ab'[rng.integers(2)]},{int(rng.random() < 0.2)},0.5,d{rng.integers(kinds)}"
        for n in range(count)
    ]


COARSE = "date,action,reward,propensity,device"


@pytest.mark.parametrize("times", [2, 3, 5])
@pytest.mark.parametrize("order", ["one after the other", "each row at once", "shuffled"])
def test_a_table_that_was_written_again_is_noticed_without_ids_and_times(
    times: int, order: str, tmp_path: Path
) -> None:
    """Every interval would be too short by the root of 2."""
    rows = coarse_rows(400) * times
    if order != "one after the other":
        rows.sort()
    if order == "shuffled":
        np.random.default_rng(1).shuffle(rows)
    columns = read(table(tmp_path, COARSE, *rows))
    assert columns.counts["exact copies of rows"] == 400 * (times - 1)


def test_a_table_of_few_different_rows_that_was_written_again_is_noticed_by_its_order(tmp_path: Path) -> None:
    """The order of four different rows is no chance either; a number for each row changes nothing."""
    rng = np.random.default_rng(2)
    rows = [f"{'ab'[rng.integers(2)]},{rng.integers(2)}" for _ in range(100)]
    assert read(table(tmp_path, "action,reward", *rows * 2)).counts["exact copies of rows"] == 100
    numbered = [f"{number},{row}" for number, row in enumerate(rows * 2)]
    assert read(table(tmp_path, "index,action,reward", *numbered)).counts["exact copies of rows"] == 100


def test_copies_with_fine_times_or_without_some_units_are_noticed_however_often_they_come(tmp_path: Path) -> None:
    """Three copies of everything are as much a fault as two; visitors without an id are copied, too."""
    rows = [f"{1_700_000_000 + 7 * n},{f'u{n % 50}' if n % 9 else ''},{'ab'[n % 2]},{n % 3 == 0}" for n in range(300)]
    columns = read(table(tmp_path, "time,user_id,action,reward", *rows * 3))
    assert columns.counts["exact copies of rows"] == 600


@given(seed=st.integers(0, 2**32), count=st.integers(1, 120), kinds=st.integers(1, 3))
def test_rows_that_are_alike_by_chance_are_no_copies(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, kinds: int
) -> None:
    """Few different rows come again all the time."""
    rng = np.random.default_rng(seed)
    rows = [f"{'abc'[rng.integers(kinds)]},{rng.integers(2)},d{rng.integers(kinds)}" for _ in range(count)]
    columns = read(table(tmp_path_factory.mktemp("log"), "action,reward,device", *rows))
    assert "exact copies of rows" not in columns.counts


# empty rewards and what is left out

CLICKS = [f"{'ab'[n % 2]},{1 if n % 5 == 0 else ('', 'NULL', 'nan', 'None')[n % 4]},0.5" for n in range(200)]


def test_an_empty_reward_has_the_meaning_that_the_user_chooses(tmp_path: Path) -> None:
    """Nothing where nothing was clicked: dropped, a click rate of 20 % becomes 100 %."""
    path = table(tmp_path, "action,reward,propensity", *CLICKS)
    with pytest.raises(BadLog) as failed:
        read(path)
    assert "log.csv:3: the reward is empty, here and in 160 of 200 rows" in str(failed.value)
    assert "--empty-reward 0" in str(failed.value)
    assert "--empty-reward drop" in str(failed.value)
    with pytest.raises(BadLog, match="--empty-reward"):
        read(path, skip_bad=True)
    nothing = read(path, empty_reward=0.0)
    assert (len(nothing), nothing.reward.mean(), nothing.left_out) == (200, 0.2, {})
    unknown = read(path, empty_reward="drop")
    assert (len(unknown), unknown.left_out) == (40, {"empty reward": 160})
    assert unknown.left_out_rows is not None
    actions = [unknown.actions[code] for code in unknown.left_out_rows.action.tolist()]
    assert (actions.count("a"), actions.count("b")) == (80, 80)
    assert np.isnan(unknown.left_out_rows.reward).all()


NOTHING = ("NA", "#N/A", "<NA>", "n/a", "NaN", "none", "null", "Null", "Na", "#NA", "NaT", "-nan", " ", "\\N")


@pytest.mark.parametrize("nothing", NOTHING)
def test_what_other_programs_write_for_nothing_is_nothing(nothing: str, tmp_path: Path) -> None:
    """R writes NA, a spreadsheet #N/A, pandas <NA>: no reward, no visitor, no decision, no number."""
    rows = [f"{nothing},{nothing},a,{nothing if n % 2 else 1},{nothing if n % 3 else n}" for n in range(60)]
    path = table(tmp_path, "user_id,decision_id,action,reward,age", *rows)
    with pytest.raises(BadLog, match=r"the reward is empty, here and in 30 of 60 rows .*--empty-reward 0"):
        read(path)
    columns = read(path, empty_reward=0.0)
    assert (len(columns), unit_count(columns), columns.reward.mean()) == (60, 60, 0.5)
    assert columns.counts == dict.fromkeys(("without a time", "without a unit id", "without a decision id"), 60) | {
        "empty reward": 30
    }
    age = columns.fields["age"]
    assert isinstance(age, Number)
    assert np.flatnonzero(~np.isnan(age.values)).tolist() == list(range(0, 60, 3))


def test_an_empty_reward_must_be_in_the_declared_range(tmp_path: Path) -> None:
    """-1 for nothing in a range of 0 to 1 is a mistake."""
    path = table(tmp_path, "action,reward", "a,1", "b,")
    with pytest.raises(BadLog, match=r"--empty-reward -1 is not in the declared range"):
        read(path, empty_reward=-1.0, reward_range=(0.0, 1.0))


def test_what_is_left_out_is_kept_to_be_judged(tmp_path: Path) -> None:
    """Whether it depends on action, reward or time decides what the rest is worth."""
    rows = [
        "1,a,1,0.5,1700000100",
        "2,b,x,0.5,1700000200",
        "1,a,0,0.5,1700000300",
        "3,c,1,7,1700000400",
        "4,a,1,0.5,soon",
        "5,b,0,0.5,1700000500",
    ]
    columns = read(table(tmp_path, "decision_id,action,reward,propensity,time", *rows), skip_bad=True)
    lost = columns.left_out_rows
    assert lost is not None
    kinds = ("bad reward", "bad propensity", "bad time", "repeated decision id of another row")
    assert columns.left_out == dict.fromkeys(kinds, 1)
    assert [columns.actions[code] if code >= 0 else None for code in lost.action.tolist()] == ["b", "a", None, "a"]
    assert lost.reward.tolist() == pytest.approx([math.nan, 0.0, 1.0, 1.0], nan_ok=True)
    assert lost.time.tolist() == [1_700_000_200_000_000, 1_700_000_300_000_000, 1_700_000_400_000_000, -1]


# actions that were never drawn


def test_actions_that_were_never_drawn_can_be_declared(tmp_path: Path) -> None:
    """A table only shows what was drawn; uniform over 200 actions needs all of them."""
    path = table(tmp_path, "action,reward,propensity", "a,1,0.25", "b,0,0.25")
    named = read(path, actions=("c", "a", "d"))
    assert (named.actions, named.sets) == (("a", "b", "c", "d"), ((0, 1, 2, 3),))
    counted = read(path, actions=4)
    assert counted.actions == ("a", "b", "unseen-1", "unseen-2")
    with pytest.raises(BadLog, match="has 2 different actions, more than --actions 1"):
        read(path, actions=1)
    lists = table(tmp_path, "eligible,action,reward", "a|b,a,1", name="lists.csv")
    for other in (lists, OLD_LOG, written(tmp_path, decision())):
        with pytest.raises(BadLog, match="says itself which actions could be drawn; leave out --actions"):
            read(other, actions=3)


@pytest.mark.parametrize(
    ("decisions", "actions", "propensity", "verdict"),
    [(400, 200, 0.005, "fine"), (20_000, 201, 0.005, "caution"), (400, 300, 0.005, "caution")],
)
def test_actions_that_chance_left_undrawn_need_no_other_propensity(
    decisions: int, actions: int, propensity: float, verdict: str, tmp_path: Path
) -> None:
    """200 actions with 0.005 each are not all drawn in 400 decisions; a hundred more have none at all."""
    rng = np.random.default_rng(4)
    rows = [f"i{rng.integers(0, 200)},{int(rng.random() < 0.2)},{propensity}" for _ in range(decisions)]
    columns = read(table(tmp_path, "action,reward,propensity", *rows), actions=actions)
    finding = never_drawn(columns)
    assert finding.verdict == verdict
    assert ("Chance explains it" in finding.text) == (verdict == "fine")
    assert bool(finding.needed) == (verdict == "caution")


@pytest.mark.parametrize(("rare", "verdict"), [(0.05, "fine"), (1e-4, "caution"), (0.0, "caution")])
def test_a_small_propensity_is_the_reason_whatever_chance_says(rare: float, verdict: str, tmp_path: Path) -> None:
    """With one of a ten thousandth no log of this size will ever show the action; the pmf says so."""
    rows = [f"{'ab'[n % 2]},{n % 3 == 0},{(1 - rare) / 2},{(1 - rare) / 2},{rare}" for n in range(60)]
    columns = read(table(tmp_path, "action,reward,pmf.a,pmf.b,pmf.c", *rows))
    assert never_drawn(columns).verdict == verdict


def test_a_uniform_log_of_many_actions_is_answered(tmp_path: Path) -> None:
    """The value of uniform is the mean reward: the log says so, once it knows how many actions there are."""
    rng = np.random.default_rng(3)
    rows = [f"i{rng.integers(0, 200)},{int(rng.random() < 0.2)},0.005" for _ in range(400)]
    path = table(tmp_path, "action,reward,propensity", *rows)
    found = CliRunner().invoke(main, ["evaluate", str(path), "--policy", "uniform", "--actions", "200"])
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--actions", "a,b,a"), "names 'a' twice"),
        (("--actions", "@nothing.txt"), "nothing.txt: cannot be read"),
        (("--actions", ","), "names no action"),
        (("--actions", "0"), "0 is no number of actions from 1"),
        (("--actions", "-3"), "-3 is no number of actions from 1"),
        (("--actions", "2.5"), "2.5 is no number of actions from 1"),
        (("--actions", "10000000"), "10000000 is no number of actions from 1"),
        (("--actions", __file__), "did you mean --actions @/"),
        (("--empty-reward", "maybe"), "'maybe' is neither a number nor drop"),
        (("--empty-reward", "inf"), "'inf' is neither a number nor drop"),
    ],
)
def test_wrong_options_say_what_is_wrong(option: tuple[str, str], says: str, tmp_path: Path) -> None:
    """Before the log is read."""
    path = table(tmp_path, "action,reward", "a,1")
    found = CliRunner().invoke(main, ["inspect", str(path), *option])
    assert found.exit_code == 2
    assert says in " ".join(found.output.replace("│", " ").split())


def test_a_file_of_actions_without_its_mark_is_no_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An action called acts.txt that is never drawn; an id that is also a file's name can still be given."""
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path, "action,reward", "a,1")
    table(tmp_path, "a", "b", name="acts.txt")
    found = CliRunner().invoke(main, ["inspect", str(path), "--actions", "acts.txt"])
    assert found.exit_code == 2
    assert "did you mean --actions @acts.txt?" in " ".join(found.output.replace("│", " ").split())
    for right in ("@acts.txt", "acts.txt,"):
        found = CliRunner().invoke(main, ["inspect", str(path), "--actions", right])
        assert "among 2 actions" in " ".join(found.output.split())


def test_a_log_that_says_what_could_be_drawn_is_not_to_be_read_with_more_actions(tmp_path: Path) -> None:
    """What is asked for must work: an imported log refuses --actions, so the table has to be imported again."""
    rng = np.random.default_rng(3)
    rows = [f"i{rng.integers(0, 200)},{int(rng.random() < 0.2)},0.005" for _ in range(400)]
    path, out = table(tmp_path, "action,reward,propensity", *rows), tmp_path / "log.db"

    def output(*arguments: str) -> str:
        return " ".join(CliRunner().invoke(main, arguments).output.replace("│", " ").split())

    assert "--actions @FILE (one a line)" in output("evaluate", str(path), "--policy", "uniform")
    output("import", str(path), str(out))
    assert "import it again with --actions 200" in output("evaluate", str(out), "--policy", "uniform")
    assert "import the table again with it: --actions 200" in output("inspect", str(out), "--actions", "200")
    again = tmp_path / "again.db"
    output("import", str(path), str(again), "--actions", "200")
    assert CliRunner().invoke(main, ["evaluate", str(again), "--policy", "uniform"]).exit_code == 0


def test_options_reach_the_reader(tmp_path: Path) -> None:
    """A file of actions has one id a line; the same options are those of compare."""
    path = table(tmp_path, "action,reward,propensity", *CLICKS)
    actions = table(tmp_path, "c", "d", "", name="actions.txt")
    options = ["--empty-reward", "0", "--actions", f"@{actions}"]
    found = CliRunner().invoke(main, ["inspect", str(path), *options])
    assert "200 decisions among 4 actions" in " ".join(found.output.split())
    out = tmp_path / "out"
    arguments = ["compare", str(path), "--policies", "uniform", "fixed:a", "--out", str(out), "--workers", "1"]
    found = CliRunner().invoke(main, [*arguments, "--empty-reward", "0"])
    assert "failed" not in found.output
    assert (out / "runs.parquet").is_file()


# Parquet, numbers


def parquet(folder: Path, **columns: Any) -> Path:
    """A Parquet file of two rows."""
    path = folder / "log.parquet"
    pq.write_table(pa.table({"action": ["a", "b"], "reward": [1, 0]} | columns), path)
    return path


def test_bytes_in_parquet_are_texts_or_refused_by_name(tmp_path: Path) -> None:
    """Spark writes texts as bytes; a picture is no context."""
    path = parquet(
        tmp_path, action=[b"a", b"b"], userId=[b"x", b"x"], device=pa.array([b"web", None], pa.large_binary())
    )
    columns = read(path)
    assert (drawn(columns), unit_count(columns), values_of(columns, "device")) == (["a", "b"], 1, ["web", None])
    with pytest.raises(BadLog, match=r"column 'blob' holds binary that is no UTF-8 text; .*--column ignore=blob"):
        read(parquet(tmp_path, blob=[b"\xff\xfe", b"\x00\xff"]))


@pytest.mark.parametrize("name", ["reward", "propensity", "time", "unit_id", "action", "decision_id"])
@pytest.mark.parametrize("values", [[["a"], ["b"]], [{"x": 1}, {"x": 2}]])
def test_no_column_ends_in_an_error_of_arrow(name: str, values: list[Any], tmp_path: Path) -> None:
    """Lists and structures where a number, a time or an id should be: the column is named."""
    with pytest.raises(BadLog, match=name):
        read(parquet(tmp_path, **{name: values}))


def test_numbers_beyond_2_to_the_53_are_read(tmp_path: Path) -> None:
    """Ids of 64 bits are whole numbers in Parquet."""
    assert isinstance(read(parquet(tmp_path, big=[2**62 + 1, 5])).fields["big"], Number)


def test_the_range_is_declared_or_not(tmp_path: Path) -> None:
    """What was seen is no promise of what can come."""
    path = table(tmp_path, "action,reward", "a,1", "b,0")
    assert not read(path).range_declared
    assert read(path, reward_range=(0.0, 1.0)).range_declared
    assert not read(written(tmp_path, decision())).range_declared


def test_thirty_columns_are_one_line_each(tmp_path: Path) -> None:
    """What was recognised as what is read by a person before anything else."""
    names = [f"field_{n}" for n in range(30)]
    notes: list[str] = []
    read(
        table(tmp_path, ",".join(["action", "reward", *names]), ",".join(["a", "1", *["x"] * 30])), on_note=notes.append
    )
    assert len(notes[0].splitlines()) == 33
    assert max(map(len, notes[0].splitlines()[1:])) < 80


def test_what_was_taken_for_what_is_said_although_the_reading_fails(tmp_path: Path) -> None:
    """The mapping is often the reason."""
    notes: list[str] = []
    with pytest.raises(BadLog):
        read(table(tmp_path, "item,click", "a,x"), on_note=notes.append)
    assert "item: action" in notes[0]


def test_columns_of_an_id_that_never_ends_are_given_up_early(tmp_path: Path) -> None:
    """A million texts are a million Python objects; after some thousands it is clear what they are."""
    path = table(tmp_path, "action,reward,trace", *[f"a,1,t{n}" for n in range(30_000)])
    columns: Columns = read(path, block_bytes=1 << 16)
    assert set(columns.set_aside) == {"trace"}
    assert not columns.fields


def test_what_comes_again_like_an_id_is_taken_for_the_unit_where_none_is_known(tmp_path: Path) -> None:
    """Twenty people with thirty rows each are not six hundred people, whatever their column is called."""
    rows = [f"u{n % 20},a,1" for n in range(200)]
    columns = read(table(tmp_path, "whoever,action,reward", *rows))
    assert unit_count(columns) == 20
    assert columns.set_aside["whoever"].endswith("intervals take it for the unit")
    assert unit_count(read(table(tmp_path, "whoever,action,reward", *rows), "ignore=whoever")) == 200


def test_a_table_that_was_delivered_twice_has_lost_nothing(tmp_path: Path) -> None:
    """Exports that ran again are common; the second copy of a row is no decision, and nobody misses it."""
    rows = [f"{n},a,{n % 2}" for n in range(100)]
    columns = read(table(tmp_path, "decision_id,action,reward", *rows, *rows))
    assert (len(columns), columns.left_out) == (100, {"repeated decision id": 100})
    assert columns.left_out_rows is None


def test_a_column_that_names_the_action_is_no_unit(tmp_path: Path) -> None:
    """Forty banners are not forty visitors, and checks of draws must see every row."""
    rows = [f"a{n * 7 % 40},thing-{n * 7 % 40},{n % 2},0.025" for n in range(800)]
    columns = read(table(tmp_path, "action,whatever,reward,propensity", *rows))
    assert unit_count(columns) == 800
    assert "whatever" in columns.fields
