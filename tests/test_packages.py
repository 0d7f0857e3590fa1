"""Three kinds of user, three sets of packages: each set is enough for its user, and the client's is small.

An environment here is a folder with the wheel and links to what its set asks for, of the packages installed already.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from decider.server.ops_command import FILES
from tests.test_architecture import ROOT

CLIENT = "decider, decider.client, decider.errors, decider.types, decider.v1"
LARGEST_CLIENT = 120_000_000
"""Bytes."""
START = "from {}.cli import main; main()"
"""What the script of a command does."""

Environments = dict[str, Path]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing of an earlier build gets into it."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("decider", "simulator"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    return next(copy.glob("*.whl"))


@pytest.fixture(scope="module")
def environments(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """By extra; "" is `pip install .` alone."""
    folders = {extra: tmp_path_factory.mktemp(extra or "client") for extra in ("", "server", "simulator")}
    for extra, folder in folders.items():
        with ZipFile(wheel) as file:
            file.extractall(folder)
        for distribution in distributions(folder, extra):
            link(distribution, folder)
    return folders


def distributions(folder: Path, extra: str) -> Iterator[metadata.Distribution]:
    """What pip would install with the wheel in that folder."""
    ours = metadata.Distribution.at(next(folder.glob("decider-*.dist-info")))
    left, seen = [Requirement(f"decider[{extra}]" if extra else "decider")], set()
    while left:
        asked = left.pop()
        if str(asked) not in seen:
            seen.add(str(asked))
            found = ours if asked.name == "decider" else metadata.distribution(asked.name)
            left += requirements(found, asked.extras)
            if found is not ours:
                yield found


def requirements(distribution: metadata.Distribution, extras: set[str]) -> Iterator[Requirement]:
    """Of a distribution with these extras."""
    for one in map(Requirement, distribution.requires or ()):
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


def link(distribution: metadata.Distribution, folder: Path) -> None:
    """Its packages and modules, but for programs, which lie outside. Several distributions share `google`."""
    for file in distribution.files or ():
        parts = file.parts[: 2 if file.parts[0] == "google" else 1]
        target = folder.joinpath(*parts)
        if ".." not in parts and not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(Path(str(distribution.locate_file("/".join(parts)))))


def size(folder: Path) -> int:
    """Bytes."""
    return sum(
        Path(inner, file).stat().st_size for inner, _, files in os.walk(folder, followlinks=True) for file in files
    )


def run(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python that knows nothing but its own library and that folder."""
    begin = f"import sys; sys.path.insert(0, {str(folder)!r}); "
    command = [sys.executable, "-ISc", begin + code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_client_loads_nothing_heavy() -> None:
    """A frontend pays for each package at every start, also where all of them are installed."""
    heavy = (
        *("click", "greenlet", "jinja2", "matplotlib", "numpy", "pandas", "prometheus_client", "pyarrow", "rich"),
        *("scipy", "sqlite3", "sqlite_utils", "starlette", "uuid_utils", "uvicorn", "vowpal_wabbit_next"),
    )
    code = f"import sys, {CLIENT}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_bare_package_is_enough_for_the_client_and_small(environments: Environments) -> None:
    """It is installed beside every frontend, in every image."""
    folder = environments[""]
    done = run(folder, f"import {CLIENT}; decider.client.Client('127.0.0.1:1').close()")
    assert done.returncode == 0, done.stderr
    assert 1_000_000 < size(folder) <= LARGEST_CLIENT


@pytest.mark.parametrize(
    ("installed", "command", "needed"),
    [("", "decider", "server"), ("", "simulator", "simulator"), ("server", "simulator", "simulator")],
)
def test_a_command_without_its_packages_names_the_extra(
    environments: Environments, installed: str, command: str, needed: str
) -> None:
    """A traceback would not say what to install."""
    done = run(environments[installed], START.format(command), "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"{command}: .*pip install '\.\[{needed}\]'\n", done.stderr)


@pytest.mark.parametrize("command", ["decider", "simulator"])
def test_a_fault_of_ours_is_no_missing_package(environments: Environments, command: str) -> None:
    """No extra would mend it: the traceback is what a developer needs."""
    code = f"import decider; sys.modules['{command}.cli'] = None; from decider.extras import needs_extra\n"
    body = f"with needs_extra('server', command='decider'):\n import {command}.cli"
    done = run(environments[""], code + body)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("extra", "command", "others"),
    [
        # The simulator asks for the first two; the last one has an extra of its own.
        ("server", "decider", ["decider.log.memory_arrow", "decider.log.sqlite.arrow", "decider.log.postgres"]),
        ("simulator", "simulator", []),
    ],
)
def test_an_extra_is_enough_for_its_command(
    environments: Environments, extra: str, command: str, others: list[str]
) -> None:
    """A package that only the developers' set has is missing wherever the project is installed."""
    code = f"""import pkgutil, importlib, {command}
for one in pkgutil.walk_packages({command}.__path__, "{command}."):
    f"{{one.name}}.".startswith({tuple(f"{other}." for other in others)}) or importlib.import_module(one.name)
{START.format(command)}"""
    done = run(environments[extra], code, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_wheel_has_what_the_checkout_has_but_for_the_studies(wheel: Path) -> None:
    """SQL, templates and type marks are read at run time; studies are measurements of this project."""
    files = (file for room in ("decider", "simulator") for file in (ROOT / room).rglob("*") if file.is_file())
    shipped = {file.relative_to(ROOT).as_posix() for file in files if file.suffix not in (".md", ".pyc")}
    with ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    texts = {"decider/README.md", "decider/deploy/README.md"}  # `decider ops steps` and `runbooks` print from them
    client = "decider/client/typescript/"  # its source is npm's; the server serves what is built of it
    left_out = ("simulator/studies/", "decider/client/examples/", client)
    served = {f"{client}client.js", f"{client}openfeature.js"}
    assert names == texts | served | {name for name in shipped if not name.startswith(left_out)}
    assert {Path(name).suffix for name in names} >= {".sql", ".j2", ".css", ".toml", ".typed", ".pyi", ".yml", ".json"}


@pytest.mark.parametrize(("what", "name"), FILES.items())
def test_the_installed_command_prints_what_is_shipped(environments: Environments, what: str, name: str) -> None:
    """Who runs Prometheus or systemd has the wheel, and no checkout."""
    done = run(environments["server"], START.format("decider"), "ops", what)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (ROOT / "decider" / name).read_text(encoding="utf-8")


def test_the_lower_bounds_are_what_the_generated_code_asks_for() -> None:
    """Generated code refuses a grpcio or protobuf older than its generator: `make proto` moves the bounds."""
    bounds = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    made = [file for room in ("v1", "flagd") for file in (ROOT / "decider" / room).rglob("*_pb2*.py")]
    for file in [one for one in made if one.name.endswith("_grpc.py")]:
        (version,) = re.findall(r"GRPC_GENERATED_VERSION = '(.*)'", file.read_text())
        assert f"grpcio>={version},<2" in bounds, file
    for file in [one for one in made if one.name.endswith("_pb2.py")]:
        numbers = re.findall(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+)", file.read_text())
        assert f"protobuf>={'.'.join(numbers[0])}" in bounds, file
