"""The client library with a real server: it comes back from everything and misses nothing."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from unittest.mock import ANY

import pytest

from odinws.client import AsyncClient, Client, Gap, Message, RefusedError
from tests.access.material import SECRET, token
from tests.integration.conftest import Serve
from tests.ledger import Publisher, publish, read
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, wait_for
from tests.wire import Peer

CHANNELS = [f"token.T{n}" for n in range(5)]


def test_it_misses_nothing(serve: Serve, nats: NatsServer) -> None:
    """Workers die, the server is reloaded, NATS goes and comes: in threads, in asyncio, by wildcard."""
    server = serve(NATS_URL=nats.url)
    heard: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(3)]
    gaps: list[Gap] = []
    threaded = [Client(server.ws, CHANNELS), Client(server.ws, ["token.*"])]

    def read_on(client: Client, into: dict[str, list[int]]) -> None:
        for event in client:
            if isinstance(event, Message):
                into[event.channel].append(event.seq)
            else:
                assert isinstance(event, Gap)
                gaps.append(event)

    async def read_async(into: dict[str, list[int]]) -> None:
        async with AsyncClient(server.ws, CHANNELS) as client:
            async for event in client:
                assert isinstance(event, Message)
                into[event.channel].append(event.seq)
                if stopping.is_set():
                    return

    stopping = threading.Event()
    threads = [
        threading.Thread(target=read_on, args=(client, into))
        for client, into in zip(threaded, heard, strict=False)
    ]
    threads.append(threading.Thread(target=lambda: asyncio.run(read_async(heard[2]))))
    with Publisher(nats.url, CHANNELS, 200):
        for thread in threads:
            thread.start()
        wait_for(lambda: all(len(into) == 5 for into in heard), 10, "the first messages")
        os.kill(server.workers()[0], signal.SIGKILL)
        time.sleep(1.5)
        server.signal(signal.SIGHUP)
        time.sleep(4)
        nats.restart()
        wait_for(lambda: server.get("/readyz")[0] == 200, 15, "readiness")
        time.sleep(2)
        stopping.set()
        threads[2].join(PATIENCE_SECONDS)
    truth = read(nats.url)

    def complete() -> bool:
        return all(into[c][-1] == truth.seqs[c][-1] for into in heard[:2] for c in CHANNELS)

    wait_for(complete, 15, "the last messages")
    for client in threaded:
        client.close()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert gaps == []
    for into in heard:
        for channel in CHANNELS:
            first, last = into[channel][0], into[channel][-1]
            assert into[channel] == [seq for seq in truth.seqs[channel] if first <= seq <= last]


def test_its_token_is_renewed(serve: Serve) -> None:
    """The connection outlives its first token by minutes of its kind; one that can't be had ends it."""
    server = serve(WS_JWT_SECRET=SECRET, WS_JWT_LEEWAY_SECONDS="0", WS_WORKERS="1")
    asked = []

    def fresh() -> str:
        asked.append(time.time())
        return token(exp=time.time() + 4.0)

    waits: list[str] = []
    began = time.monotonic()
    with Client(server.ws, ["token.BTC"], token=fresh, on_wait=lambda _, why: waits.append(why)) as client:
        for _ in client:
            if time.monotonic() - began > 10:
                break
    assert waits == []
    assert 3 <= len(asked) <= 6
    assert server.json("/stats")["accepted"] == 1
    with pytest.raises(RefusedError, match="401"):
        next(iter(Client(server.ws, ["token.BTC"], token=lambda: token("x" * 32))))


def test_it_comes_back_when_its_token_has_expired(serve: Serve) -> None:
    """As a laptop that slept: no renewal came through, and the function has a fresh one afterwards."""
    server = serve(WS_JWT_SECRET=SECRET, WS_JWT_LEEWAY_SECONDS="0", WS_WORKERS="1")
    asked = []

    def fresh() -> str:
        asked.append(time.time())
        if len(asked) > 1 and time.time() < asked[0] + 2.5:
            raise ConnectionError("asleep")
        return token(exp=time.time() + (2.0 if len(asked) == 1 else 60.0))

    waits: list[str] = []
    with Client(server.ws, ["token.BTC"], token=fresh, on_wait=lambda _, why: waits.append(why)) as client:
        wait_for_next(client, lambda: server.json("/stats")["accepted"] == 2)
    assert waits[0] == "4401: the token has expired"
    assert set(waits[1:]) <= {"ConnectionError('asleep')"}
    assert server.json("/stats")["closed"]["unauthorised"] == 1


def wait_for_next(client: Client, condition: Callable[[], bool]) -> None:
    """Iterate until a condition is true, and another message has come."""
    for event in client:
        assert isinstance(event, Message)
        if condition():
            return


@pytest.mark.parametrize("kind", ["python", "wire"])
def test_json_that_decoders_do_not_read(serve: Serve, nats: NatsServer, kind: str) -> None:
    """It comes byte for byte, and the client goes on behind it."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    deep = b"[" * 1100 + b"]" * 1100
    payloads = [b"-1e400", b'{"type":"x", "v":"\\ud800"}', b"9" * 5000, deep, b'"end"']
    messages = [("token.A", payload) for payload in payloads]
    if kind == "wire":
        with Peer(server.port) as peer:
            peer.upgrade()
            peer.ask("subscribe", channels=["token.A"])
            publish(nats.url, messages)
            frames = [peer.next().payload for _ in payloads]
        assert [frame.partition(b',"data":')[2][:-1] for frame in frames] == payloads
        assert server.json("/stats")["feed"]["invalid"] == 0
        return
    publish(nats.url, messages)
    with Client(server.ws, ["token.A"], last=True) as client:
        events = iter(client)
        assert next(events) == Message("token.A", 5, "message", ANY, "end")
        publish(nats.url, messages)
        found = [next(events) for _ in payloads]
    values = [getattr(event, "data", event) for event in found]
    assert values == [-math.inf, {"type": "x", "v": "\ud800"}, math.inf, values[3], "end"]
    readable = json_reads(deep)
    assert isinstance(found[3], Message) if readable else found[3] == Gap("token.A", 9, 9, "unreadable")


def json_reads(text: bytes) -> bool:
    """Whether this Python does: from 3.12 on it reads deeper than before."""
    try:
        json.loads(text)
    except RecursionError:
        return False
    return True


def test_it_obeys_the_server(serve: Serve) -> None:
    """A full server says when to come back; then there is room."""
    server = serve(WS_MAX_CONNECTIONS="1", WS_WORKERS="1")
    waits: list[tuple[float, str]] = []
    with Client(server.ws, ["token.BTC"]) as first:
        events = iter(first)
        assert isinstance(next(events), Message)

        def noted(seconds: float, why: str) -> None:
            waits.append((seconds, why))
            raise InterruptedError

        with pytest.raises(InterruptedError):
            next(iter(Client(server.ws, ["token.BTC"], on_wait=noted)))
    [(seconds, why)] = waits
    assert seconds >= 10
    assert why == "refused with 503"
