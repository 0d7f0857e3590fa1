"""`make ray-hosts`: does a sweep on a Ray cluster of two hosts, started from a third, give the figures of one machine?

Each host is a network namespace. Prints which hosts have worked, and whether the JSON is equal. Needs root and Ray.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from simulator.studies.faults.databases import wait_until
from simulator.studies.faults.hosts import Host, NoHosts, hosts, private_folder

GCS, CLIENTS = 6379, 10001
"""Ports of the head: for its nodes, and for `ray://`."""

ENVIRONMENT = ("env", "RAY_USAGE_STATS_ENABLED=0", "RAY_AUTH_MODE=disabled")
"""Nobody else reaches these hosts."""

PROGRAM = [*ENVIRONMENT, sys.executable]
RAY = [*PROGRAM, "-m", "ray.scripts.scripts"]
MEMORY = ("--num-cpus", "1", "--object-store-memory", "100000000")
TRIES = 5
SWEEP = ("compare", "storefront", "--policies", "default", "uniform", "epsilon_greedy")

_WHO = """
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=1)
def where():
    time.sleep(0.5)
    return ray.util.get_node_ip_address()
print(*sorted(set(ray.get([where.remote() for _ in range(8)]))))
"""


@contextmanager
def cluster(head: Host, node: Host, folder: Path) -> Iterator[str]:
    """Ray on two hosts; its address. Raises NoHosts."""
    with ExitStack() as opened:
        where = ["--node-ip-address", head.address, "--port", f"{GCS}", "--ray-client-server-port", f"{CLIENTS}"]
        first = ["start", "--head", "--block", "--include-dashboard", "false", "--temp-dir", f"{folder}/ray", *where]
        second = ["start", "--block", "--address", f"{head.address}:{GCS}", "--node-ip-address", node.address]
        for host, options in ((head, first), (node, second)):
            output = folder / f"{host.name}.output"
            process = host.start([*RAY, *options, *MEMORY], output)
            opened.callback(process.kill)
            wait_until(partial(_has_started, output), f"Ray does not start: see {output}")
        yield f"ray://{head.address}:{CLIENTS}"


def _has_started(output: Path) -> bool:
    return "Ray runtime started" in output.read_text(encoding="utf-8")


def workers(user: Host, address: str) -> list[str]:
    """Addresses of the hosts that work. Raises NoHosts. As `--on` does, it asks again where the process dies that Ray
    starts for a client."""
    for _ in range(TRIES - 1):
        with suppress(NoHosts):
            return _run(user, [*PROGRAM, "-c", _WHO, address]).split()
    return _run(user, [*PROGRAM, "-c", _WHO, address]).split()


def compare(user: Host, folder: Path, *options: str) -> dict[str, Any]:
    """What `simulator compare` writes as JSON, without how long it took. Raises NoHosts."""
    folder.mkdir()
    result = folder / "result.json"
    _run(user, [*PROGRAM, "-m", "simulator.cli", *SWEEP, "--out", f"{folder}", "--json", f"{result}", *options])
    made: dict[str, Any] = json.loads(result.read_text())
    del made["seconds"]
    return made


def _run(user: Host, command: list[str]) -> str:
    done = user.run(command)
    if done.returncode:
        raise NoHosts(done.stderr[-2000:])
    return done.stdout


@click.command()
@click.option("--rounds", type=int, default=2_000, show_default=True, help="Visits of each of 3 policies, by seed.")
@click.option("--seeds", type=int, default=4, show_default=True, help="How many.")
def main(rounds: int, seeds: int) -> None:
    """Exit 1 if one host alone has worked, or if a figure differs."""
    console, options = Console(), ["--rounds", f"{rounds}", "--seeds", f"{seeds}"]
    try:
        with private_folder() as folder, hosts("head", "node", "user") as (head, node, user):
            with cluster(head, node, folder) as address:
                time.sleep(1.0)
                working = workers(user, address)
                console.print(f"{address}: {' and '.join(working)} work")
                there = compare(user, folder / "there", *options, "--on", address)
            here = compare(user, folder / "here", *options)
    except NoHosts as error:
        raise click.ClickException(str(error)) from error
    console.print("the JSON is equal" if here == there else "WRONG: the JSON differs")
    sys.exit(0 if here == there and len(working) == len((head, node)) else 1)


if __name__ == "__main__":
    main()
