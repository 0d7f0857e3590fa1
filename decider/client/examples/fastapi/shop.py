"""A web app in Python that decides on the server: the banner is in the page when it arrives.

pip install fastapi uvicorn FOLDER
uvicorn shop:app --port 8000

FOLDER is the checkout of this project: PyPI's `decider` is somebody else's.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from decider.client import AsyncClient, Fallback

BANNER = Fallback("new-arrivals", payload={"title": "New this week"})  # what the page shows without an answer


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the whole process, made in its event loop."""
    target = os.environ.get("DECIDER_TARGET", "127.0.0.1:50051")
    timeout = float(os.environ.get("DECIDER_TIMEOUT", "0.2"))  # seconds that a page waits at most
    async with AsyncClient(target, timeout=timeout) as client:
        app.state.decider = client
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/", response_class=HTMLResponse)
async def home(request: Request, response: Response, segment: str | None = None) -> str:
    """The page, complete; `?segment=vip` stands for what a shop knows of who has signed in."""
    visitor = request.cookies.get("visitor") or str(uuid.uuid4())
    decider = request.app.state.decider
    decision = await decider.decide("storefront", visitor, fallback=BANNER, segment=segment, intent_stage="browse")
    response.set_cookie("visitor", visitor, max_age=31_536_000, httponly=True, samesite="lax")
    response.headers["Cache-Control"] = "private, no-store"  # a decision is for one visitor, and for this visit
    title = escape(str(dict(decision.action.payload).get("title", "")))
    action, id_ = escape(decision.action.id), escape(decision.decision_id)
    return f"""<!DOCTYPE html><title>Shop</title>
<h1 data-action="{action}">{title}</h1>
<form method="post" action="/click"><input type="hidden" name="decision" value="{id_}"><button>Look</button></form>"""


@app.post("/click")
async def click(request: Request) -> dict[str, str]:
    """The id comes back with what the visitor did; in a real shop it waits in the session until the purchase."""
    fields = dict(part.split("=", 1) for part in (await request.body()).decode().split("&") if "=" in part)
    return {"reward": await request.app.state.decider.reward(fields.get("decision", ""), "click")}
