"""The suite itself: what it skips is counted in CI, and what it starts can be interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.known_skips import KNOWN, KnownSkip

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent

CHILD = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_what_a_test_starts_can_be_interrupted() -> None:
    """Tests that send Ctrl-C to a process wait for its end."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_also_where_a_script_started_the_suite_with_an_ampersand() -> None:
    """The shell lets it ignore Ctrl-C then, and whoever ignores a signal hands that down to every process it starts."""
    name = f"{__file__}::{test_what_a_test_starts_can_be_interrupted.__name__}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1", name]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


SKIPPING = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_skipped(number):
    pytest.skip({reason!r})

@pytest.mark.xfail(strict=True)
def test_expected_to_fail():
    assert False

def test_passes():
    pass
"""


def skipping(pytester: pytest.Pytester, reason: str, count: int, *options: str) -> pytest.RunResult:
    """A run of so many tests that are skipped for that reason."""
    pytester.makepyfile(SKIPPING.format(reason=reason, count=count))
    pytester.syspathinsert(ROOT)
    return pytester.runpytest("-p", "tests.known_skips", *options)


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_an_unknown_skip_fails_the_run_in_ci(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """A test that is skipped everywhere tests nothing, and nobody reads the number of skips below a green run."""
    result = skipping(pytester, "no time", 3, "--known-skips-only", *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["3 skipped, at most 0 may be: no time"])


def test_a_known_skip_passes_as_often_as_it_is_known(pytester: pytest.Pytester) -> None:
    """A second test that hides behind the reason of the first is seen, too."""
    known = KNOWN[0]
    assert skipping(pytester, known.reason, known.most, "--known-skips-only").ret == pytest.ExitCode.OK
    more = skipping(pytester, known.reason, known.most + 1, "--known-skips-only")
    assert more.ret == pytest.ExitCode.TESTS_FAILED


def test_a_person_may_skip(pytester: pytest.Pytester) -> None:
    """On a train there is no data set."""
    assert skipping(pytester, "no time", 3).ret == pytest.ExitCode.OK


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.reason)
def test_every_known_skip_is_one_of_a_test(known: KnownSkip) -> None:
    """A line that outlives its test would let a later test be skipped unseen."""
    files = [*(ROOT / "tests").glob("*.py"), *(ROOT / "simulator").rglob("*.py")]  # a test may give a study's reason
    sources = [file.read_text(encoding="utf-8") for file in files if "skips" not in file.name]
    assert any(known.reason in source for source in sources)


def test_ci_counts_skips() -> None:
    """The list holds only where somebody looks."""
    assert "--known-skips-only" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
