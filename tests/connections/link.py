"""A connection over real sockets; only its owner and the time are made up."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from typing import Any

import pytest

from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection, State
from odinws.messages import frames
from odinws.messages.wire_format import Bundle, Entry
from tests import wire
from tests.fakes import FORMATS, FakeOwner, Peer, settle

SEND_BUFFER_BYTES = 4096  # the kernel doubles it; a socket holds little, so that outboxes fill
BIG = frames.text(b"x" * 300_000)  # more than any of these sockets takes at once
TEXT = frames.text(b"hello")
LINGER_RESET = struct.pack("ii", 1, 0)


def messages(*whole: bytes) -> list[Bundle]:
    """A bundle for each of these frames, as if it were a message."""
    return [Bundle.of([Entry(frame, "global", 1, 1, 1)]) for frame in whole]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected Unix sockets with small buffers."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return ours, theirs


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets with small buffers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SEND_BUFFER_BYTES)
        theirs.connect(server.getsockname())
        ours, _ = server.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return ours, theirs


class Link:
    """A connection that has started, its owner, and its peer."""

    def __init__(
        self, pair: Any = socket_pair, *, start: bool = True, deflate: int = 0, **owner: Any
    ) -> None:
        self.owner = FakeOwner(**owner)
        ours, theirs = pair()
        ours.setblocking(False)
        self.descriptor = ours.fileno()
        self.conn = Connection(self.owner, "c-1", ours, "peer", FORMATS.of(None, deflate))
        self.peer = Peer(theirs)
        if start:
            self.conn.start(b"")

    def send(self, *whole: bytes) -> bool:
        """Send frames as messages of a pass."""
        return self.conn.send(b"".join(whole), messages(*whole))

    def fill(self) -> None:
        """Send until the kernel takes no more and some of a frame waits."""
        assert self.send(BIG)
        assert self.conn._outbox is not None

    def stuff(self) -> int:
        """Fill the kernel's buffer with whole frames; returns how many."""
        for count in itertools.count():
            try:
                sent = self.conn._sock.send(TEXT)
            except BlockingIOError:
                return count
            assert sent == len(TEXT)
        raise AssertionError

    def say(self, data: bytes) -> None:
        """The peer sends, and the connection reads it."""
        self.peer.send(data)
        settle()

    def expect_closed(self, reason: CloseReason, lost: int = 0) -> None:
        """The connection ended once, for this reason, and gave its descriptor back."""
        assert self.conn.state is State.CLOSED
        assert self.conn.reason is reason
        assert self.owner.closing == [(reason, lost)]
        assert self.owner.closed == [self.conn]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(self.descriptor)
        assert (self.conn._outbox, self.conn._write, self.conn._reader) == (None, None, None)
        assert self.conn.direct_socket is None

    def expect_close_frame(self, reason: CloseReason, before: list[wire.Frame] | None = None) -> str:
        """The peer reads what was before, then the close frame of this reason; returns its text."""
        *others, last = self.peer.frames(len(before or ()) + 1)
        assert others == (before or [])
        assert last.code == reason.code
        return last.payload[2:].decode()


def received(*chunks: bytes) -> list[wire.Frame]:
    """What a peer reads of these frames."""
    found, rest = wire.split(b"".join(chunks))
    assert rest == b""
    return found
