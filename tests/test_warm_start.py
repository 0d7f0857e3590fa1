"""From Azure Personalizer to a warm model: its logs imported, its Rank call as ours, a server that goes on with them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
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
from decider.types import Position, Time
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
    (block,) = re.findall(r"```py\n(.*?)```", README, re.DOTALL)
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
    """A trial of Personalizer: its events, and the folder of its logs."""

    events: Sequence[Event]
    logs: Path


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """4,000 visits of the storefront."""
    made = list(events(WORLD, WORLD.draw(1, 4_000), Random(3)))
    logs = tmp_path_factory.mktemp("trial") / "personalizer-logs"
    logs.mkdir()
    for part in range(2):
        lines = [dsjson_line(event) for event in made[part * 2_000 : (part + 1) * 2_000]]
        (logs / f"{part}.dsjson").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Trial(made, logs)


def serving_file(folder: Path, text: str = FILE, **changes: str) -> Path:
    """The file with some lines put before its tables, and the policy changed by `policy`."""
    policy = changes.pop("policy", "thompson = {}")
    lines = [f"{name} = {value}" for name, value in changes.items()]
    path = folder / "storefront.toml"
    path.write_text("\n".join([*lines, text.replace("thompson = {}", policy)]), encoding="utf-8")
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
    """On fresh visitors: a cold start earns 0.115 for each, the trial itself earned 0.14, the warm model 0.22."""
    file = serving_file(tmp_path)
    done("import", trial.logs, tmp_path / "warm.db", "--experiment", file)
    version, fresh = version_of(file), WORLD.draw(2, 3_000)
    cold = worth(pmfs(version, make_policy(version.experiment.policy), fresh), fresh)
    warm = worth(pmfs(version, trained(tmp_path / "warm.db", version), fresh), fresh)
    logged = float(np.mean([event.reward for event in trial.events]))
    best = float((fresh.best * fresh.means).sum(axis=1)[fresh.seen].mean())
    print(f"cold {cold:.4f}, trial {logged:.4f}, warm {warm:.4f}, best {best:.4f}")
    assert warm > logged > cold
    assert warm - cold > 0.6 * (best - cold)
