"""Pause, resume and roll back from the page: where it is allowed, from our own page alone, with a note that is kept."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import click
import pytest

from decider.experiment.origin import Origin
from decider.log.open import open_reader
from decider.server.command import serve
from decider.server.settings import site_of
from decider.types import ExperimentId
from simulator.verify import verify
from tests.browser import Browser, assert_readable
from tests.lift_logs import visits_db
from tests.rpc_clients import InProcessClient
from tests.test_metrics import free_port

SHOP = "/experiments/shop"
FORM = "application/x-www-form-urlencoded"


class Shop(InProcessClient):
    """A server whose page takes changes."""

    def __init__(self, db: Path, port: int) -> None:
        self.site = f"http://127.0.0.1:{port}"
        super().__init__(db, http=f"127.0.0.1:{port}", page_writes=(self.site,))

    def seen(self) -> str:
        """The newest change, as the page's form has it."""
        found = re.search(r'name="seen" value="(\d+)"', self.fetch(SHOP)[1])
        assert found
        return found[1]

    def post(self, headers: Mapping[str, str] | None = None, **fields: str) -> tuple[int, str, str]:
        """Status, body and where it leads. headers: None for those of the page's own form."""
        sent = {"Content-Type": FORM, "Origin": self.site} if headers is None else headers
        content = urlencode({"do": "pause", "seen": self.seen(), "note": "a test", **fields})
        with closing(http.client.HTTPConnection(self.http)) as connection:
            connection.request("POST", SHOP, content, dict(sent))
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers.get("Location", "")

    def versions(self) -> int:
        """How many there are."""
        (row,) = self.rows("select count(*) from experiments")
        return int(row[0])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """With a log that a policy has learned."""
    db = visits_db(tmp_path_factory.mktemp("changes") / "log.db", decisions=1_000)
    with closing(Shop(db, free_port())) as shop:
        yield shop
    with closing(open_reader(db)) as log:
        found = verify(log)
    assert found.equal == found.decisions == 1_000


def test_a_pause_is_made_told_and_kept(server: Shop) -> None:
    """Whoever looks later has to see who did it, and why."""
    status, _, location = server.post(note="the pixel is broken <b>", author="ann")
    assert status == 303
    assert location.startswith(f"{SHOP}?made=")
    _, html = server.fetch(location)
    assert "Done: Version" in html
    assert "state active -&gt; paused" in html
    assert "the pixel is broken &lt;b&gt;" in html
    assert server.rows("select author, source, note from version_notes order by version desc limit 1") == [
        ("ann", "page", "the pixel is broken <b>")
    ]
    assert "Done:" not in server.fetch(f"{SHOP}?made=999999999")[1], "an address cannot say what is not so"
    status, _, location = server.post(do="resume")
    assert status == 303
    assert "state paused -&gt; active" in server.fetch(location)[1]


def test_what_cannot_be_done_changes_nothing_and_says_why(server: Shop) -> None:
    """With the way out, and the way back to the page."""
    before, seen = server.versions(), server.seen()
    for fields, status, text in (
        ({"note": " \n "}, 400, "note: is empty: say why"),
        ({"note": "x" * 501}, 400, "note: has 501 characters"),
        ({"author": "a\x00"}, 400, "author: has a control character"),
        ({"do": "delete"}, 400, "none of pause, resume and rollback"),
        ({"do": "resume"}, 409, "the experiment is running already"),
        ({"seen": "1" if seen != "1" else "2"}, 409, "has changed since the page was loaded"),
        ({"do": "rollback", "to": "x"}, 400, "choose one of the stored models"),
        ({"do": "rollback", "to": "9999999"}, 400, "to: is not in the log"),
    ):
        got, html, _ = server.post(None, **fields)
        assert got == status, fields
        assert "Nothing has changed" in html
        assert text in html
        assert f'href="{SHOP}"' in html
    assert server.versions() == before
    assert server.seen() == seen


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": FORM}, 403),
        ({"Content-Type": FORM, "Origin": "null"}, 403),
        ({"Content-Type": FORM, "Origin": "http://evil.example"}, 403),
        ({"Content-Type": FORM, "Origin": "http://evil.example", "Host": "evil.example"}, 403),
        ({"Content-Type": FORM, "Origin": "OURS.evil.example"}, 403),
        ({"Content-Type": FORM, "Origin": "OURS", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": FORM, "Origin": "OURS", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain", "Origin": "OURS"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x", "Origin": "OURS"}, 415),
        ({"Origin": "OURS"}, 415),
    ],
)
def test_no_other_site_can_send_a_form(server: Shop, headers: Mapping[str, str], status: int) -> None:
    """An address that leads here under another name (DNS rebinding) is another site, too."""
    before = server.versions()
    got, html, _ = server.post({name: value.replace("OURS", server.site) for name, value in headers.items()})
    assert got == status
    assert "Nothing has changed" in html
    assert server.versions() == before
    if status == 403:
        assert server.site in html, "the way out"


def test_reading_changes_nothing(server: Shop) -> None:
    """A link, or a picture in a mail, is a GET."""
    before = server.versions()
    assert server.fetch(f"{SHOP}?do=pause&note=x&seen={server.seen()}")[0] == 200
    assert server.versions() == before


def test_a_form_that_is_too_large_is_refused(server: Shop) -> None:
    """Nobody may fill memory."""
    assert server.post(note="x" * 100_000)[0] == 413


def test_without_the_setting_the_page_has_no_forms_that_change(tmp_path: Path) -> None:
    """Off unless the operator has said so."""
    with closing(InProcessClient(visits_db(tmp_path / "log.db", decisions=250))) as client:
        _, html = client.fetch(SHOP)
        assert 'method="post"' not in html
        with closing(http.client.HTTPConnection(client.http)) as connection:
            connection.request("POST", SHOP, "do=pause", {"Content-Type": FORM, "Origin": f"http://{client.http}"})
            assert connection.getresponse().status == 405


def test_a_rollback_goes_back_and_names_the_way_back(server: Shop) -> None:
    """An older model serves; nothing is deleted."""
    positions = server.until(lambda: re.findall(r'<option value="(\d+)">', server.fetch(SHOP)[1]), what="a model")
    status, _, location = server.post(do="rollback", to=positions[-1], note="bad day", author="bob")
    assert status == 303
    _, html = server.fetch(location)
    assert "Done: Rollback" in html
    assert "--take-back" in html
    with closing(open_reader(server.db)) as log:
        (made,) = log.leave_outs(ExperimentId("shop"))
    assert made.entry.origin == Origin("bob", "page", "bad day")


def test_the_form_works_in_a_browser_by_keyboard(chromium: Browser, server: Shop) -> None:
    """Without a script and without a mouse; and its own form says from which site it comes."""
    page = chromium.visit(f"{server.site}{SHOP}", width=400)
    before = server.versions()
    page.run("document.querySelector('#controls details').open = true, null")
    page.run("document.querySelector('#controls textarea').value = 'from a browser', null")
    assert_readable(page)
    page.run("document.querySelector('#controls form').requestSubmit(), null")
    server.until(lambda: server.versions() == before + 1 or None, what="the form is taken")
    told = "document.querySelector('[role=status]')?.textContent ?? ''"
    assert server.until(lambda: page.run(told) or None, what="the page is back").startswith("Done: Version")
    assert "made=" in page.run("location.href")
    assert server.post(do="resume")[0] == 303


def test_a_browser_that_shows_another_site_cannot_change_anything(chromium: Browser, server: Shop) -> None:
    """A real one, with a real page of somebody else: its form arrives, and is refused."""
    before, seen = server.versions(), server.seen()
    with other_site(server.site, seen) as address:
        page = chromium.visit(address)
        page.run("document.forms[0].submit(), null")
        server.until(lambda: page.run("location.href").startswith(server.site) or None, what="the form is sent")
        told = "document.querySelector('[role=alert]')?.textContent ?? ''"
        assert "Nothing has changed" in server.until(lambda: page.run(told) or None, what="the answer is there")
    assert (server.versions(), server.seen()) == (before, seen)


@contextmanager
def other_site(target: str, seen: str) -> Iterator[str]:
    """A page on another port, with the same form."""
    fields = {"do": "pause", "seen": seen, "note": "forged"}.items()
    inputs = "".join([f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields])
    html = f'<form method="post" action="{target}{SHOP}">{inputs}</form>'.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}/"
        site.shutdown()


@pytest.mark.parametrize(
    "text", ["on", "127.0.0.1:9464", "ftp://x", "http://", "http://a/b", "http://u@a", "http://a?b"]
)
def test_the_setting_is_an_address(text: str) -> None:
    """A word like `on` would allow nobody, or everybody."""
    with pytest.raises(click.BadParameter, match=r"like http://127\.0\.0\.1:9464"):
        serve.make_context("serve", [f"--page-writes={text}"])
    assert site_of("HTTP://Shop.internal:80") == "http://shop.internal"
