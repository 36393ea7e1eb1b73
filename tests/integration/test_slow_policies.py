"""Slow clients: gaps name exactly what they missed, or they are disconnected."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests import ledger
from tests.integration.conftest import Serve
from tests.ledger import Ledger, Publisher
from tests.nats import NatsServer
from tests.server import Server, wait_for
from tests.swarm import Swarm
from tests.wire import PING, TEXT, Peer

OTHERS = 49
SHARED = ["token.A", "token.B"]
BULK = "token.BULK"  # only the stalled client has it
CHANNELS = [*SHARED, BULK]
BULK_BYTES = 40_000
MESSAGES = 1_200
RATE = 300.0
OUTBOX_BYTES = 256 << 10
# The stalled client misses 16 MB. What grows besides its outbox are buffers of the feed and of malloc.
MOST_GROWTH_BYTES = 12 << 20


class Scene(NamedTuple):
    """A server with one client that stalls."""

    server: Server
    nats: NatsServer
    swarm: Swarm
    stalled: Peer


def payload(number: int) -> bytes:
    """A short message for what is shared, a long one for the bulk."""
    filling = "x" * (BULK_BYTES if CHANNELS[number % len(CHANNELS)] == BULK else 100)
    return json.dumps({"type": "price:update", "number": number, "filling": filling}).encode()


@pytest.fixture
def scene(request: pytest.FixtureRequest, nats: NatsServer, serve: Serve) -> Iterator[Scene]:
    """Fifty clients under one policy; the one that stalls has subscribed and reads no more."""
    server = serve(
        NATS_URL=nats.url,
        WS_SLOW_POLICY=request.param,
        WS_SEND_BUFFER_BYTES="4096",
        WS_OUTBOX_BYTES=str(OUTBOX_BYTES),
        WS_OUTBOX_SECONDS="50",
        WS_RING_BYTES="1000000",  # else it takes what the bulk weighs
    )
    with Swarm(server.port) as swarm, Peer(server.port, receive_buffer_bytes=2048) as stalled:
        swarm.connect(range(OTHERS))
        swarm.subscribe(range(OTHERS), SHARED)
        swarm.settle()
        stalled.upgrade()
        assert stalled.ask("subscribe", channels=CHANNELS)["count"] == len(CHANNELS)
        yield Scene(server, nats, swarm, stalled)


def publish_all(scene: Scene) -> Ledger:
    """Publish everything and wait until all but the stalled client have it. What NATS took."""
    with Publisher(scene.nats.url, CHANNELS, RATE, payload) as publisher:
        wait_for(lambda: publisher.published >= MESSAGES, 30, "all messages")
    taken = ledger.read(scene.nats.url)
    wait_for(lambda: taken.reached(scene.swarm), 10, "all messages at the others")
    return taken


def others_are_well(scene: Scene, taken: Ledger) -> None:
    """Each of the others got each message, once and in order, and no gap."""
    assert scene.swarm.problems() == []
    assert taken.faults(scene.swarm.stretches()) == []
    assert [stretch.gaps for stretch in scene.swarm.stretches()] == [[]] * (OTHERS * len(SHARED))
    assert len(scene.swarm.open()) == OTHERS


def read_on(peer: Peer, taken: Ledger) -> list[Any]:
    """All messages, up to the newest of each channel."""
    newest = {channel: seqs[-1] for channel, seqs in taken.seqs.items()}
    messages: list[Any] = []
    last: dict[str, int] = {}
    while last != newest:
        got = peer.next()
        if got.opcode == PING:
            continue
        assert got.opcode == TEXT, got
        messages.append(got.json)
        if "seq" in messages[-1]:
            last[messages[-1]["channel"]] = messages[-1]["seq"]
    return messages


def resident_bytes(server: Server) -> list[int]:
    """Of each worker."""
    return [worker["rss_bytes"] for worker in server.json("/stats")["workers"]]


@pytest.mark.parametrize("scene", ["conflate", "drop-oldest"], indirect=True)
def test_what_a_slow_client_misses_is_named(scene: Scene) -> None:
    """Per channel: what came and what gaps name is all that was published, once, in order, to the newest."""
    server = scene.server
    before = resident_bytes(server)
    taken = publish_all(scene)
    stats = server.json("/stats")
    assert stats["fan_out"]["shed"] > 0
    for now, was in zip(resident_bytes(server), before, strict=True):
        assert now - was < MOST_GROWTH_BYTES < BULK_BYTES * len(taken.seqs[BULK])

    messages = read_on(scene.stalled, taken)
    named = 0
    for channel in CHANNELS:
        seqs = taken.seqs[channel]
        received: list[int] = []
        for message in [m for m in messages if m.get("channel") == channel]:
            if message["type"] == "gap":
                assert message["reason"] == "slow"
                stretch = seqs[bisect_left(seqs, message["from"]) : bisect_right(seqs, message["to"])]
                assert (stretch[0], stretch[-1]) == (message["from"], message["to"])
                received += stretch
                named += len(stretch)
            else:
                received.append(message["seq"])
        assert received == seqs
    assert named > 0
    assert scene.stalled.ask("heartbeat")["type"] == "pong"

    others_are_well(scene, taken)
    stats = server.json("/stats")
    assert stats["fan_out"]["shed"] == server.metric("ws_messages_shed_total") == named
    assert stats["fan_out"]["undelivered"] == 0
    assert stats["closed"]["slow"] == 0
    assert stats["connections"] == OTHERS + 1


@pytest.mark.parametrize("scene", ["disconnect"], indirect=True)
def test_by_default_a_slow_client_is_let_go(scene: Scene) -> None:
    """It is closed with 4008, nothing is shed, and what it missed is counted."""
    taken = publish_all(scene)
    assert scene.stalled.closing().code == 4008
    others_are_well(scene, taken)
    stats = scene.server.json("/stats")
    assert stats["closed"]["slow"] == 1
    assert stats["fan_out"]["shed"] == 0
    assert stats["fan_out"]["undelivered"] > 0


@pytest.mark.parametrize("scene", ["conflate"], indirect=True)
def test_lag_and_stalls_are_reported(scene: Scene) -> None:
    """`/stats` and `/metrics` count what was handed over by its age, and the ticks of the event loop."""
    publish_all(scene)
    stats = scene.server.json("/stats")
    assert sum(stats["lag"]["counts"]) == stats["fan_out"]["delivered"]
    assert 0 < stats["lag"]["p50_seconds"] <= stats["lag"]["p95_seconds"] <= stats["lag"]["p99_seconds"]
    assert scene.server.metric("ws_delivery_lag_seconds_count") == sum(stats["lag"]["counts"])
    assert sum(stats["stall"]["counts"]) > 50
    assert stats["stall"]["p99_9_seconds"] > 0
    assert scene.server.metric("ws_hub_stall_seconds_count") >= sum(stats["stall"]["counts"])
