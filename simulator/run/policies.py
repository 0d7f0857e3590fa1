"""The name of a policy, as given to `simulator run --policy` -> what plays a world. Called by the commands and tasks.

default   squarecb:gamma_scale=100   epsilon_greedy:epsilon=0.1,floor=0   FILE.toml   fixed:ACTION   uniform   best
module:factory
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from decider.errors import InvalidExperiment
from decider.experiment.definition import Experiment
from decider.experiment.schema import from_message, to_message
from decider.experiment.unit_history import HistoryDefinition
from decider.experiment_files import read_toml
from decider.policy.algorithms import ALGORITHMS
from decider.policy.make import make_policy
from decider.policy.protocol import PlainPolicy
from decider.types import ActionId
from decider.v1 import experiment_pb2 as pb
from simulator.load_policy import BadPolicy, CheckedPolicy, factory_of
from simulator.worlds.world import Floats, Visits, World

NAMES = "default, ALGORITHM[:parameter=value,...], FILE.toml, fixed:ACTION, uniform, best or module:factory"


_WHOLE = (FieldDescriptor.CPPTYPE_UINT32,)


@dataclass(frozen=True, slots=True)
class LearningPolicy:
    """Plays through the code that serves. make(seed): a fresh policy. floor: its minimum propensity. history: what it
    gets to know of what units did before."""

    make: Callable[[int], PlainPolicy]
    floor: float
    history: HistoryDefinition | None = None


@dataclass(frozen=True, slots=True)
class StaticPolicy:
    """What needs no learning because it knows the world. pmfs: (cases, actions) of the visits."""

    pmfs: Callable[[Visits], Floats]


EXTENSIONS: dict[str, Callable[[str, World], LearningPolicy]] = {}
"""Further kinds of names, `KIND:NAME`, with what makes their players: a study adds its own."""


def find_policy(name: str, world: World) -> LearningPolicy | StaticPolicy:
    """What plays that world under this name. Raises BadPolicy or InvalidExperiment (of a TOML file)."""
    kind, colon, rest = name.partition(":")
    if name == "best":
        return StaticPolicy(lambda visits: visits.best)
    if name == "uniform":
        return StaticPolicy(lambda visits: visits.uniform)
    if kind == "fixed":
        return _fixed(rest, world)
    if kind in EXTENSIONS:
        return EXTENSIONS[kind](rest, world)
    experiment = with_policy(name, world.experiment)
    if experiment is not None:
        return _served(experiment, world)
    if colon:
        make = factory_of(name, others=NAMES)
        return LearningPolicy(lambda _: CheckedPolicy(name, make()), 0.0, world.experiment.history)
    raise BadPolicy(f"there is no policy {name!r}; there are {NAMES}; algorithms are {', '.join(ALGORITHMS)}")


def served_experiment(name: str, world: World) -> Experiment:
    """The world's experiment with this policy, to apply to a server. Raises BadPolicy or InvalidExperiment."""
    kind, _, rest = name.partition(":")
    if kind == "fixed" and rest:
        _fixed(rest, world)
        return replace(_of_name(kind, kind, "", world.experiment), baseline=ActionId(rest))
    experiment = with_policy(name, world.experiment)
    if experiment is None:
        wanted = "default, ALGORITHM[:parameter=value,...], FILE.toml or fixed:ACTION"
        raise BadPolicy(f"{name}: no server can serve it; {wanted}")
    return experiment


def with_policy(name: str, base: Experiment) -> Experiment | None:
    """`base` with the policy and the floor that the name gives; None where it names no policy of the server's.

    >>> from simulator.worlds.registry import find
    >>> with_policy("softmax:lambda=10", find("storefront").experiment).policy.parameters
    {'lambda': 10.0}
    """
    kind, _, rest = name.partition(":")
    if name.endswith(".toml"):
        return _of_file(Path(name), base)
    if kind == "fixed" and rest:  # an action, not a parameter
        return None
    if kind == "default" or kind in ALGORITHMS:
        return _of_name(name, "" if kind == "default" else kind, rest, base)
    return None


def _fixed(action: str, world: World) -> StaticPolicy:
    if action not in world.actions:
        said = f"fixed:{action}: {world.name} has no such action" if action else "fixed: names no action (fixed:ACTION)"
        raise BadPolicy(f"{said}; it has {', '.join(world.actions)}")
    index = world.actions.index(action)
    return StaticPolicy(lambda visits: visits.always(index))


def _served(experiment: Experiment, world: World) -> LearningPolicy | StaticPolicy:
    if experiment.policy.algorithm == "fixed":
        return _fixed(experiment.baseline or "", world)
    return LearningPolicy(lambda _: make_policy(experiment.policy), experiment.minimum_propensity, experiment.history)


def _of_file(file: Path, base: Experiment) -> Experiment:
    """The experiment with the file's policy and floor; the file may hold nothing else."""
    given, message = read_toml(file), to_message(base)
    floor = given.minimum_propensity if given.HasField("minimum_propensity") else None
    return _changed(str(file), message, given.policy, floor)


def _of_name(name: str, algorithm: str, parameters: str, base: Experiment) -> Experiment:
    """`ALGORITHM:parameter=value,interactions=CA+CCA,floor=0.01,history=0`."""
    policy, floor, message = pb.Policy(), None, to_message(base)
    if algorithm:
        getattr(policy, algorithm).SetInParent()
    for given in filter(None, parameters.split(",")):
        key, equals, value = given.partition("=")
        if key == "interactions":
            policy.interactions.extend(value.split("+"))
        elif key == "floor":
            floor = _number(name, key, value)
        elif key == "history" and value == "0":
            message.ClearField("history")
        elif equals and algorithm and key in ALGORITHMS[algorithm].parameters:
            _set(name, getattr(policy, algorithm), key, _number(name, key, value))
        else:
            own = ALGORITHMS[algorithm].parameters if algorithm else ()
            known = ", ".join([*own, "interactions", "floor", "history=0"])
            raise BadPolicy(f"{name}: there is no parameter {key!r}; there are {known}, each as NAME=VALUE")
    return _changed(name, message, policy, floor)


def _number(name: str, key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise BadPolicy(f"{name}: {key}={value} is no number") from error


def _set(name: str, parameters: Any, key: str, value: float) -> None:
    whole = parameters.DESCRIPTOR.fields_by_name[key].cpp_type in _WHOLE
    if whole and not (value.is_integer() and 0 <= value < 2**32):
        raise BadPolicy(f"{name}: {key}={value:g} is no whole number from 0 on")
    setattr(parameters, key, int(value) if whole else value)


def _changed(name: str, message: pb.Experiment, policy: pb.Policy, floor: float | None) -> Experiment:
    """Without a floor of its own, that which such an experiment has by default. Raises BadPolicy."""
    message.policy.CopyFrom(policy)
    message.ClearField("minimum_propensity")
    if floor is not None:
        message.minimum_propensity = floor
    try:
        return from_message(message)
    except InvalidExperiment as error:
        raise BadPolicy(f"{name}: {error}") from error
