"""What a log lost is judged: how much, and whether it depends on the action, the outcome or the time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from simulator.evaluate.checks.left_out import REPEATED_IDS, Dependence, dependence, left_out, missing_ids
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.result import Finding
from simulator.logs.columns import Columns, Flags, LeftOutRows
from tests.logged_worlds import logged_world


def whole(seed: int = 1, decisions: int = 4_000) -> Columns:
    """A right log with times; a fifth of it is clicked."""
    columns = logged_world(seed=seed, decisions=decisions).columns
    time = 1_800_000_000_000_000 + np.arange(decisions) * 1_000_000
    return replace(columns, time=time, known=time)


def without(columns: Columns, lost: Flags, kind: str, *, outcome: bool = True) -> Columns:
    """The log without these rows. outcome: whether their reward is known."""
    reward = columns.reward[lost] if outcome else np.full(int(lost.sum()), np.nan)
    rows = LeftOutRows(columns.action[lost], reward, columns.time[lost])
    return replace(columns.take(~lost), left_out={kind: int(lost.sum())}, left_out_rows=rows)


def judged(columns: Columns) -> Finding:
    """The finding; there is one."""
    finding = left_out(columns)
    assert finding is not None
    return finding


def test_rows_lost_at_random_are_no_reason_to_refuse() -> None:
    """2,000 right logs that lost a tenth of their rows: the bound holds at any number of rows."""
    verdicts = []
    for seed in range(2_000):
        rng = np.random.default_rng(seed)
        columns = whole(decisions=[60, 400, 2_000][seed % 3], seed=seed % 50)
        lost = rng.random(len(columns)) < 0.1
        lost[0] = True
        verdicts.append(judged(without(columns, lost, "bad time")).verdict)
    assert verdicts.count("do not use") <= 5, "3 expected at most; each test is far below its level"
    assert set(verdicts) <= {"caution", "do not use", "fine"}


def test_visitors_lost_at_random_are_no_reason_to_refuse() -> None:
    """All 50 rows of a visitor go together, and visitors differ: rows are not lost independently."""
    verdicts = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        unit = np.arange(4_000) % 80
        clicked = (rng.random(4_000) < rng.beta(0.3, 0.6, 80)[unit]).astype(np.float64)
        lost = rng.permutation(80)[unit] < 10
        columns = replace(whole(seed=seed % 20), unit=unit, reward=clicked)
        verdicts.append(judged(without(columns, lost, "bad x")).verdict)
    assert verdicts.count("do not use") == 0


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_the_bound_is_above_the_exact_tail(lost: int, kept: int, data: st.DataObject) -> None:
    """The p-value of two groups is never smaller than that of the hypergeometric distribution."""
    group = data.draw(st.integers(1, lost + kept - 1))
    inside = data.draw(st.integers(max(0, group - kept), min(lost, group)))
    found = dependence(
        np.repeat([0, 1], [group - inside, kept - group + inside]),
        np.repeat([0, 1], [inside, lost - inside]),
        ["a", "b"],
    )
    exact = hypergeom(lost + kept, group, lost)
    assert found is not None
    assert found.p >= min(exact.sf(inside - 1), exact.cdf(inside)) - 1e-12


@pytest.mark.parametrize(
    ("depends", "says"),
    [
        ("action", "Decisions with action 'gift' were left out"),
        ("reward", "Decisions with reward 1 were left out"),
        ("time", "Decisions with a time from 2027-01-15"),
    ],
)
def test_a_loss_that_depends_on_something_makes_the_log_useless(depends: str, says: str) -> None:
    """Half of the rows of one action, or of those with a click, are not in the file."""
    columns, rng = whole(), np.random.default_rng(3)
    which = {
        "action": columns.action == columns.actions.index("gift"),
        "reward": columns.reward == 1,
        "time": np.arange(len(columns)) < 600,
    }[depends]
    finding = judged(
        without(columns, (which & (rng.random(len(columns)) < 0.6)) | (rng.random(len(columns)) < 0.02), "bad x")
    )
    assert finding.verdict == "do not use"
    assert says in finding.text
    assert "times as often as the others" in finding.text
    assert finding.needed


def test_a_small_loss_that_depends_on_the_outcome_is_pointed_out() -> None:
    """2 % of the rows, all of them clicks: the mean is too low, though by little."""
    columns, rng = whole(decisions=20_000), np.random.default_rng(4)
    lost = (columns.reward == 1) & (rng.random(len(columns)) < 0.1)
    finding = judged(without(columns, lost, "bad x"))
    assert finding.verdict == "caution"
    assert finding.value == pytest.approx(lost.mean())


@pytest.mark.parametrize(("share", "verdict"), [(0.6, "do not use"), (0.2, "caution"), (0.01, "fine")])
def test_the_share_alone_is_judged_too(share: float, verdict: str) -> None:
    """Lost without a trace of what the rows were, as lines that are no JSON are."""
    columns, rng = whole(), np.random.default_rng(5)
    lost = rng.random(len(columns)) < share
    columns = replace(columns.take(~lost), left_out={"bad line": int(lost.sum())})
    assert judged(columns).verdict == verdict


@pytest.mark.parametrize(("rate", "verdict"), [(0.2, "do not use"), (0.9, "do not use"), (0.97, "caution")])
def test_dropped_empty_rewards_are_never_fine(rate: float, verdict: str) -> None:
    """A LEFT JOIN gives NULL where nothing was bought: without these rows every click rate is 1."""
    columns, rng = whole(), np.random.default_rng(6)
    clicked = rng.random(len(columns)) < rate
    columns = replace(columns, reward=np.ones(len(columns)))
    finding = judged(without(columns, ~clicked, "empty reward", outcome=False))
    assert finding.verdict == verdict
    assert "have no usable reward" in finding.text
    assert "All others were rewarded" in finding.text
    assert "--empty-reward 0" in finding.needed


def test_rewards_that_are_not_known_yet_are_a_caution() -> None:
    """Both 0 and 1 stand there, and a tenth is empty at random: nobody can know, and nothing says that it is wrong."""
    columns, rng = whole(), np.random.default_rng(7)
    finding = judged(without(columns, rng.random(len(columns)) < 0.1, "empty reward", outcome=False))
    assert finding.verdict == "caution"
    one = np.arange(len(columns)) == 7
    assert judged(without(columns, one, "empty reward", outcome=False)).verdict == "fine", "one row moves nothing"


@pytest.mark.parametrize(
    ("rate", "others", "said"),
    [
        (0.0, 0.05, "Decisions with action 'b' were never left out, others were (0 % against 5 %)."),
        (0.2, 0.0, "Only decisions with action 'b' were left out (20 % against 0 %)."),
        (0.01, 0.05, "Decisions with action 'b' were left out 0.2 times as often as the others (1 % against 5 %)."),
    ],
)
def test_a_group_that_lost_nothing_or_alone_is_said_in_plain_words(rate: float, others: float, said: str) -> None:
    """It read "left out 0 times as often as the others"."""
    assert Dependence("action 'b'", rate, others, 0.0).words() == said


@pytest.mark.parametrize(
    ("kind", "share", "verdict"),
    [
        ("empty reward", 0.35, "do not use"),
        ("bad reward", 0.22, "do not use"),
        ("without a label", 0.3, "do not use"),
        ("empty reward", 0.18, "caution"),
        ("bad _label_cost", 0.07, "caution"),
    ],
)
def test_too_many_decisions_without_an_outcome_forbid_the_log(kind: str, share: float, verdict: str) -> None:
    """Half of the zeros were written as empty: what is left earned .61 where the truth was .40."""
    columns, rng = whole(), np.random.default_rng(8)
    empty = (columns.reward == 0) & (rng.random(len(columns)) < share / float((columns.reward == 0).mean()))
    finding = judged(without(columns, empty, kind, outcome=False))
    assert finding.verdict == verdict
    assert ("can be anything" in finding.text) == (verdict == "do not use")


@pytest.mark.parametrize("kind", REPEATED_IDS)
@pytest.mark.parametrize(("share", "verdict"), [(0.5, "do not use"), (0.06, "do not use"), (0.03, "fine")])
def test_an_id_that_other_rows_have_as_well_is_no_id_of_a_decision(kind: str, share: float, verdict: str) -> None:
    """Rows with the id `0`, which means none, were dropped but for the first."""
    columns, rng = whole(), np.random.default_rng(9)
    zero = rng.random(len(columns)) < share
    zero[np.flatnonzero(zero)[0]] = False
    finding = judged(without(columns, zero, kind))
    assert finding.verdict == verdict
    assert ("no id of a decision" in finding.text) == (verdict == "do not use")


def test_the_way_out_is_for_what_forbids_the_log() -> None:
    """More lines are broken than ids are repeated, but without them the log could be used."""
    columns = replace(whole(), left_out={"bad line": 600, REPEATED_IDS[0]: 400})
    assert "--column ignore=NAME" in judged(columns).needed


def test_one_id_for_all_rows_is_none() -> None:
    """119 of 120 rows were dropped as repeated ones."""
    columns = whole(decisions=120)
    finding = judged(without(columns, np.arange(120) > 0, "repeated id of another decision"))
    assert finding.verdict == "do not use"
    assert "All 120 rows have one decision id" in finding.text
    assert "del(.EventId)" in finding.needed
    table = judged(without(columns, np.arange(120) > 0, "repeated decision id of another row"))
    assert "--column ignore=NAME" in table.needed


@pytest.mark.parametrize(
    "kind",
    ["holdout", "window open", "checkpoint", "dangling reward", "not activated", "repeated", "dropped (pdrop = 1)",
     "left out so that pdrop is the same", "overridden", "in versions that were not asked for"],
)  # fmt: skip
def test_what_is_no_loss_is_only_counted(kind: str) -> None:
    """Lines that are no decisions, and decisions that wait or are kept apart on purpose."""
    finding = judged(replace(whole(), left_out={kind: 100_000}))
    assert (finding.verdict, finding.value) == ("fine", 0.0)
    assert f"100,000 {kind}" in finding.text


def test_one_unit_for_all_rows_gives_no_interval() -> None:
    """Clustered by one unit there is one observation; below twenty rows nobody evaluates anyway."""
    columns = whole()
    verdicts = {
        share: next(
            one.verdict
            for one in log_findings(
                replace(columns, unit=np.where(np.arange(4_000) < share * 4_000, -1, np.arange(4_000)))
            )
            if one.name == "repeated units"
        )
        for share in (0.01, 0.5, 0.95, 1.0)
    }
    assert verdicts == {0.01: "fine", 0.5: "caution", 0.95: "do not use", 1.0: "do not use"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("without a decision id", "decision ids"), ("without a unit id", "unit ids"), ("exact copies of rows", "copies")],
)
def test_ids_that_are_missing_are_said(kind: str, name: str) -> None:
    """A few or all are no fault; some are another kind of visitor."""
    verdicts = []
    for count in (40, 2_000, 4_000):
        (finding,) = missing_ids(replace(whole(), counts={kind: count}))
        assert finding.name == name
        assert f"{count:,} " in finding.text
        assert bool(finding.needed) == (finding.verdict == "caution")
        verdicts.append(finding.verdict)
    assert verdicts == ["fine", "caution", "caution" if name == "copies" else "fine"]
