"""The plot of a drive: how long calls took. Called by its page."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from decider.text import figure
from simulator.drive.latency import CURVE, Percentiles
from simulator.drive.result import DriveResult
from simulator.report.drive import measured_from
from simulator.report.plots.canvas import BIASED, CANDIDATE, KEY, Plot, explain, finished, frame, house_style

TICKS = (50.0, 90.0, 99.0, 99.9)


@house_style
def latencies(result: DriveResult, calls: Mapping[str, Percentiles]) -> Plot:
    """What share of the calls took at most how long. The tail has as much room as the middle."""
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
        caption="x: percentile (logarithmic in the tail); y: latency in ms. Decisions are measured from "
        f"{measured_from(result)}, rewards from when each was due.",
        alt=f"Latency. {'; '.join(told)}.",
    )


def _pace(result: DriveResult) -> str:
    return f"{figure(result.rate)} visits per second" if result.rate else "as fast as answers came"


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
