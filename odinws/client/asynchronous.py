"""The client for asyncio, on websockets' asyncio API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from odinws.client.base import OPEN_SECONDS, BaseClient
from odinws.client.book import Event
from odinws.client.tokens import refresh_command


class AsyncClient(BaseClient):
    """Iterate over it with `async for`: messages and gaps, as long as the server wants this client.

    Arguments are those of `BaseClient`.

    Raises:
        RefusedError: while iterating: the server will not have this client.
    """

    _connection: ClientConnection | None = None

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Connect, read, and come back, until `close`."""
        while not self._closing:
            began, error = time.monotonic(), None
            try:
                async for event in self._visit():
                    yield event
            except (ConnectionClosed, InvalidHandshake, OSError) as caught:
                error = caught
            wait = self._wait_after(error, began)
            if not self._closing:
                await asyncio.sleep(wait.seconds)

    async def subscribe(self, *channels: str) -> None:
        """Ask for more channels; the answer is among the events only if one is rejected."""
        self._book.channels.update(dict.fromkeys(channels))
        await self._say(self._book.subscription(channels))

    async def unsubscribe(self, *channels: str) -> None:
        """Give channels back."""
        await self._say(self._book.forget(channels))

    async def close(self) -> None:
        """Say goodbye; the iteration ends."""
        self._closing = True
        connection = self._connection
        if connection is not None:
            await connection.close()

    async def _visit(self) -> AsyncIterator[Event]:
        """One connection, from its welcome to its end."""
        token = self._token() if self._token is not None else None
        protocols = None if token is None else [Subprotocol("odinws"), Subprotocol(f"bearer.{token}")]
        async with connect(self._url, subprotocols=protocols, open_timeout=OPEN_SECONDS) as connection:
            self._connection = connection
            self._book.connected()
            refresh_at = self._journey.refresh_at(token, time.time())
            self._book.read(await asyncio.wait_for(connection.recv(), OPEN_SECONDS))
            if self._book.channels:
                await connection.send(self._book.subscription())
            while True:
                wait = None if refresh_at is None else max(0.0, refresh_at - time.time())
                try:
                    text = await asyncio.wait_for(connection.recv(), wait)
                except TimeoutError:
                    if self._token is not None:
                        token = self._token()
                        await connection.send(refresh_command(token))
                        refresh_at = self._journey.refresh_at(token, time.time())
                    continue
                for event in self._book.read(text):
                    yield event

    async def _say(self, command: str) -> None:
        connection = self._connection
        if connection is not None:
            try:
                await connection.send(command)
            except ConnectionClosed:
                return  # the next connection subscribes to what the book says

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
