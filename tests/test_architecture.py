"""The rooms: imports point one way, each library has one room, and everything says what it is for."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WORDS = {"decider.types", "decider.errors", "decider.durations", "decider.text"}
DOMAIN = WORDS | {"decider.policy", "decider.experiment"}
LOGGED = DOMAIN | {"decider.decide", "decider.log", "decider.serving"}
COUNTED = LOGGED | {"decider.learn", "decider.estimate", "decider.metrics"}
SERVED = COUNTED | {"decider.replay", "decider.page", "decider.experiment_files", "decider.v1", "decider.flagd"}
SERVER = SERVED | {"decider.options", "decider.channel"}
BELOW_SIMULATOR = SERVER | {"decider.client", "decider.extras"}

SIMULATED = (
    "simulator.load_policy",
    "simulator.under_way",
    "simulator.verify",
    "simulator.kept",
    "simulator.datasets",
    "simulator.logs",
    "simulator.evaluate",
    "simulator.lift",
    "simulator.agreement",
    "simulator.worlds",
    "simulator.run",
    "simulator.drive",
    "simulator.compare",
    "simulator.large",
    "simulator.report",
    "simulator.commands",
    "simulator.cli",
    "simulator.studies",
)
"""The simulator's rooms: each may import those before it."""

MAY_IMPORT: dict[str, set[str]] = {
    "decider": set(),
    "decider.v1": {"decider.v1"},
    "decider.flagd": {"decider.flagd"},
    "decider.types": set(),
    "decider.errors": set(),
    "decider.durations": set(),
    "decider.text": set(),
    "decider.policy": WORDS,  # before `experiment`: a definition holds its policy's spec and its actions as choices
    "decider.experiment": WORDS | {"decider.policy", "decider.v1"},
    "decider.experiment_files": {"decider.errors", "decider.experiment", "decider.v1"},  # above `experiment`: it reads
    "decider.decide": DOMAIN,
    "decider.serving": DOMAIN | {"decider.decide", "decider.log"},
    "decider.estimate": set(),
    "decider.log": DOMAIN,
    "decider.learn": LOGGED | {"decider.estimate"},
    "decider.replay": LOGGED | {"decider.learn"},  # above `learn`: it learns models again
    "decider.metrics": LOGGED | {"decider.learn", "decider.estimate"},
    "decider.page": COUNTED | {"decider.replay"},
    "decider.server": SERVER,
    "decider.extras": set(),
    "decider.channel": set(),
    "decider.options": {"decider.durations", "decider.types", "decider.log"},
    "decider.cli": {"decider.extras", "decider.server"},
    "decider.client": WORDS | {"decider.v1", "decider.channel"},
    "simulator": set(),
    **{room: SERVER | {"decider.client", "decider.extras", *SIMULATED[:place]} for place, room in enumerate(SIMULATED)},
}
"""Each room with the rooms that it may import, besides itself."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "vowpal_wabbit_next": ("decider.policy.vw",),
    "cel_expr_python": ("decider.experiment.rules",),
    "grpc": (
        "decider.server",
        "decider.client",
        "decider.channel",
        "decider.v1",
        "simulator.drive",
        "simulator.studies.attack",
        "simulator.studies.bench",
        "simulator.studies.echo",
        "simulator.studies.faults",
        "simulator.studies.given_up",
        "simulator.studies.ledger",
        "simulator.studies.soak",
        "simulator.studies.tour.stage",
        "simulator.studies.worker_news",
    ),
    "grpc_health": ("decider.server", "simulator.studies.attack.calls"),  # every RPC is attacked
    "grpc_reflection": ("decider.server", "simulator.studies.attack.calls"),
    "grpc_status": ("decider.server", "decider.client"),
    "sqlite3": (
        "decider.log",
        "decider.server.process",  # names the version of SQLite at start
        "simulator.studies.soak",  # copies a live log, as an operator does
        "simulator.studies.worker_news",  # see MEASURE_SQLITE
        "simulator.studies.rivals.with_fastapi",  # what a user would write has a log of its own
    ),
    "sqlite_utils": ("decider.log",),
    "psycopg": (
        "decider.log.postgres",
        "simulator.studies.faults",  # does to PostgreSQL what its operator and its machine do
    ),
    "prometheus_client": (
        "decider.metrics",
        "decider.server.process",
        "decider.server.http.exposition",
        "simulator.studies.walk",  # a registry for the handler that it walks through
    ),
    "starlette": ("decider.server.http",),
    "uvicorn": (
        "decider.server.http.serving",
        "decider.server.http.connection",
        "decider.server.web.connection",
        "simulator.studies.rivals.with_fastapi",
    ),
    "httptools": ("decider.server.web.connection",),
    "anyio": ("decider.server.http.port", "decider.server.http.turns"),
    "h11": ("decider.server.http.connection",),
    "google": ("decider.v1", "decider.flagd", "decider.experiment", "decider.server", "decider.client", "simulator"),
    "click": (
        "decider.server.command",
        "decider.options",
        "decider.server.archive_command",
        "decider.server.backup_commands",
        "decider.server.experiment_commands",
        "decider.server.check_command",
        "decider.server.copy_command",
        "decider.server.doctor_command",
        "decider.server.explain_command",
        "decider.server.forget_command",
        "decider.server.json_output",
        "decider.server.leave_out_command",
        "decider.server.no_target",
        "decider.server.ops_command",
        "decider.server.origin_options",
        "decider.server.relearn_command",
        "decider.server.reload_command",
        "decider.server.token_command",
        "decider.server.validate_command",
        "simulator",
    ),
    "rich": ("simulator",),
    "scipy": ("decider.estimate", "decider.policy.thompson", "simulator"),
    "pyarrow": (
        "decider.log.archive",
        "decider.log.sqlite.arrow",
        "decider.log.arrow_schema",
        "decider.log.memory_arrow",
        "decider.log.postgres.arrow",
        "simulator.logs",
        "simulator.compare.table",
        "simulator.studies.soak",  # counts what an archive holds, without the code that made it
    ),
    "adbc_driver_sqlite": ("decider.log.sqlite.arrow",),
    "matplotlib": (
        "simulator.report",
        "simulator.studies.bakeoff.plot",
        "simulator.studies.growth_plot",
        "simulator.studies.soak",
    ),
    "cattrs": ("simulator.run.result_store",),
    "threadpoolctl": ("simulator.run.engine",),
    "ray": ("simulator.run.ray_tasks",),
    "jinja2": ("decider.page",),
}
"""Each library with the only rooms (or modules) that import it; what else names it is explained on its line."""

DRIVES_A_SERVER = (
    "simulator.studies.bench_access",
    "simulator.studies.walk",
    "simulator.studies.semantics.shop",
    "simulator.studies.attack.frontends",
    "simulator.studies.attack.calls",  # roles and settings as the server has them, and tokens made as it makes them
    "simulator.studies.attack.names",
    "simulator.studies.attack.report",
    "simulator.studies.attack.stage",
    "simulator.studies.attack.web",
)
"""The modules of the simulator that may import `decider.server`: they measure it, or hold it against a known truth."""


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for top in ("decider", "simulator") for path in sorted((ROOT / top).rglob("*.py"))}
IMPORTED_BY_NAME = {name for name in MODULES if "." in name} - {"decider.cli"}
"""A text with one of these names counts as an import of it. `decider.cli` is started as a process."""

GENERATED = ("decider.v1", "decider.flagd")

OURS = sorted(name for name in MODULES if not name.startswith(GENERATED))


@cache
def tree(name: str) -> ast.Module:
    """A module's syntax."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@cache
def imports(name: str) -> frozenset[str]:
    """Everything that a module imports, anywhere in it."""
    return imports_of(tree(name))


def imports_of(module: ast.Module) -> frozenset[str]:
    """`from a import b` is `a.b` where that is a module; so is a text with a module's name, for `import_module`."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value.rstrip(".")} & IMPORTED_BY_NAME
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = inner & MODULES.keys()
            found |= modules or {node.module}
    return frozenset(found)


@pytest.mark.parametrize(
    "text",
    ["import a.b", "from a import b", 'import_module("a.b")', 'import_module(f"a.b.{name}")'],
)
def test_an_import_is_seen_however_it_is_written(text: str) -> None:
    """A late import by name would pass the tests below."""
    text = text.replace("a.b", "simulator.report").replace("from a import b", "from simulator import report")
    assert imports_of(ast.parse(text)) == {"simulator.report"}


def inside(name: str, room: str) -> bool:
    """Whether a module is a room or in it."""
    return name == room or name.startswith(room + ".")


def room_of(name: str) -> str:
    """The most specific room."""
    rooms = [
        room for room in MAY_IMPORT if inside(name, room) and (name == room or room not in ("decider", "simulator"))
    ]
    assert rooms, f"{name} is in no room: give it one in its README and here"
    return max(rooms, key=len)


@pytest.mark.parametrize("name", OURS)
def test_imports_point_one_way(name: str) -> None:
    """A cycle between rooms would make them one room that nobody can replace or test alone."""
    room = room_of(name)
    allowed = MAY_IMPORT[room] | {room} | ({"decider.server"} if name in DRIVES_A_SERVER else set())
    ours = [target for target in imports(name) if target.partition(".")[0] in ("decider", "simulator", "tests")]
    wrong = [target for target in ours if not any(inside(target, one) for one in allowed)]
    assert not wrong, f"{name} (room {room}) may not import {', '.join(sorted(wrong))}"


def test_the_table_of_rooms_has_no_cycle() -> None:
    """The table itself must be an order, or the test above allows anything."""
    left = {room: MAY_IMPORT[room] - {room} for room in MAY_IMPORT}
    while left:
        free = [room for room, needs in left.items() if not needs & left.keys()]
        assert free, f"these import each other: {sorted(left)}"
        for room in free:
            del left[room]


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_library_has_one_room(library: str) -> None:
    """A library that is imported in one place can be replaced in one place."""
    users = [name for name in OURS if any(inside(target, library) for target in imports(name))]
    wrong = [name for name in users if not any(inside(name, room) for room in ONLY_IN[library])]
    assert not wrong, f"{library} is imported by {', '.join(wrong)}"


IMPLEMENTATIONS = ("decider.log.sqlite", "decider.log.postgres", "decider.log.memory", "decider.log.memory_arrow")
"""Logs of every kind; `decider.log.open` opens them."""


MEASURE_SQLITE = ("simulator.studies.worker_commits", "simulator.studies.worker_news")
"""Studies of that very implementation: by its locks, and by times of entries that no reader of a log asks for."""

OTHERS = [name for name in OURS if not inside(name, "decider.log") and name not in MEASURE_SQLITE]


@pytest.mark.parametrize("name", OTHERS)
def test_nobody_outside_the_log_names_an_implementation(name: str) -> None:
    """Whoever does would have to be changed for a log in another database."""
    wrong = [target for target in imports(name) if any(inside(target, one) for one in IMPLEMENTATIONS)]
    assert not wrong, f"{name} imports {', '.join(wrong)}: use decider.log.open and decider.log.protocol"


SQL = re.compile(
    r"^\s*(select\s.*\sfrom\s|insert\s+(or\s+\w+\s+)?into\s|update\s+\w+\s+set\s|delete\s+from\s|pragma\s)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("text", ["select 1 from t", "\n  select a,\n b from t", "insert or ignore into t", "PRAGMA x"])
def test_sql_is_known_when_it_is_seen(text: str) -> None:
    """The test below must be able to fail."""
    assert SQL.search(text)


SQL_OF_OTHERS = (
    "simulator.studies.faults.databases",  # asks PostgreSQL about itself, its standby and who leads
    "simulator.studies.rivals.with_fastapi",  # a service that somebody would write instead of ours
)
"""Nothing that a log would answer."""


@pytest.mark.parametrize("name", OTHERS)
def test_sql_is_in_the_log_alone(name: str) -> None:
    """SQL of others would have to be found and written again for every database."""
    texts = [
        node.value for node in ast.walk(tree(name)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    found = [text for text in texts if SQL.search(text)]
    assert bool(found) == (name in SQL_OF_OTHERS)


def test_only_its_own_room_knows_the_text_of_vowpal_wabbit() -> None:
    """The default policy is not Vowpal Wabbit's: nothing but `policy/vw/` may depend on how it writes features."""
    users = [name for name in OURS if "decider.policy.vw.encode" in imports(name)]
    assert set(users) <= {
        "decider.policy.vw.workspace",
        "decider.policy.vw.scores",
        "simulator.studies.rivals.known",
    }  # the latter feeds VW's own program


def test_a_definition_comes_from_a_text_not_from_a_file() -> None:
    """`experiment/` is pure, so that it can be called anywhere; files are read by `experiment_files.py`."""
    users = [name for name in OURS if inside(name, "decider.experiment") and "pathlib" in imports(name)]
    assert not users


def test_whoever_reads_a_log_loads_no_learner() -> None:
    """`simulator` commands start faster, and a log can be read where no Vowpal Wabbit is installed."""
    learners = ("vowpal_wabbit_next", "scipy")
    code = f"import sys, decider.log.open; print([name for name in {learners} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_that_serves_imports_the_simulator() -> None:
    """The simulator runs the served code; the other way round the service would need the workshop to run."""
    assert not [n for n in OURS if n.startswith("decider") and any(inside(t, "simulator") for t in imports(n))]


def test_the_simulator_does_not_import_the_server() -> None:
    """It drives a live one through the client, as a frontend does."""
    users = [
        name
        for name in OURS
        if name.startswith("simulator") and any(inside(target, "decider.server") for target in imports(name))
    ]
    assert set(users) <= set(DRIVES_A_SERVER)


@pytest.mark.parametrize("name", OURS)
def test_every_module_says_what_it_is_for(name: str) -> None:
    """The first line of a file is where a reader begins. (An empty `__init__.py` has nothing to say.)"""
    assert not tree(name).body or ast.get_docstring(tree(name))


def public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.stmt]]:
    """Public functions and classes, and public methods of public classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}.{node.name}")


@pytest.mark.parametrize("name", OURS)
def test_every_public_function_and_class_says_what_it_does(name: str) -> None:
    """What the types do not say stands in the docstring: unit, range, errors."""
    silent = [
        full
        for full, node in public(tree(name).body, name)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not ast.get_docstring(node)
    ]
    assert not silent
