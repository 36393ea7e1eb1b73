"""The faults are there, and are what they say."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tests.server import Server, wait_for
from tests.wire import Peer

COMMAND = (sys.executable, "-m", "gunicorn", "-c", "tests/sabotage/gunicorn_conf.py")


def _server(faults: Mapping[str, str]) -> Server:
    return Server({"WS_WORKERS": "1", "WS_SHARD_STRATEGY": "single-lock", **faults}, command=COMMAND)


def test_lossy_and_slow() -> None:
    """Passes take longer, and each fifth message is missing although nobody says so."""
    with _server({"SABOTAGE_PASS_MS": "30", "SABOTAGE_DROP_EVERY": "5"}) as server, Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=["token.BTC", "token.ETH"])
        last: dict[str, int] = {}
        missing = seen = 0
        until = time.monotonic() + 60
        while missing < 2 and time.monotonic() < until:
            message = peer.next().json
            if "prev" in message:
                seen += 1
                missing += message["prev"] != last.get(message["channel"], message["prev"])
                last[message["channel"]] = message["seq"]
        assert missing >= 2
        assert seen
        worker = server.json("/stats")["workers"][0]
        assert worker["pass_longest_seconds"] >= 0.03


def test_lock() -> None:
    """The one lock is held for 20 ms, again and again."""
    with _server({"SABOTAGE_LOCK_MS": "20"}) as server:
        wait_for(lambda: _hold_ms(server) >= 20, 5, "a long hold")


def test_other_strategy() -> None:
    """Workers with another strategy are spared."""
    with _server({"SABOTAGE_LOCK_MS": "500", "SABOTAGE_STRATEGY": "fnv-sharded"}) as server:
        time.sleep(1.5)
        assert _hold_ms(server) < 500


def _hold_ms(server: Server) -> float:
    shards = server.json("/stats")["workers"][0]["details"].get("shards", [])
    return max((1000 * shard["lock"]["longest_hold_seconds"] for shard in shards), default=0.0)
