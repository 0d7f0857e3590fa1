"""Features of a foreign log as `Decide` takes them: a model that begins with the log knows those, and no others. Called
by `import_fit.py` and `import_log.py`.

What `Decide` would refuse is left out, and said. `sent_features` says what has to be sent from now on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.experiment.definition import Action, Experiment
from decider.experiment.features import MAX_CATEGORY, MAX_FEATURES, MAX_NAME, MAX_NUMBER
from decider.experiment.unit_history import PREFIX
from decider.policy.features import vector_of
from decider.types import CONTEXT_FIELDS, Features, FeatureValue
from simulator.logs.columns import Category, Codes, Columns, Field, Number
from simulator.logs.errors import BadLog

LONGEST_FIELD = 256
"""Characters of a context's own field, at most."""

RESERVED = ("id", "kind")
"""Names that no feature of an action may have."""

FLAGS = {"true", "false"}
"""Texts that a model takes for the flags True and False."""


# Of contexts.


def usable_context(columns: Columns) -> tuple[dict[str, Field], list[str]]:
    """The fields as `Decide` takes them, and what it does not take, in words for people. Raises BadLog where a decision
    has more features than it takes.

    >>> from simulator.logs.example import example
    >>> fields, lost = usable_context(example())
    >>> list(fields), lost
    (['segment', 'device', 'age'], [])
    """
    lost: list[str] = []
    fields = {name: _usable_field(name, field, lost) for name, field in columns.fields.items()}
    usable = {name: field for name, field in fields.items() if field is not None}
    free = [_given(field) for name, field in usable.items() if name not in CONTEXT_FIELDS]
    most = int(np.sum(free, axis=0, dtype=np.int64).max(initial=0)) if len(free) > MAX_FEATURES else 0
    if most > MAX_FEATURES:
        raise BadLog(
            f"{columns.name}: a decision has {most} context features, Decide takes {MAX_FEATURES}; leave some out: "
            "--column ignore=NAME,NAME"
        )
    return usable, lost


def _given(field: Field) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = field.codes >= 0 if isinstance(field, Category) else ~np.isnan(field.values)
    return flags


def _usable_field(name: str, field: Field, lost: list[str]) -> Field | None:
    own = name in CONTEXT_FIELDS
    if not 0 < len(name) <= MAX_NAME:
        lost.append(f"context feature {name[:20]!r}, whose name has {len(name)} characters: Decide takes {MAX_NAME}")
        return None
    if isinstance(field, Category):
        return _short_texts(name, field, LONGEST_FIELD if own else MAX_CATEGORY, lost)
    return _texts_of(field) if own else _small_numbers(name, field, lost)


def _short_texts(name: str, field: Category, longest: int, lost: list[str]) -> Category:
    long = np.array([len(value) > longest for value in field.values] + [False])[field.codes]
    if not long.any():
        return field
    lost.append(f"{int(long.sum()):,} texts of {name} that are longer than {longest} characters: Decide refuses them")
    return Category(np.where(long, -1, field.codes).astype(np.int32), field.values)


def _small_numbers(name: str, field: Number, lost: list[str]) -> Number:
    large = np.abs(np.nan_to_num(field.values)) > MAX_NUMBER
    if not large.any():
        return field
    lost.append(f"{int(large.sum()):,} numbers of {name} beyond {MAX_NUMBER:g}: Decide refuses them")
    return Number(np.where(large, np.nan, field.values))


def _texts_of(field: Number) -> Category:
    """Numbers of a field that is a text: whole ones without a point.

    >>> _texts_of(Number(np.array([7.0, np.nan, 2.5])))
    Category(codes=array([ 1, -1,  0], dtype=int32), values=('2.5', '7'))
    """
    given = ~np.isnan(field.values)
    values, inverse = np.unique(field.values[given], return_inverse=True)
    codes: Codes = np.full(len(given), -1, np.int32)
    codes[given] = inverse
    return Category(codes, tuple([str(int(one)) if one.is_integer() else str(one) for one in values.tolist()]))


# Of actions.


def call_features(columns: Columns, experiment: Experiment, ids: Sequence[str]) -> tuple[Category | None, list[str]]:
    """What came with each call and the experiment does not say of its actions, as JSON by action; and what `Decide`
    does not take, in words for people. ids: the experiment's id of every action of the log."""
    given = columns.action_features or Category(np.full(len(columns), -1, np.int32), ())
    if not given.values and not columns.traits:
        return None, []
    pairs, inverse = np.unique(given.codes.astype(np.int64) * len(columns.sets) + columns.eligible, return_inverse=True)
    refused: Counter[str] = Counter()
    actions = {action.id: action for action in experiment.actions}
    of_action = [actions[id_] for id_ in ids]  # type: ignore[index]
    parsed = [*[json.loads(text) for text in given.values], {}]
    texts = []
    for pair in pairs.tolist():
        code, members = divmod(pair, len(columns.sets))
        texts.append(_text(dict.fromkeys(columns.sets[members], parsed[code]), columns, of_action, refused))
    return _category(texts, inverse), [f"{what}: Decide refuses it" for what in sorted(refused)]


def _text(
    given: Mapping[int, Mapping[str, Features]], columns: Columns, of_action: Sequence[Action], refused: Counter[str]
) -> str:
    """The JSON of one set of actions. given: features that came with the call, for each of its members."""
    found = {}
    for member, features in given.items():
        all_ = {**_traits_of(columns, member), **features.get(columns.actions[member], {})}
        left = _without_known(_usable(all_, columns.actions[member], refused), of_action[member])
        if left:
            found[of_action[member].id] = left
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if found else ""


def _category(texts: Sequence[str], codes: NDArray[Any]) -> Category | None:
    if not any(texts):
        return None
    category = Category.of([*texts, ""])
    return Category(category.codes[codes].astype(np.int32), category.values)


def _traits_of(columns: Columns, action: int) -> dict[str, FeatureValue]:
    return {name: texts[action] for name, texts in columns.traits.items() if texts[action]}


def _usable(features: Mapping[str, FeatureValue], id_: str, refused: Counter[str]) -> dict[str, FeatureValue]:
    """Without what `Decide` refuses, which is counted. The kind is the experiment's, and the id is no feature."""
    own = {"kind", *(["id"] if features.get("id") == id_ else [])}
    problems = {name: _problem(name, value) for name, value in features.items() if name not in own}
    refused.update(filter(None, problems.values()))
    return {name: features[name] for name, problem in problems.items() if not problem}


def _problem(name: str, value: FeatureValue) -> str:
    """Why `Decide` would refuse a feature of an action; empty if it would not.

    >>> _problem("price", 2.5), _problem("price", 1e30)
    ('', "action feature 'price' beyond 1e+12")
    """
    if name in RESERVED:
        return f"action feature {name!r}, a name that every action has"
    if not 0 < len(name) <= MAX_NAME:
        return f"action feature {name[:20]!r}, whose name has {len(name)} characters"
    if isinstance(value, str):
        return f"action feature {name!r} with more than {MAX_CATEGORY} characters" if len(value) > MAX_CATEGORY else ""
    return f"action feature {name!r} beyond {MAX_NUMBER:g}" if abs(value) > MAX_NUMBER else ""


def _without_known(features: Mapping[str, FeatureValue], own: Action) -> Features:
    """Without those that the experiment says of the action: a model would see the same."""
    said = {name: vector_of({name: own.features[name]}) for name in features if name in own.features}
    return {
        name: value for name, value in features.items() if name not in said or said[name] != vector_of({name: value})
    }


# What has to be sent from now on.


def sent_features(columns: Columns, *, history: bool = False) -> dict[str, str]:
    """What the decisions had, as fields of a DecideRequest, each with its kind.

    history: the experiment declares one, so the server says what a unit did before; else such names are as any other.

    >>> from simulator.logs.example import example
    >>> sent_features(example())
    {'context.segment': 'text', 'context.device': 'text', 'context.features[age]': 'number'}
    """
    context = {
        f"context.{name}" if name in CONTEXT_FIELDS else f"context.features[{name}]": _kind(field)
        for name, field in columns.fields.items()
        if _given(field).any() and not (history and name.startswith(PREFIX))
    }
    kinds: dict[str, str] = {}
    for text in columns.action_features.values if columns.action_features else ():
        for id_, features in json.loads(text).items():
            kinds |= {f"action_features[{id_}][{name}]": _kind_of(value) for name, value in features.items()}
    return context | _shared(kinds, len(columns.actions))


def _shared(kinds: Mapping[str, str], actions: int) -> dict[str, str]:
    """One line for a name that several actions have."""
    by_name: dict[tuple[str, str], list[str]] = {}
    for path, kind in kinds.items():
        id_, _, name = path.removeprefix("action_features[").partition("][")
        by_name.setdefault((name, kind), []).append(id_)
    return {
        f"action_features[{ids[0] if len(ids) == 1 else f'{len(ids)} of {actions} actions'}][{name}": kind
        for (name, kind), ids in by_name.items()
    }


def _kind(field: Field) -> str:
    if isinstance(field, Number):
        return "number"
    return "flag" if {field.values[code] for code in np.unique(field.codes).tolist() if code >= 0} <= FLAGS else "text"


def _kind_of(value: FeatureValue) -> str:
    if isinstance(value, bool) or value in FLAGS:
        return "flag"
    return "text" if isinstance(value, str) else "number"
