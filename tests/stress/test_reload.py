"""A reload amid load: every client is sent away, comes back at once, and is never refused."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.ledger import Publisher, read
from tests.server import wait_for
from tests.stress.clock import HOUR_SECONDS
from tests.stress.conftest import RunningServer
from tests.stress.leaks import assert_no_leaks, measure_baseline, wait_for_connections
from tests.stress.reconnecting import ReconnectingClients
from tests.stress.scenario import CHANNELS, DRAIN_SECONDS, RATE, purge
from tests.swarm import Swarm

CLIENTS = 100


@pytest.mark.parametrize("off_seconds", [0.0, -HOUR_SECONDS], ids=["usual", "behind a clock set back"])
def test_a_reload_refuses_nobody(patient: RunningServer, off_seconds: float) -> None:
    """1012 for each, at most twice; each connection has all its messages; workers leave one by one."""
    server, url, clock = patient
    before = measure_baseline(server)
    purge(url)
    clock.set(off_seconds)
    try:
        with Swarm(server.port) as swarm, Publisher(url, CHANNELS, RATE) as publisher:
            clients = ReconnectingClients(swarm, CLIENTS, CHANNELS[:2])
            was = server.json("/stats")
            ends = clients.through_reload(server)
            assert ends[1] - ends[0] > DRAIN_SECONDS / 2, "one after another"
            wait_for_connections(server, CLIENTS)
            heard = swarm.messages()
            wait_for(lambda: swarm.messages() > heard + CLIENTS, 5, "the feed")
            publisher.stop()
            taken = read(url)
            wait_for(lambda: taken.reached(swarm), 10, "all messages at all")

            assert clients.turned_away() == []
            assert swarm.problems() == []
            assert taken.faults(swarm.stretches()) == []
            moves = len(swarm.lives) - CLIENTS
            assert CLIENTS <= moves <= 2 * CLIENTS
            assert swarm.close_codes() == {1012: moves}
            stats = server.json("/stats")
            assert stats["accepted"] == was["accepted"] + moves
            assert stats["closed"]["restart"] == was["closed"]["restart"] + moves
            # A busy machine may have them wait, and come again: more than that is refused to none.
            refusals = Counter(stats["refused"]) - Counter(was["refused"])
            assert set(refusals) <= {"overload", "gone"}
            swarm.disconnect(range(CLIENTS))
            swarm.settle()
    finally:
        clock.set(0.0)
    assert_no_leaks(server, before)
