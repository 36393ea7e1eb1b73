"""The client for threads, on websockets' threading API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from odinws.client.base import OPEN_SECONDS, BaseClient
from odinws.client.book import Event
from odinws.client.tokens import refresh_command


class Client(BaseClient):
    """Iterate over it: messages and gaps, as long as the server wants this client.

    One thread iterates; `subscribe`, `unsubscribe` and `close` may be called from others.

    Arguments are those of `BaseClient`.

    Raises:
        RefusedError: while iterating: the server will not have this client.
    """

    _connection: ClientConnection | None = None

    def __iter__(self) -> Iterator[Event]:
        """Connect, read, and come back, until `close`."""
        while not self._closing:
            began, error = time.monotonic(), None
            try:
                yield from self._visit()
            except (ConnectionClosed, InvalidHandshake, OSError) as caught:
                error = caught
            wait = self._wait_after(error, began)
            if not self._closing:
                time.sleep(wait.seconds)

    def subscribe(self, *channels: str) -> None:
        """Ask for more channels; the answer is among the events only if one is rejected."""
        self._book.channels.update(dict.fromkeys(channels))
        self._say(self._book.subscription(channels))

    def unsubscribe(self, *channels: str) -> None:
        """Give channels back."""
        self._say(self._book.forget(channels))

    def close(self) -> None:
        """Say goodbye; the iteration ends."""
        self._closing = True
        connection = self._connection
        if connection is not None:
            connection.close()

    def _visit(self) -> Iterator[Event]:
        """One connection, from its welcome to its end."""
        token = self._token() if self._token is not None else None
        protocols = None if token is None else [Subprotocol("odinws"), Subprotocol(f"bearer.{token}")]
        with connect(self._url, subprotocols=protocols, open_timeout=OPEN_SECONDS) as connection:
            self._connection = connection
            self._book.connected()
            refresh_at = self._journey.refresh_at(token, time.time())
            self._book.read(connection.recv(OPEN_SECONDS))
            if self._book.channels:
                connection.send(self._book.subscription())
            while True:
                wait = None if refresh_at is None else max(0.0, refresh_at - time.time())
                try:
                    text = connection.recv(wait)
                except TimeoutError:
                    if self._token is not None:
                        token = self._token()
                        connection.send(refresh_command(token))
                        refresh_at = self._journey.refresh_at(token, time.time())
                    continue
                yield from self._book.read(text)

    def _say(self, command: str) -> None:
        connection = self._connection
        if connection is not None:
            try:
                connection.send(command)
            except ConnectionClosed:
                return  # the next connection subscribes to what the book says

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
