"""The client for asyncio, on websockets' asyncio API."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from odinws.client.backoff import STEADY_SECONDS
from odinws.client.book import Book, Event
from odinws.client.journey import Journey
from odinws.client.tokens import refresh_command

_OPEN_SECONDS = 10.0


class AsyncClient:
    """Iterate over it with `async for`: messages and gaps, as long as the server wants this client.

    Args:
        url: `ws://` or `wss://`.
        channels: to begin with.
        last: whether a channel begins with its newest message.
        token: gives the token for a connection, and again before it expires; None: none is needed.
        on_wait: called before each wait with its seconds and its reason.
        draw: 0 to 1 at random.

    Raises:
        RefusedError: while iterating: the server will not have this client.
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
        self._connection: ClientConnection | None = None
        self._closing = False

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Connect, read, and come back, until `close`."""
        while not self._closing:
            began = time.monotonic()
            try:
                async for event in self._visit():
                    yield event
                wait = self._journey.lost(time.monotonic() - began >= STEADY_SECONDS)
            except ConnectionClosed as closed:
                frame = closed.rcvd
                wait = self._journey.closed(
                    frame.code if frame else 1006,
                    frame.reason if frame else "",
                    time.monotonic() - began >= STEADY_SECONDS,
                )
            except InvalidStatus as refused:
                answer = refused.response
                body = (answer.body or b"")[:200].decode(errors="replace")
                wait = self._journey.refused(answer.status_code, answer.headers.get("Retry-After"), body)
            except (OSError, TimeoutError, InvalidHandshake) as error:
                wait = self._journey.lost(False, repr(error))
            if not self._closing:
                if self._on_wait is not None:
                    self._on_wait(wait.seconds, wait.why)
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
        async with connect(self._url, subprotocols=protocols, open_timeout=_OPEN_SECONDS) as connection:
            self._connection = connection
            self._book.connected()
            refresh_at = self._journey.refresh_at(token, time.time())
            self._book.read(await asyncio.wait_for(connection.recv(), _OPEN_SECONDS))
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
