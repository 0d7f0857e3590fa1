"""The faults: each does something to the hosts, waits, and undoes it. What it did is its answer. Called by
`__main__.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from simulator.studies.faults.databases import Connection
from simulator.studies.faults.hosts import Host, NoHosts
from simulator.studies.faults.proxy import CUT, DELAY, FLOW, FORGET, STALL
from simulator.studies.faults.stage import SERVERS, Stage

Do = Callable[[Stage, Random, float], str]
"""Given the hosts, chance, and for how many seconds it lasts; says what it did. Raises NoHosts."""


@dataclass(frozen=True, slots=True)
class Kind:
    """takes_leader: another leader must have the lease afterwards, and within the bound."""

    name: str
    do: Do
    takes_leader: bool = False


def kill_worker(stage: Stage, random: Random, hold: float) -> str:
    """SIGKILL."""
    host, worker = random.choice(SERVERS), f"worker {random.choice((1, 2))}"
    killed = stage.servers[host].kill_child(worker)
    time.sleep(hold / 4)
    return f"{worker} on {host}" if killed else f"{worker} on {host} was not there"


def kill_leader(stage: Stage, _: Random, hold: float) -> str:
    """SIGKILL to the process that has the lease."""
    host = stage.leading()
    if not stage.servers[host].kill_child("leader"):
        raise NoHosts(f"{host} leads, and has no leader")
    time.sleep(hold / 4)
    return f"leader on {host}"


def kill_group(stage: Stage, _: Random, hold: float) -> str:
    """SIGKILL to a parent, its leader and its workers at once; started again by whoever keeps services."""
    host = stage.leading()
    stage.servers[host].kill()
    time.sleep(hold / 2)
    stage.servers[host].start()
    return f"all of {host}, which led"


def kill_postgres(stage: Stage, _: Random, hold: float) -> str:
    """SIGKILL to all of its processes, and a start."""
    writer = stage.databases.writer
    writer.kill()
    time.sleep(hold / 2)
    writer.start()
    return f"PostgreSQL on {writer.host.name}, started after {hold / 2:.1f} s"


def cut_off_leader(stage: Stage, _: Random, hold: float) -> str:
    """The host whose leader has the lease: it can neither publish nor be called."""
    name = stage.leading()
    _cut_off(stage.servers[name].host, max(hold, 6.0))
    return f"{name}, which led, for {max(hold, 6.0):.1f} s"


def cut_off_other(stage: Stage, _: Random, hold: float) -> str:
    """The host with servers that does not lead."""
    leads = stage.leading()
    name = next(one for one in SERVERS if one != leads)
    _cut_off(stage.servers[name].host, hold)
    return f"{name}, which did not lead, for {hold:.1f} s"


def cut_off_postgres(stage: Stage, _: Random, hold: float) -> str:
    """The host of PostgreSQL, for all: also for its standby."""
    host = stage.databases.writer.host
    _cut_off(host, hold)
    return f"PostgreSQL on {host.name} for {hold:.1f} s"


def _cut_off(host: Host, hold: float) -> None:
    host.cut_off()
    try:
        time.sleep(hold)
    finally:
        host.join_again()


def _on_a_line(what: str, words: str) -> Do:
    """Between a host with servers and PostgreSQL, or between clients and such a host."""

    def do(stage: Stage, random: Random, hold: float) -> str:
        host = random.choice(SERVERS)
        inside = random.random() < 0.6
        lines = [(host, link) for link in stage.proxies[host].ports] if inside else [("clients", host)]
        seconds = random.uniform(0.02, 0.2)
        for at, link in lines:
            stage.proxies[at].do(link, what, seconds)
        try:
            time.sleep(hold)
        finally:
            for at, link in lines:
                stage.proxies[at].do(link, FLOW)
        where = f"{host} and PostgreSQL" if inside else f"clients and {host}"
        return f"{words.format(ms=1000 * seconds)} between {where} for {hold:.1f} s"

    return do


def promote_after_death(stage: Stage, _: Random, hold: float) -> str:
    """PostgreSQL is gone for good; the standby writes, and the other one is made its standby."""
    dead = stage.databases.writer
    dead.kill()
    time.sleep(hold / 4)
    stage.databases.fail_over()
    time.sleep(hold / 2)
    stage.databases.follow_again()
    return f"PostgreSQL on {dead.host.name} killed, the standby promoted after {hold / 4:.1f} s"


def promote_after_cut(stage: Stage, _: Random, hold: float) -> str:
    """The host of PostgreSQL is cut off and the standby promoted; the old one is shut off before it is joined again:
    it would not answer any commit, since its standby has gone, but it would take connections that write."""
    old = stage.databases.writer
    old.host.cut_off()
    try:
        time.sleep(hold / 4)
        stage.databases.fail_over()
        time.sleep(hold / 2)
        old.kill()
    finally:
        old.host.join_again()
    stage.databases.follow_again()
    return f"PostgreSQL on {old.host.name} cut off, the standby promoted after {hold / 4:.1f} s"


def take_connections(stage: Stage, _: Random, hold: float) -> str:
    """Those of the servers are ended, and somebody else has all of them."""
    taken: list[Connection] = []
    end = time.monotonic() + hold
    try:
        while time.monotonic() < end:
            stage.databases.writer.take_connections(taken)
            time.sleep(0.1)
    finally:
        for one in taken:
            one.close()
    return f"all {len(taken)} connections taken for {hold:.1f} s"


def fill_disk(stage: Stage, _: Random, hold: float) -> str:
    """No byte more for PostgreSQL; it is started again where that has ended it."""
    writer = stage.databases.writer
    writer.fill_disk()
    try:
        time.sleep(hold)
    finally:
        writer.free_disk()
    ended = writer.process is not None and writer.process.poll() is not None
    writer.start()
    return f"disk of {writer.host.name} full for {hold:.1f} s{', PostgreSQL ended' if ended else ''}"


KINDS: Sequence[Kind] = (
    Kind("a worker killed", kill_worker),
    Kind("the leader killed", kill_leader, takes_leader=True),
    Kind("all of the leader's host killed", kill_group, takes_leader=True),
    Kind("PostgreSQL killed", kill_postgres),
    Kind("the leader's host cut off", cut_off_leader, takes_leader=True),
    Kind("the other host cut off", cut_off_other),
    Kind("PostgreSQL's host cut off", cut_off_postgres),
    Kind("delay", _on_a_line(DELAY, "{ms:.0f} ms more each way")),
    Kind("stall", _on_a_line(STALL, "nothing arrives")),
    Kind("cuts within messages", _on_a_line(CUT, "connections are cut within messages")),
    Kind("half-open connections", _on_a_line(FORGET, "open connections are forgotten")),
    Kind("standby promoted, the other dead", promote_after_death),
    Kind("standby promoted, the other cut off", promote_after_cut),
    Kind("no connections left", take_connections),
    Kind("no disk left", fill_disk),
)


def draw(count: int, random: Random, kinds: Sequence[Kind] = KINDS) -> list[Kind]:
    """So many, in an order of chance: each kind once before any comes again."""
    drawn: list[Kind] = []
    while len(drawn) < count:
        deck = [*kinds]
        random.shuffle(deck)
        drawn += deck
    return drawn[:count]
