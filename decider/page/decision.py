"""The page of one decision, for people: HTML, no script. Called by `server/http/decisions.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from decider.page.page import Term, address, render

TONES = {"equal": "fine", "different": "do-not-use", "unchecked": "caution"}
"""How the result of making a decision again looks."""

TERMS = (
    Term("Policy", "What decides which action a unit gets, and learns from the rewards."),
    Term("Control group", "Units that always get the baseline action, so that one can see what the policy brings."),
    Term("Expected reward", "What the model that decided took an action to earn, for this context."),
    Term("Gap", "The difference of two expected rewards. The lines above it sum to it."),
)


def decision_page(account: Mapping[str, Any], *, command: str) -> str:
    """account: `to_json` of `replay/words.py`. command: that says the same in a terminal."""
    return render(
        "decision.html.j2",
        title=f"Decision {account['decision_id']} of {account['experiment']}, version {account['version']}",
        subject=f"Why {account['action']}?",
        account=account,
        tone=TONES[account["check"]["result"]],
        command=command,
        address=address(account["experiment"]),
        glossary=TERMS,
    )


def missing_page(text: str) -> str:
    """Where there is nothing to explain, and why."""
    return render("missing.html.j2", title="Not here", subject="Nothing to explain", text=text)
