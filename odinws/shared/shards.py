"""What a worker publishes of each of its shards, in its details: declared here alone.

A strategy without locks has no `lock` in them.
"""

from __future__ import annotations

from odinws.shared.fields import counter, gauge


class ShardGauges:
    """Of a shard."""

    connections: int = gauge("ws_shard_connections", "Connections whose id maps to the shard.")
    channels: int = gauge("ws_shard_channels", "Channels with subscribers in the shard.")
    subscriptions: int = gauge("ws_shard_subscriptions", "Subscriptions in the shard.")


class LockGauges:
    """Of its lock, see strategies.locks."""

    longest_wait_seconds: float = gauge(
        "ws_shard_lock_longest_wait_seconds",
        "Longest wait for the shard's lock since the worker started.",
        unit="seconds",
    )
    longest_hold_seconds: float = gauge(
        "ws_shard_lock_longest_hold_seconds",
        "Longest time the shard's lock was held since the worker started.",
        unit="seconds",
    )


class LockCounters:
    """The same, and what only grows."""

    acquisitions: int = counter("ws_shard_lock_acquisitions", "Times the shard's lock was acquired.")
    waits: int = counter("ws_shard_lock_waits", "Acquisitions of the shard's lock that had to wait.")
    wait_seconds: float = counter(
        "ws_shard_lock_wait_seconds", "Time spent waiting for the shard's lock.", unit="seconds"
    )
