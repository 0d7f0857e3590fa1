"""dsjson as other programs write it: lists, actions counted from 0, ids that are none, numbers that overflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.logs.columns import Columns
from simulator.logs.errors import BadLog
from simulator.logs.open import open_log
from simulator.logs.options import ReadOptions


def decision(number: int, **changes: Any) -> dict[str, Any]:
    """A line; None takes a field away. The second of three actions is drawn, a third of the lines are clicked."""
    line: dict[str, Any] = {
        "_label_cost": -float(number % 3 == 0),
        "_label_probability": 0.5,
        "_label_Action": 2,
        "_labelIndex": 1,
        "Timestamp": f"2026-01-31T10:{number // 60:02}:{number % 60:02}Z",
        "EventId": f"e{number}",
        "a": [2, 1, 3],
        "p": [0.5, 0.25, 0.25],
        "c": {"_multi": [{"_tag": "a"}, {"_tag": "b"}, {"_tag": "c"}]},
    }
    return {name: value for name, value in (line | changes).items() if value is not None}


def read(folder: Path, lines: Sequence[Mapping[str, Any]], **options: Any) -> Columns:
    """The columns of a file of these lines."""
    return read_text(folder, "".join(json.dumps(line) + "\n" for line in lines), **options)


def read_text(folder: Path, text: str, **options: Any) -> Columns:
    """The columns of a file with this text."""
    path = folder / "log.dsjson"
    path.write_text(text)
    return open_log(str(path), ReadOptions(**options))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("separators", [(", ", ": "), (",\n", ": ")])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_json_list_is_no_checkpoint(
    indent: int | None, separators: tuple[str, str], skip_bad: bool, tmp_path: Path
) -> None:
    """ "It has 1 checkpoint" tells nobody that the file must have one decision a line."""
    text = json.dumps([decision(number) for number in range(3)], indent=indent, separators=separators)
    with pytest.raises(BadLog, match=r"log\.dsjson:1: holds a JSON list of decisions; .* jq -c '\.\[\]' FILE"):
        read_text(tmp_path, text, skip_bad=skip_bad)


def test_a_decision_over_several_lines_is_told_so(tmp_path: Path) -> None:
    """What jq writes without -c."""
    with pytest.raises(BadLog, match=r"log\.dsjson:1: is no JSON .*; write one decision a line: jq -c '\.' FILE"):
        read_text(tmp_path, json.dumps(decision(1), indent=2))


def test_checkpoints_are_still_counted(tmp_path: Path) -> None:
    """Lines that begin with a bracket and hold no decision belong to the format."""
    lines = ['[{"checkpoint":"2021-03-01T09:59:00Z","epoch":3}]', "[1]", json.dumps(decision(1))]
    assert read_text(tmp_path, "\n".join(lines)).left_out == {"checkpoint": 2}


@given(order=st.permutations([1, 2, 3]), labelled=st.booleans(), count=st.integers(1, 3))
def test_actions_counted_from_0_are_those_counted_from_1(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], labelled: bool, count: int
) -> None:
    """VW takes the labels, so both exist; a line that names all actions or has a label tells which."""
    labels = {"_label_Action": order[0], "_labelIndex": order[0] - 1} if labelled or count < 3 else {}
    plain = decision(1, _label_Action=None, _labelIndex=None, p=None) | labels
    folder = tmp_path_factory.mktemp("zero")
    from_1 = read(folder, [plain | {"a": order[:count]}])
    from_0 = read(folder, [plain | {"a": [number - 1 for number in order[:count]]}])
    assert from_0.action.tolist() == from_1.action.tolist() == [order[0] - 1]
    assert from_0.sets == from_1.sets


@pytest.mark.parametrize("swap", [False, True])
def test_a_line_that_does_not_tell_is_refused_in_a_log_counted_from_0(swap: bool, tmp_path: Path) -> None:
    """[1, 2] of three actions is either; in any order of the lines."""
    unlabelled = {"_label_Action": None, "_labelIndex": None}
    lines = [decision(1, a=[0, 1, 2], **unlabelled), decision(2, a=[1, 2], p=[0.5, 0.5], **unlabelled)]
    with pytest.raises(BadLog, match=r"log\.dsjson:2: a \[.*\]: some lines count actions from 0.* write _label_Action"):
        read(tmp_path, lines[::-1] if swap else lines)


@pytest.mark.parametrize("id_", ["", " ", None, "null", "00000000-0000-0000-0000-000000000000"])
def test_an_empty_id_is_no_id(id_: str | None, tmp_path: Path) -> None:
    """Otherwise all lines without one would be one decision of one unit."""
    notes: list[str] = []
    lines = [decision(number, EventId=id_, UnitId=id_) for number in range(30)]
    columns = read(tmp_path, lines, on_note=notes.append)
    assert (len(columns), columns.left_out, len(np.unique(columns.unit))) == (30, {}, 30)
    assert [note.rpartition("log.dsjson: ")[2] for note in notes[1:]] == [
        "no EventId: each line is one decision",
        "no unit id: every decision is of another unit",
    ]


def test_what_the_ids_are_is_said(tmp_path: Path) -> None:
    """People see at once whether intervals are by visitor."""
    notes: list[str] = []
    read(tmp_path, [decision(1, UnitId="ann")], on_note=notes.append)
    said = [note.rpartition("log.dsjson: ")[2] for note in notes[1:]]
    assert said == ["decision id = EventId", "unit id = UnitId"]


def test_a_second_delivery_is_no_other_decision(tmp_path: Path) -> None:
    """The same line twice is no loss; another decision with the same id is one, and its rows are kept to be judged."""
    lines = [decision(0), decision(1), decision(1), decision(2), decision(3, EventId="e2")]
    columns = read(tmp_path, lines)
    assert columns.left_out == {"repeated": 1, "repeated id of another decision": 1}
    rows = columns.left_out_rows
    assert rows is not None
    assert (rows.action.tolist(), rows.reward.tolist()) == ([1], [1.0])
    assert rows.time.tolist() == [columns.time[0] + 3_000_000]


def test_what_is_known_of_a_bad_line_is_kept(tmp_path: Path) -> None:
    """Whether the loss matters depends on which decisions were lost."""
    untagged = {"_multi": [{"_tag": "a"}, {"_tag": "b"}, {}]}
    lines = [decision(0), decision(1, _label_cost=-7), decision(2, _label_cost=None), decision(3, c=untagged)]
    columns = read(tmp_path, lines, columns=("action=_tag",), skip_bad=True, reward_range=(0.0, 1.0))
    assert columns.left_out == {"without a label": 1, "bad reward": 1, "bad action id": 1}
    rows = columns.left_out_rows
    assert rows is not None
    assert rows.action.tolist() == [1, 1, -1]
    assert np.array_equal(rows.reward, [7.0, np.nan, 1.0], equal_nan=True)
    assert ((rows.time - columns.time[0]) // 1_000_000).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_label_cost": -1e308}, "_label_cost -1e+308 is too large: beyond 1e+30 sums overflow"),
        ({"_label_cost": 10**400}, "_label_cost 1000"),
        ({"_label_probability": 1e-320, "p": None}, "probability 1e-320 is below 1e-12"),
        ({"_label_probability": None, "p": [1e-320, 0.5, 0.5]}, "probability 1e-320 is below 1e-12"),
        ({"c": {"x": 1e300, **decision(1)["c"]}}, "feature 1e+300 is too large"),
        ({"pdrop": 1e400}, "pdrop inf is not a number"),
    ],
)
def test_a_number_that_overflows_is_refused_at_its_line(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    """Sums of them are infinite, and the exit code was 0."""
    text = json.dumps(decision(0)) + "\n" + json.dumps(decision(1, **changes)).replace("Infinity", "1e400")
    with pytest.raises(BadLog) as refused:
        read_text(tmp_path, text)
    assert "log.dsjson:2: " in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,1e400,0.5,1", "the reward '1e400' is not a number"),
        ("a,-1e308,0.5,1", "the reward '-1e308' is too large: beyond 1e+30 sums overflow"),
        ("a,1,1e-320,1", "the propensity '1e-320' is"),
        ("a,inf,0.5,1", "the reward 'inf' is not a number"),
        ("a,1,0.5,1e400", "age '1e400' is too large for a number"),
        ("a,1,0.5,-inf", "age '-inf' is too large for a number"),
        ("a,1,0.5,1e300", "age '1e300' is too large for a number"),
    ],
)
def test_a_number_that_overflows_is_refused_at_its_row(row: str, says: str, tmp_path: Path) -> None:
    """The same in tables."""
    path = tmp_path / "log.csv"
    path.write_text(f"action,reward,propensity,age\na,1,0.5,3\n{row}\n")
    with pytest.raises(BadLog) as refused:
        open_log(str(path), ReadOptions())
    assert f"{path}:3: {says}" in str(refused.value)


def test_one_id_for_all_lines_is_not_silent(tmp_path: Path) -> None:
    """119 of 120 decisions gone: the reader says what they were, so that the check can refuse."""
    lines = [decision(number, EventId="0", Timestamp=None) for number in range(120)]
    columns = read(tmp_path, lines)
    assert (len(columns), columns.left_out) == (1, {"repeated id of another decision": 119})


def tagged(*tags: str | None) -> dict[str, Any]:
    """A context with these actions; None has no tag."""
    return {"_multi": [{} if tag is None else {"_tag": tag} for tag in tags]}


@pytest.mark.parametrize("place", [0, 7, 39])
@pytest.mark.parametrize("wrong", [(None, None, None), ("a", "b", None), ("a", "b", "b")])
def test_a_line_without_an_action_id_does_not_rename_all_actions(
    place: int, wrong: tuple[str | None, ...], tmp_path: Path
) -> None:
    """One line in forty turned every id into a place or a hash: `fixed:b` was no action any more."""
    lines = [decision(n, c=tagged("a", "b", "c")) for n in range(40)]
    lines[place] = decision(place, c=tagged(*wrong))
    notes: list[str] = []
    with pytest.raises(
        BadLog, match=rf"log\.dsjson:{place + 1}: (an action has no _tag|two actions .* 'b'); .*--skip-bad"
    ):
        read(tmp_path, lines)
    columns = read(tmp_path, lines, skip_bad=True, on_note=notes.append)
    assert columns.actions == ("a", "b", "c")
    assert (len(columns), columns.left_out) == (39, {"bad action id": 1})
    assert notes[0].endswith("an action's id is its _tag (not so in 2.5% of the lines)")


def test_an_id_that_every_line_has_is_better_than_a_tag_that_some_lack(tmp_path: Path) -> None:
    """No decision need be lost."""
    both = [{"_tag": f"t{name}", "id": name} for name in "abc"]
    lines = [decision(n, c={"_multi": both}) for n in range(39)]
    lines.append(decision(39, c={"_multi": [{"id": name} for name in "abc"]}))
    columns = read(tmp_path, lines)
    assert (columns.actions, columns.left_out) == (("a", "b", "c"), {})


def test_tags_that_many_lines_lack_are_said_to_be_passed_over(tmp_path: Path) -> None:
    """Then places tell actions apart, and a reader must see why."""
    notes: list[str] = []
    lines = [decision(n, c=tagged("a", "b", "c" if n % 3 else None, None if n % 3 == 0 else "d")) for n in range(30)]
    columns = read(tmp_path, lines, on_note=notes.append)
    assert columns.actions[:2] == ("action-1", "action-2")
    assert "no id tells all actions apart (_tag does so in 67% of the lines)" in notes[0]


@pytest.mark.parametrize("name", ["UnitId", "unitId", "unit_id", "userId", "UserId", "user-id", "USERID", "visitorId"])
def test_a_unit_beside_the_context_is_read_however_it_is_written(name: str, tmp_path: Path) -> None:
    """300 decisions of 10 visitors that are taken for 300 visitors give intervals that are much too short."""
    notes: list[str] = []
    lines = [decision(number, **{name: f"u{number % 10}", "sessionId": f"s{number}"}) for number in range(300)]
    columns = read(tmp_path, lines, on_note=notes.append)
    assert len(np.unique(columns.unit)) == 10
    assert f"unit id = {name}" in " ".join(notes)
    assert "another unit" not in " ".join(notes)


def test_a_unit_that_the_context_holds_is_said(tmp_path: Path) -> None:
    """Not that every decision is of another unit, when intervals take a field for it."""
    notes: list[str] = []
    lines = [decision(n, c={"who": f"u{n % 20}", **decision(n)["c"]}) for n in range(300)]
    columns = read(tmp_path, lines, on_note=notes.append)
    assert len(np.unique(columns.unit)) == 20
    assert "another unit" not in " ".join(notes)
    assert "who: left out, looks like an id" in " ".join(notes)
    assert "intervals take it for the unit" in " ".join(notes)


def test_a_kind_of_customer_beside_the_context_is_no_unit(tmp_path: Path) -> None:
    """Two units in all would make every interval useless; nor is an object an id."""
    lines = [decision(n, customer=("new", "returning")[n % 2], account={"id": 1}) for n in range(200)]
    assert len(np.unique(read(tmp_path, lines).unit)) == 200


def test_an_event_id_is_read_however_it_is_written(tmp_path: Path) -> None:
    """Otherwise a second delivery is a second decision."""
    lines = [decision(n, EventId=None, eventId=f"e{n}") for n in (0, 1, 1, 2)]
    assert read(tmp_path, lines).left_out == {"repeated": 1}
