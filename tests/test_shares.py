"""Who learns which experiment: no two processes one at a time, and none by nobody; on every log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from decider.errors import LogError, LogLocked
from decider.experiment.origin import FROM_SERVER, Origin
from decider.learn.guard import Guard
from decider.learn.learner import Learner, Pace
from decider.learn.trainer import Trainer
from decider.log.division import divide, largest_part
from decider.log.postgres.connection import connect
from decider.log.postgres.lease import PostgresLease
from decider.log.postgres.share import PostgresShare
from decider.log.postgres.writer import PostgresLog, _code
from decider.log.protocol import (
    EventLog,
    Mark,
    ModelName,
    NewLeaveOut,
    NewModel,
    NewVersion,
    Serves,
    Share,
    Tick,
)
from decider.log.sqlite.writer import SqliteLog
from decider.policy.protocol import Model
from decider.policy.saved import SavedModel
from decider.serving.follower import Copies, Owner
from decider.types import ExperimentId, Position
from simulator.verify import verify
from tests.conftest import Clock, sample_experiment, spec
from tests.postgres import administer
from tests.processes import PACE
from tests.test_learning import pmfs
from tests.test_verify import Drive, assert_equal
from tests.two_writers import decision

EXPERIMENTS = tuple(ExperimentId(f"e{number}") for number in range(5))

LOOKS = 6
"""After so many looks of each learner every experiment has one: a lost connection is noticed, made again, what is too
much is left, given back, and taken."""


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the test says so, and nobody notices anything between them."""
    for name, seconds in (("share.LOOK_INTERVAL", 0.0), ("share.HEARTBEAT", 1e6), ("lease.LEASE_SECONDS", 0.0)):
        monkeypatch.setattr(f"decider.log.postgres.{name}", seconds)


@contextmanager
def beside(log: EventLog) -> Iterator[EventLog]:
    """The same log, of another process."""
    match log:
        case SqliteLog():
            with closing(SqliteLog(log.path)) as other:
                yield other
        case PostgresLog():
            with closing(PostgresLog(log._url)) as other:
                yield other
        case _:
            pytest.skip("a log in memory has one process")


def look(shares: Sequence[Share], experiments: Collection[ExperimentId] = EXPERIMENTS) -> list[set[ExperimentId]]:
    """What each has after some looks; never one that another has."""
    for _ in range(LOOKS):
        for share in shares:
            share.own(experiments)
            assert_divided([set(one.own(experiments)) for one in shares])
    return [set(share.own(experiments)) for share in shares]


def assert_divided(parts: Sequence[Collection[ExperimentId]]) -> None:
    """No experiment is in two."""
    assert sum(map(len, parts)) == len(set[ExperimentId]().union(*parts))


# --- every log


def test_who_leads_alone_learns_all(log: EventLog) -> None:
    """One process is the usual case: nothing waits for others that are not there."""
    log.lease()
    share = log.share()
    assert set(share.own(EXPERIMENTS)) == {*EXPERIMENTS}
    more = (*EXPERIMENTS, ExperimentId("new"))
    assert set(share.own(more)) == {*more}
    assert look([share], EXPERIMENTS[:2]) == [{*EXPERIMENTS[:2]}]


def test_a_process_has_one_share(log: EventLog) -> None:
    """A start that failed half way must not keep experiments from the next one."""
    log.lease()
    first = log.share()
    assert set(first.own(EXPERIMENTS)) == {*EXPERIMENTS}
    assert look([log.share(), first]) == [{*EXPERIMENTS}, set()]


def test_who_has_left_learns_nothing(log: EventLog) -> None:
    """At its end a process leaves what it learned to others."""
    log.lease()
    share = log.share()
    share.own(EXPERIMENTS)
    share.release()
    assert not share.own(EXPERIMENTS)
    share.release()


def test_two_processes_never_learn_one_experiment(log: EventLog) -> None:
    """They would publish past each other. Whoever is left learns all."""
    with beside(log) as other:
        lease = log.lease()
        first, second = log.share(), other.share()
        assert set.union(*look([first, second])) == {*EXPERIMENTS}
        first.release()
        lease.release()
        other.lease()
        second = other.share()
        assert look([second]) == [{*EXPERIMENTS}]


def test_what_a_process_learns_it_may_publish(log: EventLog) -> None:
    """And what waits serves once it has learned."""
    log.append([NewVersion(sample_experiment(), 1), NewVersion(sample_experiment(), 2, waits=True)])
    log.lease()
    log.share().own([ExperimentId("home")])
    assert None not in log.append([new_model("home"), Serves(Position(2)), Tick()])


# --- the rule


@given(experiments=st.sets(st.sampled_from("abcdefghij")), own=st.sets(st.sampled_from("abcdefghijxyz")),
       learners=st.integers(1, 12))  # fmt: skip
def test_a_part_is_fair_and_nothing_is_left_over(experiments: set[str], own: set[str], learners: int) -> None:
    """So many learners have room for all experiments together, and none has more than one above its part."""
    plan = divide(set(map(ExperimentId, own)), set(map(ExperimentId, experiments)), learners=learners)
    part = largest_part(len(experiments), learners)
    assert learners * part >= len(experiments) > learners * (part - 1)
    assert {*plan.keeps, *plan.gives_back} == own
    assert {*plan.keeps} <= experiments
    assert len(plan.keeps) + plan.room == part


class Learners(RuleBasedStateMachine):
    """Any order of joins, ends, cut connections and new experiments; looks of anybody in between.

    Whoever may publish an experiment is its owner: a learner that was cut off believes to have some until it looks.
    """

    url: str
    number = count()

    def __init__(self) -> None:
        super().__init__()
        self.connection = connect(self.url)
        self.shares: list[PostgresShare] = []
        self.experiments: set[ExperimentId] = set()
        self.ended: set[ExperimentId] = set()

    @precondition(lambda self: len(self.shares) < 4)
    @rule()
    def join(self) -> None:
        """Another learner."""
        self.shares.append(PostgresShare(self.url, "code"))

    @precondition(lambda self: self.shares)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """One ends."""
        self.shares.pop(data.draw(self._index())).release()

    @precondition(lambda self: self.shares)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """The server has ended its connection, and it does not know."""
        cut(self.shares[data.draw(self._index())], self.url)

    @rule(more=st.integers(1, 3))
    def add(self, more: int) -> None:
        """New experiments."""
        self.experiments |= {ExperimentId(f"e{next(self.number)}") for _ in range(more)}

    @precondition(lambda self: self.experiments)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """One has ended, with something left to learn, until that is learned."""
        self.ended.add(one := data.draw(st.sampled_from(sorted(self.experiments))))
        self.experiments.discard(one)

    @rule()
    def learn_ended(self) -> None:
        """All that has ended is learned."""
        self.ended.clear()

    @precondition(lambda self: self.shares)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """One learner looks; what has ended it may not know yet."""
        try_to_look(
            self.shares[data.draw(self._index())], self.experiments, data.draw(st.sampled_from([(), self.ended]))
        )

    @precondition(lambda self: self.shares)
    @rule()
    def settle(self) -> None:
        """Nothing happens for a while: each experiment has one learner, and nobody has more than a fair part."""
        for _ in range(LOOKS):
            for share in self.shares:
                try_to_look(share, self.experiments, self.ended)
                self.no_two_publish()
        parts = [set(share.own(self.experiments, self.ended)) for share in self.shares]
        assert set[ExperimentId]().union(*parts) == self.experiments | self.ended
        assert max([len(part - self.ended) for part in parts]) <= largest_part(len(self.experiments), len(self.shares))
        assert all(share.is_whole for share in self.shares)

    @invariant()
    def no_two_publish(self) -> None:
        """At no moment."""
        assert_divided([published(share, self.connection) for share in self.shares])

    def _index(self) -> st.SearchStrategy[int]:
        return st.integers(0, len(self.shares) - 1)

    def teardown(self) -> None:
        """Close all."""
        if self.shares:
            self.settle()
        for share in self.shares:
            share.release()
        self.connection.close()


def cut(share: PostgresShare, url: str) -> None:
    """End a share's connection, as the server does where a machine is gone."""
    if share._connection is not None:
        administer(url, f"select pg_terminate_backend({share._connection.info.backend_pid}, 5000)")


def try_to_look(share: Share, experiments: Collection[ExperimentId], ended: Collection[ExperimentId]) -> None:
    """A learner that cannot look tries again."""
    try:
        share.own(experiments, ended)
    except LogError:
        assert not share.own([]), "what is lost is nobody's"


def published(share: PostgresShare, connection: object) -> set[ExperimentId]:
    """What a share could publish now."""
    return {id_ for id_ in share._epochs if may_publish(share, id_, connection)}


def may_publish(share: PostgresShare, id_: ExperimentId, connection: object) -> bool:
    """Whether the log takes a model of an experiment from it."""
    try:
        share.check(connection, [id_])  # type: ignore[arg-type]
    except LogLocked:
        return False
    return True


def test_each_experiment_has_one_learner(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes and goes, in any order."""
    caplog.set_level(logging.ERROR)
    PostgresLog(postgres_url).close()
    machine = type("Machine", (Learners,), {"url": postgres_url})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine, settings=settings(max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=checks)
    )


# --- fenced


def new_model(id_: str, position: int = 1) -> NewModel:
    """Of an experiment."""
    return NewModel(ModelName(ExperimentId(id_), Position(position), "signature"), 1)


class Peer:
    """Another process that learns a log beside its leader. copies: where the models of all processes are, as in a
    folder that they share."""

    def __init__(self, url: str, clock: Clock, copies: Copies) -> None:
        self.log = PostgresLog(url, clock=clock)
        self.share = self.log.share()
        self.guard = Guard(self.log)
        self.learner = Learner(self.log, self.share, copies, pace=PACE, guard=self.guard)

    def step(self) -> None:
        """Rounds until it is behind nowhere; one that cannot learn now tries again."""
        try:
            while self.learner.step():
                pass
        except LogError:
            assert not self.share.own([])


class Kept(Copies):
    """With every model that was ever published, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.all: dict[ModelName, list[Model]] = {}

    def put(self, name: ModelName, model: Model, save: Callable[[], SavedModel]) -> None:
        """See Copies."""
        super().put(name, model, save)
        self.all.setdefault(name, []).append(model)

    def leave(self, owner: Owner) -> None:
        """The models of all processes are here."""


class Cluster(Drive):
    """A leader, and other processes that learn beside it; visitors of several experiments."""

    def __init__(self, log: EventLog, url: str, clock: Clock, *, seed: int = 1) -> None:
        super().__init__(log, clock, seed=seed)
        self.url = url
        self.peers: list[Peer] = []

    def start(self, pace: Pace = PACE) -> None:
        """See Process."""
        self.copies = Kept() if not isinstance(self.copies, Kept) else self.copies
        super().start(pace)

    def join(self) -> Peer:
        """One more."""
        self.peers.append(peer := Peer(self.url, self.clock, self.copies))
        return peer

    def step(self) -> None:
        """All, in turn."""
        for peer in self.peers:
            peer.step()
        super().step()

    def busy(self, count: int) -> None:
        """Visits to all experiments."""
        for _ in range(count):
            for id_ in EXPERIMENTS:
                self.visits(1, id_)

    def learned_by(self) -> list[set[ExperimentId]]:
        """What each learns: the leader first."""
        return [set(self.leader.experiments), *[set(peer.learner.experiments) for peer in self.peers]]


@pytest.fixture
def cluster(postgres_url: str, clock: Clock) -> Iterator[Cluster]:
    """A leader of five experiments."""
    with closing(PostgresLog(postgres_url, clock=clock)) as log:
        made = Cluster(log, postgres_url, clock)
        for id_, policy in zip(EXPERIMENTS, ("thompson", "squarecb", "thompson", "softmax", "thompson"), strict=True):
            made.apply(sample_experiment(id=id_, policy=spec(policy)))
        yield made
        for peer in made.peers:
            peer.learner.finish()
            peer.log.close()


def assert_as_one_that_never_stopped(cluster: Cluster) -> None:
    """Every model that was published, however often its learner has changed, is what one trainer makes in one go; and
    what the models served replays."""
    log, copies = cluster.log, cluster.copies
    assert isinstance(copies, Kept)
    for id_ in EXPERIMENTS:
        (version,) = [one for one in log.versions() if one.experiment.id == id_]
        trainer = Trainer(log, id_, version.experiment.policy)
        positions = log.models.published_positions(id_, trainer.signature)
        assert len(positions) > 5
        for position in positions:
            trainer.learn_up_to(Mark(Position(position), log.time_at(Position(position))))
            expected = pmfs(trainer.model().policy, version)
            made = copies.all[ModelName(id_, Position(position), trainer.signature)]
            assert made
            assert [pmfs(one.policy, version) for one in made] == [expected] * len(made)
    assert_equal(verify(log), log.count_decisions())
    assert log.check(lambda _: None) == []


def test_learning_is_divided_among_those_who_live(cluster: Cluster) -> None:
    """It grows with machines; and all of it goes on when one of them dies."""
    cluster.busy(4)
    assert cluster.learned_by() == [{*EXPERIMENTS}]
    first, second = cluster.join(), cluster.join()
    cluster.busy(6)
    parts = cluster.learned_by()
    assert sorted(map(len, parts)) == [1, 2, 2]
    assert set[ExperimentId]().union(*parts) == {*EXPERIMENTS}
    cluster.peers.remove(first)  # it is killed, and its connections end with it
    first.log.close()
    cluster.busy(6)
    assert sorted(map(len, cluster.learned_by())) == [2, 3]
    second.learner.finish()  # it ends by itself
    cluster.peers.remove(second)
    second.log.close()
    cluster.busy(4)
    assert cluster.learned_by() == [{*EXPERIMENTS}]
    assert_as_one_that_never_stopped(cluster)


def test_a_learner_that_was_cut_off_publishes_nothing(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """It does not know it yet, and its other connections live. Whoever took its experiments goes on from the log."""
    peer = cluster.join()
    cluster.busy(5)
    had = set(peer.learner.experiments)
    assert had
    cut(peer.share, cluster.url)
    cluster.peers.remove(peer)  # it stands still
    cluster.busy(6)
    assert cluster.learned_by() == [{*EXPERIMENTS}]
    learned = {id_: len(published_of(cluster.log, id_)) for id_ in had}
    peer.share._looked_at = time.monotonic() + 60  # and now works for a while without a look
    peer.learner.step()
    assert "another process learns experiment" in caplog.text
    assert {id_: len(published_of(cluster.log, id_)) for id_ in had} == learned
    at = cluster.clock()
    of_guard = NewLeaveOut(min(had), at, at, origin=Origin("guard", FROM_SERVER))
    for entry in (new_model(min(had)), of_guard):
        with pytest.raises(LogLocked, match="another process learns experiment"):
            peer.log.append([entry])
    assert peer.log.append([NewLeaveOut(min(had), at, at)]) != [None], "people may, wherever they are"
    version = next(one for one in cluster.log.versions() if one.experiment.id in had)
    assert peer.log.append([decision(version, "beside it")]) != [None], "it serves on"
    assert peer.log.trouble is None
    peer.share._looked_at = 0.0
    cluster.peers.append(peer)
    cluster.busy(5)
    assert sorted(map(len, cluster.learned_by())) == [2, 3], "it learns again"


def published_of(log: EventLog, id_: ExperimentId) -> Sequence[Position]:
    """The models of an experiment."""
    (signature,) = log.models.signatures(id_)
    return log.models.published_positions(id_, signature)


@contextmanager
def ended(*shares: PostgresShare) -> Iterator[None]:
    """At the end."""
    try:
        yield
    finally:
        for share in shares:
            share.release()


def test_a_learner_that_stands_still_is_replaced(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine and its connection live on, as those of a process that was stopped. One that is only busy is not."""
    PostgresLog(postgres_url).close()
    monkeypatch.setattr("decider.log.postgres.lease.LEASE_SECONDS", 0.4)
    stopped = PostgresShare(postgres_url, "code")
    monkeypatch.setattr("decider.log.postgres.share.HEARTBEAT", 0.05)
    busy = PostgresShare(postgres_url, "code")
    with ended(stopped, busy):
        assert all(look([stopped, busy]))
        began = time.monotonic()
        while len(busy.own(EXPERIMENTS)) < len(EXPERIMENTS):
            assert time.monotonic() - began < 30
            time.sleep(0.02)
        assert busy.is_whole
        time.sleep(0.8)
        assert set(busy.own(EXPERIMENTS)) == {*EXPERIMENTS}


def test_learners_of_another_learning_code_learn_nothing(postgres_url: str) -> None:
    """Nobody could serve their models beside the leader's; and the leader must not take them for learned."""
    with closing(PostgresLog(postgres_url)) as log:
        old = [PostgresShare(postgres_url, _code()) for _ in range(2)]
        lease = log.lease()
        assert sorted(map(len, look(old))) == [2, 3]
        lease.release()
        PostgresLease(postgres_url, "new code").release()
        leader = PostgresShare(postgres_url, "new code")
        leader.own(EXPERIMENTS)
        assert not leader.is_whole, "the others have not left yet"
        assert look([leader, *old]) == [{*EXPERIMENTS}, set(), set()]
        assert leader.is_whole
        peer = PostgresShare(postgres_url, "new code")
        assert sorted(map(len, look([leader, peer, *old]))) == [0, 0, 2, 3]
        assert leader.is_whole
        for share in (*old, leader, peer):
            share.release()
