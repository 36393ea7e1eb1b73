"""Clients that come and go by a seed, and resume where they were. Made for thousands."""

from __future__ import annotations

import json
import random
import re
import threading
from array import array
from collections import deque
from collections.abc import Sequence

from odinws.client.backoff import Backoff
from odinws.swarm import frames
from odinws.swarm.engine import Connection, Phase
from odinws.swarm.frames import CLOSE, PING, PONG, Answer
from tests.swarm import Threaded

_HINT = re.compile(rb"; retry_after=([0-9.]+)$")
_DIAL_SECONDS = 10.0


class Client(Connection):
    """One client over all its connections.

    Attributes:
        backoff: as the client library comes back; anew after each subscription.
        last: up to here it has heard all of its channel, or was told what it will not hear; 0: nothing yet.
        heard: the sequences of all its messages.
        gaps: what it was told that will not come.
        faults: what can't be right.
    """

    def __init__(self, number: int, channel: str, backoff: Backoff) -> None:
        super().__init__()
        self.backoff = backoff
        self.number = number
        self.channel = channel
        self.epoch = ""
        self.last = self.connects = 0
        self.heard: array[int] = array("Q")
        self.gaps: list[tuple[int, int, str]] = []
        self.faults: list[str] = []
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


class Crowd(Threaded[Client]):
    """Runs clients until the end of its `with` block.

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
        super().__init__(port, timeout=_DIAL_SECONDS)
        self._rng = random.Random(seed)
        self._stay_seconds = stay_seconds
        self._most_dials = most_dials
        self.clients = [
            Client(n, channels[n % len(channels)], Backoff(self._rng.random)) for n in range(count)
        ]
        self._to_dial = deque(self.clients)
        self._dialling: set[int] = set()
        self._leaving_is_over = threading.Event()
        self.messages = self.connects = self.refused = 0
        self.later(0.0, self._dial_some)

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

    def _dial_some(self) -> None:
        while self._to_dial and len(self._dialling) < self._most_dials:
            client = self._to_dial.popleft()
            client.data, client.greeted, client.code, client.hint = b"", False, 0, 0.0
            self._dialling.add(client.number)
            self.dial(client)
        self.later(0.01, self._dial_some)

    def _leave(self, client: Client, attempt: int) -> None:
        if client.attempt != attempt or client.phase is not Phase.OPEN or self._leaving_is_over.is_set():
            return
        if self._rng.random() < 0.5:
            self.leave(client)
        else:
            client.hint = self._rng.uniform(0.0, 2.5)
            self.leave(client, "reset")

    def _opened(self, client: Client) -> None:
        client.phase = Phase.OPEN
        client.connects += 1
        self.connects += 1
        self._dialling.discard(client.number)
        since = {client.channel: client.last} if client.last else None
        self.send(client, frames.subscribe([client.channel], since, client.epoch))

    def _received(self, client: Client, data: bytes) -> None:
        found, client.data = frames.scan(client.data + data)
        for first, payload in found:
            if first == CLOSE:
                client.code = int.from_bytes(payload[:2], "big")
                hint = _HINT.search(payload)
                client.hint = float(hint[1]) if hint else 0.0
                if client.phase is Phase.OPEN:
                    self.send(client, frames.frame(CLOSE, payload[:2]))
            elif first == PING:
                self.send(client, frames.frame(PONG, payload))
            elif match := frames.data_of(payload):
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
            client.backoff = Backoff(self._rng.random)
            if self._stay_seconds:
                stay = self._rng.expovariate(1 / self._stay_seconds)
                self.later(stay, self._leave, client, client.attempt)
        elif kind == "gap":
            first, last = int(str(message["from"])), int(str(message["to"]))
            client.gaps.append((first, last, str(message["reason"])))
            if first <= client.last:
                client.faults.append(f"{message} came after {client.last}")
            client.last = max(client.last, last)
        else:
            client.faults.append(f"unexpected {message}")

    def _refused(self, client: Client, answer: Answer) -> None:
        self.refused += 1
        self._come_back(client, client.backoff.refused(answer.status, answer.retry_after, "").seconds)

    def _ended(self, client: Client, phase: Phase, why: str) -> None:
        if why.startswith("broken"):
            client.faults.append(why)
        refused = not client.greeted and not client.code
        self.refused += refused
        if refused:
            self._come_back(client, client.backoff.lost(False).seconds)
        else:
            self._come_back(client, client.hint + self._rng.uniform(0.0, 0.5))

    def _come_back(self, client: Client, wait_seconds: float) -> None:
        client.greeted = False
        self._dialling.discard(client.number)
        self.later(wait_seconds, self._to_dial.append, client)
