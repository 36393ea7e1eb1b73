"""What one connection may use, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from odinws.access.rates import Limit
from odinws.connections.outbox import SlowPolicy
from odinws.messages.channels import MAX_CHANNEL_BYTES
from odinws.settings import Settings


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The same for all connections of a worker.

    Attributes:
        max_message_bytes: of a client's message, also when inflated.
        commands: how many a client may send.
        max_errors: bad commands; then the connection ends.
        outbox_bytes, outbox_frames: what may wait for a socket.
        outbox_seconds: how long a socket may take nothing while something waits.
        heartbeat_seconds: silence after which a ping is sent.
        idle_seconds: silence after which the connection ends.
        first_command_seconds: how long a client may take for its first command; inf: as long as it likes.
        close_seconds: how long the answer to a close frame may take.
        send_buffer_bytes: of the kernel's buffer, as asked for.
    """

    max_message_bytes: int
    max_subscriptions: int
    commands: Limit
    max_errors: int
    slow_policy: SlowPolicy
    outbox_bytes: int
    outbox_frames: int
    outbox_seconds: float
    heartbeat_seconds: float
    idle_seconds: float
    first_command_seconds: float
    close_seconds: float
    send_buffer_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """As the settings say."""
        return cls(
            max_message_bytes=settings.max_message_bytes,
            max_subscriptions=settings.max_subscriptions,
            commands=Limit(settings.command_rate, settings.command_burst),
            max_errors=settings.max_errors,
            slow_policy=SlowPolicy(settings.slow_policy),
            outbox_bytes=settings.outbox_bytes,
            outbox_frames=settings.outbox_frames,
            outbox_seconds=settings.outbox_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            idle_seconds=settings.idle_seconds,
            first_command_seconds=settings.first_command_seconds or math.inf,
            close_seconds=settings.close_seconds,
            send_buffer_bytes=settings.send_buffer_bytes,
        )

    def for_welcome(self) -> dict[str, float]:
        """What a client is told of them in its welcome."""
        first_command_seconds = self.first_command_seconds
        return {
            "max_message_bytes": self.max_message_bytes,
            "max_subscriptions": self.max_subscriptions,
            "max_channel_bytes": MAX_CHANNEL_BYTES,
            "commands_per_second": self.commands.per_second,
            "command_burst": self.commands.burst,
            "max_errors": self.max_errors,
            "outbox_bytes": self.outbox_bytes,
            "outbox_frames": self.outbox_frames,
            "idle_seconds": self.idle_seconds,
            "first_command_seconds": 0.0 if math.isinf(first_command_seconds) else first_command_seconds,
        }
