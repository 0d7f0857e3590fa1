"""Experiment files: read at the start, then watched. A bad change is refused and the serving version stays. Called by
`serve.py`.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from decider.errors import FailedPrecondition, InvalidArgument, InvalidExperiment, LimitReached, Violation
from decider.experiment.origin import from_file
from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.learn.versions import Versions
from decider.server.experiments import says_active, says_no_state
from decider.types import ExperimentId

logger = logging.getLogger(__name__)

_REFUSED_FOR_NOW = (LimitReached, FailedPrecondition)
"""The file is right: it is applied once others have ended, or a missing part of the archive is back."""


class ExperimentFiles:
    """Files, and folders of `*.toml` files, that define experiments."""

    def __init__(self, paths: Sequence[Path], versions: Versions) -> None:
        self._paths = paths
        self._versions = versions
        self._seen: dict[Path, str] = {}
        self._defined: dict[Path, ExperimentId] = {}
        self._refused: deque[Path] = deque()

    def apply_all(self) -> None:
        """At the start: raises InvalidExperiment for the first bad file, since no earlier version serves yet. Files
        that are right but cannot be applied now are refused one by one, and the others go on."""
        for path, digest in self._changed_files():
            self._apply_or_keep(path, edited=False)
            self._seen[path] = digest

    def apply_changes(self) -> None:
        """Later: a bad file is logged once and the serving version stays.

        Raises LogError if the log cannot be written; the next call tries again.
        """
        for path, digest in self._changed_files():
            try:
                self._apply_or_keep(path, edited=path in self._seen)
            except InvalidArgument as error:
                logger.error("refused, the running version stays: %s", error)
            self._seen[path] = digest
        self._retry()
        self._warn_of_removed()

    def _apply_or_keep(self, path: Path, *, edited: bool) -> None:
        try:
            self._apply_file(path, edited=edited)
        except _REFUSED_FOR_NOW as error:
            logger.error("%s: refused, and tried again from time to time: %s", path, error)
            if path not in self._refused:
                self._refused.append(path)

    def _retry(self) -> None:
        """One of the files that were refused for now, in turns: thousands of them must not cost more than one."""
        if self._refused and (path := self._refused.popleft()) in set(self._files()):
            try:
                self._apply_file(path)
            except _REFUSED_FOR_NOW:
                self._refused.append(path)
            except InvalidArgument as error:
                logger.error("refused: %s", error)

    def _warn_of_removed(self) -> None:
        """An experiment goes on without its file, since frontends depend on it."""
        for path in set(self._defined) - set(self._files()):
            logger.warning(
                "%s is gone; experiment %s goes on as it was: pause or end it to stop it", path, self._defined[path]
            )
            del self._defined[path]
            self._seen.pop(path, None)

    def _changed_files(self) -> Iterator[tuple[Path, str]]:
        for path in self._files():
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                digest = str(error)
            if self._seen.get(path) != digest:
                yield path, digest

    def _files(self) -> Iterator[Path]:
        for path in self._paths:
            if path.is_dir():
                yield from sorted(path.glob("*.toml"))
            else:
                yield path

    def _apply_file(self, path: Path, *, edited: bool = False) -> None:
        """edited: while the server runs. At a start nobody knows whether a person has seen that a guardrail was
        crossed, so a file does not end the fallback then, whatever state it says."""
        message = read_toml(path)
        self._check_only_one(path, ExperimentId(message.id))
        try:
            applied = self._versions.apply(
                from_message(message),
                keep_state=says_no_state(message),
                end_fallback=edited and says_active(message),
                origin=from_file(path.name),
            )
        except InvalidExperiment as error:
            violations = [Violation(f"{path}: {v.field}", v.description) for v in error.violations]
            raise InvalidExperiment(violations) from error
        version = applied.version
        self._defined[path] = version.experiment.id
        fallback = version.experiment.fallback
        if applied.changed and fallback is None and not (version.experiment.paused and says_no_state(message)):
            return  # `serving/change_lines.py` tells of it
        news = "new version" if applied.changed else "unchanged, version"
        ended = ", ended" if version.experiment.ended else ""
        stays = ' as before (state = "active" in the file resumes it)' if says_no_state(message) else ""
        paused = f", paused{stays}" if version.experiment.paused else ended
        waits = ", serves once its policy has learned the log" if applied.waits else ""
        if fallback is not None:
            waits = (
                f"; everybody gets the baseline as before, since the guardrail {fallback.reward} was crossed (`decider "
                f"resume {version.experiment.id}` ends that)"
            )
        logger.info("%s: experiment %s, %s %d%s%s", path, version.experiment.id, news, version.number, paused, waits)

    def _check_only_one(self, path: Path, id_: ExperimentId) -> None:
        others = [other for other, defined in self._defined.items() if defined == id_ and other != path]
        if others:
            raise InvalidExperiment([Violation(f"{path}: id", f"{id_!r} is defined by {others[0]} already")])
