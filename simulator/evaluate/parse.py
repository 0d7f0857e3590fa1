"""The name of a policy, as given to `--policy`, -> a candidate for one log. Called by the commands.

uniform   logged   baseline   fixed:ACTION   table:FILE.csv   FILE.toml   model:LOG.db[@POSITION]   module:factory
"""

from __future__ import annotations

import csv
from contextlib import closing
from pathlib import Path

import numpy as np

from decider.experiment.definition import Action, Experiment, ExperimentVersion, Learning, RewardDefinition
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.log.open import LogUrl, has_password, log_place, open_reader
from decider.log.protocol import LogReader, ModelName
from decider.policy.make import load_model, make_policy
from decider.policy.protocol import PlainPolicy
from decider.types import START, ActionId, ExperimentId, Position, Time
from simulator.evaluate.candidates import (
    DEPLOYED,
    FIXED,
    Candidate,
    FixedAction,
    LoggedPolicies,
    ProgressiveLearner,
    ServedPolicy,
    TablePolicy,
    UniformPolicy,
)
from simulator.evaluate.replay_decisions import ReplayedPolicy
from simulator.load_policy import BadPolicy, CheckedPolicy, factory_of
from simulator.logs.columns import Category, Columns, Number
from simulator.logs.names import repeated_names

NAMES = "uniform, logged, baseline, fixed:ACTION, table:FILE.csv, FILE.toml, model:LOG.db[@POSITION] or module:factory"

CLOSE_TO_1 = 0.01
"""How far a column of a table may be from a sum of 1: people round."""


def parse(name: str, columns: Columns, *, delayed: bool = True) -> Candidate:
    """The candidate of a name. delayed: policies learn rewards when the log had them. Raises DeciderError.

    >>> from simulator.logs.example import example
    >>> parse("fixed:b", example())
    FixedAction(name='fixed:b', action=1, estimand='fixed policy')
    """
    kind, colon, rest = name.partition(":")
    if name == "uniform":
        return UniformPolicy()
    if name == "logged":
        return logged_policies(columns)
    if name == "baseline":
        return _baseline(columns)
    if name.endswith(".toml"):
        return experiment_candidate(name, from_message(read_toml(Path(name))), columns, delayed=delayed)
    if kind == "fixed":
        return FixedAction(name, _action(rest, columns))
    if kind == "table":
        return _table(name, Path(rest), columns)
    if kind == "model":
        return _load_model(name, rest, columns)
    if colon:
        return _load_python(name, columns, delayed=delayed)
    raise BadPolicy(f"there is no policy {name!r}; there are {NAMES}")


def logged_policies(columns: Columns) -> LoggedPolicies:
    """The policies that made the log: fixed, or several models one after the other."""
    changed = columns.model is not None and len(columns) > 0 and columns.model.min() != columns.model.max()
    return LoggedPolicies(DEPLOYED if changed else FIXED)


def _baseline(columns: Columns) -> FixedAction:
    if columns.baseline is None:
        raise BadPolicy("baseline: the log's experiment has no baseline_action; name one, fixed:ACTION")
    return FixedAction("baseline", columns.baseline)


def _action(id_: str, columns: Columns) -> int:
    if id_ not in columns.actions:
        raise BadPolicy(f"fixed:{id_}: the log has no such action; it has {_enumerate(columns.actions)}")
    return columns.actions.index(id_)


def _enumerate(names: tuple[str, ...]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _table(name: str, file: Path, columns: Columns) -> TablePolicy:
    """First column the action, the others headed FIELD=VALUE, each summing to 1."""
    try:
        header, *rows = [[cell.strip() for cell in row] for row in _records(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise BadPolicy(f"{name}: {error}; it must be a CSV file in UTF-8 that begins with a line of names") from error
    for what, names in (("column", header), ("action", [row[0] for row in rows if row])):
        twice = repeated_names(names)
        if twice:
            raise BadPolicy(f"{name}: the {what} {twice[0]!r} stands twice; give each one {what}")
    fields = {heading.partition("=")[0] for heading in header[1:]}
    if len(fields) != 1 or not all("=" in heading for heading in header[1:]):
        raise BadPolicy(
            f"{name}: columns must be headed FIELD=VALUE, all of one field; they are {', '.join(header[1:])}"
        )
    field = fields.pop()
    if isinstance(columns.fields.get(field), Number):
        raise BadPolicy(
            f"{name}: the log has no context field {field!r} of texts: it holds numbers; if the log is a table, make "
            f"it a category: --column categories={field}"
        )
    if field in columns.set_aside:
        raise BadPolicy(
            f"{name}: {field} is not used as context: {columns.set_aside[field]}; if it was known before the draw, say "
            f"--column context={field}"
        )
    if not isinstance(columns.fields.get(field), Category):
        raise BadPolicy(f"{name}: the log has no context field {field!r} of texts; it has {', '.join(columns.fields)}")
    values = tuple([heading.partition("=")[2] for heading in header[1:]])
    pmfs = np.zeros((len(values), len(columns.actions)))
    for line, row in enumerate(rows, start=2):
        action = _table_action(f"{file}:{line}", row, header, columns)
        try:
            pmfs[:, action] = [float(cell) for cell in row[1:]]
        except ValueError as error:
            raise BadPolicy(f"{file}:{line}: {error}") from error
    sums = pmfs.sum(axis=1)
    for value, total, least in zip(values, sums, pmfs.min(axis=1), strict=True):
        if not (abs(total - 1) <= CLOSE_TO_1 and least >= 0):
            raise BadPolicy(f"{file}: column {field}={value} is no distribution: it sums to {total:.6g}")
    return TablePolicy(name, field, values, pmfs)


def _records(file: Path) -> list[list[str]]:
    return list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))


def _table_action(where: str, row: list[str], header: list[str], columns: Columns) -> int:
    """The action of a row, by its id; a bare number also means `item-NUMBER`, as the Open Bandit logs call them."""
    if len(row) != len(header):
        raise BadPolicy(f"{where}: has {len(row)} cells, not {len(header)}")
    for id_ in (row[0], f"item-{row[0]}"):
        if id_ in columns.actions:
            return columns.actions.index(id_)
    raise BadPolicy(f"{where}: the log has no action {row[0]!r}; it has {_enumerate(columns.actions)}")


def experiment_candidate(name: str, experiment: Experiment, columns: Columns, *, delayed: bool = True) -> Candidate:
    """The policy of an experiment: learned progressively, unless it never learns. One that is only logged would learn
    if it were asked."""
    policy = _replay(name, experiment, make_policy(experiment.policy), columns)
    learns = experiment.policy.learns and experiment.learning is not Learning.FROZEN
    return ProgressiveLearner(policy, delayed=delayed) if learns else ServedPolicy(policy)


def _replay(name: str, experiment: Experiment, policy: PlainPolicy, columns: Columns) -> ReplayedPolicy:
    version = ExperimentVersion(experiment, number=1, position=START, time=Time(0))
    return ReplayedPolicy(name, version, policy, actions=columns.actions)


def _load_model(name: str, rest: str, columns: Columns) -> ServedPolicy:
    """A published model; on the log that it learned from, only later decisions can be evaluated."""
    file, at, number = _model_of(rest)
    if has_password(file):  # names of policies stand in tables, reports and results
        raise BadPolicy(f"{log_place(file)}: leave the password out of the address; PGPASSFILE or PGPASSWORD has it")
    with closing(open_reader(log_place(file))) as log:
        versions = [v for v in log.versions() if set(v.all_active) & set(columns.actions)]
        if not versions:
            raise BadPolicy(f"{name}: no experiment of {file} has an action of this log")
        version = versions[-1]
        id_, spec = version.experiment.id, version.experiment.policy
        if at and not number.isdigit():
            raise BadPolicy(f"{name}: {number!r} is no log position")
        positions = log.models.stored_positions(id_, spec.signature)
        stored = _enumerate(tuple(map(str, positions))) or "none"
        position = Position(int(number)) if at else max(positions, default=START)
        saved = log.models.load(ModelName(id_, position, spec.signature))
        if saved is None:
            raise BadPolicy(f"{name}: no model of position {position} is stored; stored ones are {stored}")
        learned_until = int(log.time_at(position))
        same = _same_decisions(log, columns)
    policy = _replay(name, version.experiment, load_model(spec, saved), columns)
    if same and not (columns.known > learned_until).any():
        raise BadPolicy(f"{name}: has learned from every decision of this log; name an earlier one of {stored}")
    return ServedPolicy(policy, after=learned_until if same else None)


def _model_of(text: str) -> tuple[str, str, str]:
    """The log, and behind a `@` the model's position; an address has one before its host as well."""
    file, at, number = text.rpartition("@")
    is_address = isinstance(log_place(text), LogUrl) and not number.isdigit()
    return (text, "", "") if is_address or not at else (file, at, number)


def _same_decisions(log: LogReader, columns: Columns) -> bool:
    """Whether decisions of the log are among those that are evaluated: by their times, since files are renamed."""
    head = log.head()
    experiments = dict.fromkeys(version.experiment.id for version in log.versions())
    return any(
        np.isin(columns.time, batch["time"].to_numpy()).any()
        for experiment in experiments
        for batch in log.arrow(experiment, head).decisions
    )


def _load_python(name: str, columns: Columns, *, delayed: bool) -> ProgressiveLearner:
    policy = CheckedPolicy(name, factory_of(name, others=NAMES)())
    return ProgressiveLearner(_replay(name, log_experiment(columns), policy, columns), delayed=delayed)


def log_experiment(columns: Columns) -> Experiment:
    """What the log says of its experiment: the actions with their traits, the range of rewards, the baseline.

    >>> from simulator.logs.example import example
    >>> [action.id for action in log_experiment(example()).actions]
    ['a', 'b']
    """
    kinds = columns.traits.get("kind", ("content",) * len(columns.actions))
    others = {trait: values for trait, values in columns.traits.items() if trait != "kind"}
    actions = tuple(
        Action(ActionId(id_), kind, {trait: values[number] for trait, values in others.items() if values[number]})
        for number, (id_, kind) in enumerate(zip(columns.actions, kinds, strict=True))
    )
    low, high = columns.reward_range
    baseline = None if columns.baseline is None else ActionId(columns.actions[columns.baseline])
    return Experiment(
        ExperimentId("log"), actions, baseline=baseline, reward=RewardDefinition(minimum=low, maximum=high)
    )
