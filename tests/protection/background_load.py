"""Processes that put load on the server: `python -m tests.protection.background_load KIND ...`. Linux.

busy SECONDS                        takes one core
asking PORT SECONDS                 asks for /metrics without a pause
half PORT HELD RATE SECONDS         keeps so many half-sent requests open, at most RATE new ones a second
slow PORT HELD RATE SECONDS         opens RATE handshakes a second, each of which gets a byte a second
arriving PORT RATE PATIENCE SECONDS RATE clients a second, who leave after PATIENCE seconds without an answer
closed PORT CLIENTS PATIENCE SECONDS so many clients, each of which comes again when it had its answer

Each ends after its time, and with the process that started it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import wire
from tests.protection.windows import share

ROOT = Path(__file__).parents[2]
_ROUND_SECONDS = 0.02
_BYTE_SECONDS = 1.0
_PARENT = os.getppid()
_BIND_ADDRESS_NO_PORT = 24  # of Linux; Python has no name for it


@contextlib.contextmanager
def background_load(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run one of these processes, at most for the duration of the block."""
    command = [sys.executable, "-m", "tests.protection.background_load", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_result(process: subprocess.Popen[str], seconds: float) -> dict[str, float]:
    """The result that an attacker prints at its end."""
    output, _ = process.communicate(timeout=seconds)
    found: dict[str, float] = json.loads(output)
    return found


def _keeps_running(until: float) -> bool:
    return time.monotonic() < until and os.getppid() == _PARENT


def busy(seconds: float) -> None:
    """Take a core."""
    until = time.monotonic() + seconds
    while _keeps_running(until):
        for _ in range(100_000):
            pass


def asking(port: int, seconds: float) -> None:
    """Ask without a pause."""
    until = time.monotonic() + seconds
    while _keeps_running(until):
        with contextlib.suppress(OSError, http.client.HTTPException):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            client.request("GET", "/metrics")
            client.getresponse().read()
            client.close()


class Attack:
    """Requests that never become whole.

    Args:
        first_bytes: of the request, sent at once.
        trickles: whether a byte follows each second.
    """

    def __init__(self, port: int, held: int, rate: float, *, first_bytes: int, trickles: bool) -> None:
        self._address = ("127.0.0.1", port)
        self._held = held
        self._rate = rate
        self._first_bytes = first_bytes
        self._trickles = trickles
        self._request = wire.request(User_Agent="x" * 64)
        self._socks: dict[int, socket.socket] = {}
        self._sent: dict[int, int] = {}
        self._due: deque[tuple[float, socket.socket]] = deque()  # in the order of time
        self._epoll = select.epoll()
        self.opened = self.ended = self.most = 0

    def run(self, seconds: float) -> None:
        """Attack for so long."""
        turned = time.monotonic()
        until, budget = turned + seconds, 1.0
        while _keeps_running(until):
            now = time.monotonic()
            budget = min(self._rate, budget + (now - turned) * self._rate)
            turned = now
            while budget >= 1 and len(self._socks) < self._held:
                self._open()
                budget -= 1
            self.most = max(self.most, len(self._socks))
            for descriptor, events in self._epoll.poll(_ROUND_SECONDS):
                self._serve(descriptor, events)
            self._trickle(time.monotonic())

    def _open(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._address)
        self._socks[sock.fileno()] = sock
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
        self.opened += 1

    def _serve(self, descriptor: int, events: int) -> None:
        sock = self._socks[descriptor]
        if events & ~select.EPOLLOUT:
            self._epoll.unregister(sock)
            del self._socks[descriptor]
            self._sent.pop(descriptor, None)
            sock.close()
            self.ended += 1
            return
        self._send(sock, self._first_bytes)
        self._epoll.modify(sock, select.EPOLLIN)
        if self._trickles:
            self._due.append((time.monotonic() + _BYTE_SECONDS, sock))

    def _trickle(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, sock = self._due.popleft()
            if sock.fileno() >= 0:
                self._send(sock, 1)
                self._due.append((now + _BYTE_SECONDS, sock))

    def _send(self, sock: socket.socket, count: int) -> None:
        at = self._sent.get(sock.fileno(), 0)
        chunk = self._request[at : at + count]
        if at + len(chunk) < len(self._request):  # it never becomes whole
            with contextlib.suppress(OSError):  # an end shows itself as an event
                sock.send(chunk)
            self._sent[sock.fileno()] = at + len(chunk)


class Arrivals:
    """Clients that ask for an upgrade, and leave with the answer or when their patience is over.

    Args:
        rate: clients per second; 0: no more than `clients` at once.
    """

    def __init__(self, port: int, rate: float, clients: int, patience: float) -> None:
        self._address = ("127.0.0.1", port)
        self._rate = rate
        self._clients = clients
        self._patience = patience
        self._request = wire.request()
        self._waiting: dict[int, tuple[socket.socket, float]] = {}  # by descriptor, oldest first
        self._epoll = select.epoll()
        self._came = 0
        self._admitted: list[float] = []
        self._refused: list[float] = []
        self._failed = 0
        self._gave_up = 0

    def run(self, seconds: float) -> dict[str, float]:
        """Come for so long; what became of them."""
        began = time.monotonic()
        until = began + seconds
        while _keeps_running(until):
            due = (time.monotonic() - began) * self._rate if self._rate else math.inf
            for _ in range(200):
                if self._came >= due or len(self._waiting) >= self._clients:
                    break
                self._come()
            self._look(0.001)
        took = time.monotonic() - began
        while self._waiting and _keeps_running(until + 2 * self._patience):
            self._look(0.01)
        return {
            "came_per_second": self._came / took,
            "admitted_per_second": len(self._admitted) / took,
            "refused": len(self._refused),
            "failed": self._failed,
            "gave_up": self._gave_up,
            **{f"refused_p{q:g}": share(self._refused, q / 100) for q in (50, 95, 99, 100)},
            **{f"admitted_p{q:g}": share(self._admitted, q / 100) for q in (50, 99, 100)},
        }

    def _come(self) -> None:
        self._came += 1
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.1.{self._came % 250 + 1}", 0))  # so that ports do not run out
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._address)
        with contextlib.suppress(OSError):  # on loopback it is connected already; an error shows itself
            sock.send(self._request)
        self._waiting[sock.fileno()] = (sock, time.monotonic())
        self._epoll.register(sock, select.EPOLLIN)

    def _look(self, seconds: float) -> None:
        for descriptor, _ in self._epoll.poll(seconds, 1000):
            sock, since = self._waiting.pop(descriptor)
            try:
                status = sock.recv(4096)[9:12]
            except OSError:
                status = b""
            sock.close()
            took = time.monotonic() - since
            if status == b"101":
                self._admitted.append(took)
            elif status == b"503":
                self._refused.append(took)
            else:
                self._failed += 1
        late = time.monotonic() - self._patience
        while self._waiting:
            descriptor, (sock, since) = next(iter(self._waiting.items()))
            if since > late:
                break
            del self._waiting[descriptor]
            sock.close()
            self._gave_up += 1


def main(kind: str, *numbers: str) -> None:
    """One kind of burden."""
    *first, seconds = [float(number) for number in numbers]
    if kind == "busy":
        busy(seconds)
    elif kind == "asking":
        asking(int(first[0]), seconds)
    elif kind in ("arriving", "closed"):
        rate, clients = (first[1], 1 << 20) if kind == "arriving" else (0.0, int(first[1]))
        arrivals = Arrivals(int(first[0]), rate, clients, first[2])
        sys.stdout.write(json.dumps(arrivals.run(seconds)))
    else:
        half = kind == "half"
        attack = Attack(
            int(first[0]), int(first[1]), first[2], first_bytes=100 if half else 1, trickles=not half
        )
        attack.run(seconds)
        said: dict[str, Any] = {"ended": attack.ended, "most": attack.most}
        sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
