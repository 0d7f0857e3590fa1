"""What growth teams are promised of caps, budgets and shares, of the code that serves: under a policy that learns, in
calls of every kind, from two processes at once.

`test_limits.py` has the rules one by one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np

from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.open import open_log, open_reader
from decider.types import Reason
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.semantics.shop import open_shop
from simulator.verify import verify
from tests.page_writer import EXPERIMENT
from tests.rpc_clients import experiment, rows

LEARNED, DECISIONS, AT_ONCE = 1_000, 10_000, 1_000
"""After so many the policy knows what it wants; the windows of the others stay open, which is quicker."""


def test_shares_are_within_a_point_of_what_is_served(tmp_path: Path) -> None:
    """A policy that learns wants one action alone; it draws it as often as its largest share allows, whoever else is
    served beside: the control group, calls without exploration, calls that leave the action out."""
    made = experiment("home", "sale", "news", "gift", "none", window=10, baseline_action="none", holdout=0.05)
    made.actions[0].max_share, made.actions[1].min_share = 0.6, 0.2
    random, db = np.random.default_rng(3), tmp_path / "log.db"
    with open_shop(db, made) as shop:
        for first in range(0, LEARNED + DECISIONS, AT_ONCE):
            asked = [pb.DecideRequest(unit_id=f"u{first + number:05}") for number in range(AT_ONCE)]
            asked[0].explore = False
            for request in asked[1::20]:
                request.excluded_actions.append("sale")
            pairs = zip(shop.decide(*asked), random.random(AT_ONCE).tolist(), strict=True)
            shop.reward(*[one.decision_id for one, luck in pairs if luck < (0.9 if one.action.id == "sale" else 0.1)])
            shop.wait(11 if first < LEARNED else 0.5)
    drawn = rows(
        db,
        "select action, pmf from decisions where reason in (?, ?) and eligible is null and unit_id >= ?",
        Reason.EXPLOIT,
        Reason.EXPLORE,
        f"u{LEARNED:05}",
    )
    assert 0.85 * DECISIONS < len(drawn) < 0.95 * DECISIONS
    assert {tuple(json.loads(pmf)[:2]) for _, pmf in drawn} == {(600_000, 200_000)}
    shown = Counter([action for action, _ in drawn])
    assert abs(shown["sale"] / len(drawn) - 0.6) < 0.01
    assert abs(shown["news"] / len(drawn) - 0.2) < 0.01
    with closing(open_reader(db)) as log:
        assert (result := verify(log)).first is None, result.first and result.first.what
        assert result.equal == result.decisions == LEARNED + DECISIONS


def worker(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    """A process with threads that decide."""
    command = [sys.executable, "-m", "tests.page_writer", str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_calls_of_every_kind_in_two_processes_exceed_nothing(tmp_path: Path) -> None:
    """A page with several slots and a batch that names a unit twice count each of their decisions, and a call that is
    sent again counts none; whatever another process shows in the same moment."""
    made = experiment(EXPERIMENT, "sale", "news", "gift", "none", window=600, baseline_action="none")
    made.policy.uniform.SetInParent()
    made.actions[0].kind, made.actions[3].kind = "offer", "none"
    made.actions[2].daily_budget = 7
    for cap, most in ((made.caps.add(action="sale"), 2), (made.caps.add(kind="content"), 5)):
        cap.most = most
        cap.per.FromSeconds(3_600)
    db = tmp_path / "log.db"
    with closing(open_log(db)) as log:
        Versions(log).apply(from_message(made))
    with worker(db, "one", 60) as one, worker(db, "two", 60) as two:
        said = [line.split() for process in (one, two) for line in process.stdout or ()]
    assert (one.returncode, two.returncode) == (0, 0)
    found = rows(db, "select decision_id, unit_id, action from decisions")
    assert {(id_, action) for id_, action in said} == {(id_, action) for id_, _, action in found}
    shown = Counter([(unit, action) for _, unit, action in found])
    units = {unit for unit, _ in shown}
    assert {shown[unit, "sale"] for unit in units} == {2}
    assert {shown[unit, "news"] + shown[unit, "gift"] for unit in units} == {5}
    assert sum([shown[unit, "gift"] for unit in units]) <= 7
    with closing(open_reader(db)) as log:
        assert (result := verify(log)).first is None, result.first and result.first.what
        assert result.equal == result.decisions == len(found)
        assert log.check(lambda _: None) == []
