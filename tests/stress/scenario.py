"""What the scenarios share: the seed, the settings, and clients that only listen and must miss nothing."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import nats

from tests.ledger import STREAM, Publisher, read
from tests.server import Server, wait_for
from tests.swarm import Swarm

DEFAULT_SEED = 20261124
SEED = int(os.environ.get("ODINWS_STRESS_SEED", DEFAULT_SEED))

CHANNELS = [f"token.S{number}" for number in range(6)]
RATE = 150.0  # messages per second over all channels
REACH_SECONDS = 60.0

# The tests share the cores with the server, so admission by load would refuse at random.
DRAIN_SECONDS = 0.5
CALM = {
    "WS_RECONCILE_SECONDS": "1",
    "WS_CPU_REJECT_THRESHOLD": "100",
    "WS_HUB_LAG_THRESHOLD_MS": "60000",
    "WS_DRAIN_SECONDS": str(DRAIN_SECONDS),
}
HEARTBEAT_SECONDS = 0.8
IDLE_SECONDS = 5.0  # clients on a busy machine may stand still for seconds, and must not be closed for that
CLOSE_SECONDS = 0.5
MAX_MESSAGE_BYTES = 4096
QUICK = {
    **CALM,
    "WS_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "WS_IDLE_SECONDS": str(IDLE_SECONDS),
    "WS_CLOSE_SECONDS": str(CLOSE_SECONDS),
    "WS_MAX_MESSAGE_BYTES": str(MAX_MESSAGE_BYTES),
    "WS_SEND_BUFFER_BYTES": "4096",
    "WS_OUTBOX_BYTES": "262144",  # of the shared channels: more than ten seconds
    "WS_OUTBOX_SECONDS": "30",
}


def seeded_random(scenario: str) -> random.Random:
    """Random numbers for a scenario, which depend only on the seed."""
    return random.Random(f"{SEED} {scenario}")


def purge(url: str) -> None:
    """Purge the stream, so that a ledger reads only messages of this scenario. Sequences continue."""

    async def run() -> None:
        client = await nats.connect(url, connect_timeout=60)
        try:
            await client.jetstream().purge_stream(STREAM)
        finally:
            await client.close()

    asyncio.run(run())


class Listeners:
    """Clients that receive all channels during a scenario, and the publisher of their messages.

    Args:
        server: whose clients they are.
        url: of its NATS; the stream is purged first.
        count: how many clients.
        channels: published to in rotation.
        subscribed: the channels that the clients subscribe to; by default all.
        rate: messages per second over all channels.
        payload: makes the payload of a message from its number.
    """

    def __init__(
        self,
        server: Server,
        url: str,
        count: int,
        *,
        channels: Sequence[str] = CHANNELS,
        subscribed: Sequence[str] = (),
        rate: float = RATE,
        payload: Callable[[int], bytes] | None = None,
    ) -> None:
        purge(url)
        self.count = count
        self.swarm = Swarm(server.port)
        self.publisher = Publisher(url, channels, rate, payload)
        self._subscribed = subscribed or channels
        self._url = url
        self._server = server
        self._closed_before = Counter(server.json("/stats")["closed"])

    def _closed(self) -> Counter[str]:
        """Connections that the server has closed since, by reason."""
        return Counter(self._server.json("/stats")["closed"]) - self._closed_before

    def __enter__(self) -> Self:
        swarm, everyone = self.swarm.__enter__(), range(self.count)
        swarm.connect(everyone)
        swarm.subscribe(everyone, self._subscribed)
        swarm.settle()
        assert len(swarm.open()) == self.count, [life.http for life in swarm.lives if life.refused][:1]
        self.publisher.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.publisher.stop()
        finally:
            self.swarm.__exit__()

    def assert_complete(self, survivors: Iterable[int] | None = None, *, at_least: int = 50) -> None:
        """Stop publishing; all clients, or the survivors, must be open and have each message once, in order.

        Args:
            survivors: numbers of the clients that must be open. The others must have missed nothing before
                they ended.
            at_least: how many messages must have been published; they are waited for.
        """
        swarm = self.swarm
        wait_for(lambda: self.publisher.published >= at_least, REACH_SECONDS, f"{at_least} messages")
        self.publisher.stop()
        taken = read(self._url)
        wait_for(lambda: taken.reached(swarm), REACH_SECONDS, "all messages at all who stayed")
        expected = set(range(self.count) if survivors is None else survivors)
        if wrong := expected ^ {life.index for life in swarm.open()}:
            lives = [(life.index, life.state.value, life.close_code, life.problems) for life in swarm.lives]
            closed = {reason: count for reason, count in self._closed().items() if count}
            raise AssertionError(
                f"open though they should not be, or the other way round (number, state, close code, "
                f"problems): {[life for life in lives if life[0] in wrong]}; closed by the server: {closed}"
            )
        problems, faults = swarm.problems(), taken.faults(swarm.stretches())
        assert not problems, f"{len(problems)}: {problems[:5]}"
        assert not faults, f"{len(faults)}: {faults[:5]}"
        gaps = [stretch for stretch in swarm.stretches() if stretch.gaps]
        assert not gaps, f"{len(gaps)} were told of gaps: {gaps[:5]}"
        assert len(taken) >= at_least, f"a feed of {len(taken)} messages proves nothing"
        assert all(life.messages for life in swarm.open())
        swarm.disconnect(range(self.count))
        swarm.settle()
