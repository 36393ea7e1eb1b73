"""What a worker publishes of each of its shards, in its details: declared here alone.

A strategy without locks has no `lock` in them.
"""

from __future__ import annotations

from typing import Annotated

from odinws.board.fields import Counter, Gauge


class ShardGauges:
    """Of a shard."""

    connections: Annotated[int, Gauge("ws_shard_connections", "Connections whose id belongs to the shard.")]
    channels: Annotated[int, Gauge("ws_shard_channels", "Channels with subscribers in the shard.")]
    subscriptions: Annotated[int, Gauge("ws_shard_subscriptions", "Subscriptions in the shard.")]


class LockGauges:
    """Of its lock, see strategies.locks."""

    longest_wait_seconds: Annotated[
        float,
        Gauge(
            "ws_shard_lock_longest_wait_seconds",
            "Longest wait for the shard's lock in the life of the worker.",
            unit="seconds",
        ),
    ]
    longest_hold_seconds: Annotated[
        float,
        Gauge(
            "ws_shard_lock_longest_hold_seconds",
            "Longest hold of the shard's lock in the life of the worker.",
            unit="seconds",
        ),
    ]


class LockCounters:
    """The same, and what only grows."""

    acquisitions: Annotated[int, Counter("ws_shard_lock_acquisitions", "Times the lock was taken.")]
    waits: Annotated[int, Counter("ws_shard_lock_waits", "Times somebody had to wait for it.")]
    wait_seconds: Annotated[
        float, Counter("ws_shard_lock_wait_seconds", "Time waited for it.", unit="seconds")
    ]
