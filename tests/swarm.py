"""Many clients at once, each of which checks exactly what it gets.

One thread drives the engine of the load tests. What a test asks for is queued and done asynchronously;
`settle` waits until all of it is answered. What a connection checks while it reads is in `tests.life`. What
was lost before the first or behind the last message of a subscription shows only against the whole truth: see
`tests.ledger`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from odinws.swarm.engine import C, Engine, Phase
from odinws.swarm.frames import Answer
from tests.life import Life, State, Stretch

Who = int | Iterable[int]


class Threaded(Engine[C]):
    """An engine in a thread of its own, from `with` to its end.

    Attributes:
        failure: what ended the thread; None: it runs.
    """

    def __init__(self, port: int, *, timeout: float = 0.0) -> None:
        super().__init__(f"ws://127.0.0.1:{port}", timeout=timeout)
        self.failure: BaseException | None = None
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._stopping = False
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="swarm", daemon=True)

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Let the thread call something soon."""
        self._calls.append((function, arguments))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"!")

    def _served_other(self, fd: int) -> None:
        if fd == self._wake_read.fileno():
            self._wake_read.recv(4096)

    def _run(self) -> None:
        seconds = 0.0  # until something is due
        try:
            while not self._stopping:
                self.serve(seconds)
                while self._calls:
                    function, arguments = self._calls.popleft()
                    function(*arguments)
                seconds = self.call_due()
        except BaseException as error:
            self.failure = error
            raise

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wake()
        self._thread.join(60.0)
        assert not self._thread.is_alive()
        self._wake_read.close()
        self._wake_write.close()
        self.close()


class Swarm(Threaded[Life]):
    """Connections to one server, numbered by the test.

    Args:
        port: of the server on 127.0.0.1.
        keep: whether whole data messages are kept, per connection in `Life.payloads`.

    Attributes:
        lives: every connection there ever was, in the order of connecting.
        now: the last or present connection of each number.
        comes_again: whether who is refused in an overload comes again when the server says, unseen by a test.
        delays_ms: how many reads had a first data message of which age in whole ms; a test may clear it.
    """

    comes_again = True

    def __init__(self, port: int, *, keep: bool = False) -> None:
        super().__init__(port)
        self._keep = keep
        self.lives: list[Life] = []
        self.now: dict[int, Life] = {}
        self.delays_ms: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._unanswered = 0
        self._settled = threading.Event()
        self._settled.set()

    # -- what a test asks for: each takes one number or many, and returns at once --------------------

    def connect(self, who: Who) -> None:
        """Connect; answered by the welcome or a refusal. A number that is connected already stays so.

        See `comes_again`: a busy machine may not be able to serve all who come at one time.
        """
        self._ask("connect", who)

    def subscribe(self, who: Who, channels: Sequence[str]) -> None:
        """Subscribe; answered by the acknowledgement.

        Asked for before the connection is open, it goes out right behind the handshake. Numbers that
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

    def settle(self, seconds: float = 60.0) -> None:
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
        for number in numbers:
            self._calls.append((self._act, (kind, number, argument)))
        self._wake()

    # -- the thread ----------------------------------------------------------------------------------

    def _new(self, number: int) -> Life:
        return Life(number, keep=self._keep)

    def _act(self, kind: str, number: int, argument: Any) -> None:
        life = self.now.get(number)
        if life is not None and life.state not in (State.CONNECTING, State.OPEN):
            life = None
        if kind == "connect" and life is None:
            self.now[number] = life = self._new(number)
            self.lives.append(life)
            self.dial(life)
        elif kind == "connect" or life is None:
            self._answered(1)
        elif kind == "disconnect":
            life.owed += 1
            life.leave(time.time())
            if life.phase is Phase.NONE:  # it was to come again
                self._over(life)
                return
            if argument == "close" and life.state is State.OPEN:
                life.state = State.LEAVING
            self.leave(life, argument)
        else:
            life.say(kind, argument, time.time())
            self.send(life, b"")

    def _opened(self, life: Life) -> None:
        life.opened(time.time())

    def _received(self, life: Life, data: bytes) -> None:
        age_seconds = life.read(data, time.time())
        if age_seconds >= 0:
            self.delays_ms[int(age_seconds * 1000)] += 1
        if life.paid:
            self._pay(life)
        if life.out:
            self._flush(life)

    def _refused(self, life: Life, answer: Answer) -> None:
        if self.comes_again and answer.retry_after and b'"overload"' in answer.behind:
            self.later(float(answer.retry_after), self._come_again, life)
            return
        life.refuse(answer, time.time())
        self._over(life)

    def _come_again(self, life: Life) -> None:
        if life.state is State.CONNECTING:
            self.dial(life)
            life.repeat()

    def _ended(self, life: Life, phase: Phase, why: str) -> None:
        if why.startswith("broken"):
            life.problems.append(why)
        self._over(life)

    def _over(self, life: Life) -> None:
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
