"""The whole truth about a feed: what NATS took, and when. Held against what a swarm got."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import nats
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header
from nats.js.errors import BadRequestError, NoStreamResponseError

from tests.life import Stretch
from tests.swarm import Swarm

PREFIX = "odin."
STREAM = "ODIN_TOKENS"
_PATIENCE_SECONDS = 60.0  # a busy machine is slow


class Ledger:
    """What a stream took, by channel: `seq` and time in whole ms since 1970, both rising."""

    def __init__(self) -> None:
        self.seqs: dict[str, list[int]] = defaultdict(list)
        self.times_ms: dict[str, list[int]] = defaultdict(list)

    def add(self, channel: str, seq: int, time_ms: int) -> None:
        """Note one message; call it in the order of `seq`."""
        self.seqs[channel].append(seq)
        self.times_ms[channel].append(time_ms)

    def __len__(self) -> int:
        return sum(map(len, self.seqs.values()))

    def faults(self, stretches: Iterable[Stretch], *, slack_seconds: float = 2.0) -> list[str]:
        """What is missing or too much, one line each; empty: everything is right.

        - Between its first and its last message a subscription got every one.
        - It got the first that NATS took after the acknowledgement was read (to the ms).
        - It got every one that NATS took `slack_seconds` before its end was asked for; without an end, all.
        """
        return [
            f"{text}: {stretch}"
            for stretch in stretches
            for text in self._faults(stretch, slack_seconds)
            if stretch.acked_at
        ]

    def _faults(self, stretch: Stretch, slack_seconds: float) -> Iterable[str]:
        seqs, times_ms = self.seqs.get(stretch.channel, []), self.times_ms.get(stretch.channel, [])
        start = bisect_right(times_ms, int(stretch.acked_at * 1000))
        stop = len(times_ms)
        if stretch.asked_out_at:
            stop = bisect_left(times_ms, int((stretch.asked_out_at - slack_seconds) * 1000))
        if not stretch.count:
            if start < stop:
                yield f"none came of {stop - start} messages from {seqs[start]}"
            return
        if start < len(seqs) and stretch.first > seqs[start]:
            yield f"lost before the first: {seqs[start]} was taken after the acknowledgement"
        if stop > 0 and stretch.last < seqs[stop - 1]:
            yield f"lost behind the last: up to {seqs[stop - 1]} was due"
        due = bisect_right(seqs, stretch.last) - bisect_left(seqs, stretch.first)
        if due != stretch.count and not stretch.gaps:
            yield f"{stretch.count} came of {due}"

    def reached(self, swarm: Swarm) -> bool:
        """Whether every open connection has all that is due to it. For waiting."""
        return not any(self.faults(life.stretches) for life in swarm.open())


def read(url: str, stream: str = STREAM, *, prefix: str = PREFIX) -> Ledger:
    """Read a stream from end to end, without its payloads."""
    return asyncio.run(_read(url, stream, prefix))


async def _read(url: str, stream: str, prefix: str) -> Ledger:
    ledger = Ledger()
    client = await nats.connect(url, connect_timeout=_PATIENCE_SECONDS)
    try:
        js = client.jetstream(timeout=_PATIENCE_SECONDS)
        await _settled(js, stream, prefix)
        last = (await js.stream_info(stream)).state.last_seq
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, mem_storage=True, headers_only=True
        )
        found = await js.subscribe(prefix + ">", stream=stream, ordered_consumer=True, config=config)
        seq = 0
        while seq < last:
            message = await found.next_msg(timeout=_PATIENCE_SECONDS)
            seq = message.metadata.sequence.stream
            time_ms = int(message.metadata.timestamp.timestamp() * 1000)
            ledger.add(message.subject.removeprefix(prefix), seq, time_ms)
    finally:
        await client.close()
    return ledger


async def _settled(js: JetStreamContext, stream: str, prefix: str) -> None:
    """Wait until the stream has taken all that NATS has read; for a while also until there is one again.

    NATS answers a flush before its stream has stored what came before. A message that the stream refuses is
    answered in its turn, and leaves nothing behind.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            await js.publish(
                prefix + "settled",
                b"",
                timeout=_PATIENCE_SECONDS,
                stream=stream,
                headers={Header.EXPECTED_LAST_SEQUENCE: str(2**62)},
            )
        except BadRequestError:
            return
        except (NoStreamResponseError, nats.errors.TimeoutError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            raise AssertionError("the stream took a message with a sequence that cannot be")


class Publisher:
    """Publishes at an even rate in a thread of its own, one channel after the other, as plain messages.

    While NATS is away it waits, and goes on when that is back. What was on the way when NATS died may be lost
    to NATS: the stream tells what was taken, not this.

    Args:
        url: of NATS; several with commas between them.
        channels: published to in turn.
        rate: messages per second over all channels.

    Attributes:
        published: how many messages were handed to NATS.
    """

    def __init__(
        self, url: str, channels: Sequence[str], rate: float, payload: Callable[[int], bytes] | None = None
    ) -> None:
        self._url = url
        self._channels = channels
        self._rate = rate
        self._payload = payload or _payload
        self.published = 0
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)

    def stop(self) -> None:
        """Stop, after NATS has confirmed what was published so far (if it is there)."""
        self._stopping.set()
        self._thread.join(_PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the publisher does not end"
        assert self._failure is None, self._failure

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._failure = error
            raise

    async def _run(self) -> None:
        while not self._stopping.is_set():
            client = Client()
            try:
                await client.connect(
                    self._url.split(","), allow_reconnect=False, connect_timeout=1, max_reconnect_attempts=1
                )
                await self._publish(client)
                await client.flush(20)
                await client.flush(20)  # the second PING is sure to come behind all messages
                await client.close()
            except (nats.errors.Error, OSError):  # it is away: what it did not get is lost
                await asyncio.sleep(0.05)

    async def _publish(self, client: Client) -> None:
        started, first = time.monotonic(), self.published
        while not self._stopping.is_set() and client.is_connected:
            while self.published - first < (time.monotonic() - started) * self._rate:
                channel = self._channels[self.published % len(self._channels)]
                await client.publish(PREFIX + channel, self._payload(self.published))
                self.published += 1
            await asyncio.sleep(0.01)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def publish(url: str, messages: Iterable[tuple[str, bytes]], *, prefix: str = PREFIX) -> None:
    """Publish (channel, payload) pairs at once and wait until NATS has read them."""
    asyncio.run(_publish_now(url, messages, prefix))


async def _publish_now(url: str, messages: Iterable[tuple[str, bytes]], prefix: str) -> None:
    client = await nats.connect(url, connect_timeout=_PATIENCE_SECONDS)
    try:
        for channel, payload in messages:
            await client.publish(prefix + channel, payload)
        await client.flush(60)
        await client.flush(60)  # the second PING is sure to come behind all of them
    finally:
        await client.close()


def _payload(number: int) -> bytes:
    return json.dumps({"type": "price:update", "number": number, "filling": "x" * 150}).encode()
