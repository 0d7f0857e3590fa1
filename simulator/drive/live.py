"""A whole drive: apply the world's experiment, send its visitors, reconcile, measure. Called by `simulator drive`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import SystemRandom

import numpy as np

from decider.errors import LogError
from decider.experiment.changes import in_one_line
from decider.experiment.schema import to_message
from decider.log.open import LogUrl, open_reader
from decider.log.protocol import LogReader
from decider.v1 import experiment_pb2
from simulator.drive import reconcile
from simulator.drive.earnings import measure
from simulator.drive.kills import killer
from simulator.drive.latency import percentiles
from simulator.drive.ledger import Ledger
from simulator.drive.plan import BadDrive, Plan, Shares, plan
from simulator.drive.result import DriveResult, Fate
from simulator.drive.send import Drive
from simulator.drive.server import serving, wait_until_sealed
from simulator.drive.target import apply, running
from simulator.run.policies import served_experiment
from simulator.worlds.world import World


@dataclass(frozen=True, slots=True)
class Options:
    """As on the command line. Either a target, perhaps with the path of its log, or a log to serve. holdout: None: as
    on the target."""

    target: str = ""
    db: Path | LogUrl | None = None
    serve: Path | None = None
    kills: int = 0
    visitors: int = 10_000
    seed: int = 1
    clients: int = 4
    rate: float | None = None
    window: float | None = None
    shares: Shares = field(default_factory=Shares)
    policy: str = ""
    holdout: float | None = None


LONG = 30.0
"""Seconds of a window that somebody who watches may want shorter."""

Note = Callable[[str], None]
Alongside = Sequence[Callable[[Drive], None]]


@dataclass(frozen=True, slots=True)
class DrivenServer:
    """A server: where it listens, its log's file if known, what runs alongside the drive."""

    target: str
    db: Path | LogUrl | None
    alongside: Alongside = ()


def new_run() -> str:
    """What the ids of a drive begin with: by time, so that they rise in a log; other drives have others."""
    return f"{time.time_ns() // 1_000_000:x}-{SystemRandom().getrandbits(16):04x}"


def drive(
    world: World,
    options: Options,
    *,
    note: Note = lambda _: None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> DriveResult:
    """Carry it out. note: gets what a person should know on the way. Raises DeciderError before anything is sent."""
    check(options)
    experiment = served_experiment(options.policy, world) if options.policy else world.experiment
    made = plan(
        world,
        experiment,
        run=new_run(),
        visitors=options.visitors,
        seed=options.seed,
        clients=options.clients,
        rate=options.rate,
        window=options.window,
        shares=options.shares,
    )
    with open_server(options) as at:
        if at.db is not None:
            open_reader(at.db).close()  # what cannot be read is said before anything is changed
        made = _with_control_group(made, running(at.target, made.experiment.id), options.holdout, note)
        version, duplicates = _apply(made, at, note)
        note(_describe(made, at))
        driven = Drive(made, at.target)
        driven.run(alongside=at.alongside, on_progress=on_progress)
        if options.serve and not driven.stopped:
            _wait(driven, options.serve)
    return _result(driven, options, version=version, db=at.db, duplicates_before=duplicates)


def _wait(driven: Drive, db: Path) -> None:
    """Until the last window is over, so that the log can be verified and evaluated whole."""
    try:
        wait_until_sealed(db, driven.plan.experiment.id, window=driven.plan.window)
    except KeyboardInterrupt:
        driven.interrupted = True


def check(options: Options) -> None:
    """Raises BadDrive."""
    if bool(options.target) == bool(options.serve):
        raise BadDrive("give either --target HOST:PORT or --serve LOG.db")
    if options.serve and options.db:
        raise BadDrive("--db: --serve names the log already; leave --db out")
    if options.kills and not options.serve:
        raise BadDrive("--kills: only a server of its own is killed; give --serve LOG.db instead of --target")


@contextmanager
def open_server(options: Options) -> Iterator[DrivenServer]:
    """The server that is driven; one that is started here is drained at the end. Raises ServerFailed."""
    if options.serve is None:
        yield DrivenServer(options.target, options.db)
        return
    with serving(options.serve) as server:
        kills = [killer(server, options.kills, seed=options.seed)] if options.kills else []
        yield DrivenServer(server.target, options.serve, kills)


def _with_control_group(made: Plan, runs: experiment_pb2.Experiment | None, share: float | None, note: Note) -> Plan:
    """The plan with the control group that was asked for, else with the one of what runs there: whoever tries a server
    tries its control group, too. The salt is a part of it: another one would choose other units."""
    ours = made.experiment
    if share is None and (ours.holdout or runs is None or not runs.holdout):
        return made
    wanted = runs.holdout if share is None and runs is not None else share or 0.0
    if wanted and not ours.baseline:
        raise BadDrive(f"{ours.id}: has no baseline action for a control group of {wanted:g}; give --holdout 0")
    note(f"{ours.id}: {wanted:.4g} of the units are the control group" + ("" if share is not None else ", as before"))
    salt = runs.salt if runs is not None and not ours.salt else ours.salt
    return replace(made, world=replace(made.world, experiment=replace(ours, holdout=wanted, salt=salt)))


def _apply(made: Plan, at: DrivenServer, note: Note) -> tuple[int, int]:
    """The version that runs now, and how many duplicates the log has counted so far."""
    id_ = made.experiment.id
    reply = apply(at.target, to_message(made.experiment), note=f"simulator drive {made.world.name}")
    version = reply.applied.version
    if reply.changed and version > 1:
        changed = in_one_line(reply.changes)
        note(f"{id_}: what ran there had other content; this drive has applied version {version}: {changed}")
    if at.db is None:
        if reply.applied.model:
            note(f"Warning: {at.target} has learned {id_} before; take a fresh log to see it learn from the start")
        return version, 0
    with closing(open_reader(at.db)) as log:
        _check_log(log, at, experiment=id_, number=version)
        before = log.count_decisions(id_)
        if before:
            note(f"Warning: {at.db} has {before} decisions of {id_} already; a fresh log shows it learn from the start")
        return version, reconcile.duplicates_counted(log)


def _check_log(log: LogReader, at: DrivenServer, *, experiment: str, number: int) -> None:
    """Raises LogError where the log cannot be the server's."""
    if not any(v.experiment.id == experiment and v.number == number for v in log.versions()):
        raise LogError(f"{log.name}: does not hold version {number} of {experiment}: it is not the log of {at.target}")


def _describe(made: Plan, at: DrivenServer) -> str:
    pace = f"{made.rate:g} per second" if made.rate else "as fast as answers come"
    long = "; --window SECONDS shortens it" if made.window > LONG else ""
    return (
        f"{made.world.name} on {at.target}: {len(made.visits)} visitors by {made.clients} clients, {pace}; "
        f"window {made.window:.3g} s (1 s here is {1 / made.scale:,.4g} s there){long}"
    )


def _result(
    driven: Drive, options: Options, *, version: int, db: Path | LogUrl | None, duplicates_before: int
) -> DriveResult:
    made, ledger = driven.plan, driven.ledger
    return DriveResult(
        world=made.world.name,
        experiment=made.experiment.id,
        version=version,
        policy=options.policy or made.experiment.policy.algorithm,
        target=driven.target,
        run=made.run,
        seed=options.seed,
        visitors=options.visitors,
        clients=options.clients,
        batch=made.world.batch,
        rate=options.rate,
        achieved=ledger.rate,
        window=made.window,
        scale=made.scale,
        shares=options.shares,
        rewards=count_fates(made, ledger),
        reconciliation=_reconcile(made, ledger, db, duplicates_before),
        decide=percentiles(ledger.calls["decide"].seconds),
        reward=percentiles(ledger.calls["reward"].seconds),
        errors=dict(sorted(ledger.errors.by_status.items())),
        kills=tuple(ledger.kills),
        earned=measure(made, ledger, seed=options.seed),
        ended="interrupted" if driven.interrupted else str(driven.failure or ""),
    )


def _reconcile(made: Plan, ledger: Ledger, db: Path | LogUrl | None, before: int) -> reconcile.Reconciliation:
    if db is None:
        return reconcile.reconcile(made, ledger, None)
    with closing(open_reader(db)) as log:
        return reconcile.reconcile(made, ledger, log, duplicates_before=before)


def count_fates(made: Plan, ledger: Ledger) -> Fate:
    """Of the rewards of acknowledged decisions."""
    done = np.flatnonzero(ledger.acked)
    happened = done[made.visits.names[done, ledger.action[done]] >= 0]
    fates = made.fates
    counts = [int(one[happened].sum()) for one in (fates.lost, fates.late, fates.duplicate, fates.reordered)]
    return Fate(len(happened), *counts)
