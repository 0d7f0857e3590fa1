"""The page for people: its figures are those of the metrics, any text is text, and a browser shows it well."""

from __future__ import annotations

import http.client
import math
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from decider.estimate.guardrail import Evidence
from decider.estimate.lift import Lift
from decider.estimate.mean import Interval
from decider.experiment.guardrails import Guardrail
from decider.experiment.origin import UNKNOWN, Origin
from decider.learn.bad_data import roll_back, take_back
from decider.learn.guardrails import Judged
from decider.learn.left_out import LeaveOuts
from decider.learn.versions import Versions
from decider.log.daily_totals import DayTotals, Earned, day_of
from decider.log.exact_sum import ExactSum
from decider.log.log_totals import SLICE
from decider.log.open import open_log, open_reader
from decider.log.protocol import EventLog, NewReward, Tick
from decider.metrics.shared_totals import SharedTotals
from decider.page import charts, words
from decider.page.figures import Day, Segment, brief
from decider.page.history import NEWEST
from decider.page.page import LISTED, Page, address, security_policy
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.server.http.pages import pages
from decider.server.http.port import HttpPort
from decider.server.http.probes import Readiness
from decider.serving.current import Current
from decider.text import between, signed
from decider.types import ExperimentId, Position, Time
from simulator.verify import verify
from tests import long_logs
from tests.browser import Browser, assert_readable
from tests.lift_logs import shop, visits_db, write_visits
from tests.long_logs import PastClock
from tests.rpc_clients import InProcessClient, fetch
from tests.sqlite_steps import steps

MAIL = replace(shop(), id=ExperimentId("mail"))

HOSTILE = "<script>alert(1)</script>\" ' & <img src=//evil.example>"


class Seen(HTMLParser):
    """texts: everything that is written; tags, links: of elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        self._style = tag == "style"
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"], "the policy refuses these"

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if not self._style and data.strip():
            self.texts.append(" ".join(data.split()))
        self._style = False


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of nine days with two versions, whose policy brings more than the holdout."""
    path = tmp_path_factory.mktemp("page") / "log.db"
    clock = PastClock(9 * 86_400.0)
    with closing(open_log(path, clock=clock)) as log:
        versions = [shop(), shop(description=HOSTILE)]
        write_visits(log, clock, versions, decisions=3_000, units=5_000, pause=30_000.0)
        log.append([Tick()])
        Versions(log).apply(shop(description="calm"), origin=Origin(HOSTILE, "api", f"first line\n{HOSTILE}"))
    return path


@pytest.fixture(scope="module")
def server(db: Path) -> Iterator[InProcessClient]:
    """A whole server that serves it."""
    with closing(InProcessClient(db)) as client:
        yield client


def page_of(log: EventLog, readiness: str = "ok") -> Page:
    """Without a server, with the newest version of each experiment."""
    current = Current()
    for version in log.versions():
        current.put(version, Model(make_policy(version.experiment.policy)))
    leave_outs = LeaveOuts(log)
    leave_outs.tell(log.follow(Position(0)))
    now, ready = lambda: log.head().time, lambda: readiness
    return Page(log, SharedTotals(log), current, clock=now, readiness=ready, held={}, leave_outs=leave_outs)


def metrics(server: InProcessClient) -> Mapping[tuple[str, str], float]:
    """By metric and name of reward."""
    _, text = server.fetch("/metrics")
    return {
        (sample.name, sample.labels["name"]): sample.value
        for family in text_string_to_metric_families(text)
        if family.name.startswith("decider_lift")
        for sample in family.samples
    }


def test_the_figures_are_those_of_the_metrics(server: InProcessClient) -> None:
    """Two answers to one question would be none."""
    status, html = server.fetch("/experiments/shop")
    assert status == 200
    found, seen = metrics(server), Seen(html)
    assert found["decider_lift_low", "(learned)"] > 0
    low, high = (found[f"decider_lift_{end}", "(learned)"] for end in ("low", "high"))
    assert signed(found["decider_lift", "(learned)"]) in seen.texts
    assert between(low, high, written=signed) in seen.texts
    assert signed(found["decider_lift", "click"]) in seen.texts
    assert any(text.startswith("Yes: the policy earns ") for text in seen.texts)


def test_the_list_leads_to_every_experiment(server: InProcessClient) -> None:
    """It begins with the answer: yes, not yet or no."""
    status, html = server.fetch("/")
    seen = Seen(html)
    assert status == 200
    assert "/experiments/shop" in seen.links
    assert "yes" in seen.texts
    assert any(text.startswith("Figures as of") for text in seen.texts)


def test_a_week_is_the_lift_times_the_decisions_of_the_last_whole_days(db: Path) -> None:
    """The first day and today are not whole; a day without decisions is: traffic that is over is no promise."""
    with closing(open_log(db)) as log:
        totals = SharedTotals(log)
        with totals.read() as counted:
            today = max(counted.totals.daily["shop"]) + 1
            found, later, last = (brief(counted.totals, ExperimentId("shop"), today=today + n) for n in (0, 3, 34))
        rows = [d for v in log.versions() for d in log.decisions(v.position) if d.decision.reason != "HOLDOUT"]
    newest = max(day_of(one.time) for one in rows)
    assert newest == today - 1
    whole = [one for one in rows if today - 7 <= day_of(one.time)]
    assert found.lift is not None
    assert found.week is not None
    assert found.week.days == 7
    assert found.week.more.value == pytest.approx(found.lift.interval.value * len(whole))
    assert found.week.more.low == pytest.approx(found.lift.interval.low * len(whole))
    assert later.week is not None
    assert later.week.days == 7
    recent = [one for one in rows if today - 4 <= day_of(one.time)]
    assert later.week.more.value == pytest.approx(found.lift.interval.value * len(recent)), "the quiet days count"
    assert words.per_week(last.week, "click") == words.Fact("-", note="no decision in the last seven days")


def known(low: float, high: float, *, relative: bool = True) -> Lift:
    """A lift with this band."""
    interval = Interval((low + high) / 2, low, high)
    return Lift(interval, interval if relative else Interval(0, -float("inf"), 1), 0.2, 0.1, (90, 10), (90, 10), 20.0)


@pytest.mark.parametrize(
    ("found", "word", "said"),
    [
        (known(0.1, 0.3), "yes", "Yes: the policy earns 20 % more than the holdout."),
        (known(-0.3, -0.1), "no", "No: the policy earns 20 % less than the holdout."),
        (known(-0.1, 0.3), "not yet", "Not yet"),
        (known(0.1, 0.3, relative=False), "yes", "Yes: the policy earns 0.2 a decision more than the holdout."),
        (None, "not yet", "Not yet: there are too few rewards"),
    ],
)
def test_the_answer_is_yes_not_yet_or_no(found: Lift | None, word: str, said: str) -> None:
    """In these words, and with a percentage where the holdout earns anything."""
    verdict = words.verdict(found, shop())
    assert verdict.word == word
    assert verdict.sentence.startswith(said)


def test_without_a_holdout_the_page_says_how_to_get_an_answer() -> None:
    """`not yet` would promise one that never comes."""
    assert words.verdict(None, shop(holdout=0.0)).word == "no holdout"


def test_any_text_of_people_is_text(server: InProcessClient) -> None:
    """Notes, authors and definitions are what anybody with access may write."""
    _, html = server.fetch("/experiments/shop")
    seen = Seen(html)
    assert HOSTILE in seen.texts
    assert any(f"first line {HOSTILE}" in text for text in seen.texts)
    assert not {"script", "img", "iframe", "object"} & {*seen.tags}
    assert re.findall(r"<form [^>]*>", html) == ['<form class="find" method="get" action="/decisions">']
    assert all(link.startswith(("/", "data:,")) and not link.startswith("//") for link in seen.links)


def test_segments_and_names_of_rewards_are_text(tmp_path: Path) -> None:
    """They come with calls, so from anybody's browser."""
    clock = PastClock(86_400.0)
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        write_visits(log, clock, [shop()], decisions=250)
        (version,) = log.versions()
        (first, *_) = log.decisions(version.position)
        log.append([NewReward(first.position, HOSTILE, 1.0)])
        cell = charts.segment_row(Segment(HOSTILE, first_actions(log)), charts.Colours(["a", "b"]))
        assert cell.name == HOSTILE
        seen = Seen(page_of(log).experiment(ExperimentId("shop")).html)
    assert "script" not in seen.tags


def first_actions(log: EventLog) -> Counter[str]:
    """Of the first version."""
    (version,) = log.versions()
    return Counter([one.decision.action for one in log.decisions(version.position)])


@pytest.mark.parametrize(
    "path", ["/experiments/none", "/experiments/", f"/experiments/{HOSTILE}", "/?page=2", "/?page=x"]
)
def test_what_is_not_there_is_said_as_text(server: InProcessClient, path: str) -> None:
    """An address is a text of strangers, too."""
    status, html = server.fetch(urllib.parse.quote(path, safe="/?="))
    assert status == 404
    assert "script" not in Seen(html).tags


def test_ids_of_old_logs_have_an_address() -> None:
    """Whatever was an id once."""
    assert address(ExperimentId("a/../b?c#d")) == "/experiments/a%2F..%2Fb%3Fc%23d"


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 405), ("DELETE", 405)])
def test_the_page_only_reads(server: InProcessClient, method: str, status: int) -> None:
    """And it says to browsers that it needs no script, no frame and nothing from elsewhere."""
    with closing(http.client.HTTPConnection(server.http)) as connection:
        connection.request(method, "/experiments/shop")
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == status
    assert (method == "GET") == (status == 200 and body != b"")
    if status == 200:
        policy = answer.headers["Content-Security-Policy"]
        assert policy == security_policy()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_server_that_does_not_serve_yet_says_so() -> None:
    """A blank page for the minutes of a start would look like a fault."""
    routes: list[Route] = pages(lambda: None, lambda: Readiness(False, "learning experiment shop"))
    port = HttpPort("127.0.0.1", 0, routes=routes)
    port.start()
    try:
        status, text = fetch(f"http://127.0.0.1:{port.port}/")
    finally:
        port.stop()
    assert status == 503
    assert "learning experiment shop" in text


def test_a_page_costs_the_same_in_a_longer_log(tmp_path: Path) -> None:
    """Never a scan of the log on request."""
    counts = []
    for number, decisions in enumerate((500, 4_000)):
        with closing(open_log(visits_db(tmp_path / f"{number}.db", decisions=decisions))) as log:
            page = page_of(log)
            page.experiment(ExperimentId("shop"))
            counts.append(steps(log, lambda page=page: page.experiment(ExperimentId("shop"))))  # type: ignore[misc]
    assert counts[1] < counts[0] + 100


def test_a_log_that_was_never_counted_is_counted_slice_by_slice(tmp_path: Path) -> None:
    """After an upgrade a page answers at once, and says how much is missing."""
    with closing(open_log(visits_db(tmp_path / "log.db", decisions=250))) as log:
        for _ in range(3):
            log.append([Tick()] * SLICE)
        page = page_of(log)
        first, second = (Seen(page.overview().html).texts for _ in range(2))
        for _ in range(4):
            last = Seen(page.overview().html).texts
    assert any("not counted yet" in text for text in first)
    assert first != second
    assert not any("not counted yet" in text for text in last)


def test_a_thousand_experiments_are_listed_by_the_hundred(tmp_path: Path) -> None:
    """A page has to stay readable, and its cost bounded."""
    with closing(open_log(tmp_path / "log.db")) as log:
        for number in range(1_000):
            Versions(log).apply(long_logs.shop(f"e{number:03}"))
        page = page_of(log)
        (first, html), (last, tenth) = page.overview(), page.overview(10)
        assert (first, last, page.overview(11).status) == (200, 200, 404)
    seen = Seen(html)
    assert len([link for link in seen.links if link.startswith("/experiments/")]) == LISTED
    assert "/experiments/e000" in seen.links
    assert "/?page=10" in seen.links
    assert "/experiments/e999" in Seen(tenth).links


def test_only_the_newest_changes_are_told(tmp_path: Path) -> None:
    """An experiment may have had thousands of versions."""
    with closing(open_log(tmp_path / "log.db")) as log:
        for number in range(NEWEST + 5):
            Versions(log).apply(shop(holdout=0.1 + number / 1000), origin=Origin(f"person-{number}", "api", ""))
        seen = Seen(page_of(log).experiment(ExperimentId("shop")).html).texts
    assert next(text for text in seen if text.startswith("Version ")) == f"Version {NEWEST + 5}"
    assert len([text for text in seen if text.startswith("person-")]) == NEWEST
    assert "holdout 0.123 -> 0.124" in seen


def test_what_is_wrong_is_said_in_words(tmp_path: Path) -> None:
    """Whoever looks at the page does not look at /readyz."""
    with closing(open_log(visits_db(tmp_path / "log.db", decisions=250))) as log:
        page = page_of(log, "ok\nless than 1 GB is free on the log's disk")
        seen = Seen(page.overview().html).texts
    assert "less than 1 GB is free on the log's disk" in seen
    assert "please read" in seen


def test_a_day_with_too_little_data_has_no_point() -> None:
    """A mean of three decisions is noise that looks like a drop."""
    with_few = charts.LEAST - 1
    days = [day(10, charts.LEAST), day(11, with_few), day(12, charts.LEAST), day(13, charts.LEAST)]
    drawn = charts.daily(days, charts.colours(days), [("Version 2", 12)])
    assert drawn is not None
    policy = drawn.lines[0]
    assert [piece.count("L") for piece in policy.pieces] == [0, 1]
    assert drawn.marks == [(20.0, "Version 2")]
    assert sum([bar.height for bar in drawn.bars if bar.x < charts.SLOT]) == pytest.approx(charts.HEIGHT)


def day(number: int, decisions: int) -> Day:
    """With this many decisions, half of them rewarded."""
    totals = DayTotals()
    totals.add_decisions("s", "a", decisions)
    totals.earned["policy"] = Earned(decisions, ExactSum.of(decisions / 2))
    return Day(number, totals)


def test_decisions_without_a_segment_are_not_taken_for_all() -> None:
    """Beside named segments "all" would say something that is not so."""
    one, other = Segment("", Counter({"a": 3})), Segment("s", Counter({"a": 2}))
    assert [row.name for row in charts.segment_rows([one], charts.Colours(["a"]))] == ["all"]
    rows = charts.segment_rows([one, other], charts.Colours(["a"]))
    assert [row.name for row in rows] == ["no segment given", "s"]


def test_a_thin_segment_is_greyed_and_its_shares_are_whole() -> None:
    """Few decisions say little about what a segment gets."""
    known_colours = charts.Colours([f"a{number}" for number in range(charts.COLOURS + 3)])
    row = charts.segment_row(Segment("s", Counter({"a0": 3, "a7": 1, "a8": 4})), known_colours)
    assert row.is_thin
    assert [share.text for share in row.shares] == ["38 %", "62 %"]
    assert row.shares[1].name == "others"
    assert sum([bar.width for bar in row.bars]) == pytest.approx(100.0)


def judged(guardrail: Guardrail, lift: float, bound: float, *, crossed: bool = False) -> Judged:
    """With this lift and its bound on the side of the margin."""
    return Judged(guardrail, Evidence(lift, bound, 9.0 if crossed else 0.0, 3.0, 0.2, 0.1, (900, 100)))


@pytest.mark.parametrize(
    ("lift", "bound", "crossed", "word"),
    [
        (-0.001, -0.003, False, "holds"),
        (0.0015, -0.003, False, "not told yet"),
        (0.02, 0.005, True, "crossed"),
        (math.nan, -math.inf, False, "too little data"),
    ],
)
def test_a_guardrail_holds_is_crossed_or_is_not_told_yet(lift: float, bound: float, crossed: bool, word: str) -> None:
    """`not crossed` alone would be read as `all is well`: it holds once its other bound is within the margin, too."""
    guardrail = Guardrail("unsubscribe", at_most=0.002)
    row = words.rail(guardrail, judged(guardrail, lift, bound, crossed=crossed), MAIL)
    assert row.verdict.word == word
    assert row.bound == "at most +0.002"
    assert "an alarm" in row.follows.lower()
    assert words.state(shop(), crossed=crossed) == ("running, a guardrail is crossed" if crossed else "running")
    at_least = Guardrail("click", at_least=-0.002)
    mirrored = words.rail(at_least, judged(at_least, -lift, -bound, crossed=crossed), MAIL)
    assert mirrored.verdict.word == word


def test_a_guardrail_that_one_value_outweighs_says_so() -> None:
    """ "Too little data" would let people wait for ever."""
    guardrail = Guardrail("unsubscribe", at_most=0.002)
    found = judged(guardrail, math.nan, -math.inf)
    row = words.rail(guardrail, found._replace(evidence=replace(found.evidence, outweighed=True)), MAIL)
    assert row.verdict.word == "cannot be judged"


def test_a_crossed_guardrail_says_what_follows_and_the_way_out() -> None:
    """Whoever opens the page then wants to know just that."""
    guardrail = Guardrail("unsubscribe", at_most=0.002, falls_back=True, again_after=7 * 86_400_000_000)
    before = words.rail(guardrail, None, MAIL)
    assert (before.verdict.word, before.lift.text) == ("too little data", "-")
    assert before.follows == "If it is crossed: everybody gets the baseline action."
    crossed = replace(guardrail, crossed_at=Time(1_764_417_600_000_000))
    after = words.rail(crossed, judged(crossed, math.nan, -math.inf), MAIL)
    assert after.verdict.word == "crossed"
    assert "since 2025-11-29 12:00:00 UTC" in after.follows
    assert "decider resume mail" in after.follows
    assert "tries again after 7d" in after.follows
    other = replace(guardrail, reward="refund")
    beside = words.rail(other, judged(other, 0.02, 0.005, crossed=True), replace(MAIL, guardrails=(crossed, other)))
    assert beside.follows == "Everybody gets the baseline action already, since unsubscribe was crossed."


def test_guardrails_are_on_the_page(tmp_path: Path) -> None:
    """As declared, also before they are judged for the first time."""
    rewards = replace(shop().reward, weights={"click": 1.0})
    experiment = replace(shop(), reward=rewards, guardrails=(Guardrail("click", at_least=-0.01),))
    with closing(open_log(tmp_path / "log.db")) as log:
        Versions(log).apply(experiment)
        seen = Seen(page_of(log).experiment(ExperimentId("shop")).html)
    assert "Does it harm anything?" in seen.texts
    assert "at least -0.01" in seen.texts


def test_what_learning_leaves_out_is_a_change(tmp_path: Path) -> None:
    """It changes what is served as much as a version does; and it names the way back."""
    id_ = ExperimentId("shop")
    with closing(open_log(visits_db(tmp_path / "log.db", decisions=250))) as log:
        made = roll_back(log, id_, Position(0), origin=Origin("ann", "api", "a bot bought everything"))
        seen = Seen(page_of(log).experiment(id_, made.position).html).texts
        assert "Learning" in seen
        assert "a bot bought everything" in seen
        assert any(text.endswith(f"--take-back {made.position}") for text in seen)
        assert any(text.startswith("Done: Learning") for text in seen)
        take_back(log, id_, made.position, origin=UNKNOWN)
        seen = Seen(page_of(log).experiment(id_).html).texts
    assert f"learns again what the entry at {made.position} left out" in seen
    assert "not in force any more" in seen
    assert not any("--take-back" in text for text in seen)


def test_the_newest_decision_of_each_action_leads_to_its_explanation(server: InProcessClient) -> None:
    """Nobody knows an id by heart; and whoever knows one types it."""
    _, html = server.fetch("/experiments/shop")
    links = [link for link in Seen(html).links if link.startswith("/decisions/")]
    assert len(links) == 2
    for link in links:
        status, explained = server.fetch(link)
        assert status == 200
        assert "Why" in explained
    status, found = server.fetch(f"/decisions?id=%20{links[0].removeprefix('/decisions/')}")
    assert status == 200
    assert "Why" in found
    assert server.fetch("/decisions?id=//evil.example/x")[0] == 404
    assert server.fetch("/decisions")[0] == 404


def test_what_actions_earn_is_told_by_segment(server: InProcessClient) -> None:
    """Beside what is counted: the plain mean of an action says to whom the policy gave it."""
    _, html = server.fetch("/experiments/shop")
    seen = Seen(html).texts
    assert "Earns there" in seen
    assert any("All bands together are right with 95 %, at every look" in text for text in seen)
    assert any(re.fullmatch(r"0\.[\d]+ to 0\.[\d]+", text) for text in seen)


def test_the_log_of_these_tests_replays(db: Path, server: InProcessClient) -> None:
    """What was looked at is what was served."""
    server.until(lambda: server.rows("select 1 from models limit 1") or None, what="a model is stored")
    with closing(open_reader(db)) as log:
        found = verify(log)
    assert found.equal == found.decisions > 5_000


@pytest.mark.parametrize("path", ["/", "/experiments/shop", "/experiments/none"])
def test_a_browser_shows_it_on_a_phone_and_a_desk(chromium: Browser, server: InProcessClient, path: str) -> None:
    """By day and by night, without a word cut off, and nothing is loaded from elsewhere."""
    page = chromium.visit(f"http://{server.http}{path}")
    assert_readable(page)
    assert [url for url in page.requests if not url.startswith(("data:", f"http://{server.http}{path}"))] == []
    assert page.run("getComputedStyle(document.querySelector('section')).borderRadius") == "10px", "its style applies"


def test_the_answer_is_on_the_first_screen_of_a_phone(chromium: Browser, server: InProcessClient) -> None:
    """Nobody scrolls for a yes."""
    page = chromium.visit(f"http://{server.http}/experiments/shop", width=400)
    assert page.run("document.querySelector('.facts').getBoundingClientRect().bottom") < 800


def test_every_link_is_reached_by_keyboard_and_seen(chromium: Browser, server: InProcessClient) -> None:
    """Not everybody has a mouse."""
    page = chromium.visit(f"http://{server.http}/experiments/shop")
    wanted = page.run("document.querySelectorAll('a, summary').length")
    reached = []
    for _ in range(wanted):
        page.press_tab()
        reached.append(page.run("document.activeElement.textContent.trim()"))
        assert page.run("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert len({*reached}) == wanted > 3
