"""What the scenarios share: the seed, the settings, and clients that only listen and must lose nothing."""

from __future__ import annotations

import asyncio
import os
import random
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
REACH_SECONDS = 10.0

# The tests share the cores with the server, so admission by load would refuse at random.
DRAIN_SECONDS = 0.5
CALM = {
    "WS_RECONCILE_SECONDS": "1",
    "WS_CPU_REJECT_THRESHOLD": "100",
    "WS_HUB_LAG_THRESHOLD_MS": "60000",
    "WS_DRAIN_SECONDS": str(DRAIN_SECONDS),
}
HEARTBEAT_SECONDS = 0.8
IDLE_SECONDS = 2.4
CLOSE_SECONDS = 0.5
MAX_MESSAGE_BYTES = 4096
QUICK = {
    **CALM,
    "WS_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
    "WS_IDLE_SECONDS": str(IDLE_SECONDS),
    "WS_CLOSE_SECONDS": str(CLOSE_SECONDS),
    "WS_MAX_MESSAGE_BYTES": str(MAX_MESSAGE_BYTES),
    "WS_SEND_BUFFER_BYTES": "4096",
    "WS_OUTBOX_BYTES": "65536",
    "WS_OUTBOX_SECONDS": "4",
}


def dice(scenario: str) -> random.Random:
    """The random numbers of a scenario: the same for the same seed, whatever ran before."""
    return random.Random(f"{SEED} {scenario}")


def forget(url: str) -> None:
    """Empty the stream, so that what a ledger has to read is of one scenario. Sequences go on."""

    async def purge() -> None:
        client = await nats.connect(url, connect_timeout=5)
        try:
            await client.jetstream().purge_stream(STREAM)
        finally:
            await client.close()

    asyncio.run(purge())


class Stayers:
    """Clients that listen to all channels from the beginning to the end, and the feed that they hear.

    Args:
        server: whose clients they are.
        url: of its NATS; the stream is emptied first.
        count: how many.
        channels: published to in turn.
        heard: those that the clients subscribe to; all unless given.
        rate: messages per second over all channels.
        payload: of a message by its number.
    """

    def __init__(
        self,
        server: Server,
        url: str,
        count: int,
        *,
        channels: Sequence[str] = CHANNELS,
        heard: Sequence[str] = (),
        rate: float = RATE,
        payload: Callable[[int], bytes] | None = None,
    ) -> None:
        forget(url)
        self.count = count
        self.swarm = Swarm(server.port)
        self.publisher = Publisher(url, channels, rate, payload)
        self._heard = heard or channels
        self._url = url

    def __enter__(self) -> Self:
        swarm, everyone = self.swarm.__enter__(), range(self.count)
        swarm.connect(everyone)
        swarm.subscribe(everyone, self._heard)
        swarm.settle()
        assert len(swarm.open()) == self.count, [life.http for life in swarm.lives if life.refused][:1]
        self.publisher.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.publisher.stop()
        finally:
            self.swarm.__exit__()

    def unharmed(self, survivors: Iterable[int] | None = None, *, at_least: int = 50) -> None:
        """End the feed: everyone, or the survivors, are open and have all of it, once and in order.

        Args:
            survivors: numbers of those that had to stay; the others may have ended, and lost nothing before.
            at_least: how many messages the feed must have had for that to mean anything; waited for.
        """
        swarm = self.swarm
        wait_for(lambda: self.publisher.published >= at_least, REACH_SECONDS, f"{at_least} messages")
        self.publisher.stop()
        taken = read(self._url)
        wait_for(lambda: taken.reached(swarm), REACH_SECONDS, "all messages at all who stayed")
        expected = set(range(self.count) if survivors is None else survivors)
        missing = expected ^ {life.index for life in swarm.open()}
        assert not missing, f"open though they should not be, or the other way round: {missing}"
        problems, faults = swarm.problems(), taken.faults(swarm.stretches())
        assert not problems, f"{len(problems)}: {problems[:5]}"
        assert not faults, f"{len(faults)}: {faults[:5]}"
        gaps = [stretch for stretch in swarm.stretches() if stretch.gaps]
        assert not gaps, f"{len(gaps)} were told of gaps: {gaps[:5]}"
        assert len(taken) >= at_least, f"a feed of {len(taken)} messages proves nothing"
        assert all(life.messages for life in swarm.open())
        swarm.disconnect(range(self.count))
        swarm.settle()
