"""Clients resume while workers are killed, NATS is killed and restarted, and the server is reloaded."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.ledger import Publisher, read
from tests.nats import NatsServer
from tests.protection.proof import Proof
from tests.resuming.crowd import Crowd
from tests.server import Server, wait_for

CHANNELS = [f"token.T{n}" for n in range(10)]


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        kill_seconds: between two kills of a worker.
        stay_seconds: mean time of a connection.
    """

    clients: int = 1000
    seconds: float = 180.0
    rate: float = 200.0
    kill_seconds: float = 10.0
    stay_seconds: float = 20.0
    strategy: str = "sync-dict"
    seed: int = 1


def run(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Proof:
    """Do all of it, and compare."""
    proof = Proof(f"{plan.clients:,} resuming clients, {plan.seconds:g} s, {plan.strategy}, seed {plan.seed}")
    settings = {
        "WS_SHARD_STRATEGY": plan.strategy,
        "WS_DRAIN_SECONDS": "3",
        "WS_MAX_CONNECTIONS": str(2 * plan.clients),
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        NatsServer(Path(directory)) as nats,
        Server({"NATS_URL": nats.url, **settings}) as server,
        Publisher(nats.url, CHANNELS, plan.rate) as publisher,
        Crowd(server.port, plan.clients, CHANNELS, plan.seed, stay_seconds=plan.stay_seconds) as crowd,
    ):
        wait_for(lambda: crowd.live > 0.9 * plan.clients, 60, "the crowd")
        kills = _harm(plan, server, nats, crowd, tell)
        crowd.stay()
        publisher.stop()
        truth = read(nats.url)

        def behind() -> int:
            return sum(client.last < truth.seqs[client.channel][-1] for client in crowd.clients)

        began = time.monotonic()
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not behind(), 60, "all messages")
        proof.fact("caught up in", f"{time.monotonic() - began:.1f} s")
        stats = server.json("/stats")
        wrong = [
            f"client {c.number}: {c.count} of {due}"
            for c in crowd.clients
            for due in [sum(c.first <= seq <= c.last for seq in truth.seqs[c.channel])]
            if c.count != due
        ]
        feed = stats["feed"]
        proof.fact("workers killed", str(kills))
        proof.fact("connections", f"{crowd.connects:,}, refused {crowd.refused:,}")
        proof.fact("messages heard", f"{crowd.messages:,} of {len(truth):,} published")
        proof.fact("resumed", str(stats["recovery"]["resumed"]))
        proof.fact("received per published", f"{feed['received'] / max(1, feed['published']):.6f}")
        proof.check("the crowd lives", crowd.failure is None, repr(crowd.failure))
        proof.check("all clients have caught up", not behind(), behind())
        proof.check("no message missing, twice or out of order", not crowd.faults(), crowd.faults()[:3])
        proof.check("every client heard all", not wrong, wrong[:3])
        gaps = [gap for client in crowd.clients for gap in client.gaps]
        proof.check("no gaps", not gaps, gaps[:3])
        proof.check("received = published", feed["received"] == feed["published"], feed)
    return proof


def _harm(plan: Plan, server: Server, nats: NatsServer, crowd: Crowd, tell: Callable[[str], None]) -> int:
    rng = random.Random(plan.seed)
    began, kills, restarted, reloaded = time.monotonic(), 0, False, False
    while (now := time.monotonic() - began) < plan.seconds:
        time.sleep(min(plan.kill_seconds, plan.seconds - now))
        share = (time.monotonic() - began) / plan.seconds
        if share > 0.4 and not restarted:
            nats.restart()
            restarted = True
            what = "nats-server killed and restarted"
        elif share > 0.7 and not reloaded:
            server.signal(signal.SIGHUP)
            reloaded = True
            what = "reload"
        else:
            with contextlib.suppress(ProcessLookupError, OSError, ValueError):
                os.kill(rng.choice(server.workers()), signal.SIGKILL)
                kills += 1
            what = "a worker killed"
        tell(f"{now:.0f} s: {crowd.live:,} live, {crowd.messages:,} messages; {what}")
    return kills
