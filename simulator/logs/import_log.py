"""Columns of any log -> a log of ours, so that `inspect`, `evaluate` and SQL work on it. Called by `simulator import`.

What an imported log is, and is not:

- One experiment with the foreign log's actions, paused (nothing shall be decided by it) and with the policy `uniform`:
  what drew the decisions is not known. A later version with a policy that learns is trained on them. Or the experiment
  that a serving file defines (`import_fit.py`), in the state that the file says: a server goes on with it, warm.
- `propensity` is the foreign one, to the last bit. The pmf beside it is in whole millionths that sum to one, as
  everywhere in our logs; where the foreign log has only the propensity, the other actions' millionths are 0 and the sum
  is less than a million: the rest is not known. An action that was drawn has one millionth at least.
- So the rule that the logged propensity is the sampler's holds for no imported decision, and `simulator verify`
  does not recompute them: their build says `imported_from`.
- Times are the foreign ones. Rewards come after their logged delay, or with the decision; the window is just long
  enough for them, and a tick at the end closes it for all. With a serving file the window is the file's; those that are
  not over yet are left to the server, so that the log's time does not run ahead of the clock.
- Decision and unit ids are made up: only which decisions have one unit is known. Action ids that we do not allow are
  changed, and the payload keeps the foreign one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from heapq import heappop, heappush
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from decider.experiment.checks import MAX_ACTIONS
from decider.experiment.definition import Action, Experiment
from decider.experiment.schema import from_message, to_message
from decider.experiment.unit_history import PREFIX
from decider.log.open import open_log
from decider.log.protocol import Entry, EventLog, NewActivation, NewReward, NewVersion, Tick
from decider.types import ActionId, Decision, DecisionId, Features, Position, Time, now
from simulator.logs.columns import Category, Columns
from simulator.logs.contexts import Contexts
from simulator.logs.errors import BadLog
from simulator.logs.import_experiment import experiment_id, experiment_of, reward_delays
from simulator.logs.import_features import sent_features
from simulator.logs.import_fit import Fit
from simulator.logs.import_slots import reasons_of, whole_slots

REWARD = "reward"
"""The name of the rewards, unless the experiment has only one name for them."""

BATCH_SIZE = 200
"""Entries of one transaction."""


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What was written. renamed: actions whose ids had to change. unknown_pmf: only the propensity was known.

    lost: what the source has and the log has not; notes: what else is worth knowing; both in words for people.
    sent: the features that the decisions had, as fields of a DecideRequest, each with its kind.
    """

    experiment: str
    decisions: int
    rewards: int
    actions: int
    renamed: int
    unknown_pmf: bool
    lost: tuple[str, ...]
    notes: tuple[str, ...]
    sent: Mapping[str, str]


def import_log(
    columns: Columns,
    path: Path,
    *,
    experiment: str | None = None,
    kinds: Mapping[str, str] | None = None,
    known: Mapping[str, Action] | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> ImportCounts:
    """Write a new log with these decisions. kinds, known: see `experiment_of`.

    Raises BadLog or InvalidExperiment where it cannot hold them, or LogError.

    >>> from tempfile import TemporaryDirectory
    >>> from simulator.logs.example import example
    >>> from simulator.logs.decider_log import load
    >>> with TemporaryDirectory() as folder:
    ...     _ = import_log(example(), Path(folder, "log.db"))
    ...     again = load(Path(folder, "log.db"), experiment="example")
    >>> again.propensity.tolist(), again.reward.tolist(), again.fields["segment"].values
    ([0.5, 0.75], [1.0, 0.0], ('vip',))
    """
    check_importable(columns)
    definition = experiment_of(columns, experiment or experiment_id(columns), kinds=kinds, known=known)
    definition = from_message(to_message(definition))
    rewards = _write_log(columns, definition, path, on_progress=on_progress)
    renamed = sum(action.id != id_ for action, id_ in zip(definition.actions, columns.actions, strict=True))
    changed = f"{renamed} action ids that an experiment cannot have: payload.imported_id of each is the one before"
    note = f"experiment {definition.id} is paused; to serve from what it teaches, name a file: --experiment FILE.toml"
    return _counts(columns, definition, rewards, renamed=renamed, lost=[changed] if renamed else [], notes=[note])


def import_fit(fit: Fit, path: Path, *, on_progress: Callable[[float], None] = lambda _: None) -> ImportCounts:
    """Write a new log with the decisions of a serving file's experiment. Raises BadLog or LogError."""
    columns, definition = fit.columns, fit.experiment
    rewards = _write_log(columns, definition, path, until=now(), on_progress=on_progress)
    lost = [*fit.lost, *_names_lost(definition)]
    return _counts(columns, definition, rewards, renamed=0, lost=lost, notes=fit.notes)


def _counts(
    columns: Columns,
    definition: Experiment,
    rewards: int,
    *,
    renamed: int,
    lost: Sequence[str],
    notes: Sequence[str],
) -> ImportCounts:
    return ImportCounts(
        experiment=definition.id,
        decisions=len(columns),
        rewards=rewards,
        actions=len(columns.actions),
        renamed=renamed,
        unknown_pmf=columns.pmf is None,
        lost=(*lost, *_lost(columns, history=definition.history is not None)),
        notes=tuple(notes),
        sent=sent_features(columns, history=definition.history is not None),
    )


def _lost(columns: Columns, *, history: bool) -> Iterator[str]:
    """What no imported log has, as far as this source has it. history: the experiment declares one."""
    yield "ids of decisions and units: new ones tell which decisions are of one unit"
    if columns.person is not None:
        yield "which units of a person are linked: a person is one unit"
    if history and any(name.startswith(PREFIX) for name in columns.fields):
        yield "what units did before: each begins a new history and new caps, though the model has learned from theirs"
    if not columns.time.any():
        yield "times: the source has none"
    if columns.delay is None:
        yield "delays of rewards: the source has none, so they come with their decisions"
    if columns.default is not None:
        yield "rewards one by one: each decision has its final reward"
    if columns.pmf is None:
        yield "probabilities of actions that were not drawn: not all decisions of the source have them"
    if columns.model is not None and len(np.unique(columns.model)) > 1:
        yield "which model decided"
    for name, reason in columns.set_aside.items():
        yield f"context field {name}: {reason}"


def _write_log(
    columns: Columns,
    definition: Experiment,
    path: Path,
    *,
    until: int | None = None,
    on_progress: Callable[[float], None],
) -> int:
    """How many rewards it has. until: the time beyond which no window is closed."""
    columns = columns.in_order_of_time()
    clock = _Clock(int(columns.time[0]))
    with closing(open_log(path, clock=clock)) as log:
        log.name_build({"imported_from": columns.name, "by": f"decider {version('decider')}"})
        writer = _Writer(log, clock)
        place = writer.put(clock.time, NewVersion(definition, number=1))
        writer.flush()
        rewards = _write(columns, definition, place, writer, on_progress)
        last, closed = int(columns.time[-1]), int(columns.time[-1]) + definition.reward.window
        writer.put(closed if until is None else max(last, min(closed, until)), Tick())
        writer.flush()
    return rewards


def check_importable(columns: Columns) -> None:
    """Raises BadLog where no log of ours can hold these decisions."""
    if not len(columns):
        raise BadLog(f"{columns.name}: has no decision to import")
    if not columns.has_propensities:
        raise BadLog(
            f"{columns.name}: has no propensities, and a log of ours requires them; "
            "name their column (--column propensity=NAME), or evaluate the table itself"
        )
    if int(columns.time.min()) < 0:
        raise BadLog(f"{columns.name}: has decisions before 1970, and time begins there; mend their times")
    if len(columns.actions) > MAX_ACTIONS:
        raise BadLog(
            f"{columns.name}: has {len(columns.actions)} actions, an experiment at most {MAX_ACTIONS}; "
            "evaluate the log itself"
        )


class _Clock:
    """The time that the log shall write."""

    def __init__(self, time: int) -> None:
        self.time = time

    def __call__(self) -> Time:
        return Time(self.time)


class _Writer:
    """Entries of one time are written together. Nobody else writes the log, so positions are known before."""

    def __init__(self, log: EventLog, clock: _Clock) -> None:
        self._log = log
        self._clock = clock
        self._entries: list[Entry] = []
        self._next = log.head().position + 1

    def put(self, time: int, entry: Entry) -> Position:
        """Its position."""
        if time != self._clock.time or len(self._entries) >= BATCH_SIZE:
            self.flush()
            self._clock.time = time
        self._entries.append(entry)
        self._next += 1
        return Position(self._next - 1)

    def flush(self) -> None:
        """Write what waits."""
        marks = self._log.append(self._entries)
        assert all(marks), "no id comes twice"
        self._entries = []

    def maintain(self) -> None:
        """Write the write-ahead log back, so that it does not hold everything once more."""
        self._log.maintain()


def _write(
    columns: Columns, definition: Experiment, place: Position, writer: _Writer, on_progress: Callable[[float], None]
) -> int:
    """Decisions and rewards in the order of their times; how many rewards."""
    name = _reward_name(definition)
    ids = tuple([action.id for action in definition.actions])
    after = reward_delays(columns, definition.reward.window)
    silent = _takes_default(columns, definition.reward.default)
    waiting: list[tuple[int, int, float]] = []
    rewards = 0
    for rows, block in columns.blocks():
        decisions = _decisions(block, rows.start, ids, place, columns.id_prefix)
        for row, decision in enumerate(decisions, start=rows.start):
            time = int(columns.time[row])
            while waiting and waiting[0][0] < time:
                _put_reward(writer, name, *heappop(waiting))
            position = writer.put(time, decision)
            if definition.needs_activation:  # the source's own rule has left out what was not shown
                writer.put(time, NewActivation(position))
            if not silent[row]:
                heappush(waiting, (time + int(after[row]), position, float(columns.reward[row])))
                rewards += 1
        writer.maintain()
        on_progress((rows.start + len(block)) / len(columns))
    while waiting:
        _put_reward(writer, name, *heappop(waiting))
    return rewards


def _reward_name(definition: Experiment) -> str:
    """The log knows final rewards only. Where the experiment has one name for rewards, and it weighs 1, they are that.

    >>> from dataclasses import replace
    >>> from simulator.logs.example import example
    >>> made = experiment_of(example(), "shop")
    >>> _reward_name(made), _reward_name(replace(made, reward=replace(made.reward, weights={"click": 1.0})))
    ('reward', 'click')
    """
    weights = definition.reward.weights
    return next(iter(weights)) if list(weights.values()) == [1.0] else REWARD


def _names_lost(definition: Experiment) -> list[str]:
    name, names = _reward_name(definition), definition.reward.weights
    return [f"which of {', '.join(names)} a reward was: all are named {name!r}"] if names and name not in names else []


def _put_reward(writer: _Writer, name: str, time: int, position: int, value: float) -> None:
    writer.put(time, NewReward(Position(position), name, value))


def _takes_default(columns: Columns, default: float) -> Any:
    """Decisions that need no reward: none came, and the default is what they got."""
    if columns.default is None:
        return np.zeros(len(columns), np.bool_)
    return columns.default & (columns.reward == default)


def _decisions(
    block: Columns, start: int, ids: tuple[ActionId, ...], place: Position, prefix: str
) -> Iterator[Decision]:
    contexts = Contexts().of(block)
    sets = [tuple([ids[index] for index in members]) for members in block.sets]
    extra = _ActionFeatures(block, ids)
    slots = whole_slots(block)
    reasons = reasons_of(block, slots)
    rows = zip(
        block.action.tolist(), block.propensity.tolist(), block.eligible.tolist(), block.cluster.tolist(), strict=True
    )
    for row, (action, propensity, eligible, unit) in enumerate(rows):
        yield Decision(
            decision_id=DecisionId(f"{prefix}-{start + row}"),
            version=place,
            unit_id=f"unit-{unit}",
            context=contexts[row],
            eligible=sets[eligible],
            action_features=extra.of(row),
            pmf=slots[row],
            action=ids[action],
            propensity=propensity,
            reason=reasons[row],
            model=Position(0),
        )


class _ActionFeatures:
    """Features that came with the call, by action; each text is parsed once."""

    def __init__(self, block: Columns, ids: tuple[ActionId, ...]) -> None:
        features = block.action_features or Category(np.full(len(block), -1, np.int32), ())
        self._renamed = dict(zip(block.actions, ids, strict=True))
        self._codes = features.codes.tolist()
        self._values = features.values
        self._parsed: dict[int, dict[ActionId, Features]] = {-1: {}}

    def of(self, row: int) -> dict[ActionId, Features]:
        """Of one decision."""
        code = self._codes[row]
        if code not in self._parsed:
            self._parsed[code] = {self._renamed[id_]: one for id_, one in json.loads(self._values[code]).items()}
        return self._parsed[code]
