"""The scenes: what a decision means to a frontend, played against the serving code, with a truth that is a sum.

Visitors are of two segments, and every action has a known chance of a click in each. The policy is the default; it
learns as it goes. A new scene is a function that plays and an entry of SCENES.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.evaluate.candidates import TablePolicy
from simulator.logs.columns import Category, Columns, Floats
from simulator.studies.prepared import SECOND
from simulator.studies.semantics.shop import Shop

SEGMENTS = ("new", "vip")
DEVICES = ("phone", "laptop")
SHARES = np.array([0.6, 0.4])
ACTIONS = ("sale", "outfit", "gift", "none")
CLICKS = np.array([[0.10, 0.35, 0.20, 0.15], [0.45, 0.10, 0.30, 0.05]])
"""(segments, actions): the chance of a click where a page is shown once."""

CANDIDATES = {
    "by segment": np.array([[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]]),
    "even": np.full((2, 4), 0.25),
}
"""(segments, actions) each."""

WINDOW = 10.0
"""Seconds of the reward window, where visits are single."""

TOGETHER = 20
"""Visitors that come at once; then some time passes, so that the policy learns along the log."""

Must = Literal["hold", "be noticed", "miss"]


@dataclass(frozen=True)
class Scene:
    """text: what happens. play: so many visits. truth: of a candidate, in this log. experiment: what it changes.

    estimators: which are judged; "" is the headline; they are of whole pages where `pages`. lesson: what a decision
    teaches on average, (segments, actions) or (devices, segments, actions); None where that depends on more. must: what
    is to be expected: intervals that hold, a log that is refused, or intervals that miss and cannot know it. times: its
    logs are longer by so much.
    """

    name: str
    text: str
    play: Callable[[Shop, int, np.random.Generator], None]
    truth: Callable[[Columns, TablePolicy], float]
    change: Callable[[experiment_pb2.Experiment], None] = lambda _: None
    estimators: tuple[str, ...] = ("",)
    pages: bool = False
    lesson: Floats | None = None
    must: Must = "hold"
    times: int = 1

    def experiment(self, *, salt: str) -> experiment_pb2.Experiment:
        """As it is applied. salt: other draws for the same decision ids."""
        actions = [experiment_pb2.Action(id=one) for one in ACTIONS]
        made = experiment_pb2.Experiment(id="shop", actions=actions, minimum_propensity=0.05, salt=salt)
        made.reward.window.FromMicroseconds(round(WINDOW * SECOND))
        self.change(made)
        return made


def candidates() -> list[TablePolicy]:
    """What is asked about, the same in every scene."""
    values = (*SEGMENTS, "")  # the last one for decisions without a segment, of which there are none
    return [TablePolicy(name, "segment", values, np.vstack([pmf, pmf[:1]])) for name, pmf in CANDIDATES.items()]


def by_segment(shares: Floats, means: Floats) -> Callable[[Columns, TablePolicy], float]:
    """The truth where actions earn these means and segments come with these shares."""
    return lambda _, policy: float(shares @ (policy.pmfs[:2] * means).sum(axis=1) / shares.sum())


def _segments(count: int, random: np.random.Generator) -> Sequence[int]:
    return random.choice(2, p=SHARES, size=count).tolist()  # type: ignore[no-any-return]


def _request(unit: object, segment: int, **fields: object) -> pb.DecideRequest:
    context = pb.Context(segment=SEGMENTS[segment])
    return pb.DecideRequest(unit_id=f"u{unit}", context=context, **fields)  # type: ignore[arg-type]


def _clicks(segment: int, shown: str, random: np.random.Generator) -> bool:
    return bool(random.random() < CLICKS[segment, ACTIONS.index(shown)])


# Plain visits: what the others are compared with.


def play_visits(shop: Shop, count: int, random: np.random.Generator) -> None:
    """Each visitor comes once and sees what was drawn."""
    for first in range(0, count, TOGETHER):
        segments = _segments(TOGETHER, random)
        replies = shop.decide(*[_request(first + n, one) for n, one in enumerate(segments)])
        pairs = zip(replies, segments, strict=True)
        shop.reward(*[reply.decision_id for reply, one in pairs if _clicks(one, reply.action.id, random)])
        shop.wait(2)
    shop.wait(60)


# Sticky.

VISITS = 4
"""Most visits of a unit that keeps its decision; 1 to so many, each as likely."""


def play_returns(shop: Shop, count: int, random: np.random.Generator) -> None:
    """Units come back within their window and see what they saw; every visit may bring a click."""
    segments = _segments(count, random)
    visits = np.repeat(np.arange(count), random.integers(1, VISITS + 1, count))
    random.shuffle(visits)
    for first in range(0, len(visits), TOGETHER):
        units = visits[first : first + TOGETHER].tolist()
        replies = shop.decide(*[_request(unit, segments[unit]) for unit in units])
        pairs = zip(replies, units, strict=True)
        shop.reward(*[one.decision_id for one, unit in pairs if _clicks(segments[unit], one.action.id, random)])
        shop.wait(2)
    shop.wait(7_200)


def keep(experiment: experiment_pb2.Experiment) -> None:
    """An hour long; rewards add up."""
    for length in (experiment.sticky, experiment.reward.window):
        length.FromMicroseconds(3_600 * SECOND)
    experiment.reward.range.maximum = float(VISITS)


# Overrides.

EDITED = np.array([0.05, 0.4])
"""By segment: how often an editor shows something else, whatever was drawn."""

HEAVY = "gift"
"""The action that often cannot be shown."""


def play_overrides(shop: Shop, count: int, random: np.random.Generator, *, drawn: bool = False) -> None:
    """Some pages show another action than the drawn one, and say so. drawn: which ones depends on what was drawn."""
    for first in range(0, count, TOGETHER):
        segments = _segments(TOGETHER, random)
        clicked = []
        replies = shop.decide(*[_request(first + n, one) for n, one in enumerate(segments)])
        for reply, segment in zip(replies, segments, strict=True):
            shown = reply.action.id
            if random.random() < ((shown == HEAVY) * 0.7 if drawn else EDITED[segment]):
                shown = str(random.choice([one for one in ACTIONS if one != shown]))
                shop.activate(reply.decision_id, shown)
            if _clicks(segment, shown, random):
                clicked.append(reply.decision_id)
        shop.reward(*clicked)
        shop.wait(2)
    shop.wait(60)


def play_drawn_overrides(shop: Shop, count: int, random: np.random.Generator) -> None:
    """A frontend that often cannot show one of the actions."""
    play_overrides(shop, count, random, drawn=True)


def learn_overrides(experiment: experiment_pb2.Experiment) -> None:
    """As the action that was shown."""
    experiment.override = experiment_pb2.OVERRIDE_LEARN


# Rendered or not.

RENDERED = np.array([0.9, 0.4])
"""By segment: how many pages come to be seen."""


def play_rendering(shop: Shop, count: int, random: np.random.Generator, *, drawn: bool = False) -> None:
    """Many pages are never rendered; those that are say so. drawn: which ones depends on what was drawn."""
    for first in range(0, count, TOGETHER):
        segments = _segments(TOGETHER, random)
        clicked = []
        replies = shop.decide(*[_request(first + n, one) for n, one in enumerate(segments)])
        for reply, segment in zip(replies, segments, strict=True):
            if random.random() < (1 - (reply.action.id == HEAVY) * 0.7 if drawn else RENDERED[segment]):
                shop.activate(reply.decision_id)
                if _clicks(segment, reply.action.id, random):
                    clicked.append(reply.decision_id)
        shop.reward(*clicked)
        shop.wait(2)
    shop.wait(60)


def play_drawn_rendering(shop: Shop, count: int, random: np.random.Generator) -> None:
    """One of the actions is so heavy that its pages are often left before they are rendered."""
    play_rendering(shop, count, random, drawn=True)


def require(experiment: experiment_pb2.Experiment) -> None:
    """Only what was activated counts."""
    experiment.activation = experiment_pb2.ACTIVATION_REQUIRED


# Caps.


BUDGET = 40
"""Of each of two actions in a day."""


def play_caps(shop: Shop, count: int, random: np.random.Generator) -> None:
    """Every unit comes three times, and never sees an action a second time: the caller leaves it out."""
    units = count // 3
    segments, seen = _segments(units, random), defaultdict[int, list[str]](list)
    order = np.concatenate([random.permutation(units) for _ in range(3)]).tolist()
    for first in range(0, len(order), TOGETHER):
        now = order[first : first + TOGETHER]
        if len(set(now)) < len(now):  # where one round ends and the next begins, a unit may stand twice
            now = list(dict.fromkeys(now))
        replies = shop.decide(*[_request(unit, segments[unit], excluded_actions=seen[unit]) for unit in now])
        clicked = []
        for reply, unit in zip(replies, now, strict=True):
            seen[unit].append(reply.action.id)
            if _clicks(segments[unit], reply.action.id, random):
                clicked.append(reply.decision_id)
        shop.reward(*clicked)
        shop.wait(2)
    shop.wait(60)


def play_capped(shop: Shop, count: int, random: np.random.Generator) -> None:
    """The same units, and it is the experiment that caps."""
    units = count // 3
    segments = _segments(units, random)
    order = np.concatenate([random.permutation(units) for _ in range(3)]).tolist()
    for first in range(0, len(order), TOGETHER):
        now = order[first : first + TOGETHER]
        replies = shop.decide(*[_request(unit, segments[unit]) for unit in now])
        pairs = zip(replies, now, strict=True)
        shop.reward(*[one.decision_id for one, unit in pairs if _clicks(segments[unit], one.action.id, random)])
        shop.wait(2)
    shop.wait(60)


def cap_all(experiment: experiment_pb2.Experiment) -> None:
    """Each action once a day for a unit, but for the baseline."""
    experiment.baseline_action = ACTIONS[-1]
    for one in ACTIONS[:-1]:
        experiment.caps.add(action=one, most=1).per.FromMicroseconds(86_400 * SECOND)


def spend(experiment: experiment_pb2.Experiment) -> None:
    """What earns most in a segment is soon gone for the day."""
    experiment.baseline_action = ACTIONS[-1]
    for one in experiment.actions[:2]:
        one.daily_budget = BUDGET


def behind_caps(columns: Columns, policy: TablePolicy) -> float:
    """What the candidate earns among the actions that the caps had left in each decision of the log."""
    segment = columns.fields["segment"]
    assert isinstance(segment, Category)
    means = CLICKS[[SEGMENTS.index(one) for one in segment.values]][segment.codes]
    return float((policy.pmf(columns) * means).sum(axis=1).mean())


# Shares.


def share_out(experiment: experiment_pb2.Experiment) -> None:
    """One segment may not have its favourite, and both see what earns less."""
    sale, _, gift, none = experiment.actions
    sale.max_share, gift.min_share, none.min_share = 0.3, 0.25, 0.1


# Purchases that are returned or changed.

RETURNED = np.array([0.5, 0.2, 0.0, 0.0])
"""By action: how many purchases come back within the window. What is cheap is returned most."""

REDUCED = np.array([0.0, 0.2, 0.6, 0.0])
"""How many are corrected to half of their value."""

LEFT_OF_PURCHASES = CLICKS * (1 - RETURNED - REDUCED / 2)


def _changes(purchase: pb.RewardRequest, shown: str, random: np.random.Generator) -> list[pb.RewardRequest]:
    """What becomes of a purchase. Every second correction mends a wrong one."""
    luck, action = random.random(), ACTIONS.index(shown)
    if luck < RETURNED[action]:
        return [_changed(purchase, None)]
    if luck < RETURNED[action] + REDUCED[action]:
        return [_changed(purchase, value) for value in (0.0, 0.5)[random.integers(2) :]]
    return []


def _changed(purchase: pb.RewardRequest, value: float | None) -> pb.RewardRequest:
    """None: it is taken back."""
    change = pb.RewardRequest(retract=value is None, correct=value is not None, value=value)
    change.MergeFrom(purchase)
    return change


def play_purchases(
    shop: Shop, count: int, random: np.random.Generator, *, by_unit: bool = False, told: bool = True
) -> None:
    """Visitors buy, and return some of it. A quarter of the messages comes in the wrong order, and everything that was
    sent two seconds ago is sent once more. by_unit: purchases name the visitor. told: so are returns."""
    before: list[pb.RewardRequest] = []
    for first in range(0, count, TOGETHER):
        segments = _segments(TOGETHER, random)
        replies = shop.decide(*[_request(first + n, one) for n, one in enumerate(segments)])
        now, later = list[pb.RewardRequest](), list[pb.RewardRequest]()
        for number, (reply, segment) in enumerate(zip(replies, segments, strict=True), first):
            if not _clicks(segment, reply.action.id, random):
                continue
            purchase = pb.RewardRequest(name="click", reward_id=f"order-{number}")
            if by_unit:
                purchase.unit_id = f"u{number}"
            else:
                purchase.decision_id = reply.decision_id
            changes = _changes(purchase, reply.action.id, random) if told else []
            ordered = random.random() < 0.75
            now += [purchase] if ordered else changes
            later += changes if ordered else [purchase]
        shop.send(now)
        shop.send(before)
        shop.wait(2)
        shop.send(later)
        before = now + later
    shop.wait(60)


def play_purchases_of_units(shop: Shop, count: int, random: np.random.Generator) -> None:
    """A till that knows its customer and no decision."""
    play_purchases(shop, count, random, by_unit=True)


def play_untold_returns(shop: Shop, count: int, random: np.random.Generator) -> None:
    """A frontend that says what was bought, and never what came back."""
    play_purchases(shop, count, random, told=False)


# Purchases in a store.

IN_A_STORE = np.array([[0.05, 0.10, 0.60, 0.30], [0.05, 0.50, 0.20, 0.40]])
"""(segments, actions): the chance that a page sends its visitor to a store, who buys there within the window."""

TOO_LATE = 0.25
"""Of those that are sent there: how many come when every window is over."""

ON_THE_LAST_PAGE = np.array([CLICKS, CLICKS + IN_A_STORE * (1 - TOO_LATE)])
"""(devices, segments, actions): what a page earns where its person's last one is credited with the store."""

ON_BOTH_PAGES = CLICKS + IN_A_STORE * (1 - TOO_LATE) / 2
"""What it earns by itself where both have a part in the purchase."""


def play_stores(
    shop: Shop, count: int, random: np.random.Generator, *, every_page: bool = False, told: bool = True
) -> None:
    """A person looks on a phone, then on a laptop, as two visitors. The laptop's page sends some to a store. That knows
    its customers: half of them sign in before they look, the others when they pay.

    every_page: the phone's page does so, too, each with half of the chance. told: the store says what was bought.
    """
    late = []
    for first in range(0, count // 2, TOGETHER):
        persons = range(first, min(first + TOGETHER, count // 2))
        segments = _segments(len(persons), random)
        chances = np.zeros(len(persons))
        for person in persons[::2]:
            _sign_in(shop, person)
        for device, heeded in zip(DEVICES, (0.5, 0.5) if every_page else (0.0, 1.0), strict=True):
            pages = shop.decide(*[_look(device, *one) for one in zip(persons, segments, strict=True)])
            shown = [one.action.id for one in pages]
            found = zip(pages, segments, shown, strict=True)
            shop.reward(*[page.decision_id for page, segment, action in found if _clicks(segment, action, random)])
            chances += [
                heeded * IN_A_STORE[s, ACTIONS.index(action)] for s, action in zip(segments, shown, strict=True)
            ]
            shop.wait(2)
        for person in persons[1::2]:
            _sign_in(shop, person)
        bought = [one for one, chance in zip(persons, chances.tolist(), strict=True) if random.random() < chance]
        in_time = [one for one in bought if random.random() >= TOO_LATE]
        late += [one for one in bought if one not in in_time]
        if told:
            shop.send([_at_the_till(one) for one in in_time])
            shop.send([_at_the_till(one) for one in in_time[::3]])  # sent again
    shop.wait(60)
    if told:
        shop.send([_at_the_till(one) for one in late])


def _look(device: str, person: int, segment: int) -> pb.DecideRequest:
    request = _request(f"-{device}-{person}", segment)
    request.context.device = device
    return request


def _sign_in(shop: Shop, person: int) -> None:
    for device in DEVICES:
        shop.link(f"u-{device}-{person}", f"customer-{person}")


def _at_the_till(person: int) -> pb.RewardRequest:
    return pb.RewardRequest(unit_id=f"customer-{person}", name="store", reward_id=f"till-{person}")


def play_stores_of_every_page(shop: Shop, count: int, random: np.random.Generator) -> None:
    """Both pages have a part in a purchase."""
    play_stores(shop, count, random, every_page=True)


def play_silent_stores(shop: Shop, count: int, random: np.random.Generator) -> None:
    """The page is all that is counted."""
    play_stores(shop, count, random, told=False)


def take_units(experiment: experiment_pb2.Experiment) -> None:
    """Rewards that name a unit, for its last page."""
    experiment.reward.attribution = experiment_pb2.ATTRIBUTION_LAST


def credit_last(experiment: experiment_pb2.Experiment) -> None:
    """So are purchases in a store."""
    take_units(experiment)
    experiment.reward.range.maximum = 2.0  # one on the page and one in a store


def credit_all(experiment: experiment_pb2.Experiment) -> None:
    """To each page of the person."""
    credit_last(experiment)
    experiment.reward.attribution = experiment_pb2.ATTRIBUTION_ALL


def with_the_other_page(columns: Columns, policy: TablePolicy) -> float:
    """Each page has the whole purchase, so the other page's part of it, too: as that one was decided in the log."""
    segment = columns.fields["segment"]
    assert isinstance(segment, Category)
    codes = np.array([SEGMENTS.index(one) for one in segment.values])[segment.codes]
    other = columns.dense_pmf() * (ON_BOTH_PAGES - CLICKS)[codes]
    return by_segment(SHARES, ON_BOTH_PAGES)(columns, policy) + float(other.sum(axis=1).mean())


LOOKS = 6
"""Linked units of a person."""

OFTEN = np.full((2, len(ACTIONS)), 0.5)
"""(segments, actions): a purchase that does not depend on the page."""


def play_devices(shop: Shop, count: int, random: np.random.Generator) -> None:
    """A person looks on several devices, and every second person buys in a store, whatever the pages were."""
    for person, segment in enumerate(_segments(count // LOOKS, random)):
        for look in range(LOOKS):
            shop.link(f"u-{look}-{person}", f"customer-{person}")
        shop.decide(*[_request(f"-{look}-{person}", segment) for look in range(LOOKS)])
        if random.random() < OFTEN[segment, 0]:
            shop.send([_at_the_till(person)])
        shop.wait(1)
    shop.wait(60)


def credit_devices(experiment: experiment_pb2.Experiment) -> None:
    """All of them, and all actions alike: weights near 1 leave nothing but the purchases to be uncertain of."""
    credit_all(experiment)
    experiment.policy.uniform.SetInParent()


# Slates.

PLACES = 2
NOTICED = (1.0, 0.7)
"""What a click is worth in chance at each place."""

ANCHOR = "sale"
"""Where it stands first, the second place is clicked half as often."""

DISTRACTION = "gift"
"""In the second place, it takes half of the clicks of the first one."""


def explore_pages(experiment: experiment_pb2.Experiment) -> None:
    """Weights of slots multiply: a log that is to answer questions about pages explores more."""
    experiment.minimum_propensity = 0.1


Chances = Callable[[int, Sequence[str]], Sequence[float]]
"""Of a click on each slot: (segment, page) -> by place."""


def forward(segment: int, page: Sequence[str]) -> Sequence[float]:
    """A slot's clicks depend on the slot before it."""
    first, second = (CLICKS[segment, ACTIONS.index(one)] * noticed for one, noticed in zip(page, NOTICED, strict=True))
    return first, second * (0.5 if page[0] == ANCHOR else 1.0)


def backward(segment: int, page: Sequence[str]) -> Sequence[float]:
    """And on the slot behind it."""
    first, second = forward(segment, page)
    return first * (0.5 if page[1] == DISTRACTION else 1.0), second


def whole(segment: int, page: Sequence[str]) -> Sequence[float]:
    """One purchase at most, of the page."""
    first, second = forward(segment, page)
    return (1 - (1 - first) * (1 - second),)


def page_value(chances: Chances) -> Callable[[Columns, TablePolicy], float]:
    """The truth of a page: over segments and over the pages that the candidate fills, slot by slot."""

    def value(_: Columns, policy: TablePolicy) -> float:
        return sum(
            float(SHARES[segment] * _page_probability(policy.pmfs[segment], page) * sum(chances(segment, page)))
            for segment in range(2)
            for page in permutations(ACTIONS, PLACES)
        )

    return value


def _page_probability(pmf: Floats, page: Sequence[str]) -> float:
    """A slot's pmf is that of the actions which are left."""
    probability, left = 1.0, 1.0
    for one in page:
        share = float(pmf[ACTIONS.index(one)])
        probability *= share / left
        left -= share
    return probability


def slates(chances: Chances) -> Callable[[Shop, int, np.random.Generator], None]:
    """Plays pages, which are clicked with these chances: each slot, or the page where there is one chance only."""

    def play(shop: Shop, count: int, random: np.random.Generator) -> None:
        for number, segment in enumerate(_segments(count, random), 1):
            request = pb.DecideSlateRequest(unit_id=f"u{number}", slate_id=f"s{number}", slots=[pb.Slot()] * PLACES)
            request.context.segment = SEGMENTS[segment]
            reply = shop.decide_slate(request)
            found = chances(segment, [one.action.id for one in reply.decisions])
            ids = [one.decision_id for one in reply.decisions] if len(found) > 1 else [reply.slate_id]
            for id_, chance in zip(ids, found, strict=True):
                if random.random() < chance:
                    shop.reward(id_)
            if number % TOGETHER == 0:
                shop.wait(2)
        shop.wait(60)

    return play


PLAIN = by_segment(SHARES, CLICKS)
KEPT = CLICKS * (1 + VISITS) / 2

SCENES = {
    scene.name: scene
    for scene in (
        Scene("visits", "each visitor comes once; to compare with", play_visits, PLAIN, lesson=CLICKS),
        Scene(
            "sticky",
            "a unit keeps its decision; 1 to 4 visits",
            play_returns,
            by_segment(SHARES, KEPT),
            keep,
            lesson=KEPT,
        ),
        Scene(
            "overrides, by segment",
            "an editor shows something else on 5 or 40 % of the pages, whatever was drawn",
            play_overrides,
            by_segment(SHARES * (1 - EDITED), CLICKS),
            lesson=CLICKS,
        ),
        Scene(
            "overrides, learned",
            'the same, with `override = "learn"`',
            play_overrides,
            by_segment(SHARES * (1 - EDITED), CLICKS),
            learn_overrides,
            lesson=CLICKS,
        ),
        Scene(
            "overrides, by action",
            "70 % of one action's pages show another one; three times as many visits",
            play_drawn_overrides,
            PLAIN,
            lesson=CLICKS,
            must="be noticed",
            times=3,
        ),
        Scene(
            "rendered, required",
            '60 or 10 % of the pages are never rendered; `activation = "required"`',
            play_rendering,
            by_segment(SHARES * RENDERED, CLICKS),
            require,
            lesson=CLICKS,
        ),
        Scene(
            "rendered, immediate",
            "the same, and every decision counts as shown",
            play_rendering,
            by_segment(SHARES * RENDERED, CLICKS),
            lesson=CLICKS,
            must="miss",
        ),
        Scene(
            "rendered, by action",
            "the same for 70 % of one action's pages and of no others; three times as many visits",
            play_drawn_rendering,
            PLAIN,
            require,
            lesson=CLICKS,
            must="be noticed",
            times=3,
        ),
        Scene(
            "caps, by the caller", "no unit sees an action twice in three visits", play_caps, behind_caps, lesson=CLICKS
        ),
        Scene(
            "caps",
            "the same, capped by the experiment, in three visits of a unit",
            play_capped,
            behind_caps,
            cap_all,
            lesson=CLICKS,
        ),
        Scene(
            "budgets",
            "the two best actions are shown 40 times a day at most",
            play_visits,
            behind_caps,
            spend,
            lesson=CLICKS,
        ),
        Scene(
            "shares",
            "one action is shown at most to 30 % (the favourite of a segment), two others at least to 25 and 10 %",
            play_visits,
            PLAIN,
            share_out,
            lesson=CLICKS,
        ),
        Scene(
            "returns",
            "purchases are returned (up to half of an action's) or corrected, in any order, and sent twice",
            play_purchases,
            by_segment(SHARES, LEFT_OF_PURCHASES),
            lesson=LEFT_OF_PURCHASES,
        ),
        Scene(
            "returns, by unit",
            "the same; purchases and changes name the visitor",
            play_purchases_of_units,
            by_segment(SHARES, LEFT_OF_PURCHASES),
            take_units,
            lesson=LEFT_OF_PURCHASES,
        ),
        Scene(
            "returns, untold",
            "the same, and the frontend says nothing of returns and corrections",
            play_untold_returns,
            by_segment(SHARES, LEFT_OF_PURCHASES),
            lesson=LEFT_OF_PURCHASES,
            must="miss",
        ),
        Scene(
            "attribution, last",
            "a person's phone and laptop are two units; the last page sends them to a store; a quarter comes too late",
            play_stores,
            by_segment(SHARES, ON_THE_LAST_PAGE.mean(axis=0)),
            credit_last,
            lesson=ON_THE_LAST_PAGE,
        ),
        Scene(
            "attribution, all",
            "both pages send them to the store, and both get the purchase",
            play_stores_of_every_page,
            with_the_other_page,
            credit_all,
        ),
        Scene(
            "attribution, the page alone",
            "as `attribution, last`, and the store says nothing",
            play_silent_stores,
            by_segment(SHARES, ON_THE_LAST_PAGE.mean(axis=0)),
            credit_last,
            lesson=ON_THE_LAST_PAGE,
            must="miss",
        ),
        Scene(
            "attribution, many devices",
            "six linked units of a person get one purchase, which does not depend on pages; evaluations count persons",
            play_devices,
            by_segment(SHARES, OFTEN),
            credit_devices,
        ),
        Scene(
            "slates",
            "two slots; a slot's clicks depend on the slot before",
            slates(forward),
            page_value(forward),
            explore_pages,
            estimators=("ips", "rips", "iips"),
            pages=True,
        ),
        Scene(
            "slates, backward",
            "a slot's clicks depend on the slot behind it, too",
            slates(backward),
            page_value(backward),
            explore_pages,
            estimators=("ips", "rips", "iips"),
            pages=True,
        ),
        Scene(
            "slates, one reward",
            "the page is rewarded, not its slots",
            slates(whole),
            page_value(whole),
            explore_pages,
            estimators=("ips",),
            pages=True,
        ),
    )
}
