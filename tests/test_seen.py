"""What people are shown when something is wrong or was put back: on the page, by /readyz, metrics and the commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from decider.decide.decide import decide
from decider.experiment.origin import Origin
from decider.learn.bad_data import leave_out, roll_back, take_back
from decider.log.log_totals import LogTotals
from decider.log.open import open_log, open_reader
from decider.log.protocol import LeaveOut, Tick
from decider.metrics.alarms import split_evidence
from decider.page.alarms import Alarms
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import DecisionId, DecisionRequest, ExperimentId, Position, Reason, Time
from simulator.commands.lift import lift_command
from simulator.lift.find import find_lift
from simulator.logs.groups import load_groups
from simulator.verify import verify
from tests.lift_logs import shop, write_visits
from tests.long_logs import PastClock
from tests.rpc_clients import InProcessClient, experiment
from tests.test_page import page_of

SHOP = ExperimentId("shop")
ANN = Origin("ann", "command rollback", "a bot bought everything")


class Server(InProcessClient):
    """With questions to the page."""

    def text(self) -> str:
        """What a person reads on the experiment's page."""
        html = self.fetch("/experiments/shop")[1]
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html[html.index("<header") :]))

    def metric(self, name: str) -> float:
        """Of the experiment."""
        (found,) = [
            sample.value
            for family in text_string_to_metric_families(self.fetch("/metrics")[1])
            for sample in family.samples
            if sample.name == name and sample.labels.get("experiment") == SHOP
        ]
        return found

    def visit(self, count: int) -> None:
        """Decisions, the half of them rewarded, until they are learned."""
        made = [self.decide("shop", f"u{number}") for number in range(count)]
        for one in made[::2]:
            self.reward(one.decision_id, name="click")
        sealed = "select count(*) from sealed_decisions"
        all_ = self.rows("select count(*) from decisions")
        self.until(lambda: self.rows(sealed) == all_ or None, what="sealed")
        (head,) = self.rows("select max(time) from decisions")[0]
        self.until(lambda: self.learned_since(head) or None, what="learned")

    def learned_since(self, time: int) -> bool:
        """Whether the serving model's position is behind a time."""
        position = self.metric("decider_model_position")
        return bool(self.rows("select 1 from entries where position = ? and time > ?", int(position), time))

    def roll_back(self, to: Position) -> LeaveOut:
        """As the command does, in another process."""
        with closing(open_log(self.db)) as log:
            made = roll_back(log, SHOP, to, origin=ANN)
        self.until(lambda: self.metric("decider_model_position") >= made.position or None, what="followed")
        return made


@pytest.fixture(scope="module")
def split_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose policy earns more, and whose holdout's units come back three times as often as the others."""
    path = tmp_path_factory.mktemp("split") / "log.db"
    clock = PastClock(9 * 86_400.0)
    with closing(open_log(path, clock=clock)) as log:
        write_visits(log, clock, [shop()], decisions=4_000, units=3_000, pause=30_000.0)
        (version,) = log.versions()
        model = Model(make_policy(version.experiment.policy))
        control = [d.decision for d in log.decisions(version.position) if d.decision.reason is Reason.HOLDOUT]
        for turn in range(2):
            again = [
                DecisionRequest(DecisionId(f"{turn}-{n}"), one.unit_id, one.context) for n, one in enumerate(control)
            ]
            log.append([decide(one, version, model) for one in again])
        clock.advance(60.0)
        log.append([Tick()])
    return path


def test_a_split_that_is_wrong_gives_no_answer_on_the_page(split_db: Path) -> None:
    """A green Yes of groups that are not alike is worse than none: here the holdout's units earn nothing later."""
    with closing(open_log(split_db)) as log:
        page = page_of(log)
        own, listed = (html for _, html in (page.experiment(SHOP), page.overview()))
    for html in (own, listed):
        assert "split is wrong" in html or "Nobody can say: units are not in the holdout" in html
        assert "Units are not in the holdout with the declared share" in html
        assert "please read" in html
        assert 'class="verdict fine"' not in html
        assert "more than the holdout." not in html
        assert "<dt>Per decision</dt>" not in html


def test_a_split_that_is_wrong_gives_no_answer_in_the_command(split_db: Path, tmp_path: Path) -> None:
    """Text, JSON and report; its evidence is that of the metric."""
    found = find_lift(load_groups(split_db))
    with closing(open_log(split_db)) as log:
        totals = LogTotals(log)
        totals.catch_up()
        assert found.split_log_evalue == pytest.approx(split_evidence(totals.totals.lift["shop"], log.version_at))
    assert found.split_log_evalue is not None
    assert found.split_log_evalue > 6.9
    assert {row.answer for row in found.rows} == {"split is wrong"}
    to, report = tmp_path / "lift.json", tmp_path / "report"
    ran = CliRunner().invoke(lift_command, [str(split_db), "--json", str(to), "--report", str(report)])
    assert ran.exit_code == 0, ran.output
    for text in (ran.output, (report / "index.html").read_text(encoding="utf-8")):
        assert "nobody can say what the policy brings" in " ".join(text.split())
        assert "valid at every look:" not in text
    assert json.loads(to.read_text(encoding="utf-8"))["rows"][0]["answer"] == "split is wrong"


def test_all_shares_of_the_holdout_that_are_in_the_figure_are_said(tmp_path: Path) -> None:
    """With a ramp the newest share alone would be wrong for most of what is compared."""
    clock = PastClock(9 * 86_400.0)
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        versions = [shop(holdout=0.05), shop(holdout=0.05, description="same"), shop(holdout=0.2)]
        write_visits(log, clock, versions, decisions=500, units=5_000)
        _, html = page_of(log).experiment(SHOP)
    assert "The holdout had 5 %, then 20 % of the units" in html
    assert "counted as one" not in html


def test_alarms_are_said_in_words() -> None:
    """Split, propensities and rewards that have stopped; and nothing where nothing is wrong."""
    fine = Alarms(float("nan"), 6.8, {})
    assert not [*fine.lines()]
    said = [*Alarms(7.0, 7.0, {"click": ["policy", "holdout"], "buy": ["policy"], "like": ["holdout"]}).lines()]
    assert len(said) == 5
    assert "They get lost on the way" in said[3]
    assert "nobody wants what the policy shows" in said[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that learns within moments."""
    with closing(Server(tmp_path / "log.db", guard="off")) as client:
        client.apply(experiment("shop", "a", "b", window=0.1, holdout=0.2, baseline_action="a"))
        yield client
    with closing(open_reader(tmp_path / "log.db")) as log:
        found = verify(log)
    assert found.equal == found.decisions > 0


def test_after_a_rollback_the_model_is_as_old_as_what_it_knows(server: Server) -> None:
    """Its position is new, its knowledge is not: page, metric and explanation say so, until it learns again."""
    server.visit(20)
    to = Position(int(server.metric("decider_model_position")))
    server.visit(20)
    made = server.roll_back(to)
    with closing(open_log(server.db)) as log:
        known, now = log.time_at(to), log.head().time
    assert server.metric("decider_model_age_seconds") >= (now - known) / 1e6
    assert f"{made.entry} (position {made.position})" in server.text()
    assert "Rollback" in server.text()
    assert "a bot bought everything" in server.text()
    assert "<title>Rollback</title>" in server.fetch("/experiments/shop")[1]
    decided = server.decide("shop", "z")
    _, said = server.fetch(f"/decisions/{decided.decision_id}.json")
    assert f"The entry at {made.position} {made.entry}." in said
    server.visit(20)
    assert server.metric("decider_model_age_seconds") < (server.server.log.head().time - known) / 1e6
    assert f"(position {made.position})" not in server.text()


def test_a_stretch_that_somebody_forgot_is_said_everywhere(server: Server) -> None:
    """Nothing is learned, and nobody looks for that: so the page, /readyz and a metric name who said it and when."""
    server.visit(20)
    assert "Is all well? yes" in server.text()
    assert server.metric("decider_open_leave_outs") == 0
    with closing(open_log(server.db)) as log:
        made = leave_out(log, SHOP, begin=Time(log.head().time - 1), end=None, origin=ANN)
    server.until(lambda: server.metric("decider_open_leave_outs") == 1 or None, what="followed")
    for text in (server.fetch("/readyz")[1], server.text()):
        assert "experiment shop learns nothing" in text
        assert "by ann, command rollback: a bot bought everything" in text
        assert "and it is not over" in text
    assert "Is all well? please read" in server.text()
    assert "learning held" in server.text()
    assert server.fetch("/readyz")[0] == 200
    with closing(open_log(server.db)) as log:
        take_back(log, SHOP, made.position, origin=ANN)
    server.until(lambda: server.metric("decider_leave_outs_total") == 2 or None, what="followed")
    assert server.metric("decider_open_leave_outs") == 0
    assert "Is all well? yes" in server.text()
    assert server.fetch("/readyz")[1] == "ok\n"
