"""How a client fares: how often it came back in vain, and how long it waits now. No input or output."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from odinws.client import backoff, tokens
from odinws.client.errors import RefusedError


class Wait(NamedTuple):
    """Before the next try.

    Attributes:
        why: in words, for a log.
    """

    seconds: float
    why: str


class Journey:
    """Of one client.

    Args:
        draw: 0 to 1 at random.
    """

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._attempt = 0

    def closed(self, code: int, text: str, steady: bool) -> Wait:
        """The server ended a connection.

        Args:
            steady: whether it had lived for a while.

        Raises:
            RefusedError: the client should not come back.
        """
        attempt = self._next(steady)
        seconds = backoff.after_close(code, text, attempt, self._draw())
        if seconds is None:
            raise RefusedError(code, text)
        return Wait(seconds, f"closed with {code} {text}".rstrip())

    def refused(self, status: int, retry_after: str | None, body: str) -> Wait:
        """The server answered the upgrade with something else.

        Raises:
            RefusedError: the client should not come back.
        """
        attempt = self._next(False)
        seconds = backoff.after_refusal(status, retry_after, attempt, self._draw())
        if seconds is None:
            raise RefusedError(status, body)
        return Wait(seconds, f"refused with {status}")

    def lost(self, steady: bool, why: str = "connection lost") -> Wait:
        """Nobody said anything."""
        return Wait(backoff.jitter(self._next(steady), self._draw()), why)

    @staticmethod
    def refresh_at(token: str | None, now: float) -> float | None:
        """When to bring another token; None: never."""
        return None if token is None else tokens.refresh_at(token, now)

    def _next(self, steady: bool) -> int:
        attempt = 0 if steady else self._attempt
        self._attempt = attempt + 1
        return attempt
