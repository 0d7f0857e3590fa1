"""The demo's shop: its places fit the visitors who come, nobody comes before somebody looks, a person can use it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from decider.log.open import open_reader
from simulator.drive import demo
from simulator.drive.server import OwnServer
from simulator.drive.shop.crowd import Crowd
from simulator.drive.shop.places import PLACES, Place
from simulator.drive.shop.port import Shop, ShopFailed, ShopPort
from simulator.verify import verify
from tests.browser import assert_readable, browser

PATIENCE = 30.0
"""Seconds: what is tested is not the speed of the machine."""


class Opened(NamedTuple):
    """As `simulator demo` has it, without its visitors to the storefront."""

    port: ShopPort
    shop: Shop
    server: OwnServer

    def decisions(self) -> int:
        """In the log."""
        with closing(open_reader(self.shop.db)) as log:
            return log.count_decisions()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One for all, with an empty log."""
    db = tmp_path_factory.mktemp("shop") / "demo.db"
    anywhere = "127.0.0.1:0"
    with (
        closing(ShopPort(anywhere)) as port,
        demo.server(db, listen=anywhere, http=anywhere, web=anywhere, origins=port.origins) as server,
    ):
        served = demo.shop(server, db)
        with port.serving(served):
            yield Opened(port, served, server)


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


def test_visitors_come_with_the_first_look_and_go_when_nobody_looks(opened: Opened) -> None:
    """Whoever runs the demo without a browser finds nothing of them in the log."""
    now = 100.0
    crowd = opened.shop.crowd = Crowd(opened.server.target, rate=50.0, clock=lambda: now)
    address = opened.port.address
    assert "Behind the shop" in get(address)[1]
    assert opened.decisions() == 0
    assert set(json.loads(get(f"{address}/state")[1])) == {place.experiment().id for place in PLACES}
    wait_for(lambda: opened.decisions() > 40)
    now += 3_600
    wait_for(lambda: not crowd.is_here)
    left = opened.decisions()
    time.sleep(0.2)
    assert opened.decisions() == left
    get(f"{address}/state")
    wait_for(lambda: opened.decisions() > left)
    crowd.end()
    assert not crowd.is_here


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


def test_a_person_visits_the_shop_in_a_browser(opened: Opened) -> None:
    """Readable on a phone and a desk, by day and by night; every choice is decided, seen, and rewarded; nothing is
    loaded from elsewhere; and all of it replays."""
    port, served, server = opened
    crowd = served.crowd = Crowd(server.target)
    with browser() as chromium:
        page = chromium.visit(port.address)

        def said(text: str) -> None:
            """The page says what became of something that the person did."""
            wait_for(lambda: text in page.run("document.querySelector('#events').textContent"))

        wait_for(lambda: page.run("!document.querySelector('#picks').hidden"))
        wait_for(lambda: page.run("document.querySelectorAll('.bars li').length") == 23)
        wait_for(lambda: page.run("document.querySelectorAll('.mine').length") == 2)  # banner and picks
        assert_readable(page)
        page.run("scrollTo({ top: document.body.scrollHeight, behavior: 'instant' })")
        covered = "document.querySelector('header').getBoundingClientRect().bottom"
        assert page.run(f"document.querySelector('#behind').getBoundingClientRect().top >= {covered}")
        page.run("document.querySelector('.answers button, #picks-content .products button').click()")
        said("joined")
        page.run("document.querySelector('#product').open || document.querySelector('#all button').click()")
        wait_for(lambda: page.run("document.querySelector('#product').open"))
        assert_readable(page)
        page.run("document.querySelector('#product .main').click()")
        said("click for ")
        page.run("[...document.querySelectorAll('#product .stack button')].at(-1).click()")
        page.run("document.querySelector('#product').close(), document.querySelector('#bag').click()")
        wait_for(lambda: page.run("document.querySelector('#cart').open"))
        assert_readable(page)
        page.run("document.querySelector('#cart .main').click()")
        said("margin ")
        wait_for(lambda: page.run("document.querySelectorAll('.mine').length") == 4)
        assert {address.split("/shop")[0].split("/decider")[0] for address in page.requests} == {
            port.address.removesuffix("/shop"), f"http://{server.web}", f"http://{server.web}/client.js"
        }  # fmt: skip
        assert page.run("[...document.querySelectorAll('.place a')].map(a => a.href)") == [
            f"http://{server.http}/experiments/{place.experiment().id}" for place in PLACES
        ]
        assert get(f"http://{server.http}/experiments/shop-cart")[0] == 200
        page.close()
    crowd.end()
    with closing(open_reader(served.db)) as log:
        verified = verify(log)
    assert verified.equal == verified.decisions > 4
