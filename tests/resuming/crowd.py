"""Clients that come and go by a seed, and resume where they were. One thread; made for thousands."""

from __future__ import annotations

import heapq
import json
import random
import re
import selectors
import socket
import struct
import threading
import time
from array import array
from collections.abc import Sequence
from typing import Self

from tests import wire

_DATA = re.compile(rb'"channel":"([^"]+)","seq":(\d+),"prev":(\d+)')
_HINT = re.compile(rb"; retry_after=([0-9.]+)$")
_REFUSED_SECONDS = 1.0
_DIAL_SECONDS = 10.0
_PONG = 10
_RESET = struct.pack("ii", 1, 0)


class Client:
    """One client over all its connections.

    Attributes:
        last: up to here it has heard all of its channel, or was told what it will not hear; 0: nothing yet.
        heard: the sequences of all its messages.
        gaps: what it was told that will not come.
        faults: what can't be right.
    """

    def __init__(self, number: int, channel: str) -> None:
        self.number = number
        self.channel = channel
        self.epoch = ""
        self.last = self.connects = 0
        self.heard: array[int] = array("Q")
        self.gaps: list[tuple[int, int, str]] = []
        self.faults: list[str] = []
        self.sock: socket.socket | None = None
        self.data = b""
        self.greeted = False
        self.code = 0
        self.hint = 0.0

    def take(self, seq: int, prev: int) -> None:
        """One message: the next of its channel, or something is wrong."""
        before = self.heard[-1] if self.heard else prev
        if not before <= prev <= max(self.last, before) < seq:
            self.faults.append(f"{seq} behind {prev} came after {self.last}")
        self.heard.append(seq)
        self.last = seq


class Crowd:
    """Runs clients in a thread until `stop`.

    Args:
        port: of the server.
        count: of clients.
        channels: each has one of them, in turn.
        seed: of when they leave and how.
        stay_seconds: mean time of a connection; 0: they stay.
        most_dials: connects under way at one time.
    """

    def __init__(
        self,
        port: int,
        count: int,
        channels: Sequence[str],
        seed: int,
        *,
        stay_seconds: float = 0.0,
        most_dials: int = 100,
    ) -> None:
        self._port = port
        self._rng = random.Random(seed)
        self._stay_seconds = stay_seconds
        self._most_dials = most_dials
        self.clients = [Client(n, channels[n % len(channels)]) for n in range(count)]
        self._due: list[tuple[float, int, str]] = [(0.0, n, "dial") for n in range(count)]
        self._dialling: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._leaving_is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failure: BaseException | None = None
        self.messages = 0
        self.connects = 0
        self.refused = 0

    @property
    def live(self) -> int:
        """Clients whose subscription was acknowledged."""
        return sum(client.greeted for client in self.clients)

    def stay(self) -> None:
        """Nobody leaves any more by itself."""
        self._leaving_is_over.set()

    def faults(self) -> list[str]:
        """What any of them saw that can't be right."""
        return [f"client {c.number} on {c.channel}: {text}" for c in self.clients for text in c.faults]

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            for client in self.clients:
                if client.sock is not None:
                    client.sock.close()

    def _turn(self) -> None:
        now = time.monotonic()
        held: list[tuple[float, int, str]] = []
        while self._due and self._due[0][0] <= now:
            _, number, what = heapq.heappop(self._due)
            if what == "dial" and len(self._dialling) >= self._most_dials:
                held.append((now + 0.01, number, what))
                continue
            self._act(self.clients[number], what)
        for entry in held:
            heapq.heappush(self._due, entry)
        wait = min(0.05, max(0.0, self._due[0][0] - now)) if self._due else 0.05
        for key, _ in self._selector.select(wait):
            self._read(key.data)

    def _act(self, client: Client, what: str) -> None:
        if what == "dial":
            self._dial(client)
        elif what == "late" and client.number in self._dialling:
            self._gone(client, _REFUSED_SECONDS)
        elif what == "leave" and client.sock is not None and not self._leaving_is_over.is_set():
            if self._rng.random() < 0.5:
                self._send(client, wire.close(1000))
            elif client.sock is not None:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._gone(client, self._rng.uniform(0.0, 3.0))

    def _dial(self, client: Client) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self._port))
        client.sock, client.data, client.greeted, client.code, client.hint = sock, b"", False, 0, 0.0
        self._dialling.add(client.number)
        self._selector.register(sock, selectors.EVENT_WRITE, client)
        heapq.heappush(self._due, (time.monotonic() + _DIAL_SECONDS, client.number, "late"))

    def _read(self, client: Client) -> None:
        sock = client.sock
        assert sock is not None
        if self._selector.get_key(sock).events == selectors.EVENT_WRITE:
            self._selector.modify(sock, selectors.EVENT_READ, client)
            self._send(client, wire.request())
            return
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            refused = not client.greeted and not client.code
            self.refused += refused
            wait = client.hint or (_REFUSED_SECONDS if refused else 0.0)
            self._gone(client, wait + self._rng.uniform(0.0, 0.5))
            return
        client.data += data
        self._parse(client)

    def _parse(self, client: Client) -> None:
        data = client.data
        if client.number in self._dialling and not client.greeted:
            _, found, rest = data.partition(b"\r\n\r\n")
            if data.startswith(b"HTTP/1.1 101"):
                if not found:
                    return
                data = rest
                client.connects += 1
                self.connects += 1
                self._dialling.discard(client.number)
                wanted: dict[str, object] = {"channels": [client.channel]}
                if client.last:
                    wanted |= {"since": {client.channel: client.last}, "epoch": client.epoch}
                self._send(client, wire.command("subscribe", **wanted))
            elif data.startswith(b"HTTP") or found:
                self.refused += 1
                self._gone(client, _REFUSED_SECONDS)
                return
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(data[start : start + width], "big"), start + width
            if len(data) < start + size:
                break
            self._frame(client, data[at] & 0x0F, data[start : start + size])
            at = start + size
        client.data = data[at:]

    def _frame(self, client: Client, opcode: int, payload: bytes) -> None:
        if opcode == 8:
            client.code = int.from_bytes(payload[:2], "big")
            hint = _HINT.search(payload)
            client.hint = float(hint[1]) if hint else 0.0
            self._send(client, wire.close(client.code))
        elif opcode == 9:
            self._send(client, wire.frame(_PONG, payload))
        elif match := _DATA.search(payload, 0, 200):
            self.messages += 1
            client.take(int(match[2]), int(match[3]))
        else:
            self._other(client, json.loads(payload))

    def _other(self, client: Client, message: dict[str, object]) -> None:
        kind = message["type"]
        if kind == "welcome":
            if message["epoch"] != "none":  # not known yet: it keeps what it has
                client.epoch = str(message["epoch"])
        elif kind == "subscription_ack":
            client.greeted = True
            if self._stay_seconds:
                stay = self._rng.expovariate(1 / self._stay_seconds)
                heapq.heappush(self._due, (time.monotonic() + stay, client.number, "leave"))
        elif kind == "gap":
            first, last = int(str(message["from"])), int(str(message["to"]))
            client.gaps.append((first, last, str(message["reason"])))
            if first <= client.last:
                client.faults.append(f"{message} came after {client.last}")
            client.last = max(client.last, last)
        else:
            client.faults.append(f"unexpected {message}")

    def _send(self, client: Client, data: bytes) -> None:
        if client.sock is not None:
            try:
                client.sock.send(data)
            except OSError:
                return  # the end of the stream says the same

    def _gone(self, client: Client, wait_seconds: float) -> None:
        assert client.sock is not None
        self._selector.unregister(client.sock)
        client.sock.close()
        client.sock, client.greeted = None, False
        self._dialling.discard(client.number)
        heapq.heappush(self._due, (time.monotonic() + wait_seconds, client.number, "dial"))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
