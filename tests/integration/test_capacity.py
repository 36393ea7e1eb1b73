"""The cap on connections is exact over all workers, and a full server still answers."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from functools import partial

import pytest
import websockets.exceptions
from websockets.sync.client import connect

from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import GUNICORN, PATIENCE_SECONDS, Server, established, wait_for
from tests.swarm import Swarm
from tests.wire import Peer, request

LIMIT = 50
PATHS = ("/health", "/livez", "/readyz", "/stats", "/metrics")


@pytest.fixture
def server(nats: NatsServer, serve: Serve) -> Server:
    """Two workers that share the cap."""
    return serve(
        NATS_URL=nats.url,
        WS_MAX_CONNECTIONS=str(LIMIT),
        WS_CPU_REJECT_THRESHOLD="100",  # so that a busy machine refuses for the cap alone
        WS_HUB_LAG_THRESHOLD_MS="60000",
    )


@pytest.fixture
def swarm(server: Server) -> Iterator[Swarm]:
    """Clients of that server."""
    with Swarm(server.port) as swarm:
        yield swarm


def count(server: Server) -> int:
    """Connections by every count there is, once they agree."""
    counts: list[int] = []

    def agree() -> bool:
        stats = server.json("/stats")
        counts[:] = [
            stats["connections"],
            sum(worker["connections"] for worker in stats["workers"]),
            server.json("/health")["checks"]["capacity"]["current"],
            int(server.metric("ws_connections")),
            established(server.port),
        ]
        return len(set(counts)) == 1

    try:
        wait_for(agree, 5, "all counts to agree")
    except AssertionError as error:
        raise AssertionError(f"{error}: {counts}") from None
    return counts[0]


def test_exactly_the_cap_gets_in(server: Server, swarm: Swarm) -> None:
    """Two hundred at once: fifty are admitted, the others are refused with Retry-After."""
    swarm.connect(range(200))
    swarm.settle()
    assert len(swarm.open()) == LIMIT
    refused = [life for life in swarm.lives if life.refused]
    assert len(refused) == 200 - LIMIT
    for life in refused:
        head, _, body = life.http.partition(b"\r\n\r\n")
        assert life.refused == 503
        assert b"\r\nRetry-After: " in head
        retry = int(head.split(b"\r\nRetry-After: ")[1].split(b"\r\n")[0])
        assert 1 <= retry <= 60
        assert json.loads(body)["error"] == "capacity"
    assert count(server) == LIMIT
    stats = server.json("/stats")
    assert stats["refused"]["capacity"] == 200 - LIMIT
    assert stats["accepted"] == LIMIT
    # A busy machine may have clients come again.
    assert server.metric("ws_connections_refused_total") == sum(stats["refused"].values())


def test_a_full_server_still_answers(server: Server, swarm: Swarm) -> None:
    """From both workers, and it says that it is full."""
    swarm.connect(range(LIMIT + 50))
    swarm.settle()
    slots: set[int] = set()

    def both() -> bool:
        answers = {path: server.ask(path) for path in PATHS}
        assert {path: answer[0] for path, answer in answers.items()} == {
            **dict.fromkeys(PATHS, 200),
            "/readyz": 503,
        }
        slots.add(json.loads(answers["/stats"][2])["answered_by"])
        return len(slots) == 2

    wait_for(both, 30, "answers of both workers")
    assert "capacity" in server.json("/readyz")["reasons"][0]
    health = server.json("/health")
    assert health["status"] == "degraded"
    assert not health["checks"]["capacity"]["healthy"]
    assert health["checks"]["capacity"]["percentage"] == 100
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        connect(server.ws)
    assert refused.value.response.status_code == 503
    assert "Retry-After" in refused.value.response.headers


def replaced(server: Server, victim: int) -> bool:
    """Whether two workers run and none of them is `victim`."""
    pids = server.workers()
    return len(pids) == 2 and victim not in pids


@pytest.mark.parametrize("how", ["close", "vanish", "reset"])
def test_each_one_that_goes_frees_exactly_one(server: Server, swarm: Swarm, how: str) -> None:
    """Ten times one goes, and of five that ask at once exactly one gets in."""
    swarm.connect(range(LIMIT))
    swarm.settle()
    for turn in range(10):
        swarm.disconnect(turn, how)
        swarm.settle()
        wait_for(lambda: server.json("/stats")["connections"] == LIMIT - 1, 5, "the slot")
        swarm.connect(range(1000 + 5 * turn, 1005 + 5 * turn))
        swarm.settle()
        assert len(swarm.open()) == LIMIT
    assert count(server) == LIMIT


def test_a_failed_upgrade_gives_its_slot_back(server: Server, swarm: Swarm) -> None:
    """More bad requests than there are slots, then the cap is still whole."""
    for _ in range(LIMIT + 5):
        with Peer(server.port) as peer:
            assert peer.send(request(Sec_WebSocket_Key="YWJj")).http().status == 400
    swarm.connect(range(LIMIT))
    swarm.settle()
    assert len(swarm.open()) == LIMIT
    assert count(server) == LIMIT


def test_a_killed_worker_frees_its_share(server: Server, swarm: Swarm) -> None:
    """Within two seconds; its successor serves, the cap is exact again, and totals did not fall."""
    swarm.connect(range(LIMIT))
    swarm.settle()
    before = server.json("/stats")
    victim, other = before["workers"]
    os.kill(victim["pid"], signal.SIGKILL)
    wait_for(lambda: server.json("/stats")["connections"] == other["connections"], 2, "the freed share")
    wait_for(lambda: len(swarm.open()) == other["connections"], 2, "the clients to notice")

    wait_for(partial(replaced, server, victim["pid"]), 10, "the successor")
    wait_for(lambda: server.metric("ws_worker_accepting") == 2, 10, "both accept")
    swarm.connect(range(1000, 1200))
    swarm.settle()
    assert len(swarm.open()) == LIMIT
    assert count(server) == LIMIT
    after = server.json("/stats")
    assert after["accepted"] == before["accepted"] + victim["connections"]
    new = next(worker for worker in after["workers"] if worker["pid"] != other["pid"])
    assert new["accepted"] > 0, "the successor serves"


def test_killed_workers_do_not_wear_the_board_out(server: Server) -> None:
    """Ten workers die one after the other; each time two are counted again, and nothing else is."""
    for _ in range(10):
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(partial(replaced, server, victim), 10, "two workers")
    assert count(server) == 0
    with connect(server.ws) as client:
        assert json.loads(client.recv(PATIENCE_SECONDS))["type"] == "welcome"


def test_the_usual_limit_of_descriptors_is_no_limit(nats: NatsServer, serve: Serve) -> None:
    """A shell that gives 128 of them: the server takes more, and four hundred clients get in."""
    command = ["sh", "-c", f"ulimit -Sn 128; exec {shlex.join(GUNICORN)}"]
    server = serve(command=command, NATS_URL=nats.url, WS_MAX_CONNECTIONS="400")
    with Swarm(server.port) as swarm:
        swarm.connect(range(400))
        swarm.settle()
        assert len(swarm.open()) == 400
        assert count(server) == 400
    assert "too few" not in server.log()


def test_too_few_descriptors_are_reported_at_the_start(nats: NatsServer, serve: Serve) -> None:
    """Where the limit can't be raised far enough, one line says by how much."""
    command = ["sh", "-c", f"ulimit -n 128; exec {shlex.join(GUNICORN)}"]
    server = serve(command=command, NATS_URL=nats.url, WS_MAX_CONNECTIONS="400")
    [line] = [line for line in server.log().splitlines() if "too few file descriptors" in line]
    assert "allowed=128" in line
    assert "needed=2400" in line
