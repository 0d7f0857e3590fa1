"""Tests that CI may skip, each with its reason: `--known-skips-only` fails where another one is skipped, or more are.

A pytest plugin, loaded by `conftest.py`; `.ci/run` gives the option. Data sets are not on the list: who can install the
packages can fetch them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class KnownSkip:
    """reason: how pytest's reason begins. most: as many tests may be skipped for it. why: what CI would need."""

    reason: str
    most: int
    why: str


KNOWN = (
    KnownSkip("there is no /usr/bin/prometheus-alertmanager", 4, "Only root may install it: see .ci/run."),
    KnownSkip("there is no /usr/bin/prometheus", 5, "Only root may install it: see .ci/run."),
    KnownSkip("there is no /usr/bin/promtool", 42, "Comes with Prometheus."),
    KnownSkip("there is no /usr/bin/amtool", 1, "Comes with the Alertmanager."),
    KnownSkip("there is no /usr/bin/systemd-analyze", 1, "Comes with systemd, which containers lack."),
    KnownSkip("there is no PostgreSQL on this machine", 300, "Only root may install it: see .ci/run."),
    KnownSkip("no IPv6 on this machine", 3, "Some containers have none."),
    KnownSkip("no Chromium on the PATH", 53, "Only root may install it: see .ci/run."),
    KnownSkip("no Node.js on the PATH", 33, "Only root may install it."),
    KnownSkip("the rivals' environment is not there", 5, "Some 500 MB that nothing else needs: make side-by-side."),
    KnownSkip("the bake-off's environment is not there", 1, "One rival is built by a C++ compiler: make bakeoff."),
    KnownSkip("Ray is not installed", 25, "250 MB that only clusters need: .ci/run installs it where it can."),
    KnownSkip("the npm packages are not installed", 60, "230 MB that only tests need: .ci/run tries to install it."),
    KnownSkip("the stock Python providers are not installed", 20, "As the npm packages: make frontends."),
    KnownSkip("a log in memory has one process", 1, "No second one can open it."),
    KnownSkip("only root may mount", 2, "A disk that is really full is a small file system."),
    KnownSkip("network namespaces and mounts need root", 2, "Hosts of one machine are made by root alone."),
    KnownSkip("`ip ", 2, "Containers without CAP_NET_ADMIN or CAP_SYS_ADMIN."),
    KnownSkip("the program `ip` is missing", 2, "Only root may install it."),
    KnownSkip("mount does not work here", 4, "Containers without CAP_SYS_ADMIN."),
)


def unknown_skips(reasons: Iterable[str]) -> list[str]:
    """A line for each reason that is not known, and for each known one that came more often than it may.

    >>> unknown_skips(["only root may mount a small file system"])
    []
    >>> unknown_skips(["only root may mount a small file system"] * 3)
    ['3 skipped, at most 2 may be: only root may mount a small file system']
    >>> unknown_skips(["no time"])
    ['1 skipped, at most 0 may be: no time']
    """
    most = {known.reason: known.most for known in KNOWN}
    skipped: Counter[str] = Counter()
    example: dict[str, str] = {}
    for reason in reasons:
        name = next((known for known in most if reason.startswith(known)), reason)
        skipped[name] += 1
        example[name] = reason
    return [
        f"{count} skipped, at most {most.get(name, 0)} may be: {example[name]}"
        for name, count in sorted(skipped.items())
        if count > most.get(name, 0)
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption(
        "--known-skips-only",
        action="store_true",
        help="fail if a test is skipped that tests/known_skips.py does not list",
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run with an unknown skip has failed."""
    if session.exitstatus == pytest.ExitCode.OK and _unknown(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Which ones they were."""
    if lines := _unknown(config):
        terminalreporter.section("skips that tests/known_skips.py does not list", red=True)
        terminalreporter.write("".join(f"{line}\n" for line in lines))


def _unknown(config: pytest.Config) -> list[str]:
    """None in a worker of pytest-xdist: it has no terminal, and the process that started it counts."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not config.getoption("known_skips_only"):
        return []
    reports = reporter.stats.get("skipped", [])
    return unknown_skips(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
