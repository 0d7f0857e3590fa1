"""Who changed what: the origin of a version in the log and over gRPC, changes in words, and files written back."""

from __future__ import annotations

import logging
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.durations import LONGEST, duration_text, microseconds_of
from decider.errors import InvalidArgument, InvalidExperiment
from decider.experiment.changes import changes
from decider.experiment.definition import (
    Action,
    Aggregation,
    Attribution,
    Experiment,
    Learning,
    OutOfRange,
    RewardDefinition,
)
from decider.experiment.feature_schema import FeatureRule, FeatureSchema
from decider.experiment.guardrails import Guardrail
from decider.experiment.limits import Cap
from decider.experiment.origin import MAX_NOTE, Origin, check_origin, from_file
from decider.experiment.schema import file_content_of, from_message, parse_toml, to_message
from decider.experiment.toml_text import toml_text, toml_value
from decider.experiment.unit_history import HistoryDefinition
from decider.learn.versions import Versions
from decider.log.open import open_log, open_reader
from decider.log.protocol import EventLog, NewVersion
from decider.policy.spec import Relearned
from decider.server.command import main
from decider.types import ActionId, Position, Time
from decider.v1 import experiment_service_pb2 as pb
from simulator.verify import verify
from tests.conftest import SECOND, Clock, sample_experiment, spec, texts
from tests.rpc_clients import (
    InProcessClient,
    RpcClient,
    SubprocessClient,
    code_of,
    experiment,
    fields_of,
    rows,
    status_of,
)
from tests.test_experiment import experiments
from tests.test_readme import COMMANDS, FOR_EXPERIMENTS

ANN = Origin("ann", "api", "before Christmas\n<b>sale</b>")


# --- words


@given(experiments())
@settings(max_examples=30)
def test_equal_definitions_give_no_words(one: Experiment) -> None:
    """Nobody may look for a change that is none; and what the log gives back is equal to what was applied."""
    assert changes(one, one) == changes(one, from_message(to_message(one))) == ()


HISTORY = HistoryDefinition(period=3600 * SECOND, decisions=True, most=20)
SCHEMA = FeatureSchema({"age": FeatureRule(required=True)})
BASE = sample_experiment(history=HISTORY, schema=SCHEMA, caps=(Cap(3, 60 * SECOND, kind="offer"),))
RELEARNED = Relearned(Position(7), Time(0), "{}")


def with_action(**fields_: Any) -> dict[str, Any]:
    """The first action with other fields."""
    return {"actions": (replace(BASE.actions[0], **fields_), *BASE.actions[1:])}


def with_reward(**fields_: Any) -> dict[str, Any]:
    """Another reward definition."""
    return {"reward": replace(BASE.reward, **fields_)}


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "id": ({"id": "other"}, "id home -> other"),
    "actions": ({"actions": BASE.actions[:-1]}, "action none: removed"),
    "actions, more": ({"actions": (*BASE.actions, Action(ActionId("new")))}, "action new: added"),
    "actions, order": ({"actions": BASE.actions[::-1]}, "actions: in another order"),
    "description": ({"description": "a test"}, 'description "" -> "a test"'),
    "paused": ({"paused": True}, "state active -> paused"),
    "ended": ({"ended": True}, "state active -> ended"),
    "baseline": ({"baseline": None}, 'baseline_action outfit -> ""'),
    "policy": (
        {"policy": spec("epsilon_greedy", epsilon=0.1)},
        "policy thompson -> epsilon_greedy { epsilon = 0.1 }",
    ),
    "policy, parameter": ({"policy": spec("thompson", memory=0.0)}, "policy.thompson.memory 1000 -> 0"),
    "policy, interactions": ({"policy": spec("thompson", "CCA")}, 'policy.interactions ["CA"] -> ["CCA"]'),
    "policy, relearned": (
        {"policy": replace(spec("thompson"), relearned=RELEARNED)},
        'relearned none -> { at = "1970-01-01T00:00:00Z", reward = {}, until',
    ),
    "minimum_propensity": ({"minimum_propensity": 0.02}, "minimum_propensity 0.01 -> 0.02"),
    "holdout": ({"holdout": 0.1}, "holdout 0 -> 0.1"),
    "learning": ({"learning": Learning.FROZEN}, "learning online -> frozen"),
    "salt": ({"salt": "s 2"}, 'salt "" -> "s 2"'),
    "needs_activation": ({"needs_activation": True}, "activation default -> required"),
    "learns_overrides": ({"learns_overrides": True}, "override default -> learn"),
    "most_actions": ({"most_actions": 9}, "actions_in_calls none -> { most = 9 }"),
    "schema": ({"schema": None}, "schema { features = { age = {"),
    "schema, rule": (
        {"schema": FeatureSchema({"age": FeatureRule()})},
        'schema.features.age { required = true, type = "category" } -> { type = "category" }',
    ),
    "sticky": ({"sticky": 5400 * SECOND}, "sticky none -> 1h30m"),
    "history": ({"history": None}, "history {"),
    "history, field": ({"history": replace(HISTORY, most=30)}, "history.most 20 -> 30"),
    "caps": ({"caps": ()}, "caps [{"),
    "caps, field": ({"caps": (Cap(4, 60 * SECOND, kind="offer"),)}, "caps [{"),
    "guardrails": ({"guardrails": (Guardrail("click", at_least=0.0),)}, "guardrail click: added"),
    "time_zone": ({"time_zone": "Europe/Berlin"}, 'time_zone "" -> "Europe/Berlin"'),
    "reward, window": (with_reward(window=3600 * SECOND), "reward.window 10s -> 1h"),
    "reward, default": (with_reward(default=0.5), "reward.default_value 0 -> 0.5"),
    "reward, weights": (with_reward(weights={"click": 2.0}), "reward.weights"),
    "reward, minimum": (with_reward(minimum=-1.0), "reward.range"),
    "reward, maximum": (with_reward(maximum=9.0), "reward.range"),
    "reward, aggregation": (with_reward(aggregation=Aggregation.MAX), "reward.aggregation sum -> max"),
    "reward, out_of_range": (with_reward(out_of_range=OutOfRange.REFUSE), "reward.out_of_range default -> refuse"),
    "reward, attribution": (with_reward(attribution=Attribution.ALL), "reward.attribution default -> all"),
    "action, kind": (with_action(kind="cta"), "action sale.kind offer -> cta"),
    "action, features": (
        with_action(features={"discount": 0.3, "colour": "red"}),
        "action sale.features.discount 0.2 -> 0.3",
    ),
    "action, payload": (with_action(payload={"a": None, "b": [1]}), "action sale.payload {} -> { a = null, b = [1] }"),
    "action, retired": (with_action(retired=True), "action sale.state active -> retired"),
    "action, eligible_if": (with_action(eligible_if="true"), 'action sale.eligible_if "" -> "true"'),
    "action, available_from": (with_action(available_from=Time(0)), "action sale.available_from none -> "),
    "action, available_until": (with_action(available_until=Time(9)), "action sale.available_until none -> "),
    "action, min_share": (with_action(min_share=0.1), "action sale.min_share 0 -> 0.1"),
    "action, max_share": (with_action(max_share=0.5), "action sale.max_share none -> 0.5"),
    "action, daily_budget": (with_action(daily_budget=5), "action sale.daily_budget none -> 5"),
}
"""By field of our types, perhaps with what of it: another value, and the words for it."""


@pytest.mark.parametrize("name", CHANGED)
def test_one_field_changed_gives_one_text_that_names_it(name: str) -> None:
    """A page that shows two texts for one change, or none, is not believed."""
    other, words = CHANGED[name]
    (found,) = changes(BASE, replace(BASE, **other))
    assert found.startswith(words)


def test_every_field_of_a_definition_has_its_words() -> None:
    """A new field must be told of, too."""
    named = {name.partition(", ")[2] or name for name in CHANGED}
    assert {one.name for one in fields(Experiment)} - {"reward"} <= named
    assert {one.name for one in fields(RewardDefinition)} | {one.name for one in fields(Action)} - {"id"} <= named


@given(st.data())
@settings(max_examples=60)
def test_so_many_fields_so_many_words(data: st.DataObject) -> None:
    """No change hides another one."""
    plain = [name for name in CHANGED if "," not in name and name not in ("id", "actions", "paused", "ended")]
    chosen = data.draw(st.lists(st.sampled_from(plain), unique=True))
    other = {field: value for name in chosen for field, value in CHANGED[name][0].items()}
    found = changes(BASE, replace(BASE, **other))
    assert len(found) == len(chosen)
    assert all(any(one.startswith(CHANGED[name][1]) for one in found) for name in chosen)


# --- files


def has_null(value: Any) -> bool:
    """Whether a payload has what TOML cannot hold."""
    if isinstance(value, dict | list | tuple):
        return any(has_null(item) for item in (value.values() if isinstance(value, dict) else value))
    return value is None


@given(experiments())
@settings(max_examples=60)
def test_what_is_written_as_a_file_is_read_as_the_same(one: Experiment) -> None:
    """`decider get` and `decider apply` must change nothing, whatever the definition."""
    message = to_message(one)
    if any(has_null(action.payload) for action in one.actions):
        with pytest.raises(InvalidExperiment, match=r"(?s)actions\.\d+\.payload.* is null"):
            toml_text(file_content_of(message))
        return
    assert from_message(parse_toml(toml_text(file_content_of(message)), "x.toml")) == one


@pytest.mark.parametrize("name", CHANGED)
def test_every_field_is_written_as_a_file(name: str) -> None:
    """The strategy above does not draw them all."""
    changed = CHANGED[name][0] if name != "action, payload" else with_action(payload={"a b": [1, {"c": "\x7f\n"}]})
    message = to_message(replace(BASE, **changed))
    text = toml_text(file_content_of(message))
    message.ClearField("relearned")  # only `decider relearn` says so; what runs stays
    assert parse_toml(text, "x.toml") == message


def test_values_cannot_steer_a_terminal() -> None:
    """Definitions are shown to whoever operates the service, in their terminal."""
    steering = "\x7f\x9b31m\u202e\u2028\u2066"
    assert toml_value(steering) == r'"\u007f\u009b31m\u202e\u2028\u2066"'
    assert toml_value("é 東 👩\u200d🔬") == '"é 東 👩\u200d🔬"', "what joins letters stays"
    text = toml_text({"id": "a", "payload": {"t": steering}})
    assert tomllib.loads(text)["payload"]["t"] == steering


@given(st.integers(0, LONGEST))
def test_durations_are_written_as_they_are_read(microseconds: int) -> None:
    """To the microsecond."""
    assert microseconds_of(duration_text(microseconds)) == microseconds


# --- origins


@given(author=texts, note=texts)
@settings(max_examples=40)
def test_an_origin_is_one_line_of_the_log_file(author: str, note: str) -> None:
    """A note with a line break must not forge a line."""
    try:
        origin = check_origin(author=author, source="api", note=note)
    except InvalidArgument:
        return
    assert len(str(origin).splitlines()) == 1
    assert str(origin).encode()


def test_an_origin_is_kept_with_its_version(log: EventLog, clock: Clock) -> None:
    """In the same commit, so that no kill comes in between; and a version of which nothing is known has none."""
    versions = Versions(log)
    first = versions.apply(sample_experiment()).version.position
    clock.advance(1)
    second = versions.apply(sample_experiment(holdout=0.1), origin=ANN).version.position
    third = versions.set_paused(sample_experiment().id, paused=True, origin=from_file("a.toml")).version.position
    assert versions.apply(sample_experiment(holdout=0.1, paused=True), origin=ANN).changed is False
    assert log.origins([first, second, third]) == {second: ANN, third: Origin(source="file a.toml")}
    assert log.head().position == 5
    refused = log.append([NewVersion(sample_experiment(), 3, origin=ANN)])
    assert (refused, log.head().position) == ([None], 5)
    assert log.check(lambda _: None) == []


def test_the_view_of_changes_tells_who_and_why(tmp_path: Path, clock: Clock) -> None:
    """What a growth team asks a log with SQL."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        versions = Versions(log)
        versions.apply(sample_experiment(), origin=ANN)
        versions.set_paused(sample_experiment().id, paused=True)
    found = rows(path, "select experiment, number, author, source, note, state from changes")
    assert found == [("home", 1, "ann", "api", ANN.note, "active"), ("home", 2, "", "", "", "paused")]
    assert rows(path, "select count(distinct changed_at) from changes where changed_at like '____-__-__T%Z'") == [(1,)]


# --- over gRPC


def request_with(kind: type[Any], **fields_: Any) -> Any:
    """A request with an author and a note."""
    return kind(author="ann", note=ANN.note, **fields_)


def test_the_api_keeps_author_and_note(client: RpcClient, mine: str) -> None:
    """Three ways to make a version, and both ways to read one."""
    applied = client.call(
        "ExperimentService", "ApplyExperiment", request_with(pb.ApplyExperimentRequest, experiment=experiment(mine))
    )
    assert (applied.applied.author, applied.applied.source, applied.applied.note) == ANN
    assert list(applied.changes) == ["new experiment"]
    plain = client.apply(experiment(mine, holdout=0.5, baseline_action="a"))
    assert (plain.applied.author, plain.applied.source, plain.applied.note) == ("", "api", "")
    assert list(plain.changes) == ['baseline_action "" -> a', "holdout 0 -> 0.5"]
    for method, kind in (
        ("PauseExperiment", pb.PauseExperimentRequest),
        ("ResumeExperiment", pb.ResumeExperimentRequest),
    ):
        reply = client.call("ExperimentService", method, request_with(kind, id=mine))
        assert (reply.experiment.author, reply.experiment.source, reply.experiment.note) == ANN
    listed = {one.experiment.id: one for one in client.page(1000).experiments}
    for one in (client.get(mine), listed[mine]):
        assert (one.version, one.author, one.source, one.note) == (4, *ANN)


@pytest.mark.parametrize(
    ("field", "text"), [("author", "a" * 101), ("author", "a\nb"), ("note", "n" * (MAX_NOTE + 1)), ("note", "\x1b[2J")]
)
def test_a_text_that_cannot_be_kept_is_refused(client: RpcClient, mine: str, field: str, text: str) -> None:
    """By its name, and nothing is changed: a log is no place for a page of text, or for a terminal's commands."""
    client.apply(experiment(mine))
    version = client.get(mine).version
    for method, request in (
        ("ApplyExperiment", pb.ApplyExperimentRequest(experiment=experiment(mine, salt="s"))),
        ("PauseExperiment", pb.PauseExperimentRequest(id=mine)),
        ("ResumeExperiment", pb.ResumeExperimentRequest(id=mine)),
    ):
        setattr(request, field, text)
        status = status_of(partial(client.call, "ExperimentService", method, request))
        assert (code_of(status), fields_of(status)) == ("INVALID_ARGUMENT", [field])
    assert client.get(mine).version == version


# --- the server's own lines, and the commands


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SubprocessClient]:
    """A server with a file that it watches."""
    file = tmp_path / "shop.toml"
    file.write_text('id = "shop"\nbaseline_action = "a"\nactions = [{ id = "a" }, { id = "b" }]\n')
    opened = SubprocessClient(tmp_path / "log.db", "--experiments", str(file))
    yield opened
    opened.close()


def run(*args: str) -> str:
    """What a command says; it has to succeed."""
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    return done.output


def lines_of(served: SubprocessClient) -> list[str]:
    """The lines about changes, without their times."""
    found = [line.partition(" INFO ")[2] for line in served.process.output.splitlines()]
    return [line for line in found if line.startswith("experiment shop, new version")]


def test_every_change_leaves_one_line(served: SubprocessClient, tmp_path: Path) -> None:
    """From a file, over the API and from another process: whoever asks what happened at noon reads these lines."""
    assert lines_of(served) == ["experiment shop, new version 1: new experiment; by nobody named, file shop.toml"]
    file = tmp_path / "shop.toml"
    file.write_text("holdout = 0.1\n" + file.read_text())
    served.until(lambda: len(lines_of(served)) == 2, what="the file was applied")
    run("pause", "shop", "--target", served.target, "--author", "ann", "--note", "pixel\nbroken")
    run("resume", "shop", "--target", served.target, "--author", "bob")
    with closing(open_log(served.db)) as log:
        Versions(log).apply(
            replace(log.versions()[-1].experiment, salt="x"), origin=Origin("ann", "command relearn", "")
        )
    served.until(lambda: len(lines_of(served)) == 5, what="another process's version is told of")
    assert lines_of(served)[1:] == [
        "experiment shop, new version 2: holdout 0 -> 0.1; by nobody named, file shop.toml",
        "experiment shop, new version 3, paused: state active -> paused; by ann, api: pixel broken",
        "experiment shop, new version 4: state paused -> active; by bob, api",
        'experiment shop, new version 5: salt "" -> x; by ann, command relearn',
    ]
    served.close()
    with closing(open_reader(served.db)) as log:
        assert verify(log).first is None


def test_what_get_writes_apply_takes_back(served: SubprocessClient, tmp_path: Path) -> None:
    """Eight lines of gRPC were needed to set a holdout on an experiment that no file defines."""
    wanted = experiment("purchases", baseline_action="a")
    served.call("ExperimentService", "ApplyExperiment", request_with(pb.ApplyExperimentRequest, experiment=wanted))
    target = ("--target", served.target)
    text, file = run("get", "purchases", *target), tmp_path / "purchases.toml"
    assert text.splitlines()[0].endswith(", by ann, api")
    assert text.splitlines()[1:3] == ["# before Christmas", "# <b>sale</b>"]
    file.write_text(text)
    assert run("apply", str(file), *target) == "experiment purchases, version 1: nothing has changed\n"
    file.write_text(f"holdout = 0.25\n{text}")
    assert run("apply", str(file), *target, "--dry-run") == (
        "would be experiment purchases, version 2:\n  holdout 0 -> 0.25\n"
    )
    assert served.get("purchases").version == 1
    run("apply", str(file), *target, "--note", "control group")
    found = served.get("purchases")
    assert (found.experiment.holdout, found.note, bool(found.author)) == (0.25, "control group", True)


def test_the_commands_of_the_readme_work(
    served: SubprocessClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which they stand there."""
    run("apply", "simulator/storefront.toml", "--target", served.target)
    commands = [command for command in COMMANDS if command.startswith(FOR_EXPERIMENTS)]
    assert len(commands) == 4
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        if ">" in words:
            Path(words.pop()).write_text(run(*words[:-1], "--target", served.target))
        else:
            run(*words, "--target", served.target)
    versions = served.rows("select author <> '', note <> '', state from changes where experiment = 'storefront'")
    assert versions == [(1, 0, "active"), (1, 1, "paused"), (1, 0, "active")]


def test_commands_name_what_is_wrong(served: SubprocessClient, tmp_path: Path) -> None:
    """And leave with an exit code that a script sees."""
    (tmp_path / "bad.toml").write_text('id = "shop"\nholdot = 1\n')
    for args, words in (
        (("get", "nothing", "--target", served.target), "NOT_FOUND"),
        (("get", "shop", "--target", "127.0.0.1:1"), "is a server there?"),
        (("apply", str(tmp_path / "bad.toml"), "--target", served.target), "did you mean holdout?"),
        (("pause", "shop", "--target", served.target, "--note", "n" * 501), "note: has 501 characters"),
    ):
        done = CliRunner().invoke(main, args)
        assert done.exit_code == 1
        assert words in done.output


def test_relearning_says_who_asked_for_it(tmp_path: Path, clock: Clock) -> None:
    """It changes what is served as much as a new policy does."""
    path = tmp_path / "log.db"
    with closing(open_log(path, clock=clock)) as log:
        Versions(log).apply(sample_experiment())
        Versions(log).relearn(sample_experiment().id, origin=Origin("bob", "command relearn", ""))
    run("relearn", "home", "--db", str(path), "--undo", "--author", "ann", "--note", "worse")
    assert rows(path, "select author, source, note from changes where number > 1") == [
        ("bob", "command relearn", ""),
        ("ann", "command relearn", "worse"),
    ]


def test_a_server_that_starts_again_does_not_tell_old_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log may have thousands of versions."""
    for said in (1, 0):
        caplog.clear()
        with (
            caplog.at_level(logging.INFO, "decider.serving.change_lines"),
            closing(InProcessClient(tmp_path / "log.db")) as opened,
        ):
            opened.apply(experiment("mine"))
        assert len([one for one in caplog.messages if "new version" in one]) == said
