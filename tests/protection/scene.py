"""A server, its NATS, a feed and a crowd; and what they agree on."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ledger import Publisher, read
from tests.nats import NatsServer
from tests.protection.crowd import Crowd
from tests.protection.proof import Plan, Proof
from tests.server import Server, established

CHANNELS = tuple(f"token.T{number}" for number in range(4))
MESSAGES_PER_SECOND = 4.0  # of all channels; each client has one of them
_LOOK_SECONDS = 0.1  # a look at thousands takes some ms
_AFTER_SECONDS = 60.0  # for the last messages to reach thousands


@dataclass
class Scene:
    """What a proof plays on."""

    server: Server
    crowd: Crowd
    url: str
    publisher: Publisher

    def faults(self) -> list[str]:
        """End the feed, and hold what everybody got against what NATS took; each fault is a line."""
        self.publisher.stop()
        ledger = read(self.url)
        _became(lambda: ledger.reached(self.crowd), _AFTER_SECONDS)
        return self.crowd.problems() + ledger.faults(self.crowd.stretches())

    def check_delivery(self, proof: Proof) -> None:
        """Nobody lost anything within a connection."""
        faults = self.faults()
        proof.fact("messages delivered", self.crowd.messages())
        proof.check("each got every message while it was in", not faults, faults[0] if faults else "no fault")

    def wait_inside(self, count: int, seconds: float) -> bool:
        """Wait until so many are in and subscribed; False: not in that time."""
        return _became(lambda: self.inside() == count, seconds)

    def inside(self) -> int:
        """How many clients are in and have their subscription."""
        return sum(life.owed == 0 for life in self.crowd.open())

    def counts(self) -> dict[str, int]:
        """Connections by every count there is."""
        stats = self.server.json("/stats")
        return {
            "/stats": stats["connections"],
            "/stats, sum of workers": sum(worker["connections"] for worker in stats["workers"]),
            "/health": self.server.json("/health")["checks"]["capacity"]["current"],
            "/metrics": int(self.server.metric("ws_connections")),
            "ss": established(self.server.port),
        }

    def agree(self, count: int, seconds: float) -> dict[str, int]:
        """All counts, as soon as they are `count`, or as they are after `seconds`."""
        found: dict[str, int] = {}

        def right() -> bool:
            found.update(self.counts())
            return set(found.values()) == {count}

        _became(right, seconds)
        return found

    def check_counts(self, proof: Proof, count: int, seconds: float = 20.0) -> None:
        """All counts are `count` within `seconds`."""
        found = self.agree(count, seconds)
        right = set(found.values()) == {count}
        proof.check("all counts agree", right, f"{count:,} by each of {len(found)}" if right else found)

    def refused(self) -> dict[str, int]:
        """Upgrades that the server has refused, by reason, without the zeros."""
        refused: dict[str, Any] = self.server.json("/stats")["refused"]
        return {reason: count for reason, count in refused.items() if count}


@contextlib.contextmanager
def scene(plan: Plan, settings: dict[str, str], **crowd: Any) -> Iterator[Scene]:
    """Start all of it; two workers unless the settings say otherwise. A crowd of nobody yet.

    Args:
        crowd: further arguments of `Crowd`.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        NatsServer(Path(folder) / "nats") as nats,
        Server({"NATS_URL": nats.url, **settings}) as server,
        Publisher(nats.url, CHANNELS, MESSAGES_PER_SECOND) as publisher,
        Crowd(server.port, CHANNELS, plan.seed, **crowd) as clients,
    ):
        yield Scene(server, clients, nats.url, publisher)


def _became(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so; False: not in that time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
