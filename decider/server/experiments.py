"""ExperimentService: translates between messages, the log's versions, and what serves. Called by gRPC."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence

from decider.errors import InvalidArgument, Violation
from decider.experiment.definition import ExperimentVersion
from decider.experiment.origin import FROM_API, UNKNOWN, Origin, check_origin
from decider.experiment.schema import from_message
from decider.learn.leader import Progress
from decider.learn.limits import LARGEST_DEFINITION
from decider.learn.versions import ApplyResult, Versions
from decider.log.protocol import LogReader
from decider.server.convert import version_message
from decider.server.roles import ALL, Rights
from decider.serving.current import Current, Serving
from decider.serving.follower import Follower
from decider.types import START, ExperimentId, Position
from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as pb

DEFAULT_PAGE = 100
MAX_PAGE = 1000


class ExperimentService:
    """Handlers of the RPCs of the same names. progress: of the models of versions that wait. page_bytes: a page of a
    list ends before it has more. rights: the caller's."""

    def __init__(
        self,
        log: LogReader,
        current: Current,
        follower: Follower,
        versions: Versions,
        *,
        progress: Callable[[], Sequence[Progress]],
        page_bytes: int = LARGEST_DEFINITION,
    ) -> None:
        self._log = log
        self._current = current
        self._follower = follower
        self._versions = versions
        self._progress = progress
        self._page_bytes = page_bytes

    def ApplyExperiment(self, request: pb.ApplyExperimentRequest, rights: Rights = ALL) -> pb.ApplyExperimentResponse:
        """Create or change; a state left out keeps the running one, and a fallback to the baseline."""
        rights.check(request.experiment.id)
        origin = _origin(request, rights)
        applied = self._versions.apply(
            from_message(request.experiment),
            keep_state=says_no_state(request.experiment),
            end_fallback=says_active(request.experiment),
            validate_only=request.validate_only,
            origin=origin,
        )
        self._follower.follow()
        return pb.ApplyExperimentResponse(
            applied=self._applied(applied),
            changed=applied.changed,
            waits=applied.waits,
            changes=applied.changes,
        )

    def _applied(self, applied: ApplyResult) -> pb.VersionedExperiment:
        return self._message(applied.version, model=self._model(applied))

    def _message(
        self, version: ExperimentVersion, *, model: Position = START, waiting: pb.WaitingVersion | None = None
    ) -> pb.VersionedExperiment:
        return version_message(version, model=model, waiting=waiting, origin=self._origins(version)[0])

    def _origins(self, *versions: ExperimentVersion) -> Sequence[Origin]:
        positions = [version.position for version in versions]
        known = self._log.origins(positions)
        return [known.get(position, UNKNOWN) for position in positions]

    def _model(self, applied: ApplyResult) -> Position:
        """The model that serves this very version, if one does."""
        serving = self._current.get(applied.version.experiment.id)
        return serving.model.position if serving and serving.version.position == applied.version.position else START

    def GetExperiment(self, request: pb.GetExperimentRequest, rights: Rights = ALL) -> pb.GetExperimentResponse:
        """The version that serves, and the one that waits."""
        rights.check(request.id)
        return pb.GetExperimentResponse(experiment=self._newest(ExperimentId(request.id)))

    def _newest(self, id_: ExperimentId) -> pb.VersionedExperiment:
        rollout = self._follower.lineup.get(id_)
        if id_ in self._current.ended and rollout is not None:
            ended = self._log.version_at(rollout.serving.position)  # what serves it no longer is in the log alone
            return self._message(ended, waiting=self._waiting(id_))
        serving = self._current[id_]
        return self._serving(serving, *self._origins(serving.version))

    def _serving(self, serving: Serving, origin: Origin) -> pb.VersionedExperiment:
        waiting = self._waiting(serving.version.experiment.id)
        return version_message(serving.version, model=serving.model.position, waiting=waiting, origin=origin)

    def _waiting(self, id_: ExperimentId) -> pb.WaitingVersion | None:
        waiting = self._follower.lineup[id_].waiting
        if waiting is None:
            return None
        known = {(one.experiment, one.version): one.position for one in self._progress()}
        return pb.WaitingVersion(
            version=waiting.number,
            learned_position=known.get((id_, waiting.number), START),
            log_position=self._log.head().position,
        )

    def ListExperiments(self, request: pb.ListExperimentsRequest, rights: Rights = ALL) -> pb.ListExperimentsResponse:
        """Those of the caller's that have not ended, by id; the token is the last id of the page before."""
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidArgument([Violation("page_size", f"{request.page_size} is not in [0, {MAX_PAGE}]")])
        size = request.page_size or DEFAULT_PAGE
        everything = self._current.all()
        if rights.experiments is not None:
            everything = [serving for serving in everything if rights.sees(serving.version.experiment.id)]
        ids = [serving.version.experiment.id for serving in everything]
        first = bisect.bisect_right(ids, request.page_token)
        page = everything[first : first + size]
        origins = self._origins(*[serving.version for serving in page])
        fitting = list(_fitting(map(self._serving, page, origins), self._page_bytes))
        more = first + len(fitting) < len(everything)
        return pb.ListExperimentsResponse(
            experiments=fitting, next_page_token=page[len(fitting) - 1].version.experiment.id if more else ""
        )

    def PauseExperiment(self, request: pb.PauseExperimentRequest, rights: Rights = ALL) -> pb.PauseExperimentResponse:
        """A new version that refuses decisions, at once."""
        return pb.PauseExperimentResponse(experiment=self._set_paused(request, rights, paused=True))

    def ResumeExperiment(
        self, request: pb.ResumeExperimentRequest, rights: Rights = ALL
    ) -> pb.ResumeExperimentResponse:
        """A new version that decides again."""
        return pb.ResumeExperimentResponse(experiment=self._set_paused(request, rights, paused=False))

    def _set_paused(
        self, request: pb.PauseExperimentRequest | pb.ResumeExperimentRequest, rights: Rights, *, paused: bool
    ) -> pb.VersionedExperiment:
        rights.check(request.id)
        id_ = ExperimentId(request.id)
        applied = self._versions.set_paused(id_, paused=paused, origin=_origin(request, rights))
        self._follower.follow()
        return self._newest(id_) if applied.waits else self._applied(applied)


def _fitting(messages: Iterable[pb.VersionedExperiment], most: int) -> Iterator[pb.VersionedExperiment]:
    """The first of them that have so many bytes together; one at least."""
    size = 0
    for place, message in enumerate(messages):
        size += message.ByteSize()
        if place and size > most:
            return
        yield message


def _origin(
    request: pb.ApplyExperimentRequest | pb.PauseExperimentRequest | pb.ResumeExperimentRequest, rights: Rights
) -> Origin:
    said = check_origin(author=request.author, source=FROM_API, note=request.note)
    return said.proven_by(rights.name) if rights.name else said


def says_no_state(message: experiment_pb2.Experiment) -> bool:
    """Whether a definition leaves it open if the experiment is active, paused or ended."""
    return message.state == experiment_pb2.EXPERIMENT_STATE_UNSPECIFIED


def says_active(message: experiment_pb2.Experiment) -> bool:
    """Whether a definition asks by itself that the policy decides: that ends a fallback to the baseline."""
    return message.state == experiment_pb2.EXPERIMENT_STATE_ACTIVE
