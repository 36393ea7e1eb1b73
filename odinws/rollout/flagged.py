"""The choice by a file of flags, and whether that says otherwise by now."""

from __future__ import annotations

import os
import socket

import structlog

from odinws.choice import Choice
from odinws.rollout.chooser import Chooser
from odinws.rollout.evaluation import Evaluation
from odinws.rollout.flags import FlagsError, fallback, read

_Mark = tuple[int, int, int] | None

log = structlog.get_logger("odinws.rollout")


class FlagChooser(Chooser):
    """Chooses for one place of a server, and again whenever the file changes.

    Args:
        path: of the file.
        deployment: name of the deployment.
        ordinal, places: of the worker, and how many there are.
        host: name of the machine unless given.
    """

    def __init__(self, path: str, deployment: str, ordinal: int, places: int, host: str = "") -> None:
        self._path = path
        self._place = ordinal
        self._evaluation = Evaluation(deployment, host or socket.gethostname(), places)
        self._mark = _mark(path)
        self._why = ""
        super().__init__(fallback(path))
        self.choice = self._ask() or self.choice

    def outdated(self) -> str:
        """As `Chooser`. Looks only at a file that changed; one that can't be used replaces nobody."""
        mark = _mark(self._path)
        if mark != self._mark:
            self._mark, self._why = mark, ""
            wanted = self._ask()
            if wanted is not None and wanted[:2] != self.choice[:2]:
                self._why = f"flag says {wanted.variant}, it has {self.choice.variant}"
        return self._why

    def _ask(self) -> Choice | None:
        """What the file says now; None if it can't be used, which is logged."""
        try:
            choice = self._evaluation.choose(self._path, read(self._path), self._place)
        except FlagsError as error:
            self.problem = str(error)
            log.error("flags can't be used", problem=self.problem)
            return None
        self.problem = ""
        return choice


def _mark(path: str) -> _Mark:
    """What differs when a file was written or replaced."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
