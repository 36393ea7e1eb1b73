"""What a client may cost: nobody can make a server hold or do more than it is charged for."""

from __future__ import annotations

import contextlib
import select
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise

import psutil
import pytest

from odinws.messages.deflate import Deflater
from tests import wire
from tests.integration.conftest import Serve
from tests.ledger import Publisher
from tests.nats import NatsServer
from tests.server import Server, wait_for
from tests.wire import Peer

MB = 1 << 20
SMALL = 4096  # of a receive buffer: what the kernel takes for who reads nothing
ALONE = {  # one worker, which a busy machine does not keep from admitting
    "WS_WORKERS": "1",
    "WS_CPU_REJECT_THRESHOLD": "100",
    "WS_HUB_LAG_THRESHOLD_MS": "60000",
    "WS_SEND_BUFFER_BYTES": "4096",
    "WS_COMPRESSION_MIN_BYTES": "100000",  # what the server sends is read as it is
}


def rss(server: Server) -> float:
    """Resident memory of the workers, in MB."""
    return sum(psutil.Process(pid).memory_info().rss for pid in server.workers()) / MB


def held(server: Server) -> float:
    """What the server says that it holds for its clients, in MB."""
    return server.metric("ws_client_memory_bytes") / MB


def enter(port: int, **headers: str) -> int:
    """Ask for a connection and leave it; returns the status."""
    with Peer(port) as peer:
        return peer.send(wire.request(**headers)).http().status


@contextlib.contextmanager
def crowd(
    port: int, count: int, receive_buffer_bytes: int | None = SMALL, **headers: str
) -> Iterator[list[Peer]]:
    """Clients that were greeted."""
    with contextlib.ExitStack() as stack:
        peers = []
        for _ in range(count):
            peer = stack.enter_context(Peer(port, receive_buffer_bytes))
            assert peer.send(wire.request(**headers)).http().status == 101
            assert peer.next().json["type"] == "welcome"
            peers.append(peer)
        yield peers


def past(nats: NatsServer, server: Server, messages: int) -> None:
    """Let there be so many messages of 2 KB."""
    with Publisher(nats.url, ["token.A"], 2000, lambda _: b'"%b"' % (b"x" * 2000)):
        wait_for(lambda: server.metric("ws_feed_messages_total") >= messages, 30, "messages")


@pytest.mark.parametrize("limit", [256, 128])
def test_deflated_commands_behind_an_unread_replay(nats: NatsServer, serve: Serve, limit: int) -> None:
    """8 KB that would become 4.9 MB, 40 times, are held as they came; newcomers get in, then and after."""
    server = serve(NATS_URL=nats.url, WS_MEMORY_LIMIT=str(limit * MB), WS_RING_BYTES="100000", **ALONE)
    past(nats, server, 1000)
    bomb = Deflater(15).deflate(b'{"type":"heartbeat"}' + b" " * ((64 << 10) - 20))
    burst = wire.command("replay", channel="token.A", since=0) + wire.frame(wire.TEXT, bomb, reserved=4) * 75
    before = rss(server)
    with crowd(server.port, 40, Sec_WebSocket_Extensions="permessage-deflate") as peers:
        for peer in peers:
            peer.send(burst)
        wait_for(lambda: held(server) > 40 * 0.06, 10, "what waits")
        time.sleep(1)
        assert held(server) < 40 * 0.4
        assert rss(server) - before < 20
        assert enter(server.port) == 101
        heard = peers[0]
        assert heard.answer("replay_complete")["count"] >= 1000
        assert [heard.answer()["type"] for _ in range(75)] == ["pong"] * 75
    wait_for(lambda: server.json("/stats")["connections"] == 0, 10, "the crowd to be gone")
    wait_for(lambda: rss(server) - before < 15, 15, "memory to be given back")
    assert held(server) == 0
    assert enter(server.port) == 101


def test_answers_that_nobody_reads(serve: Serve) -> None:
    """A command waits while the answers before it do; all are answered once they are read."""
    server = serve(**ALONE)
    with crowd(server.port, 1) as (peer,):
        for number in range(3):
            peer.send(
                wire.command("subscribe", channels=[f"no such channel {number} {n}" for n in range(2000)])
            )
        wait_for(lambda: held(server) > 0.1, 10, "an answer that waits")
        time.sleep(1)
        assert held(server) < 0.6
        assert [len(peer.answer()["rejected"]) for _ in range(3)] == [2000] * 3


def test_a_flood_of_pings(serve: Serve) -> None:
    """It is answered at the rate that every client is told of, so the honest notice nothing."""
    server = serve(**ALONE)
    with crowd(server.port, 4, None) as floods, Peer(server.port) as honest:
        limits = honest.upgrade()["limits"]
        quiet = [heartbeat(honest) for _ in range(50)]
        began, cpu = time.monotonic(), server.metric("ws_cpu_seconds_total")
        pings = wire.frame(wire.PING, b"x") * 500
        waits, pongs, tails = [], 0, dict.fromkeys(floods, b"")
        while time.monotonic() - began < 8:
            pongs += flood(tails, pings)
            waits.append(heartbeat(honest))
            time.sleep(0.01)
        seconds = time.monotonic() - began
        used = (server.metric("ws_cpu_seconds_total") - cpu) / seconds
        most = limits["control_frame_burst"] + (seconds + 1) * limits["control_frames_per_second"]
        assert 4 * limits["control_frame_burst"] < pongs < 4 * most
        assert statistics.median(waits) < statistics.median(quiet) + 0.1
        assert used < 0.4


def test_many_connections_of_one_address(serve: Serve) -> None:
    """Together they get a few times what one may have; a neighbour who asks for little does not wait."""
    given = {"WS_COMMAND_RATE": "20", "WS_COMMAND_BURST": "20", "WS_CLIENT_WORK": "5"}
    server = serve(WS_TRUSTED_PROXIES="127.0.0.1", **given, **ALONE)
    shared = {"X_Forwarded_For": "192.0.2.1"}
    with crowd(server.port, 50, None, **shared) as floods, Peer(server.port) as neighbour:
        neighbour.send(wire.request(**shared)).http()
        assert neighbour.next().json["limits"]["control_frames_per_second"] == 200
        began, pongs = time.monotonic(), 0
        waits: list[float] = []
        tails = dict.fromkeys(floods, b"")
        pings = wire.frame(wire.PING, b"x") * 100
        while (seconds := time.monotonic() - began) < 8:
            pongs += flood(tails, pings)
            time.sleep(0.2)
            if seconds > len(waits):
                waits.append(heartbeat(neighbour))
        # 5 x 200 a second; at first a burst of as many again, and what is read before it shows.
        assert 4000 < pongs < 1.5 * 1000 * (seconds + 1) + 50 * 100
        assert statistics.median(waits) < 0.25  # until it is looked whether who owes has paid


def heartbeat(peer: Peer) -> float:
    """How long a heartbeat takes, in seconds."""
    began = time.monotonic()
    assert peer.ask("heartbeat")["type"] == "pong"
    return time.monotonic() - began


def flood(tails: dict[Peer, bytes], data: bytes) -> int:
    """Send as much as the sockets take, and read what came; returns how many whole frames."""
    pongs = 0
    for peer, tail in tails.items():
        peer.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sent = peer.sock.send(tail or data)
            tails[peer] = (tail or data)[sent:]
        while select.select([peer.sock], [], [], 0)[0] and (chunk := peer.sock.recv(1 << 16)):
            frames, peer.rest = wire.split(peer.rest + chunk)
            pongs += len(frames)
    return pongs


def test_stalled_clients_and_the_bound_of_all(nats: NatsServer, serve: Serve) -> None:
    """Those that hold most are closed and counted; the server keeps to its memory and serves the others."""
    bound = 8 * MB
    server = serve(
        NATS_URL=nats.url,
        WS_MEMORY_LIMIT=str(200 * MB),
        WS_CLIENT_MEMORY=str(bound),
        WS_OUTBOX_SECONDS="60",
        **ALONE,
    )
    before = rss(server)
    with crowd(server.port, 150) as stalled, Peer(server.port) as honest:
        honest.upgrade()
        assert honest.ask("subscribe", channels=["token.A"])["count"] == 1
        for peer in stalled:
            assert peer.ask("subscribe", channels=["token.A"])["count"] == 1
        payload = b'"%b"' % (b"x" * 2000)
        seqs, most = [], 0.0
        with Publisher(nats.url, ["token.A"], 100, lambda _: payload):
            until = time.monotonic() + 10
            while time.monotonic() < until:
                got = honest.next()
                if got.opcode == wire.TEXT:
                    seqs.append((got.json["prev"], got.json["seq"]))
                if len(seqs) % 50 == 0:
                    most = max(most, held(server))
        assert all(prev == seq for (_, seq), (prev, _) in pairwise(seqs))
        assert len(seqs) > 500
        stats = server.json("/stats")
        assert stats["closed"]["memory"] > 20
        assert most < 1.2 * bound / MB
        assert rss(server) - before < 40
        kinds = [event["kind"] for event in stats["events"]]
        assert "memory_closed" in kinds
        ends = [peer.closing() for peer in stalled if ended(peer)]
        assert len(ends) >= stats["closed"]["memory"] - 1
        assert {end.code for end in ends} == {4008}


def ended(peer: Peer) -> bool:
    """Whether the server has closed it: what it sent is read up to there."""
    peer.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError, BlockingIOError):
        while chunk := peer.sock.recv(1 << 16):
            peer.rest += chunk
        return True
    return False


def test_an_address_and_a_subject_have_so_many_connections(serve: Serve) -> None:
    """Over all workers; refused with a time to come back, until one of them leaves."""
    server = serve(
        WS_WORKERS="2", WS_TRUSTED_PROXIES="127.0.0.1", WS_MAX_PER_ADDRESS="10", WS_CPU_REJECT_THRESHOLD="100"
    )
    with crowd(server.port, 10, X_Forwarded_For="192.0.2.1") as peers:
        with Peer(server.port) as peer:
            answer = peer.send(wire.request(X_Forwarded_For="192.0.2.1")).http()
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert b'"error":"address"' in peer.body(answer)
        assert enter(server.port, X_Forwarded_For="192.0.2.2") == 101
        assert enter(server.port) == 101  # this machine
        assert server.json("/stats")["refused"]["address"] == 1
        peers[0].send(wire.close(1000)).ended()
        wait_for(lambda: enter(server.port, X_Forwarded_For="192.0.2.1") == 101, 5, "room")
