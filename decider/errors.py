"""Every error that this project raises on purpose.

    DeciderError
    +-- InvalidArgument          the caller's input; names the fields
    |   +-- InvalidExperiment    an experiment that cannot be applied
    |   +-- TargetingKeyMissing  a flag's context that does not say who the flag is for
    |   +-- RewardOutOfRange     a reward that its experiment refuses
    |   +-- UndeclaredReward     a reward with a name that its experiment does not have
    +-- NotFound                 EXPERIMENT_NOT_FOUND, DECISION_NOT_FOUND, ACTION_NOT_FOUND
    +-- FailedPrecondition       valid input in a state that forbids it: EXPERIMENT_PAUSED, _ENDED, NO_ELIGIBLE_ACTION
    +-- LimitReached             more than a setting of the server allows: TOO_MANY_EXPERIMENTS
    |   +-- RateExceeded         more calls than the rate of a page's key
    +-- AlreadyExists            DECISION_ID_REUSED
    +-- Unauthenticated          nobody knows who calls: NO_TOKEN, UNKNOWN_TOKEN, TOKEN_EXPIRED, NO_CERTIFICATE
    +-- PermissionDenied         the caller may not do this: ROLE_MISSING, OTHER_EXPERIMENT, OTHER_ORIGIN, PAGE_KEY, ...
    +-- NotAnsweredHere          another listener of the server answers this: OTHER_LISTENER
    +-- GaveUp                   nobody waits for the answer any more
    |   +-- DeadlineExceeded     the caller's deadline passed
    |   +-- Cancelled            the caller took the call back, or its connection broke
    +-- ModelMismatch            a stored model that must not be loaded
    +-- UnknownCode              a model of learning code that this build does not have
    +-- OverBudget               a decision that would cost too much; the baseline action is served
    +-- AddressInUse             the server cannot listen there
    +-- LogError                 the log could not be read or written; nothing was acknowledged
        +-- LogFull, LogCorrupt, EntriesArchived
        +-- LogUnreachable       the database of the log does not answer, or takes no connection, maybe for a moment
        +-- LogLocked            another process holds the log
        |   +-- LogBusy          another program keeps its file locked, maybe for a moment only
        +-- ArchiveDamaged       a part of an archive is not what was written
        +-- ArchiveMissing       a part of an archive is not where the log says

Domain code raises; `server/rpc.py` alone turns them into gRPC statuses, the commands into exit codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class DeciderError(Exception):
    """The root. `reason` is the stable, machine-readable name (google.rpc.ErrorInfo.reason)."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong: its path in the request and what to do about it."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}"


class InvalidArgument(DeciderError):
    """The caller's input is wrong.

    >>> str(InvalidArgument([Violation("value", "must be a finite number")]))
    'value: must be a finite number'
    """

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(map(str, violations)))
        self.violations = tuple(violations)


class InvalidExperiment(InvalidArgument):
    """An experiment that cannot be applied; the running version stays."""

    reason = "INVALID_EXPERIMENT"


class TargetingKeyMissing(InvalidArgument):
    """An evaluation context that does not say who the flag is for."""

    reason = "TARGETING_KEY_MISSING"


class RewardOutOfRange(InvalidArgument):
    """A reward outside of the range of an experiment that refuses such ones."""


class UndeclaredReward(InvalidArgument):
    """A reward with a name that its experiment does not declare."""


class NotFound(DeciderError):
    """There is no such experiment, decision or action."""

    reason = "NOT_FOUND"


class FailedPrecondition(DeciderError):
    """Valid input in a state that forbids it."""

    reason = "FAILED_PRECONDITION"


class LimitReached(DeciderError):
    """More than a setting of the server allows; nothing was changed."""

    reason = "LIMIT_REACHED"


class RateExceeded(LimitReached):
    """More calls than the rate of a page's key. after: seconds until it may call again."""

    reason = "RATE_EXCEEDED"

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after


class AlreadyExists(DeciderError):
    """The id belongs to something else."""

    reason = "ALREADY_EXISTS"


class Unauthenticated(DeciderError):
    """Nobody knows who calls; nothing was decided, changed or read."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(DeciderError):
    """The caller may not do this; nothing was decided, changed or read."""

    reason = "PERMISSION_DENIED"


class NotAnsweredHere(DeciderError):
    """Another listener of the server answers this service, whoever calls."""

    reason = "OTHER_LISTENER"


class GaveUp(DeciderError):
    """Nobody waits for the answer any more. A decision that is not yet in the log then never gets there."""


class DeadlineExceeded(GaveUp):
    """The caller's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class Cancelled(GaveUp):
    """The caller took the call back, or its connection broke."""

    reason = "CANCELLED"


class ModelMismatch(DeciderError):
    """A stored model that must not be loaded: damaged, or made by other arguments or another encoder."""

    reason = "MODEL_MISMATCH"


class UnknownCode(DeciderError):
    """A model was made by a version of the learning code that this build does not have: it cannot be recomputed."""

    reason = "UNKNOWN_CODE"


class OverBudget(DeciderError):
    """A decision would cost more than the server allows. It is logged, never raised to a caller."""

    reason = "OVER_BUDGET"


class AddressInUse(DeciderError):
    """The server cannot listen there."""

    reason = "ADDRESS_TAKEN"


class LogError(DeciderError):
    """The log could not be read or written. Nothing of the failed call was acknowledged."""

    reason = "LOG_UNAVAILABLE"


class LogFull(LogError):
    """No space left for the log."""

    reason = "LOG_FULL"


class LogUnreachable(LogError):
    """The database of the log does not answer, or takes no connection, maybe for a moment only."""


class LogLocked(LogError):
    """Another process holds the log."""

    reason = "LOG_LOCKED"


class LogBusy(LogLocked):
    """Another program keeps the file locked, maybe for a moment only."""


class LogCorrupt(LogError):
    """The file is not a log, or is damaged."""

    reason = "LOG_CORRUPT"


class ArchiveDamaged(LogError):
    """A part of an archive is not what was written, or parts do not fit together."""

    reason = "ARCHIVE_DAMAGED"


class ArchiveMissing(LogError):
    """A part of an archive that is needed is not where the log says."""

    reason = "ARCHIVE_MISSING"


class EntriesArchived(LogError):
    """Entries that were to be counted are in the archive; their totals are stored in the log."""

    reason = "ENTRIES_ARCHIVED"
