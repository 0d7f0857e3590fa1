"""Fields that look like an id: nothing can be learned from one, and one that names the unit must not be context.

Called by `tables.py` and `context_fields.py`. A field is judged by its name and by how its values look and come again:
an id has many values, each in few rows and all about equally often; a category has few, or some that are much more
common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from simulator.logs.columns import Category, Columns, Field, Floats, Longs, Number
from simulator.logs.names import words_of

LOOKS_LIKE_ID, COUNTS_ROWS = "looks like an id", "counts the rows"
"""How the reasons begin."""

TAKEN_FOR_UNIT = "intervals take it for the unit"
"""How the reason ends of the one that is more than left out."""

ENOUGH_ROWS = 50
"""With fewer rows a category has as many values as rows by chance."""

MANY_VALUES = 20
"""A field with fewer values, or whose rows have fewer of them in common, is a category, whatever they look like."""

RETURNS = 100
"""An id comes in fewer rows than this; what comes more often can be learned from."""

SHAPED = 0.95
"""Share of the values that must look alike."""

A_FEW = 3
"""Values for each action at most, for a field that names the actions."""

SAMPLE = 1_000
"""Values that are looked at."""

LEAST_ID_NUMBER = 10_000
"""Whole numbers below are ages, counts and prices unless the field's name says that they are ids."""

ID_ENDINGS = frozenset(["id", "ids", "uid", "uuid", "guid", "hash", "token", "identifier", "login", "handle"])
NUMBER_ENDINGS = frozenset(["number", "no", "nr", "num", "key", "code"])
"""Of an id only where a person is named, too: a customer's number is one, a page's is not."""

PERSONS = frozenset((
    "user", "visitor", "customer", "client", "member", "account", "profile", "contact", "subscriber", "guest",
    "person", "household", "shopper", "buyer", "player", "cookie", "session", "email", "mail", "phone",
    "msisdn", "ip", "imei", "idfa", "gaid", "anonymous", "uid", "uuid", "guid",
))  # fmt: skip
CATEGORIES = frozenset((
    "hour", "day", "week", "month", "year", "quarter", "minute", "age", "size", "zone", "slot", "position",
    "rank", "version", "segment", "category", "type", "kind", "group", "cluster", "zip", "postcode", "region",
    "city", "country", "state", "store", "page", "level", "tier", "class", "size", "color", "colour", "brand",
    "campaign", "shop", "branch", "topic", "model", "flight", "referrer", "product", "item", "sku", "line", "source",
    "medium", "keyword", "url", "path", "banner", "creative", "ad", "template", "variant", "layout", "device", "viewed",
    "income", "price", "amount", "cents", "revenue", "cart", "score", "language", "locale", "channel", "query", "title",
))  # fmt: skip
"""Words of fields whose values are often numbered and are categories all the same."""

_UUID = re.compile(r"\{?[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\}?")
_HEX = re.compile(r"(?=.*[0-9])(?=.*[a-fA-F])(0x)?[0-9a-fA-F]{8,}")
_NUMBERED = re.compile(r"(.*?)([0-9]+)")


def id_fields(fields: Mapping[str, Field], *, but: frozenset[str]) -> dict[str, str]:
    """Which of the fields look like an id, each with the reason; those in `but` are not looked at.

    >>> users = Category(np.arange(60, dtype=np.int32), tuple(f"user-{number}" for number in range(60)))
    >>> id_fields({"who": users, "age": Number(np.arange(60) / 2)}, but=frozenset())
    {'who': 'looks like an id: 60 different values in 60 rows'}
    """
    found = {name: _reason(name, field) for name, field in fields.items() if name not in but}
    return {name: reason for name, reason in found.items() if reason}


def without_fields(columns: Columns, found: Mapping[str, str]) -> Columns:
    """The fields that look like ids are set aside, each with its reason, unless it has one already.

    >>> from simulator.logs.example import example
    >>> log = without_fields(example(), {"segment": "looks like an id"})
    >>> sorted(log.fields), log.set_aside
    (['age', 'device'], {'segment': 'looks like an id'})
    """
    kept = {name: field for name, field in columns.fields.items() if name not in found}
    return replace(columns, fields=kept, set_aside={**found, **columns.set_aside})


def is_only_an_id(reason: str) -> bool:
    """Whether a field was left out as an id, and that is all: it is no leak, and nothing was made of it.

    >>> is_only_an_id("looks like an id"), is_only_an_id("looks like an id; intervals take it for the unit")
    (True, False)
    """
    return reason.startswith((LOOKS_LIKE_ID, COUNTS_ROWS)) and not reason.endswith(TAKEN_FOR_UNIT)


def unit_by_shape(columns: Columns, found: Mapping[str, str]) -> Columns:
    """For a log without units: what looks like an id and comes again is taken for the unit, and that is said.

    If it is none, intervals are too wide; if it were one and nobody took it for that, they would be too short.

    >>> from simulator.logs.example import example
    >>> unit_by_shape(example(), {"segment": "looks like an id"}).unit.tolist()
    [0, 1]
    """
    codes = {name: _unit_codes(columns.fields[name]) for name in found}
    number = {name: len(np.unique(code)) for name, code in codes.items()}
    again = [name for name, values in number.items() if 2 * values <= len(columns)]
    if not again:
        return columns
    name = min(again, key=lambda one: number[one])
    reason = f"{found[name]}; {TAKEN_FOR_UNIT}"
    return replace(columns, unit=codes[name], person=None, set_aside={**columns.set_aside, name: reason})


def names_of_actions(columns: Columns, found: Mapping[str, str]) -> frozenset[str]:
    """Which of the fields go with the drawn action one to one, or nearly: a banner's number is no visitor's.

    >>> from simulator.logs.example import example
    >>> names_of_actions(example(), {"segment": "looks like an id"})
    frozenset({'segment'})
    """
    return frozenset(name for name in found if _tells_action(columns, _unit_codes(columns.fields[name])))


def _tells_action(columns: Columns, codes: Longs) -> bool:
    values, code = np.unique(codes, return_inverse=True)
    drawn = np.bincount(code * len(columns.actions) + columns.action, minlength=len(values) * len(columns.actions))
    modal = drawn.reshape(len(values), -1).max(axis=1).sum()
    return bool(len(values) <= A_FEW * len(columns.actions) and modal > SHAPED * len(codes))


def _unit_codes(field: Field) -> Longs:
    """Equal where the value is; a decision without one is a unit of its own."""
    if isinstance(field, Category):
        codes = field.codes.astype(np.int64)
    else:
        codes = np.unique(np.nan_to_num(field.values, nan=-1.0), return_inverse=True)[1]
        codes = np.where(np.isnan(field.values), -1, codes)
    return np.where(codes < 0, -1 - np.arange(len(codes)), codes)


def _reason(name: str, field: Field) -> str:
    if isinstance(field, Category):
        given = field.codes[field.codes >= 0]
        counts = np.bincount(given) if len(given) else np.zeros(0, np.int64)
        used = np.flatnonzero(counts)
        texts = [field.values[code] for code in used[:SAMPLE].tolist()]
        return _is_category_of_ids(words_of(name), texts, counts[used])
    return _is_number_of_ids(words_of(name), field)


def _is_category_of_ids(words: Sequence[str], texts: Sequence[str], counts: Longs) -> str:
    values, rows = len(counts), int(counts.sum())
    if rows > ENOUGH_ROWS and 2 * values > rows:
        return _many(values, rows)
    if values < MANY_VALUES or not _is_even(counts) or rows > RETURNS * values:
        return ""
    form = _form(texts)
    if form == "UUID":
        return f"{LOOKS_LIKE_ID}: {values:,} UUIDs in {rows:,} rows"
    if _sounds_like_id(words):
        return _many(values, rows)
    numbered = bool(form) and not CATEGORIES & set(words)
    if numbered or (values >= 5 * MANY_VALUES and rows < MANY_VALUES * values):
        return f"{LOOKS_LIKE_ID}: {values:,} different {form or 'values'} in {rows:,} rows"
    return ""


def _many(values: int, rows: int) -> str:
    return f"{LOOKS_LIKE_ID}: {values:,} different values in {rows:,} rows"


def _is_even(counts: Longs) -> bool:
    """No few values are much more common than the others: two rows coincide as seldom as with many common ones."""
    total = float(counts.sum())
    effective = total * total / float((counts.astype(np.float64) ** 2).sum())
    return effective >= min(MANY_VALUES, len(counts) / 2)


def _form(texts: Sequence[str]) -> str:
    """What nearly all of the values look like; empty if they do not look alike."""
    enough = SHAPED * len(texts)
    if sum(_UUID.fullmatch(text) is not None for text in texts) >= enough:
        return "UUID"
    if sum(_HEX.fullmatch(text) is not None for text in texts) >= enough:
        return "hexadecimal values"
    numbered = [found[1] for text in texts if (found := _NUMBERED.fullmatch(text))]
    return f"values like {texts[0]!r:.40}" if len(numbered) >= enough and len({*numbered}) == 1 else ""


def _sounds_like_id(words: Sequence[str]) -> bool:
    """By its last word, or because it names a person and nothing about them."""
    if not words or CATEGORIES & set(words):
        return False
    of_person = words[-1] in NUMBER_ENDINGS and bool(PERSONS & set(words))
    return words[-1] in ID_ENDINGS or of_person or set(words) <= PERSONS


def _is_number_of_ids(words: Sequence[str], field: Number) -> str:
    """Whole numbers only: a measure has other values in between, or comes unequally often."""
    given = field.values[~np.isnan(field.values)]
    if len(given) <= ENOUGH_ROWS or not _all_whole(given):
        return ""
    values, counts = np.unique(given, return_counts=True)
    rows, many = len(given), len(values)
    if many == rows and values[-1] - values[0] == rows - 1:
        return f"{COUNTS_ROWS}: {rows:,} consecutive numbers"
    if many < MANY_VALUES or rows > RETURNS * many or not _equally_often(counts):
        return ""
    if _sounds_like_id(words) or (3 * many <= rows and _is_far_from_measure(values) and not CATEGORIES & set(words)):
        return f"{LOOKS_LIKE_ID}: {many:,} different whole numbers in {rows:,} rows"
    return ""


def _all_whole(values: Floats) -> bool:
    return bool((values[:SAMPLE] == np.floor(values[:SAMPLE])).all() and (values == np.floor(values)).all())


def _equally_often(counts: Longs) -> bool:
    """The values come no more unequally than by drawing each with the same probability."""
    mean = float(counts.mean())
    return float(counts.var()) <= 1.5 * mean


def _is_far_from_measure(values: Floats) -> bool:
    """Large numbers that are the same few again: a measure of this size would seldom repeat itself."""
    return bool(values[0] >= LEAST_ID_NUMBER)
