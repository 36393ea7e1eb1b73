"""Alerts, with faults in a real server that a real Prometheus scrapes: each fires, and clears after it.

What can't be made in seconds is in conf/prometheus/tests; all are there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from strategies.hashing import fnv1a_64, octets
from tests.ledger import Publisher
from tests.nats import NatsServer
from tests.prometheus import Prometheus
from tests.server import Server, wait_for
from tests.wire import Peer

COMMAND = (sys.executable, "-m", "gunicorn", "-c", "tests/sabotage/gunicorn_conf.py")
PEERS = 110

pytestmark = pytest.mark.timeout(150)


def test_faults_are_seen(tmp_path: Path) -> None:
    """All in one session of Prometheus, as far as they do not hide each other."""
    faulty = tmp_path / "faulty"
    prometheus_directory = tmp_path / "prometheus"
    prometheus_directory.mkdir()
    settings = {
        "WS_SHARD_STRATEGY": "fnv-sharded",
        "WS_RECONCILE_SECONDS": "1",
        "WS_REBALANCE_RATE": "0",
        "WS_HUB_LAG_THRESHOLD_MS": "60000",
        "WS_CPU_REJECT_THRESHOLD": "100",
        "SABOTAGE_PASS_MS": "280",
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
        target = f"127.0.0.1:{server.port}"
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
        first = (
            "WsHubStalls",
            "WsShardLockWaits",
            "WsShardsUneven",
            "WsSilentLoss",
            "WsWorkerSilent",
            "WsWorkersUneven",
            "WsZombies",
        )
        prometheus.expect(*first)

        faulty.unlink()
        os.kill(still, signal.SIGCONT)
        peers.close()
        nats.kill()
        server.signal(signal.SIGTTOU)
        second = ("WsFeedDown", "WsFeedSilent", "WsWorkersMissing")
        prometheus.expect(*second)
        prometheus.expect_cleared(*first)

        nats.start()
        server.signal(signal.SIGTTIN)
        prometheus.expect_cleared(*second)

        everything = [psutil.Process(server.pid), *map(psutil.Process, server.workers())]
        for process in everything:
            process.suspend()
        prometheus.expect("WsServerDown")
        for process in everything:
            process.resume()
        prometheus.expect_cleared("WsServerDown", "WsWorkerSilent")
        wait_for(lambda: not prometheus.firing(), 25.0, "nothing is left")


def _channel_of_shard_0() -> str:
    """A channel whose lock the sabotage holds."""
    return next(name for name in (f"token.T{n}" for n in range(1000)) if fnv1a_64(octets(name)) % 16 == 0)
