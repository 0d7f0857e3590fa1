"""The report of an evaluation: what it says, that nothing in a log can harm it, and that a real browser shows it."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from decider.text import printable
from simulator.evaluate.answer import answer, best_first, conclude, log_answer, with_answers
from simulator.evaluate.result import (
    ActionShare,
    Conclusion,
    Curve,
    Difference,
    Estimate,
    Evaluation,
    Finding,
    Histogram,
    HoldoutMean,
    PolicyResult,
    Segment,
    Verdict,
)
from simulator.report.evaluation import candidates
from simulator.report.pages.evaluation import summary, unexplained, write_report
from simulator.report.plots.estimates import shown_segments
from simulator.report.plots.forest import PLAIN, Mark, Row, can_be_drawn, forest, window
from simulator.report.plots.policy import of_policy
from tests.browser import FAINT, OVERFLOWING, UNDRAWN, Browser, Page
from tests.evaluations import ACTIONS, EVALUATION, FORCED, HOSTILE, LEARNED, LOG, REFUSED, THOMPSON

PAGE_LIMIT, PNG_LIMIT = 2_000_000, 300_000
VOID = {"meta", "link", "img", "br"}
PLOTS = {1: 5, 2: 4, 3: 2, 4: 1}
"""How many plots each policy of the sample has: all; no segments; refused, so only overlap; only estimates."""
OF_THE_LOG = 2
"""The log over its time, and the policies beside it."""


@dataclass
class Parsed(HTMLParser):
    """What a page holds: tables as rows of texts, attributes by tag, and the text of every section."""

    tables: list[list[list[str]]] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._section = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = str(dict(attrs)["id"])
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes what is not open"

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "section" in self._open:
            self.sections[self._section] = self.sections.get(self._section, "") + data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    def attributes(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [value or "" for _, given in self.tags for key, value in given.items() if key == name]

    def table(self, *headers: str) -> list[list[str]]:
        """The rows of the first table that begins with these headers; white space as it is shown."""
        table = next(rows[1:] for rows in self.tables if tuple(rows[0][: len(headers)]) == headers)
        return [[" ".join(cell.split()) for cell in row] for row in table]


class Report(NamedTuple):
    """What was written."""

    page: Path
    html: str
    parsed: Parsed


def parsed(html: str) -> Parsed:
    """The page read to its end; every element is closed."""
    page = Parsed()
    page.feed(html)
    page.close()
    return page


def written(evaluation: Evaluation, folder: Path) -> Report:
    """A report and what is in it."""
    page = write_report(with_answers(evaluation), folder)
    html = page.read_text(encoding="utf-8")
    return Report(page, html, parsed(html))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The sample's report."""
    return written(EVALUATION, tmp_path_factory.mktemp("report") / "new" / "folder")


# What it says


def test_the_answers_come_first_then_the_log_with_its_findings_and_what_was_left_out(report: Report) -> None:
    """Growth teams read the top; a number is worth what the log under it is worth, so that comes next."""
    assert list(report.parsed.sections)[:4] == ["answers", "log", "policies", "policy-1"]
    said = report.parsed.sections["log"]
    assert said.index("caution") < said.index("4.1 % of the rewards") < said.index("A window of 3 days")
    for left_out in ("112 not yet final", "31 overridden", "2 broken line <b>"):
        assert left_out in said


def test_the_answers_are_three_sentences_each_the_best_policy_first(report: Report) -> None:
    """How much, how sure, what to do: in words that need no glossary."""
    said = " ".join(report.parsed.sections["answers"].split())
    assert said.index(LEARNED.name) < said.index(THOMPSON.name) < said.index(FORCED.name) < said.index(REFUSED.name)
    assert (
        "+93.7 % (+28.9 % to +185 %): about 36 more reward a week (+11 to +70). "
        "A decision: 0.00736 instead of 0.0038. "
        "Sure: even the low end of the 95 % interval is better than what was logged. Caution: late rewards. "
        "What to do: Try it live with a share of the traffic."
    ) in said
    for word in ("ESS", "estimand", "dr", "snips", "effective"):
        assert not re.search(rf"\b{word}\b", said), word


@pytest.mark.parametrize(
    ("difference", "log", "effect"),
    [
        (
            (0.0524, 0.02, 0.08),
            {"hours": 168.0, "decisions": 26_500},
            "+138 % (+52.6 % to +211 %): about 1,400 more reward a week (+530 to +2,100).",
        ),
        (
            (-0.019, -0.03, -0.01),
            {"hours": 14.3 / 60},
            "-50 % (-78.9 % to -26.3 %): about 19 less reward in 1,000 decisions (-30 to -10).",
        ),
        (
            (0.2, 0.1, 0.3),
            {"mean_reward": -0.5, "mean_reward_low": -0.6, "reward_range": (-1.0, 1.0), "hours": 0.0},
            "About 200 more reward in 1,000 decisions (+100 to +300).",
        ),
        (
            (0.2, 0.1, 0.3),
            {"mean_reward": 0.0, "mean_reward_low": 0.0, "hours": 0.0},
            "About 200 more reward in 1,000 decisions (+100 to +300).",
        ),
        (
            (0.001, -0.02, 0.03),
            {},
            "This log cannot tell whether it is better or worse: -52.6 % to +78.9 %, or -200 to +300 reward a week.",
        ),
        (
            (0.0, -0.001, 0.001),
            {},
            "About the same as what was logged: -2.63 % to +2.63 %, or -10 to +10 reward a week.",
        ),
        (
            (-0.01, -0.05, 0.03),
            {},
            "This log cannot tell whether it is better or worse: -100 % to +78.9 %, or -380 to +300 reward a week.",
        ),
        (
            (-0.0386, -0.0382, -0.03),
            {},
            "-100 % (-100 % to -78.9 %): about 380 less reward a week (-380 to -300).",
        ),
        (
            (0.09, 0.02, 0.08),
            {},
            "+211 % (+52.6 % to +211 %): about 800 more reward a week (+200 to +800).",
        ),
        ((0.0, 0.0, 0.0), {}, "It would do the same as what was logged."),
        ((math.nan, -math.inf, math.inf), {}, "This log cannot tell whether it is better or worse."),
    ],
)
def test_a_difference_is_told_in_per_cent_and_by_the_week(
    difference: tuple[float, float, float], log: dict[str, Any], effect: str
) -> None:
    """No week is made of a quarter of an hour, and no per cent of a mean that may be nothing or less."""
    known = {"mean_reward": 0.038, "mean_reward_low": 0.03, "hours": 168.0}
    found = replace(THOMPSON, estimates={}, difference=Difference("logged", "dr", *difference, ""))
    assert answer(found, replace(LOG, **(known | log))).effect == effect


def test_what_to_do_follows_from_what_was_found() -> None:
    """A sentence that every policy gets would help nobody."""
    advice = {one.name: answer(one, LOG).advice for one in candidates(EVALUATION)}
    assert advice[LEARNED.name].startswith("Try it live")
    assert re.match("Log about [0-9,]+ more decisions like these", advice[THOMPSON.name])
    assert advice[REFUSED.name] == "Log with a minimum propensity of 0.01 for this action in every context."
    less = replace(LEARNED, difference=Difference("logged", "dr", -0.2, -0.3, -0.1, ""))
    assert answer(less, LOG).advice == "Keep what you have."


@pytest.mark.parametrize("difference", [(0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.0, -0.0001, 0.0001)])
def test_who_is_sure_names_the_cautions_of_the_log_and_of_the_policy(difference: tuple[float, float, float]) -> None:
    """An interval knows nothing of rows that are missing: "Sure ... Try it live" stood over a log that lost a third."""
    log = replace(LOG, findings=tuple([Finding(name, "caution", "", 0.1, "X.") for name in ("left_out", "versions")]))
    own = (Finding("versions", "caution", "", 0.1, "X."), Finding("support", "caution", "", 0.1, "X."))
    found = replace(
        LEARNED,
        difference=Difference("logged", "dr", *difference, ""),
        diagnostics=replace(LEARNED.diagnostics, findings=own),
    )
    said = answer(found, log).certainty
    assert said.startswith("Sure: ")
    assert said.endswith(" Caution: left out, versions, support.")
    fine = replace(found, diagnostics=replace(LEARNED.diagnostics, findings=()))
    assert "Caution" not in answer(fine, replace(LOG, findings=())).certainty


@given(st.lists(st.tuples(*[st.floats()] * 3), min_size=1, max_size=5), st.floats(-1e6, 1e6), st.floats(0, 1e9))
def test_any_figures_make_sentences(figures: list[tuple[float, float, float]], mean: float, hours: float) -> None:
    """A nan or an infinity in an estimate must not cost the answer; the order holds every policy once."""
    log = replace(LOG, mean_reward=mean, mean_reward_low=mean, reward_range=(-1e6, 1e6), hours=hours)
    results = [replace(THOMPSON, difference=Difference("logged", "dr", *one, "")) for one in figures]
    for one in results:
        said = answer(one, log)
        assert all((said.effect, said.certainty, said.advice))
        assert not re.search(r"\b(nan|inf)\b", f"{said.effect} {said.certainty} {said.advice}")
    assert sorted(map(id, best_first(results))) == sorted(map(id, results))


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("fine", "This log can be used. Nothing has to be done first."),
        ("caution", "This log can be used. To do first (late rewards): Longer windows."),
        (
            "do not use",
            "Do not use this log: its answers would be wrong. Late. To do first (late rewards): Longer windows.",
        ),
    ],
)
def test_the_first_line_about_a_log_says_whether_it_can_be_used_and_what_to_do(verdict: Verdict, said: str) -> None:
    """Who inspects a log wants that before any table."""
    findings = (Finding("fine one", "fine", "Fine."), Finding("late rewards", verdict, "Late.", 0.1, "Longer windows."))
    assert log_answer(replace(LOG, verdict=verdict, findings=findings)) == said


def test_the_title_is_the_experiment_with_its_days(tmp_path: Path) -> None:
    """`shop.db` says nothing in a list of attachments."""
    dated = replace(
        LOG, experiment="home-banner", first_decision="2026-11-20T08:00:00Z", last_decision="2026-11-27T09:30:00Z"
    )
    html = written(replace(EVALUATION, log=dated), tmp_path).html
    assert re.search("<title>.*: home-banner, 2026-11-20 to 2026-11-27</title>", html)
    assert "<h1><bdi>home-banner</bdi></h1>" in html


def test_the_control_group_stands_beside_the_policies(tmp_path: Path) -> None:
    """What randomised decisions earned is the best that the log knows of the baseline."""
    holdout = HoldoutMean("none", 0.1, 1_012, 990, Estimate(0.0031, 0.0012, 0.0061, "cressie-read"))
    report = written(replace(EVALUATION, log=replace(LOG, holdout=holdout)), tmp_path)
    (row,) = [row for row in report.parsed.table("Policy", "Estimand") if row[0].startswith("holdout")]
    assert row[0] == "holdout always none"
    assert row[2] == "0.0031 0.0012 to 0.0061"
    assert "holdout: 0.0031 (0.0012 to 0.0061)" in " ".join(report.parsed.attributes("alt"))


def test_the_policies_stand_side_by_side_with_the_logged_one(report: Report) -> None:
    """The one table that most readers read has every figure that they need to judge it."""
    rows = report.parsed.table("Policy", "Estimand")
    assert rows[0] == [
        "logged",
        "mean of the log fixed policy",
        "0.0038 0.002736 to 0.005134",
        "-",
        "10,000",
        "-",
        "! caution",
    ]
    assert rows[1] == [
        THOMPSON.name,
        "fixed policy",
        "0.004776 0.001702 to 0.009811 by snips",
        "+0.000976 -0.0021 to +0.00601 not told apart",
        "1,640",
        "8.24",
        "! caution",
    ]
    assert rows[2][2:4] == ["0.007362 0.002701 to 0.0146 by dr", "+0.00356 +0.0011 to +0.00702 more"]
    assert rows[3][1:] == ["fixed policy", "refused this log cannot answer it", "-", "2.1", "0", "✕ do not use"]
    assert rows[4][2:4] == ["0.0139 - by ips", "+0.0101 - not to be relied on"]
    assert len(rows) == 5, "the logged policy has the first row and no other"


def test_every_estimator_has_a_row_that_says_whether_it_is_biased(report: Report) -> None:
    """DM is shown as what it is."""
    rows = {row[0]: row[1:] for row in report.parsed.table("Estimator", "Value")}
    assert len(rows) == len(THOMPSON.estimates) + 1
    assert next(iter(rows)) == "snips look here first"
    assert rows["snips look here first"] == ["0.004776", "0.001702 to 0.009811", "cressie-read", "-"]
    assert rows["dm"][3] == "biased: as good as the reward model, whose error it cannot see"
    assert rows["replay"] == ["-", "-", "clopper-pearson", "biased: no decision agreed"]
    assert rows["difference to what was logged"][:2] == ["+0.000976", "-0.0021 to +0.00601"]


def test_diagnostics_stand_above_the_estimates(report: Report) -> None:
    """Who reads from the top meets the reasons before the numbers."""
    for number in (1, 2, 4):
        said = report.parsed.sections[f"policy-{number}"]
        assert 0 < said.index("Can the log carry the question?") < said.index("Largest weight")
        assert said.index("Largest weight") < said.index("Estimates of the reward per decision")
    assert FORCED.diagnostics.reasons[0] in report.parsed.sections["policy-4"]
    assert "do not rely on the figures" in report.parsed.sections["answers"]


def test_what_is_refused_has_a_reason_and_no_number(tmp_path: Path) -> None:
    """Even if an evaluation carried estimates for it, a refused policy must not get a figure into a meeting."""
    leaky = replace(
        REFUSED,
        estimates={"snips": Estimate(0.777, 0.666, 0.888, "cressie-read")},
        difference=Difference("logged", "snips", 0.555, 0.5, 0.6, "cressie-read"),
        curve=LEARNED.curve,
        segments=THOMPSON.segments,
    )
    report = written(replace(EVALUATION, policies=(leaky,)), tmp_path)
    said = report.parsed.sections["policy-1"]
    for reason in leaky.diagnostics.reasons:
        assert said.count(reason) == 2, "among the reasons, and in the table of all checks"
    assert "Needed: Log with a minimum propensity of 0.01" in said
    assert "Estimator" not in said
    assert not re.search("0[.](777|666|888|555)", report.html)
    assert {path.name.rpartition("-")[2] for path in tmp_path.glob("policy-*.png")} == {"weights.png", "actions.png"}


def test_segments_and_importance_are_in_tables_too(report: Report) -> None:
    """A plot shows the largest; whoever looks for one segment finds it, and one too thin to judge says so."""
    rows = report.parsed.table("Field", "Value")
    assert len(rows) == len(THOMPSON.segments)
    assert rows[-2][:4] == ["location", HOSTILE, "12", "1.92"]
    assert rows[-2][5:] == ["too few decisions", "-"]
    assert rows[0][6].startswith("+0.0009 ")
    assert report.parsed.table("Field left out")[0] == [
        "segment",
        LEARNED.name,
        "+0.00121",
        "+0.0004 to +0.0021",
        "useful",
    ]


def test_the_glossary_explains_what_the_page_uses_and_nothing_else(report: Report) -> None:
    """A word that is not on the page would only frighten."""
    terms = report.parsed.sections["glossary"]
    for used in ("ESS", "snips", "dm, direct method", "switch-dr", "Progressive learner", "Confidence sequence"):
        assert used in terms
    assert "mips" not in terms


def test_a_log_without_policies_has_a_page(tmp_path: Path) -> None:
    """`inspect` asks about the log alone."""
    report = written(replace(EVALUATION, policies=(), importance=(), importance_missing={}), tmp_path)
    assert list(report.parsed.sections) == ["log", "glossary"]
    assert [path.name for path in tmp_path.glob("*.png")] == ["log-over-time.png"]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (LEARNED, "more"),
        (THOMPSON, "not told apart"),
        (replace(THOMPSON, difference=Difference("logged", "ips", -0.2, -0.3, -0.1, "")), "less"),
        (replace(THOMPSON, difference=Difference("logged", "ips", 0.2, 0.0, 0.3, "")), "not told apart"),
        (
            replace(THOMPSON, difference=Difference("logged", "ips", math.nan, math.nan, math.nan, "")),
            "not told apart",
        ),
        (replace(THOMPSON, difference=None), "no comparison"),
        (FORCED, "not to be relied on"),
        (REFUSED, "refused"),
    ],
)
def test_a_policy_is_better_only_where_its_interval_says_so(result: PolicyResult, said: Conclusion) -> None:
    """The sentence that growth teams quote must be the one that the figures carry."""
    assert conclude(result) == answer(result, LOG).conclusion == said


def test_the_summary_counts_every_policy_once() -> None:
    """The lead of the page adds up."""
    policies = candidates(EVALUATION)
    told = summary(policies)
    assert sum(int(part.split()[0]) for part in told) == len(policies) == len(EVALUATION.policies) - 1
    assert "1 would have earned more" in told


def test_reasons_that_a_finding_tells_are_not_told_twice() -> None:
    """Reasons are the texts of findings; those of an evaluation without findings must still be seen."""
    assert unexplained(REFUSED.diagnostics) == []
    assert unexplained(FORCED.diagnostics) == list(FORCED.diagnostics.reasons)


# Nothing in a log can harm it


def test_names_are_text(report: Report) -> None:
    """Whoever can name an action or a file could otherwise run a script in the reader's browser."""
    assert "script" not in {tag for tag, _ in report.parsed.tags}
    assert not [name for _, given in report.parsed.tags for name in given if name.startswith("on")]
    assert HOSTILE in report.parsed.text
    assert "line break\ufffd\ufffd\ufffd" in report.parsed.text
    assert not {"\x00", "\ud800", "\u202e"} & set(report.html)


def test_the_page_asks_for_nothing(report: Report) -> None:
    """It opens from an attachment, without a network, and tells nobody that it was read."""
    asked = [*report.parsed.attributes("src"), *report.parsed.attributes("href")]
    assert asked
    assert all(address.startswith(("data:", "#")) for address in asked)
    assert not re.search(r"url\(|@import|<script|<iframe", report.html)
    assert "default-src 'none'" in str(report.parsed.attributes("content"))


def test_the_same_evaluation_gives_the_same_bytes(report: Report, tmp_path: Path) -> None:
    """A report in version control changes only when its figures do."""
    write_report(EVALUATION, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in report.page.parent.iterdir()}
    for name in names:
        assert (tmp_path / name).read_bytes() == (report.page.parent / name).read_bytes(), name


@given(st.lists(st.tuples(*[st.floats()] * 3), max_size=6))
def test_what_is_in_view_holds_every_value(figures: list[tuple[float, float, float]]) -> None:
    """Whatever an estimator returns, the axis has a length and every value is on it."""
    low, high = window([Mark(PLAIN, *one) for one in figures])
    drawn = [value for value, _, _ in figures if can_be_drawn(value)]
    assert low < high
    assert all(low <= value <= high for value in drawn)


@pytest.mark.parametrize("x", [0.0, 5e-324, -1e15, 1e300, math.inf, math.nan])
def test_plots_bear_any_figures(x: float) -> None:
    """A nan in one estimate must not cost the report of a long evaluation."""
    estimate = Estimate(0.0046, x, x, "cressie-read")
    result = replace(
        FORCED,
        estimates={"ips": estimate, "dm": Estimate(x, -x, 0.0046, "", unbiased=False)},
        curve=Curve((1, 2, 3), (0.0046, x, x), (-x, x, 0.0), (x, x, 123.0)),
        weights=Histogram((0.0, 1.0, math.inf), (0, 3)),
        actions=(ActionShare("a", 0.0, x), ActionShare("b", 0.5, 0.5)),
        segments=(Segment("device", "", 3, x, estimate, None), Segment("", "phone", 3, x, estimate, estimate)),
    )
    for plot in of_policy(result, replace(LOG, mean_reward=x), 1):
        ElementTree.fromstring(plot.svg)


# The plots


def test_every_plot_is_a_file_that_shows_something(report: Report) -> None:
    """The PNG files go into slides: they must be pictures, not blank, and small enough to send."""
    files = sorted(report.page.parent.glob("*.png"))
    assert len(files) == OF_THE_LOG + sum(PLOTS.values())
    for file in files:
        pixels = np.asarray(imread(file))[..., :3]
        assert min(pixels.shape[:2]) > 300
        assert len(np.unique(pixels @ [1, 1_000, 1_000_000])) > 30, f"{file.name} has hardly any colours"
        ink = float((pixels.min(axis=2) < 0.9).mean())
        assert 0.005 < ink < 0.6, f"{file.name} is {ink:.1%} ink"
        assert file.stat().st_size < PNG_LIMIT
    assert report.page.stat().st_size < PAGE_LIMIT


def test_the_page_holds_every_plot_with_a_text_for_who_cannot_see_it(report: Report) -> None:
    """A plot says its figures in words as well."""
    images = [given for tag, given in report.parsed.tags if tag == "img"]
    assert len(images) == OF_THE_LOG + sum(PLOTS.values())
    for image in images:
        kind, _, data = str(image["src"]).partition(",")
        assert kind == "data:image/svg+xml;base64"
        ElementTree.fromstring(base64.b64decode(data))
        assert len(str(image["alt"])) > 40
    assert "logged: 0.0038 (0.002736 to 0.005134)" in str(images[1]["alt"])


def test_of_80_actions_the_largest_shifts_are_drawn_and_the_others_counted(report: Report) -> None:
    """80 rows would not be read; a plot that hides 60 without a word would be."""
    alt = next(alt for alt in report.parsed.attributes("alt") if alt.startswith("Mean probability of actions"))
    largest = max(THOMPSON.actions, key=lambda one: abs(one.candidate - one.logged))
    assert f"first: {largest.action} 1.25 % to" in alt
    assert f"{len(ACTIONS) - 20} other actions change less and are left out." in report.parsed.text


def test_what_has_no_interval_is_a_point_and_what_leaves_both_sides_is_written() -> None:
    """Arrows on both sides say nothing, and dm has no interval at all."""
    narrow = [Row(name, Mark(PLAIN, 1.0, 0.9, 1.1)) for name in "abcd"]
    wide = [Row("dm", Mark(PLAIN, 1.0, math.nan, math.nan)), Row("wide", Mark(PLAIN, 1.0, -100.0, 100.0))]
    one_side = [Row("high", Mark(PLAIN, 1.0, 0.9, 100.0))]
    (axes,) = forest([*narrow, *wide, *one_side], title="", subtitle="", unit="", line=None, key={}).axes
    assert [line.get_marker() for line in axes.lines if line.get_marker() in {"<", ">"}] == [">"]
    assert [line.get_marker() for line in axes.lines].count("o") == 6
    assert "-100 to 100 (too wide to draw)" in [text.get_text() for text in axes.texts]


def test_a_segment_without_an_estimate_says_why() -> None:
    """13 of 19 rows without a mark and without a word were taken for a fault of the page."""
    *_, plot = of_policy(THOMPSON, LOG, 1)
    small = [one for one in shown_segments(THOMPSON.segments) if one.difference is None]
    many = [*THOMPSON.segments[:2], *[replace(one, difference=None) for one in THOMPSON.segments[2:]]]
    *_, sparse = of_policy(replace(THOMPSON, segments=tuple(many)), LOG, 1)
    for drawn, expected in ((plot, len(small)), (sparse, len(shown_segments(many)) - 2)):
        said = [text for text in ElementTree.fromstring(drawn.svg).itertext() if text == "too few decisions"]
        assert len(said) == expected


def test_names_in_plots_are_drawn_as_they_are() -> None:
    """A `$` starts no formula, `_` hides nothing, and a script that the font lacks is no warning."""
    odd = [name for name in ACTIONS if not name.startswith("banner")]
    shares = tuple(ActionShare(name, 0.1, 0.2) for name in odd)
    (plot,) = of_policy(replace(REFUSED, weights=None, actions=shares, name="_$x$"), LOG, 1)
    drawn = "".join(ElementTree.fromstring(plot.svg).itertext())
    for name in ("_$x$", "none", "$x^2$ & 'half' \"price\"", "عرض خاص", "_private", printable("line\nbreak\x00\ud800")):
        assert name in drawn


def test_cells_have_headers_that_say_what_they_head(report: Report) -> None:
    """A screen reader reads a cell with its headers."""
    headers = [given for tag, given in report.parsed.tags if tag == "th"]
    assert headers
    assert all(given.get("scope") in ("col", "row") for given in headers)
    for rows in report.parsed.tables:
        assert len({len(row) for row in rows}) == 1


# A real browser shows it


@pytest.fixture(scope="module")
def shown(chromium: Browser, report: Report) -> Page:
    """The report, opened from the disk."""
    return chromium.page(report.page)


def test_a_browser_decodes_every_plot(shown: Page) -> None:
    """An SVG that is no XML is an empty box that only a browser notices."""
    assert shown.run("document.images.length") == OF_THE_LOG + sum(PLOTS.values())
    assert shown.run(UNDRAWN) == []
    assert shown.run("[...document.images].every(i => i.naturalWidth > 300 && i.getBoundingClientRect().width > 200)")


def test_a_browser_shows_the_tables(shown: Page, report: Report) -> None:
    """What a browser makes of the page is what was written."""
    shown.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    rows = "[...document.querySelectorAll('#side-by-side tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    cells = [[" ".join(cell.split()) for cell in row] for row in shown.run(rows)]
    assert cells == report.parsed.table("Policy", "Estimand")
    counts = "[...document.querySelectorAll('.estimates')].map(t => t.tBodies[0].rows.length)"
    assert shown.run(counts) == [len(one.estimates) for one in (THOMPSON, LEARNED, FORCED)]


def test_a_browser_takes_names_as_text_and_loads_nothing(shown: Page) -> None:
    """The script in the names does not run, and no address but the page's own is asked for."""
    assert shown.run("document.scripts.length") == 0
    assert str(shown.run("document.title")).endswith(f"{HOSTILE}, without times")
    assert shown.run("document.querySelector('h1').textContent") == LOG.name
    own, *others = shown.requests
    assert own.startswith("file:")
    assert all(address.startswith("data:") for address in others)


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_cut_off_on_a_phone_or_a_desk(shown: Page, width: int) -> None:
    """Also with everything unfolded."""
    shown.resize(width)
    shown.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.run("innerWidth") == width
    assert shown.run(OVERFLOWING) == []
    assert shown.run("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("width", "longest"), [(400, 4_000), (1280, 2_500)])
def test_the_answer_is_on_the_first_screen_and_the_folded_page_is_short(shown: Page, width: int, longest: int) -> None:
    """A page of 27 phone screens is not read: four policies take five at most, and the best one is on the first."""
    shown.run("document.querySelectorAll('details').forEach(d => d.open = false)")
    shown.resize(width, 800)
    answers = shown.run("[...document.querySelectorAll('.answer')].map(a => a.getBoundingClientRect().bottom)")
    assert answers[0] < 800
    assert len(answers) == len(PLOTS)
    assert shown.run("document.documentElement.scrollHeight") < longest


def test_what_is_folded_opens_by_keyboard_and_by_a_link_from_the_answer(shown: Page) -> None:
    """Without a mouse, too; who follows a policy's name must not land on a closed lid."""
    shown.run("document.querySelectorAll('details').forEach(d => d.open = false)")
    shown.run("document.querySelector('.answer a').click()")
    number = shown.run("document.querySelector('.answer a').hash.slice(1)")
    wait = "new Promise(done => setTimeout(() => done(document.querySelector('#%s').checkVisibility()), 100))"
    assert shown.run(wait % number)
    shown.run("document.querySelector('#log summary').focus()")
    assert shown.run("document.activeElement.tagName") == "SUMMARY"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_by_day_and_by_night(shown: Page, scheme: str) -> None:
    """Contrast as WCAG asks for, in both schemes; the verdicts are said in words besides."""
    shown.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    shown.prefer(scheme=scheme)
    assert shown.run(FAINT) == []


def test_on_paper_everything_is_unfolded_and_fits(shown: Page) -> None:
    """A printed report has no button to press: A4 less its margins is 688 CSS pixels wide."""
    shown.run("document.querySelectorAll('details').forEach(d => d.open = false)")
    shown.resize(688)
    shown.prefer(medium="print")
    assert shown.run(OVERFLOWING) == []
    visible = "[...document.querySelectorAll('details table')].map(t => t.checkVisibility())"
    assert shown.run(visible) == [True] * 10
    shown.prefer(medium="screen")
    assert shown.run(visible) == [False] * 10, "on a screen they are folded"
    assert shown.printed().startswith(b"%PDF")


def test_the_probes_find_what_is_wrong(chromium: Browser, tmp_path: Path) -> None:
    """A probe that never finds anything would make every test above pass."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        "<body style='background: white'><img src='data:image/png;base64,AAAA' alt='broken'>"
        "<p style='color: #aaa'>faint</p><p style='white-space: nowrap'>" + "wide" * 200,
        encoding="utf-8",
    )
    page = chromium.page(broken, width=400)
    assert page.run(UNDRAWN) == ["broken"]
    assert [line.split()[1:] for line in page.run(FAINT)] == [["P", "faint"]]
    assert any("widewide" in line for line in page.run(OVERFLOWING))
    page.screenshot(tmp_path / "picture.png")
    assert imread(io.BytesIO((tmp_path / "picture.png").read_bytes())).shape[1] >= 400
