"""From Azure Personalizer to a warm model: its logs imported, its Rank call as ours, a server that goes on."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import slots_of
from decider.decide.slots import SLOTS
from decider.experiment.definition import ExperimentVersion
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.learn.trainer import Trainer
from decider.log.open import open_reader
from decider.policy.make import make_policy
from decider.policy.protocol import PlainPolicy
from decider.server.convert import decision_request
from decider.types import Position, Time, now
from decider.v1 import decider_service_pb2 as pb
from simulator.commands.group import main as simulator
from simulator.logs.decider_log import load
from simulator.logs.dsjson_event import ACTION_NAMESPACES, flatten
from simulator.worlds.registry import find
from simulator.worlds.world import Visits
from tests.personalizer_logs import Event, dsjson_line, events, rank_call
from tests.rpc_clients import ServerProcess, rows

WORLD = find("storefront")
README = (Path(__file__).parent.parent / "decider" / "README.md").read_text(encoding="utf-8")

FILE = """
id = "storefront"
baseline_action = "new-arrivals"

[[actions]]
id = "new-arrivals"

[[actions]]
id = "sale"
kind = "offer"
features = { price = 11.0 }

[[actions]]
id = "outfit"

[[actions]]
id = "free-shipping"
kind = "offer"

[[actions]]
id = "finish-checkout"
kind = "cta"

[[actions]]
id = "none"
kind = "none"

[policy]
thompson = {}

[reward]
window = "600s"
weights = { click = 1.0 }
"""
"""A serving file for what `events` logs: the kinds are not in those logs, and the price of the sale never changes."""


def shown_functions() -> dict[str, Any]:
    """`flat` and `decide_request`, as the text shows them."""
    (block,) = [one for one in re.findall(r"```py\n(.*?)```", README, re.DOTALL) if "def decide_request" in one]
    names: dict[str, Any] = {}
    exec(block, names)
    return names


SHOWN = shown_functions()
decide_request: Callable[..., pb.DecideRequest] = SHOWN["decide_request"]


def run(*arguments: str | Path) -> Result:
    """`simulator` with these arguments."""
    return CliRunner().invoke(simulator, [str(one) for one in arguments])


def done(*arguments: str | Path) -> str:
    """What `simulator` says; it must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@dataclass(frozen=True)
class Trial:
    """A trial of Personalizer: its events, and the folder of its logs; a file of its first 300 events."""

    events: Sequence[Event]
    logs: Path
    few: Path


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """4,000 visits of the storefront."""
    made = list(events(WORLD, WORLD.draw(1, 4_000), Random(3)))
    logs = tmp_path_factory.mktemp("trial") / "personalizer-logs"
    logs.mkdir()
    for part in range(2):
        lines = [dsjson_line(event) for event in made[part * 2_000 : (part + 1) * 2_000]]
        (logs / f"{part}.dsjson").write_text("\n".join(lines) + "\n", encoding="utf-8")
    few = logs.with_name("few.dsjson")
    few.write_text("\n".join(map(dsjson_line, made[:300])), encoding="utf-8")
    return Trial(made, logs, few)


def serving_file(folder: Path, text: str = FILE, **changes: str) -> Path:
    """The file with some lines put before its tables, and the policy changed by `policy`."""
    policy = changes.pop("policy", "thompson = {}")
    lines = [f"{name} = {value}" for name, value in changes.items()]
    path = folder / "storefront.toml"
    path.write_text("\n".join([*lines, text.replace("thompson = {}", policy)]), encoding="utf-8")
    os.utime(path, (time.time() - 60,) * 2)  # one that was written just now might be half of it: a start would wait
    return path


def version_of(file: Path) -> ExperimentVersion:
    """The file's experiment as a version."""
    return ExperimentVersion(from_message(read_toml(file)), number=1, position=Position(1), time=Time(0))


def native(version: ExperimentVersion, made: Sequence[Event]) -> PlainPolicy:
    """A policy that has learned the trial's events as if they had been decided here: by way of our own API."""
    policy = make_policy(version.experiment.policy)
    for event in made:
        request = decision_request(decide_request(event.rank, experiment="storefront", unit_id="visitor"))
        policy.learn(
            request.context,
            version.choices_of(version.all_active, request.action_features),
            drawn=event.drawn,
            propensity=event.propensities[event.drawn],
            reward=event.reward,
        )
    return policy


def trained(log: Path, version: ExperimentVersion) -> PlainPolicy:
    """What the server's learner makes of a log."""
    with closing(open_reader(log)) as reader:
        trainer = Trainer(reader, version.experiment.id, version.experiment.policy)
        trainer.learn_up_to(reader.head().mark)
        return trainer.model().policy


def pmfs(version: ExperimentVersion, policy: PlainPolicy, visits: Visits) -> list[tuple[float, ...]]:
    """What a policy would serve in each of the visits' contexts, as a frontend asks."""
    found = []
    for number, context in enumerate(visits.contexts):
        call = decide_request(rank_call(WORLD, context, number), experiment="storefront", unit_id="visitor")
        request = decision_request(call)
        slots, _ = slots_of(
            version, policy, request.context, version.choices_of(version.all_active, request.action_features)
        )
        found.append(tuple([share / SLOTS for share in slots]))
    return found


def worth(found: Sequence[Sequence[float]], visits: Visits) -> float:
    """The true mean reward of these pmfs, by how often each context comes."""
    means = (np.array(found) * visits.means).sum(axis=1)
    return float(means[visits.seen].mean())


@pytest.mark.parametrize("policy", ["thompson = {}", "squarecb = {}", "epsilon_greedy = { epsilon = 0.1 }"])
def test_a_model_begins_as_if_it_had_learned_the_trial_itself(policy: str, trial: Trial, tmp_path: Path) -> None:
    """Names, kinds, values and order are those of our own calls: the pmfs on fresh visitors are the same to the last
    millionth. A feature that is called otherwise would be another one, and what was learned of it worth nothing."""
    file = serving_file(tmp_path, policy=policy)
    done("import", trial.logs, tmp_path / "warm.db", "--experiment", file)
    version, fresh = version_of(file), WORLD.draw(2, 200)
    warm = pmfs(version, trained(tmp_path / "warm.db", version), fresh)
    assert warm == pmfs(version, native(version, trial.events), fresh)


def test_a_warm_start_earns_what_the_trial_has_taught(trial: Trial, tmp_path: Path) -> None:
    """True mean reward of fresh visitors: a cold start earns 0.115, the trial earned 0.178, a warm start 0.252, and the
    best choice for everybody 0.266. What learned the same decisions natively earns the same (the test above)."""
    file = serving_file(tmp_path)
    done("import", trial.logs, tmp_path / "warm.db", "--experiment", file)
    version, fresh = version_of(file), WORLD.draw(2, 3_000)
    cold = worth(pmfs(version, make_policy(version.experiment.policy), fresh), fresh)
    warm = worth(pmfs(version, trained(tmp_path / "warm.db", version), fresh), fresh)
    logged = float(np.mean([event.reward for event in trial.events]))
    best = float((fresh.best * fresh.means).sum(axis=1)[fresh.seen].mean())
    assert warm > logged > cold
    assert warm - cold > 0.8 * (best - cold)


# a server goes on


def serve_visitors(log: Path, file: Path, *, count: int) -> tuple[pb.DecideResponse, str]:
    """The first answer of a real server to the trial's fresh visitors, and what the server said."""
    server = ServerProcess(log, "--experiments", str(file), "--learn-interval", "0.05")
    try:
        client = server.client()
        fresh = WORLD.draw(2, count)
        answers = []
        for number, case in enumerate(fresh.seen.tolist()):
            rank = {**rank_call(WORLD, fresh.contexts[case], number), "eventId": f"fresh-{number}"}
            call = decide_request(rank, experiment="storefront", unit_id=f"visitor-{number}")
            call.with_ranking = True
            answers.append(client.send(call))
            client.reward(answers[-1].decision_id, name="click", value=float(number % 2))
        client.close()
        return answers[0], server.output
    finally:
        assert server.terminate() == 0


def test_a_server_begins_warm_and_verifies(trial: Trial, tmp_path: Path) -> None:
    """Nobody resumes, renames or learns anything by hand: the first visitor gets what the trial has taught."""
    file, log = serving_file(tmp_path), tmp_path / "warm.db"
    done("import", trial.logs, log, "--experiment", file)
    assert "0 of 0 decisions equal\n4000 decisions imported from" in done("verify", log)
    first, said = serve_visitors(log, file, count=30)
    assert "unchanged, version 1" in said
    assert "paused" not in said
    assert (first.experiment_version, first.model > 0) == (1, True)
    version, fresh = version_of(file), WORLD.draw(2, 30)
    expected = pmfs(version, native(version, trial.events), fresh)[fresh.seen[0]]
    served = {ranked.action: ranked.propensity for ranked in first.ranking}
    assert served == dict(zip(WORLD.actions, expected, strict=True))
    verified = done("verify", log)
    assert "30 of 30 decisions equal" in verified
    assert f"4000 decisions imported from {trial.logs} are not recomputed: another system drew them" in verified
    assert rows(log, "select count(*) from experiments") == [(1,)]


def test_a_holdout_begins_with_the_second_version(trial: Trial, tmp_path: Path) -> None:
    """Nobody of the trial was drawn into it: one version for both would make the lift a difference of two times."""
    file, log = serving_file(tmp_path, holdout="0.5"), tmp_path / "warm.db"
    assert "note: " in done("import", trial.few, log, "--experiment", file)
    first, said = serve_visitors(log, file, count=20)
    assert "new version 2" in said
    assert (first.experiment_version, first.model > 0) == (2, True)
    assert "20 of 20 decisions equal" in done("verify", log)
    assert rows(log, "select version, count(*) > 0 from decisions where reason = 'HOLDOUT' group by 1") == [
        (rows(log, "select max(position) from experiments")[0][0], 1)
    ]


def test_where_activation_is_required_what_was_shown_is_learned(trial: Trial, tmp_path: Path) -> None:
    """The trial's own log has only what was activated: without an entry that says so nothing of it would be learned."""
    file, log = serving_file(tmp_path, activation='"required"'), tmp_path / "warm.db"
    done("import", trial.few, log, "--experiment", file)
    assert rows(log, "select sum(left_out), sum(activated) = count(*) from sealed_decisions") == [(0, 1)]
    first, _ = serve_visitors(log, file, count=1)
    assert first.model > 0


def test_an_open_window_is_left_to_the_server(trial: Trial, tmp_path: Path) -> None:
    """A log whose time runs ahead of the clock would give every visitor a wrong time for as long as the window is."""
    file, log = serving_file(tmp_path, FILE.replace('"600s"', '"7776000s"')), tmp_path / "warm.db"
    lines = [json.loads(dsjson_line(event)) for event in trial.events[:20]]
    recent = [{**line, "Timestamp": f"{np.datetime64('now') - np.timedelta64(60, 's')}Z", "o": []} for line in lines]
    (tmp_path / "recent.dsjson").write_text("\n".join(map(json.dumps, recent)))
    done("import", tmp_path / "recent.dsjson", log, "--experiment", file)
    ((end,),) = rows(log, "select time from head")
    assert end <= now()


# what fits, and what does not


def test_kinds_and_ids_are_those_of_the_file_whatever_the_log_calls_them(trial: Trial, tmp_path: Path) -> None:
    """Personalizer's ids are any text; ours are plain."""
    lines = [dsjson_line(event).replace('"free-shipping"', '"free shipping"') for event in trial.events[:200]]
    lines = [line.replace('"none"', '"do nothing!"') for line in lines]
    (tmp_path / "log.dsjson").write_text("\n".join(lines))
    file = serving_file(tmp_path)
    refused = run("import", tmp_path / "log.dsjson", tmp_path / "a.db", "--experiment", file)
    assert refused.exit_code == 2
    assert f"{file}: lacks 1 of the 6 actions of {tmp_path / 'log.dsjson'}: 'do nothing!'; add them" in refused.stderr
    assert "--rename OLD=NEW" in refused.stderr
    rename = ("--rename", "do nothing!=none")
    done("import", tmp_path / "log.dsjson", tmp_path / "a.db", "--experiment", file, *rename)
    columns = load(tmp_path / "a.db")
    assert columns.actions == WORLD.actions
    assert columns.traits["kind"] == ("content", "offer", "content", "offer", "cta", "none")
    drawn = [columns.actions[code] for code in columns.action.tolist()]
    assert drawn == [WORLD.actions[event.drawn] for event in trial.events[:200]]


@pytest.mark.parametrize(
    ("file", "arguments", "says"),
    [
        (FILE.replace("[policy]", '[[actions]]\nid = "new"\n\n[policy]'), (), ""),
        (FILE.replace('id = "outfit"', 'id = "dress"'), (), "lacks 1 of the 6 actions of"),
        (FILE.replace('id = "outfit"', 'id = "outfit"\nstate = "retired"'), (), ""),
        (FILE.replace("weights", "range = { maximum = 0.5 }\nweights"), (), "reward.range is [0, 0.5], and"),
        (f'learning = "frozen"\n{FILE}', (), "learning is FROZEN, so nothing would be learned"),
        (FILE, ("--as", "shop"), "--as: leave it out;"),
        (FILE, ("--kind", "sale=offer"), "--kind: leave it out;"),
        (FILE, ("--rename", "sale=dress"), "--rename sale=dress: is not OLD=NEW"),
        (FILE, ("--rename", "sale=outfit"), "the action 'outfit' would be 'sale', 'outfit' of"),
        (FILE, ("--rename", "sale"), "'sale' is not like --rename OLD=NEW"),
        (FILE.replace("thompson", "tompson"), (), "did you mean thompson?"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_with_the_way_out(
    file: str, arguments: tuple[str, ...], says: str, trial: Trial, tmp_path: Path
) -> None:
    """Before anything is written; more actions than the log's, and retired ones, are no fault."""
    path = serving_file(tmp_path, file)
    result = run("import", trial.few, tmp_path / "warm.db", "--experiment", path, *arguments)
    assert result.exit_code == (2 if says else 0), result.output
    assert says in result.stderr
    assert (tmp_path / "warm.db").exists() == (not says)


def test_a_rename_without_a_file_is_refused(trial: Trial, tmp_path: Path) -> None:
    """It would be ignored."""
    result = run("import", trial.few, tmp_path / "warm.db", "--rename", "sale=outfit")
    assert result.exit_code == 2
    assert "--rename: is for actions of a file; name it: --experiment FILE.toml" in result.stderr


def test_what_is_not_kept_and_what_has_to_be_sent_is_said(trial: Trial, tmp_path: Path) -> None:
    """A frontend developer reads here what Decide needs; a model that misses it serves as if it were cold."""
    said = done("import", trial.few, tmp_path / "warm.db", "--experiment", serving_file(tmp_path))
    for line in (
        "  not kept: ids of decisions and units: new ones tell which decisions are of one unit",
        "    context.segment: text",
        "    context.features[cart.items]: number",
        "    context.features[returning]: flag",
        "    action_features[5 of 6 actions][price]: number",
        "    action_features[6 of 6 actions][Look.colour]: text",
    ):
        assert line in said.splitlines()


@pytest.mark.parametrize(
    ("features", "lost"),
    [
        ({"x" * 65: 1.0}, "not kept: context feature 'xxxxxxxxxxxxxxxxxxxx', whose name has 65 characters"),
        ({"note": "x" * 257}, "not kept: 1 texts of note that are longer than 256 characters: Decide refuses them"),
        ({"large": 1e13}, "not kept: 1 numbers of large beyond 1e+12: Decide refuses them"),
        ({"mixed": 3}, "1 with a number in mixed, which has texts, too (taken for a text)"),
    ],
)
def test_a_feature_that_no_call_can_send_is_left_out(
    features: Mapping[str, Any], lost: str, trial: Trial, tmp_path: Path
) -> None:
    """The model would wait for it for ever."""
    lines = [json.loads(dsjson_line(event)) for event in trial.events[:3]]
    lines[0]["c"]["FromUrl"] = [features]
    lines[1]["c"]["FromUrl"] = [{"mixed": "three"}]
    (tmp_path / "log.dsjson").write_text("\n".join(map(json.dumps, lines)))
    said = done("import", tmp_path / "log.dsjson", tmp_path / "a.db", "--experiment", serving_file(tmp_path))
    assert lost in said


@pytest.mark.parametrize(
    ("feature", "lost"),
    [
        ({"id": 7}, "not kept: action feature 'id', a name that every action has: Decide refuses it"),
        ({"id": "sale"}, ""),
        ({"kind": "banner"}, "note: kinds are those of"),
        ({"price": 1e13}, "not kept: action feature 'price' beyond 1e+12: Decide refuses it"),
        ({"text": "x" * 257}, "not kept: action feature 'text' with more than 256 characters: Decide refuses it"),
        ({"x" * 65: "y"}, "not kept: action feature 'xxxxxxxxxxxxxxxxxxxx', whose name has 65 characters"),
    ],
)
def test_an_action_feature_that_no_call_can_send_is_left_out(
    feature: Mapping[str, Any], lost: str, trial: Trial, tmp_path: Path
) -> None:
    """The same, of actions; an id that stands there again says nothing."""
    lines = [json.loads(dsjson_line(event)) for event in trial.events[:3]]
    for line in lines:
        line["c"]["_multi"][1]["j"] = [feature]
    (tmp_path / "log.dsjson").write_text("\n".join(map(json.dumps, lines)))
    said = done("import", tmp_path / "log.dsjson", tmp_path / "a.db", "--experiment", serving_file(tmp_path))
    assert lost in said
    assert ("action feature" in said) == ("action feature" in lost)
    stored = [json.loads(text) for (text,) in rows(tmp_path / "a.db", "select action_features from decisions")]
    assert all("sale" not in features for features in stored)


def test_one_feature_twice_is_counted(trial: Trial, tmp_path: Path) -> None:
    """Personalizer takes a list of objects; a call of ours has one value for a name."""
    line = json.loads(dsjson_line(trial.events[0]))
    line["c"]["FromUrl"] = [{"age": 1}, {"age": 2}]
    (tmp_path / "log.dsjson").write_text(json.dumps(line))
    said = done("import", tmp_path / "log.dsjson", tmp_path / "a.db", "--experiment", serving_file(tmp_path))
    assert "  1 with one feature twice (the last value counts)" in said.splitlines()
    assert rows(tmp_path / "a.db", "select features from decisions") == [('{"age":2.0}',)]


def test_more_features_than_a_call_may_have_are_refused(trial: Trial, tmp_path: Path) -> None:
    """Which of them the frontend will send is not ours to say."""
    line = json.loads(dsjson_line(trial.events[0]))
    line["c"]["FromUrl"] = [{f"x{number}": 1.0 for number in range(101)}]
    (tmp_path / "log.dsjson").write_text(json.dumps(line))
    result = run("import", tmp_path / "log.dsjson", tmp_path / "a.db", "--experiment", serving_file(tmp_path))
    assert result.exit_code == 2
    assert "a decision has 101 context features, Decide takes 100" in result.stderr


# the Rank call that the text shows

names = st.sampled_from(["segment", "age", "cart", "Look"])
leaves = st.text("ab", min_size=1, max_size=2) | st.floats(-9, 9) | st.booleans()
objects = st.dictionaries(
    names,
    st.recursive(
        leaves, lambda inner: st.dictionaries(names, inner, max_size=2) | st.lists(inner, max_size=2), max_leaves=4
    ),
    max_size=3,
)


@given(st.lists(objects, max_size=3))
def test_the_functions_shown_name_features_as_the_import_does(parts: list[dict[str, Any]]) -> None:
    """Personalizer takes objects in objects; `FromUrl` and `j` are where its log has them."""
    found = {name: _as_logged(value) for name, value in SHOWN["flat"](parts).items()}
    assert found == dict(flatten({"FromUrl": parts}))
    assert found == dict(flatten({"_tag": "x", "j": parts}, ACTION_NAMESPACES))


def _as_logged(value: object) -> object:
    """Flags are the texts that models take them for."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


# our own logs, and tables


def test_an_exported_table_comes_back_with_its_kinds(trial: Trial, tmp_path: Path) -> None:
    """An id whose kind has changed is refused by the server: the import has to keep it."""
    done("import", trial.few, tmp_path / "warm.db", "--experiment", serving_file(tmp_path))
    for form in ("csv", "parquet", "dsjson"):
        said = done("export", tmp_path / "warm.db", tmp_path / f"cart.{form}")
        assert "what the actions are" not in said
        done("import", tmp_path / f"cart.{form}", tmp_path / f"{form}.db")
        with closing(open_reader(tmp_path / f"{form}.db")) as log:
            (version,) = log.versions()
        kinds = {action.id: action.kind for action in version.experiment.actions}
        assert version.experiment.id == "cart"
        assert kinds == {action.id: action.kind for action in WORLD.experiment.actions}


def test_our_own_log_is_imported_with_what_it_defines(trial: Trial, tmp_path: Path) -> None:
    """Kinds, numbers among the features and payloads are in its definition, not in its decisions."""
    done("import", trial.few, tmp_path / "warm.db", "--experiment", serving_file(tmp_path))
    done("import", tmp_path / "warm.db", tmp_path / "again.db")
    with closing(open_reader(tmp_path / "again.db")) as log:
        (version,) = log.versions()
    assert version.experiment.id == "storefront"
    assert version.experiment.actions == version_of(tmp_path / "storefront.toml").experiment.actions


def test_kinds_can_be_said(trial: Trial, tmp_path: Path) -> None:
    """Without a file."""
    done("import", trial.few, tmp_path / "warm.db", "--kind", "none=none", "--kind", "sale=offer")
    kinds = dict(zip(load(tmp_path / "warm.db").actions, load(tmp_path / "warm.db").traits["kind"], strict=True))
    assert (kinds["none"], kinds["sale"], kinds["outfit"]) == ("none", "offer", "content")
    for wrong, says in (("nothing=none", "has no action 'nothing'; it has"), ("sale=an offer", "a kind has 1 to 64")):
        result = run("import", trial.few, tmp_path / "other.db", "--kind", wrong)
        assert result.exit_code == 2
        assert says in result.stderr


def test_a_table_served_as_its_file_says_is_warm(trial: Trial, tmp_path: Path) -> None:
    """Export CSV, import, serve: the way of whoever moves a log from one service to another."""
    file = serving_file(tmp_path)
    done("import", trial.few, tmp_path / "first.db", "--experiment", file)
    done("export", tmp_path / "first.db", tmp_path / "cart.csv")
    done("import", tmp_path / "cart.csv", tmp_path / "warm.db", "--experiment", file)
    first, said = serve_visitors(tmp_path / "warm.db", file, count=5)
    assert "unchanged, version 1" in said
    assert first.model > 0
    assert "5 of 5 decisions equal" in done("verify", tmp_path / "warm.db")


def test_kinds_of_a_table_that_are_none_are_left_aside(tmp_path: Path) -> None:
    """Two kinds of one action are none; the column is no context either, since it was made by the draw."""
    text = "action,propensity,reward,action_kind\n" + "".join(f"a,0.5,1,{kind}\nb,0.5,0,x\n" for kind in "xy")
    (tmp_path / "log.csv").write_text(text)
    result = run("import", tmp_path / "log.csv", tmp_path / "log.db")
    assert result.exit_code == 0, result.output
    assert "action_kind: left out, is not one for each action" in result.stderr
    assert "  not kept: context field action_kind: is not one for each action" in result.stdout
    assert load(tmp_path / "log.db").fields == {}
