"""Identity over releases: small logs of every released version stay in tests/data and still replay.

`log-VERSION.db` is made when a version is released, by `simulator demo --exit --visitors 150 --db ...` three times, so
that the later runs are served by what the earlier ones taught. The others of 0.1.0 were made by its own code: every
algorithm with everything that can happen to an experiment, and contexts too wide for the default policy. `code-3` is of
the default's learning code 3: numbers (`cart-offer`), levels (`season`, with a short memory), 80 actions with features
(`shelf`), by `simulator drive` and a server that was started again for each run.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from decider.log.open import open_log, open_reader
from simulator.commands.group import main
from simulator.verify import verify

DATA = Path(__file__).parent / "data"
DECISIONS = {
    "log-0.1.0": 450,
    "log-0.1.0-algorithms": 1840,
    "log-0.1.0-wide": 540,
    "log-0.1.0-chained": 300,
    "log-0.1.0-code-3": 920,
}
CHAINED = ("log-0.1.0-chained", "log-0.1.0-code-3")
"""Those that were chained as they were written, before their release: nothing of them is computed anew."""


def test_every_stored_log_is_known_here() -> None:
    """One that nobody counts could be read as empty."""
    assert {path.stem for path in DATA.glob("*.db")} == {*DECISIONS}


@pytest.fixture(params=DECISIONS)
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Each log, to be upgraded."""
    return Path(shutil.copy(DATA / f"{request.param}.db", tmp_path))


def test_a_log_of_an_earlier_release_still_replays(copy: Path) -> None:
    """Whoever upgrades keeps the right to audit, before the first start of the new release and after."""
    expected = DECISIONS[copy.stem]
    with closing(open_reader(copy)) as log:
        result = verify(log)
        models = {logged.decision.model for v in log.versions() for logged in log.decisions(v.position)}
    assert result.first is None, result.first and result.first.what
    assert result.equal == result.decisions == expected
    assert len(models) >= 3
    with closing(open_log(copy)) as log:
        assert verify(log).equal == expected


@pytest.mark.parametrize("copy", CHAINED, indirect=True)
def test_a_chained_log_of_an_earlier_build_is_undamaged(copy: Path) -> None:
    """Its checksums were made by the code that wrote it: another digest, and a right log would count as damaged."""
    with closing(open_log(copy)) as log:
        assert log.chain_start() is None
        assert not log.check(lambda _: None)


@pytest.mark.parametrize("copy", [name for name in DECISIONS if name not in CHAINED], indirect=True)
def test_an_upgraded_log_says_from_where_on_its_checksums_are_as_old_as_its_entries(copy: Path) -> None:
    """What was changed before the upgrade cannot be seen any more; that must not look like a proof."""
    with closing(open_log(copy)) as log:
        later = log.chain_start()
        assert later is not None
        assert not log.check(lambda _: None)
    found = CliRunner().invoke(main, ["verify", str(copy)])
    assert found.exit_code == 0, found.output
    assert f"entries up to position {later.position} got their checksums at an upgrade" in found.output
    assert found.output.splitlines()[-1] == f"{DECISIONS[copy.stem]} of {DECISIONS[copy.stem]} decisions equal"
