"""The arbiter is killed under load: its workers notice it, drain, and nothing is left."""

from __future__ import annotations

import signal

from tests.integration.conftest import Serve
from tests.integration.test_lifecycle import alive, listening
from tests.ledger import read
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, established, wait_for
from tests.stress.leaks import error_lines, wait_for_connections
from tests.stress.scenario import CALM, RATE, Listeners

CLIENTS = 150


def test_a_killed_arbiter_takes_all_with_it(nats: NatsServer, serve: Serve) -> None:
    """Every client gets all messages, then 1001; no process, port or socket is left."""
    server = serve(NATS_URL=nats.url, **CALM)
    processes = server.processes()
    assert len(processes) == 3
    with Listeners(server, nats.url, CLIENTS) as listeners:
        swarm = listeners.swarm
        wait_for(lambda: swarm.messages() > RATE * CLIENTS / 4, 5, "the feed")
        wait_for_connections(server, CLIENTS)
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        wait_for(lambda: not alive(processes), PATIENCE_SECONDS, "the end of all processes")
        assert not listening(server.port)
        assert established(server.port) == 0
        wait_for(lambda: not swarm.open(), 1, "the clients' end")
        assert swarm.close_codes() == {1001: CLIENTS}
        listeners.publisher.stop()
        assert swarm.problems() == []
        assert read(nats.url).faults(swarm.stretches()) == []
    assert error_lines(server.log()) == []
