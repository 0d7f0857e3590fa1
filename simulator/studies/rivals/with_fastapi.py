"""What a user would write in an afternoon instead of this service: FastAPI, Vowpal Wabbit and SQLite, in one file.

Runs in the rivals' environment, see `requirements.txt`: `python -m simulator.studies.rivals.with_fastapi PORT FOLDER`.
Written to be fast and to keep what it needs: uvloop and httptools (`uvicorn[standard]`), handlers on the loop in place
of a pool of threads, the decision in a commit of its own before the answer, with the settings of SQLite that our log
has. Of what our server does beside it has nothing: no windows, model versions, replay, limits, other processes.
Started by `bench_web.py`.
"""

import random
import sqlite3
import sys
import uuid
from pathlib import Path
from typing import Any

import uvicorn

ARGUMENTS = "--cb_explore_adf --squarecb -q SA --quiet"
ACTIONS = {f"action-{number}": {"title": f"Title {number}"} for number in range(10)}
LINES = [f"|A id={action}" for action in ACTIONS]

TABLES = """
create table if not exists decision (
  id text primary key, unit text, context text, action integer, propensity real, decided_at real default (unixepoch())
) without rowid;
create table if not exists reward (decision text, value real, rewarded_at real default (unixepoch()));
"""


def app(db: Path) -> Any:
    """The service; its log is in the file."""
    import vowpalwabbit  # type: ignore[import-not-found] # only in the rivals' environment, as the two below
    from fastapi import FastAPI, HTTPException  # type: ignore[import-not-found]
    from pydantic import BaseModel  # type: ignore[import-not-found]

    class Context(BaseModel):  # type: ignore[misc]
        """Of a visitor."""

        segment: str = ""
        device: str = ""
        channel: str = ""
        location: str = ""
        intent_stage: str = ""

    class DecideRequest(BaseModel):  # type: ignore[misc]
        """Which action for whom?"""

        experiment: str
        unit_id: str
        context: Context

    class Decided(BaseModel):  # type: ignore[misc]
        """The action, and the id for its reward."""

        decision_id: str
        action: str
        payload: dict[str, str]
        propensity: float

    class RewardRequest(BaseModel):  # type: ignore[misc]
        """What a decision has earned."""

        decision_id: str
        value: float = 1.0

    log = sqlite3.connect(db, isolation_level=None)
    log.executescript(f"pragma journal_mode = wal; pragma synchronous = normal; {TABLES}")
    learner = vowpalwabbit.Workspace(ARGUMENTS)
    made, names, number = FastAPI(), list(ACTIONS), range(len(ACTIONS))

    @made.post("/decide")  # type: ignore[untyped-decorator] # FastAPI is known in the rivals' environment alone
    async def decide(request: DecideRequest) -> Decided:
        shared = "shared |S " + " ".join(f"{name}={value}" for name, value in request.context if value)
        pmf = learner.predict([shared, *LINES])
        (drawn,) = random.choices(number, pmf)
        id_, action = str(uuid.uuid4()), names[drawn]
        row = (id_, request.unit_id, shared, drawn, pmf[drawn])
        log.execute("insert into decision (id, unit, context, action, propensity) values (?, ?, ?, ?, ?)", row)
        return Decided(decision_id=id_, action=action, payload=ACTIONS[action], propensity=pmf[drawn])

    @made.post("/reward")  # type: ignore[untyped-decorator] # the same
    async def reward(request: RewardRequest) -> dict[str, bool]:
        query = "select context, action, propensity from decision where id = ?"
        found = log.execute(query, (request.decision_id,)).fetchone()
        if found is None:
            raise HTTPException(404, "no such decision")
        log.execute("insert into reward (decision, value) values (?, ?)", (request.decision_id, request.value))
        shared, action, propensity = found
        lines = LINES.copy()
        lines[action] = f"{action}:{-request.value}:{propensity} {lines[action]}"
        learner.learn([shared, *lines])
        return {"learned": True}

    return made


if __name__ == "__main__":
    db = Path(sys.argv[2]) / "rival.db"
    uvicorn.run(app(db), port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
