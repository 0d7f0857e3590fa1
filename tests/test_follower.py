"""What a worker does with news: pauses first, and no model is loaded that serves already."""

from __future__ import annotations

from collections.abc import Sequence

from decider.experiment.definition import Experiment
from decider.log.protocol import EventLog, ModelName, NewModel, NewVersion
from decider.policy.make import make_policy, save_model
from decider.policy.saved import SavedModel
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.types import ExperimentId, Position
from tests.conftest import sample_experiment

MANY = [ExperimentId(f"shop-{number}") for number in range(20)]


class OtherProcess(Copies):
    """A leader elsewhere, whose models have to be loaded; notes of which experiment, and what was paused then."""

    def __init__(self, current: Current) -> None:
        super().__init__()
        self.current = current
        self.loads: list[tuple[ExperimentId, Sequence[ExperimentId]]] = []

    def load(self, name: ModelName) -> SavedModel:
        """See Copies."""
        paused = [id_ for id_, serving in self.current.items() if serving.version.experiment.paused]
        self.loads.append((name.experiment, paused))
        spec = sample_experiment().policy
        return save_model(spec, make_policy(spec))


def apply(log: EventLog, id_: ExperimentId, number: int, *, paused: bool = False) -> Experiment:
    """A version of an experiment."""
    experiment = sample_experiment(id=id_, paused=paused)
    log.append([NewVersion(experiment, number)])
    return experiment


def publish(log: EventLog, experiment: Experiment, position: int) -> None:
    """A model of it."""
    log.append([NewModel(ModelName(experiment.id, Position(position), experiment.policy.signature), 1)])


def test_a_pause_and_its_end_load_no_model(log: EventLog) -> None:
    """The model serves already. To load it again takes milliseconds, in which the pause does not hold here."""
    current = Current()
    copies = OtherProcess(current)
    follower = Follower(log, current, copies)
    experiment = apply(log, MANY[0], 1)
    publish(log, experiment, 1)
    follower.follow()
    model = current[MANY[0]].model
    for number, paused in ((2, True), (3, False)):
        apply(log, MANY[0], number, paused=paused)
        follower.follow()
        assert current[MANY[0]].version.experiment.paused is paused
        assert current[MANY[0]].model is model
    assert len(copies.loads) == 1
    publish(log, experiment, 2)
    follower.follow()
    assert len(copies.loads) == 2
    assert current[MANY[0]].model.position == 2


def test_a_pause_does_not_wait_for_the_models_of_others(log: EventLog) -> None:
    """With a hundred experiments their models take a fifth of a second, twice a second."""
    current = Current()
    copies = OtherProcess(current)
    follower = Follower(log, current, copies)
    experiments = [apply(log, id_, 1) for id_ in MANY]
    follower.follow()
    for experiment in experiments[1:]:
        publish(log, experiment, 1)
    apply(log, MANY[0], 2, paused=True)
    follower.follow()
    assert len(copies.loads) == len(MANY) - 1
    assert all(paused == [MANY[0]] for _, paused in copies.loads)
