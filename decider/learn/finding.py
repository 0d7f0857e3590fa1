"""What a check has found: the evidence and the way out. Made by `diagnosis.py` and `lost_rewards.py`, printed by
`decider doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """experiment: empty where it is about all of them. check: its name, for scripts. text: what is so, with the
    evidence. way_out: what to do. is_note: it may be meant."""

    experiment: str
    check: str
    text: str
    way_out: str
    is_note: bool = False
