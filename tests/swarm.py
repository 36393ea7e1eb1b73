"""Many clients at once, each of which checks exactly what it gets.

One thread and one epoll drive all connections. What a test asks for is queued and done asynchronously;
`settle` waits until all of it is answered. What a connection checks while it reads is in `tests.life`. What
was lost before the first or behind the last message of a subscription shows only against the whole truth: see
`tests.ledger`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any, Self

from tests import wire
from tests.life import Life, State, Stretch

_READ_BYTES = 1 << 16

Who = int | Iterable[int]


class Swarm:
    """Connections to one server, numbered by the test.

    Args:
        port: of the server on 127.0.0.1.
        keep: whether whole data messages are kept, per connection in `Life.payloads`.

    Attributes:
        lives: every connection there ever was, in the order of connecting.
        now: the last or present connection of each number.
        delays_ms: how many reads had a first data message of which age in whole ms; a test may clear it.
        failure: what ended the thread; None: it runs.
    """

    def __init__(self, port: int, *, keep: bool = False) -> None:
        self._address = ("127.0.0.1", port)
        self._keep = keep
        self.lives: list[Life] = []
        self.now: dict[int, Life] = {}
        self.delays_ms: Counter[int] = Counter()
        self.failure: BaseException | None = None
        self._by_descriptor: dict[int, Life] = {}
        self._asked: deque[tuple[str, int, Any]] = deque()
        self._lock = threading.Lock()
        self._unanswered = 0
        self._settled = threading.Event()
        self._settled.set()
        self._stopping = False
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="swarm", daemon=True)

    # -- what a test asks for: each takes one number or many, and returns at once --------------------

    def connect(self, who: Who) -> None:
        """Connect; answered by the welcome or a refusal. A number that is connected already stays so."""
        self._ask("connect", who)

    def subscribe(self, who: Who, channels: Sequence[str]) -> None:
        """Subscribe; answered by the acknowledgement.

        Asked for before the connection is open, it goes out with or right behind the handshake. Numbers that
        are not connected are passed over; so in the other commands.
        """
        self._ask("subscribe", who, channels)

    def unsubscribe(self, who: Who, channels: Sequence[str]) -> None:
        """Unsubscribe; answered by the acknowledgement."""
        self._ask("unsubscribe", who, channels)

    def disconnect(self, who: Who, how: str = "close") -> None:
        """End connections.

        Args:
            how: "close": by the closing handshake, answered by the end of the stream; "vanish": the socket is
                closed without a word; "reset": the same with a TCP reset.
        """
        self._ask("disconnect", who, how)

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until everything asked for is answered.

        Raises:
            AssertionError: that did not happen in time.
        """
        if not self._settled.wait(seconds):
            owing = [(life.index, life.state.value) for life in list(self.now.values()) if life.owed]
            raise AssertionError(
                f"not answered in {seconds:g} s: {len(owing)} {owing[:5]}, {self.problems()[:5]}"
            )

    # -- what a test learns --------------------------------------------------------------------------

    def open(self) -> list[Life]:
        """The connections that are open."""
        return [life for life in list(self.now.values()) if life.state is State.OPEN]

    def stretches(self) -> list[Stretch]:
        """All subscriptions of all connections, past and present."""
        return [stretch for life in list(self.lives) for stretch in life.stretches]

    def messages(self) -> int:
        """Data messages of all connections so far."""
        return sum(life.messages for life in list(self.lives))

    def problems(self) -> list[str]:
        """What was wrong on any connection; each is one line."""
        found = [f"{life.index}: {text}" for life in list(self.lives) for text in life.problems]
        return found if self.failure is None else [f"the swarm failed: {self.failure!r}", *found]

    def close_codes(self) -> Counter[int]:
        """Of the connections that ended after a handshake: how many were told which code; 0: none."""
        return Counter(
            life.close_code for life in list(self.lives) if life.state is State.ENDED and life.epoch
        )

    def _ask(self, kind: str, who: Who, argument: Any = None) -> None:
        numbers = [who] if isinstance(who, int) else list(who)
        if not numbers:
            return
        with self._lock:
            self._unanswered += len(numbers)
            self._settled.clear()
        self._asked.extend((kind, number, argument) for number in numbers)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"!")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wake()
        self._thread.join(10.0)
        for life in self.lives:
            life.sock.close()
        self._wake_read.close()
        self._wake_write.close()
        self._epoll.close()

    # -- the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                for descriptor, events in self._epoll.poll():
                    life = self._by_descriptor.get(descriptor)
                    if life is not None:
                        self._serve(life, events)
                    elif descriptor == self._wake_read.fileno():
                        self._wake_read.recv(4096)
                while self._asked:
                    self._act(*self._asked.popleft())
        except BaseException as error:
            self.failure = error
            raise

    def _act(self, kind: str, number: int, argument: Any) -> None:
        life = self.now.get(number)
        if life is not None and life.state not in (State.CONNECTING, State.OPEN):
            life = None
        if kind == "connect" and life is None:
            self._dial(number)
        elif kind == "connect" or life is None:
            self._answered(1)
        elif kind == "disconnect":
            life.owed += 1
            self._leave(life, argument)
        else:
            life.say(kind, argument, time.time())
            if life.state is State.OPEN:
                self._flush(life)

    def _dial(self, number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        life = Life(number, sock, keep=self._keep)
        self.lives.append(life)
        self.now[number] = life
        self._by_descriptor[sock.fileno()] = life
        with contextlib.suppress(BlockingIOError):
            sock.connect(self._address)
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)

    def _leave(self, life: Life, how: str) -> None:
        life.leave(time.time())
        if how == "close" and life.state is State.OPEN:
            life.state = State.LEAVING
            life.out += wire.close(1000)
            self._flush(life)
            return
        if how == "reset":
            life.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end(life)

    def _serve(self, life: Life, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(life)
        if not events & ~select.EPOLLOUT:
            return
        try:
            data = life.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(life)
            return
        age_seconds = life.read(data, time.time())
        if age_seconds >= 0:
            self.delays_ms[int(age_seconds * 1000)] += 1
        if life.paid:
            self._pay(life)
        if life.refused:
            self._end(life)
        elif life.out:
            self._flush(life)

    def _flush(self, life: Life) -> None:
        try:
            sent = life.sock.send(life.out)
        except BlockingIOError:
            sent = 0
        except OSError:  # the end shows itself at the next read
            sent = len(life.out)
        life.out = life.out[sent:]
        self._epoll.modify(life.sock, select.EPOLLIN | (select.EPOLLOUT if life.out else 0))

    def _end(self, life: Life) -> None:
        if life.state is not State.ENDED:
            del self._by_descriptor[life.sock.fileno()]
            self._epoll.unregister(life.sock)
            life.sock.close()
            life.end(time.time())
            self._pay(life)

    def _pay(self, life: Life) -> None:
        paid, life.paid = life.paid, 0
        self._answered(paid)

    def _answered(self, count: int) -> None:
        with self._lock:
            self._unanswered -= count
            if self._unanswered == 0:
                self._settled.set()
