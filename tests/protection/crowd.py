"""Clients that come back as they are told: after `Retry-After`, or after the hint of a close frame."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Sequence

from odinws.swarm.frames import Answer
from tests import wire
from tests.life import Life, State
from tests.swarm import Swarm

_NO_ANSWER_SECONDS = 1.0  # until the next try of a client that nobody answered
_HINT = re.compile(rb"; retry_after=(\d+\.\d)$")


class Guest(Life):
    """One connection; times are seconds since 1970, 0: not yet.

    Attributes:
        asked_at: when it began to connect.
        answered_at: when the handshake or the refusal was read.
        goodbye_at: when the server's close frame was read; `goodbye` is its payload.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.asked_at = time.time()
        self.answered_at = self.goodbye_at = 0.0
        self.close_frame = b""
        self._retry_after: str | None = None

    def opened(self, now: float) -> None:
        """As `Life`."""
        super().opened(now)
        self.answered_at = now

    def refuse(self, answer: Answer, now: float) -> None:
        """As `Life`."""
        super().refuse(answer, now)
        self.answered_at, self._retry_after = now, answer.retry_after

    def _other(self, head: int, payload: bytes, now: float) -> None:
        if head == 0x80 | wire.CLOSE:
            self.goodbye_at, self.close_frame = now, payload
        super()._other(head, payload, now)

    @property
    def admitted(self) -> bool:
        """Whether it got in."""
        return bool(self.answered_at) and not self.refused

    @property
    def hint_seconds(self) -> float | None:
        """When to come back by the server's word: that of a refusal, or of a close frame."""
        if self.refused:
            return float(self._retry_after) if self._retry_after else None
        found = _HINT.search(self.close_frame)
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

    comes_again = False  # here they do by themselves, and are counted

    def __init__(
        self, port: int, channels: Sequence[str], seed: int, lost_seconds: tuple[float, float] = (0.5, 2.0)
    ) -> None:
        super().__init__(port)
        self.returning = True
        self._guests: list[Guest] = []
        self._channels = channels
        self._random = random.Random(seed)
        self._lost_seconds = lost_seconds

    def enter(self, numbers: Iterable[int], per_second: float) -> None:
        """Let clients connect, one after the other at this rate."""
        self.call(self._enter, list(numbers), per_second)

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

    def _enter(self, numbers: list[int], per_second: float) -> None:
        for at, number in enumerate(numbers):
            self.later(at / per_second, self._come, number)

    def _come(self, number: int) -> None:
        self.connect(number)
        self.subscribe(number, [self._channels[number % len(self._channels)]])

    def _new(self, number: int) -> Guest:
        guest = Guest(number)
        self._guests.append(guest)
        return guest

    def _over(self, life: Life) -> None:
        super()._over(life)
        if self.returning and isinstance(life, Guest):
            wait_seconds = life.hint_seconds
            if wait_seconds is None:
                lost = bool(life.answered_at)
                wait_seconds = self._random.uniform(*self._lost_seconds) if lost else _NO_ANSWER_SECONDS
            self.later(wait_seconds, self._come, life.index)
