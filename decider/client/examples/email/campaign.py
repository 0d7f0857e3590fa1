"""An e-mail campaign: one call decides for many people, and each link carries its decision to the click.

    python campaign.py autumn people.csv https://shop.example/from-mail > mails.jsonl

people.csv has the columns unit and segment. Run again under the same name, nobody gets another mail than before.
"""

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from decider.client import Client

AT_ONCE = 1_000  # that many decisions are one call and one commit


def mails(client: Client, campaign: str, people: list[dict[str, str]], link: str) -> Iterator[dict[str, str]]:
    """One for each person who gets one: `none` is an action, too."""
    requests = [
        {
            "experiment": "storefront",
            "unit_id": person["unit"],
            "decision_id": f"{campaign}-{person['unit']}",  # the same run twice: the same answers
            "segment": person["segment"] or None,
            "channel": "email",
        }
        for person in people
    ]
    for request, result in zip(requests, client.decide_batch(requests), strict=True):
        if not result.HasField("response"):
            print(f"{request['unit_id']}: {result.error.message}; no mail", file=sys.stderr)
            continue
        decision = result.response
        if decision.action.kind != "none":
            subject = dict(decision.action.payload)["title"]
            query = urlencode({"decision": decision.decision_id})
            yield {"to": str(request["unit_id"]), "subject": subject, "link": f"{link}?{query}"}


def main(campaign: str, file: str, link: str) -> None:
    """Whoever clicks comes with ?decision=ID: `client.reward(ID, "click")` there, `"order"` at the end.

    Mails are read days later: the experiment's `reward.window` has to be as long.
    """
    people = list(csv.DictReader(Path(file).read_text(encoding="utf-8").splitlines()))
    with Client(os.environ.get("DECIDER_TARGET", "127.0.0.1:50051"), timeout=30) as client:
        for first in range(0, len(people), AT_ONCE):
            for mail in mails(client, campaign, people[first : first + AT_ONCE], link):
                print(json.dumps(mail))


if __name__ == "__main__":
    main(*sys.argv[1:])
