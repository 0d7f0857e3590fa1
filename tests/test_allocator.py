"""The process's memory: what a start leaves to the garbage collector."""

from __future__ import annotations

import subprocess
import sys

LEFT = """
import gc
import decider.server.serve
from decider.server.allocator import keep_what_is_there
before = len(gc.get_objects())
keep_what_is_there()
print(before, len(gc.get_objects()), gc.get_freeze_count())
"""


def test_a_full_collection_no_longer_looks_at_the_libraries() -> None:
    """It holds up every call of the process; what the libraries have made stays as long as the process anyway."""
    output = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, check=True).stdout
    before, after, kept = map(int, output.split())
    assert after < before / 100
    assert kept > before / 2
