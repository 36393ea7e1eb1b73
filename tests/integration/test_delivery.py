"""The main promise: a price published to NATS reaches every subscriber, once, in order, whoever else moves.

A thousand connections subscribe, unsubscribe, connect and disconnect without pause while ten thousand
messages are published. Each checks while it reads; afterwards all are held against the stream itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import strategies
from odinws.feed.simulator import TOKENS
from tests import ledger
from tests.ledger import Publisher
from tests.nats import NatsServer
from tests.server import Server, established, wait_for
from tests.swarm import Swarm

CONNECTIONS = 1_000
MESSAGES = 10_000
RATE = 800.0
CHANNELS = [*(f"token.{token}" for token in TOKENS), "global"]
SLACK_SECONDS = 2.0  # besides the lag that the clients have seen: they share the cores with all the rest
CHURN_SECONDS = 0.02  # between two changes of a few connections each
LATE_MESSAGES = 2_500  # for arms that differ from those before them in one thing
ARMS = [
    *((name, "channel", MESSAGES) for name in strategies.NAMES if name not in ("hybrid", "actor")),
    ("fnv-sharded", "connection", MESSAGES),
    ("hybrid", "channel", LATE_MESSAGES),
    ("actor", "connection", LATE_MESSAGES),
]


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A real nats-server."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.mark.parametrize(("strategy", "shard_key", "messages"), ARMS)
def test_every_message_reaches_every_subscriber_once_and_in_order(
    nats: NatsServer, strategy: str, shard_key: str, messages: int
) -> None:
    """No message lost, duplicated or out of order, and nothing leaked, under churn, over two workers."""
    seed = int(os.environ.get("ODINWS_TEST_SEED", "20251025"))
    dice = random.Random(seed)
    settings = {
        "NATS_URL": nats.url,
        "WS_SHARD_STRATEGY": strategy,
        "WS_SHARD_KEY": shard_key,
        "WS_COMMAND_RATE": "1000",
    }
    with Server(settings) as server, Swarm(server.port) as swarm:
        everyone = range(CONNECTIONS)
        swarm.connect(everyone)
        for number in everyone:
            swarm.subscribe(number, dice.sample(CHANNELS, dice.randint(1, 3)))
        swarm.settle()
        with Publisher(nats.url, CHANNELS, RATE) as publisher:
            while publisher.published < messages:
                _churn(swarm, dice)
                time.sleep(CHURN_SECONDS)
        swarm.settle()
        # One more on each channel, so that whoever subscribed last has something to wait for.
        ledger.publish(nats.url, [(channel, b"{}") for channel in CHANNELS])
        truth = ledger.read(nats.url)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: truth.reached(swarm), 60, "the last message everywhere")
        due = truth.faults(stretch for life in swarm.open() for stretch in life.stretches)
        assert not due, (seed, len(due), due[:5], server.json("/stats"))

        assert len(truth) >= messages
        assert not swarm.problems(), (seed, swarm.problems()[:5])
        # What is on its way when a client leaves is not lost. How much that can be shows in what came.
        slack_seconds = SLACK_SECONDS + max(swarm.delays_ms) / 1000
        faults = truth.faults(swarm.stretches(), slack_seconds=slack_seconds)
        assert not faults, (seed, len(faults), faults[:5])
        moved = len(swarm.lives) - CONNECTIONS
        assert moved > messages / RATE / CHURN_SECONDS / 20, "the churn has really happened"

        open_now = len(swarm.open())
        wait_for(lambda: server.json("/stats")["connections"] == open_now, 5, "the true count")
        assert established(server.port) >= open_now  # those that ask over HTTP are in it too

        swarm.disconnect(everyone)
        swarm.settle()
        wait_for(lambda: _counts(server) == (0, 0, 0, 0), 10, "zero everywhere")
        wait_for(lambda: established(server.port) == 0, 5, "no socket in the kernel")
        stats = server.json("/stats")
        assert stats["accepted"] == sum(stats["closed"].values())
        greeted = sum(1 for life in swarm.lives if life.client_id)
        assert greeted <= stats["accepted"] <= len(swarm.lives)  # some leave before they are greeted


def _churn(swarm: Swarm, dice: random.Random) -> None:
    for _ in range(4):
        number = dice.randrange(CONNECTIONS)
        match dice.randrange(10):
            case 0:
                swarm.disconnect(number, dice.choice(("close", "vanish", "reset")))
                swarm.connect(number)
                swarm.subscribe(number, dice.sample(CHANNELS, dice.randint(1, 3)))
            case 1 | 2 | 3 | 4:
                swarm.unsubscribe(number, dice.sample(CHANNELS, dice.randint(1, 3)))
            case _:
                swarm.subscribe(number, dice.sample(CHANNELS, dice.randint(1, 2)))


def _counts(server: Server) -> tuple[float, float, int, float]:
    stats = server.json("/stats")
    return (
        stats["connections"],
        stats["subscriptions"],
        int(server.metric("ws_connections")),
        server.metric("ws_subscriptions"),
    )
