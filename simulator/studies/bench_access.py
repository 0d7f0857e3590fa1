"""What it costs a Decide that the server knows who calls: tokens, TLS and both. The third part of `make bench`.

One server for each way to call, and a bare grpcio echo for each, get the same requests in short turns. What counts is
the ratio to the server without tokens and TLS in the same round, so that a machine that is slow for a while slows both;
all of them are started several times, since two processes of one program differ by a percent or two. The echo over TLS,
or with a token that nobody reads, says what of it is gRPC's own. Nothing is learned: a Decide is at its cheapest, and
the ratio at its largest. Linux only.
"""

from __future__ import annotations

import math
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from decider.channel import Credentials
from decider.server.limits import Limit
from simulator.studies.bench import (
    DIFFERENT,
    FROZEN,
    METHOD,
    MICRO,
    WARM,
    check_answers,
    check_statuses,
    serving_echo,
)
from simulator.studies.certificates import Pair, authority, issue
from simulator.studies.load import Frames, Load, frames, play_on
from simulator.studies.prepared import ID, requests, storefront_visitor, write_log
from simulator.studies.served import LOAD_CORE, SERVER_CORE, cpu_seconds, serving

ACTIONS = 10
IN_FLIGHT = 32

MOST = 1.1
"""Of a Decide without tokens and TLS, in processor time: what each way to call may cost at most."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to call. certificate: callers show their own, which needs `tls`."""

    name: str
    token: bool = False
    tls: bool = False
    certificate: bool = False


PLAIN = Way("neither tokens nor TLS")
WAYS: Sequence[Way] = (
    PLAIN,
    Way("`--tokens`", token=True),
    Way("TLS", tls=True),
    Way("TLS and `--tokens`", tls=True, token=True),
    Way("TLS, callers show certificates", tls=True, certificate=True),
)


@dataclass(frozen=True, slots=True)
class Round:
    """Microseconds of the server's processor for a call: of ours, and of the echo's."""

    ours: float
    echo: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the rounds. low, high: between them the median of endless rounds lies, with a confidence of 95 %. quartiles:
    half of the rounds lie between them."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]

    def __str__(self) -> str:
        first, third = self.quartiles
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}; rounds {first:.2f} to {third:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Of at least two values. The interval is that of the sign test, whatever their distribution.

    >>> str(spread([1.0, 1.5, 2.0]))
    '1.500 (1.000 to 2.000; rounds 1.25 to 1.75)'
    """
    rising, count = sorted(values), len(values)
    beyond = max(0, math.floor((count - 1.96 * math.sqrt(count)) / 2) - 1)
    first, median, third = statistics.quantiles(rising, n=4, method="inclusive")
    return Spread(median, rising[beyond], rising[-1 - beyond], (first, third))


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a way to call. cpu: microseconds for a Decide. ratio: to a plain one. echo_more: microseconds by which an echo
    called this way takes longer than a plain one. own_ratio: the ratio without those."""

    cpu: float
    ratio: Spread
    echo_more: float
    own_ratio: Spread


def cost(way: Sequence[Round], plain: Sequence[Round]) -> Cost:
    """Of the same rounds.

    >>> found = cost([Round(ours=120.0, echo=60.0)] * 2, [Round(ours=100.0, echo=50.0)] * 2)
    >>> found.ratio.median, found.echo_more, found.own_ratio.median
    (1.2, 10.0, 1.1)
    """
    pairs = [*zip(way, plain, strict=True)]
    return Cost(
        cpu=statistics.median(one.ours for one in way),
        ratio=spread([one.ours / off.ours for one, off in pairs]),
        echo_more=statistics.median(one.echo - off.echo for one, off in pairs),
        own_ratio=spread([(one.ours - one.echo + off.echo) / off.ours for one, off in pairs]),
    )


@dataclass(frozen=True, slots=True)
class Papers:
    """What servers and callers show. tokens: the file of the server. token: the caller's."""

    ca: Path
    server: Pair
    caller: Pair
    tokens: Path
    token: str

    def options(self, way: Way) -> Sequence[str]:
        """Of `decider serve`."""
        tls = ("--tls-cert", str(self.server.cert), "--tls-key", str(self.server.key)) if way.tls else ()
        client_ca = ("--tls-client-ca", str(self.ca)) if way.certificate else ()
        return (*tls, *client_ca, *(("--tokens", str(self.tokens)) if way.token else ()))

    def files(self, way: Way) -> Sequence[Path]:
        """Of the echo."""
        return [self.server.cert, self.server.key, *([self.ca] if way.certificate else [])] if way.tls else []

    def credentials(self, way: Way) -> Credentials:
        """Of a caller."""
        own = self.caller if way.certificate else None
        return Credentials(
            token=self.token if way.token else "",
            ca=self.ca if way.tls else None,
            cert=own.cert if own else None,
            key=own.key if own else None,
        )

    def context(self, way: Way) -> ssl.SSLContext | None:
        """Of the load."""
        if not way.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(["h2"])
        if way.certificate:
            context.load_cert_chain(self.caller.cert, self.caller.key)
        return context


def papers(folder: Path) -> Papers:
    """New ones."""
    ca = authority(folder, "authority")
    own, tokens = folder / "token", folder / "tokens.toml"
    command = [sys.executable, "-m", "decider.cli", "token", "bench", "--role", "decide", "--experiment", ID]
    made = subprocess.run([*command, "--token-file", str(own)], check=True, capture_output=True, timeout=60)
    tokens.write_bytes(made.stdout)
    return Papers(ca.cert, issue(folder, "server", ca), issue(folder, "caller", ca), tokens, own.read_text().strip())


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server, and an open connection to it: clients keep theirs, too, so that no handshake is measured."""

    pid: int
    load: Load
    calls: Sequence[Frames]

    def measure(self, seconds: float) -> float:
        """Microseconds of the server's processor for a call. Raises CallFailed, NotAnswered and ConnectionError."""
        before = cpu_seconds(self.pid)
        played = play_on(self.load, self.calls, in_flight=IN_FLIGHT, seconds=seconds)
        spent = cpu_seconds(self.pid) - before
        check_statuses(played)
        return MICRO * spent / played.calls


@contextmanager
def contestants(way: Way, shown: Papers, folder: Path, *, connections: int) -> Iterator[tuple[Contestant, Contestant]]:
    """(ours, the echo), warm."""
    db = folder / f"{time.monotonic_ns()}.db"
    write_log(db, storefront_visitor, actions=ACTIONS, window=FROZEN, trickle=0)
    asked = requests(storefront_visitor, actions=ACTIONS, count=DIFFERENT)
    credentials, tls = shown.credentials(way), shown.context(way)
    calls = [frames(METHOD + "Decide", one.SerializeToString(), token=credentials.token) for one in asked]
    with (
        serving(db, *shown.options(way), cores=SERVER_CORE) as server,
        serving_echo(SERVER_CORE, folder, *shown.files(way), credentials=credentials) as (echo, echo_port),
    ):
        check_answers(server.port, "Decide", asked[0], credentials)
        with (
            Load(server.port, connections=connections, tls=tls) as load,
            Load(echo_port, connections=connections, tls=tls) as echo_load,
        ):
            both = Contestant(server.pid, load, calls), Contestant(echo, echo_load, calls)
            for one in both:
                one.measure(WARM)
            yield both


def measure(
    ways: Sequence[Way], folder: Path, *, seconds: float, rounds: int, connections: int = 1
) -> Mapping[Way, Sequence[Round]]:
    """All of them, in turns; every other round from the last to the first."""
    shown = papers(folder)
    with ExitStack() as opened:
        pairs = {way: opened.enter_context(contestants(way, shown, folder, connections=connections)) for way in ways}
        found: dict[Way, list[Round]] = {way: [] for way in ways}
        for number in range(rounds):
            for way in ways if number % 2 else reversed(ways):
                ours, echo = pairs[way]
                found[way].append(Round(ours.measure(seconds), echo.measure(seconds)))
    return found


def limits(*, times: int) -> float:
    """Microseconds that the limits of calls take for a call; they cannot be turned off."""
    limit = Limit("calls", most=1_000, most_of_one=500)

    def one() -> None:
        limit.enter("ipv4:127.0.0.1")
        limit.leave("ipv4:127.0.0.1")

    return MICRO * min(timeit.repeat(one, number=times, repeat=5)) / times


def heading() -> str:
    """The first two lines of the table, in Markdown."""
    return (
        "| who may call | Decide, cpu us | ratio (95 %; half of the rounds) | an echo takes more, us "
        "| ratio without that | target |\n|---|--:|--:|--:|--:|---|"
    )


def line(way: Way, of: Cost) -> str:
    """A row of the table."""
    if way is PLAIN:
        return f"| {way.name} | {of.cpu:,.0f} | 1 |  |  |  |"
    target = f"ratio <= {MOST:.2f}: {'yes' if of.ratio.median <= MOST else 'NO'}"
    return f"| {way.name} | {of.cpu:,.0f} | {of.ratio} | {of.echo_more:+.1f} | {of.own_ratio} | {target} |"


@click.command()
@click.option("--seconds", default=0.05, show_default=True, help="Seconds of each turn.")
@click.option("--rounds", default=100, show_default=True, help="Rounds of a start; in each, every server has a turn.")
@click.option("--starts", default=3, show_default=True, help="How often all servers are started.")
@click.option("--connections", default=1, show_default=True, help="Connections of each load.")
@click.option("--quick", is_flag=True, help="One start and two rounds: is everything there?")
def main(seconds: float, rounds: int, starts: int, connections: int, quick: bool) -> None:
    """What tokens and TLS cost on Decide, as processor time with and without them, in turns."""
    rounds, starts = (2, 1) if quick else (rounds, starts)
    os.sched_setaffinity(0, LOAD_CORE)
    click.echo(f"{starts} starts, {rounds} rounds of {seconds:g} s for each, medians\n\n{heading()}")
    found: dict[Way, list[Round]] = {way: [] for way in WAYS}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for _ in progress.track(range(starts), description="starts"):
            with tempfile.TemporaryDirectory() as folder:
                measured = measure(WAYS, Path(folder), seconds=seconds, rounds=rounds, connections=connections)
                for way in WAYS:
                    found[way] += measured[way]
    costs = {way: cost(found[way], found[PLAIN]) for way in WAYS}
    for way, of in costs.items():
        click.echo(line(way, of))
    taken = limits(times=20_000)
    share = 100 * taken / costs[PLAIN].cpu
    click.echo(f"\nlimits of calls, always on: {taken:.2f} us for a call, {share:.1f} % of a Decide")


if __name__ == "__main__":
    main()
