"""The connection of one client: socket, frame reader, outbox, and close.

An idle connection has no greenlet and no buffer: only its own object, its socket, a read watcher and its dict
of channels. Watcher callbacks run in the event loop and never block; commands, which may wait, run in a
greenlet of the owner.

States: OPEN -> CLOSING (a close frame is on its way, and nothing follows it) -> CLOSED (the descriptor is
closed). `close` makes the first step, `_release` the second; both are idempotent.

Frames go straight to the kernel, or into an outbox while its buffer is full. The wire format decides what
bytes look like, in both directions.

What is held for a client is charged to it (`ledger`), and so is the work that it makes (`spend`), which its
address and subject pay for too. Reading pauses while too many of its commands wait, or while work is not
paid; commands wait while its outbox has much.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import gevent
import structlog

from odinws.access.patterns import is_wildcard
from odinws.access.peer import network_of
from odinws.access.tokens import ANONYMOUS, Identity
from odinws.close_codes import CloseReason
from odinws.connections import tcp
from odinws.connections.ledger import (
    COMMAND_BYTES,
    GREENLET_BYTES,
    READER_BYTES,
    SUBSCRIPTION_BYTES,
    Ledger,
)
from odinws.connections.limits import ConnectionLimits
from odinws.connections.outbox import Outbox, SlowPolicy
from odinws.connections.ready import ReadyQueue
from odinws.errors import FrameError
from odinws.messages.frames import Message, Opcode
from odinws.messages.protocol import Outgoing
from odinws.messages.wire_format import Bundle, Reader, WireFormat

if TYPE_CHECKING:
    from gevent.hub import Hub as EventHub

log = structlog.get_logger("odinws.connections.connection")

_READ, _WRITE = 1, 2  # libev event masks
_MAX_COMMANDS_WAITING = 64  # reading pauses at this number, or at `max_message_bytes` of them
_ROOM_BYTES = 64 << 10  # commands wait while the outbox has more
_WORK_BYTES = 1 << 10  # of a message, which take about as long as one frame
_PAUSE_SECONDS = 0.25  # until it is looked whether work is paid
_LOOK_SECONDS = 1.0  # while nothing is read, or nothing is taken, until it is looked how the peer is
_DROPPING = (CloseReason.GONE, CloseReason.SLOW, CloseReason.MEMORY)  # what waits is not sent any more
_SLACK_BYTES = 64 << 10  # extra send buffer for the close frame of a stalled client

Observer = Callable[[Sequence[Bundle]], None]  # called with what is about to be sent


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
    centrifugo_limits: ConnectionLimits  # of its endpoint
    default_format: WireFormat  # the hub writes it directly, see `Connection.direct_socket`
    ready: ReadyQueue[Connection]  # what must wait for a later iteration
    ledger: Ledger

    def price(self, conn: Connection, units: float) -> float:
        """Charge work to whom a connection is of; what a unit costs itself, 1.0 or more."""

    def on_command(self, conn: Connection) -> None:
        """There are commands in `conn.commands`, and nobody executes them yet."""

    def ping_payload(self) -> bytes:
        """The payload of a ping, which its pong returns."""

    def on_pong(self, payload: bytes) -> None:
        """A pong came. It may be unsolicited, with any payload."""

    def on_shed(self, conn: Connection, messages: int, gaps: int) -> None:
        """Messages to a slow client were dropped; `gaps` is how many new gaps name them."""

    def on_flushed(self, conn: Connection, messages: int) -> None:
        """Messages of the current pass were sent before a close frame."""

    def on_closing(self, conn: Connection, reason: CloseReason, messages_lost: int) -> None:
        """The connection left OPEN. Called once."""

    def on_closed(self, conn: Connection) -> None:
        """The descriptor is closed. Called once."""

    def on_unsubscribed(self, conn: Connection, ending: set[str]) -> None:
        """The client has been told that these subscriptions have ended: each is taken out once it has."""

    def deadline(self, conn: Connection) -> tuple[float, CloseReason, str]:
        """Seconds until the connection ends whatever its peer does, the reason, and the close text."""

    def schedule(self, conn: Connection, delay_seconds: float) -> None:
        """Call `conn.on_timer()` after about this delay, and not at the time that was set before."""


class Connection:
    """One client after its handshake. Sending never blocks.

    Args:
        owner: the registry that owns it.
        conn_id: unique in the worker.
        sock: a raw, non-blocking socket (not gevent's).
        peer: the client's address, for logs.
        wire_format: the client's format.

    Attributes:
        identity: who the client is, and what it may do.
        inspects: whether it may watch the server's stats.
        allowance: the state of the command rate limit, see `commands`; 0.0: no command came yet.
        held: bytes held for this client, see `ledger`.
        pending: what the current pass will send, see `hub`.
        last_seen: when the peer last showed a sign of life, by `Owner.now`.
        free_socket: the socket, while the hub may write frames straight to it; None: use `send`.
        direct_socket: the same, if they are those of the default format.
    """

    late: ClassVar[CloseReason] = CloseReason.POLICY  # how it ends if it has not begun in time

    __slots__ = (
        "_ignores_input",
        "_observer",
        "_on_wake",
        "_outbox",
        "_owner",
        "_paid_at",
        "_paused",
        "_read",
        "_reader",
        "_sock",
        "_write",
        "allowance",
        "channels",
        "commands",
        "direct_socket",
        "errors",
        "free_socket",
        "held",
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
        self.identity: Identity = ANONYMOUS
        self.inspects = False
        self.channels: dict[str, None] = {}  # written by the strategy alone
        self.reason: CloseReason | None = None
        self.commands: deque[bytes] | None = None  # not None: a greenlet executes the first, or will
        self.errors = 0
        self.allowance = 0.0
        self.pending: list[Bundle] | None = None
        self.free_socket: socket.socket | None = sock
        self.direct_socket: socket.socket | None = sock if wire_format is owner.default_format else None
        self.opened = self.last_seen = owner.now
        self.position = -1
        self.held = 0
        self._owner = owner
        self._sock = sock
        self._observer: Observer | None = None
        self._outbox: Outbox | None = None
        self._ignores_input = False  # what the peer still sends is discarded
        self._paused = False  # nothing is read
        self._paid_at = 0.0  # when all work is paid, by `Owner.now`
        self._on_wake: tuple[Callable[[], object], ...] = ()  # called by `wake`
        self._reader: Reader | None = None
        self._read: Any = owner.event_hub.loop.io(sock.fileno(), _READ)
        self._write: Any = None

    @property
    def limits(self) -> ConnectionLimits:
        """What this client may."""
        return self._owner.limits

    @property
    def subscriptions(self) -> Collection[str]:
        """What the client believes to be subscribed to."""
        return self.channels

    @property
    def has_begun(self) -> bool:
        """Whether the client has said what it must say in time."""
        return bool(self.allowance)

    @property
    def expires_at(self) -> float | None:
        """When the connection ends for want of another token, seconds since 1970; None: never."""
        return self.identity.expires_at

    def start(self, early: bytes) -> None:
        """Start reading; `early` is what the client sent directly after its handshake."""
        if self.state is State.CLOSED:  # the peer left before the welcome
            return
        self._read.start(self._readable)
        self._owner.schedule(self, min(self._until_ping(), self._owner.deadline(self)[0]))
        if early and not self._ignores_input:
            self._receive(early)
            self._read_again()

    def identify(self, identity: Identity) -> None:
        """Set another identity, with another expiry."""
        self.identity = identity
        self._owner.schedule(self, 0.0)

    def fileno(self) -> int:
        """The descriptor; -1: it is closed."""
        return self._sock.fileno()

    @property
    def has_waiting(self) -> bool:
        """Whether the outbox has anything."""
        return self._outbox is not None

    @property
    def has_room(self) -> bool:
        """Whether the outbox has so little that the answer to another command may follow it."""
        return self._outbox is None or self._outbox.size_bytes <= _ROOM_BYTES

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read, so that it would not show if the peer has left."""
        return self._paused

    @property
    def waiting(self) -> tuple[int, int]:
        """Frames and bytes in the outbox."""
        outbox = self._outbox
        return (0, 0) if outbox is None else (len(outbox), outbox.size_bytes)

    @property
    def stalled_seconds(self) -> float:
        """How long the socket has accepted nothing of the outbox; 0.0 without one."""
        outbox = self._outbox
        return 0.0 if outbox is None else max(0.0, self._owner.now - outbox.stalled_since)

    def tcp_info(self) -> tcp.TcpInfo | None:
        """What the kernel knows about the connection, see `tcp.look`."""
        return tcp.look(self._sock)

    @property
    def is_consistent(self) -> bool:
        """Whether there is an active write watcher if, and only if, the outbox has anything."""
        if self._outbox is None:
            return self._write is None
        return self._write is not None and bool(self._write.active) and self._outbox.size_bytes > 0

    # -- what it costs -----------------------------------------------------------------------------

    def measure(self) -> int:
        """Bytes that are held for this client now, see `ledger`."""
        held = SUBSCRIPTION_BYTES * len(self.channels) if self.state is State.OPEN else 0
        if self._outbox is not None:
            held += self._outbox.held_bytes
        if self._reader is not None:
            held += READER_BYTES + self._reader.held_bytes
        if self.commands is not None:
            held += GREENLET_BYTES + self._commands_bytes()
        return held

    def charge(self) -> None:
        """Tell the ledger; to be called wherever something of `measure` has changed."""
        if self.state is not State.CLOSED:
            self._owner.ledger.charge(self, self.measure())

    @property
    def clients(self) -> tuple[Hashable, ...]:
        """Whom it is of: an address, or the /64 of IPv6, and the subject of its token."""
        subject = self.identity.subject
        return (network_of(self.peer),) if subject is None else (network_of(self.peer), subject)

    def spend(self, units: float, counted: float = 0.0) -> None:
        """Charge work. While more is owed than `ConnectionLimits.work` allows, nothing is read.

        Args:
            units: as much work as so many control frames.
            counted: more units, which another rate bounds as far as this connection goes: they cost what the
                price of its address and subject is above 1.
        """
        owner = self._owner
        price = owner.price(self, units + counted)
        cost = price * units + (price - 1.0) * counted
        self._paid_at = max(self._paid_at, owner.now) + cost / self.limits.work.per_second
        if self.owed_seconds and not self.state:
            self._pause(_PAUSE_SECONDS)

    @property
    def owed_seconds(self) -> float:
        """Seconds until no more work is owed than may be; 0.0: that is so."""
        work = self.limits.work
        return max(0.0, self._paid_at - self._owner.now - work.burst / work.per_second)

    def _commands_bytes(self) -> int:
        commands = self.commands or ()
        return COMMAND_BYTES * len(commands) + sum(map(len, commands))

    # -- out ---------------------------------------------------------------------------------------

    def send(self, data: bytes, bundles: Sequence[Bundle]) -> bool:
        """Hand frames to the kernel, and what it does not accept to the outbox. Never blocks.

        Args:
            data: all frames, joined.
            bundles: the same frames; read only if the socket does not accept all of `data`.

        Returns:
            False if nothing was accepted, as the connection is not open or its peer is gone. What was
            accepted will be sent, or is counted by `on_shed` or `on_closing`, even if it overfilled the
            outbox.
        """
        sock = self.direct_socket
        if sock is None:  # rare for connections with the default format
            if self.state:
                return False
            if self._observer is not None:
                self._observer(bundles)
            if self._outbox is not None:
                for bundle in bundles:
                    self._outbox.append(bundle)
                self._apply_slow_policy(self._outbox)
                self.charge()
                return True
            sock = self._sock
        try:
            sent = sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end_soon()
            return False
        if sent != len(data):
            self.queue_rest(bundles, sent)
        return True

    def observe(self, observer: Observer | None) -> None:
        """Have `observer` called with everything before it is sent; None ends that."""
        self._observer = observer
        self._update_direct_socket()

    def _update_direct_socket(self) -> None:
        special = self.state or self._outbox is not None or self._observer is not None
        self.free_socket = None if special else self._sock
        is_default = self.wire_format is self._owner.default_format
        self.direct_socket = self.free_socket if is_default else None

    def queue_rest(self, bundles: Sequence[Bundle], sent: int) -> None:
        """Put frames into a new outbox; the socket has accepted only their first `sent` bytes."""
        outbox = Outbox(bundles, sent)
        self._start_outbox(outbox)
        self._apply_slow_policy(outbox)
        self.charge()

    def send_value(self, value: Outgoing, tag: object = None) -> bool:
        """Send anything but a message or a gap; `tag` is that of the request that this answers."""
        return self.send_frame(self.wire_format.encode(value, tag))

    def send_frame(self, frame: bytes) -> bool:
        """Send an encoded frame that is no message, in order: after frames of the current pass.

        Returns:
            False if it was not accepted, see `send`.
        """
        if not frame:  # the wire format has no such frame
            return not self.state
        bundle = Bundle.control(frame)
        if self.pending is None:
            return self.send(frame, (bundle,))
        self.pending.append(bundle)  # the pass sends it
        return not self.state

    def _apply_slow_policy(self, outbox: Outbox) -> None:
        """If the outbox is over its bounds, drop messages by the slow policy, or close the connection."""
        limits = self.limits
        if outbox.fits(limits.outbox_bytes, limits.outbox_frames):
            return
        for policy, applies in limits.dropping.items():
            before = outbox.gaps
            dropped = self._shed(outbox, policy, applies)
            self._owner.on_shed(self, dropped, outbox.gaps - before)
            if outbox.fits(limits.outbox_bytes, limits.outbox_frames):
                return
        self.close(CloseReason.SLOW)

    def _shed(self, outbox: Outbox, policy: SlowPolicy, applies: Callable[[str], bool]) -> int:
        """Drop messages of channels to which a policy applies, which gaps name; returns how many."""
        limits, wire_format = self.limits, self.wire_format
        in_order = any(map(is_wildcard, self.channels))
        if policy is SlowPolicy.CONFLATE:
            return outbox.conflate(wire_format, applies, in_order=in_order)
        return outbox.drop_oldest(
            limits.outbox_bytes, limits.outbox_frames, wire_format, applies, in_order=in_order
        )

    def _start_outbox(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.direct_socket = self.free_socket = None
        outbox.stalled_since = self._owner.now
        self._drop_watcher()  # there is one only if the outbox was lost, see reconciliation
        self._write = self._owner.event_hub.loop.io(self._sock.fileno(), _WRITE)
        self._write.start(self._writable)
        limits = self.limits
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
            self._write.stop()
            self._end_soon()
            return
        outbox.advance(taken)
        # Room means that the peer's kernel has taken something, so a client that only reads is not idle.
        outbox.stalled_since = self.last_seen = self._owner.now
        if not outbox.size_bytes:
            self._drop_outbox()
            if self.state is State.CLOSING and self._ignores_input:
                self._half_close()
        if self.has_room:
            self.wake()
        self.charge()

    def wait_for_room(self) -> None:
        """Wait until the outbox `has_room` or the connection closes."""
        self.wait_until(lambda: self.has_room)

    def wait_until(self, is_due: Callable[[], bool]) -> None:
        """Wait until something is so or the connection closes.

        Args:
            is_due: whether it is so; looked at when the outbox gets room, and with each `wake`.
        """
        while not (is_due() or self.state):
            self._on_wake += (gevent.getcurrent().switch,)
            self._owner.event_hub.switch()

    def wake(self) -> None:
        """Have whoever waits look soon whether what it waits for is so."""
        waiting, self._on_wake = self._on_wake, ()
        for on_wake in waiting:
            self._owner.event_hub.loop.run_callback(on_wake)

    def _drop_outbox(self) -> None:
        if self._outbox is not None:
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
        if self._owner.ready.has_time():
            self._receive_some()
        else:
            self._read.stop()  # else the event loop would call in each iteration
            if self not in self._owner.ready:
                self._owner.ready.add(self, self._receive_late)

    def _receive_late(self) -> bool:
        """Returns whether there are commands now."""
        if self.state is not State.CLOSED and not self._paused:
            self._receive_some()
            if self.state < State.CLOSED and not (self._paused or self._read.active):
                self._read.start(self._readable)
        return self.commands is not None

    def _receive_some(self) -> None:
        buffer = self._owner.buffer
        try:
            size = self._sock.recv_into(buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self.last_seen = self._owner.now
            if self._ignores_input:
                self.spend(1)
            else:
                self._receive(bytes(memoryview(buffer)[:size]))
            if size == len(buffer):  # TLS may have decrypted more than that
                self._read_again()
        else:
            self._end()

    def _read_again(self) -> None:
        """Read soon without an event, unless reading has paused by then."""
        self._owner.event_hub.loop.run_callback(self._read_more)

    def _read_more(self) -> None:
        if self.state is not State.CLOSED and self._read.active:
            self._readable()

    def _receive(self, data: bytes) -> None:
        reader, self._reader = self._reader, None
        had_reader = reader is not None
        reader = reader or self.wire_format.reader(self.limits.max_message_bytes)
        frames = reader.frame_count
        try:
            messages = reader.feed(data)
            for message in messages:
                self.spend(reader.frame_count - frames + len(message.payload) // _WORK_BYTES)
                frames = reader.frame_count
                self._handle(message)
                if self._ignores_input or self._paused:
                    break
            messages.close()  # the reader keeps what is left
        except FrameError as error:
            self._ignores_input = True
            self.close(error.reason, error.message)
        except Exception:  # a bug must cost this connection, not the worker
            log.exception("reader failed", client=self.id)
            self._ignores_input = True
            self.close(CloseReason.INTERNAL)
        if not (self._ignores_input or reader.is_idle or self.state is State.CLOSED):
            self._reader = reader
            if not self._paused:  # there is a piece of a message, of one frame or more
                self.spend(max(1, reader.frame_count - frames))
        if self._reader is not None or had_reader:
            self.charge()

    def _handle(self, message: Message) -> None:
        if message.opcode is Opcode.CLOSE:
            self._closed_by_peer(message.payload)
        elif self.state:
            pass  # our close frame is on its way: only the peer's matters now
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
            if self._commands_are_full:
                self._pause(_LOOK_SECONDS)
        self.charge()

    @property
    def _commands_are_full(self) -> bool:
        if self.commands is None:
            return False
        limits = self.limits
        return (
            len(self.commands) >= _MAX_COMMANDS_WAITING or self._commands_bytes() >= limits.max_message_bytes
        )

    def command_done(self) -> None:
        """The owner has executed the first of the `commands`."""
        if self.commands:
            self.commands.popleft()
            if self.commands:
                self.charge()

    def commands_later(self) -> None:
        """The owner goes on with the `commands` once the outbox has room; nothing waits meanwhile."""
        self._on_wake += (partial(self._owner.on_command, self),)

    def commands_done(self) -> None:
        """The owner has executed all `commands`: reading continues."""
        self.commands = None
        self.charge()
        self._read_on()

    def _pause(self, look_seconds: float) -> None:
        self._paused = True
        self._read.stop()
        self._owner.schedule(self, look_seconds)

    def _read_on(self) -> None:
        """Continue after a pause, if there is no reason for it any more."""
        if not self._paused or self.owed_seconds or self._commands_are_full:
            return
        self._paused = False
        if self._reader is not None:
            self._receive(b"")  # what had been read before the pause
        if not self._paused and self.state is not State.CLOSED:
            self._read.start(self._readable)
            self._read_again()

    # -- time --------------------------------------------------------------------------------------

    def on_timer(self) -> None:
        """Check the deadlines: a stalled outbox, an idle peer, the next ping, the end of closing."""
        if not self.state:
            self._read_on()
        owner, limits, outbox = self._owner, self.limits, self._outbox
        if self.state:
            self._release()
            return
        if self._paused and tcp.is_dead(self._sock):
            self._end()
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
        wait = self._until_ping()  # above 0 if the timer fired a little early
        if wait <= 0:
            wait = limits.heartbeat_seconds
            self._ping()
        if not self.state:
            if self._outbox is not None:
                wait = min(_LOOK_SECONDS, limits.outbox_seconds)
            if self._paused:
                wait = min(wait, _PAUSE_SECONDS if self.owed_seconds else _LOOK_SECONDS)
            owner.schedule(self, min(wait, limits.idle_seconds - silent, left))

    def _until_ping(self) -> float:
        """Seconds until the next ping is due: after silence."""
        return self._owner.limits.heartbeat_seconds - (self._owner.now - self.last_seen)

    def _ping(self) -> None:
        if self._outbox is None:
            self.send_frame(self.wire_format.ping(self._owner.ping_payload()))

    # -- the end -----------------------------------------------------------------------------------

    def close(
        self,
        reason: CloseReason,
        text: str = "",
        retry_after_seconds: float | None = None,
        close_frame: bytes | None = None,
    ) -> bool:
        """Close the connection. Idempotent; False if it was closing already.

        The outbox is sent before the close frame, except for a slow consumer and for want of memory: there,
        only the frame that is already half sent is completed, and the others are dropped and counted.

        Args:
            reason: why; GONE sends nothing.
            text: for the close frame, instead of the reason's own.
            retry_after_seconds: how long the client should wait before it reconnects; None: not said.
            close_frame: sent instead of the one that the wire format makes of these.
        """
        if self.state:
            return False
        pending, self.pending = self.pending or [], None
        if close_frame is None and reason is not CloseReason.GONE:
            close_frame = self.wire_format.close(reason, text or reason.text, retry_after_seconds)
        lost = 0
        # Where the order of the stream is kept, what belongs before them may not be here yet.
        if pending and (reason in _DROPPING or self.wire_format.in_stream_order):
            lost = sum(entry.messages for bundle in pending for entry in bundle.entries)
            pending = []
        if reason in _DROPPING:
            rest, dropped = self._outbox.drop_all() if self._outbox is not None else (b"", 0)
            lost += dropped
            self._drop_outbox()
            close_frame = rest + (close_frame or b"")
        else:
            close_frame = b"".join([*(bundle.data for bundle in pending), close_frame or b""])
            self._owner.on_flushed(self, sum(bundle.data_count for bundle in pending))
        if reason is CloseReason.MEMORY:
            self._forget_input()
        if reason is CloseReason.SLOW or reason is CloseReason.MEMORY:
            self._grow_send_buffer(len(close_frame))
        if reason is not CloseReason.GONE:
            self._send_last(close_frame)
        self.state = State.CLOSING
        self.direct_socket = self.free_socket = None
        self.reason = reason
        self.wake()  # whoever waits sees that there is no more to do
        self._owner.on_closing(self, reason, lost)
        if reason is CloseReason.GONE:
            self._release()
        else:
            self.charge()
            self._owner.schedule(self, self.limits.close_seconds)
            if self._ignores_input and self._outbox is None:
                self._half_close()
        return True

    def _forget_input(self) -> None:
        """Drop what the peer has sent; in the middle of a frame, what follows can't be read any more."""
        if self._reader is not None:
            self._ignores_input, self._reader = True, None
        if self.commands:
            self.commands.clear()

    def _end_soon(self) -> None:
        """The peer is gone; a pass may find out about thousands."""
        if self._owner.ready.has_time():
            self._end()
        else:
            self._owner.ready.add(self, self._end)

    def _end(self) -> None:
        self.close(CloseReason.GONE)
        self._release()

    def abort(self) -> None:
        """Close at once: what the kernel has not accepted yet is dropped."""
        self.close(CloseReason.GOING_AWAY)
        self._release()

    def _send_last(self, close_frame: bytes) -> None:
        """Send the last bytes. That the peer is gone would show at the next read."""
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
        """Make room in the kernel for the close frame of a client that reads nothing."""
        room = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room // 2 + size + _SLACK_BYTES)

    def _closed_by_peer(self, payload: bytes) -> None:
        self.close(CloseReason.CLIENT, close_frame=self.wire_format.close_answer(payload))
        self._ignores_input = True
        if self._outbox is None:  # else once it is empty, so that no frame is truncated, or at the deadline
            self._release()

    def _half_close(self) -> None:
        """Shut down sending, so that a peer that waits for the end of the stream sees it."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._release()

    def _release(self) -> None:
        """Free the descriptor and all memory, after `close`. Idempotent."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._drop_outbox()
        self._read.stop()
        self._read.close()
        self._sock.close()
        self._reader = None
        self._owner.ledger.charge(self, 0)
        self._owner.on_closed(self)
