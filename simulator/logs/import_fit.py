"""A foreign log as decisions of the experiment that a serving file defines, so that a model begins with what the log
teaches. Called by `simulator import --experiment FILE.toml`.

A model knows features by their names, so everything here makes them those that `Decide` sends afterwards:

- Actions are those of the file, in its order and with its kinds. The file has to know every action of the log.
- What an action was in the log and the file says too is the file's. The rest comes with each call, as
  `action_features`; so does what changed from call to call.
- The five fields of a context are texts. What `Decide` would refuse is left out, and said.
- The first version is the file's, but without its holdout: nobody of the log was drawn into it. Where the file has one,
  the server applies it as the second version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from decider.experiment.definition import Experiment
from decider.text import figure
from simulator.logs.columns import Columns, Longs
from simulator.logs.errors import BadLog
from simulator.logs.import_experiment import legal
from simulator.logs.import_features import call_features, usable_context


@dataclass(frozen=True, slots=True)
class Fit:
    """Decisions of an experiment; their actions are those of the experiment, in its order. lost: in words for people.

    notes: what else is worth knowing of the file and the log.
    """

    columns: Columns
    experiment: Experiment
    lost: tuple[str, ...]
    notes: tuple[str, ...] = ()


def fit_to(experiment: Experiment, columns: Columns, *, file: str, renames: Mapping[str, str]) -> Fit:
    """The decisions of the log as the file's. renames: the file's ids by those of the log. Raises BadLog where they do
    not fit.

    >>> from decider.experiment.definition import Action
    >>> from decider.types import ActionId, ExperimentId
    >>> from simulator.logs.example import example
    >>> shop = Experiment(ExperimentId("shop"), tuple([Action(ActionId(id_), "offer") for id_ in "cba"]))
    >>> found = fit_to(shop, example(), file="shop.toml", renames={})
    >>> found.columns.actions, found.columns.sets, found.columns.pmf.tolist()
    (('c', 'b', 'a'), ((1, 2),), [0.5, 0.5, 0.25, 0.75])
    """
    if not experiment.learns:
        raise BadLog(
            f"{file}: learning is {experiment.learning.upper()}, so nothing would be learned from {columns.name}; take "
            "that line out, and put it back once the server has learned the log"
        )
    ids = _ids_in_file(columns, experiment, file, renames)
    _check_rewards(columns, experiment, file)
    fields, lost_context = usable_context(columns)
    features, lost_features = call_features(columns, experiment, ids)
    return Fit(
        columns=_reordered(
            replace(columns, action_features=features, traits={}, fields=fields),
            tuple([action.id for action in experiment.actions]),
            ids,
        ),
        experiment=replace(experiment, holdout=0.0),
        lost=(*lost_context, *lost_features, *_delays_lost(columns, experiment, file)),
        notes=tuple(_notes(columns, experiment, file, ids)),
    )


# Which action is which.


def _ids_in_file(columns: Columns, experiment: Experiment, file: str, renames: Mapping[str, str]) -> list[str]:
    """The file's id of every action of the log. Raises BadLog for those that it does not have."""
    known: dict[str, str] = {action.id: action.id for action in experiment.actions}
    unknown = [f"{old}={new}" for old, new in renames.items() if new not in known or old not in columns.actions]
    if unknown:
        raise BadLog(
            f"--rename {unknown[0]}: is not OLD=NEW with an action of {columns.name} and one of {file}; the log has "
            f"{_list(columns.actions)}; the file has {_list(tuple(known))}"
        )
    found = [renames.get(id_) or known.get(id_) or known.get(legal(id_)) for id_ in columns.actions]
    missing = [id_ for id_, new in zip(columns.actions, found, strict=True) if new is None]
    if missing:
        raise BadLog(
            f"{file}: lacks {len(missing)} of the {len(found)} actions of {columns.name}: {_list(missing)}; add them, "
            'with state = "retired" if they are not to be chosen any more, or say which of the file\'s actions they '
            "are: --rename OLD=NEW"
        )
    names = [str(new) for new in found]
    twice = [new for new, count in Counter(names).items() if count > 1]
    if twice:
        both = [old for old, new in zip(columns.actions, names, strict=True) if new == twice[0]]
        raise BadLog(f"{file}: the action {twice[0]!r} would be {_list(both)} of {columns.name}; give each its own")
    return names


def _list(ids: Sequence[str], most: int = 10) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(map(repr, ids[:most])) + more


def _reordered(columns: Columns, actions: tuple[str, ...], ids: Sequence[str]) -> Columns:
    """The same decisions with other actions. ids: the new id of each old action."""
    code = np.array([actions.index(id_) for id_ in ids], np.int32)
    sets = [code[list(members)] for members in columns.sets]
    places = [np.argsort(members) for members in sets]
    return replace(
        columns,
        actions=actions,
        action=code[columns.action],
        sets=tuple([tuple(np.sort(members).tolist()) for members in sets]),
        pmf=None if columns.pmf is None else columns.pmf[_permutation(columns, places)],
        baseline=None if columns.baseline is None else int(code[columns.baseline]),
        holdout=None,
        left_out_rows=None,
    )


def _permutation(columns: Columns, places: Sequence[Longs]) -> Longs:
    """Of all pmfs at once. places: of each set, the old place of every new one."""
    sizes = np.diff(columns.starts)
    flat = np.concatenate(places)
    first = np.concatenate([[0], np.cumsum([len(one) for one in places])])[columns.eligible]
    start = np.repeat(columns.starts[:-1], sizes)
    within = np.arange(int(sizes.sum())) - start
    found: Longs = start + flat[np.repeat(first, sizes) + within]
    return found


# Rewards.


def _check_rewards(columns: Columns, experiment: Experiment, file: str) -> None:
    low, high = experiment.reward.minimum, experiment.reward.maximum
    outside = columns.reward[(columns.reward < low) | (columns.reward > high)]
    if len(outside):
        raise BadLog(
            f"{file}: reward.range is [{figure(low)}, {figure(high)}], and {len(outside):,} rewards of {columns.name} "
            f"are outside, from {figure(float(outside.min()))} to {figure(float(outside.max()))}; declare a range that "
            "holds them"
        )


def _delays_lost(columns: Columns, experiment: Experiment, file: str) -> list[str]:
    window = experiment.reward.window / 1e6
    late = 0 if columns.delay is None else int(np.count_nonzero(columns.delay >= window))
    if not late:
        return []
    return [f"delays of {late:,} rewards, longer than the window of {file} ({figure(window)} s): they count as in time"]


def _notes(columns: Columns, experiment: Experiment, file: str, ids: Sequence[str]) -> list[str]:
    notes = []
    if experiment.holdout:
        notes.append(
            f"{file} has holdout = {figure(experiment.holdout)}, and nobody of the log was drawn into it: the imported "
            "version has none, the server applies the file as version 2"
        )
    kinds = columns.traits.get("kind")
    of_file = {action.id: action.kind for action in experiment.actions}
    other = [id_ for id_, kind in zip(ids, kinds or (), strict=False) if kind and kind != of_file[id_]]  # type: ignore[index]
    if other:
        notes.append(f"kinds are those of {file}; the log has others for {_list(other)}")
    return notes
