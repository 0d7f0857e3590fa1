"""Five hosts: two with servers, two with PostgreSQL, one with clients; all of it gone at the end. Called by
`__main__.py`.

Between servers and PostgreSQL, and between clients and servers, stands a proxy on the host of whoever connects.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from simulator.studies.faults.clients import ASK_AGAIN
from simulator.studies.faults.databases import DATABASE, OWNER, PORT, Databases, databases, wait_until
from simulator.studies.faults.groups import GRPC_PORT, Group
from simulator.studies.faults.hosts import Host, hosts, private_folder
from simulator.studies.faults.ledger import HOME
from simulator.studies.faults.watch import Answers, Watch

SERVERS = ("one", "two")
"""Names of the hosts with servers."""

FIRST_PORT = 6001
"""Of a proxy's links; the others follow."""

WINDOW = 2
"""Seconds, of rewards: decisions are learned soon, so that a leader always has something to publish."""

ACTIONS = 4
RECOVERY = 60.0
"""Seconds after the end of a fault in which everything must work again."""

FEW = 5
"""Answers of each host that say that it serves again."""

EXPERIMENT = f"""id = "{HOME}"
actions = [{", ".join(f'{{ id = "action-{number}" }}' for number in range(ACTIONS))}]

[reward]
window = "{WINDOW}s"
weights = {{ click = 1.0 }}
"""


class Proxy:
    """The process on a host. places: by link, where it leads to."""

    def __init__(self, host: Host, places: Mapping[str, tuple[str, int]], folder: Path, seed: int) -> None:
        self.ports = {link: FIRST_PORT + number for number, link in enumerate(places)}
        links = {link: {"port": self.ports[link], "to": to} for link, to in places.items()}
        command = [sys.executable, "-m", "simulator.studies.faults.proxy", json.dumps(links), str(seed)]
        output = folder / f"{host.name}-proxy.output"
        self._process = host.start(command, output, stdin=subprocess.PIPE)
        wait_until(lambda: "ready" in output.read_text(), f"the proxy does not start: see {output}")

    def do(self, link: str, what: str, seconds: float = 0.0) -> None:
        """See proxy.py."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"link": link, "do": what, "seconds": seconds}) + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """It ends."""
        _end(self._process)


class Clients:
    """Their process, and what they were answered so far."""

    def __init__(self, host: Host, targets: Mapping[str, str], folder: Path, *, rate: float, seed: int) -> None:
        self.path = folder / "answers.jsonl"
        self.path.touch()
        command = [sys.executable, "-m", "simulator.studies.faults.clients", json.dumps(targets), str(rate), str(seed)]
        self._process = host.start([*command, str(self.path)], folder / "clients.output", stdin=subprocess.PIPE)
        self.answers = Answers(self.path, [*targets])

    def read(self) -> Answers:
        """As far as they are now."""
        self.answers.read(lambda code: grpc.StatusCode[code] in ASK_AGAIN)
        return self.answers

    def finish(self) -> None:
        """No new calls; wait for the answers to those under way. Raises subprocess.TimeoutExpired."""
        self._process.communicate("end\n", timeout=120)
        self.read()

    def kill(self) -> None:
        """Whatever it does."""
        _end(self._process)
        self.answers.close()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


@dataclass(frozen=True, slots=True)
class Stage:
    """servers, proxies: by the name of a host with servers; proxies also of `clients`. url: of the log, for whoever is
    on this machine."""

    servers: Mapping[str, Group]
    databases: Databases
    proxies: Mapping[str, Proxy]
    clients: Clients
    watch: Watch

    @property
    def url(self) -> str:
        """Of the log, for a reader outside of all hosts."""
        return f"postgresql:///{DATABASE}?host={self.databases.writer.folder}&user={OWNER}"

    def leading(self) -> str:
        """The name of the host whose leader has the lease. Raises NoHosts."""
        wait_until(lambda: self._holder() is not None, "nobody leads", RECOVERY)
        return self._holder() or SERVERS[0]

    def _holder(self) -> str | None:
        return next(
            (name for name, group in self.servers.items() if group.host.address == self.watch.last.holder), None
        )

    def recover(self, since: float) -> None:
        """Wait until both hosts answer, somebody leads and publishes, and the standby follows; what has ended is
        started. since: the end of a fault. Raises NoHosts, which says what does not work."""
        for condition, otherwise in (
            (self._is_followed, "the standby does not follow"),
            (lambda: self._answer(since), "a host does not answer"),
            (lambda: self._holder() is not None and self.watch.last.at > since, "nobody leads"),
            (lambda: self._publishes(since), "nobody publishes"),
        ):
            wait_until(condition, f"{otherwise} within {RECOVERY:g} s", RECOVERY)

    def _is_followed(self) -> bool:
        return self.databases.writer.is_followed()

    def _answer(self, since: float) -> bool:
        self._revive()
        answers = self.clients.read()
        return all(answers.count(name, since) >= FEW for name in self.servers)

    def _publishes(self, since: float) -> bool:
        self._revive()
        return self.watch.last.published > since

    def _revive(self) -> None:
        for group in self.servers.values():
            group.revive()


@contextmanager
def staged(folder: Path, *, rate: float, seed: int, tell: Callable[[str], None]) -> Iterator[Stage]:
    """Everything runs, and clients are answered. rate: decisions a second, in all. Raises NoHosts."""
    with ExitStack() as opened:
        private = opened.enter_context(private_folder())
        tell("hosts")
        one, two, first, second, people = opened.enter_context(hosts(*SERVERS, "first", "second", "clients"))
        tell("PostgreSQL and its standby")
        both = opened.enter_context(databases(first, second, private))
        experiment = folder / "experiment.toml"
        experiment.write_text(EXPERIMENT, encoding="utf-8")
        proxies = {
            host.name: Proxy(host, {"first": (first.address, PORT), "second": (second.address, PORT)}, folder, seed)
            for host in (one, two)
        }
        proxies["clients"] = Proxy(people, {host.name: (host.address, GRPC_PORT) for host in (one, two)}, folder, seed)
        for proxy in proxies.values():
            opened.callback(proxy.stop)
        groups = {host.name: Group(host, folder, _options(proxies[host.name], experiment)) for host in (one, two)}
        tell("servers")
        for group in groups.values():
            opened.callback(group.kill)
            group.start()
        for group in groups.values():
            group.wait_until_serving()
        targets = {name: f"127.0.0.1:{port}" for name, port in proxies["clients"].ports.items()}
        clients = Clients(people, targets, folder, rate=rate, seed=seed)
        opened.callback(clients.kill)
        watch = Watch(lambda: both.writer)
        opened.callback(watch.stop)
        stage = Stage(groups, both, proxies, clients, watch)
        stage.recover(time.time())
        yield stage


def _options(proxy: Proxy, experiment: Path) -> tuple[str, ...]:
    places = ",".join(f"127.0.0.1:{port}" for port in proxy.ports.values())
    url = f"postgresql://{OWNER}@{places}/{DATABASE}?target_session_attrs=read-write"
    return ("--db", url, "--experiments", str(experiment), "--learn-interval", "0.5")
