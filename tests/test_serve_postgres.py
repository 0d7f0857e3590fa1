"""`decider serve --db postgresql://...` as real processes: one, and several beside a leader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from decider.log.open import LogUrl, open_reader
from tests.postgres import PostgresServer
from tests.rpc_clients import ServerProcess, experiment, refused, until
from tests.test_workers import own_client, version_at

SECRET = "hunter2"
"""A password, which this PostgreSQL does not ask for; whoever shows it anywhere is found."""

PAGES = ("/", "/readyz", "/metrics")


def secret(url: str) -> str:
    """The address with a password in it."""
    return f"{url}&password={SECRET}"


@pytest.fixture(scope="module", params=[0, 2], ids=["one process", "two workers"])
def server(
    request: pytest.FixtureRequest, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, str]]:
    """A server, and the address of its log."""
    folder, url = tmp_path_factory.mktemp("serve"), postgres.new_schema()
    server = ServerProcess(
        folder / "log", "--workers", str(request.param), "--learn-interval", "0.05", url=secret(url)
    )  # fmt: skip
    yield server, url
    server.terminate()


def test_it_decides_learns_and_explains(server: tuple[ServerProcess, str]) -> None:
    """Everything that a log in a file gives; nobody is shown the password."""
    process, url = server
    with closing(process.client()) as client:
        client.apply(experiment("shop", window=0.05))
        until(lambda: client.get("shop").version == 1, what="it is there")
        made = [client.decide("shop", f"unit-{number}") for number in range(40)]
        assert [client.reward(one.decision_id, value=1.0) for one in made[:3]]
        until(lambda: client.decide("shop").model > 0, what="a model serves that has learned")
        assert client.fetch("/readyz") == (200, "ok\n")
        pages = [client.fetch(path) for path in (*PAGES, f"/decisions/{made[0].decision_id}")]
        assert {code for code, _ in pages} == {200}
        assert not [text for _, text in pages if SECRET in text]
        assert "decider_decisions_total{" in dict(zip(PAGES, [text for _, text in pages], strict=False))["/metrics"]
    assert "Traceback" not in process.output
    assert "--db postgresql://" in process.output
    assert SECRET not in process.output
    with closing(open_reader(LogUrl(url))) as log:
        assert log.check(lambda _: None) == []
        assert {one.decision_id for one in made} <= {one.decision.decision_id for one in log.decisions_between("", "z")}


def test_an_archive_is_refused(postgres: PostgresServer, tmp_path: Path) -> None:
    """Before anything is written: a folder that stays empty would be taken for an archive."""
    code, output = refused(tmp_path / "log", "--archive", str(tmp_path), url=secret(postgres.new_schema()))
    assert code == 1
    assert "nothing is archived out of PostgreSQL yet" in output
    assert SECRET not in output


def test_an_address_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A slash in a password ends the host's part; what libpq says would show what comes before it."""
    code, output = refused(tmp_path / "log", url=f"postgresql://ann:{SECRET}/{SECRET}@db/shop")
    assert code == 1
    assert "%2F" in output
    assert SECRET not in output


def test_a_schema_that_is_not_there_is_named(postgres: PostgresServer, tmp_path: Path) -> None:
    """PostgreSQL says only that no schema was selected."""
    code, output = refused(tmp_path / "log", url=postgres.url("nowhere"))
    assert code == 1
    assert "create schema" in output


def test_clients_of_all_workers_see_one_log(server: tuple[ServerProcess, str]) -> None:
    """Whoever is asked answers the same for a decision id."""
    process, _ = server
    clients = [own_client(process.target) for _ in range(6)]
    clients[0].apply(experiment("home"))
    for client in clients:
        until(partial(version_at, client), what="it serves")
    made = {client.decide("home", decision_id="once").action.id for client in clients}
    assert len(made) == 1
    for client in clients:
        client.close()
