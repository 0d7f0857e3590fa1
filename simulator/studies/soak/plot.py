"""The soak as a picture: memory, latency, files and rate over time, with what happened in between. Called by
`__main__.py`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from simulator.report.plots.canvas import BIASED, CANDIDATE, GRID, LOGGED, MUTED, house_style
from simulator.studies.soak.events import Event
from simulator.studies.soak.samples import Sample

Value = Callable[[Sample], float | None]
MB = 1e6

PANELS: Sequence[tuple[str, Sequence[tuple[str, str, Value]]]] = (
    ("decisions/s", (("", CANDIDATE, lambda one: one.rate),)),
    (
        "latency, ms",
        (
            ("p50", LOGGED, lambda one: one.p50),
            ("p99", CANDIDATE, lambda one: one.p99),
            ("longest", BIASED, lambda one: one.longest),
        ),
    ),
    ("resident memory, MB", (("", CANDIDATE, lambda one: one.rss / MB),)),
    (
        "files, MB",
        (("log", CANDIDATE, lambda one: one.log / MB), ("-wal", BIASED, lambda one: one.wal / MB)),
    ),
    (
        "descriptors and threads",
        (
            ("descriptors", CANDIDATE, lambda one: one.descriptors),
            ("threads", LOGGED, lambda one: one.threads),
        ),
    ),
    (
        "seconds",
        (
            ("model's age", CANDIDATE, lambda one: one.model_age),
            ("seal lag", BIASED, lambda one: one.seal_lag),
            ("scrape", LOGGED, lambda one: one.scrape),
        ),
    ),
)
LEAST = 0.001
LOGARITHMIC = ("latency, ms", "seconds")


@house_style
def drawing(samples: Sequence[Sample], events: Sequence[Event], title: str) -> bytes:
    """SVG."""
    figure = Figure(figsize=(8, 1.6 * len(PANELS) + 1.2), facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", size=10.5, weight="bold")
    panels = figure.subplots(len(PANELS), 1, sharex=True)
    for axes, (name, lines) in zip(panels, PANELS, strict=True):
        _draw(axes, name, lines, samples)
        _mark(axes, events)
    _name_events(panels[0], events)
    panels[-1].set_xlabel("minutes")
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _draw(axes: Axes, name: str, lines: Sequence[tuple[str, str, Value]], samples: Sequence[Sample]) -> None:
    axes.set_title(name, loc="left", size=9, color=MUTED)
    axes.grid(visible=True)
    axes.tick_params(length=0)
    for label, colour, value in lines:
        values = [_drawn(value(one)) for one in samples]
        axes.plot([one.at / 60 for one in samples], values, color=colour, label=label, linewidth=1.5)
    if name in LOGARITHMIC:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
    if len(lines) > 1:
        axes.legend(loc="upper right", ncols=len(lines), bbox_to_anchor=(1, 1.28))


def _drawn(value: float | None) -> float:
    """None is a gap; 0 has no place on a logarithmic scale."""
    return float("nan") if value is None else max(value, LEAST)


def _mark(axes: Axes, events: Sequence[Event]) -> None:
    for event in events:
        if event.begun is not None:
            axes.axvspan(event.begun / 60, (event.ended or event.begun) / 60, color=GRID)
            axes.axvline(event.begun / 60, color=MUTED, linewidth=0.8, linestyle=":")


def _name_events(axes: Axes, events: Sequence[Event]) -> None:
    for event in events:
        if event.begun is not None:
            place = (event.begun / 60, 0.03)
            axes.text(*place, event.name, rotation=90, size=7, color=MUTED, transform=axes.get_xaxis_transform())
