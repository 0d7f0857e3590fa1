"""Our own log as columns: the decisions of a policy whose window is over, with the reward that the learner saw.

What is not among them is counted by kind: versions with another reward, holdout or activation, open windows, decisions
that had to be activated and were not (nobody may have seen them), overridden decisions (the reward belongs to another
action), and the holdout (control traffic: no policy drew it), which has columns of its own; but for those of its
decisions that could not have the baseline action. Called by `open.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from decider.decide.slots import SLOTS
from decider.errors import DeciderError
from decider.experiment.definition import KIND, Action, Experiment, ExperimentVersion
from decider.log.open import LogUrl, archived, open_reader
from decider.log.protocol import ArrowBatches, Head, LogReader
from decider.types import CONTEXT_FIELDS, ActionId, Position, Reason
from simulator.logs.arrow import category, distinct, distinct_by
from simulator.logs.columns import Category, Codes, Columns, Field, Flags, Floats, Longs, Number, first_of_each
from simulator.logs.errors import BadLog
from simulator.logs.final_rewards import Counted, Rewards, check_names, concatenate, final_rewards
from simulator.logs.holdout_split import split_of
from simulator.logs.options import reward_range as seen_range
from simulator.logs.slates import pages_of
from simulator.logs.span import Span
from simulator.logs.versions import choose_versions

HOLDOUT = "holdout"
NOT_ACTIVATED = "not activated"
UNAVAILABLE = "holdout without the baseline action"
DIFFERENT_VERSIONS = "in versions with another reward, holdout or activation"
OTHER_VERSIONS = "in versions that were not asked for"
"""Kinds of decisions that are left out, and that are not lost."""

EVER = Span()

MOST_CALLED, MOST_CELLS = 5_000, 200_000_000
"""Most actions that only calls knew; most sets of eligible actions x actions."""

_NUMBERS = ("position", "time", "version", "model", "deadline", "overridden", "activated")
_TEXTS = ("action", "reason", "features", "action_features", "slot", *CONTEXT_FIELDS)


class AmbiguousExperiment(DeciderError):
    """The log holds several experiments (or not the one that was named)."""

    reason = "AMBIGUOUS_EXPERIMENT"


def load(
    path: Path | LogUrl,
    *,
    experiment: str | None = None,
    version: tuple[int, ...] = (),
    span: Span = EVER,
    archive: Sequence[Path] = (),
    rewards: Mapping[str, float] = MappingProxyType({}),
    reward_range: tuple[float, float] | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Columns:
    """The decisions of one experiment; it need not be named where the log has only one.

    path: of a log (in PostgreSQL its address), or a folder with its archive. version: numbers of its versions; without
    them the newest ones that agree are read (see `versions.py`). archive: folders with the archived parts of the log,
    which are read, too. rewards: names with the weights that they shall have instead of the experiment's, others count
    nothing; then the range is reward_range, or what was seen. Nothing in it: the reward that the learner saw.
    on_note: told where decisions are archived and left out.
    Raises AmbiguousExperiment, BadLog where nothing is left, or LogError where there is no log of ours.

    >>> load(Path("nowhere.db"))
    Traceback (most recent call last):
    decider.errors.LogError: nowhere.db: there is no such log
    """
    elsewhere = archived(path, archive)
    if elsewhere:
        on_note(f"{path}: {elsewhere}")
    if rewards:
        on_note(f"{path}: counts {_weighted(rewards)} in place of what the policy learned from")
    with closing(open_reader(path, archive=archive)) as log:
        return _load(log, experiment_versions(log, experiment), version, span, Counted(rewards, reward_range))


def newest_definition(path: Path | LogUrl, *, experiment: str | None = None) -> Experiment | None:
    """The newest version of the experiment that `load` reads; None where the log has none. Raises as `load` does."""
    with closing(open_reader(path)) as log:
        versions = experiment_versions(log, experiment)
        return versions[-1].experiment if versions else None


def experiments(path: Path | LogUrl) -> Sequence[str]:
    """The ids of all experiments. Raises LogError where there is no log of ours."""
    with closing(open_reader(path)) as log:
        return _ids(log.versions())


def _ids(versions: Sequence[ExperimentVersion]) -> Sequence[str]:
    return list(dict.fromkeys(version.experiment.id for version in versions))


def only_experiment(log: LogReader, wanted: str | None) -> str:
    """The id of the one that was named, or of the only one. Raises AmbiguousExperiment."""
    versions = experiment_versions(log, wanted)
    if not versions:
        raise AmbiguousExperiment(f"{log.name} has no experiment")
    return versions[0].experiment.id


def experiment_versions(log: LogReader, wanted: str | None) -> Sequence[ExperimentVersion]:
    """Of the one that was named, or of the only one; none in a log without any. Raises AmbiguousExperiment."""
    versions = log.versions()
    ids = _ids(versions)
    if wanted is None and len(ids) > 1:
        raise AmbiguousExperiment(
            f"{log.name} holds several experiments: choose one, --experiment {ids[0]}; it has {', '.join(ids)}"
        )
    if wanted is not None and wanted not in ids:
        raise AmbiguousExperiment(f"{log.name} has no experiment {wanted!r}; it has {', '.join(ids) or 'none'}")
    return [version for version in versions if wanted in (None, version.experiment.id)]


def _load(
    log: LogReader, versions: Sequence[ExperimentVersion], wanted: tuple[int, ...], span: Span, counted: Counted
) -> Columns:
    head = log.head()  # read first: what a server appends meanwhile belongs to the next evaluation
    declared = tuple(dict.fromkeys(action.id for version in versions for action in version.experiment.actions))
    logged = log.arrow(versions[-1].experiment.id, head) if versions else ArrowBatches(iter(()), iter(()))
    raw = _Raw(logged.decisions, log.persons())
    actions = (*declared, *_called(log.name, raw.eligible, declared))
    sets, eligible = _sets(raw.eligible, versions, actions)
    sent = Rewards(logged.rewards, named=bool(counted.weights))
    if counted.weights:
        check_names(log.name, sent, counted.weights)
    version = _version_of(versions, raw)
    reward, delay = final_rewards(sent, counted, versions, version=version, position=raw.position, time=raw.time)
    outside = span.outside(log.name, raw.time)
    inside = ~np.logical_or.reduce([np.zeros(len(raw.time), np.bool_), *outside.values()])
    over = is_window_over(versions, version, raw.time, head)
    made = np.bincount(version[inside & over], minlength=len(versions))
    read = choose_versions(versions, made.tolist(), wanted)
    is_read = np.array([one.number in read.numbers for one in versions], np.bool_)[version]
    needs_activation = np.array([one.experiment.needs_activation for one in versions], np.bool_)
    control = _equals(raw.reasons, Reason.HOLDOUT) | _equals(raw.reasons, Reason.HOLDOUT_UNAVAILABLE)
    # In logs of earlier builds HOLDOUT are also units of the group that could not get the baseline action.
    clean = _has_baseline(versions, version, raw.eligible)
    left_out = one_kind_each(
        {
            **outside,
            "window open": ~over,
            OTHER_VERSIONS if wanted else DIFFERENT_VERSIONS: ~is_read,
            NOT_ACTIVATED: needs_activation[version] & ~raw.activated,
            "overridden": raw.overridden,
            HOLDOUT: control & clean,
            UNAVAILABLE: control & ~clean,
        }
    )
    used = [one.experiment for one in versions if one.number in read.numbers]
    ranges = [(one.reward.minimum, one.reward.maximum) for one in used] or [(0.0, 1.0)]
    columns = Columns(
        name=log.name,
        actions=actions,
        action=_lookup(raw.action, actions),
        propensity=raw.propensity,
        reward=reward,
        reward_range=seen_range(reward, counted.range) if counted.weights else _widest(ranges),
        range_declared=not counted.weights or counted.range is not None,
        time=raw.time,
        known=raw.deadline,
        unit=raw.units,
        person=raw.persons,
        fields=fields_of(raw.context, raw.features),
        sets=sets,
        eligible=eligible,
        eligible_logged=True,
        pmf=raw.pmf if raw.whole_pmfs else None,
        default=np.isnan(delay),
        delay=delay,
        reason=raw.reasons,
        model=raw.model,
        action_features=raw.action_features,
        traits=_traits(versions, actions, raw.action_features),
        baseline=actions.index(used[-1].baseline) if used and used[-1].baseline else None,
        left_out={kind: int(rows.sum()) for kind, rows in left_out.items()},
        counts=_counts(log, sent),
        experiment=used[-1].id if used else "",
        pages=pages_of(raw.slot, unit=raw.units, time=raw.time, version=raw.version),
        split=split_of(
            [one.experiment for one in versions],
            version=version,
            unit=raw.units,
            new=first_of_each(raw.units),
            control=control,
            rows=inside & is_read,
        ),
    )
    lost = np.logical_or.reduce(list(left_out.values()))
    evaluated = ~lost
    if columns.pages is not None:
        columns = replace(columns, pages=columns.pages.without(lost, wanted=inside & is_read))
    begins = _first_times(versions, version[evaluated], raw.time[evaluated])
    policy = replace(columns.take(evaluated), versions=replace(read, begins=begins))
    return replace(policy, holdout=columns.take(left_out[HOLDOUT])) if left_out[HOLDOUT].any() else policy


def one_kind_each(kinds: Mapping[str, Flags]) -> dict[str, Flags]:
    """Every decision only with the first kind that it is of."""
    found: dict[str, Flags] = {}
    for kind, rows in kinds.items():
        found[kind] = rows & ~np.logical_or.reduce([np.zeros(len(rows), np.bool_), *found.values()])
    return found


def _version_of(versions: Sequence[ExperimentVersion], raw: _Raw) -> Longs:
    """(n,): index of the version that made the decision."""
    index: Longs = np.searchsorted([version.position for version in versions], raw.version)
    return index


def is_window_over(versions: Sequence[ExperimentVersion], version: Longs, time: Longs, head: Head) -> Flags:
    """(n,): whether the window that its version declares is over, final reward or not: before, decisions with a final
    reward are sealed alone, and their mean is that of buyers. version: (n,) index into `versions`."""
    window = np.array([one.experiment.reward.window for one in versions], np.int64)
    over: Flags = time + window[version] <= head.time
    return over


def _first_times(versions: Sequence[ExperimentVersion], version: Longs, time: Longs) -> dict[int, int]:
    """When each version made its first decision, by its number. version: index of the one that made the decision."""
    used = [index for index in range(len(versions)) if (version == index).any()]
    return {versions[index].number: int(time[version == index].min()) for index in used}


class _Raw:
    """The decisions as they stand in the log. whole_pmfs: not where an imported log knew only propensities. persons:
    by linked unit; afterwards codes, None where no unit of the decisions is linked to another one of them."""

    def __init__(self, batches: Iterable[Any], persons: Mapping[str, str]) -> None:
        numbers: dict[str, list[NDArray[Any]]] = {name: [] for name in (*_NUMBERS, "propensity")}
        texts: dict[str, list[Any]] = {name: [] for name in (*_TEXTS, "unit_id", "eligible")}
        pmfs = [np.zeros(0, np.float32)]
        self.whole_pmfs = True
        for batch in batches:
            for name, kept in numbers.items():
                kept.append(batch[name].to_numpy())
            for name, chunks in texts.items():
                chunks.append(_eligible(batch) if name == "eligible" else batch[name])
            slots = _slots(batch["pmf"])
            self.whole_pmfs &= int(slots.sum()) == SLOTS * len(batch)
            pmfs.append((slots / SLOTS).astype(np.float32))
        self.position, self.time, self.version, self.model, self.deadline, overridden, activated = (
            concatenate(numbers[name], np.int64) for name in _NUMBERS
        )
        self.overridden, self.activated = (flags.astype(np.bool_) for flags in (overridden, activated))
        self.propensity: Floats = concatenate(numbers["propensity"], np.float64)
        self.pmf = np.concatenate(pmfs)
        self.units = distinct(texts["unit_id"]).astype(np.int64)
        codes = distinct_by(texts["unit_id"], persons).astype(np.int64) if persons else self.units
        self.persons = None if np.array_equal(codes, self.units) else codes
        self.eligible = category(texts["eligible"])
        self.action, self.reasons, self.features, self.action_features, self.slot, *self.context = (
            category(texts[name]) for name in _TEXTS
        )


def _eligible(batch: Any) -> Any:
    """What names the eligible actions: a list, or the version all of whose active actions they are."""
    given = batch["eligible"]
    return pc.if_else(pc.equal(given, ""), pc.cast(batch["version"], pa.string()), given)


def _slots(texts: Any) -> Longs:
    """The pmfs of a batch, one after the other: their JSON lists of millionths without brackets, read as one."""
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), ",")[0].as_py()
    return np.fromstring(joined, np.int64, sep=",")


def _has_baseline(versions: Sequence[ExperimentVersion], version: Longs, eligible: Category) -> Flags:
    """(n,): whether the baseline action of the decision's version was eligible."""
    pairs, which = np.unique(np.stack([version, eligible.codes.astype(np.int64)]), axis=1, return_inverse=True)
    found = [_is_eligible(versions[at], eligible.values[code]) for at, code in pairs.T.tolist()]
    return np.array(found, np.bool_)[which.reshape(-1)]


def _is_eligible(version: ExperimentVersion, text: str) -> bool:
    """text: as `_eligible` gives it."""
    ids = json.loads(text) if text.startswith("[") else version.all_active
    return version.experiment.baseline in ids


def _called(name: str, eligible: Category, declared: tuple[str, ...]) -> list[str]:
    """The actions that only calls knew. Raises BadLog where they are too many for arrays with a place for each."""
    lists = [json.loads(text) for text in eligible.values if text.startswith("[")]
    called = sorted({id_ for ids in lists for id_ in ids}.difference(declared))
    cells = len(eligible.values) * (len(declared) + len(called))
    if called and (len(called) > MOST_CALLED or cells > MOST_CELLS):
        raise BadLog(
            f"{name}: calls brought {len(called)} actions in {len(eligible.values)} different sets; at most "
            f"{MOST_CALLED} actions and {MOST_CELLS} places in all are read. Evaluate a shorter log, or declare the "
            "actions in the experiment and describe them by features"
        )
    return called


def _sets(
    eligible: Category, versions: Sequence[ExperimentVersion], actions: tuple[str, ...]
) -> tuple[tuple[tuple[int, ...], ...], Codes]:
    """The distinct eligible sets, and each decision's index into them. The texts are those of `_eligible`."""
    all_active = {version.position: version.all_active for version in versions}
    sets: dict[tuple[int, ...], int] = {}
    place = {id_: at for at, id_ in enumerate(actions)}
    index = []
    for text in eligible.values:
        ids = json.loads(text) if text.startswith("[") else all_active[Position(int(text))]
        index.append(sets.setdefault(tuple([place[id_] for id_ in ids]), len(sets)))
    return tuple(sets), np.array(index, np.int32)[eligible.codes]


def _lookup(texts: Category, values: tuple[str, ...]) -> Codes:
    place = {value: at for at, value in enumerate(values)}
    return np.array([place[value] for value in texts.values], np.int32)[texts.codes]


def _equals(category: Category, value: str) -> Flags:
    code = category.values.index(value) if value in category.values else -2
    flags: Flags = category.codes == code
    return flags


def _weighted(weights: Mapping[str, float]) -> str:
    return " and ".join(name if weight == 1 else f"{name} x {weight:g}" for name, weight in weights.items())


def _widest(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def fields_of(context: Sequence[Category], features: Category) -> dict[str, Field]:
    """The five context fields, and every feature by its name; a field that nobody gave is not there.

    context: in the order of CONTEXT_FIELDS. features: JSON objects.
    """
    given: dict[str, Field] = {name: texts for name, texts in zip(CONTEXT_FIELDS, context, strict=True) if texts.values}
    return given | _features(features)


def _features(objects: Category) -> dict[str, Field]:
    """The columns of JSON objects, each parsed once however often it came."""
    parsed = [json.loads(text) for text in objects.values]
    names = sorted({name for features in parsed for name in features})
    return {name: _feature([features.get(name) for features in parsed], objects.codes) for name in names}


def _feature(values: list[Any], codes: Codes) -> Field:
    """One feature of every distinct object, spread over the decisions. Numbers beside texts become texts."""
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        numbers = np.array([*[np.nan if value is None else float(value) for value in values], np.nan])
        return Number(numbers[codes])
    distinct = Category.of([*map(_text, values), ""])
    return Category(distinct.codes[codes], distinct.values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _traits(
    versions: Sequence[ExperimentVersion], actions: tuple[str, ...], features: Category
) -> dict[str, tuple[str, ...]]:
    """Kind and categorical features of every action, as its newest version has them; only the kind of those that only
    calls knew."""
    newest = {action.id: action for version in versions for action in version.experiment.actions}
    if len(actions) > len(newest):
        kinds = {
            id_: given[KIND] for text in features.values for id_, given in json.loads(text).items() if KIND in given
        }
        newest |= {ActionId(id_): Action(ActionId(id_), kinds.get(id_, "")) for id_ in actions if id_ not in newest}
    traits = {"kind": tuple([newest[ActionId(id_)].kind for id_ in actions])}
    for name in sorted({name for action in newest.values() for name in action.features}):
        values = [newest[ActionId(id_)].features.get(name, "") for id_ in actions]
        if all(isinstance(value, str) for value in values):
            traits[name] = tuple(map(str, values))
    return traits


def _counts(log: LogReader, sent: Rewards) -> dict[str, int]:
    """Rewards by what became of them; the refused ones are counted for the whole log."""
    late, retracted = ~sent.joined, sent.joined & sent.retracted
    counted = Counter(joined=int(sent.joined.sum()), late=int(late.sum()), retracted=int(retracted.sum()))
    counted.update(duplicate=0, orphan=0, out_of_range=0)
    for (_, outcome), count in log.refused_rewards().items():
        counted[outcome] += count
    return {f"rewards {outcome}": count for outcome, count in counted.items()}
