"""The leader's process of one host of several: it leads the log, or stands by until whoever leads is gone, while the
workers of its host serve. Standing by it learns its share of the experiments. Called by `supervise.py`.

Which host leads is said by the log's lease alone. A leader that finds that another one has led since ends, and the
process in its place stands by: so nothing of what it knew outlives its time.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time

from decider.errors import LogError, LogLocked
from decider.log.protocol import Hosts, LeaderNews, Lease
from decider.server.board import Board, LeaderState
from decider.server.child import LIVES, READY, STARTS, Say
from decider.server.serve import LeaderServer
from decider.server.settings import Settings

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.25
"""Seconds between two looks whether somebody leads."""

MIRROR_INTERVAL = 1.0
"""Seconds between two looks at what the leader says."""

SILENT = 10.0
"""Seconds after which /readyz says that the leader is silent."""


class HostLeader(LeaderServer):
    """See above. say: tells the parent how it stands by, again and again, and when it begins to lead."""

    def __init__(self, settings: Settings, *, listening: socket.socket, board: Board, say: Say) -> None:
        super().__init__(settings, listening=listening, board=board)
        self._tell_parent = say
        self._is_led = False
        self._address = f"{socket.gethostname()} (HTTP {settings.http}, process {os.getpid()})"
        self._lease: Lease | None = None
        self._mirror_due = 0.0
        self._said = ""

    def _take_lease(self) -> Lease | None:
        hosts = self._process.log.hosts
        assert hosts is not None, "only a log of several hosts has such a leader"
        try:
            return self._wait_for_lease(hosts)
        finally:
            self._leading.end_beside()

    def _wait_for_lease(self, hosts: Hosts) -> Lease | None:
        while not self._process.stopping.is_set():
            try:
                if not hosts.is_led():
                    self._lease = lease = self._process.log.lease()
                    self._tell_parent(STARTS)
                    logger.info("leads now")
                    return lease
                self._stand_by(hosts)
            except LogLocked:
                self._mirror_due = 0.0  # somebody was faster
            except LogError as error:
                self._say(str(error), error=True)
            if self._leading.goes_on_beside():
                self._tell_parent(READY if self._is_led else LIVES)  # beside another leader workers may serve
            self._process.stopping.wait(LOOK_INTERVAL)
        return None

    def _stand_by(self, hosts: Hosts) -> None:
        if time.monotonic() < self._mirror_due:
            return
        self._mirror_due = time.monotonic() + MIRROR_INTERVAL
        news = hosts.news()
        self._say(_in_words(news))
        if news is not None:
            self._leading.stand_by(LeaderState.of(json.loads(news.content)))
            self._leading.learn_beside()
            self._is_led = True

    def _say(self, text: str, *, error: bool = False) -> None:
        self._leading.say_phase(text)
        if self._said != text:
            self._said = text
            logger.log(logging.ERROR if error else logging.INFO, "%s", text)

    def _begin(self) -> None:
        super()._begin()
        self._tell_hosts()

    def _tell_crew_once(self) -> None:
        super()._tell_crew_once()
        self._process.try_to(self._tell_hosts)

    def _tell_hosts(self) -> None:
        hosts = self._process.log.hosts
        if hosts is not None:
            hosts.say(self._address, json.dumps(self._leading.state().content()))

    def wait(self, seconds: float) -> bool:
        """As LeaderServer's. Raises LogLocked where another host leads now."""
        if self._lease is not None and self._lease.replaced:
            raise LogLocked(f"{self._process.log.name}: another host leads since this one has lost its connection")
        return super().wait(seconds)


def _in_words(news: LeaderNews | None) -> str:
    if news is None:
        return "stands by; the leader, on another host, learns what is to serve"
    silent = f", and says nothing since {news.age:.0f} s" if news.age > SILENT else ""
    return f"stands by; {news.address} leads{silent}"
