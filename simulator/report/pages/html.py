"""How every page is made of its template, and written with its plots beside it. Called by the pages.

A page holds everything that it shows: it opens from a disk or an attachment, needs no script and loads nothing. Every
name in it comes from a log or a command line and is written as text. The same values give the same bytes. What all
pages share is in `decider/page/`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decider.page.templates import Filters, environment
from simulator.evaluate.verdicts import by_severity
from simulator.report.plots.canvas import Plot

FILTERS: Filters = {
    "data_uri": lambda svg: f"data:image/svg+xml;base64,{b64encode(svg).decode()}",
    "by_severity": by_severity,
}


def write_page(folder: Path, template: str, plots: Sequence[Plot], **values: Any) -> Path:
    """The template with these values as `index.html`, and its plots as files; the page's path.

    The folder is made if need be; files of the same names are replaced, others stay. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        (folder / f"{plot.file}.png").write_bytes(plot.png)
    page = folder / "index.html"
    made = environment(Path(__file__).parent, filters=FILTERS).get_template(template)
    page.write_text(made.render(plots=plots, **values), encoding="utf-8")
    return page
