"""ExperimentService: translations between messages and the learner, which alone applies versions."""

from __future__ import annotations

import bisect

from decider.errors import InvalidArgument, Violation
from decider.experiment.schema import from_message
from decider.learn.learner import Learner
from decider.server.convert import versioned
from decider.serving.current import Current
from decider.types import ExperimentId
from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as pb

DEFAULT_PAGE = 100
MAX_PAGE = 1000


class ExperimentService:
    """Handlers of the RPCs of the same names."""

    def __init__(self, running: Current, learner: Learner) -> None:
        self._running = running
        self._learner = learner

    def ApplyExperiment(self, request: pb.ApplyExperimentRequest) -> pb.ApplyExperimentResponse:
        """Create or change; a state left out keeps the running one."""
        applied = self._learner.apply(
            from_message(request.experiment),
            keep_state=says_no_state(request.experiment),
            validate_only=request.validate_only,
        )
        return pb.ApplyExperimentResponse(applied=versioned(applied.serving), changed=applied.changed)

    def GetExperiment(self, request: pb.GetExperimentRequest) -> pb.GetExperimentResponse:
        """The running version."""
        return pb.GetExperimentResponse(experiment=versioned(self._running[ExperimentId(request.id)]))

    def ListExperiments(self, request: pb.ListExperimentsRequest) -> pb.ListExperimentsResponse:
        """By id; the token is the last id of the page before."""
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidArgument([Violation("page_size", f"{request.page_size} is not in [0, {MAX_PAGE}]")])
        size = request.page_size or DEFAULT_PAGE
        everything = self._running.all()
        ids = [serving.version.experiment.id for serving in everything]
        first = bisect.bisect_right(ids, request.page_token)
        page = everything[first : first + size]
        more = first + size < len(everything)
        return pb.ListExperimentsResponse(
            experiments=map(versioned, page),
            next_page_token=page[-1].version.experiment.id if more else "",
        )

    def PauseExperiment(self, request: pb.PauseExperimentRequest) -> pb.PauseExperimentResponse:
        """A new version that refuses decisions."""
        applied = self._learner.set_paused(ExperimentId(request.id), paused=True)
        return pb.PauseExperimentResponse(experiment=versioned(applied.serving))

    def ResumeExperiment(self, request: pb.ResumeExperimentRequest) -> pb.ResumeExperimentResponse:
        """A new version that decides again."""
        applied = self._learner.set_paused(ExperimentId(request.id), paused=False)
        return pb.ResumeExperimentResponse(experiment=versioned(applied.serving))


def says_no_state(message: experiment_pb2.Experiment) -> bool:
    """Whether a definition leaves it open if the experiment is paused."""
    return message.state == experiment_pb2.EXPERIMENT_STATE_UNSPECIFIED
