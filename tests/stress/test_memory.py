"""A flood of memory that leaves again: it shuts the server for as long as it is there, and no longer."""

from __future__ import annotations

import contextlib

import psutil

from tests import wire
from tests.server import Server, wait_for
from tests.stress.leaks import wait_for_connections
from tests.wire import Peer

CLIENTS = 1500
HELD_BYTES = 64_000  # of each: a message that is never finished, just below what is allowed
KEPT_EVERY = 100  # of the clients one stays: what it holds lies above what the others have freed
LIMIT_BYTES = 160 << 20
SETTINGS = {
    "WS_WORKERS": "1",
    "WS_CPU_REJECT_THRESHOLD": "100",
    "WS_RECONCILE_SECONDS": "1",
    "WS_MEMORY_LIMIT": str(LIMIT_BYTES),
    "WS_CLIENT_MEMORY": str(LIMIT_BYTES),  # else the flood would be closed before the guard has to look
    "WS_DEMO_FEED": "false",
}


def status(server: Server) -> int:
    """What a newcomer is told."""
    with Peer(server.port) as peer:
        peer.send(wire.request())
        return peer.http().status


def test_memory_that_a_flood_has_left_behind_refuses_nobody() -> None:
    """While unfinished messages fill the memory nobody gets in; afterwards it goes back to the system."""
    begun = wire.frame(wire.TEXT, b"x" * HELD_BYTES, final=False)
    with Server(SETTINGS) as server:
        worker = psutil.Process(server.workers()[0])
        assert status(server) == 101
        before = worker.memory_info().rss
        with contextlib.ExitStack() as kept:
            with contextlib.ExitStack() as flood:
                peers = []
                for number in range(CLIENTS):
                    peers.append((flood if number % KEPT_EVERY else kept).enter_context(Peer(server.port)))
                    peers[-1].upgrade()
                for peer in peers:
                    peer.send(begun)
                wait_for(lambda: status(server) == 503, 30, "a refusal")
                assert server.json("/stats")["refused"]["memory"] > 0
                full = worker.memory_info().rss
                assert full > 0.9 * LIMIT_BYTES
            wait_for_connections(server, CLIENTS // KEPT_EVERY, 20)
            wait_for(lambda: status(server) == 101, 30, "a newcomer gets in")
            assert worker.memory_info().rss < before + (full - before) / 2
        wait_for_connections(server, 0, 20)
