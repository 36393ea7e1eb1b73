"""The predecessor's failure on a real nats-server: what a consumer does to its own feed.

Several consumers hear one stream at the published rate. Each counts its deliveries:

- The predecessor's: explicit acknowledgements, a NAK without a delay for whatever is above its rate limit,
  which is the published rate; and for everything while its guard has paused the feed.
- The same with other AckWaits: a NAK does not wait for them.
- One that does not acknowledge during the pause: then AckWait is all that repeats.
- odinws': no acknowledgements, so there is nothing to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig

from odinws.access.rates import Limit, step
from odinws.feed.embedded import EmbeddedNats

_STREAM = "LAB"
_SUBJECT = "lab.price"
_MOST_DELIVERIES = 2_000_000  # of one consumer: then it stops, and says so


@dataclass(frozen=True)
class Arm:
    name: str
    acks: bool = True  # whether it acknowledges at all
    naks: bool = True  # whether it refuses what it does not want, instead of keeping silent
    ack_wait_seconds: float = 30.0


ARMS = (
    Arm("NAK, AckWait 30 s (predecessor)"),
    Arm("NAK, AckWait 5 s", ack_wait_seconds=5.0),
    Arm("NAK, AckWait 120 s", ack_wait_seconds=120.0),
    Arm("silence, AckWait 5 s", naks=False, ack_wait_seconds=5.0),
    Arm("no acknowledgements (odinws)", acks=False),
)


@dataclass
class Count:
    """A consumer: what it got, and what it does with it."""

    arm: Arm
    limit: Limit  # what it wants
    pause: tuple[float, float]  # from when to when it wants nothing, in seconds since it began
    began: float  # monotonic
    received: int = 0  # deliveries
    by_second: list[int] = field(default_factory=list)  # the same, in each second since the start
    stopped: bool = False  # it had more than it may have

    def __post_init__(self) -> None:
        self._due = self.began

    async def listen(self, client: Client, name: str) -> None:
        """Consume from now on."""
        inbox, acks = client.new_inbox(), self.arm.acks
        await client.subscribe(inbox, cb=self._take)
        config = ConsumerConfig(
            durable_name=name,
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.NEW,
            ack_policy=AckPolicy.EXPLICIT if acks else AckPolicy.NONE,
            ack_wait=self.arm.ack_wait_seconds if acks else None,
            mem_storage=True,
        )
        await client.jetstream().add_consumer(_STREAM, config)

    async def _take(self, msg: Msg) -> None:
        if not msg.reply.startswith("$JS.ACK."):
            return
        now = time.monotonic()
        second = int(now - self.began)
        self.received += 1
        self.by_second += [0] * (second + 1 - len(self.by_second))
        self.by_second[second] += 1
        self.stopped = self.received >= _MOST_DELIVERIES
        if not self.arm.acks or self.stopped:
            return
        wait = 1.0  # while the feed is paused
        if not self.pause[0] <= now - self.began < self.pause[1]:
            self._due, wait = step(self._due, now, self.limit)
        if not wait:
            await msg.ack()
        elif self.arm.naks:
            await msg.nak()


@dataclass(frozen=True)
class Result:
    """The whole run; the same messages for all."""

    published: int
    seconds: float
    pause: tuple[float, float]
    counts: list[Count]

    def amplification(self, count: Count) -> float:
        return count.received / self.published if self.published else 0.0


async def run(
    *,
    rate: float,
    seconds: float,
    pause: tuple[float, float],
    progress: Callable[[float, list[Count]], None] = lambda _, __: None,
) -> Result:
    """Publish at a rate, and let all consumers hear it.

    Args:
        rate: messages per second, published and allowed.
        pause: from when to when the guards have paused the feed, in seconds since the start.
        progress: called each second with the time and the counts.

    Raises EmbeddedNatsError when there is no nats-server here.
    """
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="odinws-lab-"))
        server = await stack.enter_async_context(EmbeddedNats(Path(directory)))

        async def connect() -> Client:
            client = await nats.connect(server.url)
            stack.push_async_callback(client.close)
            return client

        client = await connect()
        subjects = StreamConfig(name=_STREAM, subjects=[_SUBJECT], storage=StorageType.MEMORY)
        await client.jetstream().add_stream(subjects)
        began, limit = time.monotonic(), Limit(rate, max(1, round(rate)))
        counts = [Count(arm, limit, pause, began) for arm in ARMS]
        for number, count in enumerate(counts):
            await count.listen(await connect(), f"arm-{number}")
        published = await _publish(client, rate, seconds, began, lambda now: progress(now, counts))
        await asyncio.sleep(0.5)
        return Result(published, time.monotonic() - began, pause, counts)


async def _publish(
    client: Client, rate: float, seconds: float, began: float, progress: Callable[[float], None]
) -> int:
    published, shown = 0, 0
    while (now := time.monotonic() - began) < seconds:
        while published < now * rate:
            await client.publish(_SUBJECT, b'{"type":"price:update"}')
            published += 1
        if int(now) > shown:
            shown = int(now)
            progress(now)
        await asyncio.sleep(0.01)
    await client.flush()
    await client.flush()  # the second PING is sure to come behind all messages
    return published
