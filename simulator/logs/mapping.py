"""Which column of a table is what: named by the user, or guessed from usual names. Called by `tables.py`.

A mapping is a TOML file of lines like `reward = "clicked"` and `ignore = ["session"]`, or the same on the command line
(`--column reward=clicked --column ignore=session,page`), which wins.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from simulator.logs.errors import BadLog
from simulator.logs.options import ReadOptions

LISTS = ("fields", "ignore", "numbers", "categories")

PMF = "pmf."
"""`pmf.ACTION` is a column with the logged probability of an action; empty where it was not eligible."""

CONTEXT = "context."
"""`context.NAME` is the context field NAME: for names that mean something else here."""

GUESSES: Mapping[str, tuple[str, ...]] = {
    "action": ("action", "action_id", "item_id", "item", "arm", "arm_id", "chosen_action", "variant"),
    "propensity": ("propensity", "propensity_score", "pscore", "action_prob", "action_probability", "probability"),
    "reward": ("reward", "click", "clicked", "converted", "conversion"),
    "time": ("time", "timestamp", "datetime", "event_time", "decided_at", "date"),
    "unit_id": ("unit_id", "unit", "user_id", "visitor_id", "customer_id"),
    "decision_id": ("decision_id", "event_id", "eventid", "impression_id", "request_id"),
    "eligible": ("eligible", "eligible_actions"),
    "chosen": ("chosen", "is_chosen", "selected"),
}
"""Usual names, our own first; upper and lower case are the same."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What each column is. A word without a column is None; `chosen` makes it a long table (one row an action).

    fields: the context; numbers, categories: those whose kind the user named; the first rows tell that of the others.
    """

    action: str
    reward: str
    propensity: str | None = None
    time: str | None = None
    unit_id: str | None = None
    decision_id: str | None = None
    eligible: str | None = None
    chosen: str | None = None
    fields: tuple[str, ...] = ()
    numbers: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    pmf: tuple[str, ...] = ()

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
    pairs = _from_file(options)
    for text in options.columns:
        word, equals, column = text.partition("=")
        if not equals or not column:
            raise BadLog(f"--column {text}: is not like --column reward=clicked; words are: {', '.join(allowed)}")
        if word in LISTS:
            pairs[word] = [*(pairs.get(word) or []), *column.split(",")]
        else:
            pairs[word] = column
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
    return pairs


def layout_of(header: Sequence[str], options: ReadOptions, where: str) -> Layout:
    """What each column of a table is: as named, else as guessed. Raises BadLog where it cannot be.

    >>> layout_of(["timestamp", "item_id", "click", "device"], ReadOptions(), "log.csv").words
    {'action': 'item_id', 'reward': 'click', 'time': 'timestamp'}
    """
    pairs = pairs_of(options)
    _check_known(pairs, header, where)
    words = {word: pairs.get(word) or _guess(word, header, pairs) for word in GUESSES}
    for word in ("action", "reward"):
        if words[word] is None:
            raise BadLog(
                f"{where}: no column is the {word}; say which: --column {word}=NAME; it has {', '.join(header)}"
            )
    if words["chosen"] and not words["decision_id"]:
        raise BadLog(f"{where}: a long table needs to know which rows are one decision: --column decision_id=NAME")
    pmf = tuple([name for name in header if name.startswith(PMF)]) if not words["chosen"] else ()
    taken = {*words.values(), *pmf, *pairs.get("ignore", [])}
    rest = tuple([name for name in header if name and name not in taken])
    return Layout(
        **words,  # type: ignore[arg-type]
        fields=tuple(pairs.get("fields", rest)),
        numbers=frozenset(pairs.get("numbers", [])),
        categories=frozenset(pairs.get("categories", [])),
        pmf=pmf,
    )


def _check_known(pairs: Mapping[str, Any], header: Sequence[str], where: str) -> None:
    for word, value in pairs.items():
        for column in value if isinstance(value, list) else [value]:
            if column not in header:
                raise BadLog(f"{where}: has no column {column!r} ({word}); it has {', '.join(header)}")


def _guess(word: str, header: Sequence[str], pairs: Mapping[str, Any]) -> str | None:
    """The first usual name that the table has and the user did not give to another word."""
    named = {column for value in pairs.values() for column in (value if isinstance(value, list) else [value])}
    known = {name.lower(): name for name in reversed(header) if name not in named}
    return next((known[name] for name in GUESSES[word] if name in known), None)


def describe(layout: Layout, where: str, numbers: frozenset[str]) -> str:
    """Which column is what, for people. numbers: the fields that hold numbers.

    >>> describe(Layout(action="item_id", reward="click", fields=("device", "age")), "log.csv", frozenset({"age"}))
    'log.csv: action = item_id, reward = click; context: device (category), age (number); a wide table, no propensities'
    """
    shape = "a long table" if layout.chosen else "a wide table"
    without = "" if layout.propensity or layout.pmf else ", no propensities"
    words = ", ".join(f"{word} = {column}" for word, column in layout.words.items())
    pmf = f", {len(layout.pmf)} columns {PMF}ACTION" if layout.pmf else ""
    context = ", ".join(f"{name} ({'number' if name in numbers else 'category'})" for name in layout.fields)
    return f"{where}: {words}{pmf}; context: {context or 'none'}; {shape}{without}"
