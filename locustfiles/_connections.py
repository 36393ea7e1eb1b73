"""The connections of a process over one epoll: dialled, read, counted, ended.

Nothing here waits. `serve` runs in gevent's loop when sockets have something, for so many at a time that
Locust stays alive. Whether a client comes back is left to those who build on this.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gevent import monkey

from locustfiles import _frames
from locustfiles._client import Client, Journey, Phase
from locustfiles._frames import CLOSE, PING, PONG, Frame, WireError
from locustfiles._place import START, Flow, Place
from locustfiles._tally import Tally

_READ_BYTES = 1 << 16
_EVENTS = 256  # served before Locust has its turn
_SAMPLE = 8  # one read in so many is timed, all its messages
_STEADY_SECONDS = 5.0
_SLOW_BUFFER_BYTES = 4096

# Plain ones: gevent's would wait in a greenlet for each socket.
_epoll = monkey.get_original("select", "epoll")
_socket = monkey.get_original("socket", "socket")


@dataclass(frozen=True)
class Conduct:
    """How clients behave; rates are of this process.

    Attributes:
        url: `ws://host:port`.
        mode: all, single or random.
        resume: whether who comes back asks for what it missed.
        journey: makes what says when a client comes back; None: who is cut off stays away.
        slow: share of the clients that read slowly.
        slow_bytes: what those read per second.
        timeout: seconds until a connection must be subscribed.
        compression: whether they offer it.
    """

    url: str
    mode: str
    seed: int
    resume: bool
    journey: Callable[[], Journey] | None
    slow: float
    slow_bytes: float
    timeout: float
    compression: bool


def problem_of(url: str) -> str:
    """What is wrong with an address; empty: nothing."""
    address = urlsplit(url)
    if address.scheme == "ws" and address.hostname:
        return ""
    return f"--host {url!r} must be ws://HOST:PORT (for TLS, swarm the server behind the proxy that ends it)"


class Connections(ABC):
    """All connections of a process.

    Attributes:
        closing: nobody connects any more.
    """

    def __init__(self, conduct: Conduct) -> None:
        self._conduct = conduct
        address = urlsplit(conduct.url)
        path = address.path.rstrip("/")
        found = socket.getaddrinfo(address.hostname, address.port or 80, type=socket.SOCK_STREAM)[0]
        self._family, self._to = found[0], found[4]
        path = path if path.endswith("/ws") else f"{path}/ws"
        self._upgrade = _frames.upgrade(address.netloc, path, compression=conduct.compression)
        self.tally = Tally()
        self.closing = False
        self._flow = Flow()
        self._epoll = _epoll()
        self._by_fd: dict[int, Client] = {}
        self._open: dict[Client, None] = {}
        self._slow: dict[Client, float] = {}  # what each may read now, in bytes
        self._deadlines: deque[tuple[float, Client, int]] = deque()
        self._reads = 0

    @abstractmethod
    def _come_back(self, client: Client, seconds: float | None) -> None:
        """A client lost its connection, or got none, and comes back after so long; None: never."""

    @abstractmethod
    def _left(self, client: Client) -> None:
        """A client has said goodbye, and was answered."""

    def fileno(self) -> int:
        """What becomes readable when there is something to serve."""
        return int(self._epoll.fileno())

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

    def look(self, now: float) -> None:
        """Count what was read since the last look; once a second or so."""
        for step in self._flow.taken():
            if step.times:
                self.tally.take(step, step.times, now)
        self.tally.settle(self._flow.chain, now)

    def leave(self, client: Client, *, returns: bool = False) -> None:
        """A client says goodbye; it is gone when the server has answered, and maybe comes back anew."""
        client.returns = returns
        client.left = not returns
        if client.phase in (Phase.OPEN, Phase.SUBSCRIBING, Phase.GREETING):
            self._hear_out(client)
            client.phase = Phase.LEAVING
            self._send(client, _frames.frame(CLOSE, b"\x03\xe8"))
        elif client.phase in (Phase.CONNECTING, Phase.UPGRADING):
            self._drop(client)

    # -- a connection, from dialling to its subscription ---------------------------------------------

    def _connect(self, client: Client, now: float) -> None:
        if self.closing or client.left or client.phase is not Phase.NONE:
            return
        sock = _socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if client.slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER_BYTES)
        client.sock, client.recv, client.phase = sock, sock.recv, Phase.CONNECTING
        client.buffer, client.close = b"", (1006, "")
        client.began = now
        client.round += 1
        self.tally.counts["attempts"] += 1
        self._by_fd[sock.fileno()] = client
        self._deadlines.append((now + self._conduct.timeout, client, client.round))
        code = sock.connect_ex(self._to)
        if code not in (0, errno.EINPROGRESS):
            self._failed(client, f"connect: {errno.errorcode.get(code, code)}")
            return
        self._epoll.register(sock, select.EPOLLOUT)

    def _connected(self, client: Client) -> None:
        code = client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(client, f"connect: {errno.errorcode.get(code, code)}")
            return
        client.phase = Phase.UPGRADING
        self._epoll.modify(client.sock, select.EPOLLIN)
        self._send(client, self._upgrade)

    def _upgraded(self, client: Client, data: bytes) -> bytes:
        """The frames behind the answer to the upgrade; nothing until it is whole."""
        client.buffer += data
        status, retry_after, at = _frames.answer(client.buffer)
        if status == 0:
            return b""
        if status != 101:
            self.tally.counts["refused"] += 1
            self._failed(client, f"refused with {status}", status, retry_after)
            return b""
        client.phase = Phase.GREETING
        client.place = Place(client.place.marks) if self._conduct.resume else START
        rest, client.buffer = client.buffer[at:], b""
        return rest

    def _greeted(self, client: Client, epoch: str) -> None:
        now = time.monotonic()
        if client.phase is not Phase.GREETING:  # the numbers begin anew
            client.place = Place({}, client.place.rest)
            client.epoch = epoch
            return
        self.tally.times["connect"].add((now - client.began) * 1000)
        client.phase, client.asked = Phase.SUBSCRIBING, now
        self._send(client, _frames.subscribe(client.channels, client.place.since(), client.epoch))
        client.epoch = epoch

    def _subscribed(self, client: Client, message: Any) -> None:
        if client.phase is not Phase.SUBSCRIBING:
            return
        if message["rejected"]:
            self._failed(client, f"rejected: {message['rejected'][0]['code']}")
            return
        now = time.monotonic()
        self.tally.times["ack"].add((now - client.asked) * 1000)
        client.phase = Phase.OPEN
        if client.number < 0:
            self.leave(client)
            return
        self._open[client] = None
        if client.cut_at:
            self.tally.counts["reconnects"] += 1
            self.tally.times["reconnect"].add((now - client.cut_at) * 1000)
            client.cut_at = 0.0
        if client.slow:
            self._epoll.unregister(client.sock)
            self._slow[client] = 0.0

    # -- reading -------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Read from those that have something."""
        steps, by_fd, opened = self._flow.steps, self._by_fd, Phase.OPEN
        for fd, _ in self._epoll.poll(0, _EVENTS):
            client = by_fd.get(fd)
            if client is None:
                continue
            if client.phase is Phase.CONNECTING:
                self._connected(client)
                continue
            try:
                data = client.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._gone(client)
                continue
            if client.phase is not opened:
                self._read(client, data)
                continue
            step = steps.get((client.place, data))
            if step is None:
                self._read(client, data)
                continue
            step.times += 1
            client.place = step.after
            self._reads += 1
            if not self._reads % _SAMPLE:
                self._time(step.ages_at)

    def _time(self, ages_at: list[int]) -> None:
        now_ms = time.time() * 1000
        add = self.tally.times["delivery"].add
        for at in ages_at:
            add(now_ms - at)

    def _hear_out(self, client: Client) -> None:
        """A slow client that leaves reads the rest at once."""
        if self._slow.pop(client, None) is not None:
            self._epoll.register(client.sock, select.EPOLLIN)
        self._open.pop(client, None)

    def _read(self, client: Client, data: bytes) -> None:
        """Bytes that are not known yet."""
        try:
            if client.phase is Phase.UPGRADING:
                data = self._upgraded(client, data)
                if not data:
                    return
            step = self._flow.steps.get((client.place, data)) or self._flow.step(client.place, data)
            client.place = step.after
            if step.controls is None:
                step.times += 1
                self._reads += 1
                if not client.slow and not self._reads % _SAMPLE:
                    self._time(step.ages_at)
                return
            for frame in step.controls:
                if client.phase is not Phase.NONE:
                    self._take(client, frame)
        except (WireError, KeyError, json.JSONDecodeError) as error:
            self._failed(client, f"broken: {error}")

    def _take(self, client: Client, frame: Frame) -> None:
        """One frame, among others that are not all data."""
        first, payload = frame
        if first == PING:
            self._send(client, _frames.frame(PONG, payload))
        elif first == CLOSE:
            client.close = (int.from_bytes(payload[:2], "big") or 1005, payload[2:].decode(errors="replace"))
            if client.phase is not Phase.LEAVING:
                self._send(client, _frames.frame(CLOSE, payload[:2]))
        elif step := self._flow.one(client.place, frame):
            client.place = step.after
            self.tally.take(step, 1, time.monotonic())
        elif first != PONG:
            message = json.loads(payload)
            if message["type"] == "welcome":
                self._greeted(client, message["epoch"])
            elif message["type"] == "subscription_ack":
                self._subscribed(client, message)
            elif message["type"] == "error":
                self.tally.errors[f"error {message['code']}"] += 1

    def _send(self, client: Client, data: bytes) -> None:
        """A frame into a socket that has room, or the client is stuck anyway."""
        try:
            sent = client.sock.send(data)
        except OSError:
            return  # the end shows itself at the next read
        if sent < len(data):
            self._failed(client, "the socket takes nothing")

    # -- the end of a connection ---------------------------------------------------------------------

    def _drop(self, client: Client) -> None:
        """The socket goes."""
        if client.phase is Phase.NONE:
            return
        self._open.pop(client, None)
        self._slow.pop(client, None)
        del self._by_fd[client.sock.fileno()]
        client.sock.close()  # epoll forgets it with that
        client.sock = None
        client.phase = Phase.NONE

    def _failed(self, client: Client, why: str, status: int = 0, retry_after: str | None = None) -> None:
        """A connection did not get as far as its subscription, or broke the rules."""
        self.tally.counts["failed"] += 1
        self.tally.errors[why] += 1
        self._drop(client)
        journey = client.journey
        if journey is None or client.left or self.closing:
            return
        self._come_back(client, journey.refused(status, retry_after) if status else journey.lost(False))

    def _gone(self, client: Client) -> None:
        """The stream has ended."""
        phase, steady = client.phase, time.monotonic() - client.began >= _STEADY_SECONDS
        if phase < Phase.OPEN:
            self._failed(client, f"ended while {phase.name.lower()}")
            return
        self._drop(client)
        if phase is Phase.LEAVING:
            self._left(client)
            return
        code, text = client.close
        self.tally.counts["cut"] += 1
        client.cut_at = client.cut_at or time.monotonic()
        if code != 1006:
            self.tally.errors[f"closed with {code}"] += 1
        journey = client.journey
        if journey is None or client.left or self.closing:
            return
        self._come_back(client, journey.lost(steady) if code == 1006 else journey.closed(code, text, steady))
