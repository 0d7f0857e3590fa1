"""The experiment that an imported log gets: the foreign actions, with ids that we allow. Called by `import_log.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from decider.experiment.definition import Action, Experiment, RewardDefinition
from decider.experiment.features import MAX_CATEGORY, MAX_FEATURES, MAX_NAME
from decider.policy.spec import PolicySpec
from decider.types import ActionId, ExperimentId
from simulator.logs.columns import KIND, Columns, Longs
from simulator.logs.errors import BadLog
from simulator.logs.files import suffix

SHORTEST_WINDOW, LONGEST_WINDOW = 1_000, 90 * 86_400 * 1_000_000

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")


def reward_delays(columns: Columns, window: int) -> Longs:
    """(n,) microseconds from the decision to its reward, less than the window; 0 where the log does not say."""
    if columns.delay is None:
        return np.zeros(len(columns), np.int64)
    delays = np.round(np.nan_to_num(columns.delay) * 1e6).astype(np.int64)
    return np.clip(delays, 0, window - 1)


def experiment_of(
    columns: Columns,
    id_: str,
    *,
    kinds: Mapping[str, str] | None = None,
    known: Mapping[str, Action] | None = None,
) -> Experiment:
    """The experiment that an imported log has. kinds: of actions by their ids in the log, as the user says. known:
    actions as the log itself defines them. Raises BadLog where `kinds` names another action.

    >>> from simulator.logs.example import example
    >>> made = experiment_of(example(), "shop")
    >>> made.id, made.paused, made.policy.algorithm, [action.id for action in made.actions]
    ('shop', True, 'uniform', ['a', 'b'])
    """
    ids = action_ids(columns.actions)
    _check_kinds(kinds or {}, columns)
    delays = reward_delays(columns, LONGEST_WINDOW)
    low, high = columns.reward_range
    return Experiment(
        id=ExperimentId(id_),
        description=f"imported from {columns.name}: drawn by another system, so simulator verify cannot hold",
        paused=True,
        actions=tuple([_action(columns, index, id_, kinds or {}, known or {}) for index, id_ in enumerate(ids)]),
        baseline=None if columns.baseline is None else ids[columns.baseline],
        policy=PolicySpec("uniform", {}),
        reward=RewardDefinition(
            window=int(np.clip(delays.max(initial=0) + SHORTEST_WINDOW, SHORTEST_WINDOW, LONGEST_WINDOW)),
            default=_default(columns),
            minimum=low,
            maximum=high if high > low else low + 1,
        ),
    )


def _default(columns: Columns) -> float:
    """What most decisions without a reward got; 0, or what is next to it in the range, where no log says."""
    low, high = columns.reward_range
    if columns.default is None or not columns.default.any():
        return min(max(0.0, low), high)
    values, counts = np.unique(columns.reward[columns.default], return_counts=True)
    return float(values[counts.argmax()])


def _check_kinds(kinds: Mapping[str, str], columns: Columns) -> None:
    for action, kind in kinds.items():
        if action not in columns.actions:
            has = ", ".join(columns.actions[:10])
            raise BadLog(f"--kind {action}={kind}: {columns.name} has no action {action!r}; it has {has}")
        if not kind or kind != plain_id(kind):
            raise BadLog(f"--kind {action}={kind}: a kind has 1 to 64 letters, digits, '-', '_' or '.'")


def _action(
    columns: Columns, index: int, id_: ActionId, kinds: Mapping[str, str], known: Mapping[str, Action]
) -> Action:
    original = columns.actions[index]
    action = known.get(original) or _action_of_traits(columns, index, id_)
    return replace(action, kind=kinds.get(original, action.kind))


def _action_of_traits(columns: Columns, index: int, id_: ActionId) -> Action:
    features = {name: texts[index] for name, texts in columns.traits.items() if texts[index]}
    kind = features.pop("kind", KIND)
    usable = {
        name: value
        for name, value in features.items()
        if name != "id" and 0 < len(name) <= MAX_NAME and len(value) <= MAX_CATEGORY
    }
    original = columns.actions[index]
    return Action(
        id=id_,
        kind=kind if kind == plain_id(kind) else KIND,
        features=dict(list(usable.items())[:MAX_FEATURES]),
        payload={} if original == id_ else {"imported_id": original},
    )


def action_ids(actions: Sequence[str]) -> tuple[ActionId, ...]:
    """Ids that an experiment may have: as they are where they can be, otherwise cleaned and told apart by a hash.

    >>> action_ids(["sale", "free shipping!"])
    ('sale', 'free-shipping--ddb6ebb9')
    """
    return tuple([ActionId(plain_id(action)) for action in actions])


def experiment_id(columns: Columns) -> str:
    """A sensible id for the experiment of a log: its own, or the name of the file without its ending.

    >>> from dataclasses import replace
    >>> from simulator.logs.example import example
    >>> [experiment_id(replace(example(), name=name)) for name in ("a/cart.csv", "My Shop.dsjson.gz", "logs/", "?.csv")]
    ['cart', 'My-Shop', 'logs', 'imported']
    """
    path = Path(columns.experiment or columns.name)
    stem = path.name if columns.experiment else path.name.removesuffix(".gz").removesuffix(suffix(path))
    return legal(stem).strip("-.")[:64] or "imported"


def legal(text: str) -> str:
    """With a hyphen for each character that no id has.

    >>> legal("Cold brew")
    'Cold-brew'
    """
    return _NOT_PLAIN.sub("-", text)


def plain_id(text: str) -> str:
    """1 to 64 letters, digits, `-`, `_` and `.`; different for different texts.

    >>> plain_id("sale"), plain_id("")
    ('sale', '1271cf25')
    """
    clean = legal(text)
    if clean == text and 0 < len(text) <= 64:
        return text
    return f"{clean[:55]}-{blake2b(text.encode(), digest_size=4).hexdigest()}".lstrip("-")
