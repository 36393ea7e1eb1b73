"""What one client may: bounds, rates and times, the same for all connections of a worker."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from odinws.access.rates import Limit
from odinws.connections.outbox import SlowPolicy
from odinws.settings import Settings

CONNECT_SECONDS = 10.0  # for the `connect` of Centrifugo's protocol
CENTRIFUGO_MESSAGE_BYTES = 512 << 10  # 1,000 subscriptions with a position take 122 KB and more
WORK_OF_COMMAND = 10  # a command takes about as long as ten control frames
_SPARE = 50  # commands beside the subscriptions


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The same for all connections of a worker.

    Attributes:
        max_message_bytes: of a client's message, also when inflated.
        max_wildcards: among its subscriptions.
        max_channel_bytes: of the name of a channel.
        commands: the rate limit of commands.
        work: the rate limit of everything else that a client makes the worker do, see `Connection.spend`.
        client_work: of all that the connections of one address, or one subject, make the worker do.
        exempts_loopback: whether programs on this machine have no such limit.
        max_errors: the number of bad commands that closes the connection.
        dropping: for the policies that drop messages, in the order in which they apply to a full outbox: of
            which channels they do.
        outbox_bytes, outbox_frames: bounds of the outbox.
        outbox_seconds: how long a socket may accept nothing of its outbox before the connection is closed.
        heartbeat_seconds: silence after which a ping is sent.
        idle_seconds: silence after which the connection is closed.
        first_command_seconds: time until the first command; inf: unlimited.
        close_seconds: time for the answer to a close frame.
        memory_bytes: what may be held for all connections of the worker.
        send_buffer_bytes: the kernel's send buffer, as requested by SO_SNDBUF.
    """

    max_message_bytes: int
    max_subscriptions: int
    max_wildcards: int
    max_channel_bytes: int
    commands: Limit
    work: Limit
    client_work: Limit
    exempts_loopback: bool
    max_errors: int
    dropping: Mapping[SlowPolicy, Callable[[str], bool]]
    outbox_bytes: int
    outbox_frames: int
    outbox_seconds: float
    heartbeat_seconds: float
    idle_seconds: float
    first_command_seconds: float
    close_seconds: float
    memory_bytes: int
    send_buffer_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """The limits in the settings."""
        work = Limit(WORK_OF_COMMAND * settings.command_rate, WORK_OF_COMMAND * settings.command_burst)
        times = settings.client_work
        return cls(
            max_message_bytes=settings.max_message_bytes,
            max_subscriptions=settings.max_subscriptions,
            max_wildcards=settings.max_wildcards,
            max_channel_bytes=settings.channels.max_bytes,
            commands=Limit(settings.command_rate, settings.command_burst),
            work=work,
            client_work=Limit(times * work.per_second, times * work.burst).among(settings.workers),
            exempts_loopback=settings.upgrade_exempt_loopback,
            max_errors=settings.max_errors,
            dropping=_dropping(settings),
            outbox_bytes=settings.outbox_bytes,
            outbox_frames=settings.outbox_frames,
            outbox_seconds=settings.outbox_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            idle_seconds=settings.idle_seconds,
            first_command_seconds=settings.first_command_seconds or math.inf,
            close_seconds=settings.close_seconds,
            memory_bytes=settings.client_memory_bytes // settings.workers,
            send_buffer_bytes=settings.send_buffer_bytes,
        )

    def for_centrifugo(self) -> ConnectionLimits:
        """Those of the Centrifugo endpoint: an SDK sends all of its subscriptions at once."""
        commands = self.commands._replace(burst=max(self.commands.burst, self.max_subscriptions + _SPARE))
        return replace(
            self,
            max_message_bytes=max(self.max_message_bytes, CENTRIFUGO_MESSAGE_BYTES),
            commands=commands,
            work=Limit(self.work.per_second, max(self.work.burst, WORK_OF_COMMAND * commands.burst)),
            first_command_seconds=CONNECT_SECONDS,
        )

    def for_welcome(self) -> dict[str, float]:
        """The limits that a welcome names; 0.0 for a time that is unlimited."""
        first_command_seconds = self.first_command_seconds
        return {
            "max_message_bytes": self.max_message_bytes,
            "max_subscriptions": self.max_subscriptions,
            "max_wildcards": self.max_wildcards,
            "max_channel_bytes": self.max_channel_bytes,
            "commands_per_second": self.commands.per_second,
            "command_burst": self.commands.burst,
            "control_frames_per_second": self.work.per_second,
            "control_frame_burst": self.work.burst,
            "max_errors": self.max_errors,
            "outbox_bytes": self.outbox_bytes,
            "outbox_frames": self.outbox_frames,
            "idle_seconds": self.idle_seconds,
            "first_command_seconds": 0.0 if math.isinf(first_command_seconds) else first_command_seconds,
        }


def _dropping(settings: Settings) -> dict[SlowPolicy, Callable[[str], bool]]:
    channels, default = settings.channels, settings.slow_policy

    def has(policy: str, channel: str) -> bool:
        return (channels.slow_policy_of(channel) or default) == policy

    return {
        policy: partial(has, policy.value)
        for policy in (SlowPolicy.CONFLATE, SlowPolicy.DROP_OLDEST)
        if policy.value in (default, *channels.slow_policies)
    }
