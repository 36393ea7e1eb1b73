"""Connections spread evenly over the workers, although the kernel does not balance them."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import wait_for
from tests.swarm import Swarm

MOST_APART = 0.10  # of an even share


@pytest.mark.parametrize(("connections", "workers"), [(2000, 2), (400, 4)])
def test_connections_are_spread_evenly(
    nats: NatsServer, serve: Serve, connections: int, workers: int
) -> None:
    """No worker has more than 10 % more or fewer than its share, and nobody is refused."""
    server = serve(NATS_URL=nats.url, WS_WORKERS=str(workers))
    wait_for(lambda: len(server.workers()) == workers, 10, "all workers")
    with Swarm(server.port) as swarm:
        swarm.connect(range(connections))
        swarm.settle()
        assert len(swarm.open()) == connections
        assert swarm.problems() == []
        share = connections / workers
        held = [worker["connections"] for worker in server.json("/stats")["workers"]]
        assert sum(held) == connections
        assert all(abs(count - share) <= MOST_APART * share for count in held), held
        assert server.get("/readyz")[0] == 200, "whoever stepped aside still answers"
