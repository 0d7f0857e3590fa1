"""Logged decisions as requests to the code that serves, and its answers as rows of a matrix. Called by `candidates.py`.

A context that comes again is the same object; answers over the same actions are placed together.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.decide import distribute
from decider.errors import DeciderError
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Choice, Model, Policy
from decider.policy.sampler import SLOTS, Slots
from decider.types import CONTEXT_FIELDS, ActionId, Context, DecisionId, DecisionRequest, Features
from simulator.logs.columns import Category, Columns, Floats, Number

KEPT_CONTEXTS = 100_000


class DoesNotFit(DeciderError):
    """A policy that cannot be asked about this log; the message names what does not fit."""

    reason = "POLICY_DOES_NOT_FIT"


class Contexts:
    """The contexts of a log's decisions, block by block."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], Context] = {}

    def of(self, block: Columns) -> list[Context]:
        """Of every decision, as it was logged.

        >>> from simulator.logs.example import example
        >>> Contexts().of(example())[0]
        Context(segment='vip', device='phone', channel='', location='', intent_stage='', features={'age': 31.0})
        """
        categories = {name: one for name, one in block.fields.items() if isinstance(one, Category)}
        plain = [
            self._context(categories, codes) for codes in _rows([one.codes for one in categories.values()], len(block))
        ]
        numbers = {name: one.values for name, one in block.fields.items() if isinstance(one, Number)}
        if not numbers:
            return plain
        rows = _rows(list(numbers.values()), len(block))
        return [_with_numbers(context, tuple(numbers), row) for context, row in zip(plain, rows, strict=True)]

    def _context(self, fields: dict[str, Category], codes: tuple[int, ...]) -> Context:
        context = self._known.get(codes)
        if context is None:
            given = {
                name: one.values[code] for (name, one), code in zip(fields.items(), codes, strict=True) if code >= 0
            }
            known = {name: given.pop(name) for name in CONTEXT_FIELDS if name in given}
            if len(self._known) >= KEPT_CONTEXTS:
                self._known.clear()
            context = self._known[codes] = Context(**known, features=given)
        return context


def _rows(columns: Sequence[NDArray[Any]], count: int) -> list[Any]:
    """The columns' values by row."""
    return list(zip(*[column.tolist() for column in columns], strict=True)) if columns else [()] * count


def _with_numbers(context: Context, names: tuple[str, ...], values: tuple[float, ...]) -> Context:
    given = {name: value for name, value in zip(names, values, strict=True) if value == value}  # nan: not given
    return context._replace(features={**context.features, **given})


class Asked:
    """One policy behind the rules of its experiment, without the holdout."""

    def __init__(self, name: str, version: ExperimentVersion, policy: Policy, *, actions: tuple[str, ...]) -> None:
        experiment = replace(version.experiment, holdout=0.0)
        self.name = name
        self.policy = policy
        self._version = ExperimentVersion(
            experiment, number=version.number, position=version.position, time=version.time
        )
        self._model = Model(policy)
        self._index = {action: number for number, action in enumerate(actions)}
        self._eligible: dict[tuple[int, ...], tuple[ActionId, ...]] = {}
        self._taught: dict[tuple[int, ...], tuple[ActionId, ...]] = {}

    def requests(self, block: Columns, contexts: Contexts) -> list[DecisionRequest]:
        """What the server would have been asked, decision by decision; only the actions that this policy has."""
        eligible = [self._eligible_of(members, block.actions) for members in block.sets]
        extra = self._extra(block)
        return [
            DecisionRequest(DecisionId(""), "", context, eligible[members], action_features=extra[features])
            for context, members, features in zip(
                contexts.of(block), block.eligible.tolist(), _extra_codes(block), strict=True
            )
        ]

    def _eligible_of(self, members: tuple[int, ...], actions: tuple[str, ...]) -> tuple[ActionId, ...]:
        """The policy's active actions that were eligible, and those that the log does not know; () for all."""
        known = self._eligible.get(members)
        if known is None:
            there = {actions[member] for member in members}
            chosen = tuple([id_ for id_ in self._version.all_active if id_ in there or id_ not in self._index])
            if not chosen:
                raise DoesNotFit(
                    f"{self.name}: has none of the actions that were eligible in a decision of the log: "
                    f"{', '.join(sorted(there)[:10])}"
                )
            known = self._eligible[members] = () if chosen == self._version.all_active else chosen
        return known

    def _extra(self, block: Columns) -> list[dict[ActionId, Features]]:
        """Features given with the call, by code; of the actions that this policy has."""
        texts = block.action_features.values if block.action_features else ()
        parsed = [json.loads(text) for text in texts]
        return [{id_: features for id_, features in one.items() if id_ in self._version.lines} for one in parsed] + [{}]

    def answer(self, request: DecisionRequest) -> tuple[tuple[ActionId, ...], Slots]:
        """The eligible actions and their slots, as `decide` would draw from."""
        eligible, slots, _ = distribute(request, self._version, self._model)
        return eligible, slots

    def place(self, answers: Sequence[tuple[tuple[ActionId, ...], Slots]]) -> Floats:
        """(n, actions of the log): the answers as probabilities; actions that the log does not know are left out."""
        dense = np.zeros((len(answers), len(self._index)))
        together: dict[tuple[ActionId, ...], list[int]] = defaultdict(list)
        for row, (eligible, _) in enumerate(answers):
            together[eligible].append(row)
        for eligible, rows in together.items():
            slots = np.array([answers[row][1] for row in rows]) / SLOTS
            known = [place for place, id_ in enumerate(eligible) if id_ in self._index]
            dense[np.ix_(rows, [self._index[eligible[place]] for place in known])] = slots[:, known]
        return dense

    def lessons(self, block: Columns) -> list[tuple[ActionId, ...]]:
        """By set: the actions that were eligible and that this policy has, in its order, retired ones too."""
        return [self._taught_of(members, block.actions) for members in block.sets]

    def _taught_of(self, members: tuple[int, ...], actions: tuple[str, ...]) -> tuple[ActionId, ...]:
        known = self._taught.get(members)
        if known is None:
            there = {actions[member] for member in members}
            chosen = tuple([id_ for id_ in self._version.lines if id_ in there])
            known = self._taught[members] = self._version.all_active if chosen == self._version.all_active else chosen
        return known

    def lines(self, eligible: tuple[ActionId, ...], request: DecisionRequest) -> Sequence[Choice]:
        """The encoded actions that are learned from."""
        return self._version.encoded(eligible, request.action_features)


def _extra_codes(block: Columns) -> list[int]:
    return block.action_features.codes.tolist() if block.action_features else [-1] * len(block)
