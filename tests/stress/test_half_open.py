"""Peers that are gone without a word: between them and the server nothing is forwarded any more."""

from __future__ import annotations

import time

from tests.server import wait_for
from tests.stress.conftest import RunningServer
from tests.stress.leaks import assert_no_leaks, measure_baseline
from tests.stress.scenario import (
    CHANNELS,
    HEARTBEAT_SECONDS,
    IDLE_SECONDS,
    Listeners,
    seeded_random,
)
from tests.stress.silent_proxy import SilentProxy
from tests.swarm import Swarm
from tests.wire import CLOSE

LISTENERS = 30
LOST = 40
TICK_SECONDS = 0.25  # what the server's timers are exact to


def test_half_open_peers_are_ended(standing: RunningServer) -> None:
    """Each is closed with 4009, not early; reachable clients get every message."""
    server, url, _ = standing
    draw = seeded_random("half open")
    before = measure_baseline(server)
    ended = server.json("/stats")["closed"]
    with (
        Listeners(server, url, LISTENERS) as listeners,
        SilentProxy(server.port) as proxy,
        Swarm(proxy.port) as peers,
    ):
        listening = set(draw.sample(range(LOST), LOST // 2))
        peers.connect(range(LOST))
        peers.subscribe(listening, CHANNELS[:1])
        peers.settle()
        wait_for(lambda: peers.messages() >= len(listening), 5, "the feed behind the proxy")
        assert len(peers.open()) == LOST
        silent_at = time.monotonic()
        proxy.silence()
        time.sleep(IDLE_SECONDS - HEARTBEAT_SECONDS - 2 * TICK_SECONDS)
        closed = server.json("/stats")["closed"]
        if time.monotonic() - silent_at < IDLE_SECONDS - HEARTBEAT_SECONDS - TICK_SECONDS:
            assert closed == ended, "nobody is given up early"
        wait_for(
            lambda: server.json("/stats")["closed"]["idle"] == ended["idle"] + LOST, 60, "the end of all"
        )
        wait_for(lambda: server.json("/stats")["connections"] == LISTENERS, 60, "their slots")
        for frames in proxy.frames():
            assert frames[-1].opcode == CLOSE
            assert frames[-1].code == 4009
        assert peers.problems() == []
        assert len(peers.open()) == LOST, "none of it has reached them"
        listeners.assert_complete()
    assert_no_leaks(server, before)
