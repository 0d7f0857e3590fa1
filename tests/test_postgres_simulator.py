"""Every command of `simulator` that reads a log of ours gives the same figures of the same log in PostgreSQL."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from decider.experiment.definition import Learning
from decider.log.open import LogUrl, copy_log, open_log, open_reader
from decider.log.protocol import ModelName, NewModel
from decider.policy.make import make_policy
from decider.policy.saved import SavedModel
from decider.types import Position
from simulator.commands.group import main
from tests import long_logs
from tests.archives import HOSTILE, write_odd_log
from tests.conftest import Clock
from tests.copied_logs import quiet
from tests.lift_logs import shop, visits_db
from tests.postgres import PostgresServer


@pytest.fixture(scope="module")
def places(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LogUrl]:
    """One log in both databases: visits of a shop with a holdout, an apprentice behind them, and a stored model."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    visits_db(path, shop(), replace(shop(), learning=Learning.APPRENTICE), decisions=900, units=500)
    with closing(open_log(path)) as log:
        experiment = log.versions()[-1].experiment
        data = make_policy(experiment.policy).save()
        name = ModelName(experiment.id, Position(1), experiment.policy.signature)
        log.append([NewModel(name, learned=0)])
        log.models.store(name, SavedModel(name.signature, sha256(data).hexdigest(), data), keep_bytes=10**6)
    url = LogUrl(postgres.new_schema())
    copy_log(path, url, say=quiet)
    return path, url


@pytest.fixture(scope="module")
def drawn(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LogUrl]:
    """Another one, of which two actions were drawn: worlds are fitted to it."""
    path, url = tmp_path_factory.mktemp("drawn") / "shop.db", LogUrl(postgres.new_schema())
    long_logs.write_past(path, 600, long_logs.shop())
    copy_log(path, url, say=quiet)
    return path, url


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, arguments)


COMMANDS = {
    "inspect": "inspect {log} --json {json}",
    "evaluate": "evaluate {log} --policy uniform --policy baseline --json {json} ",
    "evaluate a model": "evaluate {log} --policy model:{log} --policy model:{log}@1 --json {json}",
    "compare": "compare {log} --policies uniform --policies fixed:b --out {folder}/out --json {json} --workers 1",
    "compare on a fitted world": "compare fitted:{log} --policies uniform --policies thompson --seeds 2 --rounds 300 "
                                 "--out {folder}/out --json {json} --workers 1",
    "run": "run fitted:{log} --policy uniform --seeds 1 --rounds 300 --json {json} --workers 1",
    "lift": "lift {log} --by segment --json {json} --report {folder}/lift",
    "plan": "plan --log {log} --lift 20% --traffic 900/day --json {json}",
    "agreement": "agreement {log}",
    "export": "export {log} {folder}/shop.csv --json {json}",
    "import": "import {log} {folder}/again.db --json {json}",
    "verify": "verify {log}",
}  # fmt: skip
"""Every one that takes a log, but for those that take files alone (`evaluate-large`, `demo`)."""


@pytest.mark.parametrize("command", COMMANDS)
def test_figures_are_those_of_the_same_log_in_a_file(
    command: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A growth team must not see another lift because the log has moved."""
    places = request.getfixturevalue("drawn" if "fitted:" in COMMANDS[command] else "places")
    told = [_told(COMMANDS[command], place, tmp_path / str(number)) for number, place in enumerate(places)]
    assert told[0] == told[1]


def _told(command: str, place: Path | LogUrl, folder: Path) -> list[Any]:
    """Exit code, output, JSON and files, without names and durations."""
    folder.mkdir()
    address, shown = "".join(place) if isinstance(place, LogUrl) else str(place), str(place)
    words = [word.format(log=address, json=folder / "f.json", folder=folder) for word in command.split()]
    ran = run(*words)
    assert ran.exit_code in (0, 1), ran.output
    files = sorted(path for path in folder.rglob("*.csv") if path.is_file())
    text = (folder / "f.json").read_text() if (folder / "f.json").exists() else "{}"
    return [
        ran.exit_code,
        _plain(ran.stdout, address, shown, folder) if "verify" in command or "agreement" in command else "",
        json.loads(_plain(text, address, shown, folder)),
        [path.read_text() for path in files],
    ]


def _plain(text: str, *names: object) -> str:
    for name in names:
        text = text.replace(json.dumps(str(name))[1:-1], "LOG").replace(str(name), "LOG")
    return re.sub(r'"(seconds|took|slowest)": [0-9.e-]+', '"seconds": 0', text)


def test_every_text_comes_back_by_way_of_arrow(postgres_url: str, tmp_path: Path) -> None:
    """Quotes, line ends, U+0000, half of CSV: what is read whole is what was logged."""
    write_odd_log(tmp_path / "odd.db", Clock())
    copy_log(tmp_path / "odd.db", LogUrl(postgres_url), say=quiet)
    found = []
    for place in (tmp_path / "odd.db", LogUrl(postgres_url)):
        with closing(open_reader(place)) as log:
            batches = log.arrow(log.versions()[-1].experiment.id, log.head())
            found.append([pa.Table.from_batches(list(one)).to_pylist() for one in batches])
    assert found[0] == found[1]
    assert {row["unit_id"] for row in found[1][0]} > set(HOSTILE) - {""}


def test_a_piece_may_end_anywhere(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large log is read in pieces."""
    write_odd_log(tmp_path / "odd.db", Clock(), rounds=6)
    copy_log(tmp_path / "odd.db", LogUrl(postgres_url), say=quiet)
    with closing(open_reader(LogUrl(postgres_url))) as log:
        id_, head = log.versions()[-1].experiment.id, log.head()
        whole = [pa.Table.from_batches(list(one)).to_pylist() for one in log.arrow(id_, head)]
        monkeypatch.setattr("decider.log.postgres.arrow.PIECE_BYTES", 1)
        assert [pa.Table.from_batches(list(one)).to_pylist() for one in log.arrow(id_, head)] == whole


def test_a_password_is_in_no_message_and_no_name(tmp_path: Path) -> None:
    """Reports are shown; the name of a fitted world stands in them and in files."""
    address = "postgresql://ann:secret@127.0.0.1:1/shop"
    for command in COMMANDS.values():
        words = [word.format(log=address, json=tmp_path / "f.json", folder=tmp_path) for word in command.split()]
        ran = run(*words)
        assert ran.exit_code == 2, (words, ran.output)
        assert "secret" not in ran.output
    assert "leave the password out of the address" in run("run", f"fitted:{address}", "--policy", "uniform").output


def test_a_model_of_an_address_with_a_password_is_refused(places: tuple[Path, LogUrl]) -> None:
    """Its name would stand in tables, pages and results."""
    path, url = places
    ran = run("evaluate", str(path), "--policy", f"model:{''.join(url)}&password=secret@1")
    assert (ran.exit_code, "leave the password out of the address" in ran.output) == (2, True), ran.output
    assert "secret" not in ran.output


@pytest.mark.parametrize("command", ["import", "export"])
def test_what_writes_a_file_refuses_an_address(command: str, places: tuple[Path, LogUrl]) -> None:
    """It would be taken for a path, and shown with its password."""
    ran = run(command, str(places[0]), "postgresql://ann:secret@db/shop")
    assert (ran.exit_code, "`decider copy` it" in " ".join(ran.output.split())) == (2, True), ran.output
    assert "secret" not in ran.output
