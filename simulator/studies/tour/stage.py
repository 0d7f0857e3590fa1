"""Where the scenes of the tour play: a real server with an empty log, a client, and what is printed and compared."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from decider.client import Client
from decider.experiment.schema import parse_toml
from decider.log.open import open_reader
from decider.log.protocol import SealedDecision
from decider.types import Decision, DecisionId, ExperimentId, Time
from decider.v1 import decider_service_pb2 as pb
from simulator.drive.server import OwnServer, serving
from simulator.drive.target import apply
from simulator.studies.served import scrape

WINDOW = 1.0
"""Seconds of the reward windows in which a scene waits for their end."""

PATIENCE = 30.0
"""Seconds that a scene waits for something, at most; so long also a call may take."""


class NotAsSaid(Exception):
    """Something came out that the texts do not promise."""


class Stage:
    """See above. print: takes the lines."""

    def __init__(self, server: OwnServer, client: Client, print_: Callable[[str], None]) -> None:
        self.server, self.client, self.say = server, client, print_

    @property
    def stub(self) -> Any:
        """Calls that raise grpc.RpcError."""
        return self.client.stub

    def apply(self, text: str) -> str:
        """Make an experiment of a file's text run; its id."""
        made = parse_toml(text, "the tour")
        apply(self.server.target, made)
        return made.id

    def expect(self, what: str, found: object, *wanted: object) -> None:
        """Print it. Raises NotAsSaid if it is none of those wanted."""
        self.say(f"   {what}: {found}")
        if found not in wanted:
            raise NotAsSaid(f"{what}: {found!r}; wanted {' or '.join(map(repr, wanted))}")

    def run(self, *command: str) -> str:
        """The output of a command of ours. Raises NotAsSaid if it fails."""
        program, *arguments = command
        done = subprocess.run([sys.executable, "-m", f"{program}.cli", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise NotAsSaid(f"{' '.join(command)}: {done.stderr}")
        return done.stdout.strip()

    def until(self, what: str, look: Callable[[], bool]) -> None:
        """Wait. Raises NotAsSaid if it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > deadline:
                raise NotAsSaid(f"{what}: not within {PATIENCE:g} s")
            time.sleep(0.05)

    def sealed(self, experiment: str, count: int) -> dict[str, SealedDecision]:
        """Decisions of an experiment by id, once so many are sealed."""
        found: dict[str, SealedDecision] = {}

        def look() -> bool:
            found.update((one.decision.decision_id, one) for one in self._sealed(experiment))
            return len(found) >= count

        self.until(f"{count} sealed decisions of {experiment}", look)
        return found

    def _sealed(self, experiment: str) -> Sequence[SealedDecision]:
        with closing(open_reader(self.server.db)) as log:
            return list(log.sealed_decisions(ExperimentId(experiment), after=Time(0), until=log.head().time))

    def logged(self, decision_id: str) -> Decision | None:
        """A decision, if it is in the log."""
        with closing(open_reader(self.server.db)) as log:
            found = log.find(DecisionId(decision_id))
        return found.decision if found else None

    def logged_features(self, decision_id: str) -> dict[str, object]:
        """Features of the context of a decision in the log."""
        found = self.logged(decision_id)
        return dict(found.context.features) if found else {}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels."""
        lines = scrape(self.server.http, patience=PATIENCE).text.splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(f"{name}{{") and all(one in line for one in wanted)
        )


@contextmanager
def stage(db: Path, print_: Callable[[str], None]) -> Iterator[Stage]:
    """A server of its own."""
    with serving(db) as server, Client(server.target, timeout=PATIENCE) as client:
        yield Stage(server, client, print_)


def refusal(call: Callable[[], object]) -> str:
    """The status and the words of a call that is refused; "OK" if it is not."""
    try:
        call()
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def reason(answer: pb.DecideResponse) -> str:
    """Of a decision, by name."""
    return str(pb.Reason.Name(answer.reason)).removeprefix("REASON_")


class Scene(NamedTuple):
    """point: its number in the list of what a decision means."""

    point: int
    title: str
    play: Callable[[Stage], None]
