"""Arrow columns -> numpy, in bulk: numbers, codes and keys of texts. Called by the readers of logs.

What cannot be read comes back as nan (or 0) beside a mask, so that the caller can name the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.logs.columns import Category, Codes, Flags, Floats, Longs
from simulator.logs.errors import BadLog
from simulator.logs.options import MOST_TEXTS

_NUMBER = r"^[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|[nN][aA][nN]|[+-]?[iI]nf)$"
NULLS = (
    *("", "null", "none", "nan", "-nan", "na", "n/a", "#n/a", "#na", "#n/a n/a", "<na>", "nat"),
    *("1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind", "\\n", "nil", "undefined"),
)
"""Texts that stand for nothing, in lower case: what spreadsheets, R, pandas and databases write."""

_TRUE, _FALSE = ("true", "yes"), ("false", "no")


def is_text(column: Any) -> bool:
    """Whether an Arrow array holds texts (or nothing at all).

    >>> is_text(pa.array(["a"])), is_text(pa.array(["a"]).dictionary_encode()), is_text(pa.array([1]))
    (True, True, False)
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def texts(column: Any) -> Any:
    """As an Arrow array of texts; whole numbers without a point, flags as "true" and "false".

    >>> texts(pa.array([1, None])).to_pylist()
    ['1', None]
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def numbers(column: Any) -> tuple[Floats, Flags]:
    """(n,) numbers, nan where there is none; and where something stands that is none. true is 1, false is 0.

    >>> numbers(pa.array(["1.5", "x", "NA", "true"]))
    (array([1.5, nan, nan, 1. ]), array([False,  True, False, False]))
    """
    if not is_text(column):
        column = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.zeros(len(column), np.bool_)
    column = texts(column)
    try:  # a block without a fault needs no regular expression
        found = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        return found, np.zeros(len(column), np.bool_)
    except pa.ArrowInvalid:
        return _some_numbers(column)


def _some_numbers(column: Any) -> tuple[Floats, Flags]:
    column = pc.utf8_trim_whitespace(column)
    lower = pc.utf8_lower(column)
    column = pc.if_else(pc.is_in(lower, pa.array(NULLS)), None, column)
    column = pc.if_else(pc.is_in(lower, pa.array(_TRUE)), "1", column)
    column = pc.if_else(pc.is_in(lower, pa.array(_FALSE)), "0", column)
    wrong = pc.fill_null(pc.invert(pc.match_substring_regex(column, _NUMBER)), False)
    found = pc.cast(pc.if_else(wrong, None, column), pa.float64())
    return found.to_numpy(zero_copy_only=False), wrong.to_numpy(zero_copy_only=False)


def all_numbers(column: Any) -> bool:
    """Whether texts are all numbers, or stand for nothing. "true" is no number here: a flag stays a category.

    >>> all_numbers(pa.array(["1", "NA"])), all_numbers(pa.array(["true"])), all_numbers(pa.array([""]))
    (True, False, False)
    """
    column = texts(column)
    try:
        nothing = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column)), pa.array(NULLS))
        found = pc.cast(pc.if_else(nothing, None, column), pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return False
    return not bool(np.isnan(found).all())


def is_missing(column: Any) -> Flags:
    """Where an Arrow array has nothing.

    >>> is_missing(pa.array([1, None])).tolist()
    [False, True]
    """
    missing: Flags = column.is_null().to_numpy(zero_copy_only=False)
    return missing


def category(chunks: list[Any]) -> Category:
    """One field from all of its chunks of texts; null and the empty text are not given.

    >>> category([pa.array(["web", None]), pa.array(["", "app"])])
    Category(codes=array([ 0, -1, -1,  1], dtype=int32), values=('web', 'app'))
    """
    column = pa.chunked_array(chunks, pa.string()).combine_chunks()
    encoded = pc.if_else(pc.equal(column, ""), None, column).dictionary_encode()
    return Category(_codes(encoded), tuple(encoded.dictionary.to_pylist()))


def distinct_by(chunks: list[Any], names: Mapping[str, str]) -> Codes:
    """The same where some texts have another name: codes are equal where the names are.

    >>> distinct_by([pa.array(["b", "a", "c"])], {"b": "x", "c": "x"}).tolist()
    [0, 1, 0]
    """
    encoded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    named = [names.get(text, text) for text in encoded.dictionary.to_pylist()]
    return distinct([pa.array(named, pa.string())])[_codes(encoded)]


def distinct(chunks: list[Any]) -> Codes:
    """Codes that are equal where the texts are, in order of first appearance; the texts themselves are dropped.

    >>> distinct([pa.array(["b", "a"]), pa.array(["b"])]).tolist()
    [0, 1, 0]
    """
    return _codes(pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode())


def _codes(encoded: Any) -> Codes:
    codes: Codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes


class TextCodes:
    """The texts of a column by code, the same over all blocks; an empty text or null is -1. most: different ones.

    >>> devices = TextCodes("device"); devices.codes(pa.array(["web", None])), devices.codes(pa.array(["app", "web"]))
    (array([ 0, -1], dtype=int32), array([1, 0], dtype=int32))
    >>> devices.values
    ('web', 'app')
    """

    def __init__(self, name: str, *, most: int = MOST_TEXTS) -> None:
        self._name = name
        self._most = most
        self._index: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._index)

    @property
    def values(self) -> tuple[str, ...]:
        """By code."""
        return tuple(self._index)

    def code(self, text: str) -> int:
        """Of one text."""
        return self._index.setdefault(text, len(self._index)) if text else -1

    def codes(self, column: Any) -> Codes:
        """Of an Arrow array. Raises BadLog where its values cannot be texts, or too many are different."""
        if not pa.types.is_dictionary(column.type):
            column = self.texts_of(column).dictionary_encode()
        codes = _codes(column)
        values = column.dictionary.cast(pa.string())
        used = np.flatnonzero(np.bincount(codes + 1, minlength=len(values) + 1)[1:])
        index = np.full(len(values) + 1, -1, np.int32)
        index[used] = [self.code(text) for text in values.take(pa.array(used)).to_pylist()]
        if len(self._index) > self._most:
            raise self._unusable(f"has more than {self._most:,} different texts")
        found: Codes = index[codes]
        return found

    def texts_of(self, column: Any) -> Any:
        """An Arrow array as texts. Raises BadLog where its values cannot be any."""
        try:
            return texts(column)
        except pa.ArrowNotImplementedError as error:
            raise self._unusable(f"holds {column.type}, which is no category") from error

    def _unusable(self, why: str) -> BadLog:
        return BadLog(f"column {self._name!r} {why}; leave it out: --column ignore={self._name}")


_PRIME = np.uint64(0x9E3779B97F4A7C15)


def keys(column: Any) -> Longs:
    """(n,) 63 bits that are equal where the texts are, and practically only there. null is the empty text.

    A polynomial of the bytes modulo 2^64, mixed as in splitmix64 (Steele, Lea and Flood, OOPSLA 2014, figure 16).

    >>> a, b, c = keys(pa.array(["ann", "bob", "ann"])); bool(a == c), bool(a == b)
    (True, False)
    """
    column = texts(column).fill_null("")
    ends = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1].astype(
        np.int64
    )
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)[ends[0] : ends[-1]]
    lengths, starts = np.diff(ends), ends[:-1] - ends[0]
    within = np.arange(len(data)) - np.repeat(starts, lengths)
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(int(lengths.max(initial=0)) + 1, _PRIME))
        terms = np.concatenate([np.zeros(1, np.uint64), np.cumsum((data.astype(np.uint64) + 1) * powers[within])])
        sums = terms[starts + lengths] - terms[starts]
        mixed: Longs = mix(sums + lengths.astype(np.uint64) * _PRIME).view(np.int64)
    return mixed


def mix(keys: Any) -> Any:
    """(n,) unsigned 64 bits -> 63 pseudo-random bits; 0 stays 0 (splitmix64).

    >>> [hex(key) for key in mix(np.array([0, 1], np.uint64)).tolist()]
    ['0x0', '0x2b490b0e880582f2']
    """
    with np.errstate(over="ignore"):
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (keys ^ (keys >> np.uint64(31))) >> np.uint64(1)
