"""The meaning of patterns, held against a nats-server's own."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import nats

from odinws.access.patterns import covers
from tests.nats import NatsServer

TOKENS = ("a", "b")
PATTERNS = [
    ".".join([*tokens, *rest])
    for depth in range(4)
    for tokens in itertools.product((*TOKENS, "*"), repeat=depth)
    for rest in ((), (">",))
    if tokens or rest
]
CHANNELS = [".".join(tokens) for depth in range(1, 5) for tokens in itertools.product(TOKENS, repeat=depth)]


async def delivered(url: str) -> dict[str, set[str]]:
    """By pattern, what NATS delivers to a subscription of it."""
    found: dict[str, set[str]] = {pattern: set() for pattern in PATTERNS}
    client = await nats.connect(url)
    try:
        subscriptions = {pattern: await client.subscribe(f"p.{pattern}") for pattern in PATTERNS}
        await client.flush()
        await client.flush()  # the first PING may overtake what waits to be sent
        for channel in CHANNELS:
            await client.publish(f"p.{channel}", b"")
        await client.flush()
        await client.flush()
        for pattern, subscription in subscriptions.items():
            while subscription.pending_msgs:
                message = await subscription.next_msg(5)
                found[pattern].add(message.subject.removeprefix("p."))
    finally:
        await client.close()
    return found


def test_patterns_are_those_of_nats(tmp_path: Path) -> None:
    """Every pattern of up to three tokens and a rest, and every channel of up to four."""
    with NatsServer(tmp_path) as server:
        found = asyncio.run(delivered(server.url))
    for pattern, channels in found.items():
        assert channels == {c for c in CHANNELS if covers(pattern.split("."), c.split("."))}, pattern
