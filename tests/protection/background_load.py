"""Processes that put load on the server: `python -m tests.protection.background_load KIND ...`. Linux.

busy SECONDS                        takes one core
asking PORT SECONDS                 asks for /metrics without a pause
half PORT HELD RATE SECONDS         keeps so many half-sent requests open, at most RATE new ones a second
slow PORT HELD RATE SECONDS         opens RATE handshakes a second, each of which gets a byte a second

Each ends after its time, and with the process that started it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
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

ROOT = Path(__file__).parents[2]
_ROUND_SECONDS = 0.02
_BYTE_SECONDS = 1.0
_PARENT = os.getppid()


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


def read_result(process: subprocess.Popen[str], seconds: float) -> dict[str, int]:
    """The result that an attacker prints at its end."""
    output, _ = process.communicate(timeout=seconds)
    found: dict[str, int] = json.loads(output)
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


def main(kind: str, *numbers: str) -> None:
    """One kind of burden."""
    *first, seconds = [float(number) for number in numbers]
    if kind == "busy":
        busy(seconds)
    elif kind == "asking":
        asking(int(first[0]), seconds)
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
