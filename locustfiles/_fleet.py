"""The clients of a process: they come, leave, come back, read slowly, and are cut off, each in its time."""

from __future__ import annotations

import heapq
import random
import socket
import struct
import time
from collections import deque

from locustfiles._client import Client, Phase, channels_of
from locustfiles._connections import Conduct, Connections
from locustfiles._place import START

_DIALS = 200  # in one tick at most
_RESET = struct.pack("ii", 1, 0)


class Fleet(Connections):
    """The clients of a process; `tick` is called every few milliseconds.

    Attributes:
        churn: clients per second that leave and come back; probes: connections per second that only try.
    """

    def __init__(self, conduct: Conduct) -> None:
        super().__init__(conduct)
        self.churn = self.probes = 0.0
        self._owed_churn = self._owed_probes = 0.0
        self._to_dial: deque[Client] = deque()
        self._returning: list[tuple[float, int, Client]] = []
        self._draw = random.Random(f"{conduct.seed}:fleet")
        self._last_tick = time.monotonic()

    def dial(self, number: int) -> Client:
        """A new client connects as soon as there is a turn."""
        conduct = self._conduct
        is_slow = int((number + 1) * conduct.slow) > int(number * conduct.slow)
        client = Client(
            number,
            channels_of(conduct.mode, conduct.seed, number),
            conduct.journey() if conduct.journey else None,
            conduct.slow_bytes if is_slow else 0.0,
        )
        self._to_dial.append(client)
        return client

    def storm(self, share: float) -> int:
        """Cut that share of all connections without a word; how many that were."""
        hit = [client for client in self._open if self._draw.random() < share]
        for client in hit:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._gone(client)
        return len(hit)

    def finish(self) -> None:
        """All leave; from now on nobody comes. They are gone when `pending` is 0."""
        self.closing = True
        self.churn = self.probes = 0.0
        self._to_dial.clear()
        self._returning.clear()
        for client in list(self._by_fd.values()):
            self.leave(client)

    @property
    def connected(self) -> int:
        """Clients that are subscribed and stay."""
        return len(self._open)

    @property
    def pending(self) -> int:
        """Sockets that there are."""
        return len(self._by_fd)

    def close(self) -> None:
        """Whoever is still here goes without a goodbye."""
        for client in list(self._by_fd.values()):
            self._drop(client)
        self._epoll.close()

    # -- time ----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due."""
        passed, self._last_tick = now - self._last_tick, now
        while self._returning and self._returning[0][0] <= now:
            self._to_dial.append(heapq.heappop(self._returning)[2])
        if not self.closing:
            self._owed_probes += self.probes * passed
            while self._owed_probes >= 1:
                self._owed_probes -= 1
                number = self._draw.randrange(1 << 30)
                channels = channels_of(self._conduct.mode, self._conduct.seed, number)
                self._to_dial.append(Client(-1, channels, None, 0.0))
            self._owed_churn = min(self._owed_churn + self.churn * passed, len(self._open) + 1.0)
            while self._owed_churn >= 1 and self._open:
                self._owed_churn -= 1
                self._leave_any()
        for _ in range(min(_DIALS, len(self._to_dial))):
            self._connect(self._to_dial.popleft(), now)
        for client in list(self._slow):
            self._sip(client, passed)
        while self._deadlines and self._deadlines[0][0] <= now:
            _, client, attempt = self._deadlines.popleft()
            if client.round == attempt and Phase.NONE < client.phase < Phase.OPEN:
                self._failed(client, f"not subscribed within {self._conduct.timeout:g} s")

    def _leave_any(self) -> None:
        """The one that is open longest, so that all take their turn."""
        client = next(iter(self._open))
        self.leave(client, returns=True)

    def _sip(self, client: Client, passed: float) -> None:
        """A slow client takes what it may."""
        self._slow[client] = allowed = min(self._slow[client] + client.slow * passed, client.slow)
        if allowed < 1:
            return
        try:
            data = client.recv(int(allowed))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._slow[client] -= len(data)
        if data:
            self._read(client, data)
        else:
            self._gone(client)

    def _left(self, client: Client) -> None:
        if client.returns and not self.closing:
            client.returns = False
            client.place, client.epoch = START, ""
            self._to_dial.append(client)

    def _come_back(self, client: Client, seconds: float | None) -> None:
        if seconds is None:
            self.tally.errors["stays away"] += 1
        else:
            heapq.heappush(self._returning, (time.monotonic() + seconds, id(client), client))
