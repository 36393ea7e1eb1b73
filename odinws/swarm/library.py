"""When clients of the public library come back."""

from __future__ import annotations

import random

from odinws.client.backoff import Backoff, RefusedError


class Library:
    """Comes back as the public client library does."""

    def __init__(self) -> None:
        self._backoff = Backoff(random.random)

    def closed(self, code: int, text: str, steady: bool) -> float | None:
        """The server ended a connection."""
        try:
            return self._backoff.closed(code, text, steady).seconds
        except RefusedError:
            return None

    def refused(self, status: int, retry_after: str | None) -> float | None:
        """The server answered the upgrade with something else."""
        try:
            return self._backoff.refused(status, retry_after, "").seconds
        except RefusedError:
            return None

    def lost(self, steady: bool) -> float:
        """Nobody said anything."""
        return self._backoff.lost(steady).seconds
