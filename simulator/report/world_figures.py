"""What can be earned in a world, and which field of the context matters most. Computed, not told.

Called by `simulator worlds`; shown in the terminal by `report/worlds.py` and on its page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from decider.text import figure, percent
from decider.types import CONTEXT_FIELDS, Context, FeatureValue
from simulator.run.play import play_reference
from simulator.run.task import share_of_lift
from simulator.worlds.world import Floats, Indexes, Visits, World

SEED, ROUNDS = 1, 12_000
MOST_GROUPS = 6
MOST_ROWS = 20
"""Actions that a picture has room for."""
UNKNOWN, OTHERS, TIME = "not known", "others", "visit"
"""`TIME`: the number of the visit, so that a world that turns with time shows it."""

Known = FeatureValue | None
"""A value of a field; None where it is not given."""


@dataclass(frozen=True, slots=True)
class Field:
    """Something that may be known of a visit. groups: its values, or ranges of them. of: (visits,) each one's group."""

    name: str
    groups: tuple[str, ...]
    of: Indexes


@dataclass(frozen=True, slots=True)
class Picture:
    """Mean rewards by the field that matters most.

    shares: (groups,), of the visits. means: (actions, groups); nan where an action is never eligible. best: of each
    group, the action that earns most. lift: the part of the attainable lift over the best single action that knowing
    this field alone brings; nan where there is none.
    """

    field: str
    groups: tuple[str, ...]
    shares: Floats
    means: Floats
    best: tuple[str, ...]
    lift: float


@dataclass(frozen=True, slots=True)
class Portrait:
    """A world with what was computed from some visits. fields: of the context, and their values in words.

    uniform, single, best: what a uniform choice, the best single action and the best of every visit earn per visit.
    late: part of the rewards that come after the window. delay: mean seconds.
    """

    world: World
    picture: Picture
    fields: dict[str, str]
    uniform: float
    single: float
    single_action: str
    best: float
    late: float
    delay: float

    @property
    def beyond_single(self) -> float:
        """The part of the lift from a uniform choice to the best that only personalising brings; 0 without a lift."""
        lift = self.best - self.uniform
        return (self.best - self.single) / lift if lift > 0 else 0.0

    @property
    def rows(self) -> list[int]:
        """Of which actions a picture shows the means, by their places: all, or where there are many the best of each
        group and those that earn most on average."""
        picture = self.picture
        average = np.nan_to_num(picture.means, nan=-np.inf) @ picture.shares
        order = np.argsort(-average, kind="stable").tolist()
        named = [self.world.actions.index(action) for action in picture.best]
        return sorted(list(dict.fromkeys([*named, *order]))[:MOST_ROWS])

    @property
    def left_out(self) -> str:
        """How many actions a picture does not show, in words; empty where it shows all."""
        more = len(self.world.actions) - len(self.rows)
        return f"{more} more that earn less" if more else ""


def portrait(world: World, *, seed: int = SEED, rounds: int = ROUNDS) -> Portrait:
    """The same for the same arguments.

    >>> from simulator.worlds.registry import find
    >>> seen = portrait(find("product-cta"), rounds=500)
    >>> seen.picture.field, seen.picture.groups
    ('intent_stage', ('bought', 'browse', 'cart', 'compare'))
    """
    visits = world.draw(seed, rounds)
    singles = [_earned(visits, visits.always(action)) for action in range(len(world.actions))]
    cases, number = _cases(visits)
    return Portrait(
        world=world,
        picture=_picture(world, visits, cases, number),
        fields=_described(visits, cases),
        uniform=_earned(visits, visits.uniform),
        single=max(singles),
        single_action=world.actions[int(np.argmax(singles))],
        best=_earned(visits, visits.best),
        late=float((visits.delays > world.experiment.reward.window / 1e6).mean()),
        delay=float(visits.delays.mean()),
    )


def _earned(visits: Visits, pmfs: Floats) -> float:
    return float(play_reference(visits, pmfs, random=Random(SEED)).mean())


def _cases(visits: Visits) -> tuple[Indexes, Indexes]:
    """The case and the number of every visit; where people can be asked, before an answer and after it."""
    number = np.arange(len(visits))
    if visits.answers is None:
        return visits.seen, number
    return np.concatenate([visits.seen, visits.answers.seen]), np.concatenate([number, number])


def _picture(world: World, visits: Visits, cases: Indexes, number: Indexes) -> Picture:
    worth = np.stack([(visits.always(a) * visits.means).sum(axis=1) for a in range(len(world.actions))], axis=1)
    single = float(worth[cases].mean(axis=0).max())
    most = float((visits.best * visits.means).sum(axis=1)[cases].mean())
    found = list(_fields(visits, cases, number))
    gains = [_by_group(field, worth[cases]).max(axis=0) @ _shares(field) - single for field in found]
    place = int(np.argmax(gains))
    field = found[place]
    means = _by_group(field, np.where(visits.eligible, visits.means, np.nan)[cases])
    best = [world.actions[index] for index in np.argmax(np.nan_to_num(means, nan=-np.inf), axis=0)]
    lift = share_of_lift(np.array(single + gains[place]), best=np.array(most), uniform=np.array(single))
    return Picture(field.name, field.groups, _shares(field), means, tuple(best), float(lift))


def _shares(field: Field) -> Floats:
    return np.bincount(field.of, minlength=len(field.groups)) / len(field.of)


def _by_group(field: Field, worth: Floats) -> Floats:
    """(actions, groups): means of a (visits, actions) table, over what is not nan."""
    there = ~np.isnan(worth)
    sums = [
        [np.bincount(field.of, column, len(field.groups)) for column in table.T]
        for table in (np.where(there, worth, 0.0), there.astype(np.float64))
    ]
    total, count = np.array(sums)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _fields(visits: Visits, cases: Indexes, number: Indexes) -> Iterator[Field]:
    """All fields of the context, and the time."""
    for name in _names(visits):
        groups, of_case = _grouped([_value(context, name) for context in visits.contexts], cases)
        yield _used(Field(name, groups, of_case[cases]))
    size = -(-len(visits) // MOST_GROUPS)
    starts = range(0, len(visits), size)
    ranges = [f"to {min(start + size, len(visits)):,}" for start in starts]
    yield Field(TIME, tuple(ranges), number // size)


def _used(field: Field) -> Field:
    """Without groups that nobody is in."""
    used, of = np.unique(field.of, return_inverse=True)
    return Field(field.name, tuple([field.groups[one] for one in used]), of.reshape(-1))


def _names(visits: Visits) -> list[str]:
    features = {name for context in visits.contexts for name in context.features}
    return [*CONTEXT_FIELDS, *sorted(features)]


def _value(context: Context, name: str) -> Known:
    if name in CONTEXT_FIELDS:
        value: str = getattr(context, name)
        return value or None
    return context.features.get(name)


def _grouped(values: Sequence[Known], cases: Indexes) -> tuple[tuple[str, ...], Indexes]:
    """The groups, and the group of each case."""
    given = {value for value in values if value is not None}
    if given and all(_is_number(value) for value in given) and len(given) > MOST_GROUPS - 1:
        return _ranges(values, cases)
    counts = Counter[Known]()
    for case, visits in zip(*np.unique(cases, return_counts=True), strict=True):
        counts[values[case]] += int(visits)
    often = [value for value, _ in counts.most_common() if value is not None]
    kept = often if len(often) < MOST_GROUPS else often[: MOST_GROUPS - 2]
    order = sorted(kept, key=lambda value: (isinstance(value, str), value))
    groups = (*map(_caption, order), UNKNOWN, OTHERS)
    places: dict[Known, int] = {None: len(order), **{value: place for place, value in enumerate(order)}}
    return groups, np.array([places.get(value, len(order) + 1) for value in values])


def _ranges(values: Sequence[Known], cases: Indexes) -> tuple[tuple[str, ...], Indexes]:
    """Numbers in groups of about as many visits."""
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    seen = numbers[cases]
    seen = seen[~np.isnan(seen)]
    cuts = np.quantile(seen, np.linspace(0, 1, MOST_GROUPS)[1:-1], method="closest_observation")
    edges = np.unique(cuts[cuts < seen.max()])
    groups = [f"up to {_caption(float(edge))}" for edge in edges]
    place = np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers))
    last = f"over {_caption(float(edges[-1]))}" if len(edges) else "all"
    return (*groups, last, UNKNOWN), place


def _is_number(value: Known) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _caption(value: FeatureValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else figure(value)


def _described(visits: Visits, cases: Indexes) -> dict[str, str]:
    """Of each field that somebody has, its values in words."""
    counts = np.bincount(cases, minlength=len(visits.contexts))
    came = np.flatnonzero(counts).tolist()
    found = {name: [_value(visits.contexts[case], name) for case in came] for name in _names(visits)}
    return {
        name: _in_words(values, counts[came])
        for name, values in found.items()
        if any(value is not None for value in values)
    }


def _in_words(values: Sequence[Known], counts: Indexes) -> str:
    given = sorted([v for v in dict.fromkeys(values) if v is not None], key=str)
    missing = sum(int(n) for v, n in zip(values, counts, strict=True) if v is None) / max(1, int(counts.sum()))
    if all(map(_is_number, given)):
        numbers = [float(value) for value in given]
        said = f"a number from {_caption(min(numbers))} to {_caption(max(numbers))}"
    else:
        said = ", ".join(map(_caption, given[:12])) + (f" and {len(given) - 12} more" if len(given) > 12 else "")
    return said + (f"; not known of {percent(missing)}" if missing else "")


def plain(one: Portrait) -> dict[str, Any]:
    """As JSON can hold it; null for what is not a number.

    >>> from simulator.worlds.registry import find
    >>> plain(portrait(find("push"), rounds=500))["rewards"]["weights"]
    {'click': 1.0, 'unsubscribe': -4.0}
    """
    world, reward, picture = one.world, one.world.experiment.reward, one.picture
    return {
        "name": world.name,
        "line": world.line,
        "fitted": world.fitted or None,
        "actions": [{"id": a.id, "kind": a.kind, "features": dict(a.features)} for a in world.experiment.actions],
        "context": one.fields,
        "rewards": {
            "weights": dict(reward.weights),
            "range": [reward.minimum, reward.maximum],
            "window_seconds": reward.window / 1e6,
            "mean_delay_seconds": one.delay,
            "late": one.late,
        },
        "visits_a_second": world.traffic,
        "batch": world.batch,
        "earned": {
            "uniform": one.uniform,
            "best_single": one.single,
            "best_single_action": one.single_action,
            "best": one.best,
        },
        "picture": {
            "field": picture.field,
            "groups": list(picture.groups),
            "shares": picture.shares.tolist(),
            "best": list(picture.best),
            "lift": _finite(picture.lift),
            "means": {
                action: [_finite(mean) for mean in row]
                for action, row in zip(world.actions, picture.means.tolist(), strict=True)
            },
        },
        "seed": SEED,
    }


def _finite(x: float) -> float | None:
    return x if np.isfinite(x) else None
