"""The feed: the same bytes, at the same instants, for every arm.

Each payload carries a mark that the measuring client reads (bench/client/judge.c): the channel's index, a
count on that channel and the nanosecond of publishing. Peers get the frame's text as odinws would send it,
envelope included, over a unix socket: a line for each, with the channel's name and a space before it. odinws
gets the bare payload over NATS and makes the envelope itself. Reading forty such lines a second costs a peer
next to nothing; in `wide`, with 400 a second, it is part of what is measured.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.scenarios import Scenario

SUBJECT_PREFIX = "odin."
SEND_SECONDS = 30.0
"""A server that reads nothing of its feed for so long ends the trial."""
UNACKNOWLEDGED = 4_000
"""Messages that may be on their way into the stream: nats-server drops what exceeds its queue of 10,000."""
VARIETY = 64
"""Different fillings of payloads."""


class Message(NamedTuple):
    """One message."""

    channel: str
    payload: bytes
    seq: int
    prev: int
    wall_ms: int

    @property
    def text(self) -> bytes:
        """The whole text of its frame."""
        return b'{"type":"price:update","channel":"%b","seq":%d,"prev":%d,"ts":%d,"data":%b}' % (
            self.channel.encode(),
            self.seq,
            self.prev,
            self.wall_ms,
            self.payload,
        )


def _members(draw: random.Random) -> Iterator[str]:
    """JSON members such as the price of a token has, then trades for ever."""
    price, at = draw.uniform(1_000, 90_000), draw.randrange(1_700_000_000_000, 1_800_000_000_000)
    yield f'"price":{price:.2f},"volume24h":{draw.uniform(1e8, 1e10):.2f}'
    yield f'"priceChange24h":{draw.gauss(0, 3):.4f}'
    yield f'"timestamp":{at},"source":"{draw.choice(("binance", "coinbase", "kraken"))}"'
    for number in itertools.count(1):
        price *= 1 + draw.gauss(0, 0.0005)
        at += draw.randrange(1, 900)
        side, size = draw.choice(("buy", "sell")), draw.expovariate(2)
        yield f'"trade{number}":{{"price":{price:.2f},"size":{size:.4f},"side":"{side}","at":{at}}}'


def filling(draw: random.Random, size: int) -> str:
    """JSON members of exactly `size` characters, which compress as such do. Raises ValueError if too few."""
    text = ""
    members = _members(draw)
    while (digits := size - len(text) - len('"nonce":""')) > len(member := next(members)) + 1:
        text += member + ","
    if digits < 1:
        raise ValueError(f"payload_bytes too small: {-digits} more are needed")
    return f'{text}"nonce":"{draw.randrange(10**digits):0{digits}d}"'


class Composer:
    """Makes the messages of a scenario in order, the channels in turn. The fillings are the seed's."""

    def __init__(self, scenario: Scenario, seed: int = 1) -> None:
        self._names = scenario.channel_names()
        self._size = scenario.payload_bytes
        self._random = random.Random(seed)
        self._fillings: dict[int, list[str]] = {}
        self.made = 0
        """Messages so far."""

    def burst(self, size: int, sent_ns: int, wall_ms: int) -> list[Message]:
        """The next `size` messages, walking the channels in turn."""
        return [self._next(sent_ns, wall_ms) for _ in range(size)]

    def _next(self, sent_ns: int, wall_ms: int) -> Message:
        before, index = divmod(self.made, len(self._names))
        self.made += 1
        number, name = before + 1, self._names[index]
        mark = f"{index:05d}.{number:010d}.{sent_ns:019d}"
        head = f'{{"type":"price:update","mark":"{mark}","tokenId":"{name[6:]}",'
        size = self._size - len(head) - 1
        if size not in self._fillings:
            self._fillings[size] = [filling(self._random, size) for _ in range(VARIETY)]
        payload = f"{head}{self._fillings[size][number % VARIETY]}}}"
        return Message(name, payload.encode(), self.made, max(0, self.made - len(self._names)), wall_ms)


class Target(Protocol):
    """Where messages go."""

    def pack(self, messages: Sequence[Message]) -> bytes:
        """The bytes that carry the messages."""

    def send(self, data: bytes) -> None:
        """Hand over what `pack` made, all at once. Blocks when the reader does not keep up."""

    def settle(self) -> None:
        """Wait until all that was handed over is taken. Raises OSError when it is not."""


class SocketTarget:
    """A unix socket to which the server under test connects."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._peers: list[socket.socket] = []

    def accept(self, count: int, timeout_seconds: float) -> None:
        """Wait for the connections of the server's processes. Raises TimeoutError."""
        self._listener.settimeout(timeout_seconds)
        for _ in range(count):
            peer, _ = self._listener.accept()
            peer.settimeout(SEND_SECONDS)
            self._peers.append(peer)

    def pack(self, messages: Sequence[Message]) -> bytes:
        return b"".join(b"%b %b\n" % (message.channel.encode(), message.text) for message in messages)

    def send(self, data: bytes) -> None:
        for peer in self._peers:
            peer.sendall(data)

    def settle(self) -> None:
        """A socket has no acknowledgements: what was sent is taken."""

    def close(self) -> None:
        for each in (*self._peers, self._listener):
            each.close()


class NatsTarget:
    """A NATS connection that only publishes, in the bare protocol.

    Payloads go into odinws's stream, which acknowledges the last of each burst. The number it gives must be
    how many were sent: so the stream has all of them, and nothing else.
    """

    def __init__(self, port: int, whole_text: bool, timeout_seconds: float = 10.0) -> None:
        self._whole_text = whole_text
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self._cut = b""
        self._packed = self._taken = self._awaited = 0
        self._socket.sendall(
            b'CONNECT {"verbose":false,"pedantic":false,"name":"bench","lang":"python","version":"1"}\r\n'
            b"SUB _INBOX.bench.* 1\r\nPING\r\n"
        )
        while b"PONG" not in self._read_lines():
            pass
        self._socket.settimeout(SEND_SECONDS)

    def _read_lines(self) -> list[bytes]:
        """The whole lines that have come; pings are answered. Waits for something. Raises ConnectionError."""
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("nats-server closed the feed's connection")
        *lines, self._cut = (self._cut + data).split(b"\r\n")
        for line in lines:
            if line.startswith(b"-ERR"):
                raise ConnectionError(line.decode(errors="replace"))
            if line == b"PING":
                self._socket.sendall(b"PONG\r\n")
            elif line.startswith(b"MSG "):
                self._awaited = int(line.split(b" ")[1].rpartition(b".")[2])
            elif line.startswith(b"{"):
                self._taken = json.loads(line).get("seq")
                if self._taken != self._awaited:
                    raise ConnectionError(f"the stream has not all {self._awaited} messages: {line.decode()}")
        return lines

    def pack(self, messages: Sequence[Message]) -> bytes:
        lines = bytearray()
        for number, message in enumerate(messages, 1):
            body = message.text if self._whole_text else message.payload
            reply = ""
            if number == len(messages) and not self._whole_text:
                reply = f"_INBOX.bench.{self._packed + number} "
            lines += f"PUB {SUBJECT_PREFIX}{message.channel} {reply}{len(body)}\r\n".encode() + body + b"\r\n"
        self._packed += len(messages)
        return bytes(lines)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)
        self._wait(UNACKNOWLEDGED)
        while select.select([self._socket], [], [], 0)[0]:
            self._read_lines()

    def settle(self) -> None:
        self._wait(0)

    def _wait(self, most: int) -> None:
        while not self._whole_text and self._packed - self._taken > most:
            self._read_lines()

    def close(self) -> None:
        self._socket.close()


class HttpTarget:
    """A connection to nchan that publishes by requests, the next before the answer to the last."""

    def __init__(self, port: int, timeout_seconds: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self._cut = b""
        self._awaited = 0

    def pack(self, messages: Sequence[Message]) -> bytes:
        self._awaited += len(messages)
        return b"".join(
            b"POST /publish?c=%b HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%b"
            % (message.channel.encode(), len(message.text), message.text)
            for message in messages
        )

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)
        while self._awaited and select.select([self._socket], [], [], 0)[0]:
            self._read()

    def settle(self) -> None:
        while self._awaited:
            self._read()

    def _read(self) -> None:
        """Read answers; waits for something. Raises ConnectionError for one that is no success."""
        if not (data := self._socket.recv(65536)):
            raise ConnectionError("nchan closed the feed's connection")
        data = self._cut + data
        end = 0
        for found in re.finditer(rb"HTTP/1\.1 (\d{3})", data):
            end = found.end()
            self._awaited -= 1
            if not found[1].startswith(b"2"):
                raise ConnectionError(f"nchan refused a message: {found[0].decode()}")
        self._cut = data[max(end, len(data) - len("HTTP/1.1 20")) :]

    def close(self) -> None:
        self._socket.close()


class MqttTarget:
    """An MQTT connection that only publishes, at QoS 0."""

    _CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05bench"

    def __init__(self, port: int, timeout_seconds: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self._socket.sendall(self._CONNECT)
        self._expect(b"\x20\x02\x00\x00")
        self._socket.settimeout(SEND_SECONDS)

    def _expect(self, answer: bytes) -> None:
        if (got := self._socket.recv(len(answer), socket.MSG_WAITALL)) != answer:
            raise ConnectionError(f"{answer.hex()} was expected of the MQTT server, not {got.hex()}")

    def pack(self, messages: Sequence[Message]) -> bytes:
        packets = bytearray()
        for message in messages:
            topic = message.channel.encode()
            length = 2 + len(topic) + len(message.text)
            head = (0x30, 0x80 | length & 0x7F, 0x80 | length >> 7 & 0x7F, length >> 14)
            packets += bytes(head) + len(topic).to_bytes(2, "big") + topic + message.text
        return bytes(packets)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def settle(self) -> None:
        """A ping is answered after what was sent before it."""
        self._socket.sendall(b"\xc0\x00")
        self._expect(b"\xd0\x00")

    def close(self) -> None:
        self._socket.close()


class Feed:
    """Publishes a scenario's messages from a thread of its own, at fixed instants, until stopped."""

    def __init__(self, scenario: Scenario, target: Target) -> None:
        self._scenario = scenario
        self._target = target
        self._composer = Composer(scenario)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.worst_lag_seconds = 0.0
        """How late a burst left for the feed's own reasons; large: it, not the server, set the pace."""
        self.held_seconds = 0.0
        """The longest time a burst took to hand over: how long the server did not read."""
        self.error: OSError | None = None

    @property
    def published(self) -> int:
        """Messages so far. Exact once `stop` has returned."""
        return self._composer.made

    def start(self) -> None:
        """Begin, unless the scenario has no messages."""
        if self._scenario.bursts_per_second:
            self._thread.start()

    def stop(self) -> None:
        """End after the burst under way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(60.0)

    def _run(self) -> None:
        try:
            self._publish()
            self._target.settle()
        except OSError as error:
            self.error = error

    def _publish(self) -> None:
        interval = 1.0 / self._scenario.bursts_per_second
        due = time.monotonic()
        held = 0.0  # by the server, of the time that we are behind
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            # A burst that the server held up, by not reading those before, counts from when it was due.
            sent_ns = int((due if held else now) * 1e9)
            burst = self._composer.burst(self._scenario.burst_size, sent_ns, time.time_ns() // 1_000_000)
            data = self._target.pack(burst)
            ready = time.monotonic()
            self.worst_lag_seconds = max(self.worst_lag_seconds, ready - due - held)
            self._target.send(data)
            took = time.monotonic() - ready
            self.held_seconds = max(self.held_seconds, took)
            due += interval
            held = held + took if ready + took > due else 0.0
