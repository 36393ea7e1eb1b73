"""The machine's clock is set, by an hour forth and back: nobody is closed, and nothing stops or runs wild."""

from __future__ import annotations

import time

import pytest

from tests.access.material import token
from tests.server import Server, wait_for
from tests.stress.clock import HOUR_SECONDS
from tests.stress.conftest import RunningServer
from tests.stress.leaks import assert_no_leaks, measure_baseline
from tests.stress.scenario import Listeners
from tests.wire import PING, Peer, command

LISTENERS = 60
HEARTBEAT_SECONDS, COMMAND_RATE, BURST = 0.8, 10, 20  # of the server
SAMPLES_SECONDS = 1.1  # each worker has looked at itself since


def answers(peer: Peer) -> bool:
    """Whether a client that has left pings unread is still served."""
    peer.send(command("heartbeat"))
    while (got := peer.next()).opcode == PING:
        pass
    return bool(got.json["type"] == "pong")


def admitted(server: Server, off_seconds: float) -> None:
    """A client gets in; its clock is the server's; it has its burst of commands, and no more."""
    with Peer(server.port) as peer:
        peer.upgrade()
        assert abs(peer.ask("heartbeat")["ts"] / 1000 - time.time() - off_seconds) < 10
        began = time.monotonic()
        peer.send(command("heartbeat") * (3 * BURST))
        kinds = [peer.answer().get("code", "pong") for _ in range(3 * BURST)]
        more = 1 + (time.monotonic() - began) * COMMAND_RATE
        assert BURST - 1 <= kinds.count("pong") <= BURST - 1 + more
        assert set(kinds) == {"pong", "RATE_LIMIT_EXCEEDED"}


def test_a_clock_that_is_set_closes_nobody(patient: RunningServer) -> None:
    """Delivery goes on, rates hold, both workers count as alive; a token ends when the clock says so."""
    server, url, clock = patient
    before = measure_baseline(server)
    try:
        with (
            Listeners(server, url, LISTENERS) as listeners,
            Peer(server.port) as short,
            Peer(server.port) as long,
        ):
            swarm = listeners.swarm
            short.upgrade(path=f"/ws?token={token(exp=time.time() + HOUR_SECONDS / 2)}")
            long.upgrade(path=f"/ws?token={token(exp=time.time() + 2 * HOUR_SECONDS)}")
            ended = server.json("/stats")["closed"]
            for off_seconds in (-HOUR_SECONDS, HOUR_SECONDS):
                clock.set(off_seconds)
                if off_seconds > 0:
                    assert short.closing().code == 4401
                    short.shut()
                    ended["unauthorised"] += 1
                heard = swarm.messages()
                time.sleep(SAMPLES_SECONDS)
                assert swarm.messages() > heard + LISTENERS
                assert server.get("/readyz")[0] == 200
                assert server.json("/health")["status"] == "healthy"
                admitted(server, off_seconds)
                ended["gone"] += 1
                wait_for(lambda: server.json("/stats")["closed"] == ended, 3, f"these ends: {ended}")
                assert len(swarm.open()) == LISTENERS
            assert answers(long)
            long.shut()
            listeners.assert_complete()
    finally:
        clock.set(0.0)
    assert_no_leaks(server, before)


@pytest.mark.parametrize("off_seconds", [-HOUR_SECONDS, HOUR_SECONDS])
def test_health_does_not_mind_the_clock(patient: RunningServer, off_seconds: float) -> None:
    """From the first moment: a worker that was seen a second ago is not missed for an hour."""
    server, _, clock = patient
    before = measure_baseline(server)
    clock.set(off_seconds)
    try:
        for _ in range(20):
            health = server.json("/health")
            assert (health["status"], health["errors"]) == ("healthy", [])
    finally:
        clock.set(0.0)
    assert_no_leaks(server, before)
