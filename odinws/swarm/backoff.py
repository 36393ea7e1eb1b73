"""When clients come back."""

from __future__ import annotations

import random
from typing import Protocol


class Backoff(Protocol):
    """Of one client: it comes back after so many seconds; None: never."""

    def closed(self, code: int, text: str, steady: bool) -> float | None:
        """The server ended a connection, which had lived for a while or not."""

    def refused(self, status: int, retry_after: str | None) -> float | None:
        """The server answered the upgrade with something else."""

    def lost(self, steady: bool) -> float | None:
        """Nobody said anything."""


class Patience:
    """Comes back after one to two seconds, or when the server says."""

    def closed(self, code: int, text: str, steady: bool) -> float | None:
        """The server ended a connection."""
        return self.lost(steady)

    def refused(self, status: int, retry_after: str | None) -> float | None:
        """The server answered the upgrade with something else."""
        wait = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        return wait + self.lost(False)

    def lost(self, steady: bool) -> float:
        """Nobody said anything."""
        return 1.0 + random.random()
