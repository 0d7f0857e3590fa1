"""A world fitted to a log: its visitors come again, and a model of its rewards says what every action is worth to them.

Called by `registry.py`, for names like `fitted:shop.db` or `fitted:shop.db#home`. A figure from such a world says how
policies compare *if the model were true*. The model knows only main effects of what the log says of a visitor, and
what the logging policy seldom tried is close to the average there; so a fitted world is no evidence about real
visitors. That is what `simulator evaluate` is for.

- Visitors are decisions of the log, drawn again and again: context, eligible actions and unit together. They come at
  the log's average pace; what changed in the course of the log is mixed. Features of actions that came with a call, and
  decisions that the log's reader leaves out (open windows, holdout, overridden), are not here.
- Means are those of the reward model of the doubly robust estimates (`reward_model.py`), over the range of the logged
  rewards. Actions are those that are active in the newest version and that the log ever drew.
- Rewards are resampled from the action's logged ones so that they have exactly that mean (`resampled.py`). They are
  final: one per decision, under one name with weight 1, after the delay of a logged decision's first reward; at once
  where the log knows no delays. A reward that is the default is one that does not come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from decider.errors import DeciderError
from decider.experiment.definition import Experiment, Learning, RewardDefinition
from decider.experiment.schema import from_message, to_message
from decider.log.open import has_password, log_place
from decider.policy.spec import PolicySpec
from decider.types import ExperimentId
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.reward_model import RewardModel
from simulator.logs.columns import Columns, Flags, Floats, Number
from simulator.logs.contexts import Contexts
from simulator.logs.files import stamp
from simulator.logs.import_experiment import action_ids, experiment_of, plain_id
from simulator.logs.open import ReadOptions, definition_in, open_log
from simulator.worlds.resampled import LoggedRewards
from simulator.worlds.world import Indexes, Visits, World

PREFIX = "fitted:"
REWARD = "reward"
LEAST = 100
"""Decisions that a log must have."""

PREVIEW = 2_000
"""Visits that are looked at to say what there is to win."""

SHARED_REWARDS = 10.0
"""An action's rewards are resampled from its own and from so many of all actions: a rare one has too few of its own."""


class ThinLog(DeciderError):
    """A log that says too little to fit a world to it; the message says what is missing."""

    reason = "LOG_TOO_THIN"


def world(name: str) -> World:
    """The world of a name like `fitted:LOG` or `fitted:LOG#EXPERIMENT`. A log that grows makes another world.

    Raises ThinLog, and what reading the log may raise: BadLog, LogError, DatasetError, AmbiguousExperiment.

    >>> world("fitted:nowhere.db")
    Traceback (most recent call last):
    simulator.logs.errors.BadLog: nowhere.db: there is no such log; check the path
    """
    log, experiment = _parts(name.removeprefix(PREFIX))
    if not log:
        raise ThinLog(f"{name}: names no log; write {PREFIX}LOG, as {PREFIX}shop.db")
    if has_password(log):  # names of worlds stand in reports and in the names of kept results
        raise ThinLog(f"{log_place(log)}: leave the password out of the address; PGPASSFILE or PGPASSWORD has it")
    return _world(name, log, experiment, stamp(log))


def log_of(name: str) -> str:
    """The log of a world's name.

    >>> log_of("fitted:shop.db#home")
    'shop.db'
    """
    return _parts(name.removeprefix(PREFIX))[0]


def _parts(text: str) -> tuple[str, str | None]:
    """The log and the experiment; a `#` may also belong to the path."""
    log, mark, experiment = text.rpartition("#")
    return (log, experiment) if mark and not Path(text).exists() else (text, None)


@lru_cache(maxsize=2)
def _world(name: str, log: str, experiment: str | None, _stamp: tuple[tuple[str, int, int], ...]) -> World:
    options = ReadOptions(experiment=experiment)
    columns = set_leaks_aside(open_log(log, options))
    definition = definition_in(log, options) or _foreign(columns)
    kept = _known_actions(columns, definition)
    _check(columns, kept)
    draw = _Draw(columns, kept, definition.reward.default)
    won = _describe(draw(0, PREVIEW))
    return World(
        name=name,
        line=f"FITTED to {columns.name}, no real visitors: {len(columns)} decisions resampled; {won}.",
        experiment=_experiment(columns, definition, kept),
        draw=draw,
        reward_names=(REWARD,),
        traffic=_traffic(columns),
        fitted=columns.name,
    )


def _describe(visits: Visits) -> str:
    """What there is to win, in words. A thin log makes a world in which the model tells actions hardly apart."""
    best, even = ((pmf * visits.means).sum(axis=1)[visits.seen].mean() for pmf in (visits.best, visits.uniform))
    return f"by a model of their rewards the best actions earn {best:.4g}, a uniform choice {even:.4g}"


def _foreign(columns: Columns) -> Experiment:
    """What `simulator import` would make of it, with the policy that an experiment has by default."""
    return replace(experiment_of(columns, plain_id(Path(columns.name).name)), policy=PolicySpec())


def _known_actions(columns: Columns, definition: Experiment) -> Indexes:
    """The log's actions that are in the world, in the definition's order, as indexes into the log's."""
    index = {id_: number for number, id_ in enumerate(action_ids(columns.actions))}
    drawn = np.bincount(columns.action, minlength=len(columns.actions)) > 0
    known = [index[action.id] for action in definition.actions if not action.retired and action.id in index]
    return np.array([one for one in known if drawn[one]], np.int64)


def _check(columns: Columns, kept: Indexes) -> None:
    """Raises ThinLog."""
    left_out = ", ".join([f"{count} {kind}" for kind, count in columns.left_out.items() if count])
    beside = f" (left out: {left_out})" if left_out else ""
    if len(columns) < LEAST:
        raise ThinLog(
            f"{columns.name}: has {len(columns)} decisions with a final reward{beside}; "
            f"a world is fitted to {LEAST} at least: wait for more, or name another log"
        )
    if np.ptp(columns.reward) == 0:
        raise ThinLog(
            f"{columns.name}: every decision has the reward {columns.reward[0]:g}{beside}; nothing says which action "
            "is better: wait for rewards, or name another log"
        )
    if len(kept) < 2:
        names = ", ".join([columns.actions[one] for one in kept]) or "none"
        raise ThinLog(
            f"{columns.name}: of the active actions the log drew {names}; nothing says what others are worth: "
            "name a log that drew two at least"
        )


def _experiment(columns: Columns, definition: Experiment, kept: Indexes) -> Experiment:
    """The newest version, marked as fitted, with the actions of the world; nothing is paused, frozen or held out."""
    ids = [action_ids(columns.actions)[one] for one in kept]
    actions = tuple([action for action in definition.actions if action.id in ids])
    fitted = replace(
        definition,
        id=ExperimentId(plain_id(f"fitted-{definition.id}")),
        description=f"fitted to {columns.name}: a model of its rewards, no real visitors",
        paused=False,
        ended=False,
        learning=Learning.ONLINE,
        holdout=0.0,
        actions=actions,
        baseline=definition.baseline if definition.baseline in ids else None,
        minimum_propensity=min(definition.minimum_propensity, 1 / len(actions)),
        reward=_reward(columns, definition.reward),
    )
    return from_message(to_message(fitted))


def _reward(columns: Columns, definition: RewardDefinition) -> RewardDefinition:
    """With time enough for a reward where the log knows no delays: an imported log's window is as short as can be."""
    low, high = columns.reward_range
    window = definition.window if _delays(columns).any() else max(definition.window, RewardDefinition().window)
    return replace(definition, weights={REWARD: 1.0}, minimum=low, maximum=high, window=window)


def _traffic(columns: Columns) -> float:
    """Decisions a second of the log; that of other worlds where it has no times."""
    seconds = float(np.ptp(columns.time)) / 1e6
    return len(columns) / seconds if seconds > 0 else World.traffic


@dataclass(frozen=True, slots=True)
class _Cases:
    """Distinct cases among some decisions: the decisions where each came first, and which one each decision is."""

    decisions: Columns
    seen: Indexes


class _Draw:
    """Seed and rounds -> visits."""

    def __init__(self, columns: Columns, kept: Indexes, default: float) -> None:
        self._known_actions = kept
        self._default = default
        self._model = RewardModel(columns)
        some: Flags = np.any(columns.member[:, kept], axis=1)
        self._columns = columns.take(some[columns.eligible])
        self._values, self._codes = np.unique(self._columns.reward, return_inverse=True)
        self._delays = _delays(columns)

    def __call__(self, seed: int, rounds: int) -> Visits:
        visitors, luck, delays = (np.random.default_rng([seed, stream]) for stream in range(3))
        rows = visitors.integers(len(self._columns), size=rounds)
        cases = _cases(self._columns, rows)
        means = self._means(cases.decisions)
        rewards = self._rewards(luck.random(rounds), means, cases.seen)
        return Visits(
            contexts=tuple(Contexts().of(cases.decisions)),
            means=means,
            eligible=cases.decisions.member[:, self._known_actions][cases.decisions.eligible],
            seen=cases.seen,
            units=self._columns.unit[rows],
            delays=delays.choice(self._delays, rounds),
            rewards=rewards,
            names=np.where(rewards == self._default, -1, 0).astype(np.int8),
        )

    def _means(self, cases: Columns) -> Floats:
        """(cases, actions): within what was logged, as rewards beyond that are known of none."""
        return np.clip(self._model.predict_new(cases)[:, self._known_actions], self._values[0], self._values[-1])

    def _rewards(self, luck: Floats, means: Floats, seen: Indexes) -> Floats:
        """(rounds, actions): what each action earns there. One luck for all actions of a round."""
        rewards = np.empty((len(seen), len(self._known_actions)))
        for place, action in enumerate(self._known_actions):
            logged = self._logged(self._columns.action == action)
            rewards[:, place] = logged.rewards(luck, logged.shares(means[seen, place]))
        return rewards

    def _logged(self, own: Flags) -> LoggedRewards:
        count = len(self._values)
        everything = np.bincount(self._codes, minlength=count)
        shared = everything * (SHARED_REWARDS / len(self._codes))
        return LoggedRewards(self._values, np.bincount(self._codes[own], minlength=count) + shared)


def _delays(columns: Columns) -> Floats:
    """Seconds from decisions to their first rewards; one of 0 where the log has none."""
    known = np.zeros(0) if columns.delay is None else columns.delay[~np.isnan(columns.delay)]
    return known if len(known) else np.zeros(1)


def _cases(columns: Columns, rows: Indexes) -> _Cases:
    """The distinct contexts with their eligible actions, in the order of the log."""
    drawn = np.zeros(len(columns), np.bool_)
    drawn[rows] = True
    decisions = columns.take(drawn)
    code = decisions.eligible.astype(np.int64)
    for field in decisions.fields.values():
        _, one = np.unique(field.values if isinstance(field, Number) else field.codes, return_inverse=True)
        _, code = np.unique(code * (one.max(initial=0) + 1) + one, return_inverse=True)
    _, first, code = np.unique(code, return_index=True, return_inverse=True)
    order = np.argsort(first)
    begins = np.zeros(len(decisions), np.bool_)
    begins[first] = True
    case = np.argsort(order)[code]
    return _Cases(decisions.take(begins), case[np.cumsum(drawn)[rows] - 1])
