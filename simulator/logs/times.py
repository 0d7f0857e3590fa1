"""A column of times -> microseconds since 1970. Called by the readers of tables and of dsjson.

Numbers are seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size: a moment from 1991
to 2099 fits exactly one of them. Texts are ISO 8601 or a date as people write it. A time without a zone is UTC. All of
a column has one unit; what fits none, or another one than the rows before, is refused with what it looks like.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.logs.arrow import is_missing, is_text, numbers, texts
from simulator.logs.columns import Flags, Floats, Longs
from simulator.logs.errors import SKIP, BadLog, BadRow

_FIRST, _LAST = 662_688_000, 4_102_444_800
"""Seconds: 1991 to 2099. From 1991, because .NET's ticks of today would be nanoseconds of 1990."""

_DATE = r"(?P<first>\d{1,4})(?P<mark>[-/.])(?P<second>\d{1,2})[-/.](?P<third>\d{1,4})"
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<seconds>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
_ZONE = r"(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"
_FORM = rf"(?i)^{_DATE}(?:(?:T|,? +){_CLOCK}\s*(?P<half>[AP]\.?M\.?)?\s*{_ZONE}?)?$"
_OFFSET = r"^(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2})?$"
_LIKE = "2021-07-29T10:00:00Z"
_EXCEL = datetime(1899, 12, 30, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Unit(NamedTuple):
    """per: how many of it are a second."""

    name: str
    per: int


_UNITS = (
    _Unit("seconds", 1),
    _Unit("milliseconds", 1_000),
    _Unit("microseconds", 1_000_000),
    _Unit("nanoseconds", 1_000_000_000),
)
_TEXT = _Unit("dates", 0)


class Times:
    """Reads a column block by block; remembers the unit, and the order of day and month, of the rows before.

    >>> Times("time").read(pa.array(["2019-11-24 00:00:10.5+00:00", "2019-11-24", "soon"]))
    (array([1574553610500000, 1574553600000000,                0]), array([False, False,  True]))
    >>> Times("time").read(pa.array([1574553600000000000]))[0].tolist()
    [1574553600000000]
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._unit: _Unit | None = None
        self._day_first: bool | None = None

    def read(self, column: Any) -> tuple[Longs, Flags]:
        """(n,) microseconds since 1970, and where there is no time. Raises BadLog where the column can hold none."""
        if is_text(column):
            return self._texts(texts(column))
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return _microseconds(column)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
            return self._numbers(column, np.zeros(len(column), np.bool_))
        raise BadLog(
            f"column {self._name!r} holds {column.type}, which is no moment; give dates with their time, like {_LIKE}, "
            f"or leave it out: --column ignore={self._name}"
        )

    def _texts(self, column: Any) -> tuple[Longs, Flags]:
        moments = _iso(column)
        if moments is not None and self._unit in (None, _TEXT):
            self._unit = _TEXT
            return _microseconds(moments)
        column = pc.utf8_trim_whitespace(column)
        wrong = numbers(column)[1] | is_missing(column)
        if self._unit is None:
            self._unit = self._unit_of_texts(column, wrong)
        return self._dates(column) if self._unit in (None, _TEXT) else self._numbers(column, wrong)

    def _unit_of_texts(self, column: Any, no_number: Flags) -> _Unit | None:
        """That of the first row that can be read."""
        date = pc.fill_null(pc.match_substring_regex(column, _FORM), False).to_numpy(zero_copy_only=False)
        found = _first_unit(_exact(column, no_number))
        if date.any() and (found is None or np.argmax(date) < found[0]):
            return _TEXT
        return found and found[1]

    def _numbers(self, column: Any, wrong: Flags) -> tuple[Longs, Flags]:
        values = _exact(column, wrong)
        if self._unit is None:
            found = _first_unit(values)
            self._unit = found and found[1]
        if self._unit in (None, _TEXT):
            return np.zeros(len(values), np.int64), np.ones(len(values), np.bool_)
        wrong = ~_fits(values, self._unit)
        values = np.where(wrong, 0, values)
        if self._unit.per > 1_000_000:
            return np.floor_divide(values, 1_000).astype(np.int64), wrong
        return np.round(values * (1_000_000 // self._unit.per)).astype(np.int64), wrong

    def _dates(self, column: Any) -> tuple[Longs, Flags]:
        parts = _Parts(column)
        if self._day_first is None:
            self._day_first = parts.day_first()
        return parts.microseconds(day_first=self._day_first)

    def problem(self, value: object) -> BadRow:
        """What is wrong with a value that `read` refused.

        >>> Times("day").problem(45000).what
        'the time 45000 fits no unit since 1970: it looks like a day of a spreadsheet (2023-03-15)'
        """
        number = _as_number(value)
        if value is None or number != number or not str(value).strip():  # nan alone is not equal to itself
            return BadRow("time", "the time is empty", f"{SKIP}; or leave the column out: --column ignore={self._name}")
        if number is None:
            return self._text_problem(value)
        unit = next((unit for unit in _UNITS if _FIRST * unit.per <= number < _LAST * unit.per), None)
        if unit is not None and self._unit is not None:
            before = self._unit.name
            return self._refused(f"{value!r} is in {unit.name}, and the rows before it have {before}")
        looks = _looks_like(number)
        return self._refused(f"{value!r} fits no unit since 1970" + (f": it looks like {looks}" if looks else ""))

    def _refused(self, what: str) -> BadRow:
        remedy = (
            f"give dates like {_LIKE} or seconds since 1970, or leave the column out: --column ignore={self._name}; "
            "rows then count in their order"
        )
        return BadRow("time", f"the time {what}", remedy)

    def _text_problem(self, text: object) -> BadRow:
        found = re.match(_FORM, str(text).strip())
        if found and self._unit not in (None, _TEXT):
            return self._refused(f"{text!r} is no number, and the rows before it have {self._unit.name}")
        if found and self._day_first is None and _is_ambiguous(found):
            return self._refused(f"{text!r} may have the day or the month first, and no row tells which")
        if found and self._day_first is not None and len(found["first"]) < 3 and found["mark"] != ".":
            order = "day" if self._day_first else "month"
            return self._refused(f"{text!r} is no date with the {order} first, as other rows have it")
        return BadRow("time", f"the time {text!r} is not like {_LIKE} or seconds since 1970")


def _is_ambiguous(found: re.Match[str]) -> bool:
    first, second = int(found["first"]), int(found["second"])
    return found["mark"] != "." and len(found["third"]) == 4 and first <= 12 and second <= 12 and first != second


def _iso(column: Any) -> Any:
    """ISO 8601 texts as times; None where one of them is none."""
    for kind in (pa.timestamp("ns", "UTC"), pa.timestamp("ns")):
        with suppress(pa.ArrowInvalid):
            return pc.cast(column, kind)
    return None


def _microseconds(moments: Any) -> tuple[Longs, Flags]:
    moments = moments.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    return moments.fill_null(0).to_numpy(zero_copy_only=False), is_missing(moments)


def _exact(column: Any, wrong: Flags) -> Longs | Floats:
    """Whole numbers stay whole (nanoseconds do not fit a float), 0 where there is none; else floats."""
    if wrong.any():
        column = pc.if_else(pa.array(~wrong), column, None)
    with suppress(pa.ArrowInvalid):
        whole: Longs = pc.cast(column, pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return whole
    return numbers(column)[0]


def _fits(values: Longs | Floats, unit: _Unit) -> Flags:
    flags: Flags = (values >= _FIRST * unit.per) & (values < _LAST * unit.per)
    return flags


def _first_unit(values: Longs | Floats) -> tuple[int, _Unit] | None:
    """The first row that fits a unit, and which."""
    rows = [(int(np.argmax(fits)), unit) for unit in _UNITS if (fits := _fits(values, unit)).any()]
    return min(rows, key=lambda found: found[0], default=None)


def _as_number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        return None


def _looks_like(number: float) -> str:
    """What people have in a column of times that is no moment, in words."""
    if 1990 <= number < 2100 and number == int(number):
        return "a year"
    if 7_305 <= number < 33_000:
        return f"days since 1970 ({_EPOCH + timedelta(days=number):%Y-%m-%d})"
    if 33_000 <= number < 73_000:
        return f"a day of a spreadsheet ({_EXCEL + timedelta(days=number):%Y-%m-%d})"
    if date := re.fullmatch(r"(19[89]\d|20\d\d)(0[1-9]|1[0-2])([0-2]\d|3[01])(\d{4}|\d{6}|\d{9})?", f"{number:.0f}"):
        return f"a date without marks ({'-'.join(date.groups()[:3])})"
    if 6.2e17 <= number < _FIRST * 1e9:
        return "ticks of .NET, counted from the year 1"
    return "a count or an order" if abs(number) < 1e8 else ""


class _Parts:
    """The parts of dates as people write them, as arrays; `ok`: where there is a date."""

    def __init__(self, column: Any) -> None:
        found = pc.extract_regex(column, _FORM)
        self.ok: Flags = ~is_missing(found)
        self._found = found
        self._marks = self._texts("mark")
        self._year_first = self._lengths("first") == 4
        self._year_last = self._lengths("third") == 4
        self.ok &= self._year_first != self._year_last
        self._first, self._second, self._third = (self._whole(name) for name in ("first", "second", "third"))
        self._open = self.ok & self._year_last & ~np.asarray(pc.equal(self._marks, "."), np.bool_)
        """Dates whose marks do not say whether the day or the month stands first."""

    def _texts(self, name: str) -> Any:
        return pc.fill_null(pc.struct_field(self._found, name), "")

    def _lengths(self, name: str) -> Any:
        return pc.utf8_length(self._texts(name)).to_numpy(zero_copy_only=False)

    def _whole(self, name: str) -> Longs:
        return _whole(self._texts(name))

    def day_first(self) -> bool | None:
        """What the first row tells that has a number above 12; None where none has."""
        day, month = self._open & (self._first > 12), self._open & (self._second > 12)
        if not (day | month).any():
            return None
        return bool(day[np.argmax(day | month)])

    def microseconds(self, *, day_first: bool | None) -> tuple[Longs, Flags]:
        """Since 1970, and where there is no time."""
        wrong = ~self.ok
        if day_first is None:
            wrong |= self._open & (self._first != self._second)
        swap = self._open & (not day_first)
        year = np.where(self._year_first, self._first, self._third)
        month = np.where(swap, self._first, self._second)
        day = np.where(self._year_first, self._third, np.where(swap, self._second, self._first))
        days, no_day = _days(year, month, day)
        clock, no_clock = self._clock()
        wrong |= no_day | no_clock
        return np.where(wrong, 0, days * 86_400_000_000 + clock - self._offset()), wrong

    def _clock(self) -> tuple[Longs, Flags]:
        hour, minute, seconds = (self._whole(name) for name in ("hour", "minute", "seconds"))
        half = pc.utf8_lower(self._texts("half"))
        twelve = np.asarray(pc.not_equal(half, ""), np.bool_)
        wrong = (hour > 23) | (minute > 59) | (seconds > 59) | (twelve & ((hour < 1) | (hour > 12)))
        afternoon = np.asarray(pc.starts_with(half, "p"), np.bool_)
        hour = np.where(twelve, hour % 12 + 12 * afternoon, hour)
        fraction = _whole(pc.utf8_rpad(self._texts("fraction"), 9, "0")) // 1_000
        return ((hour * 60 + minute) * 60 + seconds) * 1_000_000 + fraction, wrong

    def _offset(self) -> Longs:
        """Microseconds east of UTC."""
        found = pc.extract_regex(self._texts("zone"), _OFFSET)
        minutes = _whole(pc.struct_field(found, "hours")) * 60 + _whole(pc.struct_field(found, "minutes"))
        west = np.asarray(pc.fill_null(pc.equal(pc.struct_field(found, "sign"), "-"), False), np.bool_)
        offset: Longs = np.where(west, -minutes, minutes) * 60_000_000
        return offset


def _whole(column: Any) -> Longs:
    """Digits as numbers; 0 where there are none."""
    column = pc.if_else(pc.equal(column, ""), "0", column)
    whole: Longs = pc.cast(pc.fill_null(column, "0"), pa.int64()).to_numpy(zero_copy_only=False)
    return whole


def _days(year: Longs, month: Longs, day: Longs) -> tuple[Longs, Flags]:
    """Since 1970, and where there is no such day."""
    wrong = (month < 1) | (month > 12) | (day < 1)
    months = ((year - 1970) * 12 + np.where(wrong, 1, month) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (np.where(wrong, 1, day) - 1)
    wrong |= days.astype("datetime64[M]") != months
    return days.astype(np.int64), wrong


def parse_date(text: str) -> int | None:
    """Microseconds since 1970 of one date as people write it; None where it is none, or may be two.

    >>> parse_date("2026-01-31 10:00:00 UTC"), parse_date("01/02/2026")
    (1769853600000000, None)
    """
    parts = _Parts(pa.array([text.strip()], pa.string()))
    found, wrong = parts.microseconds(day_first=parts.day_first())
    return None if wrong[0] else int(found[0])
