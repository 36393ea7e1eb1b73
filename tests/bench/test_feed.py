"""The bytes of the feed, and the ways they go."""

from __future__ import annotations

import json
import socket
import threading
import zlib
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.feed import Composer, Feed, HttpTarget, Message, MqttTarget, NatsTarget, SocketTarget
from bench.scenarios import SCENARIOS, SMOKE

SECONDS = 60.0
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
    assert composer.made == 12


def test_payloads_shrink_as_json_does() -> None:
    """Compressed by itself, a payload of the compressed scenario becomes smaller, but not next to nothing."""
    (_, compressed) = SCENARIOS["compressed"]
    messages = Composer(compressed).burst(50, 1, 1)
    share = sum(len(zlib.compress(message.text)) / len(message.text) for message in messages) / len(messages)
    assert 0.3 < share < 0.8
    assert len({message.payload[80:] for message in messages}) > 10


def test_the_sequence_follows_from_the_count() -> None:
    """Of C channels message n of channel c has sequence (n - 1) C + c + 1, however bursts are cut."""
    composer = Composer(BURST)
    messages = [message for size in (3, 10, 4, 13) for message in composer.burst(size, 1, 1)]
    for message in messages:
        channel, number = (int(part) for part in json.loads(message.payload)["mark"].split(".")[:2])
        assert message.seq == (number - 1) * 10 + channel + 1
        assert message.prev == (message.seq - 10 if number > 1 else 0)


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
        messages = [Message("a", b"1", 1, 0, 5), Message("token.T1", b"2", 2, 0, 5)]
        target.send(target.pack(messages))
        with peer.makefile("rb") as stream:
            for message in messages:
                assert stream.readline() == message.channel.encode() + b" " + message.text + b"\n"


class _FakeNats:
    """A nats-server that acknowledges with the numbers it is given; without them it says nothing."""

    def __init__(self, acknowledgements: Sequence[int] = ()) -> None:
        self.received: list[bytes] = []
        self.answered_ping = threading.Event()
        self._acknowledgements = list(acknowledgements)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> _FakeNats:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(SECONDS)  # it ends with its client, and has read everything then
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(SECONDS)
        with connection, connection.makefile("rb") as stream:
            connection.sendall(b"INFO {}\r\n")
            assert stream.readline().startswith(b"CONNECT")
            assert stream.readline() == b"SUB _INBOX.bench.* 1\r\n"
            assert stream.readline() == b"PING\r\n"
            connection.sendall(b"PONG\r\nPING\r\n")
            while line := stream.readline():
                self.received.append(line)
                words = line.split()
                if words[0] == b"PONG":
                    self.answered_ping.set()
                if words[0] == b"PUB" and len(words) == 4 and self._acknowledgements:
                    answer = b'{"stream":"ODIN_TOKENS","seq":%d}' % self._acknowledgements.pop(0)
                    connection.sendall(b"MSG %b 1 %d\r\n%b\r\n" % (words[2], len(answer), answer))


TWO = [Message("token.A", b"one", 1, 0, 5), Message("token.B", b"two", 2, 0, 5)]


def test_payloads_go_into_the_stream_and_are_acknowledged() -> None:
    """The payload goes to the channel's subject; the last of a burst asks for the stream's word."""
    with _FakeNats([2, 4]) as nats, closing(NatsTarget(nats.port, False, SECONDS)) as target:
        for _ in range(2):
            target.send(target.pack(TWO))
        target.settle()
    published = [line for line in nats.received if line != b"PONG\r\n"]
    assert published[:4] == [
        b"PUB odin.token.A 3\r\n",
        b"one\r\n",
        b"PUB odin.token.B _INBOX.bench.2 3\r\n",
        b"two\r\n",
    ]
    assert published[6] == b"PUB odin.token.B _INBOX.bench.4 3\r\n"


def _send_and_settle(target: NatsTarget, data: bytes) -> None:
    target.send(data)
    target.settle()


def test_a_stream_that_does_not_have_all_is_an_error() -> None:
    """A message that nats-server dropped on the way into the stream is not taken for the server's fault."""
    with _FakeNats([1]) as nats, closing(NatsTarget(nats.port, False, SECONDS)) as target:
        data = target.pack([*TWO, *TWO])
        with pytest.raises(ConnectionError, match="not all 4 messages"):
            _send_and_settle(target, data)


def test_whole_texts_are_published_without_a_word_back() -> None:
    """A nats-server that is the server itself has no stream; its pings are answered all the same."""
    with _FakeNats() as nats, closing(NatsTarget(nats.port, True, SECONDS)) as target:
        target.send(target.pack(TWO[:1]))
        target.settle()
        while not nats.answered_ping.is_set():
            target.send(target.pack(TWO[:1]))
    assert b"PUB odin.token.A %d\r\n" % len(TWO[0].text) in nats.received
    assert TWO[0].text + b"\r\n" in nats.received


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

    settled = False

    def __init__(self, enough: int, blocks: threading.Event | None = None, breaks: bool = False) -> None:
        self.bursts: list[Sequence[Message]] = []
        self._packed: Sequence[Message] = ()
        self.enough = threading.Event()
        self._enough = enough
        self._blocks = blocks
        self._breaks = breaks

    def pack(self, messages: Sequence[Message]) -> bytes:
        self._packed = messages
        return b""

    def send(self, data: bytes) -> None:
        if self._breaks:
            self.enough.set()
            raise BrokenPipeError("gone")
        self.bursts.append(self._packed)
        if len(self.bursts) >= self._enough:
            self.enough.set()
        if self._blocks is not None:
            self._blocks.wait(0.5)

    def settle(self) -> None:
        self.settled = True

    def close(self) -> None:
        return


def test_the_feed_publishes_until_stopped() -> None:
    """Bursts of the scenario's size go out and are counted."""
    kept = _Kept(enough=3)
    feed = Feed(replace(SMOKE, bursts_per_second=200.0), kept)
    feed.start()
    assert kept.enough.wait(SECONDS)
    feed.stop()
    assert all(len(burst) == SMOKE.burst_size for burst in kept.bursts)
    assert feed.published == SMOKE.burst_size * len(kept.bursts)
    assert kept.settled


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
    assert feed.published == 0


def _answering(listener: socket.socket, greeting: bytes, answer: bytes, got: list[bytes]) -> None:
    connection, _ = listener.accept()
    with connection:
        if greeting:
            connection.recv(4096)
            connection.sendall(greeting)
        got.append(connection.recv(65536))
        connection.sendall(answer)
        connection.recv(1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 201 Created\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n", None),
        (b"HTTP/1.1 201 Created\r\n\r\nHTTP/1.1 507 No room\r\n\r\n", "refused a message: HTTP/1.1 507"),
    ],
)
def test_requests_of_nchan(answer: bytes, error: str | None) -> None:
    """One for each message, the next before the answer to the last; a refused one is an error."""
    got: list[bytes] = []
    burst = Composer(replace(BURST, channels=2)).burst(2, 1, 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answering, args=(listener, b"", answer, got), daemon=True).start()
        refused = pytest.raises(ConnectionError, match=error) if error else nullcontext()
        with closing(HttpTarget(listener.getsockname()[1])) as target, refused:
            target.send(target.pack(burst))  # it may have read the answer already
            target.settle()
    assert got[0].count(b"POST /publish?c=token.T") == 2
    assert all(message.text in got[0] for message in burst)


def test_packets_of_mqtt() -> None:
    """A PUBLISH for each message; a ping's answer says that all are taken."""
    got: list[bytes] = []
    (message,) = Composer(SMOKE).burst(1, 1, 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = (listener, b"\x20\x02\x00\x00", b"\xd0\x00", got)
        threading.Thread(target=_answering, args=words, daemon=True).start()
        with closing(MqttTarget(listener.getsockname()[1])) as target:
            target.send(target.pack([message]))
            target.settle()
    body = b"\x00\x08token.T0" + message.text
    length = bytes((0x80 | len(body) & 0x7F, 0x80 | len(body) >> 7, 0))
    assert got[0].startswith(b"\x30" + length + body)


def test_an_mqtt_server_that_refuses() -> None:
    """It is an error, and not silence."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words: tuple[Any, ...] = (listener, b"\x20\x02\x00\x05", b"", [])
        threading.Thread(target=_answering, args=words, daemon=True).start()
        with pytest.raises(ConnectionError, match="20020000 was expected of the MQTT server, not 20020005"):
            MqttTarget(listener.getsockname()[1])
