"""The outgoing half of a connection: straight into the kernel, or into an outbox while that is full."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from odinws.closing import CloseReason
from odinws.connections import tcp
from odinws.connections.outbox import Outbox, SlowPolicy
from odinws.connections.owner import Owner
from odinws.messages.packet import Bundle

_WRITE = 2  # libev event mask


class State(IntEnum):
    """Where a connection is in its life."""

    OPEN = 0
    CLOSING = 1
    CLOSED = 2


class Sender(ABC):
    """Sends without ever blocking.

    Args:
        owner: the registry that owns it.
        sock: a raw, non-blocking socket (not gevent's).
        deflate: the window agreed for compression, in bits; 0: none.

    Attributes:
        due: what the pass under way will send, see hub.
        last_seen: when the peer showed life last, by `Owner.now`.
        ready: the socket, while plain frames can go straight to it, for the hub. None: use `send`.
    """

    __slots__ = (
        "_deaf",
        "_outbox",
        "_owner",
        "_sock",
        "_stalled_since",
        "_write",
        "deflate",
        "due",
        "last_seen",
        "place",
        "ready",
        "state",
    )

    def __init__(self, owner: Owner, sock: socket.socket, deflate: int) -> None:
        self.state = State.OPEN
        self.deflate = deflate
        self.due: list[Bundle] | None = None
        self.ready: socket.socket | None = None if deflate else sock
        self.last_seen = owner.now
        self.place = -1
        self._owner = owner
        self._sock = sock
        self._outbox: Outbox | None = None
        self._stalled_since = 0.0
        self._deaf = False  # what still comes in is thrown away
        self._write: Any = None

    @abstractmethod
    def close(self, reason: CloseReason, text: str = "", goodbye: bytes | None = None) -> bool:
        """End the connection, see `Connection.close`."""

    @abstractmethod
    def on_time(self) -> None:
        """Look at what is due."""

    @abstractmethod
    def _half_close(self) -> None:
        """Say that nothing follows."""

    @abstractmethod
    def _release(self) -> None:
        """Give the descriptor and all memory back."""

    def fileno(self) -> int:
        """The descriptor; -1: it is gone."""
        return self._sock.fileno()

    @property
    def has_waiting(self) -> bool:
        """Whether something waits that the socket has not taken."""
        return self._outbox is not None

    @property
    def waiting(self) -> tuple[int, int]:
        """Frames and bytes that the socket has not taken."""
        outbox = self._outbox
        return (0, 0) if outbox is None else (len(outbox), outbox.size_bytes)

    @property
    def stalled_seconds(self) -> float:
        """For how long the socket has taken nothing while something waits; else 0.0."""
        return 0.0 if self._outbox is None else max(0.0, self._owner.now - self._stalled_since)

    def kernel(self) -> tcp.Kernel | None:
        """What the kernel knows of the socket; None: nothing."""
        return tcp.look(self._sock)

    @property
    def is_consistent(self) -> bool:
        """Whether something waits if, and only if, somebody waits for room for it."""
        if self._outbox is None:
            return self._write is None
        return self._write is not None and bool(self._write.active) and self._outbox.size_bytes > 0

    def send(self, data: bytes, bundles: Sequence[Bundle]) -> bool:
        """Hand frames to the kernel, or what it does not take to the outbox. Never blocks.

        Args:
            data: all the frames, joined.
            bundles: the same frames; looked at only if the socket does not take all.

        Returns:
            False: nothing of it was taken, as the connection is not open, or its peer is gone. What was taken
            is sent, or counted by `on_shed` or `on_closing`: also if this filled the outbox and ended it.
        """
        if self.state:
            return False
        if self._outbox is None:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close(CloseReason.GONE)
                return False
            if sent != len(data):
                self.keep(bundles, sent)
            return True
        for bundle in bundles:
            self._outbox.append(bundle)
        self._bound(self._outbox)
        return True

    def keep(self, bundles: Sequence[Bundle], sent: int) -> None:
        """Take care of what the socket did not take of frames: it took the first `sent` bytes, not all."""
        outbox = Outbox(bundles, sent)
        self._hold(outbox)
        self._bound(outbox)

    def reply(self, frame: bytes) -> bool:
        """Send a frame that is no data in its place behind the frames of the pass under way."""
        bundle = Bundle.control(frame)
        if self.due is None:
            return self.send(frame, (bundle,))
        self.due.append(bundle)  # the pass sends it
        return not self.state

    def _bound(self, outbox: Outbox) -> None:
        """Make the outbox fit by the policy, or end the connection."""
        owner = self._owner
        if outbox.fits(owner.outbox_bytes, owner.outbox_frames):
            return
        if owner.slow_policy is not SlowPolicy.DISCONNECT:
            before = outbox.gaps
            if owner.slow_policy is SlowPolicy.CONFLATE:
                given_up = outbox.conflate()
            else:
                given_up = outbox.drop_oldest(owner.outbox_bytes, owner.outbox_frames)
            owner.on_shed(self, given_up, outbox.gaps - before)
            if outbox.fits(owner.outbox_bytes, owner.outbox_frames):
                return
        self.close(CloseReason.SLOW)

    def _hold(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.ready = None
        self._stalled_since = self._owner.now
        self._drop_watcher()  # there is one only if the outbox was lost, see reconciliation
        self._write = self._owner.event_hub.loop.io(self._sock.fileno(), _WRITE)
        self._write.start(self._writable)
        self._owner.schedule(self, min(self._owner.outbox_seconds, self._owner.heartbeat_seconds))

    def _writable(self) -> None:
        outbox = self._outbox
        if outbox is None:
            return
        try:
            taken = self._sock.sendmsg(outbox.waiting())
        except BlockingIOError:
            return
        except OSError:
            self.close(CloseReason.GONE)
            self._release()
            return
        outbox.advance(taken)
        # Room means that the peer's kernel took something, so a client that only reads is not idle.
        self._stalled_since = self.last_seen = self._owner.now
        if not outbox.size_bytes:
            self._drop_outbox()
            if self.state is State.CLOSING and self._deaf:
                self._half_close()

    def _drop_outbox(self) -> None:
        self._outbox = None
        self.ready = None if self.state or self.deflate else self._sock
        self._drop_watcher()

    def _drop_watcher(self) -> None:
        if self._write is not None:
            self._write.stop()
            self._write.close()
            self._write = None
