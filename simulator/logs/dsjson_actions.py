"""Which action is which in a dsjson log: its lines only have features. Called by `dsjson.py`.

Ids must be the same in every line. In this order: a tag or id among the features; the features themselves, where the
same ones come again; the place in the list. The first lines of a log decide for all of it: what tells the actions of
nearly all of them apart is the id, and the few lines that lack it are bad.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from simulator.logs.dsjson_event import ACTION_NAMESPACES, Multi, flatten
from simulator.logs.errors import BadRow

Action = Mapping[str, Any]
Path = tuple[str, ...]

NEARLY_ALL = 0.9
"""Share of the lines whose actions an id must tell apart; the others are bad rows."""

_OTHER = (
    "leave such lines out and count them: --skip-bad; or say how to tell actions apart: --column action=content, "
    "action=position or action=NAMESPACE.FEATURE"
)


class Naming(NamedTuple):
    """How actions get their ids. words: what is said about it to people. path: of the feature that is the id, if any.

    ids: of one line's actions, all different; raises BadRow.
    """

    words: str
    ids: Callable[[Sequence[Action]], list[str]]
    path: Path = ()


def by_feature(path: Path) -> Naming:
    """The text at a path is the id.

    >>> by_feature(("A", "id")).ids([{"A": {"id": "sale"}}, {"A": {"id": 7}}])
    ['sale', '7']
    """
    name = ".".join(path)

    def ids(actions: Sequence[Action]) -> list[str]:
        found = [_text_at(action, path) for action in actions]
        if "" in found:
            raise BadRow("action id", f"an action has no {name}", _OTHER)
        return _check_distinct(found)

    return Naming(f"an action's id is its {name}", ids, path)


BY_CONTENT = Naming(
    "actions with the same features are the same action",
    lambda actions: _check_distinct([f"action-{_digest(action)}" for action in actions]),
)
BY_POSITION = Naming(
    "an action is its place in the line's list",
    lambda actions: [f"action-{number}" for number in range(1, len(actions) + 1)],
)
_WANTED: Mapping[str | None, Naming] = {"content": BY_CONTENT, "position": BY_POSITION}


def _check_distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRow("action id", f"two actions of one line are {twice!r}", _OTHER)
    return names


def _digest(action: Action) -> str:
    try:
        text = json.dumps(action, sort_keys=True)
    except RecursionError as error:
        raise BadRow("_multi", "an action's features are nested too deeply") from error
    return blake2b(text.encode(), digest_size=4).hexdigest()


def naming(wanted: str | None, lines: Sequence[Sequence[Action]]) -> Naming:
    """As asked for (`content`, `position`, or a path like `i.id`), or what suits the first lines.

    >>> naming(None, [[{"_tag": "a"}, {"_tag": "b"}]]).words
    "an action's id is its _tag"
    >>> naming(None, [[{"price": 1}, {"price": 2}], [{"price": 2}, {"price": 1}]]).words
    'actions with the same features are the same action'
    """
    if wanted in _WANTED:
        return _WANTED[wanted]
    if wanted:
        return by_feature(tuple(wanted.split(".")))
    told = {one: _share_told_apart(one, lines) for one in map(by_feature, _usual_paths(lines))}
    best = max(told, key=lambda one: told[one], default=None)  # the first of those that tell as many lines apart
    if best is not None and told[best] >= NEARLY_ALL:
        return _with_share(best, told[best])
    share = _share_told_apart(BY_CONTENT, lines)
    if share >= NEARLY_ALL and _recur(lines):
        return _with_share(BY_CONTENT, share)
    return _by_position(told)


def _with_share(chosen: Naming, share: float) -> Naming:
    return chosen if share == 1 else chosen._replace(words=f"{chosen.words} (not so in {1 - share:.1%} of the lines)")


def _by_position(told: Mapping[Naming, float]) -> Naming:
    """Says which ids were passed over, if only some lines have them."""
    passed = [f"{'.'.join(one.path)} does so in {share:.0%} of the lines" for one, share in told.items() if share]
    if not passed:
        return BY_POSITION
    return BY_POSITION._replace(words=f"{BY_POSITION.words}; no id tells all actions apart ({', '.join(passed)})")


def _usual_paths(lines: Sequence[Sequence[Action]]) -> list[Path]:
    """Of ids, `_tag` first, that at least half of the lines have."""
    found = Counter(path for actions in lines for path in {path: 0 for one in actions for path in _id_paths(one)})
    usual = [path for path, count in found.items() if 2 * count >= len(lines)]
    return sorted(usual, key=lambda path: (path != ("_tag",), len(path)))


def _share_told_apart(candidate: Naming, lines: Sequence[Sequence[Action]]) -> float:
    """Of the lines, those whose actions all have an id of their own."""
    return sum(_tells_apart(candidate, actions) for actions in lines) / max(1, len(lines))


def _tells_apart(candidate: Naming, actions: Sequence[Action]) -> bool:
    try:
        return bool(candidate.ids(actions))
    except BadRow:
        return False


def _recur(lines: Sequence[Sequence[Action]]) -> bool:
    """Whether the log has about as many different actions as a line has, not as many as all lines together."""
    different = {_digest(action) for actions in lines for action in actions}
    longest = max((len(actions) for actions in lines), default=0)
    return len(different) <= max(2 * longest, sum(map(len, lines)) / 10)


def _id_paths(action: Action) -> Iterator[Path]:
    for key, value in action.items():
        if _is_id(key):
            yield (key,)
        elif isinstance(value, dict):
            yield from ((key, inner) for inner in value if _is_id(inner))


def _is_id(key: str) -> bool:
    return key == "_tag" or key.lower().replace("_", "") in ("id", "actionid")


def _feature_name(path: Path) -> str:
    return ".".join(path[1:] if path and path[0] in ACTION_NAMESPACES else path)


def _text_at(action: Action, path: Path) -> str:
    value: Any = action
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One list of actions that a line can have. codes: index of each; features: code of the features of all of them."""

    codes: tuple[int, ...]
    features: int


class Actions:
    """All actions of a log, from the JSON arrays of its lines.

    >>> actions = Actions(by_feature(("_tag",)))
    >>> actions.variant(Multi("...", [{"_tag": "a", "A": {"colour": "red"}}, {"_tag": "b", "A": {"price": 2}}]))
    Variant(codes=(0, 1), features=0)
    >>> actions.ids, actions.traits(), actions.call_features()
    (('a', 'b'), {'colour': ('red', '')}, ('{"b":{"price":2.0}}',))
    """

    CACHE_SIZE = 10_000

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._id_feature = _feature_name(naming.path)
        self._index: dict[str, int] = {}
        self._variants: dict[str, Variant] = {}
        self._texts: dict[str, int] = {}
        self._own: dict[str, dict[str, str | float]] = {}
        self._varying: set[str] = set()

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of every action."""
        return tuple(self._index)

    def variant(self, multi: Multi) -> Variant:
        """The actions of a line. Raises BadRow."""
        known = self._variants.get(multi.text)
        if known is None:
            if len(self._variants) >= self.CACHE_SIZE:
                self._variants.clear()
            known = self._variants[multi.text] = self._variant(multi.actions)
        return known

    def id_of(self, multi: Multi, index: int) -> str:
        """The id of one action of a line that is left out, which need not be one of the log's; empty if it has none."""
        try:
            return self._naming.ids(multi.actions)[index]
        except (BadRow, IndexError):
            return ""

    def _variant(self, actions: Sequence[Action]) -> Variant:
        names = self._naming.ids(actions)
        features = {name: self._features(name, action) for name, action in zip(names, actions, strict=True)}
        for name, one in features.items():
            if self._own.setdefault(name, one) != one:
                self._varying.add(name)
        codes = tuple([self._index.setdefault(name, len(self._index)) for name in names])
        text = json.dumps(features, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return Variant(codes, self._texts.setdefault(text, len(self._texts)))

    def _features(self, id_: str, action: Action) -> dict[str, str | float]:
        """Without those that only repeat the id."""
        return {
            name: value
            for name, value in flatten(_without_constant(action), ACTION_NAMESPACES)
            if name != self._id_feature and not (value == id_ and _is_id(name.rpartition(".")[2]))
        }

    def traits(self) -> dict[str, tuple[str, ...]]:
        """Texts that an action has in every line."""
        fixed = {id_: {} if id_ in self._varying else self._own[id_] for id_ in self.ids}
        names = sorted({name for one in fixed.values() for name, value in one.items() if isinstance(value, str)})
        return {name: tuple([_text(fixed[id_].get(name)) for id_ in self.ids]) for name in names}

    def call_features(self) -> tuple[str, ...]:
        """By code: features that are no traits, as a JSON object by action; empty where there are none."""
        if len(self._varying) == len(self._index):
            return tuple(self._texts)
        return tuple([self._without_traits(json.loads(text)) for text in self._texts])

    def _without_traits(self, features: dict[str, dict[str, str | float]]) -> str:
        left = {id_: self._varying_features(id_, one) for id_, one in features.items()}
        left = {id_: one for id_, one in left.items() if one}
        return json.dumps(left, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if left else ""

    def _varying_features(self, id_: str, features: dict[str, str | float]) -> dict[str, str | float]:
        if id_ in self._varying:
            return features
        return {name: value for name, value in features.items() if not isinstance(value, str)}


def _without_constant(action: Action) -> Action:
    """Personalizer adds the feature `constant` to the namespace `i` of every action: no caller has sent it."""
    own = action.get("i")
    if not (isinstance(own, dict) and "constant" in own):
        return action
    return {**action, "i": {name: value for name, value in own.items() if name != "constant"}}


def _text(value: str | float | None) -> str:
    return value if isinstance(value, str) else ""
