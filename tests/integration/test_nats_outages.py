"""NATS goes away, comes back, forgets or brings rubbish: clients stay, and nothing is lost silently."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats as nats_client
import pytest
from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig

from tests.integration.conftest import Serve
from tests.ledger import STREAM, Publisher, publish, read
from tests.nats import NatsServer
from tests.server import Server, free_port, wait_for
from tests.swarm import Swarm

CLIENTS = 100
CHANNELS = [f"token.T{number}" for number in range(5)]
RATE = 200.0
BACK_SECONDS = 5.0  # from the return of NATS to the next message


@pytest.fixture
def server(nats: NatsServer, serve: Serve) -> Server:
    """Two workers on a NATS of the test's own."""
    return serve(NATS_URL=nats.url)


@pytest.fixture
def swarm(server: Server) -> Iterator[Swarm]:
    """A hundred clients with five channels each."""
    with Swarm(server.port) as swarm:
        join(swarm)
        yield swarm


def join(swarm: Swarm) -> None:
    """Connect and subscribe; nobody is refused."""
    swarm.connect(range(CLIENTS))
    swarm.subscribe(range(CLIENTS), CHANNELS)
    swarm.settle()
    assert [life.http for life in swarm.lives if life.refused] == []


def goes_on(swarm: Swarm, seconds: float = BACK_SECONDS) -> None:
    """Every client gets another message within `seconds`."""
    before = {life.index: life.messages for life in swarm.open()}
    assert len(before) == CLIENTS
    wait_for(
        lambda: all(life.messages > before[life.index] for life in swarm.open()),
        seconds,
        "a message for each",
    )


def is_down(server: Server, seconds: float = BACK_SECONDS) -> str:
    """Not ready and unhealthy within `seconds`, and still alive; what health says about it."""
    wait_for(lambda: server.get("/readyz")[0] == 503, seconds, "that it is noticed")
    assert server.get("/livez")[0] == 200
    [reason] = server.json("/readyz")["reasons"]
    assert reason.startswith("nats: ")
    health = server.json("/health")
    assert health["status"] == "unhealthy"
    assert not health["healthy"]
    assert not health["checks"]["nats"]["healthy"]
    [error] = health["errors"]
    assert error.startswith("nats: ")
    return str(error)


def is_up(server: Server, seconds: float = BACK_SECONDS) -> None:
    """Ready and healthy within `seconds`."""
    wait_for(lambda: server.get("/readyz")[0] == 200, seconds, "readiness")
    health = server.json("/health")
    assert health["healthy"]
    assert health["checks"]["nats"]["healthy"]
    assert health["errors"] == []


def nothing_is_lost(swarm: Swarm, nats: NatsServer, epoch: str = "") -> None:
    """Everything that NATS took came to everyone once and in order; of one epoch, if one is named."""
    taken = read(nats.url)
    due = [stretch for stretch in swarm.stretches() if stretch.epoch == epoch or not epoch]
    assert len(due) >= CLIENTS * len(CHANNELS)
    wait_for(lambda: not taken.faults(due), 10, f"all messages: {taken.faults(due)[:3]}")
    assert swarm.problems() == []
    assert len(swarm.open()) == CLIENTS
    assert len(swarm.lives) == CLIENTS


def manage(url: str, work: Callable[[JetStreamContext], Awaitable[Any]]) -> Any:
    """Do something to JetStream."""

    async def run() -> Any:
        client = await nats_client.connect(url, connect_timeout=60)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(run())


# -- absent, killed, stalled ----------------------------------------------------------------------------


def test_nats_may_come_after_the_server(serve: Serve, tmp_path: Path) -> None:
    """Not ready and with a reason; clients get in and subscribe; with NATS comes the feed."""
    nats = NatsServer(tmp_path / "nats", port=free_port())
    server = serve(ready=False, NATS_URL=nats.url)
    assert is_down(server)
    with Swarm(server.port) as swarm:
        join(swarm)
        with nats:
            is_up(server)
            with Publisher(nats.url, CHANNELS, RATE):
                goes_on(swarm)
            nothing_is_lost(swarm, nats, server.json("/health")["checks"]["nats"]["epoch"])
        assert all(len([r for r in life.replies if r["type"] == "welcome"]) == 1 for life in swarm.open())


def test_a_killed_nats_costs_nobody_anything(nats: NatsServer, server: Server, swarm: Swarm) -> None:
    """Twice killed under load and restarted with its data: no hole, nothing doubled, nobody disconnected."""
    with Publisher(nats.url, CHANNELS, RATE):
        for _ in range(2):
            goes_on(swarm)
            nats.kill()
            is_down(server)
            nats.start()
            goes_on(swarm)
            is_up(server)
    nothing_is_lost(swarm, nats)
    assert {stretch.epoch for stretch in swarm.stretches()} == {swarm.lives[0].epoch}
    assert [life.replies for life in swarm.lives if life.replies] == []
    assert server.metric("ws_feed_sessions_total") >= 6
    assert server.metric("ws_feed_reconnects_total") == server.metric("ws_feed_sessions_total") - 2


def test_a_killed_nats_that_comes_back_at_once(nats: NatsServer, server: Server, swarm: Swarm) -> None:
    """Restarts in quick succession, some before the server has noticed the one before."""
    with Publisher(nats.url, CHANNELS, RATE):
        for _ in range(5):
            nats.restart()
        goes_on(swarm)
        is_up(server)
    nothing_is_lost(swarm, nats)


def test_an_outage_before_the_first_message_costs_nobody_anything(
    nats: NatsServer, server: Server, swarm: Swarm
) -> None:
    """What NATS takes between its return and the server's is delivered, also from an empty stream."""
    nats.restart()
    publish(nats.url, [(channel, b"{}") for channel in CHANNELS * 20])
    nothing_is_lost(swarm, nats)
    is_up(server)


def test_a_stream_that_has_forgotten_everything_is_ready(nats: NatsServer, serve: Serve) -> None:
    """Its last message is gone by age or purge: the server is ready all the same, and the feed goes on."""
    config = StreamConfig(
        name=STREAM, subjects=["odin.>"], max_age=3600.0, max_msgs=1_000_000, max_bytes=512 << 20
    )
    manage(nats.url, lambda js: js.add_stream(config))
    publish(nats.url, [(channel, b"{}") for channel in CHANNELS])
    manage(nats.url, lambda js: js.purge_stream(STREAM))
    server = serve(NATS_URL=nats.url)
    assert server.json("/health")["status"] == "healthy"
    with Swarm(server.port) as swarm:
        join(swarm)
        publish(nats.url, [(channel, b"{}") for channel in CHANNELS])
        nothing_is_lost(swarm, nats)
        assert {stretch.first for stretch in swarm.stretches()} == {6, 7, 8, 9, 10}
        assert all(not life.replies for life in swarm.lives)


def test_a_nats_that_stands_still(nats: NatsServer, server: Server, swarm: Swarm) -> None:
    """Stopped for six seconds: noticed, reported, and nothing is lost."""
    with Publisher(nats.url, CHANNELS, RATE):
        goes_on(swarm)
        resume = threading.Timer(6.0, nats.resume)
        nats.pause()
        resume.start()
        assert is_down(server)
        resume.join()
        goes_on(swarm)
        is_up(server)
    nothing_is_lost(swarm, nats)


# -- JetStream forgets or changes -------------------------------------------------------------------------


def test_a_nats_that_lost_its_memory_begins_a_new_epoch(
    nats: NatsServer, server: Server, swarm: Swarm, tmp_path: Path
) -> None:
    """Every client gets a second welcome, and the sequence starts over from 1."""
    with Publisher(nats.url, CHANNELS, RATE):
        goes_on(swarm)
        nats.kill()
        shutil.rmtree(tmp_path / "nats" / "jetstream")
        nats.start()
        goes_on(swarm)
        is_up(server)
    old, new = swarm.lives[0].replies[0]["epoch"], server.json("/health")["checks"]["nats"]["epoch"]
    assert old == new != swarm.stretches()[0].epoch
    for life in swarm.lives:
        [welcome] = life.replies
        assert welcome["type"] == "welcome"
        assert welcome["epoch"] == new
        assert welcome["client_id"] == life.client_id
    nothing_is_lost(swarm, nats, new)


def test_a_deleted_stream_is_recreated(nats: NatsServer, server: Server, swarm: Swarm) -> None:
    """Under the server's feet: a new stream, a new epoch, and the feed goes on."""
    with Publisher(nats.url, CHANNELS, RATE):
        goes_on(swarm)
        before = server.json("/health")["checks"]["nats"]["epoch"]
        manage(nats.url, lambda js: js.delete_stream(STREAM))
        wait_for(lambda: server.json("/health")["checks"]["nats"]["epoch"] != before, 10, "a new epoch")
        is_up(server)
        goes_on(swarm)
    nothing_is_lost(swarm, nats, server.json("/health")["checks"]["nats"]["epoch"])


def test_a_deleted_consumer_costs_nobody_anything(nats: NatsServer, server: Server, swarm: Swarm) -> None:
    """Both workers' consumers vanish under load: they make new ones that go on where the old ones ended."""

    async def delete_all(js: JetStreamContext) -> int:
        consumers = await js.consumers_info(STREAM)
        for consumer in consumers:
            await js.delete_consumer(STREAM, consumer.name)
        return len(consumers)

    with Publisher(nats.url, CHANNELS, RATE):
        goes_on(swarm)
        sessions = server.metric("ws_feed_sessions_total")
        assert manage(nats.url, delete_all) == 2
        wait_for(lambda: server.metric("ws_feed_sessions_total") >= sessions + 2, 10, "new consumers")
        goes_on(swarm)
        is_up(server)
    nothing_is_lost(swarm, nats)
    assert {stretch.epoch for stretch in swarm.stretches()} == {swarm.lives[0].epoch}


def test_what_the_stream_has_deleted_becomes_a_gap(serve: Serve, tmp_path: Path) -> None:
    """While the server is disconnected the stream deletes messages: all clients get the exact gap."""
    store, port = tmp_path / "nats", free_port()
    with NatsServer(store, port=port) as seen:
        server = serve(NATS_URL=seen.url, JS_STREAM_MAX_MSGS="100")
        with Swarm(server.port) as swarm:
            join(swarm)
            publish(seen.url, [(CHANNELS[0], b"{}")] * 50)
            wait_for(lambda: swarm.messages() == 50 * CLIENTS, 5, "the messages before")
            seen.kill()
            with NatsServer(store) as unseen:
                publish(unseen.url, [(CHANNELS[1], b"{}")] * 300)
                wait_for(
                    lambda: len(read(unseen.url)) == 100 and read(unseen.url).seqs[CHANNELS[1]][-1] == 350,
                    5,
                    "300",
                )
                unseen.stop()
            seen.start()
            is_up(server)
            wait_for(lambda: swarm.messages() == 150 * CLIENTS, 5, "what is left in the stream")
            for life in swarm.lives:
                assert sorted(life.replies, key=lambda reply: str(reply["channel"])) == [
                    {"type": "gap", "channel": channel, "from": 51, "to": 250, "reason": "expired"}
                    for channel in CHANNELS
                ]
            assert swarm.problems() == []
            assert server.metric("ws_feed_gaps_total") == 2


def test_a_foreign_stream_is_taken_as_it_is(nats: NatsServer, serve: Serve) -> None:
    """`/health` lists the differences, and the stream is not altered."""
    config = StreamConfig(
        name=STREAM, subjects=["odin.>", "other.>"], max_age=61.0, max_msgs=777, storage=StorageType.MEMORY
    )
    manage(nats.url, lambda js: js.add_stream(config))
    before = manage(nats.url, lambda js: js.stream_info(STREAM)).config
    server = serve(NATS_URL=nats.url)
    health = server.json("/health")
    assert health["status"] == "degraded"
    assert health["healthy"]
    [warning] = [text for text in health["warnings"] if "stream" in text]
    for word in (STREAM, "777", "61.0", "other.>"):
        assert word in warning
    with Swarm(server.port) as swarm:
        join(swarm)
        with Publisher(nats.url, CHANNELS, RATE / 10):  # so that the stream has all of it in the end
            goes_on(swarm)
            publish(nats.url, [("x", b"{}")], prefix="other.")
            goes_on(swarm)
        nothing_is_lost(swarm, nats)
    assert manage(nats.url, lambda js: js.stream_info(STREAM)).config == before


def test_a_stream_that_is_in_the_way_is_named(nats: NatsServer, serve: Serve) -> None:
    """Another stream has the subjects: not ready, health says why; when it is gone the feed comes up."""
    manage(nats.url, lambda js: js.add_stream(StreamConfig(name="OTHER", subjects=["odin.token.*"])))
    server = serve(ready=False, NATS_URL=nats.url)
    wait_for(lambda: "overlap" in is_down(server), 5, "the reason")
    manage(nats.url, lambda js: js.delete_stream("OTHER"))
    is_up(server)
    with Swarm(server.port) as swarm:
        join(swarm)
        with Publisher(nats.url, CHANNELS, RATE):
            goes_on(swarm)
        nothing_is_lost(swarm, nats)


def test_without_jetstream_the_epoch_says_so(serve: Serve, tmp_path: Path) -> None:
    """Core mode: a warning, sequences of the worker's own, and a new epoch after each outage."""
    with NatsServer(tmp_path / "nats", jetstream=False) as nats:
        server = serve(NATS_URL=nats.url)
        health = server.json("/health")
        assert health["status"] == "degraded"
        assert any("JetStream" in warning for warning in health["warnings"])
        with Swarm(server.port) as swarm, Publisher(nats.url, CHANNELS, RATE):
            join(swarm)
            goes_on(swarm)
            nats.restart()
            wait_for(lambda: all(life.replies for life in swarm.open()), BACK_SECONDS, "the new epoch")
            live = [life.stretches[-len(CHANNELS) :] for life in swarm.open()]
            wait_for(
                lambda: all(stretch.count for five in live for stretch in five), BACK_SECONDS, "all channels"
            )
            is_up(server)
            assert swarm.problems() == []
            epochs = {stretch.epoch for stretch in swarm.stretches()}
            assert len(epochs) >= 4, "two workers, each before and after"
            assert all(epoch.startswith("core-") for epoch in epochs)
            for life in swarm.open():
                for number in range(len(CHANNELS)):
                    old, new = (stretch for stretch in life.stretches if stretch.channel == CHANNELS[number])
                    assert new.first > old.last, "numbers never come twice"


# -- what NATS may bring ------------------------------------------------------------------------------------

POISON = [
    b"",
    b"not json",
    b"{",
    b'{"a":1} {"b":2}',
    b'"\xff\xfe"',
    b'{"type":"\xed\xa0\x80"}',
    b"\x00" * 100,
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"NaN",
]
ODD = [
    b"null",
    b"[]",
    b'"text"',
    b"1" * 300,
    b"1e999",
    b'{"type":7}',
    b'{"type":""}',
    b'{"type":"\\ud800"}',
    b'{"type":"a\\"b\\\\c\\u0000"}',
    '{"type":"\u202e\U0001f4a9"}'.encode(),
    b' \n\t{"type" : "spaced"}\r\n ',
    b'{"x":"' + b"y" * 900_000 + b'"}',
]


def test_rubbish_from_nats_hurts_nobody(nats: NatsServer, server: Server) -> None:
    """Invalid JSON becomes a gap, unusual JSON arrives byte for byte, and no worker fails."""
    workers = server.workers()
    with Swarm(server.port, keep=True) as swarm:
        swarm.connect(range(10))
        swarm.subscribe(range(10), ["token.T0"])
        swarm.settle()
        publish(
            nats.url,
            [(name, b"{}") for name in ("", "x", "token.T0.more", "token.", "token.é", "a.b.c.d") if name],
        )
        publish(nats.url, [("token.T0", payload) for payload in POISON + ODD + [b'{"last":1}']])
        wait_for(
            lambda: all(
                (life.payloads or [b""])[-1].endswith(b'"data":{"last":1}}') for life in swarm.open()
            ),
            10,
            "the last one",
        )
        assert len(swarm.open()) == 10
        for life in swarm.open():
            gaps = [reply for reply in life.replies if reply["type"] == "gap"]
            told = {seq for gap in gaps for seq in range(gap["from"], gap["to"] + 1)}
            assert len(gaps) == len(told)
            assert {gap["reason"] for gap in gaps} <= {"invalid_payload"}
            got = [payload.partition(b',"data":')[2][:-1] for payload in life.payloads or []]
            assert len(got) + len(gaps) == len(POISON) + len(ODD) + 1
            assert got[-1] == b'{"last":1}'
            assert [payload for payload in got if payload not in ODD] == [b'{"last":1}']
            assert len(gaps) >= len(POISON)
    assert server.workers() == workers
    assert "Traceback" not in server.log()
    assert server.metric("ws_feed_ignored_total") > 0
