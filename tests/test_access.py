"""Who may do what: tokens, roles, experiments, TLS and certificates, against real server processes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from starlette.routing import Route

from decider.channel import Credentials, credentials_of, open_channel
from decider.client import AsyncClient, Client
from decider.server.access import Access, exposures
from decider.server.certificates import BadCertificates, Certificates
from decider.server.command import main
from decider.server.http.guard import guarded
from decider.server.listeners import FLAGS, SERVICES
from decider.server.roles import METHODS, PATHS, Role
from decider.server.settings import Settings
from decider.server.tokens import BadTokens, new_token, parse_tokens, read_tokens
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as experiments_pb
from simulator.studies.certificates import Pair, authority, issue
from tests.rpc_clients import (
    InProcessClient,
    ServerProcess,
    code_of,
    experiment,
    reason_of,
    refused,
    rows,
    status_of,
    until,
)

OWN, OTHER = "own", "other"
SITE = "https://shop.example"
DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
HEALTH = health_pb2.HealthCheckRequest(service="")

Ask = Callable[[str, str], Message]
"""The request of an RPC about an experiment, or a decision of it."""

REQUESTS: Mapping[str, Ask] = {
    "DeciderService/Decide": lambda e, _: pb.DecideRequest(experiment=e, unit_id="unit"),
    "DeciderService/DecideBatch": lambda e, _: pb.DecideBatchRequest(
        requests=[pb.DecideRequest(experiment=e, unit_id="unit")]
    ),
    "DeciderService/DecideSlate": lambda e, _: pb.DecideSlateRequest(experiment=e, unit_id="unit", slots=[pb.Slot()]),
    "DeciderService/Activate": lambda _, id_: pb.ActivateRequest(decision_id=id_),
    "DeciderService/Reward": lambda _, id_: pb.RewardRequest(decision_id=id_),
    "DeciderService/RewardBatch": lambda _, id_: pb.RewardBatchRequest(requests=[pb.RewardRequest(decision_id=id_)]),
    "DeciderService/LinkUnits": lambda _, __: pb.LinkUnitsRequest(unit_id="unit", same_as="person"),
    "ExperimentService/ApplyExperiment": lambda e, _: experiments_pb.ApplyExperimentRequest(
        experiment=experiment(e, "a", "b")
    ),
    "ExperimentService/GetExperiment": lambda e, _: experiments_pb.GetExperimentRequest(id=e),
    "ExperimentService/ListExperiments": lambda _, __: experiments_pb.ListExperimentsRequest(),
    "ExperimentService/PauseExperiment": lambda e, _: experiments_pb.PauseExperimentRequest(id=e),
    "ExperimentService/ResumeExperiment": lambda e, _: experiments_pb.ResumeExperimentRequest(id=e),
}

ROLES = {
    Role.DECIDE: {"Decide", "DecideBatch", "DecideSlate"},
    Role.REWARD: {"Activate", "Reward", "RewardBatch", "LinkUnits"},
    Role.READ: {"GetExperiment", "ListExperiments"},
    Role.OPERATE: {"ApplyExperiment", "PauseExperiment", "ResumeExperiment"},
}


class Place:
    """A server process with tokens and TLS, an own experiment and another one, each with a decision."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tokens, self._lines = folder, folder / "tokens.toml", ""
        self.ca = authority(folder, "authority")
        pair = issue(folder, "server", self.ca)
        self.root = self.add("root", [*Role])
        tls = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--page-writes", SITE)
        self.server = ServerProcess(folder / "log.db", "--tokens", str(self.tokens), *tls)
        self.db = folder / "log.db"
        for id_ in (OWN, OTHER):
            self.call("ExperimentService/ApplyExperiment", REQUESTS["ExperimentService/ApplyExperiment"](id_, ""))
        self.decisions = {id_: self.decide(id_) for id_ in (OWN, OTHER)}
        self.of_role = {role: self.add(role, [role], [OWN]) for role in Role}
        self.wide = {role: self.add(f"wide-{role}", [role]) for role in Role}
        until(lambda: not self.refuses(self.wide[Role.OPERATE]), what="the last token is known")

    def refuses(self, token: str) -> bool:
        """Whether the server knows no such token."""
        return code_of(self.status("DeciderService/Decide", REQUESTS["DeciderService/Decide"](OTHER, ""), token)) == (
            "UNAUTHENTICATED"
        )

    def refuses_own(self, token: str) -> bool:
        """The same of a token for some experiments."""
        method = "ExperimentService/GetExperiment"
        return code_of(self.status(method, REQUESTS[method](OWN, ""), token)) == "UNAUTHENTICATED"

    def decide(self, id_: str) -> str:
        """The id of a new decision."""
        return str(self.call("DeciderService/Decide", REQUESTS["DeciderService/Decide"](id_, "")).decision_id)

    def add(self, name: str, roles: list[Role], experiments: list[str] = (), until: Any = None) -> str:  # type: ignore[assignment]
        """A new token, which the server knows a moment later."""
        token, lines = new_token(name, roles, experiments, until)
        self.write(self._lines + lines)
        return token

    def write(self, lines: str) -> None:
        """The tokens file."""
        self._lines = lines
        self.tokens.write_text(lines)

    @contextmanager
    def channel(self, token: str = "", **more: Any) -> Iterator[Any]:
        """To the server, with a token or without."""
        with open_channel(
            self.server.target,
            Credentials(token=token, ca=self.ca.cert, **more),
            [("grpc.use_local_subchannel_pool", 1)],
        ) as channel:
            yield channel

    def call(self, method: str, request: Message, token: str | None = None) -> Any:
        """The reply."""
        with self.channel(self.root if token is None else token) as channel:
            return unary(channel, method)(request, timeout=20)

    def status(self, method: str, request: Message, token: str) -> Any:
        """How a call ends; of a batch of one, how that ends."""

        def call() -> None:
            reply = self.call(method, request, token)
            for result in getattr(reply, "results", ()):
                if result.HasField("error"):
                    raise Failed(result.error)

        try:
            return status_of(call)
        except Failed as failed:
            return failed.args[0]

    def fetch(self, path: str, *, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and body over HTTPS."""
        context = ssl.create_default_context(cafile=str(self.ca.cert))
        return fetch(f"https://{self.server.http}{path}", context, method, headers)


class Failed(Exception):
    """A request of a batch."""


def unary(channel: Any, method: str) -> Any:
    """The stub of one of our RPCs."""
    service, _, name = method.partition("/")
    (found,) = [one for one in services() if one.name == service]
    kind = found.methods_by_name[name]
    return channel.unary_unary(
        f"/{found.full_name}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=kind.output_type._concrete_class.FromString,
    )


def services() -> list[Any]:
    """Descriptors of ours."""
    return [one for m in (pb, experiments_pb) for one in m.DESCRIPTOR.services_by_name.values()]


def fetch(
    url: str, context: ssl.SSLContext | None, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Status and body, whatever the status."""
    request = urllib.request.Request(url, method=method, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all that only asks."""
    made = Place(tmp_path_factory.mktemp("access"))
    try:
        yield made
    finally:
        made.server.terminate()


def bearer(token: str) -> dict[str, str]:
    """The header."""
    return {"Authorization": f"Bearer {token}"}


COUNTS = """
select (select count(*) from decisions), (select count(*) from rewards), (select count(*) from activations),
       (select count(*) from experiments), (select count(*) from links)
"""


def written(place: Place) -> list[Any]:
    """How much the log holds, of whatever experiment."""
    return rows(place.db, COUNTS)


def test_every_rpc_and_every_path_has_a_role() -> None:
    """What has no row would be open, or would not start."""
    ours = {f"{service.full_name}/{method.name}" for service in services() for method in service.methods}
    assert {name for name in METHODS if name.startswith("decider.")} == ours
    assert {name.rpartition("/")[0] for name in METHODS} - {*SERVICES, *FLAGS} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert {role for name, role in METHODS.items() if name.startswith(FLAGS)} == {Role.DECIDE}
    assert {name.removeprefix("decider.v1.") for name in ours} == set(REQUESTS)
    for role, names in ROLES.items():
        assert {name.rpartition("/")[2] for name in ours if METHODS[name] is role} == names


def test_the_table_in_the_text_is_the_table_of_the_code() -> None:
    """What a token is good for is read there."""
    text = (Path(__file__).parent.parent / "decider" / "README.md").read_text()
    for role, names in ROLES.items():
        (row,) = re.findall(rf"^\| `{role}` \|(.*?)\|", text, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == names


def test_every_route_of_a_server_has_a_role(place: Place, tmp_path: Path) -> None:
    """A page that is added later must not be open because nobody thought of it: the server does not start."""
    for path, role in PATHS.items():
        known = re.sub(r"\{.*\}", OWN, path)
        assert place.fetch(known)[0] == (200 if role is None else 401), path
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(new_token("root", [*Role], [], None)[1])
    access = Access(Settings(tokens=tokens))
    with pytest.raises(KeyError, match="/later"):
        guarded([Route("/later", lambda _: None)], access)


@pytest.mark.parametrize("method", REQUESTS)
def test_an_rpc_is_for_its_role_and_the_token_s_experiments_alone(place: Place, method: str) -> None:
    """Nothing is decided, changed or read by who may not."""
    ask, needed = REQUESTS[method], METHODS[f"decider.v1.{method}"]
    before = written(place)
    for token in ("", "wrong", *[place.wide[role] for role in Role if role is not needed]):
        status = place.status(method, ask(OWN, place.decisions[OWN]), token)
        expected = ("UNAUTHENTICATED", "NO_TOKEN" if not token else "UNKNOWN_TOKEN")
        if token not in ("", "wrong"):
            expected = ("PERMISSION_DENIED", "ROLE_MISSING")
        assert (code_of(status), reason_of(status)) == expected
    assert needed is not None
    assert written(place) == before
    right = place.status(method, ask(OWN, place.decisions[OWN]), place.of_role[needed])
    if method == "DeciderService/LinkUnits":  # a link holds in every experiment
        assert reason_of(right) == "OTHER_EXPERIMENT"
        assert code_of(place.status(method, ask(OWN, ""), place.wide[needed])) == "OK"
        return
    assert code_of(right) == "OK"
    if method == "ExperimentService/PauseExperiment":
        place.call("ExperimentService/ResumeExperiment", REQUESTS["ExperimentService/ResumeExperiment"](OWN, ""))
    before = written(place)
    other = place.status(method, ask(OTHER, place.decisions[OTHER]), place.of_role[needed])
    if method == "ExperimentService/ListExperiments":
        shown = place.call(method, ask("", ""), place.of_role[needed])
        assert [one.experiment.id for one in shown.experiments] == [OWN]
    elif "experiment" in ask(OTHER, "x").DESCRIPTOR.fields_by_name or needed is not Role.REWARD:
        if needed is Role.REWARD:
            assert reason_of(other) == "DECISION_NOT_FOUND"
        else:
            assert (code_of(other), reason_of(other)) == ("PERMISSION_DENIED", "OTHER_EXPERIMENT")
    else:
        assert reason_of(other) == "DECISION_NOT_FOUND"
    assert written(place) == before


@pytest.mark.parametrize("method", ["DeciderService/Activate", "DeciderService/Reward", "DeciderService/RewardBatch"])
def test_an_error_does_not_tell_whether_another_experiment_has_a_decision(place: Place, method: str) -> None:
    """Ids are often orders or visits: that one exists is nobody else's business."""
    token = place.of_role[Role.REWARD]

    def words(id_: str) -> tuple[str, str]:
        status = place.status(method, REQUESTS[method]("", id_), token)
        return code_of(status), status.message.replace(id_, "ID")

    assert words(place.decisions[OTHER]) == words("nowhere")
    slate = place.call("DeciderService/DecideSlate", REQUESTS["DeciderService/DecideSlate"](OTHER, "")).slate_id
    assert words(slate) == words("nowhere")


def test_of_a_taken_id_nothing_is_told_but_that(place: Place) -> None:
    """An id counts once in a log, so a second decision with it is refused; whose it is stays theirs."""
    token, call = place.of_role[Role.DECIDE], partial(place.call, token=place.root)
    for id_, unit in (("taken-own", "somebody"), ("taken-other", "secret")):
        experiment_id = OWN if id_ == "taken-own" else OTHER
        call("DeciderService/Decide", pb.DecideRequest(experiment=experiment_id, unit_id=unit, decision_id=id_))
        for slots in (1, 3):
            made = pb.DecideSlateRequest(experiment=experiment_id, unit_id=unit, slate_id=f"{id_}-{slots}")
            made.slots.extend([pb.Slot()] * min(slots, 2))
            call("DeciderService/DecideSlate", made)
    before = written(place)

    def told(method: str, request: Any, id_: str) -> str:
        status = place.status(method, request, token)
        assert (code_of(status), reason_of(status)) == ("ALREADY_EXISTS", "DECISION_ID_REUSED")
        assert len(status.details) == 1
        return str(status.message).replace(id_, "ID")

    def decision(id_: str, unit: str) -> set[str]:
        one = pb.DecideRequest(experiment=OWN, unit_id=unit, decision_id=id_)
        batch = pb.DecideBatchRequest(requests=[one])
        return {told("DeciderService/Decide", one, id_), told("DeciderService/DecideBatch", batch, id_)}

    def slate(id_: str, unit: str, slots: int) -> str:
        request = pb.DecideSlateRequest(experiment=OWN, unit_id=unit, slate_id=id_, slots=[pb.Slot()] * slots)
        return told("DeciderService/DecideSlate", request, id_)

    words = "belongs to another unit or experiment; take a new id"
    assert decision("taken-own", "else") | decision("taken-other", "else") == {f"decision_id 'ID' {words}"}
    assert decision("taken-other", "secret") == {f"decision_id 'ID' {words}"}
    ids = ["taken-own-1", "taken-own-3", "taken-other", "taken-other-1", "taken-other-3"]
    others = {slate(id_, "secret" if "other" in id_ else "else", slots) for id_ in ids for slots in (1, 2)}
    assert others == {f"slate_id 'ID' {words}"}
    assert written(place) == before


def test_nobody_s_decision_gets_the_rewards_of_another_experiment_s_slate(place: Place) -> None:
    """Rewards that name a slate go to its slots, and to whatever decision has its id or that of one more slot."""
    slate = pb.DecideSlateRequest(experiment=OTHER, unit_id="u", slate_id="page", slots=[pb.Slot(), pb.Slot()])
    place.call("DeciderService/DecideSlate", slate)
    for id_ in ("page", "page/2", "page/0", "page/19"):
        request = pb.DecideRequest(experiment=OWN, unit_id="u", decision_id=id_)
        for method, sent in (
            ("DeciderService/Decide", request),
            ("DeciderService/DecideBatch", pb.DecideBatchRequest(requests=[request])),
        ):
            assert reason_of(place.status(method, sent, place.of_role[Role.DECIDE])) == "DECISION_ID_REUSED"
    (before,) = rows(place.db, "select count(*) from rewards")
    place.call("DeciderService/Reward", pb.RewardRequest(decision_id="page", reward_id="of-page"))
    assert rows(place.db, "select count(*) from rewards") == [(before[0] + 2,)]
    assert len(place.call("DeciderService/DecideSlate", slate).decisions) == 2


def test_an_error_names_no_experiment_that_the_caller_may_not_read(place: Place) -> None:
    """Where nobody is asked who calls, it helps with a misspelt name; here it would be a list."""
    token = place.add("both", [*Role], [OWN, "missing"])
    until(lambda: not place.refuses_own(token), what="the token is known")
    for method in ("DeciderService/Decide", "ExperimentService/GetExperiment", "ExperimentService/PauseExperiment"):
        status = place.status(method, REQUESTS[method]("missing", ""), token)
        assert reason_of(status) == "EXPERIMENT_NOT_FOUND"
        assert OTHER not in status.message
    reward = pb.RewardRequest(unit_id="unit", experiment="missing")
    assert OTHER not in place.status("DeciderService/Reward", reward, token).message


def test_a_page_of_an_experiment_says_nothing_of_the_others(tmp_path: Path) -> None:
    """What /readyz tells to those alone who may read everything stands on no other page either."""
    folder, tokens = tmp_path / "experiments", tmp_path / "tokens.toml"
    folder.mkdir()
    (folder / "secret-plan.toml").write_text('id = "secret-plan"\n')
    (folder / "own.toml").write_text(f'id = "{OWN}"\nactions = [{{ id = "a" }}, {{ id = "b" }}]\n')
    (root, first), (token, second) = (
        new_token(name, [*Role], experiments, None) for name, experiments in (("root", []), ("own", [OWN]))
    )
    tokens.write_text(first + second)
    client = InProcessClient(tmp_path / "log.db", tokens=tokens, experiments=(folder,))

    def page(token: str) -> str:
        status, text = fetch(f"http://{client.http}/experiments/{OWN}", None, headers=bearer(token))
        assert status == 200
        return text

    try:
        assert "secret-plan" in page(root)
        assert "secret-plan" not in page(token)
        assert "The server takes calls." in page(token)
    finally:
        client.close()


def test_a_restricted_token_s_early_activation_does_not_reach_a_later_decision_of_another(place: Place) -> None:
    """Who may not activate a decision may not do so beforehand either."""
    request = pb.ActivateRequest(decision_id="later", action="b")
    status = place.status("DeciderService/Activate", request, place.of_role[Role.REWARD])
    assert reason_of(status) == "DECISION_NOT_FOUND"
    place.call("DeciderService/Decide", pb.DecideRequest(experiment=OTHER, unit_id="u", decision_id="later"))
    outcome = place.call("DeciderService/Activate", pb.ActivateRequest(decision_id="later")).outcome
    assert outcome == pb.ACTIVATION_OUTCOME_ACTIVATED


def test_a_batch_decides_what_is_the_token_s_and_refuses_the_rest(place: Place) -> None:
    """Each result has its own status, here as everywhere."""
    requests = [pb.DecideRequest(experiment=id_, unit_id="unit") for id_ in (OWN, OTHER, "missing")]
    reply = place.call(
        "DeciderService/DecideBatch", pb.DecideBatchRequest(requests=requests), place.of_role[Role.DECIDE]
    )
    assert [code_of(one.error) for one in reply.results] == ["OK", "PERMISSION_DENIED", "PERMISSION_DENIED"]


def test_a_reward_by_unit_of_a_restricted_token_names_its_experiment(place: Place) -> None:
    """Without a name it would count everywhere."""
    for id_ in (OWN, OTHER):
        message = experiment(id_, "a", "b")
        message.reward.attribution = experiment_pb2.ATTRIBUTION_LAST
        place.call("ExperimentService/ApplyExperiment", experiments_pb.ApplyExperimentRequest(experiment=message))
        place.decide(id_)
    token = place.of_role[Role.REWARD]

    def code(**fields: Any) -> str:
        return reason_of(place.status("DeciderService/Reward", pb.RewardRequest(unit_id="unit", **fields), token))

    assert code() == code(experiment=OTHER) == "OTHER_EXPERIMENT"
    assert code(experiment=OWN) == ""
    everywhere = pb.RewardRequest(unit_id="unit", reward_id="order", value=1.0)
    told = place.call("DeciderService/Reward", everywhere)
    assert len(told.decision_ids) >= 2
    assert code(experiment=OWN, reward_id="order") == "OTHER_EXPERIMENT"
    assert code(experiment=OWN, reward_id="order", retract=True) == "OTHER_EXPERIMENT"


def test_health_is_for_everybody_and_reflection_for_readers(place: Place) -> None:
    """A balancer has no token; what services there are is for who may read."""
    with place.channel() as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(HEALTH, timeout=20).status
        watch = health_pb2_grpc.HealthStub(channel).Watch(HEALTH)
        assert next(watch).status
        watch.cancel()

    def ask(token: str) -> Any:
        with place.channel() as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            metadata = [("authorization", f"Bearer {token}")] if token else []
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            return status_of(lambda: next(stub.ServerReflectionInfo(iter([question]), metadata=metadata, timeout=20)))

    assert code_of(ask("")) == "UNAUTHENTICATED"
    assert code_of(ask(place.of_role[Role.DECIDE])) == "PERMISSION_DENIED"
    assert code_of(ask(place.of_role[Role.READ])) == "OK"


def test_what_is_refused_is_counted(place: Place) -> None:
    """An attack is seen where errors are seen."""
    place.status("DeciderService/Decide", REQUESTS["DeciderService/Decide"](OWN, ""), "wrong")
    _, text = place.fetch("/metrics", **bearer(place.wide[Role.READ]))
    assert re.search(r'handled_total\{grpc_code="Unauthenticated",grpc_method="Decide".*\} [1-9]', text)


@pytest.mark.parametrize("path", ["/metrics", "/", f"/experiments/{OWN}", "/decisions/{own}", "/decisions/{own}.json"])
def test_a_page_is_for_readers_alone(place: Place, path: str) -> None:
    """A context is somebody's."""
    path = path.replace("{own}", place.decisions[OWN])
    assert place.fetch(path)[0] == 401
    assert place.fetch(path, **bearer("wrong"))[0] == 401
    assert place.fetch(f"{path}?access_token={place.root}&token={place.root}")[0] == 401
    assert place.fetch(path, **bearer(place.wide[Role.OPERATE]))[0] == 403
    assert place.fetch(path, **bearer(place.wide[Role.READ]))[0] == 200
    whole = path in ("/", "/metrics")
    assert place.fetch(path, **bearer(place.of_role[Role.READ]))[0] == (403 if whole else 200)


def test_pages_of_another_experiment_are_not_told_from_none(place: Place) -> None:
    """Neither an experiment nor a decision."""
    token = bearer(place.of_role[Role.READ])
    assert place.fetch(f"/experiments/{OTHER}", **token)[0] == 403
    assert place.fetch("/experiments/missing", **token)[0] == 403
    there, nowhere = place.decisions[OTHER], "nowhere"
    slate = place.call("DeciderService/DecideSlate", REQUESTS["DeciderService/DecideSlate"](OTHER, "")).slate_id
    said = {
        (status, text.replace(id_, "ID"))
        for id_ in (there, slate, f"{slate}/0", nowhere)
        for status, text in [place.fetch(f"/decisions/{id_}.json", **token)]
    }
    assert [status for status, _ in said] == [404]


def test_a_change_from_the_page_is_for_operators_of_the_experiment(place: Place) -> None:
    """The site that a browser names says nothing about who sits in front of it."""
    before = written(place)

    def send(id_: str, token: str) -> int:
        form = {"Origin": SITE, "Content-Type": "application/x-www-form-urlencoded"}
        headers = {**form, **(bearer(token) if token else {})}
        return place.fetch(f"/experiments/{id_}?do=pause", method="POST", **headers)[0]

    assert send(OWN, "") == send(OWN, "wrong") == 401
    assert send(OWN, place.wide[Role.READ]) == send(OTHER, place.of_role[Role.OPERATE]) == 403
    assert send(OWN, place.of_role[Role.OPERATE]) == 400  # it is let in, and the form is empty
    assert written(place) == before


def test_probes_answer_everybody_and_say_why_to_readers_alone(place: Place) -> None:
    """The text names experiments and files."""
    assert place.fetch("/healthz") == (200, "ok\n")
    assert place.fetch("/readyz") == (200, "ok\n")
    assert place.fetch("/readyz", **bearer("wrong")) == (200, "ok\n")
    place.write(place._lines + "broken")
    try:
        until(lambda: "no TOML" in place.fetch("/readyz", **bearer(place.root))[1], what="the bad file is told")
        assert place.fetch("/readyz") == (200, "ok\n")
        assert place.fetch("/readyz", **bearer(place.of_role[Role.READ])) == (200, "ok\n")
        metrics = place.fetch("/metrics", **bearer(place.root))[1]  # and the last good tokens hold
        assert 'decider_access_problem{files="tokens"} 1.0' in metrics
        assert "tokens from before still hold" in place.server.output
    finally:
        place.write(place._lines.removesuffix("broken"))
    until(lambda: "no TOML" not in place.fetch("/readyz", **bearer(place.root))[1], what="the good file is read")


def test_a_token_ends_without_a_restart(place: Place) -> None:
    """Whoever left must be out within a second or two; a day that is set beforehand needs nobody."""
    lines, soon = place._lines, datetime.now(UTC) + timedelta(seconds=4)
    short, removed = place.add("short", [Role.DECIDE], until=soon), place.add("removed", [Role.DECIDE])
    until(lambda: not place.refuses(removed), what="the new tokens are known")
    place.write(lines)
    until(lambda: place.refuses(removed), what="the removed one is unknown")
    place.add("other", [Role.DECIDE])
    old = new_token("old", [Role.DECIDE], [], datetime(2026, 1, 1, tzinfo=UTC))
    place.write(place._lines + old[1])
    request = REQUESTS["DeciderService/Decide"](OWN, "")
    until(
        lambda: reason_of(place.status("DeciderService/Decide", request, old[0])) == "TOKEN_EXPIRED",
        what="it is known, and too old",
    )
    assert short
    place.write(lines)


def test_streams_and_calls_that_have_not_begun_end_with_their_token(tmp_path: Path) -> None:
    """Who is out must not go on with what was opened before: neither ask on, nor send a request for which only the
    headers have come. Health has no token, and its watches stay."""
    tokens = tmp_path / "tokens.toml"
    (stays, first), (goes, second) = (new_token(name, [*Role], [], None) for name in ("stays", "goes"))
    ends, third = new_token("ends", [*Role], [], datetime.now(UTC) + timedelta(seconds=3))
    tokens.write_text(first + second + third)
    client = InProcessClient(tmp_path / "log.db", tokens=tokens)
    come = threading.Event()

    def questions() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        come.wait()

    def late() -> Iterator[bytes]:
        come.wait()
        yield pb.RewardRequest(decision_id=decision).SerializeToString()

    def opened(token: str) -> tuple[Any, Any]:
        metadata = [("authorization", f"Bearer {token}")]
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        stream = stub.ServerReflectionInfo(questions(), metadata=metadata)
        assert next(stream).list_services_response.service
        reward = client.channel.stream_unary("/decider.v1.DeciderService/Reward").future(late(), metadata=metadata)
        return stream, reward

    try:
        with open_channel(client.target, Credentials(token=stays)) as channel:
            apply, decide = "ExperimentService/ApplyExperiment", "DeciderService/Decide"
            unary(channel, apply)(REQUESTS[apply](OWN, ""), timeout=20)
            decision = unary(channel, decide)(REQUESTS[decide](OWN, ""), timeout=20).decision_id
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(HEALTH)
        assert next(watch).status
        kept, gone, ended = (opened(token) for token in (stays, goes, ends))
        until(lambda: len(client.server.grpc_port._intake._arriving) == 3, what="the headers have come")
        tokens.write_text(first + third)
        for (stream, reward), reason in ((gone, "UNKNOWN_TOKEN"), (ended, "TOKEN_EXPIRED")):
            for status in (status_of(partial(next, stream)), status_of(partial(reward.result, 20))):
                assert (code_of(status), reason_of(status)) == ("UNAUTHENTICATED", reason)
        assert not any(call.done() for call in (*kept, watch))
        come.set()
        assert kept[1].result(20)
        assert rows(client.db, "select count(*) from rewards") == [(1,)]
    finally:
        come.set()
        client.close()


def test_neither_tokens_nor_hashes_nor_the_file_are_in_the_output(place: Place) -> None:
    """Output goes to places that more people read than may call."""
    place.status("DeciderService/Decide", REQUESTS["DeciderService/Decide"](OWN, ""), "secret-of-somebody")
    secrets = [place.root, "secret-of-somebody", str(place.tokens), "server.key"]
    secrets += re.findall(r'sha256 = "(\w+)"', place._lines)
    assert not [one for one in secrets if one in place.server.output]


def test_every_change_says_which_token_made_it(place: Place) -> None:
    """What a caller says of itself proves nothing."""
    request = experiments_pb.PauseExperimentRequest(id=OWN, author="ann", note="why")
    made = place.call("ExperimentService/PauseExperiment", request, place.of_role[Role.OPERATE]).experiment
    assert made.author == "operate (for ann)"
    resume = experiments_pb.ResumeExperimentRequest(id=OWN)
    assert place.call("ExperimentService/ResumeExperiment", resume, place.root).experiment.author == "root"
    assert ("operate (for ann)", "why") in rows(place.db, "select author, note from version_notes")


def test_a_client_without_tls_or_with_another_authority_gets_nothing(place: Place, tmp_path: Path) -> None:
    """The port takes TLS alone, and a client does not talk to whoever answers."""
    stranger = authority(tmp_path, "stranger")
    for credentials in (Credentials(token=place.root), Credentials(token=place.root, ca=stranger.cert)):
        with open_channel(place.server.target, credentials) as channel:
            call = partial(unary(channel, "DeciderService/Decide"), REQUESTS["DeciderService/Decide"](OWN, ""))
            assert code_of(status_of(partial(call, timeout=5))) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    with pytest.raises(OSError, match=r"."):
        fetch(f"http://{place.server.http}/healthz", None)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(f"https://{place.server.http}/healthz", ssl.create_default_context(cafile=str(stranger.cert)))


def test_both_clients_send_token_and_authority(place: Place, tmp_path: Path) -> None:
    """The token may come from a file, which is read again when it changes."""
    file = tmp_path / "token"
    file.write_text("wrong\n")
    with Client(place.server.target, timeout=20, token_file=file, ca=place.ca.cert) as client:
        assert client.decide(OWN, "unit", fallback="a").decision_id == ""
        assert client.reward(place.decisions[OWN], "reward", reward_id="waits") == "queued"
        file.write_text(f"{place.root}\n")
        until(lambda: client.decide(OWN, "unit", fallback="a").decision_id, what="the new token is sent")
        assert client.flush(20)
        assert client.stub.Decide(pb.DecideRequest(experiment=OWN, unit_id="unit")).decision_id
    assert ("waits",) in rows(place.db, "select reward_id from rewards")

    async def ask() -> str:
        async with AsyncClient(place.server.target, timeout=20, token=place.root, ca=place.ca.cert) as client:
            return (await client.decide(OWN, "unit")).decision_id

    assert asyncio.run(ask())


def test_commands_send_token_and_authority(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As options or from the environment."""
    for name in ("DECIDER_TOKEN", "DECIDER_TOKEN_FILE", "DECIDER_CA"):
        monkeypatch.setenv(name, "")  # what the options set is gone after the test
    (tmp_path / "token").write_text(place.root)
    files = ("--token-file", str(tmp_path / "token"), "--ca", str(place.ca.cert))
    target = ("--target", place.server.target)
    got = CliRunner().invoke(main, ["get", OWN, *target, *files])
    assert got.exit_code == 0, got.output
    assert 'id = "own"' in got.output
    monkeypatch.setenv("DECIDER_TOKEN_FILE", "")
    monkeypatch.setenv("DECIDER_TOKEN", place.of_role[Role.READ])
    denied = CliRunner().invoke(main, ["pause", OWN, *target])
    assert denied.exit_code == 1
    assert "PERMISSION_DENIED" in denied.output
    monkeypatch.setenv("DECIDER_TOKEN", "")
    assert "--token-file names" in CliRunner().invoke(main, ["get", OWN, *target]).output
    monkeypatch.setenv("DECIDER_CA", "")
    assert "one that takes TLS only needs --ca" in CliRunner().invoke(main, ["get", OWN, *target]).output


def test_doctor_says_what_a_server_tells_to_its_token(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hidden must not be taken for nothing."""
    monkeypatch.setenv("DECIDER_CA", str(place.ca.cert))

    def doctor(token: str) -> str:
        monkeypatch.setenv("DECIDER_TOKEN", token)
        return CliRunner().invoke(main, ["doctor", "--db", str(place.db), "--http", place.server.http]).output

    place.write(place._lines + "broken")
    try:
        until(lambda: "no TOML" in doctor(place.root), what="who may read everything hears of the bad file")
        for token in ("", "wrong", place.of_role[Role.READ], place.wide[Role.OPERATE]):
            said = doctor(token)
            assert "no TOML" not in said
            assert "/readyz hides its text from this caller" in said
    finally:
        place.write(place._lines.removesuffix("broken"))
    until(lambda: "/readyz" not in doctor(place.root), what="nothing is hidden, and nothing wrong")
    monkeypatch.setenv("DECIDER_CA", "")
    assert "does not answer" in doctor(place.root)  # it speaks TLS alone


def test_the_doctor_asks_a_server_with_tokens_and_tls(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them it said that the server does not answer; without a token a server says "ok" to everybody."""
    for name in ("DECIDER_TOKEN", "DECIDER_TOKEN_FILE", "DECIDER_CA"):
        monkeypatch.setenv(name, "")
    (tmp_path / "token").write_text(place.root)

    def doctor(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["doctor", "--http", place.server.http, *more])
        return done.exit_code, done.stdout

    code, said = doctor()
    assert (code, "does not answer" in said, "--ca FILE" in said) == (1, True, True)
    ca, token = ("--ca", str(place.ca.cert)), ("--token-file", str(tmp_path / "token"))
    assert doctor(*ca, *token) == (0, ALL_WELL)
    code, said = doctor(*ca)
    assert (code, said.endswith(ALL_WELL)) == (0, True), "with a note where there is text that it hides"
    place.write(place._lines + "broken")
    try:
        until(lambda: "no TOML" in doctor(*ca, *token)[1], what="the bad file is told")
    finally:
        place.write(place._lines.removesuffix("broken"))
    until(lambda: doctor(*ca, *token)[0] == 0, what="the good file is read")


ALL_WELL = (
    "nothing stands in the way of learning, as far as the server says; the log, which shows more, was not read "
    "(--db LOG)\n"
)


def test_the_token_command_prints_a_token_once_and_the_lines_for_the_file(place: Place) -> None:
    """The file is of hashes: whoever reads it cannot call."""
    made = CliRunner().invoke(main, ["token", "cli", "--role", "decide", "--experiment", OWN, "--until", "2099-01-01"])
    token = re.search(r"shown only here: (\S+)", made.stderr)
    assert token
    assert token[1] not in made.stdout
    (entry,) = [entry for _, entry in parse_tokens(made.stdout.encode()).by_digest.values()]
    assert (entry.rights.name, entry.rights.roles) == ("cli", frozenset({Role.DECIDE}))
    place.write(place._lines + made.stdout)
    until(lambda: not place.refuses(token[1]), what="the server takes it")
    assert "name: must be" in CliRunner().invoke(main, ["token", 'a"b', "--role", "read"]).stderr


def test_the_token_command_keeps_a_token_that_somebody_uses(tmp_path: Path) -> None:
    """Its only copy may be in that file."""
    (tmp_path / "a.token").write_text("in use")
    made = CliRunner().invoke(main, ["token", "a", "--role", "read", "--token-file", str(tmp_path / "a.token")])
    assert (made.exit_code, made.stdout) == (1, "")
    assert "is there already; another token may be in it" in made.stderr
    assert (tmp_path / "a.token").read_text() == "in use"


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("[[token]]\n", "another key"),
        ("[[tokens]]\nname = 'a'\n", "roles"),
        ("[[tokens]]\nname = 'a'\nroles = []\nsha256 = '00'", "roles"),
        ("[[tokens]]\nname = 'a'\nroles = ['admin']\nsha256 = '00'", "roles"),
        ("[[tokens]]\nname = 'a'\nroles = ['read']\nsha256 = '00'", "sha256"),
        (f"[[tokens]]\nname = ''\nroles = ['read']\nsha256 = '{'0' * 64}'", "name"),
        (f"[[tokens]]\nname = 'a'\nroles = ['read']\nexperiments = []\nsha256 = '{'0' * 64}'", "experiments"),
        (f"[[tokens]]\nname = 'a'\nroles = ['read']\nuntil = 2027-01-01\nsha256 = '{'0' * 64}'", "until"),
        (
            f"[[tokens]]\nname = 'a'\nroles = ['read']\nuntil = 9999-12-31T23:00:00-05:00\nsha256 = '{'0' * 64}'",
            "until",
        ),
        ("[[tokens]]\nname = 'a'\nroles = ['read']\ntoken = 'secret'", "another key"),
        (f"[[tokens]]\nname = 'a'\nroles = ['read']\nsha256 = '{'0' * 64}'\n" * 2, "further above"),
        ("[[certificates]]\nname = 'a'\nroles = ['read']\n" * 2, "further above"),
        ("tokens = 1", "tokens"),
        ("", "nobody"),
        ("\x00", "TOML"),
    ],
)
def test_a_file_that_does_not_say_exactly_who_may_what_is_refused(lines: str, word: str) -> None:
    """A misspelt `experiments` would open every experiment."""
    with pytest.raises(BadTokens, match=word) as caught:
        parse_tokens(lines.encode())
    assert "secret" not in str(caught.value)


def test_a_pipe_in_the_place_of_a_file_holds_up_nobody(authorities: tuple[Path, Pair, Pair], tmp_path: Path) -> None:
    """The thread that looks at tokens and certificates waited for a writer: removed tokens worked on, and nothing said
    so."""
    pipe, (_, right, _) = tmp_path / "pipe", authorities
    os.mkfifo(pipe)
    with pytest.raises(BadTokens, match="no regular file"):
        read_tokens(pipe)
    with pytest.raises(BadCertificates, match="no regular file"):
        Certificates(certificate=right.cert, key=pipe, client_ca=None)


def test_a_key_that_grpc_does_not_take_is_told(authorities: tuple[Path, Pair, Pair], tmp_path: Path) -> None:
    """gRPC kept the old pair, and nothing said so; a start failed as if the address were taken."""
    _, right, _ = authorities
    files = {"certificate": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    files["certificate"].write_bytes(right.cert.read_bytes())
    files["key"].write_bytes(right.key.read_bytes())
    serving = Certificates(**files, client_ca=None)
    command = ["openssl", "req", "-x509", "-newkey", "ed448", "-nodes", "-subj", "/CN=x"]
    subprocess.run([*command, "-keyout", files["key"], "-out", files["certificate"]], check=True, capture_output=True)
    with pytest.raises(BadCertificates, match="--tls-key and --tls-cert: gRPC does not take this key"):
        Certificates(**files, client_ca=None)
    assert not serving.look()  # two looks must agree
    for _ in range(2):
        with pytest.raises(BadCertificates, match="gRPC does not take this key"):
            serving.look()
    files["certificate"].write_bytes(right.cert.read_bytes())
    files["key"].write_bytes(right.key.read_bytes())
    assert not any([serving.look(), serving.look()])  # what it serves with


def test_a_wrong_file_stops_a_start(tmp_path: Path) -> None:
    """Without it nobody would be asked, or nobody let in."""
    (tmp_path / "tokens.toml").write_text("[[tokens]]\n")
    code, output = refused(tmp_path / "log.db", "--tokens", str(tmp_path / "tokens.toml"))
    assert code == 1
    assert "[[tokens]] number 1" in output
    assert "tokens.toml" not in output


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pair, Pair]:
    """A folder, the right authority, and another one."""
    folder = tmp_path_factory.mktemp("authorities")
    return folder, authority(folder, "right"), authority(folder, "wrong")


def test_with_mutual_tls_only_certificates_of_the_authority_are_let_in(
    authorities: tuple[Path, Pair, Pair], tmp_path: Path
) -> None:
    """Who calls is in the certificate, which also says who made a change. Certificates are changed while serving."""
    folder, right, wrong = authorities
    server, ann = issue(tmp_path, "server", right), issue(folder, "ann", right)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(right.cert.read_bytes())
    tls = ("--tls-cert", str(server.cert), "--tls-key", str(server.key), "--tls-client-ca", str(ca))
    process = ServerProcess(tmp_path / "log.db", *tls)

    def call(shown: Pair | None, ca: Path = right.cert) -> Any:
        cert, key = (shown.cert, shown.key) if shown else (None, None)
        credentials = credentials_of(ca=ca, cert=cert, key=key)
        with open_channel(process.target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            request = REQUESTS["ExperimentService/ApplyExperiment"](OWN, "")
            return unary(channel, "ExperimentService/ApplyExperiment")(request, timeout=5)

    def page(path: str, shown: Pair | None, ca: Path = right.cert) -> int:
        context = ssl.create_default_context(cafile=str(ca))
        if shown is not None:
            context.load_cert_chain(shown.cert, shown.key)
        return fetch(f"https://{process.http}{path}", context)[0]

    try:
        assert call(ann).applied.author == "ann"
        for shown in (None, issue(folder, "eve", wrong), issue(folder, "late", right, days=-1)):
            assert code_of(status_of(partial(call, shown))) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        odd = issue(folder, "odd", right, subject="/CN=shop\x1b[2J")  # it would be in logs and terminals
        assert code_of(status := status_of(partial(call, odd))) == "UNAUTHENTICATED"
        assert reason_of(status) == "NO_CERTIFICATE"
        assert page("/metrics", odd) == 401
        assert page("/metrics", ann) == 200
        assert page("/metrics", None) == 401
        assert page("/healthz", None) == 200
        with pytest.raises((urllib.error.URLError, OSError)):
            page("/metrics", issue(folder, "eve", wrong))

        server.key.write_text("half a key")  # what is being written is not taken
        until(lambda: "still hold" in process.output, what="the problem is told")
        assert call(ann).applied.version
        new = issue(tmp_path / "new", "server", wrong)
        ca.write_bytes(wrong.cert.read_bytes())
        server.cert.write_bytes(new.cert.read_bytes())
        server.key.write_bytes(new.key.read_bytes())
        eve = issue(folder, "eve", wrong)
        until(lambda: code_of(status_of(partial(call, eve, wrong.cert))) == "OK", what="the new ones serve")
        assert code_of(status_of(partial(call, ann, wrong.cert))) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        assert page("/metrics", eve, wrong.cert) == 200
        with pytest.raises((urllib.error.URLError, OSError)):
            page("/metrics", ann, wrong.cert)
    finally:
        assert process.terminate() == 0


def test_a_certificate_without_a_common_name_is_known_by_its_other_name(
    authorities: tuple[Path, Pair, Pair], tmp_path: Path
) -> None:
    """Authorities of today leave the common name out. Both ports take the same name."""
    folder, right, _ = authorities
    server, nameless = issue(folder, "server", right), issue(folder, "nameless", right, subject="/O=shop")
    client = InProcessClient(tmp_path / "log.db", tls_cert=server.cert, tls_key=server.key, tls_client_ca=right.cert)
    context = ssl.create_default_context(cafile=str(right.cert))
    context.load_cert_chain(nameless.cert, nameless.key)
    credentials = Credentials(ca=right.cert, cert=nameless.cert, key=nameless.key)
    try:
        with open_channel(client.target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            apply = "ExperimentService/ApplyExperiment"
            assert unary(channel, apply)(REQUESTS[apply](OWN, ""), timeout=20).applied.author == "127.0.0.1"
        assert fetch(f"https://{client.http}/metrics", context)[0] == 200
    finally:
        client.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_outlives_the_authority_of_its_certificate(
    authorities: tuple[Path, Pair, Pair], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A session that is taken up again shows no certificate: for two hours its holder made new connections."""
    folder, right, wrong = authorities
    server, ann, ca = issue(tmp_path, "server", right), issue(folder, "ann", right), tmp_path / "ca.pem"
    ca.write_bytes(right.cert.read_bytes())
    context = ssl.create_default_context(cafile=str(right.cert))
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(ann.cert, ann.key)
    tls = ("--tls-cert", str(server.cert), "--tls-key", str(server.key), "--tls-client-ca", str(ca))
    process = ServerProcess(tmp_path / "log.db", *tls)

    def ask(session: ssl.SSLSession | None = None) -> tuple[bytes, ssl.SSLSession | None]:
        host, _, port = process.http.rpartition(":")
        with (
            socket.create_connection((host, int(port)), 20) as sock,
            context.wrap_socket(sock, server_hostname=host, session=session) as wrapped,
        ):
            wrapped.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(partial(wrapped.recv, 65_536), b""))
            return answer.partition(b"\r\n")[0], wrapped.session

    try:
        first, session = ask()
        assert first == b"HTTP/1.1 200 OK"
        ca.write_bytes(wrong.cert.read_bytes())
        until(lambda: "read anew" in process.output, what="the other authority holds")
        try:
            again = ask(session)[0]
        except OSError:
            again = b""
        assert again in (b"", b"HTTP/1.1 401 Unauthorized")
    finally:
        assert process.terminate() == 0


def test_a_certificate_may_have_roles_as_a_token_has(authorities: tuple[Path, Pair, Pair], tmp_path: Path) -> None:
    """With both files, the one says who calls and the other what they may."""
    folder, right, _ = authorities
    server, ann, bob = (issue(folder, name, right) for name in ("server", "ann", "bob"))
    tokens = tmp_path / "tokens.toml"
    token, lines = new_token("ci", [Role.OPERATE], [], None)
    tokens.write_text(f'{lines}[[certificates]]\nname = "ann"\nroles = ["read"]\nexperiments = ["own"]\n')
    client = InProcessClient(
        tmp_path / "log.db", tls_cert=server.cert, tls_key=server.key, tls_client_ca=right.cert, tokens=tokens
    )

    def status(shown: Pair, method: str, id_: str, token: str = "") -> str:
        credentials = Credentials(token=token, ca=right.cert, cert=shown.cert, key=shown.key)
        with open_channel(client.target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = partial(unary(channel, method), REQUESTS[method](id_, ""), timeout=20)
            found = status_of(call)
            return reason_of(found) or code_of(found)

    try:
        assert status(bob, "ExperimentService/ApplyExperiment", OWN, token) == "OK"
        assert status(ann, "ExperimentService/GetExperiment", OWN) == "OK"
        assert status(ann, "ExperimentService/GetExperiment", OTHER) == "OTHER_EXPERIMENT"
        assert status(ann, "ExperimentService/PauseExperiment", OWN) == "ROLE_MISSING"
        assert status(bob, "ExperimentService/GetExperiment", OWN) == "NO_TOKEN"
    finally:
        client.close()


def test_the_limit_of_calls_is_the_token_s_wherever_it_calls_from(tmp_path: Path) -> None:
    """Two shops behind one address do not shut each other out."""
    tokens = tmp_path / "tokens.toml"
    (one, first), (two, second) = (new_token(name, [*Role], [], None) for name in ("one", "two"))
    tokens.write_text(first + second)
    client = InProcessClient(tmp_path / "log.db", tokens=tokens, max_caller_rpcs=2)
    try:
        with (
            open_channel(client.target, Credentials(token=one)) as ones,
            open_channel(client.target, Credentials(token=two)) as twos,
        ):
            apply = "ExperimentService/ApplyExperiment"
            unary(ones, apply)(REQUESTS[apply](OWN, ""), timeout=20)
            client.wait_until_idle()
            ask = REQUESTS["DeciderService/Decide"](OWN, "")
            with closing(sqlite3.connect(client.db, isolation_level=None)) as other:
                other.execute("begin immediate")
                waiting = [unary(ones, "DeciderService/Decide").future(ask, timeout=20) for _ in range(2)]
                until(lambda: client.server.grpc_port._intake._calls.count == 2, what="both wait")
                full = status_of(lambda: unary(ones, "DeciderService/Decide")(ask, timeout=20))
                assert code_of(full) == "RESOURCE_EXHAUSTED"
                more = unary(twos, "DeciderService/Decide").future(ask, timeout=20)
                until(lambda: client.server.grpc_port._intake._calls.count == 3, what="the other token's is taken")
                other.execute("rollback")
            assert all(call.result().decision_id for call in [*waiting, more])
    finally:
        client.close()


def test_a_port_that_others_reach_says_so_unless_somebody_is_asked(tmp_path: Path) -> None:
    """Loopback is the default; the day somebody opens the port must not be a silent one."""
    file = tmp_path / "x"
    assert not exposures(Settings())
    assert not exposures(Settings(listen="[::1]:1", http="localhost:1"))
    assert "anybody who reaches 0.0.0.0:1" in exposures(Settings(listen="0.0.0.0:1"))[0]
    assert "anybody" in exposures(Settings(http="[::]:1", tls_cert=file, tls_key=file))[0]
    assert "without encryption" in exposures(Settings(listen="shop:1", tokens=file))[0]
    assert not exposures(Settings(listen="shop:1", tokens=file, tls_cert=file, tls_key=file))
    client = InProcessClient(tmp_path / "log.db", listen="0.0.0.0:0")
    try:
        assert "anybody who reaches 0.0.0.0:0" in client.fetch("/readyz")[1]
    finally:
        client.close()
