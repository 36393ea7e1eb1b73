"""What both clients have in common."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable

from websockets.exceptions import ConnectionClosed, InvalidStatus

from odinws.client.backoff import STEADY_SECONDS
from odinws.client.book import Book
from odinws.client.journey import Journey, Wait

OPEN_SECONDS = 10.0  # for a handshake, and for the welcome


class BaseClient:
    """One client over all its connections.

    Args:
        url: `ws://` or `wss://`.
        channels: to begin with.
        last: whether a channel begins with its newest message.
        token: gives the token for a connection, and again before it expires; None: none is needed.
        on_wait: called before each wait with its seconds and its reason.
        draw: 0 to 1 at random.
    """

    def __init__(
        self,
        url: str,
        channels: Iterable[str] = (),
        *,
        last: bool = False,
        token: Callable[[], str] | None = None,
        on_wait: Callable[[float, str], None] | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._url = url
        self._book = Book(channels, last=last)
        self._token = token
        self._on_wait = on_wait
        self._journey = Journey(draw)
        self._closing = False

    def _wait_after(self, error: Exception | None, began: float) -> Wait:
        """How long to wait after a connection that began at that monotonic time and ended like this.

        Raises:
            RefusedError: the client should not come back.
        """
        steady = time.monotonic() - began >= STEADY_SECONDS
        if isinstance(error, ConnectionClosed):
            frame = error.rcvd
            wait = self._journey.closed(frame.code if frame else 1006, frame.reason if frame else "", steady)
        elif isinstance(error, InvalidStatus):
            answer = error.response
            body = (answer.body or b"")[:200].decode(errors="replace")
            wait = self._journey.refused(answer.status_code, answer.headers.get("Retry-After"), body)
        else:
            wait = self._journey.lost(steady, repr(error) if error else "connection lost")
        if self._on_wait is not None and not self._closing:
            self._on_wait(wait.seconds, wait.why)
        return wait
