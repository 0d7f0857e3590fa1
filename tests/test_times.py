"""Times of foreign tables: their unit is told apart, or refused by name. A wrong unit makes hours of seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.logs.columns import Columns
from simulator.logs.dsjson_event import microseconds
from simulator.logs.errors import BadLog, BadRow
from simulator.logs.open import open_log
from simulator.logs.options import ReadOptions
from simulator.logs.times import Times

MOMENTS = st.integers(662_688_000, 4_102_444_799)
PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def read(path: Path, times: list[str], **options: object) -> Columns:
    """A table with these times, read back."""
    rows = [f"{'ab'[row % 2]},{row % 3 == 0:d},0.5,{time}" for row, time in enumerate(times)]
    path.write_text("\n".join(["action,reward,propensity,timestamp", *rows]) + "\n")
    return open_log(str(path), ReadOptions(**options))  # type: ignore[arg-type]  # by name


def test_nanoseconds_are_not_hours(tmp_path: Path) -> None:
    """60 decisions, one a second: 59 seconds, whatever the unit; as microseconds they would be 16.4 hours."""
    for per in PER_SECOND.values():
        columns = read(tmp_path / "log.csv", [str((1_767_225_600 + second) * per) for second in range(60)])
        assert (columns.time[0], columns.time[-1] - columns.time[0]) == (1_767_225_600_000_000, 59_000_000)


@given(second=MOMENTS, unit=st.sampled_from(sorted(PER_SECOND)), text=st.booleans())
def test_a_moment_fits_one_unit_only(second: int, unit: str, text: bool) -> None:
    """From 1991 to 2099 no two units overlap, so no number is ambiguous."""
    number = second * PER_SECOND[unit]
    found, wrong = Times("time").read(pa.array([str(number) if text else number]))
    assert (found.tolist(), wrong.tolist()) == ([second * 1_000_000], [False])


@given(
    moment=st.datetimes(datetime(1991, 1, 1), datetime(2099, 12, 31)),
    form=st.sampled_from(
        ["%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%dT%H:%M:%S,000"]
    ),
    zone=st.sampled_from(["", "Z", " UTC", "+00:00", " +0000"]),
)
def test_dates_as_people_write_them_are_read(moment: datetime, form: str, zone: str) -> None:
    """As strptime reads them; without a zone they are UTC."""
    wanted = int(moment.replace(microsecond=0, tzinfo=UTC).timestamp()) * 1_000_000
    found, wrong = Times("time").read(pa.array([moment.strftime(form) + zone, None]))
    assert (found.tolist(), wrong.tolist()) == ([wanted, 0], [False, True])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T10:00:00+0200", "2026-01-31T08:00:00"),
        ("2026-01-31 10:00:00.25 -05:30", "2026-01-31T15:30:00.25"),
        ("31/01/2026 10:00", "2026-01-31T10:00"),
        ("01/31/2026, 12:05 a.m.", "2026-01-31T00:05"),
        ("31-01-2026", "2026-01-31"),
    ],
)
def test_a_text_is_this_moment(text: str, moment: str) -> None:
    """Offsets, fractions and the twelve-hour clock change the moment."""
    found, wrong = Times("time").read(pa.array([text]))
    assert (found.astype("datetime64[us]")[0], wrong[0]) == (np.datetime64(moment), False)


@pytest.mark.parametrize(
    ("time", "says"),
    [
        ("45000", "'45000' fits no unit since 1970: it looks like a day of a spreadsheet (2023-03-15)"),
        ("20000", "days since 1970 (2024-10-04)"),
        ("17", "it looks like a count or an order"),
        ("2024", "it looks like a year"),
        ("20240131", "it looks like a date without marks (2024-01-31)"),
        ("20240131100000", "it looks like a date without marks (2024-01-31)"),
        ("639000000000000000", "ticks of .NET"),
        ("100000000000", "'100000000000' fits no unit since 1970"),
        ("1e400", "fits no unit"),
        ("01/02/2026", "may have the day or the month first"),
        ("30/02/2026", "is no date with the day first"),
        ("2026-02-30", "is not like 2021-07-29T10:00:00Z"),
        ("2026-01-31 25:00:00", "is not like"),
        ("2026-01-31 10:00 Europe/Berlin", "is not like"),
        ("31/01/26", "is not like"),
    ],
)
def test_what_fits_no_unit_is_refused_by_name(time: str, says: str, tmp_path: Path) -> None:
    """An Excel day read as seconds is half a day after 1970, and every figure over time is nonsense."""
    with pytest.raises(BadLog) as refused:
        read(tmp_path / "log.csv", [time])
    assert f"{tmp_path / 'log.csv'}:2: the time" in str(refused.value)
    assert says in str(refused.value)
    assert "--column ignore=timestamp" in str(refused.value) or "--skip-bad" in str(refused.value)


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
@pytest.mark.parametrize(
    ("before", "then", "says"),
    [
        ("1767225600", "1767225600000", "is in milliseconds, and the rows before it have seconds"),
        ("1767225600000000000", "1767225600000000", "is in microseconds, and the rows before it have nanoseconds"),
        ("1767225600", "2026-01-01", "is no number, and the rows before it have seconds"),
        ("2026-01-01", "1767225600", "is in seconds, and the rows before it have dates"),
        ("31/01/2026", "01/31/2026", "is no date with the day first"),
    ],
)
def test_a_column_has_one_unit(before: str, then: str, says: str, block_bytes: int, tmp_path: Path) -> None:
    """Two units in one column are two sources that were put together wrongly; also where they are in two blocks."""
    with pytest.raises(BadLog, match=says):
        read(tmp_path / "log.csv", [before] * 20 + [then], block_bytes=block_bytes)


def test_one_bad_time_does_not_hide_the_others(tmp_path: Path) -> None:
    """With --skip-bad the rest of its block is read as ever."""
    for times in (["1767225600", "soon", "1767225601"], ["2026-01-01", "soon", "2026-01-01 00:00:01"]):
        columns = read(tmp_path / "log.csv", times, skip_bad=True)
        assert columns.time.tolist() == [1_767_225_600_000_000, 1_767_225_601_000_000]
        assert columns.left_out == {"bad time": 1}


def test_an_order_is_left_out_as_the_message_says(tmp_path: Path) -> None:
    """The way out works."""
    columns = read(tmp_path / "log.csv", ["0", "1", "2"], columns=("ignore=timestamp",))
    assert (len(columns), columns.counts["without a time"]) == (3, 3)


def test_a_time_of_day_is_no_moment(tmp_path: Path) -> None:
    """A typed column without a date is refused by its type."""
    path = tmp_path / "log.parquet"
    table = pa.table({"action": ["a"], "reward": [1.0], "time": pa.array([36_000], pa.time32("ms"))})
    pq.write_table(table, path)
    with pytest.raises(BadLog, match=r"column 'time' holds time32\[ms\], which is no moment"):
        open_log(str(path), ReadOptions())


def test_dsjson_reads_the_same_texts() -> None:
    """A log in two formats has the same times."""
    assert microseconds("2026-01-31 10:00:00 UTC") == microseconds("2026-01-31T12:00:00+0200")
    for text in ("01/02/2026 10:00", "soon", 1_767_225_600, "45000"):
        with pytest.raises(BadRow, match=f"the time {text!r}"):
            microseconds(text)
