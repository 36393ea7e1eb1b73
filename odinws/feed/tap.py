"""Takes the feed's messages straight from the bytes of a connection to NATS; the rest goes on to nats-py.

nats-py connects, authenticates, asks JetStream and answers pings. But it carries each message through a
stream reader, two tasks and a queue of asyncio, which cost ten times what the feed does with it. Without TLS
even the socket is read in gevent's loop: asyncio sleeps while nothing but messages comes.

What is used of nats-py beyond its interface: a subscription's number (`Subscription._id`), the stream writer
(`TcpTransport._io_writer`), and the parser (`Client._ps`) where there is none, over WebSocket.
`tests/feed/test_tap.py` fails if a new version of nats-py changes them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import gevent
from nats.aio.client import Client

READ_BYTES = 65536  # at once; bounds the time until others run: some 200 messages, about two milliseconds
CHECK_MESSAGES = 32  # taken between two looks whether there is room

Take = Callable[[str, bytes, bytes, bytes], None]


class Tap(asyncio.BufferedProtocol):
    """Takes the messages of some subscriptions out of what NATS sends.

    Args:
        client: is connected.
        take: is called with the subject, the reply subject, the headers and the payload of each message, in
            order; must not block. Headers and reply are empty if there are none.
        is_full: whether no message may be taken now.
        wait: blocks the greenlet of asyncio until one may be taken again; then nothing is read meanwhile.
        failed: is called with the error if `take` raises one, or NATS sends rubbish. Nothing is taken
            afterwards.

    Raises:
        ConnectionResetError: the connection is lost already.
    """

    def __init__(
        self,
        client: Client,
        take: Take,
        is_full: Callable[[], bool],
        wait: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._take = take
        self._is_full = is_full
        self._wait = wait
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._ids: set[bytes] = set()
        self._has_failed = False
        self._taken = 0
        self._waits = False
        self._kept = bytearray()  # the beginning of a message, or what came while there was no room
        self._needed = 0  # bytes of `_kept` until it has a whole message, if that is known
        self._view = memoryview(bytearray(READ_BYTES))
        self._watcher: Any = None
        writer = getattr(client._transport, "_io_writer", None)
        if writer is None:
            self._next = _tap_parser(client, self)
            return
        self._transport: asyncio.Transport = writer.transport
        if self._transport.is_closing():
            raise ConnectionResetError("closed by NATS")
        self._protocol: Any = self._transport.get_protocol()
        self._next = self._protocol.data_received
        self._transport.set_protocol(self)
        if self._transport.get_extra_info("ssl_object") is None:
            self._transport.pause_reading()
            self._fd = self._transport.get_extra_info("socket").fileno()
            self._watcher = gevent.get_hub().loop.io(self._fd, 1)  # 1: readable
            self._watcher.start(self._readable)

    async def subscribe(self, client: Client, subject: str) -> None:
        """Subscribe to a subject: its messages are taken.

        Raises:
            nats.errors.Error: the connection is lost.
        """
        subscription = await client.subscribe(subject)
        self._ids.add(b"%d" % subscription._id)

    def received(self, data: bytes) -> None:
        """Take what is ours of the next bytes from NATS."""
        if self._kept:
            self._kept += data
            if self._waits or len(self._kept) < self._needed:
                return
            data = bytes(self._kept)
            self._kept.clear()
        self._needed = 0
        try:
            self._split(data)
        except Exception as error:  # noqa: BLE001 - the session ends with it
            self._has_failed = True
            self._failed(error)

    def _split(self, data: bytes) -> None:
        """Take our messages, send on everything else, and keep what is not complete.

        https://docs.nats.io/reference/reference-protocols/nats-protocol
        """
        position = begins = 0  # `begins`: of what is to be sent on
        while (line_end := data.find(b"\r\n", position)) >= 0:
            end = line_end + 2
            if data.startswith((b"MSG ", b"HMSG "), position):
                fields = data[position:line_end].split()
                begin = end
                end += int(fields[-1]) + 2
                if end > len(data):
                    self._needed = end - position
                    break
                if fields[2] in self._ids:
                    if begins < position:
                        self._next(data[begins:position])
                    begins = position
                    if self._taken % CHECK_MESSAGES == 0 and self._is_full():
                        self._waits = True
                        self._loop.call_soon(self._go_on)
                        break
                    self._taken += 1
                    begins = end
                    body = begin + int(fields[-2]) if fields[0] == b"HMSG" else begin
                    reply = fields[3] if len(fields) == (6 if body > begin else 5) else b""
                    if not self._has_failed:
                        subject = fields[1].decode(errors="replace")
                        self._take(subject, reply, data[begin:body], data[body : end - 2])
            position = end
        if begins < position:
            self._next(data[begins:position])
        self._kept += data[position:]

    def _go_on(self) -> None:
        """There was no room: wait for it, and continue with what is kept."""
        self._wait()
        self._waits = False
        if self._watcher is not None:
            self._watcher.start(self._readable)
        self.received(b"")

    def _readable(self) -> None:
        """Read, in gevent's loop. The end of the connection is for asyncio to see."""
        if self._waits:
            self._watcher.stop()
            return
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.received(data)
        else:
            self._stop()
            self._transport.resume_reading()

    def _stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    # -- asyncio's protocol: what happens to the connection is nats-py's business ------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self.received(bytes(self._view[:nbytes]))
        if self._watcher is not None:  # nats-py's stream reader has stopped reading and resumed it
            self._transport.pause_reading()

    def eof_received(self) -> bool | None:
        """NATS has closed the connection."""
        found: bool | None = self._protocol.eof_received()
        return found

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket accepts no more."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The socket accepts data again."""
        self._protocol.resume_writing()


def _tap_parser(client: Client, tap: Tap) -> Callable[[bytes], None]:
    """Have a connection without a stream writer give its bytes to the tap; returns where the rest goes."""
    parser: Any = client._ps
    parse = parser.parse
    rest: list[bytes] = []

    async def parse_rest(data: bytes = b"") -> None:
        tap.received(data)
        data = b"".join(rest)
        rest.clear()
        await parse(data)

    parser.parse = parse_rest
    return rest.append
