"""Our own log as two groups, the policy's units and the holdout's, as columns; or as what it served, whether there is a
holdout or not. Called by `simulator/lift/`.

What counts is what the server counts for its metrics: every decision whose declared window is over, of the strata that
mean the same by a reward (`decider/experiment/strata.py`), whatever it got and whatever was shown in its place. The
group of a unit was drawn before all that, so comparing anything less than all of it would compare different units: as
those whom a final reward has sealed in an open window. What exploration costs is counted over all draws since a reward
has meant the same, with or without a holdout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from decider.estimate.split import StratumSplit
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.guardrails import MOST_NAMES, Guardrail
from decider.experiment.strata import (
    BUCKETS,
    HOLDOUT_REASONS,
    JudgedSince,
    Stratum,
    bucket_of,
    measures_of_all,
    strata_of,
)
from decider.log.open import LogUrl, archived, open_reader
from decider.log.protocol import ArrowBatches, LogReader
from decider.types import CONTEXT_FIELDS
from simulator.logs.arrow import category
from simulator.logs.columns import Category, Field, Flags, Floats, Longs
from simulator.logs.decider_log import (
    EVER,
    NOT_ACTIVATED,
    experiment_versions,
    fields_of,
    is_window_over,
    one_kind_each,
)
from simulator.logs.draws import Draws, exploration_costs, is_draw
from simulator.logs.errors import BadLog
from simulator.logs.final_rewards import Counted, Rewards, check_names, concatenate, final_rewards
from simulator.logs.span import Span

NO_HOLDOUT = "in versions without a holdout"
OTHER_REWARD = "in versions with another reward"
WINDOW_OPEN = "window open"
"""Kinds of decisions that are left out."""

LEARNED = "(learned)"
"""In place of a name of rewards: the final reward, from which the policy learns."""

_LEARNED_AS_DECLARED = Counted({}, None)

_NUMBERS = ("position", "time", "version", "activated")
_TEXTS = ("unit_id", "reason", "pmf", "features", *CONTEXT_FIELDS)


@dataclass(frozen=True, slots=True)
class StratumRead:
    """A stratum of the log. share: of units in the holdout. versions: its numbers."""

    share: float
    versions: tuple[int, ...]
    decisions: int


@dataclass(frozen=True, slots=True)
class Guarded:
    """guardrails: none where only a span of the log is read, since the server judges all of it. counted: (n,) whether
    they are judged by a decision; values: (n,) by name of reward."""

    guardrails: Sequence[Guardrail]
    counted: Flags
    values: Mapping[str, Floats]


class Persons(NamedTuple):
    """Linked units are one. code, bucket: (n,) each."""

    code: Longs
    bucket: Longs


@dataclass(frozen=True)
class GroupedDecisions:
    """n decisions whose declared window is over. stratum: (n,) index into `strata`; bucket, unit, holdout, time: (n,)
    each.

    rewards: (n,) by name, the final reward as LEARNED; values of a name are added up, without its weight. context: in
    the order of CONTEXT_FIELDS. features: JSON objects. left_out: decisions by kind. draws: those of which exploration
    cost something. guarded: what the newest version's guardrails are judged by. split: of each stratum, those included
    that were left out because nobody said that they were shown. names: of all rewards that were sent, the most frequent
    first; live_names: how many of them the server has a lift of. span: the part of the log that was asked for. persons:
    None where no two of the units are linked.
    """

    log: str
    experiment: str
    strata: tuple[StratumRead, ...]
    stratum: Longs
    bucket: Longs
    unit: Longs
    holdout: Flags
    time: Longs
    rewards: Mapping[str, Floats]
    context: tuple[Category, ...]
    features: Category
    left_out: Mapping[str, int]
    guarded: Guarded
    draws: Draws
    names: tuple[str, ...]
    live_names: int
    span: Span
    persons: Persons | None
    split: Sequence[StratumSplit]

    def __len__(self) -> int:
        return len(self.stratum)

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """The context by name. Features are parsed for it, each object once."""
        return fields_of(self.context, self.features)


@dataclass(frozen=True, slots=True)
class Served:
    """n decisions whose declared window is over, of the versions in which a reward means what it does in the newest
    one. reward: the final one; (n,) each."""

    log: str
    unit: Longs
    holdout: Flags
    time: Longs
    reward: Floats

    def __len__(self) -> int:
        return len(self.unit)


def load_served(path: Path | LogUrl, *, experiment: str | None = None, archive: Sequence[Path] = ()) -> Served:
    """What one experiment has served, with a holdout or without. Raises AmbiguousExperiment, BadLog where it has served
    nothing, or LogError where there is no log."""
    with closing(open_reader(path, archive=archive)) as log:
        versions = experiment_versions(log, experiment)
        if not versions:
            raise BadLog(f"{log.name}: has no experiment, so it says nothing about traffic")
        head = log.head()
        logged = log.arrow(versions[-1].experiment.id, head)
        raw, sent = _Decisions(logged), Rewards(logged.rewards, named=False)
        version = np.searchsorted([one.position for one in versions], raw.version)
        over = is_window_over(versions, version, raw.time, head)
        used = _newest(versions, version, over & ~_not_activated(versions, version, raw))
        learned, _ = final_rewards(
            sent, _LEARNED_AS_DECLARED, versions, version=version, position=raw.position, time=raw.time
        )
        unit, holdout = raw.unit.codes.astype(np.int64), _is_holdout(raw.reason)
        return Served(log.name, unit[used], holdout[used], raw.time[used], learned[used])


def load_groups(
    path: Path | LogUrl,
    *,
    experiment: str | None = None,
    rewards: Sequence[str] = (),
    span: Span = EVER,
    archive: Sequence[Path] = (),
    on_note: Callable[[str], None] = lambda _: None,
) -> GroupedDecisions:
    """The decisions of the newest strata of one experiment. rewards: names that are wanted beside LEARNED.

    Raises AmbiguousExperiment, BadLog where there is no holdout or no such reward, or LogError where there is no log.
    """
    elsewhere = archived(path, archive)
    if elsewhere:
        on_note(f"{path}: {elsewhere}")
    with closing(open_reader(path, archive=archive)) as log:
        versions = experiment_versions(log, experiment)
        strata = strata_of(versions)
        if not strata:
            raise BadLog(_no_holdout(log.name, versions))
        return _load(log, versions, strata, rewards, span)


def _no_holdout(name: str, versions: Sequence[ExperimentVersion]) -> str:
    return (
        f"{name}: {_why_none(versions)}, so nobody knows what would have been earned without the policy. Declare one "
        'from now on, in the experiment\'s file: holdout = 0.1 and baseline_action = "ID". What other policies would '
        "have earned can be estimated: simulator evaluate"
    )


def _why_none(versions: Sequence[ExperimentVersion]) -> str:
    if not versions:
        return "has no experiment"
    id_, declared = versions[0].experiment.id, {one.experiment.holdout for one in versions}
    if any(0 < share < 1 for share in declared):
        return f"{id_!r} declares a holdout, but everybody got a default action or the baseline action"
    return f"every unit of {id_!r} was in the holdout" if 1 in declared else f"{id_!r} never had a holdout"


class _Decisions:
    """The decisions as they stand in the log."""

    def __init__(self, logged: ArrowBatches) -> None:
        found = [{name: batch[name] for name in (*_NUMBERS, "propensity", *_TEXTS)} for batch in logged.decisions]
        self.position, self.time, self.version, activated = (
            concatenate([batch[name].to_numpy() for batch in found], np.int64) for name in _NUMBERS
        )
        self.activated: Flags = activated.astype(np.bool_)
        self.propensity = concatenate([batch["propensity"].to_numpy() for batch in found], np.float64)
        self.unit, self.reason, self.pmf, self.features, *self.context = (
            category([batch[name] for batch in found]) for name in _TEXTS
        )


def _load(
    log: LogReader,
    versions: Sequence[ExperimentVersion],
    strata: Mapping[Any, Stratum],
    names: Sequence[str],
    span: Span,
) -> GroupedDecisions:
    head = log.head()
    logged = log.arrow(versions[-1].experiment.id, head)
    raw, sent = _Decisions(logged), Rewards(logged.rewards, named=True)
    check_names(log.name, sent, dict.fromkeys(names, 1.0))
    version = np.searchsorted([one.position for one in versions], raw.version)
    measure = np.array([strata[one.position].measure if one.position in strata else 0 for one in versions])[version]
    first = {
        **span.outside(log.name, raw.time),
        WINDOW_OPEN: ~is_window_over(versions, version, raw.time, head),
        NO_HOLDOUT: measure == 0,
        NOT_ACTIVATED: _not_activated(versions, version, raw),
    }
    counted = ~np.logical_or.reduce(list(first.values()))
    newest = measure[counted].max(initial=0)
    left_out = one_kind_each({**first, OTHER_REWARD: measure != newest})
    used = ~np.logical_or.reduce(list(left_out.values()))
    learned, _ = final_rewards(
        sent, _LEARNED_AS_DECLARED, versions, version=version, position=raw.position, time=raw.time
    )
    rewards = {LEARNED: learned, **{name: _values(sent, name, raw.position) for name in names}}
    read, stratum = _strata(versions, strata, version[used])
    bucket = np.array([*map(bucket_of, raw.unit.values), bucket_of("")])[raw.unit.codes]
    over = ~np.logical_or.reduce([rows for kind, rows in first.items() if kind != NO_HOLDOUT])
    drawn = _newest(versions, version, over & is_draw(raw.reason))
    judged = ~np.logical_or.reduce([rows for kind, rows in first.items() if kind != NOT_ACTIVATED])
    costs = exploration_costs(raw.reason.take(drawn), raw.propensity[drawn], raw.pmf.take(drawn), learned[drawn])
    return GroupedDecisions(
        log=log.name,
        experiment=versions[-1].experiment.id,
        strata=read,
        stratum=stratum,
        bucket=bucket[used],
        unit=raw.unit.codes.astype(np.int64)[used],
        holdout=_is_holdout(raw.reason)[used],
        time=raw.time[used],
        rewards={name: values[used] for name, values in rewards.items()},
        context=tuple([field.take(used) for field in raw.context]),
        features=raw.features.take(used),
        left_out={kind: int(rows.sum()) for kind, rows in left_out.items() if rows.any()},
        draws=Draws(bucket[drawn], costs),
        split=_split(versions, strata, version, judged & (measure == newest), bucket, _is_holdout(raw.reason)),
        guarded=_guarded(versions, sent, raw, version, used, whole=span == EVER),
        names=_names(sent),
        live_names=_live_names(sent, raw.position[used]),
        span=span,
        persons=_persons(raw.unit, log.persons(), used),
    )


def _persons(unit: Category, names: Mapping[str, str], used: Flags) -> Persons | None:
    named = [names.get(text, text) for text in unit.values]
    number = {name: code for code, name in enumerate(dict.fromkeys(named))}
    codes = unit.codes[used]
    code = np.array([number[name] for name in named], np.int64)[codes]
    if len(np.unique(code)) == len(np.unique(codes)):
        return None
    return Persons(code, np.array([bucket_of(name) for name in named])[codes])


def _names(sent: Rewards) -> tuple[str, ...]:
    assert sent.names is not None
    often = np.bincount(sent.names.codes + 1, minlength=len(sent.names.values) + 1)[1:]
    return tuple([sent.names.values[code] for code in np.argsort(-often, kind="stable") if often[code]])


def _live_names(sent: Rewards, position: Longs) -> int:
    """Of the rewards in force of decisions at these positions; rising."""
    assert sent.names is not None
    mine = sent.joined & ~sent.retracted & np.isin(sent.decision, position)
    return min(MOST_NAMES, len(np.unique(sent.names.codes[mine])))


def _split(
    versions: Sequence[ExperimentVersion],
    strata: Mapping[Any, Stratum],
    version: Longs,
    rows: Flags,
    bucket: Longs,
    holdout: Flags,
) -> Sequence[StratumSplit]:
    """As the server has it. version: (n,) index into `versions`; rows: (n,) which decisions count."""
    found: dict[Stratum, tuple[Experiment, Floats]] = {}
    for index in np.unique(version[rows]).tolist():
        one = versions[index]
        mine = rows & (version == index)
        counted = np.array(
            [np.bincount(bucket[mine & (holdout == group)], minlength=BUCKETS) for group in (False, True)], np.float64
        )
        stratum = strata[one.position]
        before = found[stratum][1] if stratum in found else 0.0
        found[stratum] = (one.experiment, counted + before)
    return [StratumSplit(one.control_share, one.salt, decisions) for one, decisions in found.values()]


def _guarded(
    versions: Sequence[ExperimentVersion], sent: Rewards, raw: _Decisions, version: Longs, used: Flags, *, whole: bool
) -> Guarded:
    """version: (n,) index into `versions`; used: (n,) which decisions are read."""
    since = JudgedSince()
    for one in versions:
        since.add(one)
    positions = np.array([one.position for one in versions])
    guardrails = versions[-1].experiment.guardrails if whole else ()
    values = {one.reward: _values(sent, one.reward, raw.position)[used] for one in guardrails}
    return Guarded(guardrails, (positions[version] >= since.position)[used], values)


def _not_activated(versions: Sequence[ExperimentVersion], version: Longs, raw: _Decisions) -> Flags:
    """Those that had to be and were not. version: index into `versions`."""
    needs_activation = np.array([one.experiment.needs_activation for one in versions], np.bool_)
    missing: Flags = needs_activation[version] & ~raw.activated
    return missing


def _newest(versions: Sequence[ExperimentVersion], version: Longs, rows: Flags) -> Flags:
    """Those of the rows in which a reward means what it does in the newest of them. version: index into `versions`."""
    measures = measures_of_all(versions)
    measure = np.array([measures[one.position].measure for one in versions])[version]
    newest: Flags = rows & (measure == measure[rows].max(initial=0))
    return newest


def _is_holdout(reason: Category) -> Flags:
    return np.array([*[text in HOLDOUT_REASONS for text in reason.values], False])[reason.codes]


def _values(sent: Rewards, name: str, position: Longs) -> Floats:
    """(n,) what the rewards of a name in force come to, without its weight."""
    assert sent.names is not None
    if name not in sent.names.values:
        return np.zeros(len(position))
    mine = sent.joined & ~sent.retracted & (sent.names.codes == sent.names.values.index(name))
    row = np.searchsorted(position, sent.decision[mine])
    values: Floats = np.bincount(row, weights=sent.unweighted[mine], minlength=len(position)).astype(np.float64)
    return values


def _strata(
    versions: Sequence[ExperimentVersion], strata: Mapping[Any, Stratum], version: Longs
) -> tuple[tuple[StratumRead, ...], Longs]:
    """The strata that have decisions; (n,) the index of each decision's. version: (n,) index into `versions`."""
    made = np.bincount(version, minlength=len(versions))
    used = [(index, one, strata[one.position]) for index, one in enumerate(versions) if made[index]]
    order = list(dict.fromkeys(stratum for _, _, stratum in used))
    found = []
    for stratum in order:
        mine = [(index, one) for index, one, its in used if its == stratum]
        found.append(
            StratumRead(
                share=mine[0][1].experiment.control_share,
                versions=tuple([one.number for _, one in mine]),
                decisions=int(sum(made[index] for index, _ in mine)),
            )
        )
    place = np.zeros(len(versions), np.int64)
    for index, _, stratum in used:
        place[index] = order.index(stratum)
    return tuple(found), place[version]
