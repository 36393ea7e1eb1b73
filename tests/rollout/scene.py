"""A server with a file of flags, a feed, and a crowd that resumes."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from odinws.rollout import flags
from tests.ledger import Publisher, read
from tests.nats import NatsServer
from tests.protection.proof import Proof
from tests.resuming.crowd import Crowd
from tests.server import GUNICORN, Server, wait_for

CHANNELS = [f"token.T{n}" for n in range(10)]
VARIANT = "fnv-sharded"
SABOTAGED = (sys.executable, "-m", "gunicorn", "-c", "tests/sabotage/gunicorn_conf.py")


@dataclass(frozen=True)
class Plan:
    """How large a proof is.

    Attributes:
        rate: messages per second.
        drain_seconds: of a worker that leaves.
    """

    clients: int = 2000
    workers: int = 4
    rate: float = 100.0
    drain_seconds: float = 3.0
    seed: int = 1


def flags_file(directory: Path, percent: int = 0, **more: object) -> Path:
    """A file of flags with two variants, and the first one's share."""
    path = directory / "flags.json"
    flag = {
        "state": "ENABLED",
        "variants": {VARIANT: VARIANT, "sync-dict": "sync-dict"},
        "defaultVariant": "sync-dict",
        "targeting": {"fractional": [[VARIANT, percent], ["sync-dict", 100 - percent]]},
        **more,
    }
    path.write_text(json.dumps({"flags": {"shard-strategy": flag}}))
    return path


class Scene:
    """All of it, running."""

    def __init__(
        self, plan: Plan, path: Path, nats: NatsServer, server: Server, publisher: Publisher, crowd: Crowd
    ) -> None:
        self.plan = plan
        self.path = path
        self.nats = nats
        self.server = server
        self.publisher = publisher
        self.crowd = crowd
        self._refused = self.refused()  # while they came in, which is another matter

    def refused(self) -> dict[str, int]:
        """Upgrades refused so far, by reason; `client` as the clients count them."""
        stats: dict[str, int] = self.server.json("/stats")["refused"]
        return {**stats, "client": self.crowd.refused}

    def give(self, percent: int) -> None:
        """Change the share, as `rollout set` does."""
        path = str(self.path)
        flags.write(path, flags.with_share(flags.read(path), VARIANT, percent))

    def await_workers(self, count: int) -> None:
        """Wait until so many workers have the variant, and each place has one."""

        def there() -> bool:
            workers = self.server.json("/stats")["workers"]
            return (
                sorted(worker["place"] for worker in workers) == list(range(self.plan.workers))
                and all(worker["accepting"] and not worker["leaving"] for worker in workers)
                and sum(worker["strategy"] == VARIANT for worker in workers) == count
            )

        wait_for(there, 30 * self.plan.workers, f"{count} workers with {VARIANT}")

    def await_crowd(self) -> None:
        """Wait until all clients are connected."""
        wait_for(lambda: self.crowd.live == self.plan.clients, 60, "the crowd")

    def pids(self) -> set[int]:
        """The workers."""
        return set(self.server.workers())

    def judge(self, proof: Proof) -> None:
        """Nobody was refused, and each client heard each message of its channel once."""
        self.publisher.stop()
        self.await_crowd()
        truth = read(self.nats.url)
        clients = self.crowd.clients

        def behind() -> int:
            return sum(client.last < truth.seqs[client.channel][-1] for client in clients)

        wait_for(lambda: not behind(), 60, "all messages")
        wrong = [
            f"client {client.number}: {len(client.heard)} of {len(due)}"
            for client in clients
            for due in [[seq for seq in truth.seqs[client.channel] if seq >= client.heard[0]]]
            if list(client.heard) != due
        ]
        proof.fact("connections", self.crowd.connects)
        proof.fact("messages heard", self.crowd.messages)
        proof.check("the crowd lives", self.crowd.failure is None, repr(self.crowd.failure))
        refused = {
            reason: count - self._refused[reason]
            for reason, count in self.refused().items()
            if count > self._refused[reason]
        }
        proof.check("nobody was refused", not refused, refused or 0)
        proof.check("nothing twice or out of order", not self.crowd.faults(), self.crowd.faults()[:3])
        proof.check("every client heard all", not wrong, wrong[:3])
        gaps = [gap for client in clients for gap in client.gaps]
        proof.check("no gaps", not gaps, gaps[:3])


@contextmanager
def scene(
    plan: Plan, settings: Mapping[str, str] | None = None, command: Sequence[str] = GUNICORN
) -> Iterator[Scene]:
    """Start it, with a share of 0, and wait until all clients listen."""
    with tempfile.TemporaryDirectory() as directory:
        path = flags_file(Path(directory))
        environ = {
            "WS_WORKERS": str(plan.workers),
            "WS_FLAGS_FILE": str(path),
            "WS_DRAIN_SECONDS": str(plan.drain_seconds),
            "WS_MAX_CONNECTIONS": str(2 * plan.clients),
            # Other work on this machine is not what this is about.
            "WS_CPU_REJECT_THRESHOLD": "100",
            "WS_HUB_LAG_THRESHOLD_MS": "60000",
            **(settings or {}),
        }
        with (
            NatsServer(Path(directory)) as nats,
            Server({"NATS_URL": nats.url, **environ}, command=command) as server,
            Publisher(nats.url, CHANNELS, plan.rate) as publisher,
            Crowd(server.port, plan.clients, CHANNELS, plan.seed) as crowd,
        ):
            wait_for(lambda: crowd.live == plan.clients, 60, "the crowd")
            yield Scene(plan, path, nats, server, publisher, crowd)
