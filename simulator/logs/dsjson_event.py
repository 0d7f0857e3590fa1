r"""One line of a dsjson log -> what it says, by its documented meaning. Pure; called by `dsjson.py`.

The format is that of Vowpal Wabbit's `--dsjson`, of rlclientlib's logs and of Azure Personalizer's. What was relied on:

- VW, `parse_example_json.cc` (9.11) and the wiki page DSJSON: lines that do not start with `{` are skipped; so are
  `_skipLearn` and lines without actions; a line that cannot be parsed is skipped and counted; names that begin with
  `_` are no features; `pdrop` = 1 is refused, and any other gives the line the weight 1 / (1 - pdrop) (pull request
  3055: an event survived with probability 1 - pdrop, so it stands for that many; issue 3056: also in every average).
- rlclientlib (`reinforcement_learning`): `a` are action numbers from 1, the drawn one first, `p` their probabilities
  in that order (`json_event_serializer`, `joiner.cc`); a deferred decision is learned only if an observation says that
  its action was taken: `should_learn: !deferred || any(o.action_taken)` (issue 298; before pull request 8 that
  observation was `"DeferredAction": false`); `_label_probability` of its `log_converter.cc` is p x (1 - pdrop), and
  no `pdrop` stands beside it; `_original_label_cost` differs from `_label_cost` in apprentice mode (`joined_event.h`).
- Personalizer's manual, "Defer event activation": without activation nothing may be learned, with it the default
  reward if no other came.
- Personalizer's SDK (`DecisionContext.cs`, `DecisionContextDocument.cs`): which part of a Rank call stands where.
- `data-science/ds_parse.py`: lines that begin with `[` are checkpoints; objects with `RewardValue` are dangling
  rewards, that is rewards whose decision is not in the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from simulator.logs.errors import SKIP, BadLog, BadRow
from simulator.logs.mapping import GUESSES
from simulator.logs.names import plain
from simulator.logs.options import LARGEST_NUMBER, SMALLEST_PROPENSITY, no_number
from simulator.logs.table_block import NO_IDS
from simulator.logs.times import parse_date

CONTEXT_NAMESPACES = ("C", "A", "FromUrl")
ACTION_NAMESPACES = ("C", "A", "i", "j")
"""Namespaces that whoever wrote the log put around the caller's features: these have the names that the caller gave.
C and A are those of our models and exports. Personalizer puts what a Rank call has as `contextFeatures` into FromUrl,
the `features` of an action into `j`, and its id and a constant into `i`."""

TOLERANCE = 1e-3
"""Two probabilities that differ by no more than this share are the same one: printed ones went through float32."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ONE_A_LINE = "write one decision a line: jq -c '{}' FILE > LINES"
_OPENS_LIST = re.compile(r"\[\s*(\{|$)")
_MULTI = re.compile(r'"_multi"\s*:\s*(?=\[)')


class OtherLine(NamedTuple):
    """A line without fault that is no decision to evaluate: it is counted by its kind."""

    kind: str


class Multi(NamedTuple):
    """The actions of a line: their JSON text, which names them uniquely, and what it says."""

    text: str
    actions: Sequence[Mapping[str, Any]]


NO_ACTIONS = Multi("", ())


class Unlabelled(NamedTuple):
    """A decision whose line has no outcome: counted, and judged by which decisions these are. drawn, time: if known."""

    drawn: int | None
    time: int | None
    actions: Multi


class Event(NamedTuple):
    """One decision. propensity: of the drawn action, given that the line was kept; keep: probability of that.

    drawn: index into the actions; order: action numbers from 1; pmf: in that order, None where it is not complete.
    time: microseconds since 1970; delay: seconds to the first reward. rewarded: a reward came; None: the line does not
    say. units: ids of whom it is for, by the name in the line. actions: `_multi`, and as it stands in the line. notes:
    what is to be counted about this line.
    """

    reward: float
    propensity: float
    keep: float
    drawn: int
    order: Sequence[int]
    pmf: Sequence[float] | None
    time: int | None
    delay: float | None
    rewarded: bool | None
    id: str
    units: Mapping[str, str]
    model: str
    context: Mapping[str, Any]
    actions: Multi
    notes: Sequence[str]


class LineParser:
    """Parses line after line; remembers the last actions, because the next line often has the same.

    >>> parse = LineParser()
    >>> parse('{"RewardValue": 1.0, "EventId": "e"}')
    OtherLine(kind='dangling reward')
    >>> event = parse('{"_label_cost": -1, "_label_probability": 0.8, "_label_Action": 2, "a": [2, 1], "p": [0.8, 0.2],'
    ...               ' "c": {"User": {"age": 31}, "_multi": [{"_tag": "a"}, {"_tag": "b"}]}}')
    >>> event.reward, event.propensity, event.drawn, event.actions.text
    (1.0, 0.8, 1, '[{"_tag": "a"}, {"_tag": "b"}]')
    """

    def __init__(self) -> None:
        self._last = NO_ACTIONS
        self._numbering = _Numbering()
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def __call__(self, text: str) -> Event | Unlabelled | OtherLine:
        """What a line says. Raises BadRow if it cannot be used, BadLog if the file has no line a decision."""
        if text.startswith("["):
            _check_no_list(text)
            return OtherLine("checkpoint")
        try:
            rest, actions = self._split(text)
            line = self._decoder.decode(rest)
        except (ValueError, RecursionError) as error:
            remedy = _ONE_A_LINE.format(".") if text.endswith(("{", ",")) else SKIP
            raise BadRow("line", f"is no JSON ({error})", remedy) from error
        if not isinstance(line, dict):
            raise BadRow("line", "is no JSON object")
        if "\\u" in text:
            _check_characters(text)
        return _event(line, actions, self._numbering)

    def _split(self, text: str) -> tuple[str, Multi]:
        """The line without its actions, and these: parsed only if they are not those of the line before."""
        found = _MULTI.search(text)
        if found is None:
            return text, NO_ACTIONS
        start = found.end()
        if not (self._last.text and text.startswith(self._last.text, start)):
            actions, end = self._decoder.raw_decode(text, start)
            if not all(isinstance(action, dict) for action in actions):
                raise BadRow("_multi", "_multi holds something that is no object")
            self._last = Multi(text[start:end], actions)
        return f"{text[:start]}0{text[start + len(self._last.text) :]}", self._last


def _check_no_list(text: str) -> None:
    """A list of decisions, or the line that opens one, is no checkpoint. Raises BadLog."""
    try:
        items = json.loads(text)
        decisions = any(isinstance(item, dict) and ("c" in item or "_label_cost" in item) for item in items)
    except (ValueError, RecursionError):
        decisions = bool(_OPENS_LIST.match(text))
    if decisions:
        raise BadLog(f"holds a JSON list of decisions; {_ONE_A_LINE.format('.[]')}")


def _check_characters(text: str) -> None:
    r"""Half of a character that is written as two (`\ud800`) cannot be stored in any file."""
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRow("line", f"has half a character ({error.reason})") from error


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _event(line: dict[str, Any], actions: Multi, numbering: _Numbering) -> Event | Unlabelled | OtherLine:
    context = line.get("c")
    if not isinstance(context, dict):
        return _without_context(line)
    kind = _not_evaluated(line, context, actions)
    if kind is None and "_label_cost" not in line:
        return _unlabelled(line, actions)
    return kind or _dropped(line) or _decision(line, context, actions, numbering)


def _unlabelled(line: dict[str, Any], actions: Multi) -> Unlabelled:
    first = line["a"][0] if isinstance(line["a"], list) else line["a"]
    try:
        time = microseconds(line.get("Timestamp"))
    except BadRow:
        time = None
    return Unlabelled(first - 1 if type(first) is int and first > 0 else None, time, actions)


def _dropped(line: dict[str, Any]) -> OtherLine | None:
    return OtherLine("dropped (pdrop = 1)") if line.get("pdrop") == 1 else None


def _without_context(line: dict[str, Any]) -> OtherLine:
    if "RewardValue" in line or "Observations" in line or ("EventId" in line and "v" in line):
        return OtherLine("dangling reward")
    if "EventId" in line and ("ActionTaken" in line or "DeferredAction" in line):
        return OtherLine("dangling activation")
    if "checkpoint_info" in line or "reward_function" in line:
        return OtherLine("checkpoint")
    raise BadRow("line", f"is neither a decision nor a reward: it has {', '.join(list(line)[:5]) or 'nothing'}")


def _not_evaluated(line: dict[str, Any], context: dict[str, Any], actions: Multi) -> OtherLine | None:
    """Why a decision cannot be evaluated, if it cannot."""
    if "_outcomes" in line or "_slots" in context:
        return OtherLine("several slots")
    if "_label_ca" in line or "pdf" in line:
        return OtherLine("continuous action")
    if not line.get("a") or not actions.actions:
        return OtherLine("no actions")
    if (line.get("DeferredAction") is True or line.get("_deferred") is True) and not _is_activated(_outcomes(line)):
        return OtherLine("not activated")
    if line.get("_skipLearn") is True:
        return OtherLine("not to be learned")
    return None


def _outcomes(line: dict[str, Any]) -> list[dict[str, Any]]:
    outcomes = line.get("o")
    return [one for one in outcomes if isinstance(one, dict)] if isinstance(outcomes, list) else []


def _is_activated(outcomes: list[dict[str, Any]]) -> bool:
    return any(one.get("ActionTaken") is True or one.get("DeferredAction") is False for one in outcomes)


def _decision(line: dict[str, Any], context: dict[str, Any], actions: Multi, numbering: _Numbering) -> Event:
    cost = _number(line["_label_cost"], "_label_cost")
    order = numbering.order(line, len(actions.actions))
    drawn = _drawn_index(line, order)
    pdrop = _number(line.get("pdrop") or 0, "pdrop")
    if not 0 <= pdrop < 1:
        raise BadRow("pdrop", f"pdrop {pdrop!r} is not in [0, 1]")
    pmf = _pmf(line, order)
    propensity, keep, notes = _propensity(line.get("_label_probability"), pmf, keep=1 - pdrop)
    if "_original_label_cost" in line and line["_original_label_cost"] not in (None, line["_label_cost"]):
        notes.append("other original cost (apprentice mode)")
    time = microseconds(line.get("Timestamp"))
    rewarded = [one for one in _outcomes(line) if one.get("v") is not None]
    state = line.get("VWState")
    return Event(
        reward=reward_of(cost),
        propensity=propensity,
        keep=keep,
        drawn=drawn,
        order=order,
        pmf=None if pmf is None or not _sums_to_one(pmf) else pmf,
        time=time,
        delay=_delay(time, rewarded),
        rewarded=bool(rewarded) if "o" in line else None,
        id=_id(line.get("EventId")) or next(iter(_ids(line, _EVENT_NAMES).values()), ""),
        units=_ids(line, _UNIT_NAMES),
        model=str(state.get("m") or "") if isinstance(state, dict) else "",
        context=context,
        actions=actions,
        notes=notes,
    )


_UNIT_NAMES = frozenset(map(plain, GUESSES["unit_id"]))
_EVENT_NAMES = frozenset(["eventid"])


@lru_cache(maxsize=1_000)
def _names_among(names: tuple[str, ...], usual: frozenset[str]) -> tuple[str, ...]:
    """Lines have the same names again and again."""
    return tuple([name for name in names if plain(name) in usual])


def _ids(line: Mapping[str, Any], names: frozenset[str]) -> dict[str, str]:
    """Those beside the context whose names are among the plain `names`, however they are written.

    >>> _ids({"user_id": "ann", "UnitId": "", "device": {"os": "x"}}, _UNIT_NAMES)
    {'user_id': 'ann'}
    """
    return {name: id_ for name in _names_among(tuple(line), names) if (id_ := _id(line[name]))}


def _id(value: Any) -> str:
    """As a text; empty where it is none.

    >>> _id("e1"), _id(7), _id(None), _id(" "), _id("null"), _id({"os": "x"})
    ('e1', '7', '', '', '', '')
    """
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    return "" if text.lower() in NO_IDS else text


def reward_of(cost: float) -> float:
    """VW's cost as a reward: the only place that turns the sign when a log is read.

    >>> reward_of(-1.0), reward_of(0.0)
    (1.0, 0.0)
    """
    return 0.0 - cost


def _number(value: Any, name: str) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        return float(value)
    raise BadRow(name, f"{name} {value!r:.50} {no_number(value)}")


class _Numbering:
    """Whether `a` counts actions from 1, as rlclientlib does, or from 0, as VW reads as well: it takes the labels.

    Most lines tell: one of them names all actions, or has a label. A line that does not, in a log that counts from 0
    elsewhere, could be either.
    """

    def __init__(self) -> None:
        self._from_0 = self._untold = False

    def order(self, line: Mapping[str, Any], count: int) -> Sequence[int]:
        """The action numbers from 1, of `count` actions. Raises BadRow."""
        given = line["a"]
        numbers: Sequence[int] = given if isinstance(given, list) else [given]
        if set(map(type, numbers)) != {int} or min(numbers) < 0 or len(set(numbers)) < len(numbers):
            raise BadRow("a", f"a {given!r} is no list of different action numbers from 1")
        if line.get("_label_Action") == numbers[0] and 0 not in numbers:  # nearly every line of nearly every log
            self._check(numbers)
            return numbers
        labels = {line[name] - shift for name, shift in _LABELS if type(line.get(name)) is int}
        if 0 in numbers or labels == {numbers[0]}:
            return self._counted_from_0(numbers, labels)
        if not labels and max(numbers) < count:
            self._untold = True
        self._check(numbers)
        return numbers

    def _counted_from_0(self, numbers: Sequence[int], labels: set[int]) -> Sequence[int]:
        if labels - {numbers[0]}:
            raise BadRow("a", f"a {numbers!r} is no list of different action numbers from 1, nor from 0 by its labels")
        self._from_0 = True
        self._check(numbers)
        return [number + 1 for number in numbers]

    def _check(self, numbers: Sequence[int]) -> None:
        if self._from_0 and self._untold:
            what = "some lines count actions from 0, and some do not tell"
            raise BadRow("a", f"a {numbers!r}: {what}", "write _label_Action (from 1) into every line")


_LABELS = (("_label_Action", 1), ("_labelIndex", 0))
"""What names the drawn action beside `a`, and what it counts from."""


def _drawn_index(line: dict[str, Any], order: Sequence[int]) -> int:
    """Index of the drawn action. `a`, `_label_Action` and `_labelIndex` say the same."""
    for name, start in _LABELS:
        if name in line and line[name] != order[0] - 1 + start:
            raise BadRow("action", f"{name} {line[name]!r} is not the drawn action {order[0]} that `a` names first")
    return order[0] - 1


def _pmf(line: dict[str, Any], order: Sequence[int]) -> Sequence[float] | None:
    given = line.get("_p", line.get("p"))
    if given is None or given == []:
        return None
    pmf: Sequence[float] = given if isinstance(given, list) else [given]
    right = (
        set(map(type, pmf)) <= {float, int} and len(pmf) == len(order) and min(pmf) >= 0 and sum(pmf) <= 1 + TOLERANCE
    )
    if not right:
        raise BadRow("p", f"p {given!r} are not the probabilities of the {len(order)} actions in `a`")
    return pmf


def _sums_to_one(pmf: Sequence[float]) -> bool:
    return abs(sum(pmf) - 1) <= TOLERANCE


def _propensity(label: Any, pmf: Sequence[float] | None, *, keep: float) -> tuple[float, float, list[str]]:
    """The drawn action's probability, the probability that the line was kept, and what to count."""
    if label is None and pmf is None:
        raise BadRow("_label_probability", "has neither _label_probability nor p")
    first = pmf[0] if pmf is not None else _number(label, "_label_probability")
    named = first if label is None else _number(label, "_label_probability")
    if not (0 < named <= 1 + TOLERANCE and first > 0):
        raise BadRow("_label_probability", f"the drawn action's probability {named!r} is not in (0, 1]")
    if min(named, first) < SMALLEST_PROPENSITY:
        smallest = f"below {SMALLEST_PROPENSITY:g}, which no draw can have shown"
        raise BadRow("_label_probability", f"the drawn action's probability {min(named, first)!r} is {smallest}")
    if _same(named, first):
        return min(named, 1.0), keep, []
    if _same(named, first * keep):
        return min(first, 1.0), keep, ["label probability times 1 - pdrop"]
    if keep == 1 and named < first:
        return min(first, 1.0), named / first, ["label probability times 1 - pdrop"]
    raise BadRow("_label_probability", f"_label_probability {named!r} is not the {first!r} that p gives to the action")


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * other


def microseconds(text: Any) -> int | None:
    """Microseconds since 1970 of an ISO 8601 text (UTC where it does not say); None where there is none.

    >>> microseconds("2017-10-24T00:00:15.5160000Z")
    1508803215516000
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // _MICROSECOND
    except (TypeError, ValueError, OverflowError) as error:
        found = parse_date(text) if isinstance(text, str) else None
        if found is None:
            raise BadRow("Timestamp", f"the time {text!r} is not like 2021-07-29T10:00:00.999Z") from error
        return found


def _delay(time: int | None, rewarded: list[dict[str, Any]]) -> float | None:
    """Seconds to the first reward whose time the line tells."""
    if time is None:
        return None
    times = [microseconds(one.get("EnqueuedTimeUtc", one.get("Timestamp"))) for one in rewarded]
    known = [moment for moment in times if moment is not None]
    return max(0.0, (min(known) - time) / 1e6) if known else None


def flatten(
    features: Mapping[str, Any], without_name: Sequence[str] = CONTEXT_NAMESPACES
) -> list[tuple[str, str | float]]:
    """Features by name: `namespace.feature`; texts, numbers, and flags as "true" and "false".

    Names that begin with `_` are no features. Objects in a list belong to the list's namespace, numbers get its
    index. without_name: namespaces that are no part of a feature's name. Raises BadRow for a number that is none.

    >>> flatten({"User": {"age": 31, "_id": 7, "vip": True}, "C": {"segment": "new"}, "speed": [1.5, 2]})
    [('User.age', 31.0), ('User.vip', 'true'), ('segment', 'new'), ('speed.0', 1.5), ('speed.1', 2.0)]
    >>> flatten({"FromUrl": [{"weather": "sunny"}, {"device": {"mobile": True}}]})
    [('weather', 'sunny'), ('device.mobile', 'true')]
    """
    flat: list[tuple[str, str | float]] = []
    try:
        _add_namespaces(flat, features, without_name)
    except RecursionError as error:
        raise BadRow("feature", "features are nested too deeply") from error
    return flat


def _add_namespaces(
    flat: list[tuple[str, str | float]], features: Mapping[str, Any], without_name: Sequence[str]
) -> None:
    for key, value in features.items():
        if key[:1] == "_":
            continue
        if key in without_name and type(value) in (dict, list):
            for index, part in enumerate(value if type(value) is list else (value,)):
                _add_all(flat, "", part) if type(part) is dict else _add(flat, f"{key}.{index}", part)
        else:
            _add(flat, key, value)


def _add_all(flat: list[tuple[str, str | float]], prefix: str, features: Mapping[str, Any]) -> None:
    for key, value in features.items():
        if key[:1] != "_":
            _add(flat, prefix + key, value)


def _add(flat: list[tuple[str, str | float]], name: str, value: Any) -> None:
    kind = type(value)
    if kind is str:
        if value:
            flat.append((name, value))
    elif kind is bool:
        flat.append((name, "true" if value else "false"))
    elif kind is int or kind is float:
        flat.append((name, _number(value, "feature")))
    elif kind is dict:
        _add_all(flat, f"{name}.", value)
    elif kind is list:
        _add_list(flat, name, value)


def _add_list(flat: list[tuple[str, str | float]], name: str, items: list[Any]) -> None:
    for index, item in enumerate(items):
        if isinstance(item, dict):
            _add_all(flat, f"{name}.", item)
        else:
            _add(flat, f"{name}.{index}", item)
