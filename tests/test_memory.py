"""Memory has a stated bound, whatever strangers send and however many experiments there are; decisions stay equal."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from decider.decide.decide import decide
from decider.errors import FailedPrecondition, LimitReached, NotFound
from decider.experiment.definition import Action, Experiment, Learning
from decider.learn.limits import DEFINITIONS_SHARE, FIXED_SHARE, Limits, definition_bytes
from decider.learn.trainer import Trainer
from decider.learn.versions import Versions
from decider.log.evicted import EvictedPolicies
from decider.log.memory import MemoryLog
from decider.log.open import open_reader
from decider.log.protocol import NewReward
from decider.policy.features import CACHED_CHARACTERS, category, fields_vector
from decider.policy.make import make_policy
from decider.policy.memory import FIXED_BYTES, PolicyMemory
from decider.policy.protocol import Choice, Model, Policy
from decider.policy.thompson.arrays import CACHE_FLOATS, LARGEST_SHARE, Cache
from decider.policy.vw.workspace import WORKSPACE_BYTES, VwPolicy
from decider.serving.current import Current
from decider.types import START, ActionId, Context, Decision, DecisionId, DecisionRequest, ExperimentId
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.verify import verify
from tests.conftest import LEARNING, Clock, plain_choices, sample_experiment, sample_version, spec
from tests.processes import Process
from tests.rpc_clients import GrpcClient, ServerProcess, code_of, experiment, reason_of, status_of, until
from tests.test_policies import rounds, teach

HOME = ExperimentId("home")
SMALL = 10_000_000
"""Bytes: one workspace of VW's, hardly."""

LITTLE = 300_000_000
"""The least `--memory` that there is."""

OPTIONS = ("--learn-interval", "0.05")

TOML = """
id = "{}"
state = "{}"
actions = [{{ id = "x" }}]
"""


@pytest.fixture
def storage() -> Iterator[EvictedPolicies]:
    """Where evicted policies are."""
    made = EvictedPolicies()
    yield made
    made.close()


def answers(policy: Policy, seed: int = 5) -> list[list[float]]:
    """What a policy says; compared bit for bit."""
    return [list(policy.pmf(one.context, one.actions)) for one in rounds(seed, 8)]


@contextmanager
def running(folder: Path, *options: str) -> Iterator[ServerProcess]:
    """A server whose log is in this folder."""
    server = ServerProcess(folder / "log.db", *options)
    try:
        yield server
    finally:
        server.kill()


def squarecb() -> experiment_pb2.Policy:
    """Its defaults."""
    return experiment_pb2.Policy(squarecb=experiment_pb2.SquareCb())


# --- eviction


@pytest.mark.parametrize("algorithm", LEARNING)
@pytest.mark.parametrize("term", ["CA", "CCA"])
def test_a_policy_that_is_evicted_all_the_time_is_the_same_policy(
    algorithm: str, term: str, storage: EvictedPolicies
) -> None:
    """Otherwise `verify`, which evicts nothing, would compute other decisions than were served."""
    of = spec(algorithm, *{"CA", term})
    memory = PolicyMemory(0, storage)
    plain, evicted = make_policy(of), memory.keep(make_policy(of), fixed=not of.resumable)
    for part in range(6):
        sealed = list(rounds(part, 15))
        teach(plain, sealed)
        teach(evicted, sealed)
        memory.trim()
        expected, served = plain.snapshot(), evicted.snapshot()
        for _ in range(2):
            assert answers(served) == answers(expected)
            memory.trim()
        memory.trim()
    assert answers(evicted) == answers(plain)
    assert evicted.vocabulary() == plain.vocabulary()
    assert memory.evictions >= 6


def test_the_policies_that_were_used_last_stay(storage: EvictedPolicies) -> None:
    """Whoever is asked all the time must not wait for a workspace to be made at every call."""
    of, memory = spec("squarecb"), PolicyMemory(3 * WORKSPACE_BYTES + WORKSPACE_BYTES // 2, storage)
    policies = [memory.keep(make_policy(of)) for _ in range(6)]
    for policy in policies:
        policies[0].pmf(Context(), plain_choices(2))
        policy.pmf(Context(), plain_choices(2))
    memory.trim()
    assert [policy.size > 0 for policy in policies] == [True, False, False, False, True, True]
    assert memory.bytes <= 3 * WORKSPACE_BYTES + WORKSPACE_BYTES // 2


def test_a_model_is_made_when_first_needed(storage: EvictedPolicies) -> None:
    """Hundreds of experiments that nobody asks take no workspace."""
    memory = PolicyMemory(10**9, storage)
    learner = memory.keep(make_policy(spec("squarecb")))
    assert learner.size == 0
    teach(learner, list(rounds(1, 5)))
    served = learner.snapshot()
    assert 0 < served.size < 100_000
    served.pmf(Context(), plain_choices(2))
    assert served.size >= WORKSPACE_BYTES


class _TrimmedMidway(VwPolicy):
    """While it answers, another thread looks at how much memory there is."""

    memory: PolicyMemory

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """As ever."""
        self.memory.trim()
        return super().pmf(context, actions)


def test_a_policy_counts_that_grew_while_memory_was_measured(storage: EvictedPolicies) -> None:
    """Several threads ask at once: what each misses stays in memory, until it is five times what is allowed."""
    memory, policy = PolicyMemory(10**9, storage), _TrimmedMidway("--cb_explore_adf --quiet")
    policy.memory = memory
    kept = memory.keep(policy)
    kept.pmf(Context(), plain_choices(2))
    assert memory.bytes == kept.size >= WORKSPACE_BYTES
    memory.most_bytes = 0
    memory.trim()
    assert kept.size == 0


def test_what_was_evicted_is_forgotten_with_its_policy(storage: EvictedPolicies) -> None:
    """A model is published twice a second: the file of evicted ones must not grow."""
    memory = PolicyMemory(0, storage)
    for _ in range(3):
        policy = memory.keep(make_policy(spec("thompson")))
        teach(policy, list(rounds(1, 5)))
        memory.trim()
        assert storage.count() == 1
        del policy
        gc.collect()
        memory.trim()
        assert storage.count() == 0
    assert memory.bytes == 0


@pytest.mark.parametrize("algorithm", LEARNING)
def test_the_stated_size_covers_what_a_policy_keeps(algorithm: str) -> None:
    """The bound is as good as the sizes: what is pickled is a lower bound of what is there."""
    policy = make_policy(spec(algorithm, "CA", "CCA"))
    teach(policy, list(rounds(3, 200)))
    assert policy.size >= len(pickle.dumps(policy)) * 0.5


# --- caches


def test_long_texts_do_not_fill_the_caches_of_texts() -> None:
    """The caches have a number of entries: only where each is short is that a number of bytes."""
    long = "x" * (CACHED_CHARACTERS + 1)
    assert category("colour", long) == (f"colour={long}", 1.0)
    assert category("colour", long) is not category("colour", long)
    assert fields_vector((long, "", "", "", "")) == ((f"segment={long}", 1.0),)
    assert category("colour", "red") is category("colour", "red")


def test_an_entry_too_large_for_a_cache_does_not_empty_it() -> None:
    """1,000 actions with a new price at every call: what the other experiments have stays."""
    cache: Cache[str, int] = Cache()
    cache.put("small", 1, floats=10)
    cache.put("large", 2, floats=CACHE_FLOATS // LARGEST_SHARE + 1)
    assert dict(cache) == {"small": 1}


def test_action_lines_that_come_once_are_not_kept() -> None:
    """A parsed line takes 33 kB: a price of its own at every call would fill any cache with what never comes again."""
    policy = make_policy(spec("squarecb"))
    policy.pmf(Context(), plain_choices(2))
    before = policy.size
    for call in range(50):
        policy.pmf(Context(), [Choice(ActionId("a"), "offer", {"price": call + 0.5}), *plain_choices(2)])
    assert policy.size <= before + 3 * 40_000


def test_cached_slots_of_all_experiments_together_are_bounded() -> None:
    """Each cache has its own bound; thousands of them need a common one."""
    current, policy = Current(), make_policy(spec("thompson"))
    for number in range(4):
        version = sample_version(id=ExperimentId(f"e{number}"))
        current.put(version, Model(policy))
        for unit in range(50 if number else 5):
            request = DecisionRequest(DecisionId(f"d{unit}"), "u", Context(segment=f"s{unit}"))
            decide(request, *current[version.experiment.id])
    filled = [serving.slots.bytes for serving in current.all()]
    current.trim_slots(sum(filled))
    assert [serving.slots.bytes for serving in current.all()] == filled
    current.trim_slots(sum(filled) - 1)
    assert [serving.slots.bytes for serving in current.all()] == [filled[0], 0, 0, 0]


# --- experiments that have ended


class Shop(Process):
    """A process with little memory, and its visitors."""

    def __init__(self, storage: EvictedPolicies) -> None:
        clock = Clock()
        self.policies, self._evicted = PolicyMemory(SMALL, storage), storage
        super().__init__(MemoryLog(clock=clock), clock, memory=self.policies)
        self.count = 0

    def visit(self, units: int = 1, *, id_: ExperimentId = HOME) -> list[Decision]:
        """Decisions; "none" pays."""
        made = []
        for _ in range(units):
            self.count += 1
            context = Context(segment=("new", "vip")[self.count % 2], features={"age": float(self.count % 5)})
            made.append(decide(DecisionRequest(DecisionId(f"d{self.count}"), "u", context), *self.current[id_]))
            (mark,) = self.log.append([made[-1]])
            assert mark is not None
            if made[-1].action == "none":
                self.log.append([NewReward(mark.position, "click", 1.0)])
        return made

    def seal(self) -> None:
        """Until all windows are over, and a step."""
        self.clock.advance(11)
        self.step()

    @property
    def learns(self) -> bool:
        """Whether any policy is left, in memory or evicted."""
        self.step()
        gc.collect()
        self.policies.trim()
        return self.policies.count + self._evicted.count() > 0


@pytest.fixture
def shop(storage: EvictedPolicies) -> Shop:
    """One with the sample experiment, whose policy is squarecb."""
    made = Shop(storage)
    made.apply(sample_experiment(policy=spec("squarecb")))
    return made


def ended(**changes: object) -> Experiment:
    """The sample experiment, ended."""
    return sample_experiment(policy=spec("squarecb"), ended=True, **changes)


def reason_for(call: Callable[[], object]) -> str:
    """The reason of the FailedPrecondition that it raises."""
    with pytest.raises(FailedPrecondition) as raised:
        call()
    return raised.value.reason


def test_an_experiment_that_has_ended_refuses_decisions_and_says_so(shop: Shop) -> None:
    """A frontend that still asks must learn why, and not that there never was such an experiment."""
    shop.apply(ended())
    assert reason_for(shop.visit) == "EXPERIMENT_ENDED"
    shop.restart()
    assert reason_for(shop.visit) == "EXPERIMENT_ENDED"
    with pytest.raises(NotFound):
        shop.visit(id_=ExperimentId("nobody"))


@pytest.mark.parametrize("paused", [True, False])
def test_an_experiment_that_has_ended_is_neither_paused_nor_resumed(shop: Shop, paused: bool) -> None:
    """An emergency brake that is pulled too late must not begin it again."""
    shop.apply(ended())
    assert reason_for(lambda: shop.set_paused(HOME, paused=paused)) == "EXPERIMENT_ENDED"


def test_open_decisions_of_an_ended_experiment_are_learned_and_then_nothing_is_kept(shop: Shop) -> None:
    """Its last visitors buy after its end; what they did is worth as much as what the others did."""
    decided = shop.visit(20)
    shop.step()
    shop.apply(ended())
    shop.step()
    assert shop.learns
    position = shop.log.locate(decided[0].decision_id)
    assert position is not None
    shop.log.append([NewReward(position.position, "click", 0.5)])
    shop.seal()
    assert sum(count for _, count in shop.heard) == 20
    assert not shop.learns
    assert shop.log.models.newest(HOME, spec("squarecb").signature) is not None
    shop.restart()
    assert not shop.learns
    assert sum(count for _, count in shop.heard) == 20


def test_an_ended_experiment_that_was_killed_before_it_had_learned_learns_at_the_next_start(shop: Shop) -> None:
    """SIGKILL costs nothing that is in the log."""
    shop.visit(20)
    shop.apply(ended())
    shop.clock.advance(11)
    shop.restart()
    shop.step()
    assert sum(count for _, count in shop.heard) == 20
    assert not shop.learns


def test_a_frozen_experiment_that_has_ended_is_kept_by_nobody(shop: Shop) -> None:
    """It never learns its last decisions: waiting for that would be waiting for ever."""
    shop.visit(20)
    shop.seal()
    shop.visit(20)
    shop.apply(ended(learning=Learning.FROZEN))
    shop.seal()
    assert not shop.learns


def test_an_ended_experiment_begins_again_with_what_it_had_learned(shop: Shop) -> None:
    """The same model to the last bit as if it had never ended, also over a restart in between."""
    shop.visit(30)
    shop.apply(ended())
    shop.seal()
    shop.restart()
    assert not shop.apply(sample_experiment(policy=spec("squarecb"))).waits
    shop.visit(10)
    shop.seal()
    fresh = Trainer(shop.log, HOME, spec("squarecb"))
    fresh.learn_up_to(shop.log.head().mark)
    assert answers(shop.current[HOME].model.policy) == answers(fresh.model().policy)
    assert shop.current[HOME].model.position > START


def test_an_ended_experiment_with_another_policy_waits_until_that_has_learned(shop: Shop) -> None:
    """As after a pause: until then it refuses, and says that it has ended."""
    shop.visit(30)
    shop.apply(ended())
    shop.seal()
    assert shop.apply(sample_experiment(policy=spec("softmax"))).waits
    assert reason_for(shop.visit) == "EXPERIMENT_ENDED"
    shop.step()
    assert shop.visit()[0].model > START


def test_a_log_with_ended_experiments_replays(tmp_path: Path) -> None:
    """An end is a version as any other: what was decided before it stays provable."""
    with running(tmp_path, *OPTIONS) as server, closing(server.client()) as client:
        client.apply(experiment("e", window=0.2, policy=squarecb()))
        for unit in range(40):
            client.decide("e", f"u{unit}")
        client.apply(experiment("e", window=0.2, policy=squarecb(), state="EXPERIMENT_STATE_ENDED"))
        assert reason_of(status_of(lambda: client.decide("e"))) == "EXPERIMENT_ENDED"
        until(
            lambda: 'decider_sealed_total{experiment="e",group="policy"} 40.0' in client.fetch("/metrics")[1],
            what="sealed",
        )
        metrics = client.fetch("/metrics")[1]
        assert "decider_model_position{" not in metrics
        assert "decider_open_decisions{" not in metrics
        client.apply(experiment("e", window=0.2, policy=squarecb(), state="EXPERIMENT_STATE_ACTIVE"))
        for unit in range(40):
            client.decide("e", f"v{unit}")
        assert server.terminate() == 0
    with closing(open_reader(tmp_path / "log.db")) as log:
        assert verify(log).equal == 80


# --- the limit of experiments


def test_more_experiments_than_the_limit_are_refused_and_ending_one_makes_room(shop: Shop) -> None:
    """A stranger who applies experiments in a loop must not fill the memory; an operator must know the way out."""
    limited = Versions(shop.log, Limits(2))
    limited.apply(sample_experiment(id=ExperimentId("second")))
    with pytest.raises(LimitReached, match=r"third.*2 have not ended.*state ENDED.*--max-experiments") as raised:
        limited.apply(sample_experiment(id=ExperimentId("third")), validate_only=True)
    assert raised.value.reason == "TOO_MANY_EXPERIMENTS"
    assert limited.apply(sample_experiment(id=ExperimentId("second"), description="changed")).changed
    limited.apply(ended())
    assert limited.apply(sample_experiment(id=ExperimentId("third"))).changed
    with pytest.raises(LimitReached):
        limited.apply(sample_experiment(policy=spec("squarecb")))
    with pytest.raises(LimitReached):  # a limit that was lowered ends nothing, and takes nothing new
        Versions(shop.log, Limits(1)).apply(sample_experiment(id=ExperimentId("fourth")))
    assert Versions(shop.log, Limits(1)).apply(sample_experiment(id=ExperimentId("third"), salt="s")).changed


def test_definitions_together_are_bounded_but_a_pause_goes_through(shop: Shop) -> None:
    """2,000 experiments are no bound where each may have megabytes of payloads."""
    large = sample_experiment(
        id=ExperimentId("large"), actions=(Action(ActionId("a"), payload={"text": ["x" * 1000] * 100}),), baseline=None
    )
    size = definition_bytes(large)
    limited = Versions(shop.log, Limits(memory=int(2.5 * size / DEFINITIONS_SHARE)))
    limited.apply(large)
    limited.apply(replace(large, id=ExperimentId("second")))
    with pytest.raises(LimitReached, match=r"third.*shorten payloads.*--memory"):
        limited.apply(replace(large, id=ExperimentId("third")))
    with pytest.raises(LimitReached):
        limited.apply(replace(large, actions=(Action(ActionId("a"), payload={"text": ["x" * 2000] * 100}),)))
    assert limited.set_paused(large.id, paused=True).changed
    assert limited.apply(replace(large, ended=True)).changed
    assert limited.apply(replace(large, id=ExperimentId("third"))).changed


@pytest.mark.parametrize("algorithm", [name for name in LEARNING if not spec(name).resumable])
def test_learners_that_cannot_be_evicted_are_bounded(shop: Shop, algorithm: str) -> None:
    """What does not learn on to the same bits after it was loaded has to stay: so there is room for some only."""
    limited = Versions(shop.log, Limits(memory=int(1.5 * FIXED_BYTES / FIXED_SHARE)))
    first = sample_experiment(id=ExperimentId("first"), policy=spec(algorithm))
    assert limited.apply(first).changed
    with pytest.raises(LimitReached, match="bag, rnd"):
        limited.apply(sample_experiment(id=ExperimentId("second"), policy=spec(algorithm)))
    with pytest.raises(LimitReached):
        limited.apply(sample_experiment(policy=spec(algorithm)))
    assert limited.apply(replace(first, salt="other")).changed
    limited.apply(replace(first, ended=True))
    assert limited.apply(sample_experiment(policy=spec(algorithm))).changed


def test_files_beyond_the_limit_are_refused_one_by_one_until_there_is_room(tmp_path: Path) -> None:
    """One file too many in a folder must not keep the server, or the other files, from starting."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.toml").write_text(TOML.format(name, "active"))
    options = ("--max-experiments", "2", "--experiments", str(folder))
    with running(tmp_path, *OPTIONS, *options) as server, closing(server.client()) as client:
        assert client.decide("b").action.id == "x"
        assert reason_of(status_of(lambda: client.decide("c"))) == "EXPERIMENT_NOT_FOUND"
        assert "c.toml: refused" in server.output
        assert "TOO_MANY" in reason_of(status_of(lambda: client.apply(experiment("d"))))
        (folder / "a.toml").write_text(TOML.format("a", "ended"))
        until(lambda: code_of(status_of(lambda: client.decide("c"))) == "OK", what="there is room")


# --- a server


def resident(server: ServerProcess) -> int:
    """Bytes of memory of its process."""
    statm = Path(f"/proc/{server.process.pid}/statm")
    if not statm.exists():
        pytest.skip("only Linux tells what a process takes")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def invented_categories(call: int, source: Random) -> pb.DecideRequest:
    """100 categories that never came before."""
    request = pb.DecideRequest(experiment="cca", unit_id=f"u{call}")
    for place in range(100):
        request.context.features[f"f{place}"] = f"{source.getrandbits(60):x}" * 4
    return request


def known_numbers(call: int, source: Random) -> pb.DecideRequest:
    """100 numbers."""
    request = pb.DecideRequest(experiment="cca", unit_id=f"u{call}")
    for place in range(100):
        request.context.features[f"n{place}"] = source.random()
    return request


def new_prices(call: int, source: Random) -> pb.DecideRequest:
    """A price of its own for each of 300 actions."""
    request = pb.DecideRequest(experiment="prices", unit_id=f"u{call}")
    for place in range(300):
        request.action_features[f"a{place}"].fields["price"].number_value = source.random()
    return request


@pytest.mark.parametrize("shape", [invented_categories, known_numbers, new_prices])
@pytest.mark.parametrize("policy", ["thompson", "squarecb"])
def test_memory_stays_flat_whatever_legal_requests_come(
    shape: Callable[[int, Random], pb.DecideRequest], policy: str, tmp_path: Path
) -> None:
    """Anybody who may decide could fill the memory with texts that never come again."""
    source, algorithm = Random(1), experiment_pb2.Policy(interactions=["CA", "CCA"] if policy == "thompson" else ["CA"])
    getattr(algorithm, policy).SetInParent()
    with running(tmp_path, *OPTIONS, "--memory", str(LITTLE)) as server, closing(server.client()) as client:
        client.apply(experiment("cca", "a", "b", window=0.5, policy=algorithm))
        client.apply(experiment("prices", *[f"a{place}" for place in range(300)], window=0.5, policy=algorithm))
        for call in range(300):
            answer = client.send(shape(call, source))
            assert answer.reason in (pb.REASON_EXPLORE, pb.REASON_EXPLOIT)
            assert resident(server) < LITTLE


def test_more_models_than_fit_into_memory_are_all_served(tmp_path: Path) -> None:
    """60 experiments of squarecb took a gigabyte; what cannot stay is made anew, and every visitor is answered."""
    with running(tmp_path, *OPTIONS, "--memory", str(LITTLE)) as server, closing(server.client()) as client:
        for number in range(60):
            client.apply(experiment(f"e{number}", window=0.3, policy=squarecb()))
        for turn in range(4):
            for number in range(60):
                assert client.decide(f"e{number}", f"u{turn}").reason != pb.REASON_FALLBACK
                assert resident(server) < LITTLE
        until(
            lambda: 'decider_sealed_total{experiment="e59",group="policy"} 4.0' in client.fetch("/metrics")[1],
            what="all is sealed",
        )
        until(lambda: _learned(client) == 240, what="all is learned")
        assert client.decide("e0").model > 0
        assert resident(server) < LITTLE
        assert server.terminate() == 0
    with closing(open_reader(tmp_path / "log.db")) as log:
        assert verify(log).equal == 241


def _learned(client: GrpcClient) -> float:
    lines = client.fetch("/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("decider_learned_total{"))
