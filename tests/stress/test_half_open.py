"""Peers that are gone without a word: between them and the server nothing is forwarded any more."""

from __future__ import annotations

import time

from tests.server import wait_for
from tests.stress.conftest import Standing
from tests.stress.rest import at_rest, rest
from tests.stress.scene import CHANNELS, CLOSE_SECONDS, HEARTBEAT_SECONDS, IDLE_SECONDS, Stayers, dice
from tests.stress.silence import SilentProxy
from tests.swarm import Swarm
from tests.wire import CLOSE

STAYERS = 30
LOST = 40
TICK_SECONDS = 0.25  # what the server's timers are exact to
LATE_SECONDS = 1.0  # what a busy machine may add


def test_half_open_peers_are_ended(standing: Standing) -> None:
    """Each is told 4009 within the time, neither earlier nor later; who is reachable hears all."""
    server, url, _ = standing
    draw = dice("half open")
    before = rest(server)
    ended = server.json("/stats")["closed"]
    with (
        Stayers(server, url, STAYERS) as stayers,
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
        assert server.json("/stats")["closed"] == ended, "nobody is given up early"
        left = silent_at + IDLE_SECONDS + 2 * TICK_SECONDS + LATE_SECONDS - time.monotonic()
        wait_for(
            lambda: server.json("/stats")["closed"]["idle"] == ended["idle"] + LOST, left, "the end of all"
        )
        left = CLOSE_SECONDS + 2 * TICK_SECONDS + LATE_SECONDS
        wait_for(lambda: server.json("/stats")["connections"] == STAYERS, left, "their slots")
        for frames in proxy.frames():
            assert frames[-1].opcode == CLOSE
            assert frames[-1].code == 4009
        assert peers.problems() == []
        assert len(peers.open()) == LOST, "none of it has reached them"
        stayers.unharmed()
    at_rest(server, before)
