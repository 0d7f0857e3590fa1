"""dsjson logs (Vowpal Wabbit's, rlclientlib's, Azure Personalizer's) as columns. Called by `open.py`.

What a line means is in `dsjson_event.py`, which action is which in `dsjson_actions.py`; here lines become columns.
Lines that are no decisions to evaluate are counted by kind. Lines that a sender dropped with probability `pdrop`:
where it is the same for all lines, those that are left are a fair sample and nothing is to be done; where it differs,
every line is kept with probability (smallest 1 - pdrop) / (its 1 - pdrop), drawn from its EventId, so that those that
are left are a fair sample again (see `fair_sample`). A second line with an EventId is a repeated delivery, not a
second decision; where it says something else, the id is none of a decision, and these lines are counted apart. A reward
is known when it came, or at once where the line does not tell.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simulator.logs.columns import Category, Columns, Flags, Floats, LeftOutRows, first_of_each
from simulator.logs.context_fields import with_context, without_ids
from simulator.logs.dsjson_actions import Actions, naming
from simulator.logs.dsjson_event import Event, LineParser, Multi, OtherLine, Unlabelled, flatten
from simulator.logs.errors import BadLog, BadRow, BadRows
from simulator.logs.field_builder import FieldBuilder
from simulator.logs.files import Files
from simulator.logs.mapping import GUESSES, PERSONS, pairs_of
from simulator.logs.names import plain
from simulator.logs.options import FINITE, ReadOptions, bad_reward, reward_range
from simulator.logs.repeats import other_decisions

SUFFIXES = (".dsjson", ".json", ".jsonl", ".ndjson", ".log")

FIRST_LINES = 1_000
"""Decisions that settle what tells actions apart."""

OTHER_DECISION = "repeated id of another decision"

NAN = float("nan")


class _Line(NamedTuple):
    path: Path
    number: int
    event: Event | Unlabelled

    def where(self) -> str:
        return f"{self.path}:{self.number}"


def load(paths: Sequence[Path], name: str, options: ReadOptions) -> Columns:
    """The decisions of the files, one after the other. Raises BadLog.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "log.dsjson")
    ...     _ = path.write_text('{"_label_cost": -1, "a": [2, 1], "p": [0.8, 0.2], "c": {"age": 31, "_multi": '
    ...                         '[{"_tag": "no"}, {"_tag": "yes"}]}}')
    ...     columns = load([path], "log", ReadOptions())
    >>> columns.actions[columns.action[0]], columns.reward.tolist(), columns.propensity.tolist(), columns.pmf
    ('yes', [1.0], [0.8], array([0.2, 0.8], dtype=float32))
    """
    lines = _Lines(paths, options)
    first = list(islice(lines, FIRST_LINES))
    wanted = pairs_of(options, allowed=("action", "context", "ignore")).get("action")
    chosen = naming(wanted, [line.event.actions.actions for line in first])
    if first:
        options.on_note(f"{name}: {chosen.words}")
    events = [line.event for line in first if isinstance(line.event, Event)]
    unit = _unit_name(events)
    _note_ids(name, events, unit, options)
    builder = _Builder(Actions(chosen), unit)
    for line in chain(first, lines):
        if isinstance(line.event, Unlabelled):
            builder.lose(line.event.actions, line.event.drawn, reward=NAN, time=line.event.time)
        else:
            _add(builder, line, line.event, options, lines.bad)
    lines.check_any(name, builder)
    columns = without_ids(with_context(builder.finish(name, options, lines), options), options.on_note)
    if not unit and len(columns.units.size) == len(columns):
        options.on_note(f"{name}: no unit id: every decision is of another unit")
    return columns


def _add(builder: _Builder, line: _Line, event: Event, options: ReadOptions, bad: BadRows) -> None:
    try:
        builder.add(event, options)
    except BadRow as row:
        bad.add(row, where=line.where)
        builder.lose(event.actions, event.drawn, reward=event.reward, time=event.time)


def _unit_name(first: Sequence[Event]) -> str:
    """What names the unit beside the context: of usual names the first; empty if there is none."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    for event in first:
        for name, id_ in event.units.items():
            values[name].add(id_)
    names = [name for name, ids in values.items() if not _is_kind(name, len(ids), len(first))]
    return min(names, key=lambda name: _UNIT_ORDER.index(plain(name)), default="")


_UNIT_ORDER = [plain(name) for name in GUESSES["unit_id"]]


def _is_kind(name: str, values: int, lines: int) -> bool:
    """`customer` with few values in many lines is a kind of customer ("new", "returning")."""
    return plain(name) in PERSONS and lines >= 100 and values < 10


def _note_ids(name: str, first: Sequence[Event], unit: str, options: ReadOptions) -> None:
    decisions = any(event.id for event in first)
    options.on_note(f"{name}: " + ("decision id = EventId" if decisions else "no EventId: each line is one decision"))
    if unit:
        options.on_note(f"{name}: unit id = {unit}")


class _Lines:
    """The decisions of all files; counts everything else."""

    def __init__(self, paths: Sequence[Path], options: ReadOptions) -> None:
        self.bad = BadRows(skip=options.skip_bad)
        self.left_out: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self._files = Files(paths, options.on_progress)
        self._events = self._all(paths)

    def __iter__(self) -> Iterator[_Line]:
        return self._events

    def _all(self, paths: Sequence[Path]) -> Iterator[_Line]:
        for path in paths:
            yield from self._of(path)
        self._files.close()

    def _of(self, path: Path) -> Iterator[_Line]:
        parse = LineParser()
        for number, line in self._files.lines(path):
            event = self._event(parse, line, f"{path}:{number}")
            if event is not None:
                yield _Line(path, number, event)

    def _event(self, parse: LineParser, line: bytes, where: str) -> Event | Unlabelled | None:
        """The decision of a line; None of one that is counted instead."""
        if line.isspace():
            return None
        try:
            found = parse(_text(line))
        except BadRow as row:
            self.bad.add(row, where=lambda: where)
            return None
        except BadLog as error:
            raise BadLog(f"{where}: {error}") from error
        if isinstance(found, OtherLine):
            self.left_out[found.kind] += 1
            return None
        if isinstance(found, Unlabelled):
            self.left_out["without a label"] += 1
        elif found.notes:
            self.notes.update(found.notes)
        return found

    def check_any(self, name: str, builder: _Builder) -> None:
        """Raises BadLog where there is nothing to evaluate."""
        if len(builder):
            return
        found = ", ".join(f"{count} {kind}" for kind, count in (self.left_out + Counter(self.bad.counts)).items())
        raise BadLog(
            f"{name}: has no decision for one slot with a label (it has: {found or 'nothing'}); "
            "join rewards to decisions first, or name another file"
        )


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadRow("line", f"is no UTF-8 text ({error.reason})") from error


class _Builder:
    """The columns so far."""

    def __init__(self, actions: Actions, unit: str) -> None:
        self._actions = actions
        self._unit_name = unit or "UnitId"  # later lines may have it
        self._fields: defaultdict[str, FieldBuilder] = defaultdict(FieldBuilder)
        self._sets: dict[tuple[int, ...], int] = {}
        self._models: dict[str, int] = {}
        self._action, self._eligible, self._features = array("i"), array("i"), array("i")
        self._propensity, self._reward, self._delay, self._keep = array("d"), array("d"), array("d"), array("d")
        self._time, self._model = array("q"), array("q")
        self._id, self._unit = array("Q"), array("Q")
        self._rewarded = array("b")
        self._pmf: array[float] | None = array("f")
        self._without_time = self._repeated_names = 0
        self._lost = _Lost(actions)

    def __len__(self) -> int:
        return len(self._action)

    def add(self, event: Event, options: ReadOptions) -> None:
        """One more decision. Raises BadRow, and then nothing of it is kept."""
        low, high = options.reward_range or FINITE
        if not low <= event.reward <= high:
            raise bad_reward(event.reward, options.reward_range)
        variant = self._actions.variant(event.actions)
        if max(event.order) > len(variant.codes):
            raise BadRow("a", f"a {list(event.order)!r} names more actions than the {len(variant.codes)} in _multi")
        context = flatten(event.context)  # raises where a feature is bad: before anything of the line is kept
        self._repeated_names += len({name for name, _ in context}) < len(context)
        for name, value in context:
            self._fields[name].put(len(self), value)
        self._add_pmf(event, variant.codes)
        self._add_numbers(event)
        self._features.append(variant.features)
        self._action.append(variant.codes[event.drawn])

    def _add_pmf(self, event: Event, codes: tuple[int, ...]) -> None:
        if event.pmf is None:
            self._pmf = None
            given = [codes[number - 1] for number in event.order]
            members = tuple(sorted(codes if len(given) == 1 else given))
        else:
            pairs = sorted(zip([codes[number - 1] for number in event.order], event.pmf, strict=True))
            members = tuple([code for code, _ in pairs])
            if self._pmf is not None:
                self._pmf.extend([p for _, p in pairs])
        self._eligible.append(self._sets.setdefault(members, len(self._sets)))

    def _add_numbers(self, event: Event) -> None:
        if event.time is None:
            self._without_time += 1
        before = self._time[-1] if self._time else 0
        self._time.append(before if event.time is None else event.time)
        self._propensity.append(event.propensity)
        self._reward.append(event.reward)
        self._keep.append(event.keep)
        self._delay.append(NAN if event.delay is None else event.delay)
        self._rewarded.append(-1 if event.rewarded is None else event.rewarded)
        self._model.append(self._models.setdefault(event.model, len(self._models)))
        self._id.append(_key(event.id or f"\x00{len(self)}"))
        unit = event.units.get(self._unit_name)
        self._unit.append(_key(unit) if unit else len(self))

    def lose(self, actions: Multi, drawn: int | None, *, reward: float, time: int | None) -> None:
        """One decision that is left out, as far as it is known."""
        self._lost.add(actions, drawn, reward=reward, time=time)

    def finish(self, name: str, options: ReadOptions, lines: _Lines) -> Columns:
        """Everything that was added, but for repeated lines and those that a fair sample does not have."""
        columns = self._columns(name)
        keys = np.frombuffer(self._id, np.uint64)
        once, other = first_of_each(keys), other_decisions(columns, keys, timed=not self._without_time)
        fair = fair_sample(np.frombuffer(self._keep), np.frombuffer(self._id, np.uint64))
        counts = {
            **lines.notes,
            "without a time": self._without_time,
            "with one feature twice (the last value counts)": self._repeated_names,
            **{
                f"with a number in {name}, which has texts, too (taken for a text)": field.mixed
                for name, field in self._fields.items()
            },
        }
        left_out = {
            **lines.left_out,
            **lines.bad.counts,
            "repeated": int((~once & ~other).sum()),
            OTHER_DECISION: int(other.sum()),
            "left out so that pdrop is the same": int((once & ~fair).sum()),
        }
        rows = columns.take(once & fair)
        return replace(
            rows,
            reward_range=reward_range(rows.reward, options.reward_range),
            left_out_rows=self._lost.rows(columns, other),
            range_declared=options.reward_range is not None,
            left_out={kind: count for kind, count in left_out.items() if count},
            counts={kind: count for kind, count in counts.items() if count},
        )

    def _columns(self, name: str) -> Columns:
        time, delay = np.frombuffer(self._time, np.int64), np.frombuffer(self._delay)
        answered = np.frombuffer(self._rewarded, np.int8)
        features = self._actions.call_features()
        return Columns(
            name=name,
            actions=self._actions.ids,
            action=np.frombuffer(self._action, np.int32),
            propensity=np.frombuffer(self._propensity),
            reward=np.frombuffer(self._reward),
            reward_range=(0.0, 1.0),
            time=time,
            known=time + np.nan_to_num(delay * 1e6).astype(np.int64),
            unit=np.frombuffer(self._unit, np.int64),
            fields={name: field.finish(len(self)) for name, field in self._fields.items()},
            sets=tuple(self._sets),
            eligible_logged=True,
            eligible=np.frombuffer(self._eligible, np.int32),
            pmf=None if self._pmf is None else np.frombuffer(self._pmf, np.float32),
            default=answered == 0 if bool((answered >= 0).all()) else None,
            delay=None if bool(np.isnan(delay).all()) else delay,
            model=np.frombuffer(self._model, np.int64) if len(self._models) > 1 else None,
            action_features=_category(np.frombuffer(self._features, np.int32), features) if any(features) else None,
            traits=self._actions.traits(),
        )


class _Lost:
    """Decisions that are left out, as far as they are known."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._ids: dict[str, int] = {}
        self._action, self._reward, self._time = array("i"), array("d"), array("q")

    def add(self, actions: Multi, drawn: int | None, *, reward: float, time: int | None) -> None:
        id_ = "" if drawn is None else self._actions.id_of(actions, drawn)
        self._action.append(self._ids.setdefault(id_, len(self._ids)))
        self._reward.append(reward)
        self._time.append(-1 if time is None else time)

    def rows(self, columns: Columns, other: Flags) -> LeftOutRows:
        """These, and the lines that an id of another decision removed."""
        codes = {id_: code for code, id_ in enumerate(columns.actions)}
        known = np.array([codes.get(id_, -1) for id_ in self._ids], np.int32)
        action = np.frombuffer(self._action, np.int32)
        return LeftOutRows(
            action=np.concatenate([known[action] if len(known) else action, columns.action[other]]),
            reward=np.concatenate([np.frombuffer(self._reward), columns.reward[other]]),
            time=np.concatenate([np.frombuffer(self._time, np.int64), columns.time[other]]),
        )


def _category(codes: Any, texts: Sequence[str]) -> Category:
    """A field whose values may be equal or empty."""
    category = Category.of([*texts, ""])
    return Category(category.codes[codes], category.values)


def _key(text: str) -> int:
    """63 pseudo-random bits that are equal where the text is."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1


def fair_sample(keep: Floats, keys: Any) -> Flags:
    """Which rows to use so that each was kept with the same probability in all: drawn by their hashed keys (63 bits).

    keep: the probability with which each row has survived so far. A row that survived where others could not stands for
    more than itself; an estimator without row weights is right on this sample.

    >>> fair_sample(np.array([0.5, 0.5]), np.array([0, 2**63 - 1])).tolist()
    [True, True]
    >>> fair_sample(np.array([1.0, 1.0, 0.5]), np.array([0, 2**63 - 1, 2**63 - 1])).tolist()
    [True, False, True]
    """
    ticket = keys.astype(np.float64) / 2.0**63
    # a row survived with probability keep; kept again with min(keep) / keep, all have min(keep) in the end
    flags: Flags = ticket * keep < keep.min(initial=1.0) * (1 + 1e-12)
    return flags
