"""The cap on connections: reached and released to the one, also when a worker is killed at it."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from typing import NamedTuple

import pytest

from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import Server, wait_for
from tests.stress.leaks import assert_no_leaks, measure_baseline, wait_for_connections, warm_up
from tests.stress.scenario import CALM, Listeners, seeded_random
from tests.swarm import Swarm

LIMIT = 120
WAYS = ("close", "reset", "vanish")
KILLED = r"was sent SIGKILL"  # what gunicorn says of it, as an error


class Capped(NamedTuple):
    """A server with a small cap, and its NATS."""

    server: Server
    url: str


@pytest.fixture(scope="module")
def capped(nats_module: NatsServer, serve_module: Serve) -> Capped:
    """Two workers that share the cap, grown to their usual size."""
    server = serve_module(NATS_URL=nats_module.url, WS_MAX_CONNECTIONS=str(LIMIT), **CALM)
    warm_up(server, nats_module.url, clients=LIMIT)
    return Capped(server, nats_module.url)


def refused(swarm: Swarm) -> int:
    """How many were refused because the server is full; there was no other refusal."""
    told = [life for life in swarm.lives if life.refused]
    assert {life.refused for life in told} <= {503}
    assert all(b"\r\nRetry-After: " in life.http and b'"capacity"' in life.http for life in told)
    return len(told)


def rounds(server: Server, draw: random.Random) -> None:
    """Twice: fill it with too many, let some go in any way, and fill it again."""
    for _ in range(2):
        with Swarm(server.port) as swarm:
            asked = draw.randint(LIMIT + 1, 3 * LIMIT)
            swarm.connect(range(asked))
            swarm.settle()
            assert len(swarm.open()) == LIMIT
            assert refused(swarm) == asked - LIMIT
            wait_for_connections(server, LIMIT)

            inside = [life.index for life in swarm.open()]
            gone = draw.sample(inside, draw.randint(1, LIMIT))
            for number in gone:
                swarm.disconnect(number, draw.choice(WAYS))
            swarm.settle()
            wait_for_connections(server, LIMIT - len(gone))

            more = draw.randint(1, 2 * LIMIT)
            swarm.connect(range(1000, 1000 + more))
            swarm.settle()
            inside_now = min(LIMIT, LIMIT - len(gone) + more)
            assert len(swarm.open()) == inside_now
            assert refused(swarm) == asked - LIMIT + max(0, more - len(gone))
            wait_for_connections(server, inside_now)
            for life in swarm.open():
                swarm.disconnect(life.index, draw.choice(WAYS))
            swarm.settle()
        wait_for_connections(server, 0)


def test_the_cap_is_exact_whoever_comes_and_goes(capped: Capped) -> None:
    """So many get in, so many are refused, so many get in again: to the one, over two workers."""
    server = capped.server
    draw = seeded_random("cap")
    rounds(server, draw)
    before = measure_baseline(server)
    was = Counter(server.json("/stats")["refused"])
    rounds(server, draw)
    refusals = Counter(server.json("/stats")["refused"]) - was
    assert {"capacity"} <= set(refusals) <= {"capacity", "overload", "gone"}  # others on a busy machine
    assert_no_leaks(server, before)


def test_a_worker_killed_at_full_load_frees_exactly_its_share(capped: Capped) -> None:
    """At once; clients of other workers miss nothing; as many as left get in again; a successor serves."""
    server, url = capped.server, capped.url
    before = measure_baseline(server)
    draw = seeded_random("killed worker")
    with Listeners(server, url, LIMIT) as listeners, Swarm(server.port) as guests:
        swarm = listeners.swarm
        stats = server.json("/stats")
        workers = {worker["pid"]: worker["connections"] for worker in stats["workers"]}
        assert sum(workers.values()) == LIMIT
        victim = draw.choice(sorted(workers))
        lost, left = workers[victim], LIMIT - workers[victim]
        assert lost > 0
        assert left > 0
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: server.json("/stats")["connections"] == left, 2, "the freed share")
        wait_for(lambda: len(swarm.open()) == left, 2, "the clients' end")
        survivors = [life.index for life in swarm.open()]

        guests.connect(range(lost + 30))
        guests.settle()
        assert len(guests.open()) == lost
        assert refused(guests) == 30
        wait_for(lambda: len(pids := server.workers()) == 2 and victim not in pids, 10, "a successor")
        wait_for(lambda: server.metric("ws_worker_accepting") == 2, 10, "that it accepts")
        guests.disconnect([life.index for life in guests.open()], draw.choice(WAYS))
        guests.settle()
        wait_for(lambda: server.json("/stats")["connections"] == left, 2, "the guests' slots")
        guests.connect(range(1000, 1000 + lost))
        guests.subscribe(range(1000, 1000 + lost), ["token.S0"])
        guests.settle()
        assert len(guests.open()) == lost
        wait_for(lambda: all(life.messages for life in guests.open()), 5, "the feed of the guests")
        [successor] = [w for w in server.json("/stats")["workers"] if w["pid"] not in workers]
        assert successor["accepted"] > 0
        assert successor["fan_out"]["delivered"] > 0
        assert server.json("/stats")["accepted"] == stats["accepted"] + 2 * lost
        guests.disconnect(range(1000, 1000 + lost), "reset")
        guests.settle()
        assert guests.problems() == []
        listeners.assert_complete(survivors)
    assert_no_leaks(server, before, lost=lost, expected_errors=[KILLED])
