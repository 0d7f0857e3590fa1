"""A context field that grows row by row, for logs whose rows name their own fields. Called by `dsjson.py`.

A row costs 4 bytes for each text field and 8 for each number; nothing of it stays a Python object.
"""

from __future__ import annotations

from array import array

import numpy as np

from simulator.logs.columns import Category, Codes, Field, Floats, Number

NAN = float("nan")


class FieldBuilder:
    """One field: texts, numbers, or both; then the numbers become texts too.

    >>> field = FieldBuilder(); field.put(0, "web"); field.put(2, "app")
    >>> field.finish(4)
    Category(codes=array([ 0, -1,  1, -1], dtype=int32), values=('web', 'app'))
    """

    __slots__ = ("_codes", "_index", "_numbers")

    def __init__(self) -> None:
        self._codes = array("i")
        self._numbers = array("d")
        self._index: dict[str, int] = {}

    def put(self, row: int, value: str | float) -> None:
        """The value of a row; rows come in rising order, the last value of a row counts."""
        if type(value) is str:
            _put(self._codes, row, self._index.setdefault(value, len(self._index)), -1)
        else:
            _put(self._numbers, row, value, NAN)  # type: ignore[arg-type]

    @property
    def mixed(self) -> int:
        """How many numbers stand among texts: they become texts, too."""
        return int(np.count_nonzero(~np.isnan(np.frombuffer(self._numbers)))) if self._index else 0

    def finish(self, rows: int) -> Field:
        """The whole field."""
        numbers = np.full(rows, NAN)
        numbers[: len(self._numbers)] = np.frombuffer(self._numbers, np.float64)
        if not self._index:
            return Number(numbers)
        codes = np.full(rows, -1, np.int32)
        codes[: len(self._codes)] = np.frombuffer(self._codes, np.int32)
        return Category(self._as_texts(codes, numbers), tuple(self._index))

    def _as_texts(self, codes: Codes, numbers: Floats) -> Codes:
        only_number = (codes < 0) & ~np.isnan(numbers)
        values, inverse = np.unique(numbers[only_number], return_inverse=True)
        index = [self._index.setdefault(str(value), len(self._index)) for value in values.tolist()]
        codes[only_number] = np.array(index, np.int32)[inverse]
        return codes


def _put(column: array[int] | array[float], row: int, value: float, missing: float) -> None:
    if len(column) < row:
        column.extend([missing] * (row - len(column)))  # type: ignore[list-item]
    if len(column) == row:
        column.append(value)  # type: ignore[arg-type]
    else:
        column[row] = value  # type: ignore[call-overload]
