"""The feed: the same bytes, at the same instants, for every arm.

Each payload carries a mark that the measuring client reads (bench/client/track.h): the channel's index, a
count on that channel and the nanosecond of publishing. Peers get the frame's text as odinws would send it,
envelope included, over a unix socket: `length (4 bytes) | length of the channel's name (2) | name | text`,
big-endian. odinws gets the bare payload over NATS and makes the envelope itself. Reading forty such records a
second costs a peer next to nothing; in `wide`, with 2,000 records a second, it is part of what is measured.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.scenarios import Scenario

SUBJECT_PREFIX = "odin."
SEND_SECONDS = 30.0
"""A server that reads nothing of its feed for so long ends the trial."""


@dataclass(frozen=True)
class Message:
    """One message: the payload, and the whole text of its frame."""

    channel: str
    payload: bytes
    text: bytes


class Composer:
    """Makes the messages of a scenario in order, keeping the counts."""

    def __init__(self, scenario: Scenario) -> None:
        self._names = scenario.channel_names()
        self._size = scenario.payload_bytes
        self._previous = [0] * len(self._names)
        self._sequence = 0
        self._turn = 0
        self.counts = [0] * len(self._names)
        """Messages made so far, by channel index."""

    def burst(self, size: int, sent_ns: int, wall_ms: int) -> list[Message]:
        """The next `size` messages, walking the channels in turn."""
        return [self._next(sent_ns, wall_ms) for _ in range(size)]

    def _next(self, sent_ns: int, wall_ms: int) -> Message:
        index = self._turn
        self._turn = (index + 1) % len(self._names)
        self.counts[index] += 1
        self._sequence += 1
        name = self._names[index]
        mark = f"{index:05d}.{self.counts[index]:010d}.{sent_ns:019d}"
        head = f'{{"type":"price:update","mark":"{mark}","tokenId":"{name[6:]}","fill":"'
        fill = self._size - len(head) - 2
        if fill < 0:
            raise ValueError(f"payload_bytes must be at least {len(head) + 2}, not {self._size}")
        payload = f'{head}{"x" * fill}"}}'
        text = (
            f'{{"type":"price:update","channel":"{name}","seq":{self._sequence},"prev":{self._previous[index]},'
            f'"ts":{wall_ms},"data":{payload}}}'
        )
        self._previous[index] = self._sequence
        return Message(name, payload.encode(), text.encode())


class Target(Protocol):
    """Where messages go."""

    def send(self, messages: Sequence[Message]) -> None:
        """Hand over all messages at once. Blocks when the reader does not keep up."""

    def close(self) -> None:
        """Let go of the socket."""


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

    def send(self, messages: Sequence[Message]) -> None:
        records = bytearray()
        for message in messages:
            name = message.channel.encode()
            records += struct.pack("!IH", 2 + len(name) + len(message.text), len(name)) + name + message.text
        for peer in self._peers:
            peer.sendall(records)

    def close(self) -> None:
        for each in (*self._peers, self._listener):
            each.close()


class NatsTarget:
    """A NATS connection that only publishes, in the bare protocol."""

    def __init__(self, port: int, whole_text: bool, timeout_seconds: float = 10.0) -> None:
        self._whole_text = whole_text
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self._cut = b""
        options = {"verbose": False, "pedantic": False, "name": "bench", "lang": "python", "version": "1"}
        self._socket.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
        while b"PONG" not in self._read_lines():
            pass

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
        return lines

    def send(self, messages: Sequence[Message]) -> None:
        while select.select([self._socket], [], [], 0)[0]:
            self._read_lines()
        lines = bytearray()
        for message in messages:
            body = message.text if self._whole_text else message.payload
            lines += f"PUB {SUBJECT_PREFIX}{message.channel} {len(body)}\r\n".encode() + body + b"\r\n"
        self._socket.sendall(lines)

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
    def counts(self) -> list[int]:
        """Messages published, by channel index. Exact once `stop` has returned."""
        return self._composer.counts

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
        interval = 1.0 / self._scenario.bursts_per_second
        due = free = time.monotonic()
        try:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                now = time.monotonic()
                self.worst_lag_seconds = max(self.worst_lag_seconds, now - max(due, free))
                # A burst that the server held up, by not reading the one before, counts from when it was due.
                sent_ns = int((due if free > due else now) * 1e9)
                wall_ms = time.time_ns() // 1_000_000
                self._target.send(self._composer.burst(self._scenario.burst_size, sent_ns, wall_ms))
                free = time.monotonic()
                self.held_seconds = max(self.held_seconds, free - now)
                due += interval
        except OSError as error:
            self.error = error
