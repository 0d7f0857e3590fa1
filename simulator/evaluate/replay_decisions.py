"""Logged decisions, decided again by a policy as the server would, as rows of a matrix. Called by `candidates.py`.

The rules, the floor and the rounding are those of `decide`; what depends on the set of eligible actions alone is
computed once for each set.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from decider.decide.decide import baseline_slots, rule_slots, to_shares, usable_pmf
from decider.decide.slots import SLOTS, Slots, to_slots_many
from decider.errors import DeciderError
from decider.experiment.definition import KIND, ExperimentVersion
from decider.policy.protocol import Choice, PlainPolicy
from decider.types import ActionId, Context, Features
from simulator.load_policy import end_if_bad
from simulator.logs.columns import Columns, Floats

CACHED_MENUS = 10_000
"""Then the cache is emptied: a log seldom has so many different eligible sets."""


class DoesNotFit(DeciderError):
    """A policy that cannot decide for this log; the message names what does not fit."""

    reason = "POLICY_DOES_NOT_FIT"


@dataclass(frozen=True, slots=True, eq=False)
class Menu:
    """What one policy can choose from in a decision, computed once for each eligible set and its features.

    choices: its eligible actions, in its experiment's order; ruled: the slots where a rule decides. places: each one's
    column in the log, -1 where the log does not know it. taught: the logged actions that it can learn about, retired
    ones too; drawn: each log action's index among these, -1 for those it cannot.
    """

    choices: Sequence[Choice]
    ruled: Slots | None
    places: NDArray[np.int64]
    taught: Sequence[Choice]
    drawn: tuple[int, ...]


def _called(
    version: ExperimentVersion, logged: Collection[str], features: Mapping[ActionId, Features]
) -> tuple[ActionId, ...]:
    """The actions that only the call knew, in the order of `decide`, where the experiment lets calls bring actions."""
    if not version.experiment.most_actions:
        return ()
    return tuple(sorted(id_ for id_ in features if id_ in logged and id_ not in version.choices))


def _own(given: Features) -> Features:
    """Without the kind: the log has it of actions that only their calls knew, and later versions may have declared
    them."""
    return {name: value for name, value in given.items() if name != KIND} if KIND in given else given


class ReplayedPolicy:
    """One policy behind the rules, the floor and the sampler of its experiment, but without the holdout."""

    def __init__(self, name: str, version: ExperimentVersion, policy: PlainPolicy, *, actions: tuple[str, ...]) -> None:
        experiment = replace(version.experiment, holdout=0.0)
        self.name = name
        self.policy = policy
        self._version = ExperimentVersion(
            experiment, number=version.number, position=version.position, time=version.time
        )
        self._index = {action: number for number, action in enumerate(actions)}
        self._actions = actions
        self._menus: dict[tuple[tuple[int, ...], str], Menu] = {}

    def menus(self, block: Columns) -> list[Menu]:
        """Of every decision. Raises DoesNotFit where the policy has none of the actions."""
        features = block.action_features
        texts = (*features.values, "") if features else ("",)
        codes = features.codes.tolist() if features else [-1] * len(block)
        known: dict[tuple[int, int], Menu] = {}
        menus = []
        for key in zip(block.eligible.tolist(), codes, strict=True):
            menu = known.get(key)
            if menu is None:
                menu = known[key] = self.menu(block.sets[key[0]], texts[key[1]])
            menus.append(menu)
        return menus

    def menu(self, members: tuple[int, ...], text: str) -> Menu:
        """Of these eligible actions, with the action features that the text holds as JSON. Raises as `menus`."""
        menu = self._menus.get((members, text))
        if menu is None:
            if len(self._menus) >= CACHED_MENUS:
                self._menus.clear()
            menu = self._menus[members, text] = self._new_menu(members, json.loads(text) if text else {})
        return menu

    def _new_menu(self, members: tuple[int, ...], features: Mapping[ActionId, Features]) -> Menu:
        """Eligible are the policy's active actions that were so in the log, and those that the log does not know."""
        version = self._version
        logged = {self._actions[member] for member in members}
        called = _called(version, logged, features)
        extra = {id_: _own(given) for id_, given in features.items() if id_ in version.choices}
        extra |= {id_: features[id_] for id_ in called}
        eligible = tuple([id_ for id_ in version.all_active if id_ in logged or id_ not in self._index]) + called
        if not eligible:
            raise DoesNotFit(
                f"{self.name}: has none of the actions that were eligible in a decision of the log: "
                f"{', '.join(sorted(logged)[:10])}"
            )
        choices = version.choices_of(eligible, extra)
        ruled = rule_slots(version, self.policy, choices)
        taught = tuple([id_ for id_ in version.choices if id_ in logged]) + called
        return Menu(
            choices=choices,
            ruled=ruled[0] if ruled else None,
            places=np.array([self._index.get(id_, -1) for id_ in eligible]),
            taught=version.choices_of(taught, extra),
            drawn=tuple([taught.index(ActionId(id_)) if id_ in taught else -1 for id_ in self._actions]),
        )

    def pmf(self, context: Context, menu: Menu) -> Sequence[float] | None:
        """The policy's own, before floor and rounding; None where a rule decides or the policy gives no usable pmf."""
        if menu.ruled is not None:
            return None
        return usable_pmf(self._version, self.policy, context, menu.choices, on_failure=end_if_bad)

    def served(self, menus: Sequence[Menu], pmfs: Sequence[Sequence[float] | None]) -> Floats:
        """(n, actions of the log): the pmfs that would be served. Actions that the log does not know are left out.

        `slots_of` for many decisions at once; a test holds the two equal.
        """
        dense = np.zeros((len(pmfs), len(self._actions)))
        alike: dict[tuple[Menu, bool], list[int]] = defaultdict(list)
        for row, (menu, pmf) in enumerate(zip(menus, pmfs, strict=True)):
            alike[menu, pmf is None].append(row)
        minimum = self._version.experiment.minimum_propensity
        for (menu, without_pmf), rows in alike.items():
            if without_pmf:
                slots = np.array([menu.ruled or baseline_slots(self._version, [one.id for one in menu.choices])])
            else:
                slots = to_slots_many(np.array([pmfs[row] for row in rows]), minimum=minimum)
                if self._version.shares:
                    slots = np.array([to_shares(self._version, tuple(row), menu.choices) for row in slots.tolist()])
            known = menu.places >= 0
            dense[np.ix_(np.array(rows), menu.places[known])] = slots[:, known] / SLOTS
        return dense
