"""What units did before, on a policy's own way through a world: the features that the server makes of its log.

Called by `play.py`.
"""

from __future__ import annotations

from collections import defaultdict, deque

from decider.experiment.unit_history import (
    HistoryDefinition,
    PastDecision,
    PastReward,
    history_features,
    with_history,
)
from decider.types import Context, Position, Time
from simulator.worlds.world import Visits, World


class UnitPasts:
    """Of all units of these visits. Rounds must come in their order."""

    def __init__(self, world: World, visits: Visits, history: HistoryDefinition) -> None:
        self._world = world
        self._history = history
        self._units = visits.units.tolist()
        self._delays = visits.delays.tolist()
        self._rewards, self._names = visits.rewards.tolist(), visits.names.tolist()
        self._past: defaultdict[int, deque[PastDecision]] = defaultdict(lambda: deque(maxlen=history.most))

    def context(self, number: int, context: Context) -> Context:
        """The context of that round with what its unit did before."""
        at = self._time(number)
        period = at - self._history.period
        past = [_as_known(one, at) for one in self._past[self._units[number]] if one.time > period]
        return with_history(context, history_features(self._history, past, at))

    def chose(self, number: int, action: int, context: Context) -> None:
        """What was chosen there; the world says what becomes of it, and when. Everything was shown."""
        at = self._time(number)
        self._past[self._units[number]].append(
            PastDecision(
                position=Position(number),
                time=at,
                action=self._world.experiment.actions[action].id,
                channel=context.channel,
                activated=True,
                counts=True,
                deadline=Time(at + self._world.experiment.reward.window),
                rewards=self._reward(number, action, at),
            )
        )

    def _time(self, number: int) -> Time:
        return Time(round(self._world.arrives(number) * 1e6))

    def _reward(self, number: int, action: int, at: Time) -> tuple[PastReward, ...]:
        """The one that will come, if one does."""
        index = self._names[number][action]
        if index < 0:
            return ()
        name = self._world.reward_names[index]
        weight = self._world.experiment.reward.weights.get(name, 1.0)
        value = self._rewards[number][action] / weight if weight else 0.0
        arrives = Time(at + round(self._delays[number] * 1e6))
        return (PastReward(Position(number), arrives, name, value, weight),)


def _as_known(decision: PastDecision, at: Time) -> PastDecision:
    """Without the rewards that are still to come."""
    return decision._replace(rewards=tuple([one for one in decision.rewards if one.time <= at]))
