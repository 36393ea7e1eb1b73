"""Clients that come back as they are told: after `Retry-After`, or after the hint of a close frame."""

from __future__ import annotations

import contextlib
import heapq
import random
import re
import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Self

from tests import wire
from tests.life import Life, State
from tests.swarm import Swarm

_PACE_SECONDS = 0.05
_NO_ANSWER_SECONDS = 1.0  # until the next try of a client that nobody answered
_HINT = re.compile(rb"; retry_after=(\d+\.\d)$")
_RETRY_AFTER = re.compile(rb"(?i)\r\nretry-after: *(\d+)\r\n")


class Guest(Life):
    """One connection; times are seconds since 1970, 0: not yet.

    Attributes:
        asked_at: when it began to connect.
        answered_at: when the handshake or the refusal was read.
        goodbye_at: when the server's close frame was read; `goodbye` is its payload.
    """

    def __init__(self, index: int, sock: socket.socket) -> None:
        super().__init__(index, sock)
        self.asked_at = time.time()
        self.answered_at = self.goodbye_at = 0.0
        self.goodbye = b""

    def read(self, data: bytes, now: float) -> float:
        """As `Life`."""
        waiting = self.state is State.CONNECTING
        age_seconds = super().read(data, now)
        if waiting and (self.refused or self.state is not State.CONNECTING):
            self.answered_at = now
        return age_seconds

    def _other(self, head: int, payload: bytes, now: float) -> None:
        if head == 0x80 | wire.CLOSE:
            self.goodbye_at, self.goodbye = now, payload
        super()._other(head, payload, now)

    @property
    def admitted(self) -> bool:
        """Whether it got in."""
        return bool(self.answered_at) and not self.refused

    @property
    def hint_seconds(self) -> float | None:
        """When to come back by the server's word: that of a refusal, or of a close frame."""
        found = _RETRY_AFTER.search(self.http) if self.refused else _HINT.search(self.goodbye)
        return float(found[1]) if found else None


class Crowd(Swarm):
    """A swarm each of whose clients subscribes to one channel, and comes back until it is in.

    A client waits exactly as long as it is told. One whose connection broke without a word waits for a time
    drawn at random.

    Args:
        port: of the server on 127.0.0.1.
        channels: client n takes the n-th, round and round.
        seed: of what is drawn.
        lost_seconds: the least and the most that a client waits whose connection broke.

    Attributes:
        returning: whether clients come back; a test may change it.
    """

    def __init__(
        self, port: int, channels: Sequence[str], seed: int, lost_seconds: tuple[float, float] = (0.5, 2.0)
    ) -> None:
        super().__init__(port)
        self.returning = True
        self._guests: list[Guest] = []
        self._channels = channels
        self._random = random.Random(seed)
        self._lost_seconds = lost_seconds
        self._due: list[tuple[float, int]] = []
        self._due_changed = threading.Condition()
        self._pacer = threading.Thread(target=self._pace, name="pacer", daemon=True)

    def enter(self, numbers: Iterable[int], per_second: float) -> None:
        """Let clients connect, one after the other at this rate."""
        began = time.monotonic()
        for at, number in enumerate(numbers):
            self._come(number, began + at / per_second)

    def guests(self) -> list[Guest]:
        """Every connection that was ever tried, in its order."""
        return list(self._guests)

    def admissions(self) -> list[float]:
        """When clients got in."""
        return [guest.answered_at for guest in self.guests() if guest.admitted]

    def refusals(self) -> list[float]:
        """When clients were refused."""
        return [guest.answered_at for guest in self.guests() if guest.refused]

    def unanswered(self) -> int:
        """How many connections ended without an answer."""
        return sum(guest.state is State.ENDED and not guest.answered_at for guest in self.guests())

    def __enter__(self) -> Self:
        super().__enter__()
        self._pacer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping = True
        self._pacer.join(10.0)
        super().__exit__(*error)

    def _come(self, number: int, at: float) -> None:
        with self._due_changed:
            heapq.heappush(self._due, (at, number))
            self._due_changed.notify()

    def _pace(self) -> None:
        while not self._stopping:
            ready: list[int] = []
            with self._due_changed:
                now = time.monotonic()
                while self._due and self._due[0][0] <= now:
                    ready.append(heapq.heappop(self._due)[1])
                if not ready:
                    soon = self._due[0][0] - now if self._due else _PACE_SECONDS
                    self._due_changed.wait(min(soon, _PACE_SECONDS))
            for number in ready:
                self.connect(number)
                self.subscribe(number, [self._channels[number % len(self._channels)]])

    def _dial(self, number: int) -> None:
        """As `Swarm`, but with a `Guest`."""
        sock = socket.socket()
        sock.setblocking(False)
        guest = Guest(number, sock)
        self.lives.append(guest)
        self._guests.append(guest)
        self.now[number] = guest
        self._by_descriptor[sock.fileno()] = guest
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._address)
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)

    def _end(self, life: Life) -> None:
        ended = life.state is State.ENDED
        super()._end(life)
        if not ended and self.returning and isinstance(life, Guest):
            wait_seconds = life.hint_seconds
            if wait_seconds is None:
                lost = bool(life.answered_at)
                wait_seconds = self._random.uniform(*self._lost_seconds) if lost else _NO_ANSWER_SECONDS
            self._come(life.index, time.monotonic() + wait_seconds)
