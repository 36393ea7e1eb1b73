"""Alerts, with faults in real servers that a real Prometheus scrapes: each fires, and clears after it.

Each is in one of `SESSIONS`. Their own times and bounds are in conf/prometheus/tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import yaml

from strategies.hashing import fnv1a_64, octets
from tests.ledger import Publisher, publish
from tests.nats import NatsServer
from tests.nats_exporter import NatsExporter
from tests.prometheus import CONF, Prometheus
from tests.server import Server, free_port, wait_for
from tests.wire import Peer, request

COMMAND = (sys.executable, "-m", "gunicorn", "-c", "tests/sabotage/gunicorn_conf.py")
PEERS = 110
STORE_BYTES = 1 << 20
STREAM_MESSAGES = 500
QUIET = "stddev_over_time(ws:cpu_use:ratio[5s]) < 0.1 and count_over_time(ws:cpu_use:ratio[5s]) >= 4"

WORKERS_FIRST = (
    "WsHubStalls",
    "WsShardLockWaits",
    "WsShardsUneven",
    "WsSilentLoss",
    "WsWorkerSilent",
    "WsWorkersUneven",
    "WsZombies",
)
WORKERS_SECOND = ("WsFeedDown", "WsFeedSilent", "WsWorkersMissing")
WORKERS_THIRD = ("WsServerDown",)
FEED_FIRST = (
    "NatsSlowConsumers",
    "NatsStorageFull",
    "WsCpuOscillates",
    "WsFeedAmplifies",
    "WsRefusesWithHeadroom",
)
FEED_SECOND = ("NatsDown",)
FEED_THIRD = ("WsMessagesLost",)
SESSIONS = (WORKERS_FIRST, WORKERS_SECOND, WORKERS_THIRD, FEED_FIRST, FEED_SECOND, FEED_THIRD)


def test_none_is_left_out() -> None:
    """Each alert has a fault here."""
    rules = [
        rule
        for group in yaml.safe_load((CONF / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert sorted(rule["alert"] for rule in rules if "alert" in rule) == sorted(sum(SESSIONS, ()))


def test_faults_of_workers_are_seen(tmp_path: Path) -> None:
    """In one session of Prometheus, as far as they do not hide each other."""
    faulty = tmp_path / "faulty"
    prometheus_directory = tmp_path / "prometheus"
    prometheus_directory.mkdir()
    settings = {
        "WS_SHARD_STRATEGY": "fnv-sharded",
        "WS_RECONCILE_SECONDS": "1",
        "WS_REBALANCE_RATE": "0",
        "WS_HUB_LAG_THRESHOLD_MS": "60000",
        "WS_CPU_REJECT_THRESHOLD": "100",
        "SABOTAGE_PASS_MS": "400",
        "SABOTAGE_LOCK_MS": "700",
        "SABOTAGE_DROP_EVERY": "50",
        "SABOTAGE_ZOMBIES": "3",
        "SABOTAGE_WHILE": str(faulty),
    }
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(tmp_path / "nats"))
        server = stack.enter_context(Server({"NATS_URL": nats.url, **settings}, command=COMMAND))
        channel = _channel_of_shard_0()
        stack.enter_context(Publisher(nats.url, [channel], rate=2))
        target = f"127.0.0.1:{server.admin_port}"
        prometheus = stack.enter_context(Prometheus(prometheus_directory, {"odinws": [target]}))
        # One worker stands still, so that all clients come to the other.
        still = server.workers()[0]
        os.kill(still, signal.SIGSTOP)
        peers = stack.enter_context(contextlib.ExitStack())
        for _ in range(PEERS):
            peer = peers.enter_context(Peer(server.port))
            peer.upgrade()
            peer.ask("subscribe", channels=[channel])
        faulty.touch()
        prometheus.expect(*WORKERS_FIRST)

        faulty.unlink()
        os.kill(still, signal.SIGCONT)
        peers.close()
        nats.kill()
        server.signal(signal.SIGTTOU)
        prometheus.expect(*WORKERS_SECOND)
        prometheus.expect_cleared(*WORKERS_FIRST)

        nats.start()
        server.signal(signal.SIGTTIN)
        prometheus.expect_cleared(*WORKERS_SECOND)

        everything = [psutil.Process(server.pid), *map(psutil.Process, server.workers())]
        for process in everything:
            process.suspend()
        prometheus.expect(*WORKERS_THIRD)
        for process in everything:
            process.resume()
        prometheus.expect_cleared(*WORKERS_THIRD, "WsWorkerSilent")
        wait_for(lambda: not prometheus.firing(), 60, "nothing is left")


def test_faults_around_the_feed_are_seen(tmp_path: Path) -> None:
    """Those of NATS, of what comes from it, and of who gets in."""
    faulty = tmp_path / "faulty"
    prometheus_directory = tmp_path / "prometheus"
    prometheus_directory.mkdir()
    settings = {
        "WS_WORKERS": "1",
        "WS_CPU_LIMIT": "0.1",  # so that it can be burnt on a busy machine too
        "WS_CPU_REJECT_THRESHOLD": "100",
        "JS_STREAM_MAX_BYTES": str(STORE_BYTES - 10_000),
        "JS_STREAM_MAX_MSGS": str(STREAM_MESSAGES),
        "SABOTAGE_BURN_SECONDS": "3",
        "SABOTAGE_NAK_SECONDS": "0.2",
        "SABOTAGE_REFUSE": "memory",
        "SABOTAGE_WHILE": str(faulty),
    }
    monitoring = f"127.0.0.1:{free_port()}"
    config = f"""
        http: "{monitoring}"
        max_pending: 1MB
        jetstream {{ max_file_store: {STORE_BYTES} }}
    """
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(tmp_path / "nats", config=config))
        exporter = stack.enter_context(NatsExporter(f"http://{monitoring}"))
        server = stack.enter_context(Server({"NATS_URL": nats.url, **settings}, command=COMMAND))
        stack.enter_context(Publisher(nats.url, ["token.A"], rate=10))
        targets = {"odinws": [f"127.0.0.1:{server.admin_port}"], "nats": [exporter.target]}
        prometheus = stack.enter_context(Prometheus(prometheus_directory, targets))
        wait_for(lambda: prometheus.query(QUIET), 60, "the start is over")
        assert not prometheus.firing()

        filling = json.dumps({"filling": "x" * 60_000}).encode()
        publish(nats.url, [("token.B", filling)] * 17)
        faulty.touch()
        with _knocking(server), _unread(nats.port, b"bulk"):
            publish(nats.url, [("bulk", bytes(500_000))] * 20, prefix="")
            prometheus.expect(*FEED_FIRST)

        faulty.unlink()
        publish(nats.url, [("token.B", b"{}")] * STREAM_MESSAGES)
        nats.kill()
        prometheus.expect(*FEED_SECOND)
        # While the worker stands still, the stream forgets what that has not had.
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        nats.start()
        publish(nats.url, [("token.B", b"{}")] * (STREAM_MESSAGES + 100))
        os.kill(worker, signal.SIGCONT)
        prometheus.expect(*FEED_THIRD)
        prometheus.expect_cleared(*FEED_FIRST, *FEED_SECOND, *FEED_THIRD)
        wait_for(lambda: not prometheus.firing(), 60, "nothing is left")


@contextlib.contextmanager
def _knocking(server: Server) -> Iterator[None]:
    """A client that asks to be let in, again and again."""
    enough = threading.Event()

    def knock() -> None:
        while not enough.wait(0.2):
            with Peer(server.port) as peer:
                peer.send(request()).http()

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@contextlib.contextmanager
def _unread(port: int, subject: bytes) -> Iterator[None]:
    """A client of NATS that has subscribed and does not read."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(60.0)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b'CONNECT {"verbose":false}\r\nSUB ' + subject + b" 1\r\nPING\r\n")
        heard = b""
        while b"PONG" not in heard:
            heard += sock.recv(4096)
        yield


def _channel_of_shard_0() -> str:
    """A channel whose lock the sabotage holds."""
    return next(name for name in (f"token.T{n}" for n in range(1000)) if fnv1a_64(octets(name)) % 16 == 0)
