"""What both clients have in common: one task on an event loop that connects, reads and comes back."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from odinws.client.backoff import (
    ANOTHER_TOKEN,
    CHECK_SECONDS,
    OPEN_SECONDS,
    STEADY_SECONDS,
    TOO_BIG,
    Backoff,
    RefusedError,
    Wait,
    backoff_seconds,
    renew_after,
)
from odinws.client.subscriptions import Event, ProtocolError, Rejected, SubscriptionState, authentication

CLOSE_SECONDS = 0.5  # for the server's answer to a close frame; then the socket is closed without it
MAX_MESSAGE_BYTES = (64 << 20) + (64 << 10)  # the most that NATS can carry, and what the server adds
ROOM = 64  # with so many events waiting for the loop body, no more are read

Found = Event | Wait
Put = Callable[[Sequence[Found]], Awaitable[None]]
"""Hands what one frame says over to the iteration, and waits until there is room for more."""

_FORM = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2, as a subprotocol must be

log = logging.getLogger("odinws.client")


class _Connect(connect):
    """Follows no redirect, as browsers do not: the token is for this server alone."""

    def process_redirect(self, exc: Exception) -> Exception:
        """A redirect is a refusal."""
        return exc


class TokenError(Exception):
    """The token function failed, by an exception, which is the cause, or with something that is no token."""


class BaseClient:
    """One client over all its connections.

    Args:
        url: `ws://` or `wss://`.
        channels: to begin with.
        last: whether a channel begins with its newest message.
        token: gives the token for a connection, and again before it expires or when it was refused; None:
            none is needed. If it raises `RefusedError`, or gives the token again that was refused, the client
            gives up; after any other exception it tries again later.
        max_bytes: the longest frame that this client takes. A longer one ends the connection, is told as
            `Rejected` with the code TOO_BIG, and is not asked for again.
        on_wait: called in the iteration before each wait, with its seconds and its reason. What it raises
            ends the iteration.
        draw: 0 to 1 at random.

    Raises:
        ValueError: the URL is not one of a WebSocket.
        TypeError: `channels` is one string.
    """

    def __init__(
        self,
        url: str,
        channels: Iterable[str] = (),
        *,
        last: bool = False,
        token: Callable[[], str | Awaitable[str]] | None = None,
        max_bytes: int = MAX_MESSAGE_BYTES,
        on_wait: Callable[[float, str], None] | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        try:
            parse_uri(url)
        except (InvalidURI, ValueError) as error:
            raise ValueError(f"expected ws://host[:port]/path or wss://…: {error}") from None
        if isinstance(channels, str):
            raise TypeError(f"channels: expected several, not the string {channels!r}")
        self._url = url
        self._state = SubscriptionState(channels, last=last)
        self._token = token
        self._given = ""  # by it, at last
        self._refused: RefusedError | None = None  # that one; None: the server has taken one since
        self._max_bytes = max_bytes
        self._on_wait = on_wait
        self._draw = draw
        self._backoff = Backoff(draw)
        self._is_closed = False
        self._undelivered: list[Found] = []  # what an iteration left behind; the next one begins with it
        self._connection: ClientConnection | None = None  # once its first subscription is under way

    async def _run(self, put: Put) -> None:
        """Connect, read, and come back, until this is cancelled.

        Raises:
            RefusedError: the client should not come back.
        """
        while True:
            self._welcomed_at: float | None = None
            try:
                wait = await self._visit(put)
            except ConnectionClosed as error:
                if error.sent is not None and not error.rcvd_then_sent:
                    wait = self._backoff.ended(error.sent.code, error.sent.reason, self._was_steady())
                    if error.sent.code == TOO_BIG:
                        await put([self._skip()])
                else:
                    code, text = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")
                    try:
                        wait = self._backoff.closed(code, text, self._was_steady())
                    except RefusedError as refused:
                        wait = self._with_another_token(refused)
            except InvalidStatus as error:
                answer, hint = error.response, error.response.headers.get("Retry-After")
                body = (answer.body or b"")[:200].decode(errors="replace")
                try:
                    wait = self._backoff.refused(answer.status_code, hint, body)
                except RefusedError as refused:
                    wait = self._with_another_token(refused)
            except ProtocolError as error:
                wait = self._backoff.broken(str(error))
            except (InvalidHandshake, OSError, EOFError, TokenError) as error:
                wait = self._backoff.lost(
                    self._was_steady(), str(error) if isinstance(error, TokenError) else repr(error)
                )
            await put([wait])
            await asyncio.sleep(wait.seconds)

    def _with_another_token(self, refused: RefusedError) -> Wait:
        """The wait before the token function is asked for another one.

        Raises:
            RefusedError: it is not about the token, there is no function, or it has given another already.
        """
        if refused.code not in ANOTHER_TOKEN or self._token is None or self._refused is not None:
            raise refused
        self._refused = refused
        return self._backoff.lost(self._was_steady(), str(refused))

    def _skip(self) -> Rejected:
        """A frame was too long: none of what came before the next ones is asked for."""
        self._state.skip()
        return Rejected("", "TOO_BIG", f"a frame above {self._max_bytes} bytes: all up to now is missed")

    def _was_steady(self) -> bool:
        return self._welcomed_at is not None and time.monotonic() - self._welcomed_at >= STEADY_SECONDS

    async def _visit(self, put: Put) -> Wait:
        """One connection, from its token to its end, which is always an exception."""
        token = await self._fetch()
        protocols = None if token is None else [Subprotocol("odinws"), Subprotocol(f"bearer.{token}")]
        connection = await _Connect(
            self._url,
            subprotocols=protocols,
            open_timeout=OPEN_SECONDS,
            ping_interval=CHECK_SECONDS,
            ping_timeout=CHECK_SECONDS,
            close_timeout=CLOSE_SECONDS,
            max_size=self._max_bytes,
        )
        renewal = None if token is None else asyncio.create_task(self._renew(connection, token))
        try:
            self._state.connected()
            async with asyncio.timeout(OPEN_SECONDS):
                self._state.read(await connection.recv())
            self._welcomed_at, self._refused = time.monotonic(), None
            self._connection = connection
            if self._state.channels:
                await connection.send(self._state.subscription())
            while True:
                await put(self._state.read(await connection.recv()))
        finally:
            self._connection = None
            if renewal is not None:
                renewal.cancel()
            await self._hang_up(connection)

    @staticmethod
    async def _hang_up(connection: ClientConnection) -> None:
        """Send a close frame and close the socket, whether the server answers or not."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()
        except TimeoutError:
            pass
        finally:
            connection.transport.abort()
            await connection.wait_closed()

    async def _fetch(self) -> str | None:
        """A token for a connection, or None if there is no token function.

        Raises:
            RefusedError: the token function says so, or gives the token again that was refused.
            TokenError: it failed.
        """
        if self._token is None:
            return None
        try:
            token = await self._call(self._token)
        except RefusedError:
            raise
        except Exception as error:  # whatever the user's function raises
            log.warning("no token: %r", error)
            raise TokenError(repr(error)) from error
        if not isinstance(token, str) or not _FORM.fullmatch(token):
            log.warning("no token: the token function gave %s that no header can carry", type(token).__name__)
            raise TokenError("no token")
        if self._refused is not None and token == self._given:
            raise self._refused
        self._given = token
        return token

    async def _call(self, token: Callable[[], str | Awaitable[str]]) -> str:
        found = token()
        return await found if inspect.isawaitable(found) else found

    async def _renew(self, connection: ClientConnection, token: str) -> None:
        """Bring the next token in time, as long as the connection lives."""
        wait = renew_after(token, time.time())
        failed = 0
        while wait is not None:
            await asyncio.sleep(wait)
            try:
                token = await self._fetch() or token
                await connection.send(authentication(token))
                wait, failed = renew_after(token, time.time()), 0
            except (RefusedError, TokenError):
                wait, failed = backoff_seconds(failed, self._draw), failed + 1
            except ConnectionClosed:
                return

    def _want(self, channels: Iterable[str]) -> str:
        """Remember channels; the command that asks for them."""
        self._state.add(channels)
        return self._state.subscription(channels)

    async def _say(self, command: str) -> None:
        """Send a command if there is a connection; the next one subscribes to what the state has."""
        if self._connection is not None:
            try:
                await self._connection.send(command)
            except ConnectionClosed:
                return
