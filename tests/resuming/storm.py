"""All clients of one worker come back at one moment with what they last heard."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.ledger import Publisher, read
from tests.nats import NatsServer
from tests.protection.proof import Proof
from tests.resuming.crowd import Crowd
from tests.server import Server, wait_for
from tests.wire import Peer

CHANNELS = [f"token.T{n}" for n in range(10)]


@dataclass(frozen=True)
class Plan:
    """One run: half of the clients lose their worker."""

    clients: int = 10_000
    rate: float = 20.0
    calm_seconds: float = 10.0
    seed: int = 1


class Witness:
    """A client that stays: how late its messages come, in seconds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.lags: list[tuple[float, float]] = []
        self.pid = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(AssertionError, OSError), Peer(self._port) as peer:
                peer.upgrade()
                peer.ask("subscribe", channels=CHANNELS)
                while not self._stopping.is_set():
                    message = peer.next().json
                    if "ts" in message:
                        self.lags.append((time.monotonic(), time.time() - message["ts"] / 1000))

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join(60)

    def p99(self, since: float, until: float) -> float:
        """Between two moments of the monotonic clock; seconds."""
        lags = sorted(lag for at, lag in self.lags if since <= at < until)
        return statistics.quantiles(lags, n=100)[98] if len(lags) > 1 else 0.0


def run(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Proof:
    """Do it, and compare."""
    proof = Proof(f"{plan.clients // 2:,} of {plan.clients:,} clients come back at once, seed {plan.seed}")
    with (
        tempfile.TemporaryDirectory() as directory,
        NatsServer(Path(directory)) as nats,
        Server({"NATS_URL": nats.url, "WS_MAX_CONNECTIONS": str(2 * plan.clients)}) as server,
        Publisher(nats.url, CHANNELS, plan.rate) as publisher,
        Crowd(server.port, plan.clients, CHANNELS, plan.seed, most_dials=200) as crowd,
    ):
        wait_for(lambda: crowd.live == plan.clients, 120, "the crowd")
        witnesses = [Witness(server.port) for _ in range(4)]
        time.sleep(2)
        calm = time.monotonic()
        time.sleep(plan.calm_seconds)
        killed = time.monotonic()
        connects = crowd.connects
        os.kill(server.workers()[0], signal.SIGKILL)
        tell(f"a worker killed; {crowd.live:,} live")
        wait_for(lambda: crowd.live < 0.9 * plan.clients, 10, "the loss")
        wait_for(lambda: crowd.live == plan.clients, 60, "all are back")
        back = time.monotonic()
        publisher.stop()
        truth = read(nats.url)
        wait_for(
            lambda: all(c.last == truth.seqs[c.channel][-1] for c in crowd.clients), 60, "all have caught up"
        )
        caught = time.monotonic()
        for witness in witnesses:
            witness.stop()
        steady = [witness.p99(calm, killed) for witness in witnesses]
        during = [witness.p99(killed, back) for witness in witnesses]
        stats = server.json("/stats")
        proof.fact("came back", f"{crowd.connects - connects:,} in {back - killed:.1f} s")
        proof.fact("all caught up after", f"{caught - killed:.1f} s")
        proof.fact("p99 of live messages before", f"{1000 * statistics.median(steady):.0f} ms")
        proof.fact("p99 meanwhile", f"{1000 * statistics.median(during):.0f} ms")
        proof.fact("resumed", str(stats["recovery"]["resumed"]))
        proof.fact("refused", str({reason: n for reason, n in stats["refused"].items() if n}))
        proof.check("the crowd lives", crowd.failure is None, repr(crowd.failure))
        proof.check("all caught up within 30 s", caught - killed <= 30, caught - killed)
        proof.check("no message missing, twice or out of order", not crowd.faults(), crowd.faults()[:3])
        gaps = [gap for client in crowd.clients for gap in client.gaps]
        proof.check("no gaps", not gaps, gaps[:3])
    return proof
