"""Fixed streams of decisions and fixed pmfs: plain data, the same on every machine and in every process.

Needs the standard library and `decider.types` only. Every number comes from `random.Random(seed).random()`, whose
sequence Python guarantees, and from + - * /, comparisons and literals: no other method of Random, no libm.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from decider.types import Context, FeatureValue

T = TypeVar("T")

KINDS = ("plain", "small", "hours", "many", "wide", "moving", "told", "titled")
"""plain: everything odd. small: so few features that pairs of them have room, and a reward that only a pair
foretells. hours: a reward that only ranges of a number foretell. many: more than 32 actions. told: the same, told
apart by their features. titled: the same with ever new texts as features, more than fit, and rewards without noise.
wide: far more features than a regression has room for. moving: the same, and other ones become the frequent ones."""

REWARD_RANGE = (-1.0, 2.0)

ODD_WORDS = (
    "",
    " ",
    "new visitor",
    "red|blue",
    "a:b",
    "k=v",
    "100%",
    "%7C",
    "größe",
    "😀",
    "tab\tname",
    "line\nbreak",
    "\u2028",
    "\xa0x",
    "\u3000",
    "|A id=x",
    "\x00",
    "\x7f",
    "shared |C",
    "constant",
    "A price",
    "CC x",
    "\x85",
    "日本",
)
ODD_NAMES = ("a b", "x|y", "p:q", "k=v", "50%", "😀", "tab\t", "new\nline", "\u2028", "%3A")
ODD_NUMBERS = (
    0.0,
    -0.0,
    1e-7,
    -3.5e-6,
    1e-150,
    5e-324,
    1e-6,
    9.999e-7,
    999.999,
    1000.0,
    1000.0001,
    -1000.5,
    12345.678,
    1e12,
    -1e12,
    1e9,
    0.1,
    -0.30000000000000004,
    1.0,
    -1.0,
)


class Offered(NamedTuple):
    """One eligible action, before it is encoded."""

    id: str
    kind: str
    features: dict[str, FeatureValue]


class Step(NamedTuple):
    """One decision that was drawn and rewarded. drawn: index into `actions`."""

    context: Context
    actions: list[Offered]
    drawn: int
    propensity: float
    reward: float


class _Source:
    def __init__(self, seed: int) -> None:
        self._next = random.Random(seed).random

    def share(self) -> float:
        return self._next()

    def chance(self, probability: float) -> bool:
        return self._next() < probability

    def below(self, count: int) -> int:
        return int(self._next() * count)

    def one(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], probability: float) -> list[T]:
        return [item for item in items if self.chance(probability)]

    def number(self) -> float:
        """Mostly usual ones, also negative, tiny and huge ones."""
        choice = self.share()
        if choice < 0.15:
            return self.one(ODD_NUMBERS)
        if choice < 0.4:
            return float(self.below(24))
        if choice < 0.7:
            return (self.share() - 0.5) * 20
        if choice < 0.85:
            return (self.share() - 0.5) * 1e5
        return self.share()


def stream(kind: str, seed: int, count: int = 400) -> Iterator[Step]:
    """The steps of a stream; see KINDS."""
    make = _MAKERS[kind]
    source = _Source(seed)
    for step in range(count):
        context, actions = make(source, step)
        drawn = source.below(len(actions))
        propensity = 1.0 if len(actions) == 1 else (1 + source.below(1_000_000)) / 1_000_000
        liked = _liked(kind, step, context, actions[drawn])
        reward = -1.0 + 3.0 * liked if kind == "titled" else _reward(source, liked)
        yield Step(context, actions, drawn, propensity, reward)


def _liked(kind: str, step: int, context: Context, action: Offered) -> float:
    """In [0, 1]; so that there is something to learn."""
    if kind == "small":
        return float((context.device == "mobile") != (context.features.get("vip") is True) != (action.id == "a"))
    if kind == "titled":
        return float(context.device == "mobile")
    if kind == "hours":
        hour = context.features.get("hour", 0.0)
        return float((hour in (9.0, 10.0, 11.0, 12.0, 13.0, 14.0)) != (action.id == "a"))
    drift = 3 if kind == "plain" and step >= 200 else 0
    return (sum(action.id.encode()) * 7 + sum(context.device.encode()) + drift) % 10 / 10


def _reward(source: _Source, liked: float) -> float:
    """In REWARD_RANGE."""
    choice = source.share()
    if choice < 0.03:
        return -1.0
    if choice < 0.06:
        return 2.0
    if choice < 0.2:
        return 0.0
    return -1.0 + 3.0 * (0.7 * liked + 0.3 * source.share())


def _plain(source: _Source, step: int) -> tuple[Context, list[Offered]]:
    known = 4 + step // 60  # new actions on the way: 4 to 10
    ids = [f"action.{number}" for number in range(known)]
    chosen = [ids[source.below(known)]] if source.chance(0.03) else source.some(ids, 0.75) or ids
    actions = [_plain_action(source, id_) for id_ in chosen]
    fields = [
        source.one(("", "new visitor", "regular", "größe|1")),
        source.one(("mobile", "desktop", "tablet")),
        source.one(("", "mail", "web:direct", "a=b")),
        source.one(("", "Zürich", "Bern", "São Paulo", "東京")) if step > 50 else "",
        source.one(("", "browse", "buy")),
    ]
    features: dict[str, FeatureValue] = {}
    if source.chance(0.8):
        features["hour"] = float(source.below(24))
    if source.chance(0.7):
        features["vip"] = source.chance(0.3)
    if source.chance(0.6):
        features["age of visit"] = source.number()
    if source.chance(0.5):
        features["größe:%|="] = source.number()
    if source.chance(0.4):
        mixed: tuple[FeatureValue, ...] = (source.number(), source.one(ODD_WORDS[:6]), source.chance(0.5))
        features["mixed"] = source.one(mixed)
    if source.chance(0.3):
        name = source.below(len(ODD_NAMES))
        features[ODD_NAMES[name]] = ODD_WORDS[(name * 5 + source.below(3)) % len(ODD_WORDS)]
    if step > 100 and source.chance(0.5):  # new features on the way
        late: tuple[FeatureValue, ...] = (source.number(), "yes", True)
        features[f"late {step // 100}"] = source.one(late)
    if source.chance(0.05):
        features = {}
    segment, device, channel, location, intent_stage = fields
    return Context(segment, device, channel, location, intent_stage, features), actions


def _plain_action(source: _Source, id_: str) -> Offered:
    number = int(id_.removeprefix("action."))
    features: dict[str, FeatureValue] = {}
    if number % 2:
        features["price"] = number + (0.5 if source.chance(0.8) else source.number())
    if number % 3 == 1:
        features["colour of it"] = source.one(("red|blue", "green", "größe"))
    if number % 4 == 2:
        features["new"] = source.chance(0.5)
    return Offered(id_, ("content", "offer", "none")[number % 3], features)


def _small(source: _Source, step: int) -> tuple[Context, list[Offered]]:
    ids = ["a", "b", "c"] if step < 150 else ["a", "b", "c", "d"]
    chosen = source.some(ids, 0.8) or ids
    features: dict[str, FeatureValue] = {"hour": float(source.below(24))} if source.chance(0.9) else {}
    if source.chance(0.5):
        features["vip"] = source.chance(0.5)
    device, segment = source.one(("mobile", "desktop")), source.one(("", "new", "regular"))
    return Context(segment=segment, device=device, features=features), [Offered(id_, "content", {}) for id_ in chosen]


def _many(source: _Source, step: int) -> tuple[Context, list[Offered]]:
    ids = [f"item-{number}" for number in range(45)]
    chosen = source.some(ids, 0.9 if step % 3 else 0.4) or ids
    features: dict[str, FeatureValue] = {"price": source.number()} if source.chance(0.5) else {}
    context = Context(device=source.one(("mobile", "desktop")), channel=source.one(("mail", "web")), features=features)
    return context, [Offered(id_, "offer", {}) for id_ in chosen]


def _told(source: _Source, step: int) -> tuple[Context, list[Offered]]:
    """Some have fewer features, some a price that changes; new ones on the way."""
    features: dict[str, FeatureValue] = {"age of visit": source.number()} if source.chance(0.5) else {}
    context = Context(device=source.one(("mobile", "desktop")), channel=source.one(("mail", "web")), features=features)
    offered = []
    for number in range(36 + step // 40):
        told: dict[str, FeatureValue] = {"brand": f"b {number % 5}"}
        if number % 3:
            told["colour"] = ("red|blue", "green", "black")[number % 7 % 3]
        if number % 11 == 0:
            told["price"] = source.number()
        offered.append(Offered(f"told-{number}", "offer", told))
    return context, [one for one in offered if source.chance(0.9)] or offered


def _titled(source: _Source, step: int) -> tuple[Context, list[Offered]]:  # noqa: ARG001 - the same at every step
    context = Context(device=source.one(("mobile", "desktop")), channel=source.one(("mail", "web")))
    return context, [
        Offered(f"titled-{number}", "content", {"brand": f"b {number % 5}", "title": f"t {source.below(10_000)}"})
        for number in range(32)
    ]


def _wide(source: _Source, step: int) -> tuple[Context, list[Offered]]:
    ids = [f"w{number}" for number in range(10)]
    chosen = ids if source.chance(0.6) else source.some(ids, 0.6) or ids
    location = f"city {source.below(400)}"
    features: dict[str, FeatureValue] = {f"number {n}": source.number() for n in range(10) if source.chance(0.8)}
    if step > 200 and source.chance(0.5):  # comes when there is no room any more
        too_late: tuple[FeatureValue, ...] = (source.number(), "yes")
        features["too late"] = source.one(too_late)
    extra: dict[str, FeatureValue] = {"price": source.number()} if source.chance(0.5) else {}
    actions = [Offered(id_, "content", extra if id_ == "w3" else {}) for id_ in chosen]
    return Context(device=source.one(("mobile", "desktop")), location=location, features=features), actions


def _moving(source: _Source, step: int) -> tuple[Context, list[Offered]]:
    """From the 400th step on most come from twelve cities of 2,000, and from the 900th on from twelve others."""
    ids = [f"m{number}" for number in range(10)]
    known = source.share() < 0.6 and step >= 400
    city = source.below(12) + (12 if step >= 900 else 0) if known else 24 + source.below(2_000)
    return Context(device=source.one(("mobile", "desktop")), location=f"city {city}"), [
        Offered(id_, "content", {}) for id_ in ids
    ]


class Sampled(NamedTuple):
    """A pmf, a floor and a key, for `to_slots(pmf, minimum=minimum)`, `hash_ticket(*key)` and `draw`."""

    pmf: list[float]
    minimum: float
    key: tuple[str, ...]


def pmfs(seed: int, count: int = 300) -> Iterator[Sampled]:
    """Random pmfs with zeros, many actions and tiny values; some that are none."""
    source = _Source(seed)
    for case in range(count):
        size = source.one((1, 2, 2, 3, 3, 4, 5, 7, 10, 33, 100, 1000))
        pmf = _pmf(source, case, size)
        minimum = source.one((0.0, 0.0, 0.001, 0.01, 1e-6, 1.5e-6, 0.1 / size, 1 / size, 0.05, 1.0))
        yield Sampled(
            pmf, minimum, (source.one(("home", "größe 😀", "")), source.one(("", "salt")), "draw", f"id-{case}")
        )


def _pmf(source: _Source, case: int, size: int) -> list[float]:
    shape = case % 6
    if shape == 0:  # flat
        return [1 / size] * size
    weights = [_weight(source, shape) for _ in range(size)]
    total = 0.0  # not sum(): from Python 3.12 on it rounds otherwise
    for weight in weights:
        total += weight
    if total == 0:
        weights[source.below(size)] = total = 1.0
    off = source.one((1.0,) * 14 + (1.0009, 1.01))  # within and beyond what is taken for 1
    pmf = [weight / total * off for weight in weights]
    if source.chance(0.03):
        pmf[source.below(size)] = source.one((float("nan"), float("inf"), -0.1))
    return pmf


def _weight(source: _Source, shape: int) -> float:
    share = source.share()
    if shape == 1:  # zeros
        return share if source.chance(0.5) else 0.0
    if shape == 2:  # tiny values
        return share * source.one((1.0, 1e-6, 1e-12, 1e-300))
    if shape == 3:  # one that has nearly all
        return share * share * share * share * share * share * share * share
    if shape == 4:  # to the millionth
        return int(share * 1_000_000) / 1_000_000
    return share


_MAKERS = {
    "plain": _plain,
    "small": _small,
    "hours": _small,
    "many": _many,
    "told": _told,
    "titled": _titled,
    "wide": _wide,
    "moving": _moving,
}
