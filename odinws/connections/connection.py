"""One client: its socket, its reader, its outbox, and one idempotent end.

A connection at rest holds no greenlet and no buffer: only itself, its socket, a read watcher and its
dict of channels. Callbacks of the watchers run in the event loop and never block; a command that may
wait runs in a greenlet of its owner.

States: OPEN -> CLOSING (a close frame is on its way, nothing else is said) -> CLOSED (the descriptor is
gone). `close` makes the first step, `_release` the second; both may be called again at any time.

What is sent goes straight into the kernel, or into an outbox while that is full. What it looks like, and what
comes in, is the wire format's affair.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from odinws.access.tokens import OPEN, Identity
from odinws.close_codes import CloseReason
from odinws.connections import tcp
from odinws.connections.limits import ConnectionLimits
from odinws.connections.outbox import Outbox, SlowPolicy
from odinws.errors import FrameError
from odinws.messages.frames import Message, Opcode
from odinws.messages.outgoing import Outgoing
from odinws.messages.packet import Bundle
from odinws.messages.wire_format import Reader, WireFormat

if TYPE_CHECKING:
    from gevent.hub import Hub as EventHub

log = structlog.get_logger("odinws.connections.connection")

_READ, _WRITE = 1, 2  # libev event masks
_MAX_COMMANDS_WAITING = 64  # reading pauses above this
_SLACK_BYTES = 64 << 10  # extra kernel buffer that takes the close frame of a stalled client

Observer = Callable[[Sequence[Bundle]], None]  # is told what is about to be handed over


class State(IntEnum):
    """Where a connection is in its life."""

    OPEN = 0
    CLOSING = 1
    CLOSED = 2


class Owner(Protocol):
    """The registry of a worker, as a connection sees it."""

    event_hub: EventHub
    buffer: bytearray  # shared by all reads of the worker
    now: float  # monotonic seconds, to the last tick: one object shared by all
    limits: ConnectionLimits
    default_format: WireFormat  # the hub sends it without asking, see `Connection.direct_socket`

    def on_command(self, conn: Connection) -> None:
        """Commands wait in `conn.commands`."""

    def ping_payload(self) -> bytes:
        """What a ping carries, for its answer to bring back."""

    def on_pong(self, payload: bytes) -> None:
        """A pong came; peers may also send one that nobody asked for, with anything in it."""

    def on_shed(self, conn: Connection, messages: int, gaps: int) -> None:
        """Messages to a slow client were given up, and so many new gaps name them."""

    def on_flushed(self, messages: int) -> None:
        """Messages of the pass under way went out before a close frame."""

    def on_closing(self, conn: Connection, reason: CloseReason, messages_lost: int) -> None:
        """The connection left OPEN. Called once."""

    def on_closed(self, conn: Connection) -> None:
        """The descriptor is gone. Called once."""

    def deadline(self, conn: Connection) -> tuple[float, CloseReason, str]:
        """Seconds that the connection may still live, whatever its peer does, and why it ends then."""

    def schedule(self, conn: Connection, delay_seconds: float) -> None:
        """Call `conn.on_timer()` after about this delay, instead of when it was due before."""


class Connection:
    """One client after its handshake. Sends without ever blocking.

    Args:
        owner: the registry that owns it.
        conn_id: unique in the worker.
        sock: a raw, non-blocking socket (not gevent's).
        peer: the client's address, for logs.
        wire_format: how it is spoken to.

    Attributes:
        identity: who the client is, and what it may have.
        inspects: it may watch the server's figures.
        allowance: when its commands are within their rate again (see commands); 0.0: none came yet.
        pending: what the pass under way will send, see hub.
        last_seen: when the peer showed life last, by `Owner.now`.
        direct_socket: the socket, while what is in the default format can go straight to it, for the hub. None: use
            `send`.
    """

    __slots__ = (
        "_ignores_input",
        "_observer",
        "_outbox",
        "_owner",
        "_read",
        "_reader",
        "_sock",
        "_write",
        "allowance",
        "channels",
        "commands",
        "direct_socket",
        "errors",
        "id",
        "identity",
        "inspects",
        "last_seen",
        "opened",
        "peer",
        "pending",
        "position",
        "reason",
        "state",
        "wire_format",
    )

    def __init__(
        self, owner: Owner, conn_id: str, sock: socket.socket, peer: str, wire_format: WireFormat
    ) -> None:
        self.state = State.OPEN
        self.id = conn_id
        self.peer = peer
        self.wire_format = wire_format
        self.identity: Identity = OPEN
        self.inspects = False
        self.channels: dict[str, None] = {}  # written by the strategy alone
        self.reason: CloseReason | None = None
        self.commands: deque[bytes] | None = None  # not None: a greenlet works on them
        self.errors = 0
        self.allowance = 0.0
        self.pending: list[Bundle] | None = None
        self.direct_socket: socket.socket | None = sock if wire_format is owner.default_format else None
        self.opened = self.last_seen = owner.now
        self.position = -1
        self._owner = owner
        self._sock = sock
        self._observer: Observer | None = None
        self._outbox: Outbox | None = None
        self._ignores_input = False  # what still comes in is thrown away
        self._reader: Reader | None = None
        self._read: Any = owner.event_hub.loop.io(sock.fileno(), _READ)
        self._write: Any = None

    def start(self, early: bytes) -> None:
        """Begin to listen; `early` is what came in behind the handshake."""
        if self.state is State.CLOSED:  # the peer left before it was greeted
            return
        self._read.start(self._readable)
        self._owner.schedule(self, min(self._owner.limits.heartbeat_seconds, self._owner.deadline(self)[0]))
        if early:
            self._receive(early)

    def identify(self, identity: Identity) -> None:
        """Take on another identity, and end when that does."""
        self.identity = identity
        self._owner.schedule(self, 0.0)

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
        outbox = self._outbox
        return 0.0 if outbox is None else max(0.0, self._owner.now - outbox.stalled_since)

    def tcp_info(self) -> tcp.TcpInfo | None:
        """What the kernel knows of the socket; None: nothing."""
        return tcp.look(self._sock)

    @property
    def is_consistent(self) -> bool:
        """Whether something waits if, and only if, somebody waits for room for it."""
        if self._outbox is None:
            return self._write is None
        return self._write is not None and bool(self._write.active) and self._outbox.size_bytes > 0

    # -- out ---------------------------------------------------------------------------------------

    def send(self, data: bytes, bundles: Sequence[Bundle]) -> bool:
        """Hand frames to the kernel, or what it does not take to the outbox. Never blocks.

        Args:
            data: all the frames, joined.
            bundles: the same frames; looked at only if the socket does not take all.

        Returns:
            False: nothing of it was taken, as the connection is not open, or its peer is gone. What was taken
            is sent, or counted by `on_shed` or `on_closing`: also if this filled the outbox and ended it.
        """
        sock = self.direct_socket
        if sock is None:  # seldom, but for those with another than the default format
            if self.state:
                return False
            if self._observer is not None:
                self._observer(bundles)
            if self._outbox is not None:
                for bundle in bundles:
                    self._outbox.append(bundle)
                self._apply_slow_policy(self._outbox)
                return True
            sock = self._sock
        try:
            sent = sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(CloseReason.GONE)
            return False
        if sent != len(data):
            self.queue_rest(bundles, sent)
        return True

    def observe(self, observer: Observer | None) -> None:
        """Tell somebody of all that is about to be handed over from now on; None: nobody any more."""
        self._observer = observer
        self._update_direct_socket()

    def _update_direct_socket(self) -> None:
        special = self.state or self._outbox is not None or self._observer is not None
        self.direct_socket = (
            None if special or self.wire_format is not self._owner.default_format else self._sock
        )

    def queue_rest(self, bundles: Sequence[Bundle], sent: int) -> None:
        """Take care of what the socket did not take of frames: it took the first `sent` bytes, not all."""
        outbox = Outbox(bundles, sent)
        self._start_outbox(outbox)
        self._apply_slow_policy(outbox)

    def send_value(self, value: Outgoing, tag: object = None) -> bool:
        """Send what is no data, as `send_frame`; `tag` is that of the request which it answers."""
        return self.send_frame(self.wire_format.encode(value, tag))

    def send_frame(self, frame: bytes) -> bool:
        """Send what is no data, and encoded already, in its place behind the frames of the pass under way.

        Returns:
            False: it was not taken, see `send`.
        """
        if not frame:  # the wire format has no words for it
            return not self.state
        bundle = Bundle.control(frame)
        if self.pending is None:
            return self.send(frame, (bundle,))
        self.pending.append(bundle)  # the pass sends it
        return not self.state

    def _apply_slow_policy(self, outbox: Outbox) -> None:
        """Make the outbox fit by the policy, or end the connection."""
        limits = self._owner.limits
        if outbox.fits(limits.outbox_bytes, limits.outbox_frames):
            return
        if limits.slow_policy is not SlowPolicy.DISCONNECT:
            before = outbox.gaps
            if limits.slow_policy is SlowPolicy.CONFLATE:
                dropped = outbox.conflate(self.wire_format)
            else:
                dropped = outbox.drop_oldest(limits.outbox_bytes, limits.outbox_frames, self.wire_format)
            self._owner.on_shed(self, dropped, outbox.gaps - before)
            if outbox.fits(limits.outbox_bytes, limits.outbox_frames):
                return
        self.close(CloseReason.SLOW)

    def _start_outbox(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.direct_socket = None
        outbox.stalled_since = self._owner.now
        self._drop_watcher()  # there is one only if the outbox was lost, see reconciliation
        self._write = self._owner.event_hub.loop.io(self._sock.fileno(), _WRITE)
        self._write.start(self._writable)
        limits = self._owner.limits
        self._owner.schedule(self, min(limits.outbox_seconds, limits.heartbeat_seconds))

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
        outbox.stalled_since = self.last_seen = self._owner.now
        if not outbox.size_bytes:
            self._drop_outbox()
            if self.state is State.CLOSING and self._ignores_input:
                self._half_close()

    def _drop_outbox(self) -> None:
        self._outbox = None
        self._update_direct_socket()
        self._drop_watcher()

    def _drop_watcher(self) -> None:
        if self._write is not None:
            self._write.stop()
            self._write.close()
            self._write = None

    # -- in ----------------------------------------------------------------------------------------

    def _readable(self) -> None:
        buffer = self._owner.buffer
        try:
            size = self._sock.recv_into(buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self.last_seen = self._owner.now
            if not self._ignores_input:
                self._receive(bytes(memoryview(buffer)[:size]))
        else:
            self.close(CloseReason.GONE)
            self._release()

    def _receive(self, data: bytes) -> None:
        reader = self._reader or self.wire_format.reader(self._owner.limits.max_message_bytes)
        try:
            for message in reader.feed(data):
                self._handle(message)
                if self._ignores_input:
                    return
        except FrameError as error:
            self._ignores_input = True
            self.close(error.reason, error.message)
            return
        except Exception:  # a defect of ours costs this connection, not the worker
            log.exception("reader failed", client=self.id)
            self._ignores_input = True
            self.close(CloseReason.INTERNAL)
            return
        self._reader = None if reader.is_idle else reader

    def _handle(self, message: Message) -> None:
        if message.opcode is Opcode.CLOSE:
            self._closed_by_peer(message.payload)
        elif self.state:
            pass  # we have said goodbye: only the peer's close frame is of interest
        elif message.opcode is self.wire_format.command_opcode:
            self._command(message.payload)
        elif message.opcode is Opcode.PING:
            self.send_frame(self.wire_format.pong(message.payload))
        elif message.opcode is Opcode.PONG:
            self._owner.on_pong(message.payload)
        else:
            self._ignores_input = True
            self.close(CloseReason.UNSUPPORTED)

    def _command(self, payload: bytes) -> None:
        if self.commands is None:
            self.commands = deque((payload,))
            self._owner.on_command(self)
        else:
            self.commands.append(payload)
            if len(self.commands) == _MAX_COMMANDS_WAITING:
                self._read.stop()

    def commands_done(self) -> None:
        """The owner has worked off `commands`: reading goes on."""
        self.commands = None
        if self.state is not State.CLOSED and not self._read.active:
            self._read.start(self._readable)

    # -- time --------------------------------------------------------------------------------------

    def on_timer(self) -> None:
        """Look at what is due: a stalled outbox, silence, a ping, the end of closing."""
        owner, limits, outbox = self._owner, self._owner.limits, self._outbox
        if self.state:
            self._release()
            return
        if outbox is not None and owner.now - outbox.stalled_since >= limits.outbox_seconds:
            self.close(CloseReason.SLOW)
            return
        silent = owner.now - self.last_seen
        if silent >= limits.idle_seconds:
            self.close(CloseReason.IDLE)
            return
        left, reason, text = owner.deadline(self)
        if left <= 0:
            self.close(reason, text)
            return
        wait = limits.heartbeat_seconds - silent  # the wheel may come a little early
        if wait <= 0:
            wait = limits.heartbeat_seconds
            if outbox is None:
                self.send_frame(self.wire_format.ping(owner.ping_payload()))
        if not self.state:
            if self._outbox is not None:
                wait = min(1.0, limits.outbox_seconds)
            owner.schedule(self, min(wait, limits.idle_seconds - silent, left))

    # -- the end -----------------------------------------------------------------------------------

    def close(
        self,
        reason: CloseReason,
        text: str = "",
        retry_after_seconds: float | None = None,
        close_frame: bytes | None = None,
    ) -> bool:
        """End the connection. Idempotent; False if it was ending already.

        What waits in the outbox is sent before the close frame, except to a slow consumer: its waiting
        frames are given up and counted, and only the frame under way is finished.

        Args:
            reason: why; GONE sends nothing.
            text: for the close frame, instead of the reason's own.
            retry_after_seconds: when the client should come back, to be told.
            goodbye: the last bytes, instead of those that the wire format makes of all that.
        """
        if self.state:
            return False
        pending, self.pending = self.pending or [], None
        if close_frame is None and reason is not CloseReason.GONE:
            close_frame = self.wire_format.close(reason, text or reason.text, retry_after_seconds)
        lost = 0
        if reason is CloseReason.GONE or reason is CloseReason.SLOW:
            rest, lost = self._outbox.drop_all() if self._outbox is not None else (b"", 0)
            lost += sum(entry.messages for bundle in pending for entry in bundle.entries)
            self._drop_outbox()
            close_frame = rest + (close_frame or b"")
        else:
            close_frame = b"".join([*(bundle.data for bundle in pending), close_frame or b""])
            self._owner.on_flushed(sum(bundle.data_count for bundle in pending))
        if reason is CloseReason.SLOW:
            self._grow_send_buffer(len(close_frame))
        if reason is not CloseReason.GONE:
            self._send_last(close_frame)
        self.state = State.CLOSING
        self.direct_socket = None
        self.reason = reason
        self._owner.on_closing(self, reason, lost)
        if reason is CloseReason.GONE:
            self._release()
        else:
            self._owner.schedule(self, self._owner.limits.close_seconds)
            if self._ignores_input and self._outbox is None:
                self._half_close()
        return True

    def abort(self) -> None:
        """End at once: what the kernel has not taken yet is given up."""
        self.close(CloseReason.GOING_AWAY)
        self._release()

    def _send_last(self, close_frame: bytes) -> None:
        """Send the last bytes; a peer that is gone shows itself at the next read."""
        if not close_frame:
            return
        if self._outbox is not None:
            self._outbox.append(Bundle.control(close_frame))
            return
        try:
            sent = self._sock.send(close_frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent != len(close_frame):
            self._start_outbox(Outbox((Bundle.control(close_frame),), sent))

    def _grow_send_buffer(self, size: int) -> None:
        """Let the kernel take the close frame of a client that reads nothing, so that nobody waits for it."""
        room = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room // 2 + size + _SLACK_BYTES)

    def _closed_by_peer(self, payload: bytes) -> None:
        self.close(CloseReason.CLIENT, close_frame=self.wire_format.close_answer(payload))
        self._ignores_input = True
        if self._outbox is None:  # else when it is empty, so that no frame is cut, or at the deadline
            self._release()

    def _half_close(self) -> None:
        """Say that nothing follows, so that a peer waiting for the end of the stream sees it."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._release()

    def _release(self) -> None:
        """Give the descriptor and all memory back, after `close`. Idempotent."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._drop_outbox()
        self._read.stop()
        self._read.close()
        self._sock.close()
        self._reader = None
        self._owner.on_closed(self)
