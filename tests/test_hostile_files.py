"""Files from elsewhere that are no log, or were meant to hurt: one line that says what is wrong, in little memory."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from decider.errors import DeciderError
from decider.learn.versions import Versions
from decider.log.open import open_log as open_ours
from simulator.commands.verify import verify_command
from simulator.logs.errors import BadLog
from simulator.logs.files import MAX_LINE
from simulator.logs.open import ReadOptions, open_log
from tests.conftest import sample_experiment
from tests.rpc_clients import refused
from tests.test_dsjson_lines import decision

ROWS = 20


def read(path: Path, **options: Any) -> None:
    """As `evaluate`, `inspect` and `import` begin."""
    open_log(str(path), ReadOptions(**options))


# --- bombs


@pytest.mark.parametrize("name", ["log.dsjson.gz", "log.csv.gz", "log.dsjson", "log.csv"])
def test_one_endless_line_is_told_and_not_read_whole(tmp_path: Path, name: str) -> None:
    """3 GB in a file of 3 MB ended in "out of memory" after 30 s."""
    path, opened = tmp_path / name, gzip.open if name.endswith(".gz") else open
    with opened(path, "wb") as file:
        file.write(b"action,reward\n" if "csv" in name else b"")
        for _ in range(MAX_LINE // 2**20 + 2):
            file.write(b"x" * 2**20)
    with pytest.raises(BadLog, match=r"log\.(dsjson|csv)"):
        read(path)


def test_a_line_of_column_names_has_an_end(tmp_path: Path) -> None:
    """It is read before anything is known of the table."""
    (tmp_path / "log.csv").write_bytes(b"x" * (2**24 + 1))
    with pytest.raises(BadLog, match=r"log\.csv: the line of column names has 16777216 characters or more"):
        read(tmp_path / "log.csv")


@pytest.mark.parametrize("name", ["log.dsjson.gz", "log.csv.gz"])
def test_what_unpacks_to_far_too_much_is_told(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Billions of empty lines pack to a thousandth, too; a log that packs well is read."""
    monkeypatch.setattr("simulator.logs.files.FREE_EXPANSION", 2**20)
    header = b"action,reward\n" if "csv" in name else b""
    (tmp_path / name).write_bytes(gzip.compress(header + b"\n" * 2**22))
    with pytest.raises(BadLog, match=r"unpacks to more than \d+ bytes, 300 times its size"):
        read(tmp_path / name)
    good = header + b"a,1\n" * 2**16 if header else json.dumps(decision(1)).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(good))
    read(tmp_path / name)


def test_a_parquet_file_of_rows_without_content_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 million equal rows take 4.5 MB on disk, and half a minute and the memory to read."""
    monkeypatch.setattr("simulator.logs.table_bounds.FREE_ROWS_EXPANSION", 2**20)
    same = pa.table({"action": pa.array(["a"] * 10**6).dictionary_encode(), "reward": [1.0] * 10**6})
    pq.write_table(same, tmp_path / "log.parquet")
    with pytest.raises(BadLog, match=r"has 1000000 rows in \d+ bytes"):
        read(tmp_path / "log.parquet")


ROWS_OF_BOMB = 2**17
LONG = 2**20

READ_ALL = """
import resource, sys
from pathlib import Path
from simulator.logs import table_bounds
from simulator.logs.open import ReadOptions, open_log
table_bounds.FREE_ROWS_EXPANSION = 2**28  # an eighth, so that the bombs are made in a moment
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        open_log(str(path), ReadOptions())
        print(path.name, "was read")
    except Exception as error:
        print(path.name, type(error).__name__, str(error)[:400])
print(*[line for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


def _by_code(text: str, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()).fill_null(0), pa.array([text]))


def _bombs(folder: Path) -> None:
    """As ordinary writers make them. typed: the file says that the column is a dictionary; else only its pages do."""
    rows = ROWS_OF_BOMB
    good = {
        "action": _by_code("a", rows),
        "reward": pa.array([1.0] * rows),
        "propensity": pa.array([0.5] * rows),
        "time": pa.array(range(1_700_000_000, 1_700_000_000 + rows)),
        "unit_id": pa.array([f"u{number % 100}" for number in range(rows)]),
        "eligible": _by_code("a|b", rows),
    }
    for name in ("reward", "propensity", "time", "unit_id"):
        table = pa.table(good | {name: _by_code("x" * LONG, rows)})
        pq.write_table(table, folder / f"dictionary-{name}.parquet", store_schema=False)
    pq.write_table(pa.table(good | {"time": _by_code("x" * LONG, rows)}), folder / "typed-time.parquet")
    pq.write_table(pa.table(good), folder / "good.parquet")
    some = pa.table({"action": _by_code("a", 2**20), "reward": pa.nulls(2**20, pa.float64()).fill_null(1.0)})
    with pq.ParquetWriter(folder / "rows.parquet", some.schema) as writer:
        for _ in range(4):
            writer.write_table(some)
    # Each of these is fine by itself.
    (folder / "many").mkdir()
    for number in range(4):
        with pq.ParquetWriter(folder / "many" / f"{number}.parquet", some.schema) as writer:
            writer.write_table(some)
    values = 2**25 + 2**22
    listed = pa.ListArray.from_arrays(pa.array([0, values], pa.int32()), pa.nulls(values, pa.int8()).fill_null(1))
    pq.write_table(pa.table({"action": ["a"], "reward": [1.0], "eligible": listed}), folder / "list.parquet")
    texts = pa.table({"action": ["a"] * 32, "reward": [1.0] * 32, "unit_id": ["y" * 2**20] * 32})
    with pq.ParquetWriter(folder / "texts.parquet", texts.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(12):
            writer.write_table(texts)


def test_what_a_parquet_file_declares_is_looked_at_before_it_is_read(tmp_path: Path) -> None:
    """Some KB on disk, and GB in memory: many rows of two columns, texts in dictionaries, lists in one row, packed
    texts, and many files that are small by themselves. Whatever the columns are, little memory is taken."""
    _bombs(tmp_path)
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.parquet") if path.name != "good.parquet"}
    assert max(sizes.values()) < 2**20, sizes
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )  # fmt: skip
    *lines, peak = done.stdout.strip().splitlines()
    said = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines}
    assert said.pop("good.parquet") == "was read"
    for name in ("reward", "propensity", "time", "unit_id"):
        assert f"the texts of column {name!r} take 137438953472 bytes" in said.pop(f"dictionary-{name}.parquet")
    assert "the texts of column 'time'" in said.pop("typed-time.parquet")
    assert "has 4194304 rows in" in said.pop("rows.parquet")
    assert "many/1.parquet: has 1048576 rows" in said["many"]
    assert set(said) == {"many", "list.parquet", "texts.parquet"}
    assert all(one.startswith("BadLog") and "and more in memory: that is no log" in one for one in said.values()), said
    assert int(peak.split()[1]) < 500_000, "kB"


def test_a_long_text_in_a_dictionary_is_no_bomb(tmp_path: Path) -> None:
    """One caller sends a text of 64 KB once; the column is read, as before, whatever it is stored as."""
    units = ["u" * 2**16, *[f"u{number}" for number in range(ROWS_OF_BOMB - 1)]]
    table = pa.table({"action": ["a", "b"] * (ROWS_OF_BOMB // 2), "reward": [1.0] * ROWS_OF_BOMB, "unit_id": units})
    pq.write_table(table, tmp_path / "log.parquet")
    read(tmp_path / "log.parquet")


def test_a_long_value_is_not_printed_whole(tmp_path: Path) -> None:
    """A megabyte on a terminal says less than its beginning and its end."""
    (tmp_path / "log.csv").write_text(f"action,reward,eligible\n{'a' * LONG},1,b|c\n")
    with pytest.raises(BadLog, match=r"the drawn action 'aaa.*…a*' is not among the eligible ones") as told:
        read(tmp_path / "log.csv")
    assert len(str(told.value)) < 1_000


def test_many_columns_or_row_groups_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million columns would take minutes and gigabytes; the metadata of a file nine times their size."""
    names = ",".join(f"c{number}" for number in range(20_000))
    (tmp_path / "log.csv").write_text(f"action,reward,{names}\n")
    with pytest.raises(BadLog, match="has 20002 columns, and at most 20000 are read"):
        read(tmp_path / "log.csv")
    monkeypatch.setattr("simulator.logs.table_bounds.MAX_FOOTER", 100)
    pq.write_table(pa.table({"action": ["a"], "reward": [1.0]}), tmp_path / "log.parquet")
    with pytest.raises(BadLog, match=r"its metadata have \d+ bytes, and at most 100 are read"):
        read(tmp_path / "log.parquet")


def test_a_parquet_file_that_was_packed_once_more_is_told(tmp_path: Path) -> None:
    """It was "cannot be read (seek)"."""
    (tmp_path / "log.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(BadLog, match="unpack it: gunzip"):
        read(tmp_path / "log.parquet.gz")


def test_short_rows_that_pack_to_nothing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bytes take 140 in memory: 3 MB of a packed CSV became 34 GB. As it lies there unpacked it is read."""
    monkeypatch.setattr("simulator.logs.table_bounds.FREE_ROWS_EXPANSION", 2**20)
    rows = b"action,reward\n" + b"a,1\n" * 2**18
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(rows))
    (tmp_path / "log.csv").write_bytes(rows)
    with pytest.raises(BadLog, match=r"log\.csv\.gz: has \d+ rows in \d+ bytes, which take"):
        read(tmp_path / "log.csv.gz")
    read(tmp_path / "log.csv")


# --- files that were changed somewhere


def _csv(source: Random, path: Path) -> None:
    """A byte or two are others."""
    text = "action,reward,propensity,time,age\n" + "".join(f"a{n % 3},{n % 2},0.5,{n},3{n}\n" for n in range(ROWS))
    content = bytearray(text.encode())
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(content) if source.random() < 0.5 else 40)
        content[place : place + source.randint(0, 2)] = source.choice(
            [b"\xff", b'"', b"\x00", b"\n", b"\r", b",", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"1e999", b"nan", b"\xc3"]
        )
    path.with_suffix(".csv").write_bytes(content)


ODD_COLUMNS: list[Callable[[], Any]] = [
    lambda: pa.array([[1, 2]] * ROWS),
    lambda: pa.array([["a"]] * ROWS),
    lambda: pa.array([{"a": 1}] * ROWS),
    lambda: pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
    lambda: pa.array([b"\xff"] * ROWS),
    lambda: pa.nulls(ROWS),
    lambda: pa.array([True] * ROWS),
    lambda: pa.array([2**63 - 1] * ROWS),
    lambda: pa.array([2**64 - 1] * ROWS, pa.uint64()),
    lambda: pa.array([1] * ROWS, pa.decimal128(38)),
    lambda: pa.array([1] * ROWS, pa.time64("us")),
    lambda: pa.array([1] * ROWS, pa.duration("s")),
    lambda: pa.array([1] * ROWS, pa.date32()),
    lambda: pa.array([2**62] * ROWS, pa.timestamp("us")),
    lambda: pa.array([float("inf")] * ROWS),
    lambda: pa.array(["1"] * ROWS, pa.large_string()),
    lambda: pa.array([[[1.0]]] * ROWS),
    lambda: pa.array([[1.0, 2.0]] * ROWS, pa.list_(pa.float64(), 2)),
    lambda: pa.array([""] * ROWS).dictionary_encode(),
]


def _parquet(source: Random, path: Path) -> None:
    """One or two columns have another type."""
    columns: dict[str, Any] = {
        "action": pa.array([f"a{n % 3}" for n in range(ROWS)]),
        "reward": pa.array([float(n % 2) for n in range(ROWS)]),
        "propensity": pa.array([0.5] * ROWS),
        "time": pa.array(list(range(ROWS)), pa.timestamp("s")),
        "unit_id": pa.array([f"u{n}" for n in range(ROWS)]),
        "age": pa.array(list(range(ROWS))),
        "eligible": pa.array(["a0 a1 a2"] * ROWS),
    }
    for name in source.sample(sorted(columns), source.randint(1, 2)):
        columns[name] = source.choice(ODD_COLUMNS)()
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"))


ODD_VALUES: list[Any] = [
    7, -1, 0, 1.5, "x", "", [], {}, [1], {"a": 1}, True, [None], 1e308, 2**70, "\ud800", [[]], {"": {}}, "1e999",
]  # fmt: skip


def _change(source: Random, value: Any) -> Any:
    """Something in it is something else."""
    if isinstance(value, dict) and value and source.random() < 0.9:
        name = source.choice(sorted(value))
        return {**value, name: _change(source, value[name])}
    if isinstance(value, list) and value and source.random() < 0.7:
        place = source.randrange(len(value))
        return [*value[:place], _change(source, value[place]), *value[place + 1 :]]
    return source.choice(ODD_VALUES)


def _dsjson(source: Random, path: Path) -> None:
    """Every line has another value somewhere."""
    lines = [json.dumps(_change(source, decision(number))) for number in range(ROWS)]
    if source.random() < 0.2:
        lines[3] = "[" * 100_000
    path.with_suffix(".dsjson").write_text("\n".join(lines))


@pytest.mark.parametrize("kind", [_csv, _parquet, _dsjson])
def test_a_file_with_changed_places_is_read_or_told(tmp_path: Path, kind: Callable[[Random, Path], None]) -> None:
    """75 of 4,000 such files ended with an exception that nobody had thought of."""
    for seed in range(100):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kind(Random(seed), folder / "log")
        for skip_bad in (False, True):
            with suppress(DeciderError):
                read(folder, skip_bad=skip_bad)


# --- logs of ours

DAMAGES = {
    "no JSON": "update experiments set definition = '{'",
    "unknown field": 'update experiments set definition = replace(definition, \'"id"\', \'"unknown":1,"id"\')',
    "unknown enum": "update experiments set definition = replace(definition, '_ACTIVE', '_SLEEPING')",
    "nested": f"update experiments set definition = '{'[' * 50_000}'",  # noqa: S608 - a test's own text
    "another type": 'update experiments set definition = replace(definition, \'"id":"\', \'"id":7,"x":"\')',
    "bytes": "update experiments set definition = x'ff00'",
    "no build": "update builds set build = x'ff00'",
    "build": "update builds set build = '[[7]]'",
    "time": "update experiments set time = x'ff00'",
    "position": "update experiments set position = 9223372036854775807",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_log_is_told_without_a_traceback(tmp_path: Path, damage: str) -> None:
    """`verify` says 2, damaged, and not 1, decisions differ."""
    path = _damaged(tmp_path, damage)
    done = CliRunner().invoke(verify_command, [str(path)])
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 2, done.output


def test_a_server_says_that_a_definition_is_damaged(tmp_path: Path) -> None:
    """One line that names the place; `decider check` and a backup are the ways out."""
    code, output = refused(_damaged(tmp_path, DAMAGES["unknown enum"]))
    assert code == 1
    assert "the definition of the experiment at position" in output
    assert "Traceback" not in output


def _damaged(folder: Path, damage: str) -> Path:
    path = folder / "log.db"
    with closing(open_ours(path)) as log:
        log.name_build({"decider": "test"})
        Versions(log).apply(sample_experiment())
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma ignore_check_constraints = on")
        for (name,) in db.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            db.execute(f"drop trigger {name}")
        db.execute(damage)
        db.commit()
    return path
