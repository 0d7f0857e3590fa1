"""The contexts of logged decisions as the domain's own type; one that comes again is the same object.

Called by whatever puts logged decisions before a policy or writes them as a log of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from decider.types import CONTEXT_FIELDS, Context
from simulator.logs.columns import Category, Columns, Number

CACHE_SIZE = 100_000


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
            if len(self._known) >= CACHE_SIZE:
                self._known.clear()
            context = self._known[codes] = Context(**known, features=given)
        return context


def _rows(columns: Sequence[NDArray[Any]], count: int) -> list[Any]:
    """The columns' values by row."""
    return list(zip(*[column.tolist() for column in columns], strict=True)) if columns else [()] * count


def _with_numbers(context: Context, names: tuple[str, ...], values: tuple[float, ...]) -> Context:
    given = {name: value for name, value in zip(names, values, strict=True) if value == value}  # nan: not given
    return context._replace(features={**context.features, **given})
