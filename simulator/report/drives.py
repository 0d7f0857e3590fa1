"""The page of `simulator drive --report`, and its plot as a file beside it. Called by the command.

As every page of ours it holds all that it shows, needs no script and loads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from simulator.drive.latency import CURVE, Percentiles
from simulator.drive.result import Result
from simulator.report.canvas import BIASED, CANDIDATE, KEY, Plot, explain, finished, frame, house_style
from simulator.report.glossary import Term
from simulator.report.page import filled, write_page
from simulator.report.terminal.drives import beside, call_name, measured_from, verdict
from simulator.text import figure

TITLE = "A world driven against a live server"
TICKS = (50.0, 90.0, 99.0, 99.9)

TERMS = (
    Term("Acknowledged", "The server answered. From then on it must be in the log, whatever happens to the server."),
    Term("Lost", "Acknowledged, but not in the log."),
    Term("Doubled", "In the log more often than it was sent, or counted twice."),
    Term("Different", "In the log otherwise than it was asked or answered."),
    Term(
        "Sent again",
        "Who gets no answer cannot know whether the call was carried out, and sends it again with the same ids; the "
        "log holds it once.",
    ),
    Term("p99", "99 of 100 calls took at most so long. Each percentile is a call that was measured."),
    Term("Regret", "What the best action of every visit would have earned more, a visit."),
    Term(
        "Share of the attainable lift", "How far from an even choice (0 %) to the best action of every visit (100 %)."
    ),
    Term("Even choice", "Every eligible action with the same probability: what is earned without any knowledge."),
    Term("Best single action", "The one action that, shown to everybody, earns most."),
)


def write_drive_report(result: Result, folder: Path) -> Path:
    """Write `index.html` and the plot into the folder, which is made if need be; the page's path.

    Files of the same names are replaced, others stay. The same result gives the same bytes. Raises OSError.

    >>> from simulator.drive.example import found
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     page = write_drive_report(found(), Path(folder))
    >>> page.name
    'index.html'
    """
    calls = calls_of(result)
    plots = [latencies(result, calls)] if calls else []
    text = filled(
        "drive.html.j2",
        title=TITLE,
        subject=result.world,
        result=result,
        verdict=verdict(result),
        calls=calls,
        since=measured_from(result),
        beside=beside(result.earned) if result.earned else (),
        plots=plots,
        glossary=TERMS,
    )
    return write_page(folder, plots, text)


def calls_of(result: Result) -> dict[str, Percentiles]:
    """Those that were made, by name.

    >>> from simulator.drive.example import found
    >>> list(calls_of(found()))
    ['Decide', 'rewards']
    """
    both = {call_name(result): result.decide, "rewards": result.reward}
    return {name: one for name, one in both.items() if one}


@house_style
def latencies(result: Result, calls: Mapping[str, Percentiles]) -> Plot:
    """What share of the calls took at most how long. The tail has as much room as the middle.

    >>> from simulator.drive.example import found
    >>> latencies(found(), calls_of(found())).file
    'latency'
    """
    drawing, axes = frame("How long calls took", f"{result.world}, {_pace(result)}", height=2.5, left=0.85, above=KEY)
    looks = ((CANDIDATE, "-"), (BIASED, "--"))
    key = {name: _draw(axes, one, *look) for (name, one), look in zip(calls.items(), looks, strict=False)}
    explain(axes, key)
    _scale(axes, most=max(one.calls for one in calls.values()))
    told = [
        f"{name}: p50 {_ms(one.p50)} ms, p99 {_ms(one.p99)} ms, longest {_ms(one.max)} ms"
        for name, one in calls.items()
    ]
    return finished(
        drawing,
        file="latency",
        caption="Across: the percentage of calls that took at most so long; the slowest tenth, hundredth and "
        "thousandth have as much room as the rest. Up: milliseconds. Decisions are measured from "
        f"{measured_from(result)}, rewards from when each was due.",
        alt=f"Latency. {'; '.join(told)}.",
    )


def _pace(result: Result) -> str:
    return f"{figure(result.rate)} visits a second" if result.rate else "as fast as answers came"


def _draw(axes: Axes, one: Percentiles, colour: str, dashes: str) -> Line2D:
    known = [(_across(p), max(1000 * s, 1e-3)) for p, s in zip(CURVE, one.curve, strict=True) if _seen(p, one.calls)]
    across, up = zip(*known, strict=True)
    (line,) = axes.plot(across, up, color=colour, linestyle=dashes, linewidth=1.8)
    return line


def _seen(percent: float, calls: int) -> bool:
    """Whether there are calls beyond it, so that it says more than the longest call."""
    return percent == 0 or (1 - percent / 100) * calls >= 1


def _across(percent: float) -> float:
    """Where a percentile stands: 90, 99 and 99.9 are as far apart."""
    return -math.log10(1 - percent / 100)


def _scale(axes: Axes, *, most: int) -> None:
    axes.set_yscale("log")
    axes.set_xlim(0, max(1.05, min(math.log10(most), _across(CURVE[-1]))))
    axes.set_xlabel("percent of the calls")
    axes.set_ylabel("milliseconds")
    axes.xaxis.set_major_locator(FixedLocator([_across(one) for one in TICKS]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: figure(round(100 * (1 - 10**-x), 3))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: figure(y)))
    axes.yaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.grid(visible=True)


def _ms(seconds: float) -> str:
    return figure(1000 * seconds)
