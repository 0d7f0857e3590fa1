"""The examples for each kind of frontend run, as `decider/FRONTENDS.md` says, against one real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from decider.client import Client
from decider.log.open import open_reader
from decider.types import DecisionId
from simulator.drive.server import OwnServer, serving
from tests.test_readme import free_port

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "decider" / "client" / "examples"
STOCK_PYTHON = ROOT / ".venv-frontends" / "bin" / "python"
PATIENCE = 30.0
"""Seconds: what is tested is not the speed of the machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """With the demo's storefront; its window is as long as the tests may take."""
    folder = tmp_path_factory.mktemp("examples")
    experiment = folder / "storefront.toml"
    text = (ROOT / "simulator" / "storefront.toml").read_text(encoding="utf-8")
    experiment.write_text(text.replace('window = "3s"', 'window = "600s"'), encoding="utf-8")
    os.utime(experiment, (0, 0))  # a younger one would be waited for
    with serving(folder / "shop.db", experiments=[experiment], options=["--web", "127.0.0.1:0"]) as started:
        yield started


@contextmanager
def running(command: list[str], address: str, *, cwd: Path, env: Mapping[str, str]) -> Iterator[None]:
    """A web server of an example, once it answers."""
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **env})
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, f"{command} ended"
            assert time.monotonic() < deadline, f"{command} does not answer"
            try:
                with urllib.request.urlopen(address, timeout=PATIENCE):
                    break
            except ConnectionError:
                time.sleep(0.05)
            except OSError as error:
                if not isinstance(getattr(error, "reason", None), ConnectionError):
                    raise
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def read(address: str, body: bytes | None = None, **headers: str) -> tuple[Mapping[str, str], str]:
    """Headers and text of what answers."""
    with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=PATIENCE) as response:
        return response.headers, response.read().decode()


def logged(server: OwnServer, decision: str) -> str:
    """The action that the log has for it."""
    with closing(open_reader(server.db)) as log:
        found = log.find(DecisionId(decision))
    assert found is not None
    return found.decision.action


def test_a_campaign_decides_in_batches_and_its_links_carry_the_decisions(server: OwnServer, tmp_path: Path) -> None:
    """Sent again it decides nothing anew; a click days later names the decision by its link."""
    people = tmp_path / "people.csv"
    rows = [f"person-{number},{('vip', 'new', '')[number % 3]}" for number in range(1_200)]
    people.write_text("\n".join(["unit,segment", *rows]), encoding="utf-8")
    command = [sys.executable, EXAMPLES / "email" / "campaign.py", "autumn", people, "https://shop.example/from-mail"]
    first, second = (
        subprocess.run(
            command, env={**os.environ, "DECIDER_TARGET": server.target}, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second
    mails = [json.loads(line) for line in first.splitlines()]
    assert 600 < len(mails) < 1_200  # `none` is no mail
    assert {mail["to"] for mail in mails} < {row.partition(",")[0] for row in rows}
    (decision,) = parse_qs(urlsplit(mails[0]["link"]).query)["decision"]
    with Client(server.target, timeout=PATIENCE) as client:
        assert client.reward(decision, "click") == "joined"


def test_a_python_web_app_renders_the_decision_and_takes_the_click(server: OwnServer) -> None:
    """The page is one visitor's, and no cache keeps it; its form brings the id back."""
    if not STOCK_PYTHON.exists():
        pytest.skip("the stock Python providers are not installed: make frontends")
    address = f"http://127.0.0.1:{(port := free_port())}"
    env = {"PYTHONPATH": str(ROOT), "DECIDER_TARGET": server.target, "DECIDER_TIMEOUT": f"{PATIENCE}"}
    command = [f"{STOCK_PYTHON}", "-m", "uvicorn", "shop:app", "--port", f"{port}", "--log-level", "error"]
    with running(command, f"{address}/docs", cwd=EXAMPLES / "fastapi", env=env):
        headers, page = read(address)
        (decision,) = re.findall(r'name="decision" value="([^"]+)"', page)
        assert f'data-action="{logged(server, decision)}"' in page
        assert headers["Cache-Control"] == "private, no-store"
        assert "visitor=" in headers["Set-Cookie"]
        assert json.loads(read(f"{address}/click", f"decision={decision}".encode())[1]) == {"reward": "joined"}
