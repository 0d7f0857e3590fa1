"""The page for people: does it pay, what does it harm, who gets what, what changed when, is all well. HTML, no script.

Called by the HTTP port. It reads totals, versions, sizes and a bounded number of the newest decisions, so it takes as
long in a long log as in a short one; and it holds nothing that a Decide waits for.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup

from decider.estimate.cells import EFFECTIVE_DRAWS
from decider.estimate.lift import LEVEL
from decider.experiment.definition import Experiment
from decider.learn.guard import describe
from decider.learn.guardrails import Judged
from decider.learn.left_out import LeaveOuts, in_force_at, knows_until, not_over, open_in_words
from decider.log.cell_totals import LEAST, MOST_ACTIONS, MOST_SEGMENTS
from decider.log.daily_totals import day_of
from decider.log.log_totals import LogTotals
from decider.log.protocol import LeaveOut, LogReader
from decider.log.totals import Labels
from decider.metrics.shared_totals import SharedTotals
from decider.page import charts, words
from decider.page.alarms import Alarms, alarms
from decider.page.controls import controls
from decider.page.figures import Brief, Sheet, brief, sheet
from decider.page.history import Change, History
from decider.page.latest import latest
from decider.page.templates import SHARED, environment
from decider.replay.words import figure, value_text
from decider.serving.current import Current
from decider.text import NOTHING, count, duration, percent
from decider.types import START, ExperimentId, Position, Time

LISTED = 100
"""Experiments on one page of the list."""

HEALTH_LINES = 20
"""Of what /readyz says."""

SEGMENTS = 4
"""That are shown at once; the others are folded."""

MICROSECONDS = 1e6


class Answer(NamedTuple):
    """What the port sends."""

    status: int
    html: str


class Health(NamedTuple):
    """is_fine: nothing is to be looked at."""

    is_fine: bool
    lines: Sequence[str]


class Asof(NamedTuple):
    """Of which moment the figures are. behind: entries that are not counted yet."""

    time: str
    behind: int


@dataclass(frozen=True, slots=True)
class ListRow:
    """One experiment of the list."""

    id: ExperimentId
    address: str
    state: str
    verdict: words.Verdict
    relative: words.Fact
    week: words.Fact


class Page:
    """From any thread. readiness: the text of /readyz. held: experiments whose learning the guard holds. leave_outs:
    what models leave out. judged: the guardrails, missing_rewards: evidence that some have stopped; as of the last
    look. takes_changes: whether it has forms by which people change something."""

    def __init__(
        self,
        log: LogReader,
        totals: SharedTotals,
        current: Current,
        *,
        clock: Callable[[], Time],
        readiness: Callable[[], str],
        held: Mapping[ExperimentId, LeaveOut],
        leave_outs: LeaveOuts,
        judged: Callable[[], Mapping[ExperimentId, Sequence[Judged]]] = dict,
        missing_rewards: Callable[[], Mapping[Labels, float]] = dict,
        takes_changes: bool = False,
    ) -> None:
        self._log = log
        self._totals = totals
        self._current = current
        self._clock = clock
        self._readiness = readiness
        self._held = held
        self._leave_outs = leave_outs
        self._judged = judged
        self._missing_rewards = missing_rewards
        self._takes_changes = takes_changes
        self._history = History(log)

    def overview(self, number: int = 1) -> Answer:
        """The list of experiments; number: of its page. Raises LogError."""
        ids = self._ids()
        pages = max(1, -(-len(ids) // LISTED))
        if not 1 <= number <= pages:
            return self._missing(f"there is no page {number} of the list; it has {count(pages)}")
        shown = ids[(number - 1) * LISTED : number * LISTED]
        with self._totals.glance() as counted:
            briefs = {id_: brief(counted.totals, id_, today=day_of(self._clock())) for id_ in shown}
            known = {id_: self._alarms(counted, id_) for id_ in shown}
            asof = self._asof(counted)
        rows = [self._row(id_, briefs[id_], known[id_]) for id_ in shown]
        said = [f"experiment {id_}: {line}" for id_ in shown for line in known[id_].lines()]
        values = {
            "rows": rows,
            "all": len(ids),
            "number": number,
            "pages": pages,
            "health": self._health(self._readiness, alarmed=said),
        }
        return Answer(200, render("list.html.j2", title="Does it pay?", subject="Experiments", asof=asof, **values))

    def _ids(self) -> Sequence[ExperimentId]:
        """Those that serve or will, then those that have ended."""
        current = self._current
        live = {*current, *current.held.copy()}
        return [*sorted(live), *sorted({*current.ended.copy()} - live)]

    def _asof(self, counted: LogTotals) -> Asof:
        return Asof(words.moment(counted.mark.time), max(0, self._log.head().position - counted.mark.position))

    def _alarms(self, counted: LogTotals, id_: ExperimentId) -> Alarms:
        return alarms(counted.totals, id_, self._log.version_at, self._missing_rewards())

    def _row(self, id_: ExperimentId, found: Brief, known: Alarms) -> ListRow:
        serving = self._current.get(id_)
        definition = serving.version.experiment if serving else None
        week = words.per_week(found.week, words.only_reward(definition) if definition else "")
        return ListRow(
            id=id_,
            address=address(id_),
            state=self._state(id_),
            verdict=words.verdict(found.lift, definition, split_is_wrong=known.split_is_wrong),
            relative=words.Fact(NOTHING) if known.split_is_wrong else words.in_per_cent(found.lift),
            week=week if found.week and not known.split_is_wrong else words.Fact(NOTHING),
        )

    def _state(self, id_: ExperimentId) -> str:
        serving = self._current.get(id_)
        if serving is not None:
            crossed = any(one.crossed for one in self._judged().get(id_, ()))
            held = id_ in self._held or bool(self._open(id_))
            return words.state(serving.version.experiment, held=held, crossed=crossed)
        return "cannot serve yet" if id_ in self._current.held else "ended"

    def _open(self, id_: ExperimentId) -> Sequence[LeaveOut]:
        """What is left out and not over, but for what the guard holds."""
        held = self._held.get(id_)
        return [one for one in not_over(self._leave_outs.of(id_)) if one != held]

    def experiment(
        self, id_: ExperimentId, made: Position = START, *, readiness: Callable[[], str] | None = None
    ) -> Answer:
        """All about one. made: the change that somebody has just made here. readiness: of the server, as the reader may
        know it; None: all of it. Raises LogError."""
        history = self._history.newest(id_)
        if not history:
            return self._missing(f"there is no experiment {id_!r}")
        with self._totals.glance() as counted:
            found = sheet(counted.totals, id_, today=day_of(self._clock()))
            alarmed = self._alarms(counted, id_)
            known = charts.colours(found.days)
            daily = charts.daily(found.days, known, marks_in(history))
            asof = self._asof(counted)
        segments = charts.segment_rows(found.segments, known, found.means)
        newest = self._newest(id_)
        definition = self._definition(id_, newest)
        return Answer(
            200,
            render(
                "experiment.html.j2",
                title="Does it pay?",
                subject=id_,
                asof=asof,
                state=self._state(id_),
                verdict=words.verdict(found.brief.lift, definition, split_is_wrong=alarmed.split_is_wrong),
                made=[one.told for one in history if one.told.position == made],
                controls=controls(self._log, newest, history[0].told.position) if self._takes_changes else None,
                address=address(id_),
                facts=words.facts(found.brief, definition, split_is_wrong=alarmed.split_is_wrong),
                rails=self._rails(id_, definition),
                needed=words.needed(found.brief.lift),
                promise="" if alarmed.split_is_wrong else self._promise(found),
                others=[] if alarmed.split_is_wrong else [words.other(one, definition) for one in found.names],
                left_out=found.left_out,
                key=known.key,
                segments=segments[:SEGMENTS],
                more_segments=segments[SEGMENTS:],
                segment_days=found.segment_days,
                few=charts.FEW,
                estimates=self._estimates(found),
                least=charts.LEAST,
                daily=daily,
                history=history,
                latest=latest(self._log, id_, self._clock()),
                health=self._health(readiness or self._readiness, *self._own_health(id_), alarmed=[*alarmed.lines()]),
            ),
        )

    def last_change(self, id_: ExperimentId) -> Position:
        """Where the newest change of an experiment is."""
        return self._history.last(id_)

    def _newest(self, id_: ExperimentId) -> Experiment:
        (newest,) = self._log.newest_versions(id_, most=1)
        return self._log.version_at(newest).experiment

    def _definition(self, id_: ExperimentId, newest: Experiment) -> Experiment:
        """What serves; the newest version may wait."""
        serving = self._current.get(id_)
        return serving.version.experiment if serving is not None else newest

    def _rails(self, id_: ExperimentId, definition: Experiment) -> Sequence[words.Rail]:
        judged = {one.guardrail.reward: one for one in self._judged().get(id_, ())}
        return [words.rail(one, judged.get(one.reward), definition) for one in definition.guardrails]

    def _promise(self, found: Sheet) -> str:
        """What is compared, and what the band means."""
        if found.brief.lift is None or not found.spans:
            return ""
        versions = [self._log.version_at(one) for one in found.spans]
        since = versions[0]
        return (
            f"Average of all decisions since version {since.number} ({words.moment(since.time)}). "
            f"{words.shares([one.experiment.control_share for one in versions])} The band is right with "
            f"{percent(LEVEL)}, at every look: look as often as you like. It is by unit: visits of units that come "
            "back do not make it narrower than it should be."
        )

    def _estimates(self, found: Sheet) -> str:
        """What the estimates by segment and action are, and what their bands mean."""
        if found.means_since is None:
            return ""
        since = self._log.version_at(found.means_since)
        return (
            f"Earns there: reward of a decision, estimated from the draws since version {since.number} "
            f"({words.moment(since.time)}) that could give the action with {percent(LEAST)} or more: doubly robust, by "
            "unit. Known for: the part of the segment's decisions for which that is known. Below "
            f"{percent(charts.MOST)} it is grey: it is about those whom the policy chose for the action, so compare it "
            f"with nothing. All bands together are right with {percent(LEVEL)}, at every look. Too little data: the "
            f"draws are worth less than {figure(EFFECTIVE_DRAWS)}, or carry too few rewards. At most {MOST_SEGMENTS} "
            f"segments and {MOST_ACTIONS} actions have estimates, the first in the alphabet."
        )

    def _missing(self, text: str) -> Answer:
        return Answer(404, render("missing.html.j2", title="Not here", subject="Nothing to show", text=text))

    def _own_health(self, id_: ExperimentId) -> Iterator[str]:
        serving = self._current.get(id_)
        if serving is None:
            reason = self._current.held.get(id_)
            yield f"It cannot serve before its policy has learned: {reason}" if reason else "It has ended."
            return
        if id_ in self._held:
            yield describe(self._held[id_])
        yield from [open_in_words(one, self._log.name) for one in self._open(id_)]
        version, model = serving.version, serving.model
        policy = version.experiment.policy
        yield f"Version {version.number} is {words.state(version.experiment)}, with the policy {policy.algorithm}."
        if policy.learns and version.experiment.learns:
            yield self._age_of(id_, model.position)

    def _age_of(self, id_: ExperimentId, position: Position) -> str:
        """How old the newest is that a model knows."""
        entries = self._leave_outs.of(id_)
        time = knows_until(self._log, id_, position, entries)
        age = duration(max(0.0, (self._clock() - time) / MICROSECONDS))
        told = f"Its model knows what was earned until {age} ago." if time else "Its model knows nothing yet."
        if time == self._log.time_at(position):
            return told
        newest = in_force_at(entries, position)[-1]
        return f"{told} It is newer than that, but it {newest.entry} (position {newest.position})."

    def _health(self, readiness: Callable[[], str], *own: str, alarmed: Sequence[str] = ()) -> Health:
        """Of the server, in plain words; own: of one experiment; alarmed: of what is shown."""
        first, *others = readiness().splitlines()
        said = ["The server takes calls." if first == "ok" else f"The server does not take calls: {first}", *others]
        hidden = len(said) - HEALTH_LINES
        more = [f"{count(hidden)} more lines are on /readyz."] if hidden > 0 else []
        is_fine = first == "ok" and not others and not alarmed
        lines = [*alarmed[:HEALTH_LINES], *own, *said[:HEALTH_LINES], *more, self._sizes()]
        return Health(is_fine, [*dict.fromkeys(lines)])  # /readyz tells of this experiment, too

    def _sizes(self) -> str:
        sizes = self._log.sizes()
        free = f", with {words.in_bytes(sizes.free)} free on its disk" if sizes.free is not None else ""
        return f"The log takes {words.in_bytes(sizes.database + sizes.wal)}{free}."


def marks_in(history: Sequence[Change]) -> Sequence[tuple[str, int]]:
    """(title, day) of each change."""
    return [(one.told.title, one.told.day) for one in history]


def address(id_: ExperimentId) -> str:
    """Where an experiment's page is. Ids of old logs may be any text.

    >>> address(ExperimentId("a/b?<c>"))
    '/experiments/a%2Fb%3F%3Cc%3E'
    """
    return f"/experiments/{quote(id_, safe='')}"


@cache
def _environment() -> Environment:
    return environment(filters={"percent": percent, "value": value_text, "amount": figure})


@cache
def _style() -> Markup:
    files: Collection[str] = ("style.css", "live.css")
    return Markup("\n" + "\n".join([(SHARED / name).read_text(encoding="utf-8") for name in files]))


PIECES = ("base", "decision", "experiment", "list", "live", "live_macros", "missing", "refused")
"""The templates that these pages are made of; the other ones are of the simulator's reports."""


def read_files() -> None:
    """All that pages are made of, before it is needed: a process that lives long must not find a newer release's."""
    for name in PIECES:
        _environment().get_template(f"{name}.html.j2")
    security_policy()


@cache
def security_policy() -> str:
    """Of every answer: nothing is loaded, nothing runs, the only style is ours, and forms go nowhere else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )


def render(template: str, **values: Any) -> str:
    """A page in the style that `security_policy` allows."""
    return _environment().get_template(template).render(**{"style": _style(), "glossary": TERMS, **values})


def refusal_page(text: str, id_: ExperimentId) -> str:
    """Where a change was asked for and not made, and why."""
    return render("refused.html.j2", title="Not done", subject=id_, text=text, address=address(id_))


class Term(NamedTuple):
    """A word of the page."""

    title: str
    meaning: str


TERMS = (
    Term("Policy", "What decides which action a unit gets, and learns from the rewards."),
    Term("Holdout", "Units drawn into a control group, which always gets the baseline action."),
    Term("Reward", "What a decision earned: a click, a purchase, an amount."),
    Term("In per cent", "What the policy's units earn more a decision than the holdout's, as a part of the latter."),
    Term(
        "Per week",
        "The same for all of the policy's decisions of a week, counted over the last seven whole days. The band is "
        "that of the lift; the traffic is taken as it was.",
    ),
    Term(
        "Band",
        "The truth is in it with 95 %, at all looks together. It gets narrower with time. Yes: all of it is above 0. "
        "No: all of it is below 0. Not yet: 0 is in it, or there is too little data for a band.",
    ),
    Term(
        "Other rewards",
        "Each name of rewards by itself. Their bands hold together, the answer's by itself. More is not always good.",
    ),
    Term(
        "Guardrail",
        "A reward that the policy must not harm, and by how much at most. Holds: its lift is within the bound for "
        "sure. Crossed: it is beyond the bound for sure. Not told yet: it may be either.",
    ),
    Term("Who gets what", "Parts of the policy's decisions; they are counted, not estimated."),
    Term(
        "Earns there",
        "What an action would have earned on average if everybody had got it, of those in a segment whom the policy "
        "gave it now and then. It is estimated from the decisions that gave it, each weighted with 1 / its "
        "probability, so it does not matter to whom the policy gave it more often.",
    ),
    Term("By day", "Days in UTC. A point of a day has no band: whether it pays is said above."),
)
