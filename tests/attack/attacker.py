"""One who attacks: an address, a megabyte to send, and as many connections as it can get."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from odinws.swarm import frames
from tests import wire
from tests.attack.network import Network

BUDGET_BYTES = 1_000_000
LOCAL = "127.0.0.1"  # an address on the server's machine

_PIECE_BYTES = 16 << 10
_UNREAD_BYTES = 4096  # SO_RCVBUF of a client that does not read
_LOOK_SECONDS = 0.2
_TLS = ssl.create_default_context()
_TLS.check_hostname, _TLS.verify_mode = False, ssl.CERT_NONE
_ESTABLISHED = 1  # tcpi_state


class SpentError(Exception):
    """The budget is spent."""


class TurnedAwayError(Exception):
    """The server refused, closed, or did not answer."""


class Plan(msgspec.Struct, frozen=True):
    """What a process of attackers is told.

    Attributes:
        vector: its name.
        port, admin_port: of the server.
        first: number of the first attacker's address.
        attackers, lanes: how many, and how many connections of each at a time.
        tls: whether the port speaks TLS.
        budget: bytes that each may send.
        retry_seconds: how long a connection that was ended stays away at most; half of that on average.
        patience_seconds: for an answer.
        least: WebSockets that there must have been: until then the attack goes on, within reason.
    """

    vector: str
    network: Network
    port: int
    admin_port: int
    first: int
    attackers: int
    lanes: int
    seconds: float
    tls: bool = False
    budget: int = BUDGET_BYTES
    retry_seconds: float = 0.04
    patience_seconds: float = 3.0
    least: int = 0


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes


class Line:
    """One TCP connection of an attacker, with TLS on top of it once it is `secure`.

    Attributes:
        record_bytes: the most in one record of TLS.
    """

    def __init__(self, attacker: Attacker, sock: socket.socket) -> None:
        self._attacker = attacker
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._rest = b""  # read, and not asked for yet
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self.record_bytes = _PIECE_BYTES

    async def send(self, *data: bytes) -> None:
        """Send pieces at once, out of the budget. Raises SpentError, OSError."""
        await self._send(self._sealed(b"".join(data)))

    async def _send(self, whole: bytes) -> None:
        for at in range(0, len(whole), _PIECE_BYTES):
            piece = whole[at : at + _PIECE_BYTES]
            self._attacker.spend(len(piece))
            await self._loop.sock_sendall(self._sock, piece)

    async def drip(self, data: bytes, pause_seconds: float) -> None:
        """Send byte by byte."""
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(pause_seconds)

    async def read(self) -> bytes:
        """Whatever comes next. Raises TurnedAwayError at the end of the stream."""
        while True:
            if self._tls is not None:
                with contextlib.suppress(ssl.SSLWantReadError):
                    return self._tls.read(1 << 16)
            data = await self._loop.sock_recv(self._sock, 1 << 16)
            if not data:
                raise TurnedAwayError
            if self._tls is None:
                return data
            self._incoming.write(data)

    async def secure(self) -> None:
        """Shake hands for TLS. Raises OSError, TurnedAwayError."""
        self._tls = _TLS.wrap_bio(self._incoming, self._outgoing)
        async with asyncio.timeout(self._attacker.plan.patience_seconds):
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    self._tls.do_handshake()
                    await self._send(self._outgoing.read())
                    return
                await self._send(self._outgoing.read())
                data = await self._loop.sock_recv(self._sock, 1 << 16)
                if not data:
                    raise TurnedAwayError
                self._incoming.write(data)

    def _sealed(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        for at in range(0, len(data), self.record_bytes):
            self._tls.write(data[at : at + self.record_bytes])
        return self._outgoing.read()

    async def head(self) -> tuple[int, bytes]:
        """Status of an answer, and what came behind its head. Raises TurnedAwayError."""
        data = b""
        async with asyncio.timeout(self._attacker.plan.patience_seconds):
            while b"\r\n\r\n" not in data:
                data += await self.read()
        head, _, self._rest = data.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), self._rest

    async def answer(self, *kinds: bytes) -> bytes:
        """Read on to the first text that has one of these words. Raises TurnedAwayError."""
        async with asyncio.timeout(self._attacker.plan.patience_seconds):
            while True:
                found, self._rest = frames.split(self._rest)
                for head, payload in found:
                    if head & 0x0F == wire.TEXT and any(kind in payload for kind in kinds):
                        return payload
                self._rest += await self.read()

    async def drain(self) -> None:
        """Read all that comes until the server ends it."""
        while True:
            await self.read()

    async def gone(self) -> None:
        """Wait until the server has ended it, without reading; then close it."""
        while self.is_established:
            await asyncio.sleep(_LOOK_SECONDS)
        self.close()

    @property
    def is_established(self) -> bool:
        """Whether TCP knows of no end."""
        if self._sock.fileno() < 0:
            return False
        return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED

    def close(self) -> None:
        """Close it as TCP does."""
        self._attacker.lines.discard(self)
        self._sock.close()

    def reset(self) -> None:
        """Close it by a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


class Attacker:
    """One address and its budget.

    Attributes:
        dice: the same for the same number.
        lines: connections that are held.
    """

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan = plan
        self.address = plan.network.address(number)
        self.dice = random.Random(number)
        self.left = plan.budget
        self.connected = self.upgraded = self.turned_away = 0
        self.breaches: dict[str, None] = {}
        self.lines: set[Line] = set()

    def spend(self, size: int) -> None:
        """Take so many bytes out of the budget. Raises SpentError."""
        if size > self.left:
            raise SpentError
        self.left -= size

    async def connect(self, *, unread: bool = False, local: bool = False, admin: bool = False) -> Line:
        """A TCP connection. Raises OSError.

        Args:
            unread: with the smallest receive buffer.
            local: from an address on the server's machine.
            admin: to the admin plane, which only those have who are local.
        """
        plan = self.plan
        sock = plan.network.at(LOCAL if local else self.address)
        sock.setblocking(False)
        if unread:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD_BYTES)
        line = Line(self, sock)
        self.lines.add(line)
        try:
            target = (LOCAL if local else plan.network.server, plan.admin_port if admin else plan.port)
            async with asyncio.timeout(self.plan.patience_seconds):
                await asyncio.get_running_loop().sock_connect(sock, target)
        except BaseException:
            line.close()
            raise
        self.connected += 1
        return line

    async def upgrade(
        self, *, unread: bool = False, local: bool = False, path: str = "/ws", headers: Sequence[str] = ()
    ) -> Line:
        """A WebSocket, with compression. Raises OSError, TurnedAwayError."""
        line = await self.connect(unread=unread, local=local)
        offer = "permessage-deflate; client_no_context_takeover"
        try:
            if self.plan.tls:
                await line.secure()
            head = wire.request(path=path, Sec_WebSocket_Extensions=offer)[:-2]
            await line.send(head, *(f"{field}\r\n".encode() for field in headers), b"\r\n")
            status, _ = await line.head()
            if status != 101:
                raise TurnedAwayError
        except BaseException:
            line.close()
            raise
        self.upgraded += 1
        return line

    async def ask(self, request: bytes, *, local: bool = False, admin: bool = False) -> Answer:
        """An answer to a request, on a connection of its own. Raises OSError, TurnedAwayError."""
        line = await self.connect(local=local, admin=admin)
        try:
            await line.send(request)
            status, body = await line.head()
            try:
                async with asyncio.timeout(self.plan.patience_seconds):
                    while True:
                        body += await line.read()
            except (TurnedAwayError, TimeoutError):
                return Answer(status, body)
        finally:
            line.close()
