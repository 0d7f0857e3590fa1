"""Why an experiment does not learn: what stands in the way, as far as the log shows it, with the way out. Called by
`decider doctor`.

Each check looks at one cause and says nothing where there are too few decisions to tell. What is meant that way (a
pause, a policy that learns nothing) is a note: it answers the question, and is no fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from decider.errors import ArchiveDamaged, ArchiveMissing
from decider.experiment.definition import Experiment, ExperimentVersion, Learning
from decider.learn.bad_data import in_force
from decider.learn.finding import Finding
from decider.learn.lost_rewards import FEW_LOST, lost_rewards, undeclared_rewards
from decider.log.log_totals import LogTotals
from decider.log.protocol import LoggedDecision, LogReader, SealedDecision
from decider.log.totals import ALL, BEFORE, DELAY_BUCKETS, LabelTotals
from decider.serving.lineup import Lineup, Rollout
from decider.text import count, duration, figure, percent, time_text
from decider.types import START, ActionId, Position, Reason, RewardOutcome, Time

ENOUGH = 200
"""Decisions from which on something is said about them; the newest so many of a version are looked at by themselves."""

MOSTLY = 0.9
"""The share that is called nearly all."""

EXPECTED = 7.0
"""So many rewards were to be expected where none came: that happens by chance once in a thousand times."""

NAME_ENOUGH = 1_000
"""Decisions from which on a name without any reward is one that nobody sends: purchases are rare."""

MINUTE = 60_000_000
HOUR, DAY = 60 * MINUTE, 1440 * MINUTE

LEARN_LAG = MINUTE
"""Of log time, in which what is sealed should be learned."""

CLOCK_AHEAD = MINUTE
"""By which the log's end may be ahead of the clock."""

SOON = 20
"""So many times longer than nearly all rewards take, a window is long."""


@dataclass(frozen=True, slots=True)
class Patient:
    """What the checks look at. newest: the newest decisions of the version that serves. days: sealed decisions, and of
    these those with a reward (of several names once for each), by day."""

    log: LogReader
    rollout: Rollout
    totals: LabelTotals
    newest: Sequence[LoggedDecision]
    days: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def version(self) -> ExperimentVersion:
        """That serves."""
        return self.rollout.serving

    @property
    def experiment(self) -> Experiment:
        """That serves."""
        return self.version.experiment

    def sum(self, name: str) -> int:
        """Of a total that is counted by experiment and more labels."""
        counts: Mapping[tuple[str, ...], int] = getattr(self.totals, name)
        return sum([number for key, number in counts.items() if key[0] == self.experiment.id])

    def rewards(self) -> Counter[tuple[str, str]]:
        """Rewards that came, by name and outcome."""
        found: Counter[tuple[str, str]] = Counter()
        for (id_, name, outcome), number in self.totals.rewards.items():
            if id_ == self.experiment.id:
                found[name, outcome] += number
        return found

    def reasons(self) -> Counter[Reason]:
        """Of the newest decisions."""
        return Counter(one.decision.reason for one in self.newest)

    def says(self, check: str, text: str, way_out: str, *, is_note: bool = False) -> Finding:
        """A finding about it."""
        return Finding(self.experiment.id, check, text, way_out, is_note)


Check = Callable[[Patient], Iterator[Finding]]


def diagnose(log: LogReader, *, now: Time) -> list[Finding]:
    """What stands in the way of learning: of the log, and of each experiment that has not ended. Raises LogError."""
    lineup, counted = Lineup(log), LogTotals(log)
    lineup.follow(log.follow(START))
    counted.catch_up()
    serving = [rollout.serving.experiment for rollout in lineup.values() if not rollout.serving.experiment.ended]
    declared = {name for experiment in serving for name in experiment.reward.weights}
    found = [*_clock(log, now), *lost_rewards(counted), *undeclared_rewards(counted, declared)]
    if not lineup:
        way_out = "make one: decider serve --experiments FILE, or decider apply FILE"
        found.append(Finding("", "no_experiment", "the log has no experiment", way_out))
    for _, rollout in sorted(lineup.items()):
        if not rollout.serving.experiment.ended:
            found += _of_experiment(_patient(log, rollout, counted.totals))
    return found


def _patient(log: LogReader, rollout: Rollout, totals: LabelTotals) -> Patient:
    lines = log.newest_decisions(rollout.serving.position, most=ENOUGH)
    newest = [one for one in (log.find(line.decision_id) for line in lines) if one is not None]
    return Patient(log, rollout, totals, newest, _days(totals, rollout.serving.experiment.id))


def _days(totals: LabelTotals, id_: str) -> dict[str, tuple[int, int]]:
    sealed: Counter[str] = Counter()
    rewarded: Counter[str] = Counter()
    for (experiment, name, _, day), number in totals.rewarded.items():
        if experiment == id_:
            (sealed if name == ALL else rewarded)[day] += number
    return {day: (number, rewarded[day]) for day, number in sealed.items()}


def _of_experiment(patient: Patient) -> Iterator[Finding]:
    meant = list(_meant(patient))
    yield from meant
    if any(one.check != "waits" for one in meant):
        return
    found = [one for check in CHECKS for one in check(patient)]
    yield from found
    if all(one.is_note for one in found):
        yield from _not_learned(patient)


def _clock(log: LogReader, now: Time) -> Iterator[Finding]:
    end = log.head().time
    if end > now + CLOCK_AHEAD:
        yield Finding(
            "",
            "clock",
            f"the log ends at {time_text(end)}, {duration((end - now) / 1e6)} ahead of this machine's clock "
            f"({time_text(now)}): a clock was ahead when it was written, or this one is behind. Until the clock has "
            "caught up, log time goes on by elapsed time, and windows end by that",
            "set this machine's clock (NTP); /readyz and decider_clock_offset_seconds say how far it is off",
        )


def _meant(patient: Patient) -> Iterator[Finding]:
    """What the definition says."""
    experiment = patient.experiment
    id_ = experiment.id
    if experiment.paused:
        yield patient.says("paused", "it is paused: no decision is made", f"decider resume {id_}", is_note=True)
    elif experiment.fallback is not None:
        text = f"everybody gets the baseline, since the guardrail {experiment.fallback.reward} was crossed"
        yield patient.says(
            "guardrail", text, f"look at the guardrail on the page; then decider resume {id_}", is_note=True
        )
    elif not experiment.policy.learns:
        text = f"its policy {experiment.policy.algorithm} learns nothing"
        yield patient.says("policy", text, "take a policy that learns, for example [policy.thompson]", is_note=True)
    elif experiment.learning in (Learning.LOG_ONLY, Learning.FROZEN):
        text = f'learning = "{experiment.learning}": the policy learns nothing'
        yield patient.says("learning", text, 'set learning = "online" when it should', is_note=True)
    if patient.rollout.waiting is not None:
        text = f"version {patient.rollout.waiting.number} waits until its policy has learned the log"
        yield patient.says(
            "waits", text, "wait; /readyz says how far it is. The version before serves meanwhile", is_note=True
        )


def _left_out(patient: Patient) -> Iterator[Finding]:
    for one in in_force(patient.log, patient.experiment.id):
        if one.entry.until is None:
            why = f": {one.entry.origin.note}" if one.entry.origin.note else ""
            yield patient.says(
                "left_out",
                f"since {time_text(one.entry.after)} nothing is learned ({one.entry.origin.author or 'somebody'} left "
                f"it out, and it is not over{why})",
                f"mend what was wrong; learning goes on with: decider leave-out {patient.experiment.id} --db "
                f"{patient.log.name} --until 0s. What the guard left out ends by itself once rewards are back",
            )


def _no_decisions(patient: Patient) -> Iterator[Finding]:
    if not patient.sum("decisions"):
        yield patient.says(
            "no_decisions", "nobody has asked for a decision yet",
            f"call Decide with experiment = {patient.experiment.id!r}; a caller with another id gets NOT_FOUND",
            is_note=True,
        )  # fmt: skip


def _one_choice(patient: Patient) -> Iterator[Finding]:
    """Decisions in which there was nothing to choose, or in which the policy was not asked."""
    reasons, all_ = patient.reasons(), len(patient.newest)
    if all_ < ENOUGH:
        return
    for names, check, text, way_out in _CHOICES:
        number = sum([reasons[name] for name in names])
        if number >= MOSTLY * all_:
            yield patient.says(check, f"{count(number)} of the newest {count(all_)} decisions {text}", way_out)


_CHOICES = (
    (
        (Reason.ONLY_ELIGIBLE,), "one_eligible", "had one eligible action only, so there is nothing to compare",
        "send more eligible actions, or none to choose among all; look at eligible_if, available_from and caps: "
        "`decider explain ID` says what each rule took out",
    ),
    (
        (Reason.HOLDOUT, Reason.HOLDOUT_UNAVAILABLE), "holdout", "are of the holdout, from which nothing is learned",
        "take a smaller holdout; a tenth is usual. Or send the real unit_id: one id for all is one unit",
    ),
    (
        (Reason.FALLBACK,), "fallback", "fell back to the baseline, since the policy failed or would have taken too "
        "long", "look at the server's output; send fewer features, or raise --decide-budget",
    ),
    (
        (Reason.WITHHELD,), "withheld", "got the baseline, since caps and budgets left nothing",
        "raise caps and daily budgets, or add actions; send the real unit_id: one id for all uses up one unit's caps",
    ),
    (
        (Reason.NO_EXPLORATION,), "no_exploration", "were asked for without exploration, so the policy sees only what "
        "it believes in already", "leave out explore = false; it is for previews",
    ),
)  # fmt: skip


def _never_eligible(patient: Patient) -> Iterator[Finding]:
    asked = [one for one in patient.newest if one.decision.reason in (Reason.EXPLOIT, Reason.EXPLORE)]
    if len(asked) < ENOUGH // 2:
        return
    eligible = {id_ for one in asked for id_ in one.decision.eligible}
    never = [id_ for id_ in patient.version.all_active if id_ not in eligible]
    if never:
        rules = _rules_against(patient.log, asked, never)
        names, more = ", ".join(never[:10]), f" and {len(never) - 10} more" if len(never) > 10 else ""
        why = f"; taken out by {', '.join(sorted(rules))}" if rules else "; no call has allowed it"
        yield patient.says(
            "never_eligible",
            f"in none of the newest {count(len(asked))} draws could be chosen: {names}{more}{why}",
            "look at eligible_if, available_from and available_until, and at the eligible and excluded actions that "
            "callers send; or retire the action",
        )


def _rules_against(log: LogReader, asked: Sequence[LoggedDecision], never: Sequence[ActionId]) -> set[str]:
    return {rule for one in asked for action, rule in log.withheld(one.position).items() if action in never}


def _never_activated(patient: Patient) -> Iterator[Finding]:
    missed = patient.sum("not_activated")
    over = missed + patient.sum("sealed")
    if patient.experiment.needs_activation and over >= ENOUGH and missed >= MOSTLY * over:
        yield patient.says(
            "never_activated",
            f'activation = "required", and {count(missed)} of {count(over)} decisions were never activated: they do '
            "not count",
            "call Activate when the action is shown, before the window ends; or leave out activation",
        )


def _no_rewards(patient: Patient) -> Iterator[Finding]:
    sealed, rewarded, days = _recent(patient.days)
    if sealed < ENOUGH or rewarded:
        return
    before = [counts for day, counts in patient.days.items() if day not in days]
    known = sum([all_ for all_, _ in before])
    usual = sum([number for _, number in before]) / known if known else 0.0
    came = patient.rewards()
    if usual and usual * sealed < EXPECTED:
        return
    if not usual and _is_mostly_late(came):
        return  # they come, and `_late` says so
    weights = patient.experiment.reward.weights
    names = f"; with another name than {', '.join(weights)} they are refused" if weights else ""
    was = f", before {percent(usual)} had" if usual else ""
    yield patient.says(
        "no_rewards",
        f"none of the last {count(sealed)} decisions whose window is over has a reward{was}: all got the default "
        f"{figure(patient.experiment.reward.default)}, and nothing tells actions apart",
        f"look whether Reward is called, with the decision_id of Decide{names}; what the caller gets back says why a "
        "reward does not count, and decider_rewards_total counts outcomes",
    )


def _recent(days: Mapping[str, tuple[int, int]]) -> tuple[int, int, set[str]]:
    """Sealed decisions and rewarded ones of the newest days that have enough, and these days."""
    sealed, rewarded, taken = 0, 0, set[str]()
    for day in sorted([day for day in days if day != BEFORE], key=int, reverse=True):
        sealed, rewarded = sealed + days[day][0], rewarded + days[day][1]
        taken.add(day)
        if sealed >= ENOUGH:
            break
    return sealed, rewarded, taken


def _of_outcome(came: Counter[tuple[str, str]], outcome: RewardOutcome) -> int:
    return sum([number for (_, one), number in came.items() if one == outcome])


def _is_mostly_late(came: Counter[tuple[str, str]]) -> bool:
    late = _of_outcome(came, RewardOutcome.LATE)
    return late > FEW_LOST and late > sum(came.values()) / 2


def _late(patient: Patient) -> Iterator[Finding]:
    came = patient.rewards()
    if _is_mostly_late(came):
        late, all_ = _of_outcome(came, RewardOutcome.LATE), sum(came.values())
        yield patient.says(
            "late",
            f"{count(late)} of {count(all_)} rewards came after the window of "
            f"{duration(patient.experiment.reward.window / 1e6)}: they do not count",
            f"take a longer reward.window; then decider relearn {patient.experiment.id} --db {patient.log.name} learns "
            "what came late",
        )


def _clipped(patient: Patient) -> Iterator[Finding]:
    came = patient.rewards()
    clipped, all_ = _of_outcome(came, RewardOutcome.CLIPPED), sum(came.values())
    if all_ >= ENOUGH and clipped >= MOSTLY * all_:
        reward = patient.experiment.reward
        yield patient.says(
            "clipped",
            f"{count(clipped)} of {count(all_)} rewards are outside of reward.range [{figure(reward.minimum)}, "
            f"{figure(reward.maximum)}] and count as its end: large and small ones are worth the same",
            "declare a reward.range that holds value x weight",
        )


def _unknown_names(patient: Patient) -> Iterator[Finding]:
    weights, came = patient.experiment.reward.weights, patient.rewards()
    sent = {name for name, _ in came}
    silent = [name for name in weights if name not in sent]
    if silent and sent and patient.sum("sealed") >= NAME_ENOUGH:
        others = sorted(name for name in sent if name and name not in weights)
        was = f"; earlier versions had {', '.join(others)}, which is refused now" if others else ""
        yield patient.says(
            "names",
            f"of {count(patient.sum('sealed'))} decisions none has a reward named {', '.join(silent)}, which "
            f"reward.weights declares{was}",
            "send the name as it is declared, or declare the name that is sent: a reward with another name is refused "
            "(INVALID_ARGUMENT, field name)",
        )


def _constant(patient: Patient) -> Iterator[Finding]:
    id_ = patient.experiment.id
    sealed, defaulted = patient.sum("sealed"), patient.sum("defaulted")
    value = sum([float(number) for key, number in patient.totals.sealed_reward.items() if key[0] == id_])
    squared = sum([float(number) for key, number in patient.totals.squared_sealed_reward.items() if key[0] == id_])
    is_constant = abs(sealed * squared - value * value) <= 1e-9 * sealed * squared
    if sealed >= ENOUGH and defaulted < sealed and is_constant:
        yield patient.says(
            "constant",
            f"each of {count(sealed)} decisions earned the same, {figure(value / sealed)}: nothing tells actions apart",
            "send a reward for what differs, for example the purchase and not the visit; look whether reward.default "
            "is what a decision without a reward should get",
        )


def _window(patient: Patient) -> Iterator[Finding]:
    window, decisions = patient.experiment.reward.window, patient.sum("decisions")
    if window < DAY or not decisions:
        return
    if not patient.sum("sealed") + patient.sum("not_activated"):
        first = patient.log.next_deadline(after=Time(0), experiment=patient.experiment.id)
        when = f"; the first is learned on {time_text(first)}" if first else ""
        yield patient.says(
            "window",
            f"the window of none of its {count(decisions)} decisions is over yet, it takes "
            f"{duration(window / 1e6)}{when}",
            "wait, or take a shorter reward.window: rewards that come later are kept, and decider relearn learns them",
        )
        return
    usual = _usual_delay(patient)
    if usual is not None and window >= SOON * usual * 1_000_000:
        yield patient.says(
            "window",
            f"{percent(0.99)} of the rewards come within {duration(usual)}, and each decision is learned only after "
            f"{duration(window / 1e6)}",
            "take a shorter reward.window, or send final = true with the last reward of a decision",
            is_note=True,
        )


def _usual_delay(patient: Patient) -> float | None:
    """Seconds within which 99 % of the rewards come, of those that are buckets' ends; None where that is not known."""
    delays = {int(index): n for (id_, index), n in patient.totals.delays.items() if id_ == patient.experiment.id}
    all_, so_far = sum(delays.values()), 0
    for index, seconds in enumerate(DELAY_BUCKETS):
        so_far += delays.get(index, 0)
        if all_ >= ENOUGH and so_far >= 0.99 * all_:
            return float(seconds)
    return None


def _not_learned(patient: Patient) -> Iterator[Finding]:
    """Decisions that count and are in no model, where nothing else explains it."""
    log, experiment = patient.log, patient.experiment
    position = log.models.last_published_position(experiment.id, experiment.policy.signature)
    try:
        after = log.time_at(position)
        waiting = log.sealed_decisions(experiment.id, after=after, until=Time(log.head().time - LEARN_LAG))
        unlearned = sum(1 for _ in islice(_learnable(log, waiting), ENOUGH))
    except (ArchiveDamaged, ArchiveMissing) as error:
        yield patient.says("archive", str(error), _ARCHIVE_BACK)
        return
    if unlearned >= ENOUGH:
        since = f"the newest model has learned up to {time_text(after)}" if position else "no model was ever published"
        yield patient.says(
            "not_learned",
            f"{since}, and {count(unlearned)} or more decisions are over since then that are not learned",
            "look whether a server runs on this log (decider serve), and at its output: it says why a round fails",
        )


_ARCHIVE_BACK = (
    "put the part back, or name the folder where it is now: decider serve --archive DIR learns from there, and decider "
    "doctor --archive DIR looks there, too"
)


def _learnable(log: LogReader, sealed: Iterator[SealedDecision]) -> Iterator[Position]:
    for one in sealed:
        version = log.version_at(one.decision.version)
        if version.learns_from(one.decision.reason, activated=one.activated, overridden=one.overridden):
            yield one.position


CHECKS: Sequence[Check] = (
    _left_out,
    _no_decisions,
    _one_choice,
    _never_eligible,
    _never_activated,
    _no_rewards,
    _late,
    _clipped,
    _unknown_names,
    _constant,
    _window,
)
"""In the order of the way: decision, activation, reward, learning."""
