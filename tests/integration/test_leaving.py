"""How workers leave: a drain that is spread, a reload under load, and replacement."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from collections import Counter

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.integration.conftest import Serve
from tests.server import PATIENCE_SECONDS, Server, established, wait_for
from tests.swarm import Swarm
from tests.wire import Peer

RETRY = re.compile(rb"; retry_after=([0-9]+\.[0-9])$")


def held(server: Server) -> int:
    """Connections that the server counts."""
    return int(server.json("/health")["checks"]["capacity"]["current"])


def ends(server: Server, count: int) -> tuple[list[float], list[bytes]]:
    """When each of so many connections was closed after SIGTERM, in seconds, and with which payload."""
    peers = [Peer(server.port) for _ in range(count)]
    for peer in peers:
        peer.upgrade()
    times: list[float] = []
    payloads: list[bytes] = []

    def watch(peer: Peer) -> None:
        end = peer.closing()
        times.append(time.monotonic() - began)
        payloads.append(end.payload)
        peer.shut()

    threads = [threading.Thread(target=watch, args=(peer,)) for peer in peers]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    server.signal(signal.SIGTERM)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    return sorted(times), payloads


def test_a_drain_is_spread(serve: Serve) -> None:
    """Evenly over its time, each with the code and a time to come back, and then the process is gone."""
    server = serve(WS_DRAIN_SECONDS="6", WS_DEMO_FEED="false")
    times, payloads = ends(server, 120)
    assert server.wait() == 0
    assert len(times) == 120
    windows = Counter(int(moment) for moment in times)
    assert max(windows.values()) <= 3 * 120 / 6  # a busy machine may stand still for some of it
    assert times[-1] > 5.0
    waits = []
    for payload in payloads:
        assert int.from_bytes(payload[:2], "big") == 1001
        match = RETRY.search(payload)
        assert match, payload
        waits.append(float(match[1]))
    assert 1.0 <= min(waits) < max(waits) <= 4.0
    assert len(set(waits)) > 10


def test_a_drain_refuses(serve: Serve) -> None:
    """New clients are refused, others get messages until their close frame; it ends when all are gone."""
    server = serve(WS_DRAIN_SECONDS="5")
    peers = [Peer(server.port) for _ in range(10)]
    for peer in peers:
        peer.upgrade()
        peer.ask("subscribe", channels=["token.BTC"])
    server.signal(signal.SIGTERM)
    time.sleep(0.5)
    with pytest.raises((OSError, InvalidStatus)):
        connect(server.ws, open_timeout=1).close()
    heard = 0
    for peer in peers:
        end = peer.closing()
        assert end.code == 1001
        heard += 1
        peer.shut()
    assert heard == 10
    server.wait(PATIENCE_SECONDS)


class Resuming:
    """A client that reconnects each time when the server says, and counts refusals."""

    def __init__(self, server: Server) -> None:
        self.codes: list[int] = []
        self.refusals: list[str] = []
        self.messages = 0
        self._url = server.ws
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with connect(self._url, open_timeout=PATIENCE_SECONDS, compression=None) as client:
                    client.send('{"type":"subscribe","data":{"channels":["token.BTC"]}}')
                    while not self._stopping.is_set():
                        client.recv(PATIENCE_SECONDS)
                        self.messages += 1
            except ConnectionClosed as closed:
                self.codes.append(closed.rcvd.code if closed.rcvd else 1006)
            except Exception as error:  # noqa: BLE001 - any is one too many, and told
                self.refusals.append(repr(error))

    def __enter__(self) -> Resuming:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()


def test_a_reload_under_load(serve: Serve) -> None:
    """All workers are others afterwards, one left after the other, and no client was ever refused."""
    server = serve(WS_DRAIN_SECONDS="1.5")
    before = set(server.workers())
    clients = [Resuming(server) for _ in range(20)]
    for client in clients:
        client.__enter__()
    try:
        wait_for(lambda: held(server) == 20, 10, "all clients")
        server.signal(signal.SIGHUP)
        left: dict[int, float] = {}

        def replaced() -> bool:
            alive = {pid for pid in before if psutil.pid_exists(pid)}
            for pid in before - alive:
                left.setdefault(pid, time.monotonic())
            return not alive

        wait_for(replaced, 30, "the end of the old workers")
        first, second = left.values()
        assert second - first > 1.0, "one after another"
        wait_for(lambda: held(server) == 20, 10, "all clients back")
        wait_for(lambda: server.get("/readyz")[0] == 200, 10, "readiness")
    finally:
        for client in clients:
            client.__exit__()
    assert [client.refusals for client in clients] == [[]] * 20
    assert {code for client in clients for code in client.codes} == {1012}
    assert not before & set(server.workers())
    assert all(client.messages for client in clients)
    stats = server.json("/stats")
    assert sum(stats["refused"].values()) == 0
    wait_for(lambda: established(server.port) == 0, 5, "no socket is left")


def test_workers_are_replaced(serve: Serve) -> None:
    """By age, one at a time, once a successor serves; clients get 1012 and reconnect."""
    server = serve(WS_DRAIN_SECONDS="0.5", WS_WORKER_MAX_AGE_SECONDS="4")
    before = set(server.workers())
    with Resuming(server) as client:
        wait_for(lambda: not before & set(server.workers()), 40, "other workers")
        assert 2 <= len(server.workers()) <= 3
    assert client.refusals == []
    assert set(client.codes) <= {1012}
    assert "Worker is replaced" in server.log()


def test_the_number_of_workers_stays(serve: Serve) -> None:
    """After replacements there are as many as before."""
    server = serve(WS_WORKER_MAX_AGE_SECONDS="8", WS_DRAIN_SECONDS="0", WS_WORKERS="2")
    first = set(server.workers())
    wait_for(lambda: not first & set(server.workers()), 40, "other workers")
    counts = []
    for _ in itertools.repeat(None, 40):
        counts.append(len(server.workers()))
        time.sleep(0.1)
    assert min(counts) >= 1
    assert max(counts) <= 3
    assert sorted(counts)[20] == 2


def test_a_worker_told_to_stop_is_replaced(serve: Serve) -> None:
    """SIGTERM to one worker: its clients get 1012, the others nothing."""
    server = serve(WS_DEMO_FEED="false")
    with Swarm(server.port) as swarm:
        swarm.connect(range(40))
        swarm.subscribe(range(40), ["token.A"])
        swarm.settle()
        victim = server.workers()[0]
        os.kill(victim, signal.SIGTERM)
        wait_for(lambda: len(swarm.open()) < 40, 5, "the goodbyes")
        wait_for(lambda: len(server.workers()) == 2 and victim not in server.workers(), 10, "another worker")
        assert held(server) == len(swarm.open())
        assert set(swarm.close_codes()) == {1012}
