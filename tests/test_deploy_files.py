"""The units, container file and manifests that are shipped: their programs read them, and they fit the server."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from decider.errors import InvalidArgument
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.server.command import main
from decider.server.settings import Settings, split_address, table
from simulator.commands.group import main as simulator
from simulator.studies.certificates import authority, issue
from tests.rpc_clients import ServerProcess, fetch, until
from tests.test_architecture import ROOT
from tests.test_http import PATHS

DEPLOY = ROOT / "decider" / "deploy"
UNITS = ("decider.service", "decider.socket", "decider-litestream.service")
PROGRAMS = ("/opt/decider/bin/decider", "/opt/litestream/bin/litestream")
"""Where the units expect them."""

DEFAULT = Settings()
KUBERNETES = ("1.27", "1.32", "1.37")
"""Versions with whose schemas the manifests are compared."""


def text(name: str) -> str:
    """A shipped file."""
    return (DEPLOY / name).read_text(encoding="utf-8")


class Unit(configparser.RawConfigParser):
    """A unit of systemd in which no option comes twice."""

    def __init__(self, name: str) -> None:
        super().__init__(delimiters=("=",), comment_prefixes=("#",))
        self.read_string(text(name))

    def optionxform(self, optionstr: str) -> str:
        """Names keep their case."""
        return optionstr


@pytest.fixture(scope="module")
def verify(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """`systemd-analyze verify` of all units, with a change in them; programs that are not here are replaced by one that
    is."""
    program = shutil.which("systemd-analyze", path="/usr/bin")
    if program is None:
        pytest.skip("there is no /usr/bin/systemd-analyze")

    def look(more: str = "") -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("units")
        for name in UNITS:
            content = re.sub("|".join(PROGRAMS), "/bin/true", text(name))
            (folder / name).write_text(content.replace("[Service]\n", f"[Service]\n{more}"))
        command = [program, "verify", *(str(folder / name) for name in UNITS)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return look


def test_systemd_takes_the_units(verify: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """It only warns of a misspelt option at a start, and goes on without it: a hardened unit that is none."""
    right = verify()
    assert (right.returncode, right.stdout, right.stderr) == (0, "", "")
    assert "'ProtectSytem' in section" in verify("ProtectSytem=strict\n").stderr


def test_the_unit_is_hardened() -> None:
    """A fault in a decision service should not be one in everything else on the machine."""
    service = Unit("decider.service")["Service"]
    closed = ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictNamespaces", "LockPersonality")
    assert {service[name] for name in closed} == {"yes"}
    assert (service["ProtectSystem"], service["CapabilityBoundingSet"], service["UMask"]) == ("strict", "", "0077")
    assert (service["User"], service["Restart"]) == ("decider", "always")
    assert service["RestartPreventExitStatus"] == str(click.UsageError("").exit_code)


def test_the_log_lies_where_the_unit_may_write() -> None:
    """With ProtectSystem=strict everything but the state's folder is read-only."""
    service = Unit("decider.service")["Service"]
    options = options_of(shlex.split(service["ExecStart"])[1:])
    assert Path(str(options["--db"])).parent == Path("/var/lib") / service["StateDirectory"]
    assert options["--experiments"].startswith(f"/etc/{service['ConfigurationDirectory']}/")


def options_of(arguments: list[str]) -> Mapping[str, str]:
    """Of `serve`, by name. Fails unless each is one that it knows."""
    assert arguments[0] == "serve"
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert not options.keys() - {name for name, _, _ in table()}
    return options


def environment_of(names: Mapping[str, str]) -> Mapping[str, str]:
    """The settings among variables, by option. Fails unless each is one that `serve` knows."""
    found = {
        f"--{name[8:].lower().replace('_', '-')}": value for name, value in names.items() if name[:8] == "DECIDER_"
    }
    assert not found.keys() - {name for name, _, _ in table()}
    return found


def test_stopping_waits_for_the_drain() -> None:
    """A manager that kills earlier costs what was not stored: calls, or minutes of learning at the next start."""
    service = Unit("decider.service")["Service"]
    grace = float(options_of(shlex.split(service["ExecStart"])[1:])["--grace"])
    assert (service["KillSignal"], grace) == ("SIGTERM", DEFAULT.grace)
    assert float(service["TimeoutStopSec"]) >= grace + 30
    assert "STOPSIGNAL SIGTERM" in text("Containerfile")


def test_memory_ends_above_what_the_server_takes() -> None:
    """Where the manager's limit is the lower one, it kills a server that does what it was told to."""
    limits = (Unit("decider.service")["Service"]["MemoryMax"], "1500Mi")
    assert "limits: {memory: 1500Mi}" in text("kubernetes.yaml")
    assert all(int(limit.rstrip("Mi")) * 1_000_000 >= 1.4 * DEFAULT.memory for limit in limits)


def test_the_socket_is_the_port_of_http() -> None:
    """Its name is the service's, by which systemd knows whom to give it to; one address, as `serve` takes it."""
    assert Unit("decider.socket")["Socket"]["ListenStream"] == DEFAULT.http


INSTRUCTION = re.compile(r"^([A-Z]+)\s+((?:.*\\\n)*.*)$", re.MULTILINE)


def instructions(name: str) -> Iterator[str]:
    """What stands behind each instruction of this name in the container file, in one line."""
    lines = "\n".join(line for line in text("Containerfile").splitlines() if not line.startswith("#"))
    return (value.replace("\\\n", " ") for found, value in INSTRUCTION.findall(lines) if found == name)


def test_the_image_is_built_from_what_the_project_says() -> None:
    """Python in its range, the server's packages as they were tested, files that are there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = {re.findall(r"python:3\.(\d+)-slim", image)[0] for image in instructions("FROM")}
    assert versions == {"12"}
    assert project["requires-python"] == ">=3.11,<3.13"
    assert "server" in project["optional-dependencies"]
    (build, _) = instructions("RUN")
    assert "-c constraints.txt '.[server,postgres]'" in build
    copied = [name for line in instructions("COPY") if not line.startswith("--from") for name in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]} <= {*copied}
    assert all((ROOT / name).exists() for name in copied)


def test_the_container_serves_and_is_not_root() -> None:
    """Settings that the server knows, a log on the volume, ports that are exposed, a check of one of its paths."""
    (environment,) = instructions("ENV")
    settings = environment_of(dict(one.split("=", 1) for one in shlex.split(environment)))
    assert {str(split_address(settings[name])[1]) for name in ("--listen", "--http")} == {
        port for line in instructions("EXPOSE") for port in line.split()
    }
    assert {str(Path(settings["--db"]).parent)} == {*instructions("VOLUME")}
    assert [json.loads(line) for line in (*instructions("ENTRYPOINT"), *instructions("CMD"))] == [
        ["decider"],
        ["serve"],
    ]
    (user,) = instructions("USER")
    assert user == "10001:10001"


def test_the_check_of_the_container_tells_a_server_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line as it stands there, on a real server and then on none; with TLS, too."""
    (line,) = instructions("HEALTHCHECK")
    check = json.loads(line.partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    pair = issue(tmp_path, "server", authority(tmp_path, "ca"))
    for files in ({}, {"DECIDER_TLS_CERT": str(pair.cert), "DECIDER_TLS_KEY": str(pair.key)}):
        for name, value in files.items():
            monkeypatch.setenv(name, value)
        server = ServerProcess(tmp_path / "log.db")
        code = check[2].replace(f"127.0.0.1:{split_address(DEFAULT.http)[1]}", server.http)
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        assert server.terminate() == 0
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1


@pytest.fixture(scope="module")
def schemas() -> ModuleType:
    """The package that has them."""
    return pytest.importorskip("kubernetes_validate", reason="there is no kubernetes-validate: make setup")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def manifests(schemas: ModuleType) -> list[dict[str, Any]]:  # noqa: ARG001 - brings YAML
    """All documents of the file."""
    import yaml

    return [*yaml.safe_load_all(text("kubernetes.yaml"))]


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_manifests(schemas: ModuleType, manifests: list[dict[str, Any]], version: str) -> None:
    """By the schema of its API, in which no field may be unknown: one that is misspelt would be left out silently."""
    for manifest in manifests:
        schemas.validate(manifest, version, strict=True)
    wrong = json.loads(json.dumps(manifests[-1]).replace("livenessProbe", "livenesProbe"))
    with pytest.raises(schemas.ValidationError):
        schemas.validate(wrong, version, strict=True)


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """In the file's order."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def test_the_pod_is_one_that_the_services_find(manifests: list[dict[str, Any]]) -> None:
    """Names and labels that only look alike make a service without endpoints."""
    (stateful,) = of_kind(manifests, "StatefulSet")
    template = stateful["spec"]["template"]
    (container,) = template["spec"]["containers"]
    headless, callers = of_kind(manifests, "Service")
    assert stateful["spec"]["replicas"] == 1
    assert (headless["spec"]["clusterIP"], headless["metadata"]["name"]) == ("None", stateful["spec"]["serviceName"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for service in (headless, callers):
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    probed = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert probed == {"/healthz", "/readyz"} <= {*PATHS}


def test_the_pod_has_a_port_for_pages_once_its_lines_are_no_comments(schemas: ModuleType) -> None:
    """Three lines that belong together, in two documents."""
    import yaml

    lines, count = re.subn(r"# (- \{name: \w*web\b.*)", r"\1", text("kubernetes.yaml"), flags=re.IGNORECASE)
    manifests = [*yaml.safe_load_all(lines)]
    for manifest in manifests:
        schemas.validate(manifest, KUBERNETES[-1], strict=True)
    (container,) = of_kind(manifests, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"]
    settings = environment_of({one["name"]: one["value"] for one in container["env"]})
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (service,) = [one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == "decider"]
    served = {port["targetPort"]: port["port"] for port in service["spec"]["ports"]}
    assert (count, split_address(settings["--web"])[1], served["web"]) == (3, ports["web"], ports["web"])


def test_the_pod_serves_with_settings_that_exist(manifests: list[dict[str, Any]]) -> None:
    """The log on the claim, the experiments from the map, more time than the drain takes, nothing writable besides."""
    (stateful,) = of_kind(manifests, "StatefulSet")
    pod = stateful["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = options_of(container["args"])
    environment_of({one["name"]: one["value"] for one in container["env"]})
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[str(Path(options["--db"]).parent)] in {
        claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]
    }
    assert mounts[options["--experiments"]] in {volume["name"] for volume in pod["volumes"]}
    assert pod["terminationGracePeriodSeconds"] >= float(options["--grace"]) + 30
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["enableServiceLinks"] is False, "else the service `decider` sets variables among the settings"
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_the_experiment_of_the_manifests_can_be_applied(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    """The first thing that somebody starts must start."""
    (config,) = of_kind(manifests, "ConfigMap")
    for name, content in config["data"].items():
        (tmp_path / name).write_text(content)
        try:
            from_message(read_toml(tmp_path / name))
        except InvalidArgument as error:
            pytest.fail(f"{name}: {error}")


EXPERIMENT = (
    'id = "offer"\nbaseline_action = "none"\nholdout = {share}\n[[actions]]\nid = "none"\n[[actions]]\nid = "sale"\n'
)


def mount(folder: Path, name: str, share: float) -> None:
    """A new state of a mounted ConfigMap; as the kubelet does, it exchanges the link `..data` in one step."""
    (folder / name).mkdir()
    (folder / name / "offer.toml").write_text(EXPERIMENT.format(share=share))
    (folder / "..new").symlink_to(name)
    (folder / "..new").replace(folder / "..data")


def test_a_changed_config_map_is_applied(tmp_path: Path) -> None:
    """Its files are links through a hidden folder, which must not be read as files of their own."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    mount(folder, "..2026_11_29_12_00_00.1", 0.1)
    (folder / "offer.toml").symlink_to("..data/offer.toml")
    server = ServerProcess(tmp_path / "log.db", "--experiments", str(folder))
    with closing(server.client()) as client:
        assert client.get("offer").version == 1
        mount(folder, "..2026_11_29_12_01_00.2", 0.2)
        until(lambda: client.get("offer").version == 2, what="the new state is applied")
        assert [found.experiment.id for found in client.page().experiments] == ["offer"]
    assert fetch(f"http://{server.http}/readyz")[0] == 200
    assert server.terminate() == 0


STEP = re.compile(
    r"^ *(?:runuser -u decider -- )?(?:/opt/decider\S*/bin/)?(decider|simulator) ([a-z-]+) ?(.*)$", re.MULTILINE
)


def test_each_command_of_the_steps_exists() -> None:
    """They are followed on machines with a log that somebody needs."""
    blocks = re.findall(r"```sh\n(.*?)```", text("README.md"), re.DOTALL)
    steps = [step for block in blocks for step in STEP.findall(block)]
    assert {(program, name) for program, name, _ in steps} >= {("decider", "ops"), ("simulator", "verify")}
    for program, name, rest in steps:
        command = {"decider": main, "simulator": simulator}[program].get_command(click.Context(main), name)
        assert command is not None, name
        if name == "ops":
            command.make_context("ops", rest.split()[:1])


def test_each_file_says_how_it_is_printed() -> None:
    """Whoever finds it on a machine should find its chapter, too."""
    command = main.get_command(click.Context(main), "ops")
    assert command is not None
    (argument,) = command.params
    assert isinstance(argument.type, click.Choice)
    for file in DEPLOY.iterdir():
        said = re.findall(
            r"decider ops (\w+)|\"([\w ]+)\" in decider/deploy/README.md", file.read_text(encoding="utf-8")
        )
        assert file.suffix == ".md" or {what for what, _ in said if what} <= {*argument.type.choices}
