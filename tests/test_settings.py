"""The settings of `decider serve`: what is no value is refused at start, and not served with."""

from __future__ import annotations

import click
import pytest

from decider.server.archive_command import archive_command
from decider.server.command import serve
from decider.server.settings import table

NUMBERS = [name for name, default, _ in table() if type(default) in (int, float) or name == "--core"]
FLOATS = [name for name, default, _ in table() if isinstance(default, float)]


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e999", ""])
@pytest.mark.parametrize("name", NUMBERS)
def test_no_setting_is_a_number_that_is_none(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of nan is never reached, an interval of nan never over: nothing would say why."""
    assert name in refused(serve, f"{name}={text}")
    if text:  # an empty variable is none
        monkeypatch.setenv(f"DECIDER_{name[2:].replace('-', '_').upper()}", text)
        assert name in refused(serve)


def refused(command: click.Command, *arguments: str) -> str:
    """How a command refuses its arguments; it is not run."""
    with pytest.raises(click.BadParameter) as caught:
        command.make_context("command", list(arguments))
    return caught.value.format_message()


@pytest.mark.parametrize("name", FLOATS)
def test_a_number_in_the_range_is_a_setting(name: str) -> None:
    """What is refused must not be everything."""
    assert serve.make_context("serve", [f"{name}=1.5"]).params[name[2:].replace("-", "_")] == 1.5


@pytest.mark.parametrize("age", ["nan", "inf", "1e3d", "9" * 400 + "d", "999999999999d", "-1d"])
def test_an_age_that_is_none_is_refused(age: str) -> None:
    """In plain words, and before anything is archived."""
    assert "--before" in refused(archive_command, "--db=log.db", f"--before={age}", "dest")
    assert "--remember" in refused(archive_command, "--db=log.db", "--before=30d", f"--remember={age}", "dest")
    assert "--archive-after" in refused(serve, f"--archive-after={age}")
