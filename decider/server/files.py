"""Experiment files: read at the start, then watched. What is wrong with a file is said, and the serving version stays:
no file stops a server or the other files. Called by `leading.py`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from decider.errors import (
    DeciderError,
    FailedPrecondition,
    InvalidArgument,
    InvalidExperiment,
    LimitReached,
    Violation,
)
from decider.experiment.origin import from_file
from decider.experiment.schema import from_message, parse_toml
from decider.learn.versions import ApplyResult, Versions
from decider.server.experiments import says_active, says_no_state
from decider.server.file_looks import Look, find_files, look_at
from decider.types import START, ExperimentId, Position
from decider.v1 import experiment_pb2 as pb

logger = logging.getLogger(__name__)

_REFUSED_FOR_NOW = (LimitReached, FailedPrecondition)
"""The file is right: it is applied once others have ended, or a missing part of the archive is back."""

LONGEST_WARNING = 1000
"""Characters of a file's problem on /readyz; all of it is in the output."""


class _DefinedTwice(InvalidExperiment):
    """Another file defines the same experiment: tried again, since that one may be about to go."""


@dataclass(slots=True)
class _File:
    """What is known of a file. look: the last one, with what it found since a time of the monotonic clock. taken: the
    digest of what was applied or refused. message: what it defines now, applied: what was applied last. overtaken: says
    that the version at `checked` is newer than the file."""

    look: Look
    since: float
    taken: str = ""
    message: pb.Experiment | None = None
    applied: pb.Experiment | None = None
    error: DeciderError | None = None
    overtaken: str = ""
    checked: Position = START

    @property
    def defines(self) -> ExperimentId | None:
        """The experiment; a file that is wrong now defines what it did before."""
        known = self.message or self.applied
        return ExperimentId(known.id) if known else None

    def has_settled(self, settle: float) -> bool:
        """Whether it has stayed as it is for so many seconds."""
        return max(time.monotonic() - self.since, self.look.age) >= settle


class ExperimentFiles:
    """Files, and folders of `*.toml` files, that define experiments. settle: seconds for which a changed file has to
    stay as it is before it is applied, since it may be half written. strict: a start raises for a wrong file.

    warnings, refused: for /readyz and metrics; any thread may read them.
    """

    def __init__(self, paths: Sequence[Path], versions: Versions, *, settle: float = 0.0, strict: bool = False) -> None:
        self._paths = paths
        self._versions = versions
        self._settle = settle
        self._strict = strict
        self._known: dict[Path, _File] = {}
        self._gone: dict[Path, ExperimentId] = {}
        self._refused: deque[Path] = deque()
        self.warnings: Sequence[str] = ()
        self.refused = 0

    def apply_all(self) -> None:
        """At the start. A file that changed just now is left to the next looks if the log has a version that serves
        until then. Raises InvalidExperiment for wrong files if strict, or if nothing could serve."""
        self._look()
        changed = self._changed()
        for path in changed:
            self._read(path)
        for path in changed:
            self._apply(path, hold=True)
        wrong = [file.error for file in self._known.values() if isinstance(file.error, InvalidArgument)]
        if wrong and (self._strict or not self._versions.newest()):
            raise InvalidExperiment([violation for error in wrong for violation in error.violations])
        for path in changed:
            self._tell_error(path)
        self._check_overtaken()

    def apply_changes(self, *, at_once: bool = False) -> None:
        """Later: a bad file is logged once and the serving version stays. at_once: somebody says that the files are
        whole.

        Raises LogError if the log cannot be written; the next call tries again.
        """
        same = self._look()
        whole = {path for path in same if self._known[path].has_settled(self._settle)}
        changed = [path for path in self._changed() if at_once or not self._settle or path in whole]
        for path in changed:  # all of them first: an experiment may have gone from one file to another
            self._read(path)
        for path in changed:
            self._apply(path)
            self._tell_error(path)
        self._retry()
        self._tell_gone()
        self._check_overtaken()

    def _look(self) -> set[Path]:
        """At every file. Returns those that are as they were at the last look."""
        looks = {path: look_at(path) for path in find_files(self._paths)}
        for path in [path for path in self._known if path not in looks]:
            file = self._known.pop(path)
            if file.applied is not None:
                self._gone[path] = ExperimentId(file.applied.id)
        same = {path for path, look in looks.items() if self._digest_of(path) == look.digest}
        for path, look in looks.items():
            if path not in same:
                file = self._known.setdefault(path, _File(look, 0.0))
                file.since = time.monotonic()
            self._known[path].look = look
        self._known = {path: self._known[path] for path in looks}  # in the order of the files
        return same

    def _digest_of(self, path: Path) -> str | None:
        return self._known[path].look.digest if path in self._known else None

    def _changed(self) -> Sequence[Path]:
        return [path for path, file in self._known.items() if file.taken != file.look.digest]

    def _read(self, path: Path) -> None:
        file = self._known[path]
        file.message, file.error = None, None
        with _kept_in(file, path):
            if file.look.problem:
                raise InvalidExperiment([Violation(str(path), file.look.problem)])
            file.message = parse_toml(file.look.text, str(path))

    def _apply(self, path: Path, *, hold: bool = False) -> None:
        """hold: only what makes no new version, or is whole, or new."""
        file = self._known[path]
        with _kept_in(file, path):
            if file.message is not None:
                file.error = None
                if hold and self._is_too_fresh(path, file, file.message):
                    return
                self._apply_message(path, file, file.message)
        file.taken = file.look.digest

    def _is_too_fresh(self, path: Path, file: _File, message: pb.Experiment) -> bool:
        id_ = ExperimentId(message.id)
        if not 0 <= file.look.age < self._settle or id_ not in self._versions.newest():
            return False
        if not self._changes_something(path, message):
            return False
        logger.info(
            "%s changed just now: the running version serves until it stays as it is for a while", _printable(path)
        )
        return True

    def _changes_something(self, path: Path, message: pb.Experiment) -> bool:
        with _named_after(path):
            experiment, keeps = from_message(message), says_no_state(message)
            return self._versions.apply(experiment, keep_state=keeps, validate_only=True).changed

    def _apply_message(self, path: Path, file: _File, message: pb.Experiment) -> None:
        """What the file did not say when it was applied last is new. At a start nobody knows: then a guardrail's
        fallback goes on whatever state it says, and so does what came over the API since the file said this."""
        edited = file.applied is not None and file.applied != message
        self._check_only_one(path, ExperimentId(message.id))
        with _named_after(path):
            experiment, keeps = from_message(message), says_no_state(message)
            if not edited and self._versions.overtaken(experiment, keep_state=keeps):
                file.applied = message
                return  # `_check_overtaken` tells of it
            applied = self._versions.apply(
                experiment,
                keep_state=keeps,
                end_fallback=edited and says_active(message),
                origin=from_file(path.name),
            )
        file.applied, file.checked, file.overtaken = message, applied.version.position, ""
        _tell(path, applied, keeps=keeps)

    def _check_only_one(self, path: Path, id_: ExperimentId) -> None:
        others = [other for other, file in self._known.items() if file.defines == id_]
        owner = next((other for other in others if self._has_applied(other, id_)), others[0])
        if owner != path:
            raise _DefinedTwice([Violation(f"{path}: id", f"{id_!r} is defined by {owner} already")])

    def _has_applied(self, path: Path, id_: ExperimentId) -> bool:
        applied = self._known[path].applied
        return applied is not None and applied.id == id_

    def _tell_error(self, path: Path) -> None:
        error = self._known[path].error
        if isinstance(error, _REFUSED_FOR_NOW):
            logger.error("%s: refused, and tried again from time to time: %s", _printable(path), _printable(error))
            if path not in self._refused:
                self._refused.append(path)
        elif error is not None:
            logger.error("refused, the running version stays: %s", _printable(error))

    def _retry(self) -> None:
        """Files that are defined by another one no longer, and one of those that were refused for now, in turns:
        thousands of them must not cost more than one."""
        for path in [path for path, file in self._known.items() if isinstance(file.error, _DefinedTwice)]:
            before = str(self._known[path].error)
            self._apply(path)
            if str(self._known[path].error or before) != before:
                self._tell_error(path)
        if self._refused and isinstance(self._error_of(path := self._refused.popleft()), _REFUSED_FOR_NOW):
            self._apply(path)
            if isinstance(self._error_of(path), _REFUSED_FOR_NOW):
                self._refused.append(path)
            else:
                self._tell_error(path)

    def _error_of(self, path: Path) -> DeciderError | None:
        return self._known[path].error if path in self._known else None

    def _tell_gone(self) -> None:
        """An experiment goes on without its file, since frontends depend on it; the file may have got another name."""
        if self._changed():
            return
        defined = {file.defines for file in self._known.values()}
        for path, id_ in self._gone.items():
            if id_ not in defined:
                text = "%s is gone; experiment %s goes on as it was: pause or end it to stop it"
                logger.warning(text, _printable(path), id_)
        self._gone.clear()

    def _check_overtaken(self) -> None:
        """Whether somebody has changed an experiment without its file, and what /readyz says of the files."""
        newest = self._versions.newest()
        for path, file in self._known.items():
            position = newest.get(ExperimentId(file.applied.id), START) if file.applied else START
            if file.applied is not None and position != file.checked:
                file.checked, file.overtaken = position, self._overtaken(path, file.applied)
        problems = [f"degraded: {error}" for file in self._known.values() if (error := file.error)]
        self.refused = len(problems)
        problems += [file.overtaken for file in self._known.values() if file.overtaken]
        self.warnings = [_shorten(problem) for problem in problems]

    def _overtaken(self, path: Path, message: pb.Experiment) -> str:
        found = self._versions.overtaken(from_message(message), keep_state=says_no_state(message))
        if found is None:
            return ""
        version, origin = found
        text = (
            f"{path}: experiment {message.id} stays as version {version.number} made it ({origin}); what the file "
            f"defines is older: `decider apply {path}` makes it the newest version, `decider get {message.id}` prints "
            f"what runs as a file"
        )
        logger.warning("%s", _printable(text))
        if version.experiment.fallback is not None:
            _tell(path, ApplyResult(version, changed=False, waits=False), keeps=True)
        return text


@contextmanager
def _kept_in(file: _File, path: Path) -> Iterator[None]:
    """A file's own problem stays with it; one of the log is raised."""
    try:
        yield
    except (InvalidArgument, *_REFUSED_FOR_NOW) as error:
        file.error = error
    except DeciderError:
        raise
    except Exception as error:
        logger.exception("%s", _printable(path))
        file.error = InvalidExperiment([Violation(str(path), repr(error))])


@contextmanager
def _named_after(path: Path) -> Iterator[None]:
    """Violations name the file."""
    try:
        yield
    except InvalidExperiment as error:
        violations = [Violation(f"{path}: {v.field}", v.description) for v in error.violations]
        raise InvalidExperiment(violations) from error


def _printable(text: object) -> str:
    """A file may have any name: one that is no UTF-8, begins a line or steers a terminal is shown escaped.

    >>> print(_printable("a" + chr(0xDCFF) + chr(10) + chr(27) + ".toml"))
    a\\udcff\\n\\x1b.toml
    """
    return "".join([one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(text)])


def _shorten(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= LONGEST_WARNING else f"{text[:LONGEST_WARNING]} ..."


def _tell(path: Path, applied: ApplyResult, *, keeps: bool) -> None:
    """What became of a file, where `serving/change_lines.py` does not say all of it. keeps: it says no state."""
    version = applied.version
    fallback = version.experiment.fallback
    if applied.changed and fallback is None and not (version.experiment.paused and keeps):
        return
    news = "new version" if applied.changed else "unchanged, version"
    ended = ", ended" if version.experiment.ended else ""
    stays = ' as before (state = "active" in the file resumes it)' if keeps else ""
    paused = f", paused{stays}" if version.experiment.paused else ended
    waits = ", serves once its policy has learned the log" if applied.waits else ""
    if fallback is not None:
        waits = (
            f"; everybody gets the baseline as before, since the guardrail {fallback.reward} was crossed (`decider "
            f"resume {version.experiment.id}` ends that)"
        )
    logger.info(
        "%s: experiment %s, %s %d%s%s", _printable(path), version.experiment.id, news, version.number, paused, waits
    )
