"""Which column of a table is what: named by the user, or guessed from usual names. Called by `tables.py`.

A mapping is a TOML file of lines like `reward = "clicked"` and `ignore = ["session"]`, or the same on the command line
(`--column reward=clicked --column ignore=page,slot`), which wins. `context = [...]` insists: such a field is context
whatever it looks like.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from simulator.logs.columns import Category, Columns, Field
from simulator.logs.errors import BadLog
from simulator.logs.names import CONTEXT, PMF, by_plain, cleaned, plain, repeated_names
from simulator.logs.options import ReadOptions

LISTS = ("fields", "context", "ignore", "numbers", "categories")

WAYS_OUT = "(what was left out is context all the same with --column context=NAME; --column ignore=NAME says it is not)"

UNIT_WAY_OUT = "(if one of those says who the decision is for: --column unit_id=NAME)"

_PERSONS = (
    "user", "visitor", "customer", "client", "member", "account", "profile", "contact", "subscriber", "guest",
    "person", "shopper", "buyer", "player", "household", "cookie", "device", "browser", "anonymous",
)  # fmt: skip
_ENDINGS = ("id", "uuid", "guid", "key", "hash", "number", "no", "nr")

PERSONS = _PERSONS[:-4]
"""Guessed to be the unit although they may be a category ("new", "returning"): see `without_doubtful_unit`."""

GUESSES: Mapping[str, tuple[str, ...]] = {
    "action": (
        *("action", "action_id", "item_id", "item", "arm", "arm_id", "chosen_action", "variant", "variant_id"),
        *("logged_action", "selected_action", "action_taken", "action_name", "chosen_arm", "treatment"),
    ),
    "propensity": (
        *("propensity", "propensity_score", "pscore", "action_prob", "action_probability", "probability", "prob", "p"),
        *("action_propensity", "logged_propensity", "logging_propensity", "logged_probability", "logging_probability"),
        *("behavior_propensity", "behavior_probability", "sampling_probability", "selection_probability", "p_log"),
    ),
    "reward": ("reward", "click", "clicked", "converted", "conversion", "is_click", "is_clicked", "reward_value"),
    "time": (
        *("time", "timestamp", "datetime", "event_time", "decided_at", "date", "ts", "event_timestamp", "event_ts"),
        *("decision_time", "request_time", "server_time", "impression_time", "logged_at", "served_at", "shown_at"),
        *("occurred_at", "created_at", "timestamp_utc", "utc_timestamp", "timestamp_ms"),
    ),
    "unit_id": (
        *("unit_id", "unit", "user_id", "visitor_id", "customer_id", "uid"),
        *(f"{person}_{ending}" for ending in _ENDINGS for person in _PERSONS),
        *PERSONS,
        *("session_id", "session_key", "session_uuid", "session", "visit_id", "uuid", "guid"),
    ),
    "decision_id": (
        *("decision_id", "event_id", "impression_id", "request_id", "exposure_id", "recommendation_id", "serving_id"),
        *("decision_uuid", "event_uuid", "impression_uuid", "request_uuid", "event_key", "decision_key"),
    ),
    "eligible": ("eligible", "eligible_actions", "eligible_action_ids", "available_actions"),
    "chosen": ("chosen", "is_chosen", "selected", "is_selected"),
    "action_kind": ("action_kind",),
}
"""Usual names, our own first (in any case style). A session is a unit if nothing else is."""

_PLAIN = {plain(name) for names in GUESSES.values() for name in names}


def is_word(name: str) -> bool:
    """Whether a column of that name is guessed to be something else than context.

    >>> is_word("UserID"), is_word("device")
    (True, False)
    """
    return plain(name) in _PLAIN


@dataclass(frozen=True, slots=True)
class Layout:
    """What each column is. A word without a column is None; `chosen` makes it a long table (one row an action).

    fields: the context; insisted: those of them that the user named as such. numbers, categories: those whose kind the
    user named; the first rows tell that of the others. guessed: words whose column the user did not name.
    """

    action: str
    reward: str
    propensity: str | None = None
    time: str | None = None
    unit_id: str | None = None
    decision_id: str | None = None
    eligible: str | None = None
    chosen: str | None = None
    action_kind: str | None = None
    fields: tuple[str, ...] = ()
    numbers: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    pmf: tuple[str, ...] = ()
    insisted: frozenset[str] = frozenset()
    guessed: frozenset[str] = frozenset()

    @property
    def words(self) -> Mapping[str, str]:
        """The columns that are no context, by what they are."""
        return {word: column for word in GUESSES if (column := getattr(self, word)) is not None}

    @property
    def columns(self) -> list[str]:
        """Everything that is to be read."""
        return list(dict.fromkeys([*self.words.values(), *self.pmf, *self.fields]))


assert set(GUESSES) < {field.name for field in fields(Layout)}


def pairs_of(options: ReadOptions, allowed: Sequence[str] = (*GUESSES, *LISTS)) -> dict[str, Any]:
    """The mapping as the user gave it. Raises BadLog.

    >>> pairs_of(ReadOptions(columns=("reward=clicked", "ignore=page,session")))
    {'reward': 'clicked', 'ignore': ['page', 'session']}
    """
    pairs, named = _from_file(options), dict[str, str]()
    for text in options.columns:
        word, equals, column = [cleaned(part) for part in text.partition("=")]
        if not equals or not column:
            raise BadLog(f"--column {text}: is not like --column reward=clicked; words are: {', '.join(allowed)}")
        if word in LISTS:
            pairs[word] = [*(pairs.get(word) or []), *[cleaned(name) for name in column.split(",")]]
        elif word in named:
            raise BadLog(f"--column {text}: {word} is named twice, {named[word]!r} and {column!r}; name one")
        else:
            pairs[word] = named[word] = column
    wrong = [word for word in pairs if word not in allowed]
    if wrong:
        raise BadLog(f"the column mapping has the unknown word {wrong[0]!r}; words are: {', '.join(allowed)}")
    return pairs


def _from_file(options: ReadOptions) -> dict[str, Any]:
    if options.mapping is None:
        return {}
    try:
        pairs = tomllib.loads(options.mapping.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadLog(
            f'{options.mapping}: is no column mapping ({error}); it has lines like: reward = "clicked"'
        ) from error
    for word, value in pairs.items():
        names = value if word in LISTS else [value]
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise BadLog(
                f"{options.mapping}: {word} = {value!r} is not {'a list of names' if word in LISTS else 'a name'}"
            )
        pairs[word] = [cleaned(name) for name in names] if word in LISTS else cleaned(value)
    return pairs


def layout_of(header: Sequence[str], options: ReadOptions, where: str) -> Layout:
    """What each column of a table is: as named, else as guessed. Raises BadLog where it cannot be.

    >>> layout_of(["timestamp", "item_id", "click", "device"], ReadOptions(), "log.csv").words
    {'action': 'item_id', 'reward': 'click', 'time': 'timestamp'}
    """
    pairs = pairs_of(options)
    _check_known(pairs, header, where)
    words = {word: pairs.get(word) or _guess(word, header, pairs, where) for word in GUESSES}
    for word in ("action", "reward"):
        if words[word] is None:
            raise BadLog(
                f"{where}: no column is the {word}; say which: --column {word}=NAME; it has {', '.join(header)}"
            )
    if words["chosen"] and not words["decision_id"]:
        raise BadLog(f"{where}: a long table needs to know which rows are one decision: --column decision_id=NAME")
    pmf = tuple([name for name in header if name.startswith(PMF)]) if not words["chosen"] else ()
    insisted = pairs.get("context", [])
    taken = {*words.values(), *pmf, *pairs.get("ignore", [])}
    rest = [name for name in header if name and name not in taken]
    fields = tuple(dict.fromkeys([*pairs.get("fields", rest), *insisted]))
    twice = repeated_names(name.removeprefix(CONTEXT) for name in fields)
    if twice:
        raise BadLog(
            f"{where}: {twice[0]!r} and '{CONTEXT}{twice[0]}' are one field; leave one out: --column ignore=NAME"
        )
    return Layout(
        **words,  # type: ignore[arg-type]
        fields=fields,
        numbers=frozenset(pairs.get("numbers", [])),
        categories=frozenset(pairs.get("categories", [])),
        pmf=pmf,
        insisted=frozenset([*insisted, *pairs.get("fields", [])]),
        guessed=frozenset(GUESSES) - set(pairs),
    )


def _check_known(pairs: Mapping[str, Any], header: Sequence[str], where: str) -> None:
    for word, value in pairs.items():
        for column in value if isinstance(value, list) else [value]:
            if column not in header:
                raise BadLog(f"{where}: has no column {column!r} ({word}); it has {', '.join(header)}")
    check_context({word: pairs.get(word, []) for word in ("context", "ignore")}, where)


def check_context(pairs: Mapping[str, Sequence[str]], where: str) -> None:
    """Raises BadLog where a name is context and ignored."""
    both = [name for name in pairs["context"] if name in pairs["ignore"]]
    if both:
        raise BadLog(f"{where}: {both[0]!r} is named as context and to be ignored; name it once")


def _guess(word: str, header: Sequence[str], pairs: Mapping[str, Any], where: str) -> str | None:
    """The first usual name that the table has and the user did not give to another word. Raises BadLog for two."""
    named = {column for value in pairs.values() for column in (value if isinstance(value, list) else [value])}
    known = by_plain([name for name in header if name not in named])
    found = next((known[plain(name)] for name in GUESSES[word] if plain(name) in known), [])
    if len(found) > 1:
        raise BadLog(
            f"{where}: {' and '.join(map(repr, found))} may both be the {word}; say which: --column {word}=NAME, and "
            "leave the others out: --column ignore=NAME"
        )
    return found[0] if found else None


def without_doubtful_unit(layout: Layout, few_values: Callable[[str], bool]) -> Layout:
    """A guessed unit like `customer` that has few values in many rows is a category ("new", "returning").

    >>> without_doubtful_unit(Layout("a", "r", unit_id="user", guessed=frozenset({"unit_id"})), lambda _: True).fields
    ('user',)
    """
    unit = layout.unit_id
    doubtful = unit is not None and "unit_id" in layout.guessed and plain(unit) in PERSONS
    if unit is None or not doubtful or not few_values(unit):
        return layout
    return replace(layout, unit_id=None, fields=(*layout.fields, unit))


def describe(layout: Layout, header: Sequence[str], columns: Columns | None, where: str) -> str:
    """Which column is what, for people, one line a column. columns: what was read; None where the reading ended.

    >>> layout = Layout("item_id", "click", fields=("device",))
    >>> print(describe(layout, ["", "item_id", "click", "device", "x"], None, "log"))
    log: one row a decision, no propensities; each column is
      item_id: action
      click: reward
      device: context
      x: ignored
      1 column without a name: ignored
    """
    shape = "one row an action" if layout.chosen else "one row a decision"
    without = "" if layout.propensity or layout.pmf else ", no propensities"
    words = {column: word for word, column in layout.words.items()}
    lines = {name: _line(name, words, layout, columns) for name in header if name and name not in layout.pmf}
    if layout.pmf:
        lines[f"{PMF}ACTION"] = f"propensities of {len(layout.pmf)} actions"
    nameless = header.count("")
    if nameless:
        lines["1 column without a name" if nameless == 1 else f"{nameless} columns without a name"] = "ignored"
    hint = [WAYS_OUT, UNIT_WAY_OUT] if columns is not None and columns.set_aside else []
    text = [f"{name}: {what}" for name, what in lines.items()]
    return "\n  ".join([f"{where}: {shape}{without}; each column is", *text, *hint])


def _line(name: str, words: Mapping[str, str], layout: Layout, columns: Columns | None) -> str:
    field = name.removeprefix(CONTEXT)
    if columns is not None and field in columns.set_aside and name in (*layout.fields, layout.action_kind):
        return f"left out, {columns.set_aside[field]}"
    if name in layout.fields:
        return f"context{_kind(columns.fields[field]) if columns is not None else ''}"
    if name not in words:
        return "ignored"
    return f"{words[name]}{_size(words[name], columns) if columns is not None else ''}"


def _kind(field: Field) -> str:
    if not isinstance(field, Category):
        return ", number"
    count = len(np.unique(field.codes[field.codes >= 0]))
    return f", category of {_counted(count, 'value')}"


def _size(word: str, columns: Columns) -> str:
    if word == "action":
        return f" ({_counted(len(columns.actions), 'action')})"
    if word == "unit_id":
        return f" ({_counted(len(columns), 'row')}, {_counted(len(np.unique(columns.unit)), 'unit')})"
    return ""


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
