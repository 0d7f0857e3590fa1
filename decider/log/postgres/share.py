"""The experiments that a process learns, of a log in PostgreSQL: an advisory lock for each. Called by `writer.py`.

All locks are on one connection of its own, and end with it, also where it is cut. A lock that all learners with one
learning code share tells how many live. Whoever takes an experiment raises its epoch; a commit of what only its learner
writes looks at the epoch in its own transaction (`check`) and holds it until it is committed. So a learner that has
lost its connection, and does not know it yet, can publish nothing of what another one has taken.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from threading import Event, Lock, Thread

import psycopg

from decider.errors import LogLocked
from decider.log.division import divide
from decider.log.place import name_of
from decider.log.postgres.connection import Connection, log_error, read, read_one
from decider.log.postgres.lease import HEARTBEAT, connect_to_hold
from decider.types import ExperimentId

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 0.5
"""Seconds between two looks. What a learner leaves is taken at the next look of another."""

_LEARNERS_KEY = "hashtextextended('decider learners ' || %(code)s || current_schema(), 0)"
_KEY = "hashtextextended('decider learner of ' || current_schema() || ' ' || id, 0)"
_IDS = "unnest(%(ids)s::text[]) as one(id)"

_MAY = "has_table_privilege('learners', 'update')"
_JOIN = f"select case when {_MAY} then pg_advisory_lock_shared({_LEARNERS_KEY}) end as joined"
_ALIVE = "select 1 as alive"
_LOCKS = """
with locks as (
  select l.pid, (l.classid::bigint << 32) | l.objid::bigint as key
  from pg_locks l join pg_database d on d.oid = l.database
  where l.locktype = 'advisory' and l.objsubid = 1 and l.granted and d.datname = current_database())
"""
_LEARNERS = f"""{_LOCKS}
select (select count(distinct pid) from locks where key = {_LEARNERS_KEY}) as learners,
  {_MAY} and code in ('', %(code)s) as may_learn from lease
"""  # noqa: S608 - our names
_HOLDERS = f"""{_LOCKS}
select one.id, l.pid is not null as taken, l.pid in (select pid from locks where key = {_LEARNERS_KEY}) as by_learner
from {_IDS} left join locks l on l.key = {_KEY}
"""  # noqa: S608 - our names
_TRY = f"select id, pg_try_advisory_lock({_KEY}) as mine from {_IDS}"  # noqa: S608 - our names
_RAISE = """
insert into learners (experiment, epoch) select id, 1 from unnest(%(ids)s::text[]) as one(id) order by id
on conflict (experiment) do update set epoch = learners.epoch + 1 returning experiment, epoch
"""
_LET_GO = f"select id, pg_advisory_unlock({_KEY}) from {_IDS}"  # noqa: S608 - our names
_CHECK = """
select experiment, epoch from learners where experiment = any(%(ids)s::text[]) order by experiment for share
"""


class PostgresShare:
    """See Share. code: of the learning code of this process."""

    def __init__(self, url: str, code: str) -> None:
        self._url = url
        self._code = code
        self._name = name_of(url)
        self._lock, self._ended = Lock(), Event()
        self._looked_at, self._known = -math.inf, frozenset[ExperimentId]()
        self.is_whole = self._lost = False
        self._connection: Connection | None = None
        self._leaving: Sequence[ExperimentId] = ()
        self._epochs: Mapping[ExperimentId, int] = {}  # replaced, never changed: commits of other threads read it
        Thread(target=self._beat, name="share", daemon=True).start()

    def own(
        self, experiments: Collection[ExperimentId], ended: Collection[ExperimentId] = ()
    ) -> Collection[ExperimentId]:
        """See Share. Looks now and then, and at once where an experiment is new. Where the connection was lost, all is:
        whoever looks first takes it."""
        with self._lock:
            is_due = time.monotonic() - self._looked_at >= LOOK_INTERVAL
            if not self._ended.is_set() and (is_due or not self._known.issuperset(experiments)):
                self._looked_at, self._known = time.monotonic(), frozenset(experiments)
                self._look(experiments, ended)
            return self._epochs.keys() - set(self._leaving)

    def _look(self, experiments: Collection[ExperimentId], ended: Collection[ExperimentId]) -> None:
        if self._lost:  # whoever learned that has to hear of it, before it may be taken again
            self._lost = False
            return
        try:
            connection = self._connection or self._join()
            self._divide(connection, experiments, ended)
        except psycopg.Error as error:
            self._lose()
            raise log_error(self._name, error) from error

    def _join(self) -> Connection:
        self._connection = connection = connect_to_hold(self._url)
        read_one(connection, _JOIN, {"code": self._code})
        return connection

    def _lose(self) -> None:
        self._lost = bool(self._epochs)
        if self._lost and not self._ended.is_set():
            logger.warning("%s: lost its connection; others may learn what it learned", self._name)
        self._epochs, self._leaving = {}, ()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _beat(self) -> None:
        """A round of learning may take long. Without a sign of life PostgreSQL ends the connection."""
        while not self._ended.wait(HEARTBEAT):
            with self._lock:
                try:
                    if self._connection is not None:
                        read_one(self._connection, _ALIVE)
                except psycopg.Error:
                    self._lose()

    def _divide(
        self, connection: Connection, experiments: Collection[ExperimentId], ended: Collection[ExperimentId]
    ) -> None:
        if self._leaving:  # since the last look whoever learned them has stored what they had learned
            self._let_go(connection, self._leaving)
        state = read_one(connection, _LEARNERS, {"code": self._code})
        if not state["may_learn"]:
            experiments = ended = ()
        plan = divide(self._epochs.keys(), experiments, ended, learners=state["learners"])
        self._leaving = plan.gives_back
        if plan.room > 0 or ended or not self.is_whole:
            holders = read(connection, _HOLDERS, {"ids": sorted({*experiments, *ended}), "code": self._code})
            free = [row["id"] for row in holders if not row["taken"]]
            self._take(connection, [id_ for id_ in free if id_ in experiments], room=plan.room)
            self._take(connection, [id_ for id_ in free if id_ not in experiments], room=len(free))
            others = {row["id"] for row in holders if row["by_learner"]}
            self.is_whole = state["may_learn"] and others.union(self._epochs).issuperset(experiments)

    def _take(self, connection: Connection, free: Sequence[ExperimentId], *, room: int) -> None:
        """As many as there is room for; others may try the same at this moment."""
        while free and room > 0:
            tried, free = free[:room], free[room:]
            mine = [row["id"] for row in read(connection, _TRY, {"ids": tried}) if row["mine"]]
            room -= len(mine)
            if mine:
                raised = {row["experiment"]: row["epoch"] for row in read(connection, _RAISE, {"ids": mine})}
                self._epochs = {**self._epochs, **raised}

    def _let_go(self, connection: Connection, experiments: Sequence[ExperimentId]) -> None:
        self._epochs = {id_: epoch for id_, epoch in self._epochs.items() if id_ not in experiments}
        read(connection, _LET_GO, {"ids": experiments})

    def check(self, connection: Connection, experiments: Collection[ExperimentId]) -> None:
        """In an open transaction: whether this process still learns these, until the transaction is over. Raises
        LogLocked."""
        rows = read(connection, _CHECK, {"ids": [*experiments]})
        known = {row["experiment"]: row["epoch"] for row in rows}
        lost = [id_ for id_ in experiments if id_ not in self._epochs or known.get(id_) != self._epochs[id_]]
        if lost:
            raise LogLocked(f"{self._name}: another process learns experiment {min(lost)} now")

    def release(self) -> None:
        """See Share."""
        self._ended.set()
        with self._lock:
            self._lose()
