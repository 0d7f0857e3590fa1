"""Where a package is missing, the extra of this project that has it. Called by `decider/cli.py` and `simulator/cli.py`.

`pip install .` alone is the client; the two commands need more. The standard library alone is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str, *, command: str) -> Iterator[None]:
    """Ends with exit code 2 and one line on stderr where an import inside finds no package."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "decider", "simulator"):  # a fault of ours: no extra would mend it
            raise
        print(
            f"{command}: the package {package} is not installed. {command} needs the extra '{extra}': "
            f"in its source folder, pip install '.[{extra}]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
