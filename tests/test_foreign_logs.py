"""Foreign logs as columns: dsjson by its documented meaning, tables by their columns, the Open Bandit Dataset."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.datasets import open_bandit
from simulator.datasets.open_bandit import DatasetError
from simulator.logs.columns import Category, Columns, Number
from simulator.logs.decider_log import AmbiguousExperiment
from simulator.logs.dsjson import fair_sample
from simulator.logs.errors import BadLog
from simulator.logs.files import LONGEST_LINE
from simulator.logs.mapping import GUESSES
from simulator.logs.open import ReadOptions, open_log

PERSONALIZER = Path(__file__).parent / "data" / "personalizer.dsjson"
SKIP = ReadOptions(skip_bad=True)
NAN = math.nan


def decision(**changes: Any) -> dict[str, Any]:
    """A dsjson line: the second of two actions was drawn with probability 0.8 and was clicked."""
    line: dict[str, Any] = {
        "_label_cost": -1.0,
        "_label_probability": 0.8,
        "_label_Action": 2,
        "_labelIndex": 1,
        "Timestamp": "2021-03-01T10:00:00.0000000Z",
        "Version": "1",
        "EventId": "e1",
        "a": [2, 1],
        "c": {"device": "phone", "_multi": [{"_tag": "no"}, {"_tag": "yes"}]},
        "p": [0.8, 0.2],
        "VWState": {"m": "model"},
    }
    line |= changes
    return {name: value for name, value in line.items() if value is not None}


def written(folder: Path, *lines: Mapping[str, Any] | str, name: str = "log.dsjson") -> Path:
    """A file of such lines."""
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def read(path: Path | str, *columns: str, **options: Any) -> Columns:
    """What `open_log` makes of it."""
    return open_log(str(path), ReadOptions(columns=columns, **options))


def drawn(columns: Columns) -> list[str]:
    """The ids of the drawn actions."""
    return [columns.actions[code] for code in columns.action.tolist()]


def field(columns: Columns, name: str) -> list[Any]:
    """The values of a context field; None where it was not given."""
    one = columns.fields[name]
    if isinstance(one, Number):
        return [None if math.isnan(value) else value for value in one.values.tolist()]
    return [None if code < 0 else one.values[code] for code in one.codes.tolist()]


# dsjson


def test_every_kind_of_line_is_read_by_its_documented_meaning() -> None:
    """The example has one line (or more) of every kind that Personalizer and rlclientlib write."""
    columns = open_log(str(PERSONALIZER), SKIP)
    assert [id_.removeprefix("hero-") for id_ in drawn(columns)] == [
        "outfit", "sale", "outfit", "sale", "none", "sale", "outfit", "sale",
    ]  # fmt: skip
    assert columns.reward.tolist() == [1.0, 0.0, 3.5, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert columns.propensity.tolist() == [0.8, 0.1, 0.75, 0.8, 0.1, 0.8, 0.1, 0.8]
    assert columns.left_out == {
        "checkpoint": 2,
        "not activated": 1,
        "not to be learned": 1,
        "dangling reward": 3,
        "dangling activation": 1,
        "dropped (pdrop = 1)": 1,
        "several slots": 1,
        "continuous action": 1,
        "without a label": 1,
        "no actions": 1,
        "bad line": 2,
        "repeated": 1,
    }
    assert columns.counts == {"other original cost (apprentice mode)": 1}


def test_the_rest_of_a_dsjson_line_arrives() -> None:
    """Context, eligible actions, pmf, time, delay, default, model and what the actions are."""
    columns = open_log(str(PERSONALIZER), SKIP)
    assert field(columns, "User.age") == ["18-25", "26-40", "26-40", "18-25", "18-25", "18-25", "18-25", "41-60"]
    assert field(columns, "User.vip") == ["false", "true", *["false"] * 5, None]
    assert field(columns, "speed") == [None, 1.5, *[None] * 6]
    assert set(columns.fields) == {"User.age", "User.vip", "Geo.country", "device", "speed"}, "_ names are no features"
    assert [columns.sets[code] for code in columns.eligible.tolist()][:3] == [(0, 1, 2), (0, 1, 2), (0, 1)]
    assert columns.dense_pmf()[:3] == pytest.approx(np.array([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.25, 0.75, 0.0]]))
    assert columns.time[0] == round(datetime(2021, 3, 1, 10, 1, 0, 516_000, UTC).timestamp() * 1e6)
    assert columns.delay is not None
    assert columns.delay.tolist() == pytest.approx([30.0, NAN, 119.484, *[NAN] * 5], nan_ok=True)
    assert (columns.known - columns.time).tolist() == [30_000_000, 0, 119_484_000, 0, 0, 0, 0, 0]
    assert columns.default is not None
    assert columns.default.tolist() == [False, True, False, False, True, False, False, False]
    assert columns.model is not None
    assert columns.model.tolist() == [0] * 7 + [1]
    assert columns.traits == {"Look.colour": ("red", "blue", "none")}
    assert columns.action_features is not None
    assert json.loads(columns.action_features.values[0])["hero-sale"] == {"Look.size": 2.0}


def test_a_broken_line_ends_the_reading_with_its_file_and_number() -> None:
    """Whoever did not ask to skip wants to know; the message says both ways out."""
    with pytest.raises(BadLog, match=r"personalizer\.dsjson:17: is no JSON .*; mend it, or .*: --skip-bad") as failed:
        open_log(str(PERSONALIZER), ReadOptions())
    assert failed.value.reason == "BAD_LOG"


@pytest.mark.parametrize(
    ("changes", "learned"),
    [
        ({}, True),
        ({"DeferredAction": False}, True),
        ({"DeferredAction": True}, False),
        ({"DeferredAction": True, "o": [{"v": 1.0}]}, False),
        ({"DeferredAction": True, "o": [{"ActionTaken": False}]}, False),
        ({"DeferredAction": True, "o": [{"v": 1.0}, {"ActionTaken": True}]}, True),
        ({"DeferredAction": True, "o": [{"DeferredAction": False}]}, True),
        ({"_deferred": True, "o": [{"DeferredAction": True, "v": 1.0}]}, False),
    ],
)
def test_a_deferred_decision_counts_once_it_was_activated(
    changes: dict[str, Any], learned: bool, tmp_path: Path
) -> None:
    """Nobody saw the others: their default reward would teach that the action failed (reinforcement_learning 298)."""
    path = written(tmp_path, decision(), decision(EventId="e2", **changes))
    columns = read(path)
    assert len(columns) == 1 + learned
    assert columns.left_out == ({} if learned else {"not activated": 1})


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("{", "line", "is no JSON"),
        ("7", "line", "is no JSON object"),
        ('{"x": 1}', "line", "is neither a decision nor a reward: it has x"),
        ("\x00", "line", "is no JSON"),
        (decision(_label_cost="high"), "_label_cost", "_label_cost 'high' is not a number"),
        (decision(_label_cost=True), "_label_cost", "_label_cost True is not a number"),
        (json.dumps(decision()).replace("-1.0", "NaN"), "line", "NaN is not a number"),
        (json.dumps(decision()).replace("-1.0", "-1e999"), "_label_cost", "_label_cost -inf is not a number"),
        (decision(_label_Action=1), "action", "_label_Action 1 is not the drawn action 2 that `a` names first"),
        (decision(_labelIndex=0), "action", "_labelIndex 0 is not the drawn action 2"),
        (decision(a=[2, 2]), "a", "no list of different action numbers from 1"),
        (decision(a=[2, 0]), "a", "no list of different action numbers from 1"),
        (decision(a=["2", 1]), "a", "no list of different action numbers from 1"),
        (decision(a=[2, 3]), "a", "names more actions than the 2 in _multi"),
        (decision(p=[0.8]), "p", "are not the probabilities of the 2 actions"),
        (decision(p=[0.8, "x"]), "p", "are not the probabilities of the 2 actions"),
        (decision(p=[1.8, -0.8]), "p", "are not the probabilities of the 2 actions"),
        (decision(p=[0.8, 0.5]), "p", "are not the probabilities of the 2 actions"),
        (decision(_label_probability=0), "_label_probability", "probability 0.0 is not in (0, 1]"),
        (decision(_label_probability=0.9), "_label_probability", "0.9 is not the 0.8 that p gives"),
        (decision(_label_probability=None, p=None), "_label_probability", "neither _label_probability nor p"),
        (decision(pdrop=-0.1), "pdrop", "pdrop -0.1 is not in [0, 1]"),
        (decision(Timestamp="yesterday"), "Timestamp", "the time 'yesterday' is not like"),
        (decision(c={"device": "x", "_multi": [{"_tag": "no"}, 5]}), "_multi", "something that is no object"),
        (decision(c={"_multi": [{"_tag": "no"}, {"_tag": "no"}]}), "action id", "two actions of one line are 'no'"),
        (decision(c={"_multi": [{"_tag": "no"}, {}]}), "action id", "an action has no _tag"),
        (decision(_label_cost=-7), "reward", "7.0 is not a number in the declared range [0, 1]"),
    ],
)
def test_a_bad_line_is_named_or_counted(line: Any, kind: str, says: str, tmp_path: Path) -> None:
    """A wrong number taken for right is worse than an end; vw takes several of these in silence."""
    good = [decision(EventId=f"good-{number}") for number in range(3)]
    path = written(tmp_path, *good[:2], line, good[2])
    with pytest.raises(BadLog) as failed:
        read(path, "action=_tag", reward_range=(0.0, 1.0))
    assert str(failed.value).startswith(f"{path}:3: ")
    assert says in str(failed.value)
    columns = read(path, "action=_tag", reward_range=(0.0, 1.0), skip_bad=True)
    assert (len(columns), columns.left_out) == (3, {f"bad {kind}": 1})
    assert field(columns, "device") == ["phone"] * 3, "nothing of the bad line has stayed"


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just(10**400)
    | st.sampled_from(["\ud800", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("_multi"), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.sampled_from([*decision(), "pdrop", "o", "_original_label_cost", "_outcomes", "UnitId"]), anything, st.booleans()
)
def test_no_line_whatever_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any, inside: bool
) -> None:
    """A line is a decision, or counted; never a traceback."""
    wrong = decision(c={**decision()["c"], name: value}) if inside else {**decision(), name: value}
    path = written(tmp_path_factory.mktemp("fuzz"), decision(EventId="good"), json.dumps(wrong))
    columns = read(path, skip_bad=True)
    assert len(columns) + sum(columns.left_out.values()) == 2


def test_features_as_deep_as_a_well_are_a_bad_line(tmp_path: Path) -> None:
    """They would end the interpreter's stack, not the log."""
    deep = '{"a":' * 900 + "1" + "}" * 900
    line = json.dumps(decision(EventId="e2")).replace('"phone"', deep)
    columns = read(written(tmp_path, decision(), line), skip_bad=True)
    assert (len(columns), columns.left_out) == (1, {"bad feature": 1})


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    """Half a character at the end of a cut file."""
    path = tmp_path / "log.json"
    path.write_bytes(json.dumps(decision()).encode() + b'\n{"c": "\xff"}\n')
    with pytest.raises(BadLog, match=r"log\.json:2: is no UTF-8 text"):
        read(path)
    assert read(path, skip_bad=True).left_out == {"bad line": 1}


def test_the_same_pdrop_everywhere_changes_nothing(tmp_path: Path) -> None:
    """What is left of a log of which any line was dropped with the same probability is a fair sample of it."""
    lines = [decision(EventId=f"e{number}") for number in range(50)]
    plain = read(written(tmp_path, *lines))
    dropped = read(written(tmp_path, *[{**line, "pdrop": 0.75} for line in lines]))
    assert dropped.reward.tolist() == plain.reward.tolist()
    assert dropped.propensity.tolist() == plain.propensity.tolist()
    assert dropped.left_out == {}


def subsampled(count: int, random: Random, *, ids: bool) -> tuple[list[dict[str, Any]], float]:
    """Decisions of which the clicked ones are dropped with probability 0.8, and the share that was clicked."""
    lines, clicks = [], 0
    for number in range(count):
        click = random.random() < 0.5
        clicks += click
        pdrop = 0.8 if click else 0.0
        if random.random() >= pdrop:
            lines.append(decision(EventId=f"e{number}" if ids else None, _label_cost=-float(click), pdrop=pdrop))
    return lines, clicks / count


@pytest.mark.parametrize("ids", [True, False])
def test_lines_that_were_dropped_with_different_probabilities_become_a_fair_sample(ids: bool, tmp_path: Path) -> None:
    """A queue that runs full drops more; a plain mean of what is left says something else than what happened."""
    lines, share = subsampled(20_000, Random(3), ids=ids)
    columns = read(written(tmp_path, *lines))
    naive = np.mean([-line["_label_cost"] for line in lines])
    error = 4 * math.sqrt(0.25 / len(columns))
    assert abs(float(columns.reward.mean()) - share) < error
    assert abs(naive - share) > 10 * error
    assert columns.left_out["left out so that pdrop is the same"] == len(lines) - len(columns)
    assert len(columns) == pytest.approx(20_000 * 0.2, rel=0.05)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=50), st.randoms(use_true_random=False))
def test_the_rows_that_survived_least_are_all_in_the_fair_sample(keep: list[float], random: Random) -> None:
    """They are what limits it; and with one keep for all, everything is in it."""
    keys = np.array([random.getrandbits(63) for _ in keep], np.uint64)
    flags = fair_sample(np.array(keep), keys)
    assert flags[np.array(keep) == min(keep)].all()
    assert fair_sample(np.full(len(keep), keep[0]), keys).all()


def test_a_label_probability_that_holds_the_pass_probability_is_taken_apart(tmp_path: Path) -> None:
    """rlclientlib's log_converter multiplies it in; the propensity of the draw is what p says."""
    named = decision(EventId="e1", _label_probability=0.4, pdrop=0.5)
    not_named = decision(EventId="e2", _label_probability=0.4)
    columns = read(written(tmp_path, named, not_named))
    assert columns.propensity.tolist() == [0.8, 0.8]
    assert (columns.left_out, columns.counts) == ({}, {"label probability times 1 - pdrop": 2})


def test_printed_probabilities_may_differ_in_their_last_digits(tmp_path: Path) -> None:
    """0.8166667 beside 0.816666663 is the same float32."""
    columns = read(written(tmp_path, decision(_label_probability=0.8166667, p=[0.816666663, 0.183333337])))
    assert columns.propensity.tolist() == [0.8166667]


@pytest.mark.parametrize(
    ("changes", "eligible", "has_pmf"),
    [
        ({}, ("no", "yes"), True),
        ({"p": None}, ("no", "yes"), False),
        ({"a": [2], "p": [0.8]}, ("no", "yes"), False),
        ({"a": [2], "p": [1.0], "_label_probability": 1.0}, ("yes",), True),
        ({"a": 2, "p": 0.8}, ("no", "yes"), False),
    ],
)
def test_a_pmf_that_is_not_whole_is_no_pmf(
    changes: dict[str, Any], eligible: tuple[str, ...], has_pmf: bool, tmp_path: Path
) -> None:
    """Converted logs often only have the drawn action's probability: the others' are unknown, not 0."""
    columns = read(written(tmp_path, decision(**changes)))
    assert tuple(columns.actions[index] for index in columns.sets[columns.eligible[0]]) == eligible
    assert (columns.pmf is not None) == has_pmf
    assert drawn(columns) == ["yes"]


def actions_line(number: int, *actions: dict[str, Any]) -> dict[str, Any]:
    """A decision with these actions, the first of which was drawn for sure."""
    return decision(
        EventId=f"e{number}", _label_probability=None, _label_Action=1, _labelIndex=0, c={"_multi": list(actions)},
        a=list(range(1, len(actions) + 1)), p=[1.0] + [0.0] * (len(actions) - 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "ids", "words"),
    [
        ([{"_tag": "a", "id": 7}, {"_tag": "b", "id": 8}], ["a", "b"], "_tag"),
        ([{"i": {"id": "a"}, "x": 1}, {"i": {"id": "b"}, "x": 1}], ["a", "b"], "i.id"),
        ([{"ActionId": 7}, {"ActionId": 8}], ["7", "8"], "ActionId"),
        ([{"_tag": "t", "x": 1}, {"_tag": "t", "x": 2}], ["action-d767233b", "action-fd2dac7e"], "same features"),
        ([{"x": 1}, {"x": 1}], ["action-1", "action-2"], "place"),
    ],
)
def test_actions_are_told_apart_by_what_they_have(
    actions: list[dict[str, Any]], ids: list[str], words: str, tmp_path: Path
) -> None:
    """Ids must mean the same in every line, or every estimate by action is nonsense; what was taken is said."""
    notes: list[str] = []
    lines = [actions_line(1, *actions), actions_line(2, *actions)]
    columns = read(written(tmp_path, *lines), on_note=notes.append)
    assert list(columns.actions) == ids
    assert words in notes[0]


def test_an_action_keeps_its_id_wherever_it_stands(tmp_path: Path) -> None:
    """The list's order is not an action's identity."""
    a, b = {"x": {"colour": "red"}}, {"x": {"colour": "blue"}}
    columns = read(written(tmp_path, actions_line(1, a, b), actions_line(2, b, a), actions_line(3, a, b)))
    assert drawn(columns)[0] == drawn(columns)[2] != drawn(columns)[1]
    assert columns.traits == {"x.colour": ("red", "blue")}


def test_features_that_change_from_line_to_line_make_no_new_actions(tmp_path: Path) -> None:
    """A price of the day in the features would make every line's actions new ones; then the place tells them apart."""
    lines = [actions_line(n, {"price": n + 0.1}, {"price": n + 0.2}) for n in range(20)]
    columns = read(written(tmp_path, *lines))
    assert columns.actions == ("action-1", "action-2")
    assert columns.action_features is not None
    given = [json.loads(columns.action_features.values[code]) for code in columns.action_features.codes.tolist()]
    assert given[3] == {"action-1": {"price": 3.1}, "action-2": {"price": 3.2}}


def test_the_user_says_how_to_tell_actions_apart(tmp_path: Path) -> None:
    """`--column action=...`, because nobody can guess every format."""
    path = written(tmp_path, actions_line(1, {"_tag": "t", "sku": {"no": "x"}}, {"_tag": "u", "sku": {"no": "y"}}))
    assert read(path, "action=sku.no").actions == ("x", "y")
    assert read(path, "action=position").actions == ("action-1", "action-2")
    first, second = read(path, "action=content").actions
    assert first != second
    assert all(one.startswith("action-") and len(one) == 15 for one in (first, second))
    with pytest.raises(BadLog, match=r"unknown word '\w+'; words are: action, context, ignore$"):
        read(path, "reward=clicked")


def test_a_field_of_numbers_and_texts_becomes_one_of_texts(tmp_path: Path) -> None:
    """Otherwise the numbers would be lost."""
    values = [3, "three", 2.5, None]
    multi = decision()["c"]["_multi"]
    lines = [decision(EventId=f"e{n}", c={"x": value, "_multi": multi}) for n, value in enumerate(values)]
    assert field(read(written(tmp_path, *lines)), "x") == ["3.0", "three", "2.5", None]


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=3, max_size=3, unique=True), st.integers(1, 3))
def test_the_order_of_the_actions_in_a_line_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], number: int
) -> None:
    """What is drawn and how probable everything was follows the ids, whatever the numbers of a line."""
    folder = tmp_path_factory.mktemp("order")
    probability = {"a": 0.5, "b": 0.25, "c": 0.25}
    numbers = [number, *[n for n in (1, 2, 3) if n != number]]
    line = decision(
        _label_probability=None, _label_Action=number, _labelIndex=number - 1, a=numbers,
        p=[probability[order[n - 1]] for n in numbers], c={"_multi": [{"_tag": name} for name in order]},
    )  # fmt: skip
    columns = read(written(folder, line))
    assert drawn(columns) == [order[number - 1]]
    dense = dict(zip(columns.actions, columns.dense_pmf()[0].tolist(), strict=True))
    assert dense == probability


def test_units_without_an_id_are_their_own_and_others_are_equal(tmp_path: Path) -> None:
    """Intervals are clustered by unit."""
    lines = [decision(EventId=f"e{n}", UnitId=unit) for n, unit in enumerate(["ann", "bob", "ann", None, None])]
    unit = read(written(tmp_path, *lines)).unit.tolist()
    assert unit[0] == unit[2]
    assert len(set(unit)) == 4


def test_a_log_of_other_decisions_is_refused_by_name(tmp_path: Path) -> None:
    """An empty table of estimates would say less."""
    path = written(tmp_path, {"_label_ca": {"cost": 0.5, "action": 3.5, "pdf_value": 0.1}, "c": {"x": 1}})
    with pytest.raises(BadLog, match=r"has no decision for one slot with a label \(it has: 1 continuous action\)"):
        read(path)


def test_a_folder_is_read_in_order_of_name_packed_or_not(tmp_path: Path) -> None:
    """Personalizer keeps its logs by year, month and day."""
    (tmp_path / "2021" / "02").mkdir(parents=True)
    (tmp_path / "2021" / "01").mkdir()
    with gzip.open(tmp_path / "2021" / "01" / "31_0.json.gz", "wt") as file:
        file.write(json.dumps(decision(EventId="e1", _label_cost=-0.1)))
    written(tmp_path / "2021" / "02", decision(EventId="e3", _label_cost=-0.3), name="02_0.json")
    written(tmp_path / "2021" / "02", decision(EventId="e2", _label_cost=-0.2), name="01_0.json")
    (tmp_path / "2021" / "readme.txt").write_text("not a log")
    fractions: list[float] = []
    columns = read(tmp_path, on_progress=fractions.append)
    assert columns.reward.tolist() == [0.1, 0.2, 0.3]
    assert fractions[-1] == 1.0


# which reader


def test_a_file_without_a_telling_name_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    """Logs are called anything."""
    assert len(read(written(tmp_path, decision(), name="export-17"))) == 1
    database = tmp_path / "renamed"
    database.write_bytes((Path(__file__).parent / "data" / "log-0.1.0.db").read_bytes())
    assert len(read(database)) > 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("log.xlsx", "PK", "unknown log format; a log is a log of ours"),
        ("log.csv", "", "is empty; it must begin with a line of column names"),
        ("log.csv", "action,reward\n", "has no usable row (it is empty)"),
        ("log.parquet", "no parquet", "is no Parquet file"),
        ("log.csv.gz", "no gzip", "cannot be read"),
        ("cut.csv.gz", "cut", "cannot be read"),
        ("cut.dsjson.gz", "cut", "cannot be read"),
        ("log.dsjson.gz", "no gzip", "cannot be read"),
        ("log.dsjson", "", "it has: nothing"),
    ],
)
def test_a_file_that_is_no_log_is_named(name: str, content: str, says: str, tmp_path: Path) -> None:
    """One line, not a traceback out of a library."""
    path = tmp_path / name
    path.write_text(content)
    if content == "cut":
        lines = "[]\n" if "dsjson" in name else "action,reward\n" + "a,1\n" * 100_000
        path.write_bytes(gzip.compress(lines.encode())[:-9])
    with pytest.raises(BadLog, match=name) as failed:
        read(path)
    assert says in str(failed.value)


@pytest.mark.parametrize("name", ["bomb.dsjson.gz", "bomb.csv.gz"])
def test_a_line_that_takes_all_memory_is_not_read(name: str, tmp_path: Path) -> None:
    """Some kilobytes of a packed file may be gigabytes of one line; where they come from, nobody may know."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"[" + b" " * (LONGEST_LINE + 1), compresslevel=1))
    with pytest.raises(BadLog, match=rf"{name}:1: the line is longer than 33,554,432 bytes"):
        read(path)


def test_a_missing_file_and_mixed_or_empty_folders_are_named(tmp_path: Path) -> None:
    """The first things that go wrong."""
    with pytest.raises(BadLog, match=r"nothing\.csv: there is no such log; check the path"):
        read(tmp_path / "nothing.csv")
    with pytest.raises(BadLog, match="the folder has no log"):
        read(tmp_path)
    written(tmp_path, decision())
    table(tmp_path, "a,r", "x,1")
    with pytest.raises(BadLog, match=r"files of several kinds \(\.csv, \.dsjson\); name one"):
        read(tmp_path)


# tables


def table(folder: Path, *lines: str, name: str = "log.csv") -> Path:
    """A text file of these lines."""
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_usual_names_are_guessed_and_said(tmp_path: Path) -> None:
    """A table of the Open Bandit Pipeline works as it is; the user sees what was taken for what."""
    path = table(
        tmp_path,
        "timestamp,item_id,position,click,propensity_score,user_feature_0",
        "2019-11-24 00:00:10.5+00:00,12,3,1,0.5,abc",
        "2019-11-24 00:00:11+00:00,7,1,0,0.25,",
    )
    notes: list[str] = []
    columns = read(path, on_note=notes.append)
    assert drawn(columns) == ["12", "7"]
    assert columns.propensity.tolist() == [0.5, 0.25]
    assert columns.reward.tolist() == [1.0, 0.0]
    assert columns.time.tolist() == [1_574_553_610_500_000, 1_574_553_611_000_000]
    assert (field(columns, "position"), field(columns, "user_feature_0")) == ([3.0, 1.0], ["abc", None])
    assert (columns.sets, columns.pmf, columns.reward_range) == (((0, 1),), None, (0.0, 1.0))
    assert notes[0].splitlines() == [
        f"{path}: one row a decision; each column is",
        "  timestamp: time",
        "  item_id: action (2 actions)",
        "  position: context, number",
        "  click: reward",
        "  propensity_score: propensity",
        "  user_feature_0: context, category of 1 value",
    ]


def test_our_own_words_are_guessed_first() -> None:
    """An exported table is read back without a mapping."""
    assert all(names[0] == word for word, names in GUESSES.items())


def test_a_mapping_says_what_is_what_and_the_command_line_wins(tmp_path: Path) -> None:
    """Every table can be read, whatever its columns are called."""
    mapping = tmp_path / "mapping.toml"
    mapping.write_text('action = "shown"\nreward = "euros"\nignore = ["session"]\ncategories = ["size"]\n')
    path = table(tmp_path, "shown,euros,clicked,session,size,click", "a,2.5,1,s1,40,9", "b,0,0,s2,42,8")
    columns = read(path, "reward=clicked", "ignore=euros", mapping=mapping)
    assert columns.reward.tolist() == [1.0, 0.0]
    assert set(columns.fields) == {"size", "click"}
    assert (field(columns, "size"), field(columns, "click")) == (["40", "42"], [9.0, 8.0])
    assert set(read(path, "reward=clicked", "fields=size", "action=shown").fields) == {"size"}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (("action=nothing",), "has no column 'nothing' (action); it has shown, euros"),
        ((), "no column is the action; say which: --column action=NAME; it has shown, euros"),
        (("action=shown",), "no column is the reward"),
        (("action",), "--column action: is not like --column reward=clicked"),
        (("price=euros",), "unknown word 'price'"),
        (("action=shown", "reward=euros", "chosen=shown"), "which rows are one decision: --column decision_id=NAME"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(columns: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """With the columns that there are, so that the next try is right."""
    path = table(tmp_path, "shown,euros", "a,1")
    with pytest.raises(BadLog) as failed:
        read(path, *columns)
    assert says in str(failed.value)


@pytest.mark.parametrize("content", ["reward = 7", "ignore = 'x'", "reward", "\xff"])
def test_a_mapping_file_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    """Named, as everything else."""
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(content, encoding="latin-1")
    with pytest.raises(BadLog, match=r"mapping\.toml"):
        read(table(tmp_path, "action,reward", "a,1"), mapping=mapping)


GOOD = "a,1,0.5,2021-03-01T10:00:00Z,30"


@pytest.mark.parametrize(
    ("row", "kind", "says"),
    [
        (",1,0.5,2021-03-01T10:00:00Z,30", "action", "has no action"),
        ("a,yes!,0.5,2021-03-01T10:00:00Z,30", "reward", "'yes!' is not a number in the declared range [0, 2]"),
        ("a,1e400,0.5,2021-03-01T10:00:00Z,30", "reward", "the reward '1e400' is not a number"),
        ("a,1,1e-320,2021-03-01T10:00:00Z,30", "propensity", "the propensity '1e-320' is too small"),
        ("a,1,0.5,2021-03-01T10:00:00Z,1e400", "field", "age '1e400' is too large for a number"),
        ("a,3,0.5,2021-03-01T10:00:00Z,30", "reward", "the reward '3' is not a number in the declared range"),
        ("a,1,0,2021-03-01T10:00:00Z,30", "propensity", "the propensity '0' is not in (0, 1]"),
        ("a,1,1.5,2021-03-01T10:00:00Z,30", "propensity", "the propensity '1.5' is not in (0, 1]"),
        ("a,1,,2021-03-01T10:00:00Z,30", "propensity", "the propensity is empty"),
        ("a,1,p,2021-03-01T10:00:00Z,30", "propensity", "the propensity 'p' is not in (0, 1]"),
        ("a,1,0.5,soon,30", "time", "the time 'soon' is not like"),
        ("a,1,0.5,,30", "time", "the time is empty"),
        ("a,1,0.5,2021-03-01T10:00:00Z,old", "field", "age 'old' is not a number, as the rows before had"),
        ("a,1,0.5,2021-03-01T10:00:00Z", "number of values", "has 4 values, not 5 as the first line"),
        ("a,1,0.5,2021-03-01T10:00:00Z,1,2", "number of values", "has 6 values, not 5 as the first line"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_by_its_line_or_counted(row: str, kind: str, says: str, tmp_path: Path) -> None:
    """Line numbers are those of an editor, also below an empty line and a value with a line break in it."""
    notes = [f'{GOOD},"first\nsecond"', "", f"{GOOD},x"]
    path = table(tmp_path, "action,reward,propensity,time,age,note", *notes, f"{row},x", f"{GOOD},x")
    with pytest.raises(BadLog) as failed:
        read(path, "ignore=note", "numbers=age", reward_range=(0.0, 2.0))
    line, _, message = str(failed.value).removeprefix(f"{path}:").partition(": ")
    assert line == "6"
    assert says.replace("4 values, not 5", "5 values, not 6").replace("6 values, not 5", "7 values, not 6") in message
    columns = read(path, "ignore=note", "numbers=age", reward_range=(0.0, 2.0), skip_bad=True)
    assert (len(columns), columns.left_out, columns.actions) == (3, {f"bad {kind}": 1}, ("a",))


def test_a_bad_parquet_row_is_named_by_its_number(tmp_path: Path) -> None:
    """Parquet has no lines."""
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"action": ["a", "b", None], "reward": [1.0, 0.0, 1.0]}), path)
    with pytest.raises(BadLog, match=r"log\.parquet: row 3: has no action"):
        read(path)
    assert read(path, skip_bad=True).left_out == {"bad action": 1}


def test_a_bad_row_in_a_later_block_is_still_named_right(tmp_path: Path) -> None:
    """Rows come in blocks; the line is that of the file."""
    path = table(tmp_path, "action,reward", *["a,1"] * 500, "a,x", *["b,0"] * 100)
    with pytest.raises(BadLog, match=r"log\.csv:502: the reward 'x'"):
        read(path, block_bytes=200)
    columns = read(path, skip_bad=True, block_bytes=200)
    assert (len(columns), columns.reward.sum(), drawn(columns)[-1]) == (600, 500.0, "b")


def test_an_action_that_only_a_bad_row_names_is_none(tmp_path: Path) -> None:
    """The uniform policy would give it probability."""
    path = table(tmp_path, "action,reward", "a,1", "typo,x")
    columns = read(path, skip_bad=True)
    assert (columns.actions, columns.sets) == (("a",), ((0,),))


def test_without_propensities_they_are_nan(tmp_path: Path) -> None:
    """The evaluation then says what is not possible."""
    columns = read(table(tmp_path, "action,reward", "a,1", "b,0"))
    assert np.isnan(columns.propensity).all()
    assert not columns.has_propensities


@pytest.mark.parametrize(
    ("value", "microseconds"),
    [
        ("2021-03-01T10:00:00Z", 1_614_592_800_000_000),
        ("2021-03-01 12:00:00+02:00", 1_614_592_800_000_000),
        ("2021-03-01 10:00:00", 1_614_592_800_000_000),
        ("2021-03-01T10:00:00.1234567Z", 1_614_592_800_123_456),
        ("2021-03-01", 1_614_556_800_000_000),
        ("1614592800", 1_614_592_800_000_000),
        ("1614592800.5", 1_614_592_800_500_000),
        ("1614592800000", 1_614_592_800_000_000),
        ("1614592800000000", 1_614_592_800_000_000),
    ],
)
def test_times_of_many_kinds_are_read(value: str, microseconds: int, tmp_path: Path) -> None:
    """Every tool writes its own."""
    assert read(table(tmp_path, "action,reward,time", f"a,1,{value}")).time.tolist() == [microseconds]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    """Whole numbers as actions, flags as rewards, times, dictionaries and lists."""
    path = tmp_path / "log.parquet"
    moment = datetime(2021, 3, 1, 10, tzinfo=UTC)
    pq.write_table(
        pa.table(
            {
                "action": [7, 8],
                "reward": [True, False],
                "time": [moment, moment],
                "eligible": [["7", "8"], ["8", "9"]],
                "device": pa.array(["web", None]).dictionary_encode(),
                "vip": [True, False],
                "age": pa.array([31, None], pa.int8()),
                "unit_id": [5, 5],
            }
        ),
        path,
    )
    columns = read(path)
    assert (drawn(columns), columns.reward.tolist()) == (["7", "8"], [1.0, 0.0])
    assert columns.time.tolist() == [1_614_592_800_000_000] * 2
    assert [[columns.actions[one] for one in columns.sets[code]] for code in columns.eligible] == [
        ["7", "8"],
        ["8", "9"],
    ]
    assert [field(columns, name) for name in ("device", "vip", "age")] == [
        ["web", None],
        ["true", "false"],
        [31.0, None],
    ]
    assert columns.unit[0] == columns.unit[1]


def test_a_column_that_no_context_can_be_is_refused_by_name(tmp_path: Path) -> None:
    """Lists and structures; the way out is to leave the column out."""
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"action": ["a"], "reward": [1], "seen": [["x"]]}), path)
    with pytest.raises(BadLog, match=r"column 'seen' .*--column ignore=seen"):
        read(path)
    assert len(read(path, "ignore=seen")) == 1


def test_flags_stay_categories_and_rewards_may_be_flags(tmp_path: Path) -> None:
    """true and false are no numbers to learn from, but a click may be written so."""
    columns = read(table(tmp_path, "action,reward,vip", "a,true,true", "b,False,false"))
    assert columns.reward.tolist() == [1.0, 0.0]
    assert field(columns, "vip") == ["true", "false"]


def test_a_whole_pmf_in_a_wide_table(tmp_path: Path) -> None:
    """Empty is not eligible, 0 is eligible and never drawn; the propensity is the drawn action's column."""
    path = table(tmp_path, "action,reward,pmf.a,pmf.b,pmf.c", "b,1,0.25,0.75,", "a,0,0.5,0.5,0", "b,0,,1,")
    columns = read(path)
    assert columns.actions == ("a", "b", "c")
    assert columns.propensity.tolist() == [0.75, 0.5, 1.0]
    assert [columns.sets[code] for code in columns.eligible] == [(0, 1), (0, 1, 2), (1,)]
    assert columns.pmf is not None
    assert columns.pmf.tolist() == [0.25, 0.75, 0.5, 0.5, 0.0, 1.0]


@pytest.mark.parametrize(
    ("row", "kind", "says"),
    [
        ("a,1,0.5,0.4,0.5", "pmf", "the pmf sums to 0.9, not to 1"),
        ("a,1,0.5,1.5,", "pmf", "pmf.b '1.5' is not in [0, 1]"),
        ("a,1,0.5,x,0.5", "pmf", "pmf.b 'x' is not in [0, 1]"),
        ("c,1,0.5,0.5,0.5", "eligible", "the drawn action 'c' is not among the eligible ones"),
        ("a,1,,1,0.5", "eligible", "the drawn action 'a' is not among the eligible ones"),
        ("a,1,0,1,0.5", "propensity", "the propensity 0.5 is not the 0 that the pmf gives"),
        ("a,1,0.25,0.75,0.5", "propensity", "the propensity 0.5 is not the 0.25 that the pmf gives"),
    ],
)
def test_a_pmf_that_cannot_be_is_refused(row: str, kind: str, says: str, tmp_path: Path) -> None:
    """A propensity that is not the pmf's is the commonest fault of logs."""
    path = table(tmp_path, "action,reward,pmf.a,pmf.b,propensity", "a,1,0.5,0.5,0.5", row, "b,0,0.9,0.1,0.1")
    with pytest.raises(BadLog) as failed:
        read(path)
    assert str(failed.value).startswith(f"{path}:3: {says}")
    columns = read(path, skip_bad=True)
    assert (columns.left_out, columns.propensity.tolist()) == ({f"bad {kind}": 1}, [0.5, 0.1])
    assert columns.pmf is not None
    assert columns.pmf == pytest.approx([0.5, 0.5, 0.9, 0.1])


@pytest.mark.parametrize("lists", [("a|b", "b"), ('["a","b"]', '["b"]')])
def test_eligible_actions_may_be_lists(lists: tuple[str, str], tmp_path: Path) -> None:
    """As JSON, or with a bar between them."""
    rows = ['"{}",{}'.format(one.replace('"', '""'), rest) for one, rest in zip(lists, ("a,1", "b,0"), strict=True)]
    columns = read(table(tmp_path, "eligible,action,reward", *rows))
    assert [[columns.actions[one] for one in columns.sets[code]] for code in columns.eligible] == [["a", "b"], ["b"]]
    bad = table(tmp_path, "eligible,action,reward", *rows, "b|c,a,1", name="bad.csv")
    with pytest.raises(BadLog, match=r"bad\.csv:4: the drawn action 'a' is not among the eligible ones"):
        read(bad)
    for wrong in ("[", "a||b", "[]", ""):
        with pytest.raises(BadLog, match=r"is no list of actions like a\|b"):
            read(table(tmp_path, "eligible,action,reward", f"{wrong},a,1", name="wrong.csv"))


LONG = ("decision_id,action,chosen,propensity,reward,device", "1,b,1,0.75,1,web", "1,a,0,0.25,,web",
        "2,a,0,0.5,,app", "2,c,1,0.5,0,app", "3,a,1,1,1,")  # fmt: skip


@pytest.mark.parametrize("block", [1 << 20, 64])
def test_a_long_table_has_one_row_an_action(block: int, tmp_path: Path) -> None:
    """The rows of a decision may be torn apart by blocks; the pmf is in the order of the set."""
    columns = read(table(tmp_path, *LONG), block_bytes=block)
    assert (drawn(columns), columns.reward.tolist()) == (["b", "c", "a"], [1.0, 0.0, 1.0])
    assert columns.propensity.tolist() == [0.75, 0.5, 1.0]
    sets = [[columns.actions[one] for one in columns.sets[code]] for code in columns.eligible]
    assert [sorted(one) for one in sets] == [["a", "b"], ["a", "c"], ["a"]]
    assert columns.pmf is not None
    starts = columns.starts
    pmfs = [dict(zip(one, columns.pmf[starts[n] : starts[n + 1]].tolist(), strict=True)) for n, one in enumerate(sets)]
    assert pmfs == [{"a": 0.25, "b": 0.75}, {"a": 0.5, "c": 0.5}, {"a": 1.0}]
    assert field(columns, "device") == ["web", "app", None]


def test_a_long_table_may_only_tell_the_drawn_probability(tmp_path: Path) -> None:
    """Then there is no pmf, but there are eligible sets."""
    path = table(tmp_path, "decision_id,action,chosen,propensity,reward", "1,b,1,0.75,1", "1,a,0,,", "2,a,1,0.5,0")
    columns = read(path)
    assert columns.pmf is None
    assert columns.propensity.tolist() == [0.75, 0.5]
    assert [len(columns.sets[code]) for code in columns.eligible] == [2, 1]


@pytest.mark.parametrize(
    ("rows", "line", "says"),
    [
        (("9,a,0,0.5,0,x", "9,b,0,0.5,0,x"), 7, "0 rows of its decision are chosen, not one"),
        (("9,a,1,0.5,0,x", "9,b,1,0.5,0,x"), 7, "2 rows of its decision are chosen, not one"),
        (("9,a,1,0.5,0,x", "9,b,maybe,0.5,0,x"), 8, "chosen 'maybe' is not 1 or 0"),
        (("9,a,1,0.5,0,x", "9,,0,0.5,0,x"), 8, "has no action"),
        (("9,a,1,0.5,0,x", "9,a,0,0.5,0,x"), 8, "'a' is there twice for its decision"),
        (("9,a,1,0.5,0,x", "9,b,0,-1,0,x"), 8, "the propensity '-1' is not in (0, 1]"),
        (("9,a,1,0,0,x", "9,b,0,1,0,x"), 7, "the propensity '0' is not in (0, 1]"),
        (("9,b,0,0.5,,x", "9,a,1,0.5,zero,x"), 8, "the reward 'zero' is not a number"),
    ],
)
def test_a_bad_row_of_a_long_table_spoils_its_decision_only(
    rows: tuple[str, ...], line: int, says: str, tmp_path: Path
) -> None:
    """Half a decision would be a wrong one."""
    path = table(tmp_path, *LONG, *rows, "5,b,1,1,0,web")
    with pytest.raises(BadLog) as failed:
        read(path)
    assert str(failed.value).startswith(f"{path}:{line}: {says}")
    columns = read(path, skip_bad=True)
    assert drawn(columns) == ["b", "c", "a", "b"]
    assert columns.pmf is not None
    assert columns.pmf.sum() == pytest.approx(4)


def test_a_field_of_numbers_that_later_has_a_text_says_what_to_do(tmp_path: Path) -> None:
    """The first rows decide; the message is the option to add."""
    path = table(tmp_path, "action,reward,size", *["a,1,40"] * 100, "a,1,XL")
    with pytest.raises(BadLog, match=r":102: size 'XL' is not a number.*--column categories=size"):
        read(path, block_bytes=100)
    assert field(read(path, "categories=size", block_bytes=100), "size")[-2:] == ["40", "XL"]


def test_a_field_with_too_many_texts_is_left_out(tmp_path: Path) -> None:
    """A text for every row is a Python object for every row, and nothing can be learned from it."""
    path = table(tmp_path, "action,reward,note", *[f"a,1,s{number}" for number in range(60)])
    columns = read(path, most_texts=50)
    assert dict(columns.fields) == {}
    assert columns.set_aside == {"note": "looks like an id: 60 different values in 60 rows"}
    with pytest.raises(BadLog, match=r"column 'note' has more than 50 different texts.*--column ignore=note"):
        read(path, "context=note", most_texts=50)


def test_repeated_decision_ids_are_counted(tmp_path: Path) -> None:
    """Perhaps the column is none; perhaps the export ran twice. The user must see it."""
    columns = read(table(tmp_path, "decision_id,action,reward", "1,a,1", "2,a,1", "1,a,1"))
    assert columns.counts == {"without a time": 3}
    assert columns.left_out["repeated decision id"] == 1


cells = st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(
    [
        "a",
        "b",
        "1",
        "0.5",
        "",
        "nan",
        "inf",
        "-1",
        "1e999",
        '"x"',
        '"a,b"',
        "2021-01-01",
        "9" * 20,
        "a|b",
        "[1,2",
        "true",
    ]
)
headers = st.permutations(
    ["propensity", "time", "unit_id", "x", "eligible", "pmf.a", "pmf.b", "decision_id", "chosen"]
).flatmap(lambda names: st.integers(0, 9).map(lambda count: ["action", "reward", *names[:count]]))


@given(headers, st.lists(st.lists(cells, min_size=2, max_size=11), max_size=6), st.booleans())
def test_no_table_whatever_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, header: list[str], rows: list[list[str]], skip: bool
) -> None:
    """Columns that hold together, or BadLog; never a traceback."""
    lines = [",".join(row[: len(header)]) for row in rows]
    path = table(tmp_path_factory.mktemp("fuzz"), ",".join(header), *lines)
    try:
        columns = read(path, skip_bad=skip)
    except BadLog:
        return
    assert all(members and min(members) >= 0 for members in columns.sets)
    assert all(action in columns.sets[code] for action, code in zip(columns.action, columns.eligible, strict=True))
    assert columns.pmf is None or len(columns.pmf) == columns.starts[-1]
    assert (np.isnan(columns.propensity) | ((columns.propensity > 0) & (columns.propensity <= 1))).all()
    assert np.isfinite(columns.reward).all()
    assert all(
        len(one.codes if isinstance(one, Category) else one.values) == len(columns) for one in columns.fields.values()
    )


def test_several_tables_are_one_log(tmp_path: Path) -> None:
    """In order of name, with the columns of the first; a separator may be tab or semicolon."""
    table(tmp_path, "action;reward;x", "a;1;u", name="1.csv")
    table(tmp_path, "x\treward\taction", "v\t0\tb", name="2.tsv")
    columns = read(tmp_path)
    assert (drawn(columns), field(columns, "x")) == (["a", "b"], ["u", "v"])
    table(tmp_path, "action,reward", "a,1", name="3.csv")
    with pytest.raises(BadLog, match=r"3\.csv: has no column 'x', which .*1\.csv has"):
        read(tmp_path)


def test_a_table_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    """A spreadsheet's export."""
    path = tmp_path / "log.csv"
    path.write_bytes("action,reward\nschön,1\n".encode("latin-1"))
    with pytest.raises(BadLog, match=r"log\.csv: .*save it as a CSV file in UTF-8"):
        read(path)


def test_no_row_leaves_a_python_object(tmp_path: Path) -> None:
    """10 million rows must fit: 20,000 rows more cost no more than a handful of objects more."""

    def objects(rows: int) -> int:
        texts = [f"u{n % 7},a{n % 5},{n % 2},0.5,{n / 10},web,2021-03-01T10:00:{n % 60:02d}Z" for n in range(rows)]
        path = table(tmp_path, "unit_id,action,reward,propensity,age,device,time", *texts, name=f"{rows}.csv")
        del texts
        before = sys.getallocatedblocks()
        columns = read(path)
        grown = sys.getallocatedblocks() - before
        assert len(columns) == rows
        return grown

    objects(10)
    assert objects(20_010) - objects(10) < 500


# the Open Bandit Dataset


@pytest.mark.usefixtures("open_bandit_wheel")
@pytest.mark.parametrize("campaign", open_bandit.CAMPAIGNS)
def test_the_open_bandit_logs_are_read_whole(campaign: str) -> None:
    """Every later figure rests on these columns."""
    columns, rows = read(f"open-bandit:{campaign}"), open_bandit.load(campaign)
    items = open_bandit.items(campaign)
    assert drawn(columns) == [f"item-{row.item_id}" for row in rows]
    assert columns.reward.tolist() == [row.click for row in rows]
    assert columns.propensity.tolist() == [row.propensity_score for row in rows]
    assert field(columns, "position") == [str(row.position) for row in rows]
    assert field(columns, "user_feature_2") == [row.user_features[2] for row in rows]
    assert columns.time[0] == round(rows[0].timestamp.timestamp() * 1e6)
    assert (columns.sets, columns.reward_range) == ((tuple(range(len(items))),), (0.0, 1.0))
    assert len(np.unique(columns.unit)) == len(rows)
    assert columns.traits["item_feature_1"] == tuple(one["item_feature_1"] for one in items.values())


@pytest.mark.usefixtures("open_bandit_wheel")
def test_the_uniform_pmf_is_known_and_thompsons_is_not() -> None:
    """Nobody may invent the probabilities of the items that were not drawn."""
    columns = read("open-bandit:random/men")
    assert columns.pmf is not None
    assert columns.pmf.shape == (10_000 * 34,)
    assert np.unique(columns.pmf) == pytest.approx([1 / 34])
    assert read("open-bandit:bts/men").pmf is None


def test_an_unknown_data_set_is_refused_with_the_known_ones() -> None:
    """A typing error must not become a path."""
    with pytest.raises(DatasetError, match="there is no log 'random/boys'; there are: random/all"):
        read("open-bandit:random/boys")


def test_ours_is_read_by_our_own_reader(tmp_path: Path) -> None:
    """One client for every log; which of several experiments, the options say."""
    path = shutil.copy(Path(__file__).parent / "data" / "log-0.1.0.db", tmp_path / "log.db")
    columns = read(path)
    assert len(columns) > 0
    assert isinstance(columns.fields["segment"], Category)
    assert columns.has_propensities
    with pytest.raises(AmbiguousExperiment, match="has no experiment 'other'"):
        read(path, experiment="other")
