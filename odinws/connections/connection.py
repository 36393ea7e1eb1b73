"""One client: its socket, its reader, its outbox, and one idempotent end.

A connection at rest holds no greenlet and no buffer: only itself, its socket, a read watcher and its
dict of channels. Callbacks of the watchers run in the event loop and never block; a command that may
wait runs in a greenlet of its owner.

States: OPEN -> CLOSING (a close frame is on its way, nothing else is said) -> CLOSED (the descriptor is
gone). `close` makes the first step, `_release` the second; both may be called again at any time.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

import structlog

from odinws.access.tokens import OPEN, Identity
from odinws.closing import CloseReason
from odinws.connections.outbox import Outbox
from odinws.connections.owner import Owner
from odinws.connections.sender import Sender, State
from odinws.errors import FrameError
from odinws.messages import frames
from odinws.messages.frames import FrameReader, Message, Opcode
from odinws.messages.packet import Bundle

__all__ = ["Connection", "State"]

log = structlog.get_logger("odinws.connections.connection")

_READ = 1  # libev event mask
_MAX_COMMANDS_WAITING = 64  # reading pauses above this
_SLACK_BYTES = 64 << 10  # extra kernel buffer that takes the goodbye of a stalled client


class Connection(Sender):
    """One WebSocket after its handshake.

    Args:
        owner: the registry that owns it.
        conn_id: unique in the worker.
        sock: a raw, non-blocking socket (not gevent's).
        peer: the client's address, for logs.
        deflate: the window agreed for compression, in bits; 0: none.

    Attributes:
        identity: who the client is, and what it may have.
        inspects: it may watch the server's figures.
        allowance: when its commands are within their rate again (see commands); 0.0: none came yet.
    """

    __slots__ = (
        "_read",
        "_reader",
        "allowance",
        "channels",
        "commands",
        "errors",
        "id",
        "identity",
        "inspects",
        "opened",
        "peer",
        "reason",
    )

    def __init__(self, owner: Owner, conn_id: str, sock: socket.socket, peer: str, deflate: int = 0) -> None:
        super().__init__(owner, sock, deflate)
        self.id = conn_id
        self.peer = peer
        self.identity: Identity = OPEN
        self.inspects = False
        self.channels: dict[str, None] = {}  # written by the strategy alone
        self.reason: CloseReason | None = None
        self.commands: deque[bytes] | None = None  # not None: a greenlet works on them
        self.errors = 0
        self.allowance = 0.0
        self.opened = owner.now
        self._reader: FrameReader | None = None
        self._read: Any = owner.event_hub.loop.io(sock.fileno(), _READ)

    def start(self, early: bytes) -> None:
        """Begin to listen; `early` is what came in behind the handshake."""
        if self.state is State.CLOSED:  # the peer left before it was greeted
            return
        self._read.start(self._readable)
        self._owner.schedule(self, min(self._owner.heartbeat_seconds, self._owner.limit(self)[0]))
        if early:
            self._receive(early)

    def identify(self, identity: Identity) -> None:
        """Take on another identity, and end when that does."""
        self.identity = identity
        self._owner.schedule(self, 0.0)

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
            if not self._deaf:
                self._receive(bytes(memoryview(buffer)[:size]))
        else:
            self.close(CloseReason.GONE)
            self._release()

    def _receive(self, data: bytes) -> None:
        reader = self._reader or FrameReader(self._owner.max_message_bytes, deflate=self.deflate > 0)
        try:
            for message in reader.feed(data):
                self._handle(message)
                if self._deaf:
                    return
        except FrameError as error:
            self._deaf = True
            self.close(error.reason, error.message)
            return
        except Exception:  # a defect of ours costs this connection, not the worker
            log.exception("reader failed", client=self.id)
            self._deaf = True
            self.close(CloseReason.INTERNAL)
            return
        self._reader = None if reader.at_rest else reader

    def _handle(self, message: Message) -> None:
        if message.opcode is Opcode.CLOSE:
            self._closed_by_peer(message.payload)
        elif self.state:
            pass  # we have said goodbye: only the peer's close frame is of interest
        elif message.opcode is Opcode.TEXT:
            self._command(message.payload)
        elif message.opcode is Opcode.PING:
            self.reply(frames.pong(message.payload))
        elif message.opcode is Opcode.PONG:
            self._owner.on_pong(message.payload)
        elif message.opcode is Opcode.BINARY:
            self._deaf = True
            self.close(CloseReason.UNSUPPORTED)

    def _command(self, text: bytes) -> None:
        if self.commands is None:
            self.commands = deque((text,))
            self._owner.on_command(self)
        else:
            self.commands.append(text)
            if len(self.commands) == _MAX_COMMANDS_WAITING:
                self._read.stop()

    def commands_done(self) -> None:
        """The owner has worked off `commands`: reading goes on."""
        self.commands = None
        if self.state is not State.CLOSED and not self._read.active:
            self._read.start(self._readable)

    # -- time --------------------------------------------------------------------------------------

    def on_time(self) -> None:
        """Look at what is due: a stalled outbox, silence, a ping, the end of closing."""
        owner = self._owner
        if self.state:
            self._release()
            return
        if self._outbox is not None and owner.now - self._stalled_since >= owner.outbox_seconds:
            self.close(CloseReason.SLOW)
            return
        silent = owner.now - self.last_seen
        if silent >= owner.idle_seconds:
            self.close(CloseReason.IDLE)
            return
        left, reason, text = owner.limit(self)
        if left <= 0:
            self.close(reason, text)
            return
        wait = owner.heartbeat_seconds - silent  # the wheel may come a little early
        if wait <= 0:
            wait = owner.heartbeat_seconds
            if self._outbox is None:
                self.reply(frames.ping(self._owner.ping_payload()))
        if not self.state:
            if self._outbox is not None:
                wait = min(1.0, owner.outbox_seconds)
            owner.schedule(self, min(wait, owner.idle_seconds - silent, left))

    # -- the end -----------------------------------------------------------------------------------

    def close(self, reason: CloseReason, text: str = "", goodbye: bytes | None = None) -> bool:
        """End the connection. Idempotent; False if it was ending already.

        What waits in the outbox is sent before the close frame, except to a slow consumer: its waiting
        frames are given up and counted, and only the frame under way is finished.

        Args:
            reason: why; GONE sends nothing.
            text: for the close frame, instead of the reason's own.
            goodbye: a close frame to send instead of the reason's own.
        """
        if self.state:
            return False
        due, self.due = self.due or [], None
        goodbye = frames.close(reason.code, text or reason.text) if goodbye is None else goodbye
        lost = 0
        if reason is CloseReason.GONE or reason is CloseReason.SLOW:
            rest, lost = self._outbox.cut() if self._outbox is not None else (b"", 0)
            lost += sum(entry.messages for bundle in due for entry in bundle.entries)
            self._drop_outbox()
            goodbye = rest + goodbye
        else:
            goodbye = b"".join([*(bundle.data for bundle in due), goodbye])
            self._owner.on_flushed(sum(bundle.data_count for bundle in due))
        if reason is CloseReason.SLOW:
            self._widen(len(goodbye))
        if reason is not CloseReason.GONE:
            self._say(goodbye)
        self.state = State.CLOSING
        self.ready = None
        self.reason = reason
        self._owner.on_closing(self, reason, lost)
        if reason is CloseReason.GONE:
            self._release()
        else:
            self._owner.schedule(self, self._owner.close_seconds)
            if self._deaf and self._outbox is None:
                self._half_close()
        return True

    def abort(self) -> None:
        """End at once: what the kernel has not taken yet is given up."""
        self.close(CloseReason.GOING_AWAY)
        self._release()

    def _say(self, goodbye: bytes) -> None:
        """Send the last bytes; a peer that is gone shows itself at the next read."""
        if self._outbox is not None:
            self._outbox.append(Bundle.control(goodbye))
            return
        try:
            sent = self._sock.send(goodbye)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent != len(goodbye):
            self._hold(Outbox((Bundle.control(goodbye),), sent))

    def _widen(self, size: int) -> None:
        """Let the kernel take the goodbye of a client that reads nothing, so that nobody waits for it."""
        room = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room // 2 + size + _SLACK_BYTES)

    def _closed_by_peer(self, payload: bytes) -> None:
        code, _ = frames.parse_close(payload)
        # The same code comes back (5.5.1); 1005 stands for none and is never sent.
        echo = frames.encode(Opcode.CLOSE, b"" if code == 1005 else payload[:2])
        self.close(CloseReason.CLIENT, goodbye=echo)
        self._deaf = True
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
