"""Which versions of an experiment are read together. Called by `decider_log.py`.

Versions that send another share of the units to the control group, or count rewards or decisions in another way, are
not pooled: the two groups would then be of different times, and their difference can have any sign (Simpson's paradox);
and one number would be the mean of two units of measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from decider.experiment.definition import DEFAULT_ACTION_REASONS, Experiment, ExperimentVersion, RewardDefinition
from decider.text import figure
from simulator.logs.errors import BadLog


@dataclass(frozen=True, slots=True)
class VersionsRead:
    """numbers: of the versions that were read. mixed: in what these differ, where the user named them together.

    others: versions that were left out because they differ, decisions: how many they made, apart: in what they differ.
    whole: decisions of all versions in the same time. begins: microseconds since 1970 of the first decision that was
    read, by the number of its version; without those that have none.
    """

    numbers: tuple[int, ...] = ()
    mixed: tuple[str, ...] = ()
    others: tuple[int, ...] = ()
    decisions: int = 0
    apart: tuple[str, ...] = ()
    whole: int = 0
    begins: Mapping[int, int] = field(default_factory=dict)


def choose_versions(
    versions: Sequence[ExperimentVersion], made: Sequence[int], wanted: tuple[int, ...]
) -> VersionsRead:
    """Those that were named; else the newest ones with decisions, as far back as they agree. Raises BadLog.

    made: how many decisions of each version can be evaluated: of those just made the windows are still open.
    """
    whole = sum(made)
    if wanted:
        _check_numbers(versions, wanted)
        named = [version for version in versions if version.number in wanted]
        return VersionsRead(tuple([one.number for one in named]), mixed=_all_differences(named, versions, made))
    used = [(version, count) for version, count in zip(versions, made, strict=True) if count]
    if not used:
        return VersionsRead(tuple([version.number for version in versions]))
    newest = used[-1][0].experiment
    last = next((at for at in range(len(used) - 1, -1, -1) if differences(used[at][0].experiment, newest)), -1)
    older, read = used[: last + 1], used[last + 1 :]
    return VersionsRead(
        numbers=tuple([version.number for version, _ in read]),
        others=tuple([version.number for version, _ in older]),
        decisions=sum([count for _, count in older]),
        apart=differences(older[-1][0].experiment, newest) if older else (),
        whole=whole,
    )


def _check_numbers(versions: Sequence[ExperimentVersion], wanted: tuple[int, ...]) -> None:
    known = {version.number for version in versions}
    unknown = [number for number in wanted if number not in known]
    if unknown:
        has = f"it has versions 1 to {max(known)}" if known else "it has no version"
        raise BadLog(f"--version {unknown[0]}: the experiment has no such version; {has}")


def _all_differences(
    named: Sequence[ExperimentVersion], versions: Sequence[ExperimentVersion], made: Sequence[int]
) -> tuple[str, ...]:
    count = {version.number: one for version, one in zip(versions, made, strict=True)}
    used = [version.experiment for version in named if count[version.number]]
    return tuple(dict.fromkeys(what for one in used[:-1] for what in differences(one, used[-1])))


def differences(one: Experiment, other: Experiment) -> tuple[str, ...]:
    """What changes the meaning of a reward or of the control group from one to the other, in words.

    Another policy, floor, list of actions or pause changes neither: each decision has its own pmf and eligible actions.

    >>> from dataclasses import replace
    >>> from decider.experiment.definition import ExperimentId
    >>> shop = Experiment(ExperimentId("shop"), ())
    >>> differences(shop, replace(shop, holdout=0.1, reward=RewardDefinition(maximum=100.0)))
    ('holdout 0, then 0.1', 'reward maximum 1, then 100')
    """
    found = [
        f"reward {part.name} {_words(part.name, before)}, then {_words(part.name, after)}"
        for part in fields(RewardDefinition)
        if (before := getattr(one.reward, part.name)) != (after := getattr(other.reward, part.name))
    ]
    if one.needs_activation != other.needs_activation:
        found.append(
            "activation required from then on" if other.needs_activation else "activation not required any more"
        )
    if (mode := _served(one)) != _served(other):
        found.append(f"{mode} served, then {_served(other)}")
    return (*_holdout_differences(one, other), *found)


def _served(experiment: Experiment) -> str:
    """Decisions of the two kinds are not pooled: what a default action never showed has a weight in the other alone."""
    return "default actions" if experiment.learning in DEFAULT_ACTION_REASONS else "the policy's draws"


def _holdout_differences(one: Experiment, other: Experiment) -> tuple[str, ...]:
    """The salt and the baseline say who is in the control group and what it gets: nothing where there is none."""
    if one.control_share != other.control_share:
        return (f"holdout {figure(one.control_share)}, then {figure(other.control_share)}",)
    if not one.control_share:
        return ()
    found = [] if one.baseline == other.baseline else [f"baseline action {one.baseline}, then {other.baseline}"]
    return (*found, *([] if one.salt == other.salt else ["another salt, which draws another control group"]))


def _words(name: str, value: object) -> str:
    if name == "window":
        return f"{figure(float(str(value)) / 1e6)} s"
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} = {figure(weight)}" for key, weight in value.items()) or "every name alike"
    return str(value)
