"""Small stand-ins for what a module under test talks to, and ways to run a test body."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import signal
import socket
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ParamSpec, cast

import gevent
import gevent.socket
import hypothesis
from hypothesis import strategies as st

from odinws.access.tokens import ANONYMOUS, Identity
from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection, State
from odinws.connections.ledger import Ledger
from odinws.connections.limits import ConnectionLimits
from odinws.connections.outbox import SlowPolicy
from odinws.connections.ready import ReadyQueue
from odinws.messages.json_format import JsonFormat
from odinws.messages.protocol import Outgoing, Welcome
from odinws.messages.wire_format import Bundle, FormatRegistry, WireFormat
from odinws.settings import Settings
from odinws.shared.counters import Counters
from tests import wire

SECONDS = 60.0  # no test body waits longer for anything
FORK_SECONDS = 120  # nor does a process that a test forks live longer

# A machine under load may be slow: that is no failure.
hypothesis.settings.register_profile("odinws", deadline=None, max_examples=50)
hypothesis.settings.load_profile("odinws")

P = ParamSpec("P")

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), 1 << 64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def pieces(stream: bytes, at: Iterable[int]) -> list[bytes]:
    """The stream, cut at these places (modulo its length)."""
    positions = sorted({0, len(stream), *(position % (len(stream) + 1) for position in at)})
    return [stream[start:end] for start, end in itertools.pairwise(positions)]


def in_greenlet(body: Callable[P, None]) -> Callable[P, None]:
    """Run a test body in a greenlet of the real event loop; what it does there must not take `SECONDS`."""

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        greenlet = gevent.spawn(body, *args, **kwargs)
        try:
            greenlet.get(timeout=SECONDS)
        finally:
            greenlet.kill()  # or what it has begun, such as an event loop, would fail the tests after it

    return run


def settle(rounds: int = 3) -> None:
    """Let the event loop run until it is idle: watchers, then what these made ready, and so on."""
    for _ in range(rounds):
        gevent.idle()


@contextmanager
def running(function: Callable[[], Any]) -> Iterator[gevent.Greenlet]:
    """A greenlet that runs as long as the block, and fails the test if its function ended by itself."""
    greenlet = gevent.spawn(function)
    try:
        yield greenlet
        if greenlet.dead:
            greenlet.get()
        assert not greenlet.dead
    finally:
        greenlet.kill()


def fill(totals: Counters, numbers: Iterator[int]) -> None:
    """Give every field, and every element of the arrays, a value of its own."""
    for name, *_ in Counters._fields_:
        value = getattr(totals, name)
        if isinstance(value, ctypes.Array):
            for index in range(len(value)):
                value[index] = next(numbers)
        else:
            setattr(totals, name, next(numbers))


def forked(function: Callable[[], object]) -> int:
    """Run a function in a forked process, which exits with 0, or with 1 if it raised. Returns its pid.

    It is ended by a signal after `FORK_SECONDS`, whatever became of the test.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(FORK_SECONDS)
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    return pid


def join(*pids: int) -> None:
    """Wait for forked processes and expect that none of them raised or had to be ended."""
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert statuses == [0] * len(pids)


LIMITS = replace(
    ConnectionLimits.of(Settings.from_environ({})), max_message_bytes=1 << 20, outbox_bytes=1 << 20
)
FORMATS = FormatRegistry(JsonFormat, 0)


def welcome(client_id: str, epoch: str) -> Welcome:
    """What the services would greet a client with."""
    return Welcome(
        client_id=client_id,
        epoch=epoch,
        strategy="sync-dict",
        variant="",
        reason="static",
        shards=1,
        shard_key="channel",
        server="odinws/0",
        heartbeat_seconds=25.0,
        limits={},
    )


class FakeConnection:
    """What a hub, a strategy and the commands know of a connection; it keeps what it is told to send.

    Attributes:
        sent: each hand-over, as bytes of whole frames.
        bundles: what each hand-over consists of.
        kept: frames of which a socket took only so many bytes.
        closed: why it was closed, and with which text; None: it is open.
    """

    def __init__(self, name: str, wire_format: WireFormat | None = None) -> None:
        self.id = name
        self.wire_format = wire_format or FORMATS.default
        self.direct_socket: Any = None  # the slow way, unless a test puts a socket here
        self.free_socket = None
        self.channels: dict[str, None] = {}
        self.pending: list[Bundle] | None = None
        self.commands: deque[bytes] | None = None
        self.errors = 0
        self.allowance = 0.0
        self.identity: Identity = ANONYMOUS
        self.inspects = False
        self.has_waiting = False
        self.has_room = True
        self.spent = self.counted = self.owed_seconds = 0.0
        self.later = 0
        self.state = State.OPEN
        self.sent: list[bytes] = []
        self.kept: list[tuple[bytes, int]] = []
        self.bundles: list[Sequence[Bundle]] = []
        self.closed: tuple[CloseReason, str] | None = None
        self.done = 0

    def send(self, data: bytes, bundles: Sequence[Bundle]) -> bool:
        """Take whole frames while open. What a full socket would need says the same as the bytes."""
        assert data == b"".join([bundle.data for bundle in bundles])
        for bundle in bundles:
            assert bundle.data == b"".join([entry.frame for entry in bundle.entries])
        if self.state:
            return False
        self.sent.append(data)
        self.bundles.append(tuple(bundles))
        return True

    def identify(self, identity: Identity) -> None:
        """Take it on."""
        self.identity = identity

    def queue_rest(self, bundles: Sequence[Bundle], sent: int) -> None:
        """Note what a socket did not take."""
        self.kept.append((b"".join([bundle.data for bundle in bundles]), sent))

    def send_value(self, value: Outgoing, tag: object = None) -> bool:
        """As `Connection.send_value`."""
        return self.send_frame(self.wire_format.encode(value, tag))

    def send_frame(self, frame: bytes) -> bool:
        """As `Connection.send_frame`: behind the frames of the pass under way."""
        bundle = Bundle.control(frame)
        if self.pending is None:
            return self.send(frame, (bundle,))
        self.pending.append(bundle)
        return not self.state

    def close(self, reason: CloseReason, text: str = "") -> bool:
        """End it, once."""
        if self.state:
            return False
        self.state = State.CLOSING
        self.closed = (reason, text)
        return True

    def wait_for_room(self) -> None:
        """There is some."""

    def wait_until(self, is_due: Callable[[], bool]) -> None:
        """As `Connection.wait_until`."""
        while not (is_due() or self.state):
            gevent.sleep(0.001)

    def wake(self) -> None:
        """Nothing: whoever waits looks by itself."""

    def commands_later(self) -> None:
        """Note it."""
        self.later += 1

    def spend(self, units: float, counted: float = 0.0) -> None:
        """Note it."""
        self.spent += units
        self.counted += counted

    def command_done(self) -> None:
        """As `Connection.command_done`."""
        if self.commands:
            self.commands.popleft()

    def commands_done(self) -> None:
        """Note that the commands are worked off."""
        self.commands = None
        self.done += 1

    @property
    def real(self) -> Connection:
        """The same object, for the type checker."""
        return cast("Connection", self)

    @property
    def messages(self) -> list[Any]:
        """All JSON messages it was told to send, in order."""
        found, rest = wire.split(b"".join(self.sent))
        assert rest == b"", "a frame was cut"
        return [frame.json for frame in found]


class FakeOwner:
    """Owns connections; its clock stands still until the test moves it, and commands wait for the test.

    Attributes:
        left: what `deadline` answers.
        delays: what was asked of `schedule`, in order.
        closing: why connections left OPEN, and how many messages were given up.
        shed: how many messages were given up of connections that were to stay, each time.
        closed: connections whose descriptor is gone.
        told: connections that said they have commands.
        pongs: what pongs carried.
        ended: subscriptions that clients were told to have ended.
        charged: units of work.
        price_of_work: what each costs.
    """

    def __init__(self, **limits: Any) -> None:
        slow_policy = limits.pop("slow_policy", SlowPolicy.DISCONNECT)
        if slow_policy is not SlowPolicy.DISCONNECT:
            limits["dropping"] = {slow_policy: lambda _: True}
        self.event_hub = gevent.get_hub()
        self.buffer = bytearray(64 << 10)
        self.now = 1000.0
        self.limits = replace(LIMITS, **limits)
        self.centrifugo_limits = self.limits.for_centrifugo()
        self.ready: ReadyQueue[Connection] = ReadyQueue()
        self.excesses = 0
        self.ledger = Ledger(1 << 40, self._count_excess)
        self.default_format: WireFormat = FORMATS.default
        self.left = (math.inf, CloseReason.POLICY, "")
        self.delays: list[float] = []
        self.shed: list[int] = []
        self.flushed: list[int] = []
        self.closing: list[tuple[CloseReason, int]] = []
        self.closed: list[Connection] = []
        self.told: list[Connection] = []
        self.pongs: list[bytes] = []
        self.ended: list[str] = []
        self.charged = 0.0
        self.price_of_work = 1.0

    def _count_excess(self) -> None:
        self.excesses += 1

    def price(self, conn: Connection, units: float) -> float:
        """As the test says."""
        self.charged += units
        return self.price_of_work

    def ping_payload(self) -> bytes:
        """Always the same."""
        return b"sent"

    def on_pong(self, payload: bytes) -> None:
        """Note it."""
        self.pongs.append(payload)

    def on_command(self, conn: Connection) -> None:
        """Note it; the commands stay where they are."""
        self.told.append(conn)

    def on_unsubscribed(self, conn: Connection, ending: set[str]) -> None:
        """Note it, and end them."""
        self.ended += sorted(ending)
        ending.clear()

    def on_shed(self, conn: Connection, messages: int, gaps: int) -> None:
        """Note it."""
        self.shed.append(messages)

    def on_flushed(self, conn: Connection, messages: int) -> None:
        """Note it."""
        self.flushed.append(messages)

    def on_closing(self, conn: Connection, reason: CloseReason, messages_lost: int) -> None:
        """Note it."""
        self.closing.append((reason, messages_lost))

    def on_closed(self, conn: Connection) -> None:
        """Note it."""
        self.closed.append(conn)

    def deadline(self, conn: Connection) -> tuple[float, CloseReason, str]:
        """As the test says."""
        return self.left

    def schedule(self, conn: Connection, delay_seconds: float) -> None:
        """Note it; the test calls `on_timer` itself."""
        self.delays.append(delay_seconds)


class Peer:
    """The client's end of a socket, for a greenlet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = gevent.socket.socket(sock.family, sock.type, fileno=sock.detach())
        self.sock.settimeout(SECONDS)
        self._found: list[wire.Frame] = []
        self._rest = b""

    def send(self, data: bytes) -> None:
        """Send everything."""
        self.sock.sendall(data)

    def _receive(self) -> bool:
        chunk = self.sock.recv(1 << 16)
        found, self._rest = wire.split(self._rest + chunk)
        self._found += found
        return bool(chunk)

    def next(self) -> wire.Frame:
        """The next frame, whatever follows it."""
        while not self._found:
            assert self._receive(), f"the stream ended with {self._rest!r}"
        return self._found.pop(0)

    def frames(self, count: int) -> list[wire.Frame]:
        """The next `count` frames, when no whole one has come behind them yet."""
        while len(self._found) < count:
            assert self._receive(), f"the stream ended after {self._found} with {self._rest!r}"
        found, self._found = self._found, []
        assert len(found) == count, found
        return found

    def to_end(self) -> list[wire.Frame]:
        """All frames until the server's end of the stream, which must not fall into one of them."""
        while self._receive():
            pass
        assert self._rest == b"", f"the stream ends within a frame: {self._rest[:40]!r}"
        found, self._found = self._found, []
        return found

    def close(self) -> None:
        """Leave."""
        self.sock.close()
