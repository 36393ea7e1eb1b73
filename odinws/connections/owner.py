"""What a connection needs of the registry that owns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from odinws.closing import CloseReason
from odinws.connections.outbox import SlowPolicy

if TYPE_CHECKING:
    from gevent.hub import Hub as EventHub

    from odinws.connections.connection import Connection
    from odinws.connections.sender import Sender


class Owner(Protocol):
    """The registry of a worker, as a connection sees it. Bounds are those of the settings."""

    event_hub: EventHub
    buffer: bytearray  # shared by all reads of the worker
    now: float  # monotonic seconds, to the last tick: one object shared by all
    max_message_bytes: int
    slow_policy: SlowPolicy
    outbox_bytes: int
    outbox_frames: int
    outbox_seconds: float
    heartbeat_seconds: float
    idle_seconds: float
    close_seconds: float

    def on_command(self, conn: Connection) -> None:
        """Commands wait in `conn.commands`."""

    def ping_payload(self) -> bytes:
        """What a ping carries, for its answer to bring back."""

    def on_pong(self, payload: bytes) -> None:
        """A pong came; peers may also send one that nobody asked for, with anything in it."""

    def on_shed(self, conn: Sender, messages: int, gaps: int) -> None:
        """Messages to a slow client were given up, and so many new gaps name them."""

    def on_flushed(self, messages: int) -> None:
        """Messages of the pass under way went out before a close frame."""

    def on_closing(self, conn: Connection, reason: CloseReason, messages_lost: int) -> None:
        """The connection left OPEN. Called once."""

    def on_closed(self, conn: Connection) -> None:
        """The descriptor is gone. Called once."""

    def limit(self, conn: Connection) -> tuple[float, CloseReason, str]:
        """Seconds that the connection may still live, whatever its peer does, and why it ends then."""

    def schedule(self, conn: Sender, delay_seconds: float) -> None:
        """Call `conn.on_time()` after about this delay, instead of when it was due before."""
