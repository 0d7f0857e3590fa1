"""Validates caps, shares and budgets of an experiment: every violation, with its field. Called by `checks.py`."""

from __future__ import annotations

from collections.abc import Iterator

from decider.errors import Violation
from decider.experiment.ids import id_violation
from decider.experiment.limits import zone_of
from decider.v1 import experiment_pb2 as pb

MAX_CAPS = 100
MOST = 1_000
"""Of a cap: no more of what counts of a unit is read for every decision."""

SHORTEST_PERIOD, LONGEST_PERIOD = 1_000, 366 * 86_400_000_000
"""Microseconds."""


def limit_violations(message: pb.Experiment) -> Iterator[Violation]:
    """What is wrong with the limits of an experiment."""
    if len(message.caps) > MAX_CAPS:
        yield Violation("caps", f"has {len(message.caps)} caps; at most {MAX_CAPS} are possible")
    for index, cap in enumerate(message.caps):
        yield from _cap_violations(f"caps[{index}]", cap, message)
    try:
        zone_of(message.time_zone or "UTC")
    except ValueError:
        yield Violation(
            "time_zone",
            f'{message.time_zone[:64]!r} is no time zone that this machine knows; take a name like "Europe/Berlin", '
            "or install its time zones (the package tzdata)",
        )
    for index, action in enumerate(message.actions):
        yield from _action_violations(f"actions[{index}]", action)


def _cap_violations(path: str, cap: pb.Cap, message: pb.Experiment) -> Iterator[Violation]:
    if bool(cap.action) == bool(cap.kind):
        yield Violation(path, "needs an action or a kind, one of the two")
    if not 1 <= cap.most <= MOST:
        yield Violation(f"{path}.most", f"{cap.most} is not in [1, {MOST}]; retire an action that nobody shall see")
    if not SHORTEST_PERIOD <= cap.per.ToMicroseconds() <= LONGEST_PERIOD:
        seconds = cap.per.ToMicroseconds() / 1_000_000
        yield Violation(f"{path}.per", f'{seconds:g} s is not in [0.001 s, 366 days]; give it like "7d"')
    if message.HasField("actions_in_calls"):  # they may bring every action and kind
        for field, text in (("action", cap.action), ("kind", cap.kind)):
            yield from id_violation(f"{path}.{field}", text) if text else ()
        return
    if cap.action and cap.action not in {action.id for action in message.actions}:
        yield Violation(f"{path}.action", f"{cap.action[:64]!r} is not one of the actions")
    kinds = {action.kind or "content" for action in message.actions}
    if cap.kind and cap.kind not in kinds:
        yield Violation(f"{path}.kind", f"no action is of kind {cap.kind[:64]!r}; there are {', '.join(sorted(kinds))}")


def _action_violations(path: str, action: pb.Action) -> Iterator[Violation]:
    low, high = shares_of(action)
    if not 0 <= low <= 1:
        yield Violation(f"{path}.min_share", f"{low} is not in [0, 1]")
    if not 0 < high <= 1:
        yield Violation(f"{path}.max_share", f"{high} is not in (0, 1]; retire an action that nobody shall see")
    elif low > high:
        yield Violation(f"{path}.min_share", f"{low} is above max_share, {high}")
    if action.HasField("daily_budget") and action.daily_budget < 1:
        yield Violation(f"{path}.daily_budget", "0 is not at least 1; retire an action that nobody shall see")


def shares_of(action: pb.Action) -> tuple[float, float]:
    """The smallest and largest share of an action."""
    return action.min_share, action.max_share if action.HasField("max_share") else 1.0
