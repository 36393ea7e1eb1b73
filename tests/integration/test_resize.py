"""A live resize of a real server: `POST /debug/resize` while messages flow and clients come and go."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from odinws.feed.simulator import TOKENS
from strategies.hashing import Ring
from tests import ledger
from tests.integration.conftest import Serve
from tests.ledger import Publisher
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, Server, wait_for
from tests.swarm import Swarm
from tests.wire import Peer

CONNECTIONS = 200
RATE = 400.0
CHURN_SECONDS = 0.01
CHANNELS = [*(f"token.{token}" for token in TOKENS), *(f"token.T{number}" for number in range(190))]


def post(server: Server, query: str, **headers: str) -> tuple[int, Any]:
    """Status and body of a POST to /debug/resize."""
    request = urllib.request.Request(server.admin + "/debug/resize" + query, b"", headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("shard_key", ["channel", "connection"])
def test_nothing_is_lost_doubled_or_out_of_order_while_shards_come_and_go(
    serve: Serve, nats: NatsServer, shard_key: str
) -> None:
    """16 to 24 to 8 shards on two workers, with the share of the keys that had to move."""
    dice = random.Random(20251025)
    server = serve(
        NATS_URL=nats.url,
        WS_SHARD_STRATEGY="consistent-hash",
        WS_SHARD_KEY=shard_key,
        WS_COMMAND_RATE="1000",
    )
    with Swarm(server.port) as swarm:
        everyone = range(CONNECTIONS)
        swarm.connect(everyone)
        for number in everyone:
            swarm.subscribe(number, dice.sample(CHANNELS, 8))
        swarm.settle()
        answers = []
        with Publisher(nats.url, CHANNELS[:20], RATE) as publisher:
            for shards in (24, 8):
                churn(swarm, dice, seconds=0.5)
                answers.append(post(server, f"?shards={shards}"))
                churn(swarm, dice, seconds=0.5)
        swarm.settle()
        ledger.publish(nats.url, [(channel, b"{}") for channel in CHANNELS])
        truth = ledger.read(nats.url)
        wait_for(lambda: truth.reached(swarm), 10, "the last message everywhere")

        assert publisher.published > RATE
        assert not swarm.problems(), swarm.problems()[:5]
        faults = truth.faults(swarm.stretches(), slack_seconds=2.0 + max(swarm.delays_ms) / 1000)
        assert not faults, faults[:5]
        for (status, answer), before, after in zip(answers, (16, 24), (24, 8), strict=True):
            assert status == 200
            assert (answer["shards"], answer["done"]) == (after, True)
            assert len(answer["workers"]) == 2
            for worker in answer["workers"]:
                assert (worker["shards"], worker["took_effect"]) == (after, True)
                assert worker["seconds"] < 20
                check_share(worker["moved"], before, after, shard_key)
        if shard_key == "channel":
            check_figures(server, 8)

        swarm.disconnect(everyone)
        swarm.settle()
        wait_for(lambda: server.json("/stats")["connections"] == 0, 5, "no connection")
        wait_for(lambda: server.json("/stats")["subscriptions"] == 0, 5, "no subscription")


def churn(swarm: Swarm, dice: random.Random, seconds: float) -> None:
    """Let clients come, go, subscribe and unsubscribe."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number = dice.randrange(CONNECTIONS)
        match dice.randrange(4):
            case 0:
                swarm.disconnect(number, dice.choice(("close", "vanish", "reset")))
                swarm.connect(number)
                swarm.subscribe(number, dice.sample(CHANNELS, 8))
            case 1:
                swarm.unsubscribe(number, dice.sample(CHANNELS, 8))
            case _:
                swarm.subscribe(number, dice.sample(CHANNELS, 2))
        time.sleep(CHURN_SECONDS)


def check_share(moved: dict[str, int], before: int, after: int, shard_key: str) -> None:
    """About |Δ|/N of the keys; by channel exactly as the ring says, if all channels were there."""
    kind = "channels" if shard_key == "channel" else "connections"
    share = abs(after - before) / max(after, before)
    assert moved[f"seen_{kind}"] > 60
    assert abs(moved[kind] / moved[f"seen_{kind}"] - share) < 0.5 * share, moved
    if moved["seen_channels"] == len(CHANNELS):
        old, new = Ring.of(before).locate, Ring.of(after).locate
        assert moved["channels"] == sum(old(channel) != new(channel) for channel in CHANNELS)


def check_figures(server: Server, shards: int) -> None:
    """`/stats`, `/metrics` and `welcome` tell the new number, also of a worker that starts later."""
    old = server.workers()
    server.signal(1)  # SIGHUP: new workers
    wait_for(lambda: not set(server.workers()) & set(old) and len(server.workers()) == 2, 20, "new workers")

    def details() -> list[int]:
        return [len(worker["details"].get("shards", ())) for worker in server.json("/stats")["workers"]]

    wait_for(lambda: details() == [shards] * 2, 5, "details of each shard")
    stats = server.json("/stats")
    assert stats["strategy"]["shards"] == shards
    assert [(worker["can_resize"], worker["shards"]) for worker in stats["resize"]] == [(True, shards)] * 2
    lines = server.ask("/metrics")[2].decode().splitlines()
    assert [line for line in lines if line.startswith("ws_connections{") and f'shards="{shards}"' in line]
    with Peer(server.port) as peer:
        assert peer.upgrade()["shards"] == shards


def test_what_is_refused_says_what_to_do(serve: Serve, nats: NatsServer) -> None:
    """Bounds are those of the settings; other strategies are named; a page in a browser may not ask."""
    server = serve(NATS_URL=nats.url, WS_SHARD_STRATEGY="hybrid", WS_WORKERS="1")
    status, answer = post(server, "?shards=24")
    assert (status, answer["error"]) == (409, "cannot_resize")
    assert "hybrid can't be resized" in answer["message"]
    assert "WS_SHARD_STRATEGY=consistent-hash" in answer["message"]
    for query in ("", *(f"?shards={wrong}" for wrong in ("0", "1025", "-1", "2.5", "%D9%A3", "x"))):
        status, answer = post(server, query)
        assert (status, answer["error"]) == (400, "invalid_shards")
        assert "a whole number from 1 to 1024" in answer["message"]
    assert post(server, "?shards=24", Origin="https://elsewhere.example")[0] == 403
    assert post(server, "?shards=24", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    status, headers, _ = server.ask("/debug/resize?shards=24")
    assert (status, headers["Allow"]) == (405, "OPTIONS, POST")
    assert server.json("/stats")["resize"] == [{"slot": 0, "can_resize": False}]
