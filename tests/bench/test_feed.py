"""The bytes of the feed, and the ways they go."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bench.feed import Composer, Feed, Message, NatsTarget, SocketTarget
from bench.scenarios import SCENARIOS, SMOKE

SECONDS = 10.0
BURST = SCENARIOS["burst"][0]


def test_payloads_have_the_size_asked_for() -> None:
    """Each payload is JSON of exactly the scenario's bytes."""
    for message in Composer(BURST).burst(25, 123, 456):
        assert len(message.payload) == BURST.payload_bytes
        assert json.loads(message.payload)["type"] == "price:update"


def test_the_text_is_the_envelope_around_the_payload() -> None:
    """The text holds the payload byte for byte, with the numbers that odinws gives."""
    first, *_, last = Composer(BURST).burst(11, 123, 456)
    assert json.loads(first.text)["channel"] == "token.T0"
    envelope = json.loads(last.text)
    assert {name: envelope[name] for name in ("channel", "seq", "prev", "ts")} == {
        "channel": "token.T0",
        "seq": 11,
        "prev": 1,
        "ts": 456,
    }
    assert last.payload in last.text


def test_marks_count_by_channel() -> None:
    """The mark has the channel's index, the count on it and the instant, in fixed places."""
    composer = Composer(BURST)
    messages = composer.burst(12, 987_654_321, 0)
    marks = [json.loads(message.payload)["mark"] for message in messages]
    assert marks[0] == "00000.0000000001.0000000000987654321"
    assert marks[11] == "00001.0000000002.0000000000987654321"
    assert composer.counts == [2, 2, *[1] * 8]


def test_too_small_a_payload_is_refused() -> None:
    """A payload with no room for the mark is an error, not a longer payload."""
    with pytest.raises(ValueError, match="payload_bytes"):
        Composer(replace(BURST, payload_bytes=20)).burst(1, 0, 0)


def test_socket_records(tmp_path: Path) -> None:
    """A peer reads length, channel and text of each message, in order."""
    path = tmp_path / "feed.sock"
    with closing(SocketTarget(path)) as target, socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(SECONDS)
        peer.connect(str(path))
        target.accept(1, SECONDS)
        target.send([Message("a", b"", b"one"), Message("token.T1", b"", b"two")])
        with peer.makefile("rb") as stream:
            for name, text in ((b"a", b"one"), (b"token.T1", b"two")):
                length, name_length = struct.unpack("!IH", stream.read(6))
                assert stream.read(length - 2) == name + text
                assert name_length == len(name)


def _fake_nats(received: list[bytes], ready: threading.Event) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(SECONDS)
        with connection, connection.makefile("rb") as stream:
            connection.sendall(b"INFO {}\r\n")
            assert stream.readline().startswith(b"CONNECT")
            assert stream.readline() == b"PING\r\n"
            connection.sendall(b"PONG\r\nPING\r\n")
            while line := stream.readline():
                received.append(line)
                if line == b"hello\r\n":
                    ready.set()

    threading.Thread(target=serve, daemon=True).start()
    return listener


@pytest.mark.parametrize(("whole_text", "body"), [(True, b"hello"), (False, b"pay")])
def test_nats_publishing(whole_text: bool, body: bytes) -> None:
    """The payload, or the whole text, goes to the channel's subject; the server's ping is answered."""
    received: list[bytes] = []
    done = threading.Event()
    with closing(_fake_nats(received, done)) as listener:
        target = NatsTarget(listener.getsockname()[1], whole_text=whole_text, timeout_seconds=SECONDS)
        target.send([Message("token.A", b"pay", b"hello")])
        target.send([Message("token.A", b"hello", b"hello")])
        assert done.wait(SECONDS)
        target.close()
    assert received[received.index(f"PUB odin.token.A {len(body)}\r\n".encode()) + 1] == body + b"\r\n"
    assert b"PONG\r\n" in received


def test_a_nats_error_is_raised() -> None:
    """What nats-server complains about is not passed over."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"-ERR 'Authorization Violation'\r\n")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(ConnectionError, match="Authorization"):
            NatsTarget(listener.getsockname()[1], whole_text=True, timeout_seconds=SECONDS)


class _Kept:
    """A target that keeps bursts, and can be slow or broken."""

    def __init__(self, enough: int, blocks: threading.Event | None = None, breaks: bool = False) -> None:
        self.bursts: list[Sequence[Message]] = []
        self.enough = threading.Event()
        self._enough = enough
        self._blocks = blocks
        self._breaks = breaks

    def send(self, messages: Sequence[Message]) -> None:
        if self._breaks:
            self.enough.set()
            raise BrokenPipeError("gone")
        self.bursts.append(messages)
        if len(self.bursts) >= self._enough:
            self.enough.set()
        if self._blocks is not None:
            self._blocks.wait(0.5)

    def close(self) -> None:
        return


def test_the_feed_publishes_until_stopped() -> None:
    """Bursts of the scenario's size go out; the counts are those of what went out."""
    kept = _Kept(enough=3)
    feed = Feed(replace(SMOKE, bursts_per_second=200.0), kept)
    feed.start()
    assert kept.enough.wait(SECONDS)
    feed.stop()
    assert all(len(burst) == SMOKE.burst_size for burst in kept.bursts)
    assert sum(feed.counts) == SMOKE.burst_size * len(kept.bursts)


def test_a_held_up_burst_counts_from_when_it_was_due() -> None:
    """A server that does not read makes the next messages late, and the marks say since when."""
    kept = _Kept(enough=3, blocks=threading.Event())
    feed = Feed(replace(SMOKE, bursts_per_second=100.0), kept)
    feed.start()
    assert kept.enough.wait(SECONDS)
    feed.stop()
    first, second, third = (
        int(json.loads(burst[0].payload)["mark"].rpartition(".")[2]) / 1e9 for burst in kept.bursts[:3]
    )
    assert second - first < 0.2, (
        "the second was due 10 ms after the first, though it left half a second later"
    )
    assert third - second == pytest.approx(0.01, abs=0.002)
    assert feed.held_seconds > 0.4


def test_a_broken_target_ends_the_feed() -> None:
    """An error of the socket is kept for the one who asks."""
    kept = _Kept(enough=1, breaks=True)
    feed = Feed(SMOKE, kept)
    feed.start()
    assert kept.enough.wait(SECONDS)
    feed.stop()
    assert isinstance(feed.error, BrokenPipeError)


def test_no_messages_no_thread() -> None:
    """A scenario without messages starts and stops at once."""
    feed = Feed(SCENARIOS["idle"][0], _Kept(enough=1))
    feed.start()
    feed.stop()
    assert sum(feed.counts) == 0
