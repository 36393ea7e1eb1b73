"""A client that reads nothing costs the others nothing, and is disconnected without a leak."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import psutil
import pytest

from tests.integration.conftest import Serve
from tests.ledger import Publisher, read
from tests.nats import NatsServer
from tests.server import Server, established, wait_for
from tests.swarm import Swarm
from tests.wire import CLOSE, END, PING, TEXT, Frame, Peer

OTHERS = 499
CHANNELS = ["token.A", "token.B"]
OUTBOX_SECONDS = 8.0  # well-behaved clients may be that late on a busy machine
# Nobody who waited for the stalled client to be given up would be served sooner.
LONGEST_DELAY_SECONDS = OUTBOX_SECONDS / 2


class Scene(NamedTuple):
    """A server with its well-behaved clients under a feed of 1 KB messages."""

    server: Server
    nats: NatsServer
    swarm: Swarm
    publisher: Publisher


def payload(number: int) -> bytes:
    """One KB of JSON."""
    return json.dumps({"type": "price:update", "number": number, "filling": "x" * 960}).encode()


@pytest.fixture(params=["bytes", "seconds"])
def scene(request: pytest.FixtureRequest, nats: NatsServer, serve: Serve) -> Iterator[Scene]:
    """The stalled client exceeds a bound of its outbox, either in bytes or in seconds."""
    by_bytes = request.param == "bytes"
    server = serve(
        NATS_URL=nats.url,
        WS_SEND_BUFFER_BYTES="4096",
        WS_OUTBOX_BYTES=str(256 << 10 if by_bytes else 16 << 20),
        WS_OUTBOX_SECONDS=str(60.0 if by_bytes else OUTBOX_SECONDS),
        WS_CLOSE_SECONDS="1",
        WS_CPU_REJECT_THRESHOLD="100",  # so that a busy machine lets all in
        WS_HUB_LAG_THRESHOLD_MS="60000",
    )
    with Swarm(server.port) as swarm:
        swarm.connect(range(OTHERS))
        swarm.subscribe(range(OTHERS), CHANNELS)
        swarm.settle()
        with Publisher(nats.url, CHANNELS, rate=40, payload=payload) as publisher:
            yield Scene(server, nats, swarm, publisher)


def descriptors(server: Server) -> int:
    """Open descriptors of all workers."""
    return sum(psutil.Process(pid).num_fds() for pid in server.workers())


def closed_slow(server: Server) -> tuple[int, float]:
    """How many slow consumers were closed, by `/stats` and by `/metrics`."""
    lines = [
        line
        for line in server.ask("/metrics")[2].decode().splitlines()
        if line.startswith('ws_connections_closed_total{code="4008",reason="slow"')
    ]
    assert lines
    return server.json("/stats")["closed"]["slow"], sum(float(line.rpartition(" ")[2]) for line in lines)


def longest_delay_seconds(swarm: Swarm, seconds: float) -> float:
    """The oldest message that anybody got within the next `seconds`."""
    swarm.delays_ms.clear()
    time.sleep(seconds)
    return max(swarm.delays_ms) / 1000


def read_all(peer: Peer) -> list[Frame]:
    """Everything up to the end of the stream; a piece of a frame at the end is an error."""
    frames = []
    while (got := peer.next()) is not END:
        frames.append(got)
    assert peer.rest == b"", "the stream ends with a whole frame"
    return frames


def test_a_stalled_client_costs_the_others_nothing(scene: Scene) -> None:
    """It is closed with 4008 and counted; the others get everything, in order and in time; nothing stays."""
    server, swarm = scene.server, scene.swarm
    before = longest_delay_seconds(swarm, 1.0)
    held, rss_bytes = (
        descriptors(server),
        [worker["rss_bytes"] for worker in server.json("/stats")["workers"]],
    )
    assert closed_slow(server) == (0, 0)
    with Peer(server.port, receive_buffer_bytes=2048) as stalled:
        stalled.upgrade()
        assert stalled.ask("subscribe", channels=CHANNELS)["count"] == len(CHANNELS)
        assert server.json("/stats")["connections"] == OTHERS + 1
        swarm.delays_ms.clear()
        wait_for(lambda: closed_slow(server) == (1, 1), 4 * OUTBOX_SECONDS, "the close of the stalled client")
        assert server.json("/stats")["fan_out"]["undelivered"] > 0
        assert server.metric("ws_messages_undelivered_total") > 0
        wait_for(lambda: server.json("/stats")["connections"] == OTHERS, 3, "its slot")
        wait_for(lambda: established(server.port) == OTHERS, 3, "its socket")
        wait_for(lambda: descriptors(server) == held, 3, "its descriptor")
        during = max(swarm.delays_ms) / 1000
        assert during < max(LONGEST_DELAY_SECONDS, 2 * before)
        for worker, was in zip(server.json("/stats")["workers"], rss_bytes, strict=True):
            assert worker["rss_bytes"] < was + (8 << 20)

        frames = read_all(stalled)  # only now
    *messages, close_frame = frames
    assert close_frame.opcode == CLOSE
    assert close_frame.code == 4008
    assert {frame.opcode for frame in messages} == {TEXT}
    seen = {channel: [m.json for m in messages if m.json.get("channel") == channel] for channel in CHANNELS}
    for chain in seen.values():
        assert len(chain) > 1
        for one, two in pairwise(chain):
            assert two["prev"] == one["seq"]
    scene.publisher.stop()
    taken = read(scene.nats.url)
    wait_for(lambda: taken.reached(swarm), 10, "all messages everywhere")
    assert swarm.problems() == []
    assert taken.faults(swarm.stretches()) == []
    assert len(swarm.open()) == OTHERS
    assert sum(len(chain) for chain in seen.values()) < len(taken)


def test_a_client_that_stalls_and_reads_on_is_kept(scene: Scene) -> None:
    """A pause within the bounds costs nothing: every message comes, in order, after it."""
    server = scene.server
    with Peer(server.port, receive_buffer_bytes=2048) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=CHANNELS)
        time.sleep(0.8)  # the pause: some 30 KB, more than all kernel buffers hold
        scene.publisher.stop()
        taken = read(scene.nats.url)
        last: dict[str, int] = {}
        while last != {channel: seqs[-1] for channel, seqs in taken.seqs.items()}:
            message = peer.answer("price:update")
            assert message["prev"] == last.get(message["channel"], message["prev"])
            last[message["channel"]] = message["seq"]
        assert peer.ask("heartbeat")["type"] == "pong"
    assert closed_slow(server) == (0, 0)


def test_many_stalled_clients_are_all_let_go(scene: Scene) -> None:
    """Fifty at once, and their reading is never asked for: they vanish amid it."""
    server, swarm = scene.server, scene.swarm
    peers = [Peer(server.port, receive_buffer_bytes=2048) for _ in range(50)]
    for peer in peers:
        peer.upgrade()
        peer.ask("subscribe", channels=CHANNELS)
    wait_for(lambda: closed_slow(server) == (50, 50), 4 * OUTBOX_SECONDS, "the close of all")
    for peer in peers:
        peer.shut()
    wait_for(lambda: server.json("/stats")["connections"] == OTHERS, 3, "their slots")
    wait_for(lambda: established(server.port) == OTHERS, 3, "their sockets")
    assert swarm.problems() == []
    assert len(swarm.open()) == OTHERS


def test_silent_clients_are_let_go_and_answering_ones_are_not(nats: NatsServer, serve: Serve) -> None:
    """Clients that answer pings stay; the others are closed with 4009, but never without a ping before."""
    server = serve(NATS_URL=nats.url, WS_HEARTBEAT_SECONDS="1", WS_IDLE_SECONDS="5", WS_CLOSE_SECONDS="0.5")
    started = time.monotonic()
    with Swarm(server.port) as swarm, Peer(server.port) as silent, Peer(server.port) as vanished:
        swarm.connect(range(20))
        swarm.settle()
        for peer in (silent, vanished):
            peer.upgrade()
        time.sleep(0.6)
        vanished.ask("heartbeat")
        assert silent.next().opcode == PING
        assert silent.closing().code == 4009
        assert time.monotonic() - started > 4.4  # they were silent before it began
        assert silent.ended(), "also without an answer to the goodbye"
        assert vanished.next().opcode == PING
        assert vanished.closing().code == 4009
        wait_for(lambda: server.json("/stats")["connections"] == 20, 3, "their slots")
        assert server.json("/stats")["closed"]["idle"] == 2
        assert len(swarm.open()) == 20
        time.sleep(max(0.0, started + 9 - time.monotonic()))  # several more rounds of pings
        assert len(swarm.open()) == 20
