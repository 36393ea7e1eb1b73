"""Event streams of a real server: `/sse` as an EventSource reads it, and `/stream` as lines."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import strategies
from tests.certificate import self_signed
from tests.eventsource import Event, EventSource, Follower, Stream, asked
from tests.integration.conftest import Serve
from tests.integration.test_recovery import CHANNELS, Over, fed
from tests.ledger import Publisher, publish, read
from tests.nats import NatsServer
from tests.programs import find
from tests.server import GUNICORN, Server, wait_for
from tests.wire import Peer


def due(nats: NatsServer, channels: list[str], after: int, upto: int) -> list[tuple[str, int]]:
    """What NATS has of channels, in the order of the stream."""
    seqs = read(nats.url).seqs
    names = [name for name in seqs if name in channels or f"{name.partition('.')[0]}.*" in channels]
    return sorted(((name, s) for name in names for s in seqs[name] if after < s <= upto), key=lambda m: m[1])


def seq_of(position: str) -> int:
    """The sequence in a position."""
    return int(position.rpartition(":")[2])


class Enough:
    """Whether a follower has so many messages, or some seconds have passed."""

    def __init__(self, follower: Follower, messages: int, position: str = "") -> None:
        self._follower, self._messages, self._position = follower, messages, position
        self._until = time.monotonic() + 10

    def __call__(self) -> bool:
        follower = self._follower
        has_all = len(follower.got) >= self._messages and follower.last_id.endswith(self._position)
        return has_all or time.monotonic() > self._until


def lines(peer: Peer, count: int) -> list[Any]:
    """The next lines of a stream, as JSON."""
    while peer.rest.count(b"\n") < count:
        data = peer.sock.recv(1 << 16)
        assert data, peer.rest
        peer.rest += data
    *found, peer.rest = peer.rest.split(b"\n", count)
    return [json.loads(line) for line in found]


def test_messages_as_they_come(serve: Serve, nats: NatsServer) -> None:
    """A head that says what it is, a welcome with a position, and each message once in one line."""
    server = serve(NATS_URL=nats.url)
    with Stream(server.port, asked(["token.A", "global", "nonsense"])) as stream:
        assert stream.answer.headers["content-type"] == "text/event-stream"
        assert stream.answer.headers["cache-control"] == "no-store, no-transform"
        assert stream.answer.headers["x-accel-buffering"] == "no"
        assert "transfer-encoding" not in stream.answer.headers
        welcome = stream.json("welcome")
        assert welcome["subscribed"] == ["token.A", "global"]
        assert [(one["channel"], one["code"]) for one in welcome["rejected"]] == [
            ("nonsense", "INVALID_CHANNEL")
        ]
        assert stream.client.last_id == welcome["position"] == f"{welcome['epoch']}:0"
        assert 1000 <= (stream.client.retry_ms or 0) <= 4000
        publish(nats.url, [("token.B", b"{}"), ("token.A", b'{\r\n "x": 1\n}'), ("global", b"no JSON")])
        assert stream.json()["data"] == {"x": 1}
        assert stream.client.last_id == f"{welcome['epoch']}:2"
        gap = stream.json("gap")
        assert (gap["channel"], gap["from"], gap["to"], gap["reason"]) == ("global", 3, 3, "invalid_payload")


def test_lines_for_scripts(serve: Serve, nats: NatsServer) -> None:
    """The same, each a line of JSON, and their position is made of what they say."""
    server = serve(NATS_URL=nats.url)
    publish(nats.url, [("token.A", b"1"), ("token.A", b"2"), ("token.B", b"3")])
    fed(server, 3)
    with Peer(server.port) as peer:
        answer = peer.send(asked(["token.A"], "/stream", {"last": "1"})).http()
        assert answer.headers["content-type"] == "application/x-ndjson"
        welcome, newest, position = lines(peer, 3)
    assert (newest["channel"], newest["seq"], newest["data"]) == ("token.A", 2, 2)
    assert position == {"type": "position", "position": f"{welcome['epoch']}:3"}
    with Peer(server.port) as peer:
        peer.send(asked(["token.*"], "/stream", {"last_event_id": f"{welcome['epoch']}:1"})).http()
        found = lines(peer, 4)
    assert [line.get("seq") for line in found] == [None, 2, 3, None]


@pytest.mark.parametrize("arm", [name for name in strategies.NAMES if name != "hybrid"])  # a subset of others
def test_nothing_is_missing_twice_or_out_of_order(serve: Serve, nats: NatsServer, arm: str) -> None:
    """Streams end at random, some for longer than the ring reaches, while a worker dies: seed 5."""
    server = serve(NATS_URL=nats.url, WS_SHARD_STRATEGY=arm, WS_RING_MESSAGES="200")
    rng = random.Random(5)
    choices = [rng.sample(CHANNELS, 5) for _ in range(8)]
    choices += [["token.*"], ["token.*", "token.T3", "global"]]
    followers = [Follower(names) for names in choices]
    begins: list[str] = []
    for follower in followers:
        with Stream(server.port, asked(follower.channels)) as stream:
            follower.last_id = stream.json("welcome")["position"]
        begins.append(follower.last_id)
    stopping = threading.Event()

    def live(follower: Follower, seed: int) -> None:
        own = random.Random(seed)
        while not stopping.is_set():
            end = Over(own.uniform(0.05, 0.8), stopping)
            try:
                follower.visit(server.port, end)
            except (OSError, AssertionError):  # the worker died amid the request
                time.sleep(0.05)
            time.sleep(own.choice((0.0, 0.05, 0.3, 1.5)))

    threads = [threading.Thread(target=live, args=each) for each in zip(followers, range(99), strict=False)]
    with Publisher(nats.url, CHANNELS, 400):
        for thread in threads:
            thread.start()
        time.sleep(2)
        os.kill(server.workers()[0], signal.SIGKILL)
        time.sleep(2)
        stopping.set()
        for thread in threads:
            thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    for follower, begin in zip(followers, begins, strict=True):
        expected = due(nats, list(follower.channels), seq_of(begin), 1 << 62)
        follower.visit(server.port, Enough(follower, len(expected)))
        assert follower.got == expected
        assert follower.gaps == []
    assert sum(follower.connects for follower in followers) > 25
    resumed = server.json("/stats")["recovery"]["resumed"]
    assert resumed["ring"] > 0
    assert resumed["stream"] > 0
    assert resumed["expired"] == resumed["epoch"] == 0


def test_a_position_of_another_life(serve: Serve, nats: NatsServer) -> None:
    """A gap for each channel says so, the newest message follows, and then the client knows where it is."""
    server = serve(NATS_URL=nats.url, WS_RING_MESSAGES="3")
    publish(nats.url, [("token.A", b"1"), ("token.B", b"2"), *[("token.C", b"3")] * 5, ("token.A", b"4")])
    fed(server, 8)
    for position in ("other:3", "nonsense", "S:99999999999999999999"):
        follower = Follower(["token.A", "token.B"], position)
        follower.visit(server.port, Enough(follower, 2, ":8"))
        assert follower.got == [("token.B", 2), ("token.A", 8)]
        assert follower.gaps == [("token.A", 1, 7, "epoch"), ("token.B", 1, 8, "epoch")]


def test_what_is_sent_behind_the_request_is_ignored(serve: Serve, nats: NatsServer) -> None:
    """However much it is; half a close is an end."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    with Stream(server.port, asked(["global"]) + asked(["token.A"])) as stream:
        stream.json("welcome")
        stream.peer.sock.settimeout(0.1)
        until, sent = time.monotonic() + 2, 0
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                sent += stream.peer.sock.send(bytes(64 << 10))
        assert sent < 24 << 20  # what the kernel takes; else it would be some GB
        publish(nats.url, [("global", b"1")])
        assert stream.json()["data"] == 1
    with Stream(server.port, asked(["global"])) as stream:
        stream.json("welcome")
        stream.peer.sock.shutdown(1)
        assert stream.next() is None
    wait_for(lambda: server.metric("ws_connections") == 0, 10, "the end of both")


def test_a_server_that_leaves_says_so(serve: Serve, nats: NatsServer) -> None:
    """With a time to come back for each client."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    streams = [Stream(server.port, asked(["global"])) for _ in range(5)]
    for stream in streams:
        stream.json("welcome")
    server.signal(signal.SIGTERM)
    waits = set()
    for stream in streams:
        closing = stream.json("closing")
        assert (closing["code"], stream.client.last_id[-2:]) == (1001, ":0")
        assert stream.next() is None
        assert 1000 <= (stream.client.retry_ms or 0) <= 4000
        waits.add(stream.client.retry_ms)
        stream.peer.shut()
    assert len(waits) > 1


def test_curl(serve: Serve, nats: NatsServer) -> None:
    """It shows each message as it comes, and ends when it is to."""
    curl = find("curl", "curl")
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    command = [curl, "-sSN", "--fail", f"{server.http}/stream?channel=token.A&channel=global"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        welcome = json.loads(process.stdout.readline())
        publish(nats.url, [("global", b'{"n": 1}'), ("token.A", b"2")])
        found = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [(each["channel"], each["data"]) for each in found] == [("global", {"n": 1}), ("token.A", 2)]
        server.signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["type"] == "closing"
        assert process.stdout.read() == b""
        assert process.wait(30) == 0
    assert welcome["subscribed"] == ["token.A", "global"]


def test_over_tls(nats: NatsServer, tmp_path: Path) -> None:
    """As over plain TCP, and the end of the stream is said in TLS too."""
    certificate, key = self_signed(tmp_path)
    server = Server(
        {"NATS_URL": nats.url, "WS_WORKERS": "1"},
        command=(*GUNICORN, "--keyfile", str(key), "--certfile", str(certificate)),
    )
    server.launch()
    context = ssl.create_default_context(cafile=str(certificate))

    def is_ready() -> bool:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPSConnection("localhost", server.port, context=context)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False

    with server:
        wait_for(is_ready, 30, "readiness")
        plain = socket.create_connection(("127.0.0.1", server.port))
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            found = read_over_tls(sock, server, nats)
    assert [event.kind for event in found] == ["welcome", "message", "closing"]


def read_over_tls(sock: ssl.SSLSocket, server: Server, nats: NatsServer) -> list[Event]:
    """All events of a stream, to its end, with noise behind the request."""
    sock.settimeout(60)
    sock.sendall(asked(["global"]))
    client, text = EventSource(), b""
    while b"\r\n\r\n" not in text:
        text += sock.recv(1 << 16)
    found = client.feed(text.partition(b"\r\n\r\n")[2])
    while not found:
        found += client.feed(sock.recv(1 << 16))
    sock.sendall(bytes(10_000))
    publish(nats.url, [("global", b"1")])
    while len(found) < 2:
        found += client.feed(sock.recv(1 << 16))
    server.signal(signal.SIGTERM)
    while data := sock.recv(1 << 16):
        found += client.feed(data)
    return found


def test_stats_tell_transports_apart(serve: Serve, nats: NatsServer) -> None:
    """Connections and what they got, in `/stats` and `/metrics`, without being counted twice."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    with (
        Stream(server.port, asked(["token.A", "global"])) as stream,
        Peer(server.port) as lines_of,
        Peer(server.port) as native,
    ):
        lines_of.send(asked(["token.*"], "/stream")).http()
        native.upgrade()
        native.ask("subscribe", channels=["token.A"])
        stream.json("welcome")
        wait_for(lambda: server.json("/stats")["subscriptions"] == 4, 10, "all subscriptions")
        publish(nats.url, [("token.A", b"1"), ("global", b"2")])
        stream.json()
        stream.json()
        wait_for(lambda: server.json("/stats")["fan_out"]["delivered"] == 4, 10, "all counts")
        stats = server.json("/stats")
        formats = {"json": 1, "sse": 1, "ndjson": 1, "centrifugo-json": 0, "centrifugo-protobuf": 0}
        assert stats["connections_by_format"] == formats
        assert stats["fan_out"]["delivered_by_format"] == {**formats, "sse": 2}
        assert (
            sum(stats["fan_out"]["delivered_bytes_by_format"].values())
            == (stats["fan_out"]["delivered_bytes"])
        )
        metrics = server.metrics()
        assert metrics.total("ws_connections_by_format") == metrics.total("ws_connections") == 3
    wait_for(lambda: server.metric("ws_connections_by_format") == 0, 10, "their end")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
def test_other_methods(serve: Serve, nats: NatsServer, method: str) -> None:
    """There is nothing to say that has an end."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    for path in ("/sse", "/stream"):
        with Peer(server.port) as peer:
            answer = peer.send(asked(["global"], path).replace(b"GET", method.encode(), 1)).http()
            assert (answer.status, answer.headers["allow"]) == (405, "GET, OPTIONS")


def refused(server: Server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request that gets no stream."""
    with Peer(server.port) as peer:
        answer = peer.send(request).http()
        length = int(answer.headers.get("content-length", "0"))
        return answer.status, answer.headers, peer.body(answer) if length else b""


def test_requests_that_get_no_stream(serve: Serve, nats: NatsServer) -> None:
    """An error in words; by 204 for one that would come back again and again."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_MAX_SUBSCRIPTIONS="20")
    status, _, body = refused(server, asked([]))
    assert (status, json.loads(body)["error"]) == (400, "invalid_query")
    assert refused(server, asked([f"token.{n}" for n in range(99)]))[0] == 400
    assert refused(server, asked(["a b"]))[0] == 400
    assert refused(server, asked(["user.1"]))[0] == 403
    assert refused(server, asked(["user.1"], Last_Event_ID="x:1"))[0] == 204
    assert refused(server, asked(["user.1"], "/stream", Last_Event_ID="x:1"))[0] == 403
    assert server.metric("ws_connections") == 0


def test_what_is_not_kept_is_told(serve: Serve, nats: NatsServer, tmp_path: Path) -> None:
    """By the rules of channels: of one the newest message, of another nothing, and all of a third."""
    rules = tmp_path / "channels.toml"
    rules.write_text(
        "".join(
            f'[[channels]]\npattern = "{kind}.*"\nsubscribe = "public"\nkeep = "{keep}"\n'
            for kind, keep in (("log", "all"), ("state", "newest"), ("live", "none"))
        )
    )
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_RING_MESSAGES="4", WS_CHANNELS_FILE=str(rules))
    names = ["log.a", "state.a", "live.a"]
    with Stream(server.port, asked(names)) as stream:
        position = stream.json("welcome")["position"]
    publish(nats.url, [(name, b"1") for name in names * 3])
    fed(server, 9)
    follower = Follower(names, position)
    follower.visit(server.port, Enough(follower, 4, ":9"))
    assert follower.got == [("log.a", 1), ("log.a", 4), ("log.a", 7), ("state.a", 8)]
    assert sorted(follower.gaps) == [("live.a", 1, 9, "not_kept"), ("state.a", 1, 7, "not_kept")]
    with Stream(server.port, asked(names, query={"last": "1"})) as stream:
        assert [stream.json()["channel"] for _ in range(2)] == ["log.a", "state.a"]
        publish(nats.url, [("live.a", b"2")])
        assert stream.json()["channel"] == "live.a"
