"""Who may call what: the role that each RPC and each HTTP path needs, and the rights that a caller has.

The tables are the whole answer: a test fails for an RPC or a path without a row. Called by `grpc_port.py`,
`http/guard.py` and the handlers, which know the experiment that a request is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from decider.errors import PermissionDenied


class Role(StrEnum):
    """What a token may be good for. None of them includes another one."""

    DECIDE = "decide"
    REWARD = "reward"
    READ = "read"
    OPERATE = "operate"


METHODS: dict[str, Role | None] = {
    "decider.v1.DeciderService/Decide": Role.DECIDE,
    "decider.v1.DeciderService/DecideBatch": Role.DECIDE,
    "decider.v1.DeciderService/DecideSlate": Role.DECIDE,
    "decider.v1.DeciderService/Activate": Role.REWARD,
    "decider.v1.DeciderService/Reward": Role.REWARD,
    "decider.v1.DeciderService/RewardBatch": Role.REWARD,
    "decider.v1.DeciderService/LinkUnits": Role.REWARD,
    "flagd.evaluation.v1.Service/ResolveAll": Role.DECIDE,
    "flagd.evaluation.v1.Service/ResolveBoolean": Role.DECIDE,
    "flagd.evaluation.v1.Service/ResolveString": Role.DECIDE,
    "flagd.evaluation.v1.Service/ResolveFloat": Role.DECIDE,
    "flagd.evaluation.v1.Service/ResolveInt": Role.DECIDE,
    "flagd.evaluation.v1.Service/ResolveObject": Role.DECIDE,
    "flagd.evaluation.v1.Service/EventStream": Role.DECIDE,
    "flagd.evaluation.v2.Service/ResolveBoolean": Role.DECIDE,
    "flagd.evaluation.v2.Service/ResolveString": Role.DECIDE,
    "flagd.evaluation.v2.Service/ResolveFloat": Role.DECIDE,
    "flagd.evaluation.v2.Service/ResolveInt": Role.DECIDE,
    "flagd.evaluation.v2.Service/ResolveObject": Role.DECIDE,
    "flagd.evaluation.v2.Service/EventStream": Role.DECIDE,
    "decider.v1.ExperimentService/ApplyExperiment": Role.OPERATE,
    "decider.v1.ExperimentService/GetExperiment": Role.READ,
    "decider.v1.ExperimentService/ListExperiments": Role.READ,
    "decider.v1.ExperimentService/PauseExperiment": Role.OPERATE,
    "decider.v1.ExperimentService/ResumeExperiment": Role.OPERATE,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.READ,
    "grpc.health.v1.Health/Check": None,
    "grpc.health.v1.Health/List": None,
    "grpc.health.v1.Health/Watch": None,
}
"""Of each RPC; None: anybody may call it."""

OFREP = "/ofrep/v1/evaluate/flags"
"""OpenFeature's protocol over HTTP: all flags; one of them by a key behind it."""

WEB_PATHS: dict[str, Role | None] = {
    OFREP: Role.DECIDE,
    f"{OFREP}/{{key}}": Role.DECIDE,
}
"""Of each path of the web port that is no RPC, to POST to it."""

PATHS: dict[str, Role | None] = {
    "/": Role.READ,
    "/experiments/{id:path}": Role.READ,
    "/decisions/{decision_id:path}": Role.READ,
    "/decisions": Role.READ,
    "/metrics": Role.READ,
    "/healthz": None,
    "/readyz": None,
}
"""Of each HTTP path, to read it; None: anybody may, and gets the status alone."""

WHOLE_LOG = frozenset({"/", "/metrics"})
"""Paths that show every experiment: not for tokens of some experiments alone."""

READING = frozenset({"GET", "HEAD"})
"""HTTP methods that change nothing; any other one needs the role `operate`."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Of a caller. name: of the token or the certificate; empty where nobody is asked. experiments: None: all."""

    name: str = ""
    roles: frozenset[Role] = frozenset(Role)
    experiments: frozenset[str] | None = None

    def check_role(self, role: Role) -> None:
        """Raises PermissionDenied."""
        if role not in self.roles:
            has = ", ".join(sorted(self.roles)) or "none"
            raise PermissionDenied(
                f"this needs the role {str(role)!r}; {self.name!r} has {has}; the tokens file gives roles",
                reason="ROLE_MISSING",
            )

    def sees(self, experiment: str) -> bool:
        """Whether anything of this experiment is for the caller."""
        return self.experiments is None or experiment in self.experiments

    def check(self, experiment: str) -> None:
        """Whether there is such an experiment or not. Raises PermissionDenied."""
        if not self.sees(experiment):
            raise PermissionDenied(
                f"experiment: {self.name!r} may not use {experiment[:64]!r}; the tokens file gives experiments",
                reason="OTHER_EXPERIMENT",
            )

    def check_all(self, what: str) -> None:
        """For what concerns every experiment. Raises PermissionDenied."""
        if self.experiments is not None:
            raise PermissionDenied(
                f"{what}; {self.name!r} is for some experiments only, take a token without `experiments`",
                reason="OTHER_EXPERIMENT",
            )


ALL = Rights()
"""Where nobody is asked who calls."""

NOBODY = Rights(roles=frozenset())
