"""The demo's shop: its places fit the visitors who come, nobody comes before somebody looks, a person can use it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from decider.log.open import open_reader
from simulator.drive import demo
from simulator.drive.server import OwnServer
from simulator.drive.shop.crowd import Crowd
from simulator.drive.shop.places import PLACES, Place
from simulator.drive.shop.port import Shop, ShopFailed, ShopPort

PATIENCE = 30.0
"""Seconds: what is tested is not the speed of the machine."""


@contextmanager
def shop(folder: Path) -> Iterator[tuple[ShopPort, Shop, OwnServer]]:
    """As `simulator demo` has it, without its visitors to the storefront."""
    db = folder / "demo.db"
    with (
        closing(ShopPort("127.0.0.1:0")) as port,
        demo.server(db, listen="127.0.0.1:0", http="127.0.0.1:0", web="127.0.0.1:0", origins=port.origins) as server,
    ):
        served = demo.shop(server, db)
        with port.serving(served):
            yield port, served, server


def get(address: str) -> tuple[int, str]:
    """Status and text."""
    with urllib.request.urlopen(address, timeout=PATIENCE) as response:
        return response.status, response.read().decode()


def wait_for(what: object) -> None:
    """Until it is so. what: called again and again."""
    assert callable(what)
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.world)
def test_a_place_has_the_actions_and_rewards_of_the_visitors_who_come_there(place: Place) -> None:
    """They would be refused, or never click."""
    experiment, world = place.experiment(), place.visitors()
    assert [one.id for one in experiment.actions] == [one.id for one in world.experiment.actions]
    assert {one.id: one.kind for one in experiment.actions} == {one.id: one.kind for one in world.experiment.actions}
    assert set(world.reward_names) <= set(experiment.reward.weights)
    for name in world.reward_names:
        assert experiment.reward.weights[name] == world.experiment.reward.weights[name]


def test_visitors_come_with_the_first_look_and_go_when_nobody_looks(tmp_path: Path) -> None:
    """Whoever runs the demo without a browser finds nothing of them in the log."""
    with shop(tmp_path) as (port, served, server):
        now = 100.0
        served.crowd = Crowd(server.target, rate=50.0, clock=lambda: now)

        def decisions() -> int:
            with closing(open_reader(served.db)) as log:
                return log.count_decisions()

        assert "Behind the shop" in get(port.address)[1]
        assert decisions() == 0
        assert set(json.loads(get(f"{port.address}/state")[1])) == {place.experiment().id for place in PLACES}
        wait_for(lambda: decisions() > 40)
        now += 3_600
        wait_for(lambda: not served.crowd.is_here)
        left = decisions()
        time.sleep(0.2)
        assert decisions() == left
        get(f"{port.address}/state")
        wait_for(lambda: decisions() > left)


def test_the_page_is_served_with_a_policy_and_nothing_else(tmp_path: Path) -> None:
    """It loads nothing but from here and from the decision service; other paths are not there."""
    with closing(ShopPort("127.0.0.1:0")) as port:
        served = Shop("http://127.0.0.1:1", "http://127.0.0.1:2", tmp_path / "none.db", Crowd("127.0.0.1:1"))
        with port.serving(served):
            for path in ("", "/shop.css", "/shop.js", "/panel.js"):
                with urllib.request.urlopen(f"{port.address}{path}", timeout=PATIENCE) as response:
                    assert "script-src 'self' http://127.0.0.1:1;" in response.headers["Content-Security-Policy"]
            assert 'data-web="http://127.0.0.1:1"' in get(port.address)[1]
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{port.address}/../port.py")
        with pytest.raises(ShopFailed, match=r"--shop 127.0.0.1:\d+: cannot listen there"):
            ShopPort(f"127.0.0.1:{port.port}")
    with pytest.raises(ShopFailed, match="--shop nowhere"):
        ShopPort("nowhere")
