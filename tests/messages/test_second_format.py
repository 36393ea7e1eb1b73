"""A second wire format, entirely different, served by the same hub, recovery and connections."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from typing import Any, cast

import gevent
import pytest

import strategies
from odinws.access.tokens import Identity
from odinws.close_codes import CloseReason
from odinws.connections.clients import Clients
from odinws.connections.commands import Commands
from odinws.connections.connection import Connection, State
from odinws.connections.limits import ConnectionLimits
from odinws.errors import CommandError, FrameError
from odinws.fanout.hub import Hub
from odinws.fanout.recovery import Recovery
from odinws.fanout.ring import Ring
from odinws.feed.events import Lost, Message, NewEpoch
from odinws.feed.status import FeedStatus
from odinws.messages import frames
from odinws.messages.frames import Opcode
from odinws.messages.json_format import JsonFormat
from odinws.messages.protocol import (
    Error,
    Heartbeat,
    Outgoing,
    Pong,
    Replay,
    Request,
    Stats,
    Subscribe,
    SubscriptionAck,
    Unsubscribe,
    Welcome,
)
from odinws.messages.wire_format import FormatRegistry, WireFormat
from odinws.monitoring.stats_broadcaster import StatsBroadcaster
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies import Strategy
from tests import wire
from tests.connections.link import socket_pair
from tests.fakes import Peer, in_greenlet, running, settle, welcome
from tests.server import Server
from tests.strategies.support import cooperative_locks


class LineReader:
    """Cuts at line ends."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self.frame_count = 0

    @property
    def held_bytes(self) -> int:
        """The line under way, and those that nobody has taken."""
        return len(self._rest)

    @property
    def is_idle(self) -> bool:
        """Whether no line is under way."""
        return not self._rest

    def feed(self, data: bytes) -> Generator[frames.Message, None, None]:
        """A whole line is a message; `bye` is the end."""
        self._rest += data
        if len(self._rest.rpartition(b"\n")[2]) > self._max_bytes:
            raise FrameError(CloseReason.TOO_BIG, "a long line")
        while b"\n" in self._rest:
            line, _, self._rest = self._rest.partition(b"\n")
            self.frame_count += 1
            yield frames.Message(Opcode.CLOSE if line == b"bye" else Opcode.BINARY, line)


class LineFormat(WireFormat):
    """Lines of words, without WebSocket frames. Several commands in a line, each with a number of its own."""

    command_opcode = Opcode.BINARY

    def __init__(self, window_bits: int = 0, min_deflate_bytes: int = 0) -> None:
        self.made: list[tuple[str, int]] = []

    def message(self, message: Message, via: str) -> bytes:
        """Any payload of one line, with the wildcard that it came by."""
        if b"\n" in message.payload:
            raise ValueError("more than a line")
        self.made.append((via, message.seq))
        by = "" if via == message.channel else f" by {via}"
        return f"{message.channel} {message.seq}{by}: ".encode() + message.payload + b"\n"

    def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
        """What is missing."""
        return f"{channel} {first}-{last} missing ({reason})\n".encode()

    def encode(self, value: Outgoing, tag: object = None) -> bytes:
        """Only what this format can represent; an answer begins with the number of its command."""
        match value:
            case Welcome():
                text = f"hello {value.client_id.partition('-')[2]} in {value.epoch}"
            case SubscriptionAck():
                text = f"{tag} {','.join(value.subscribed)}"
            case Pong():
                text = f"{tag} alive"
            case Error():
                text = f"{tag} failed {value.code}"
            case Stats():
                text = f"stats {value.data}"
            case _:
                return b""
        return text.encode() + b"\n"

    def ping(self, payload: bytes) -> bytes:
        """An empty line."""
        return b"\n"

    def pong(self, payload: bytes) -> bytes:
        """There are no ping frames."""
        raise NotImplementedError

    def close(self, reason: CloseReason, text: str, retry_after_seconds: float | None = None) -> bytes:
        """Codes of its own."""
        later = "" if retry_after_seconds is None else " come back"
        return f"end {5000 + reason.code} {text}{later}\n".encode()

    def close_answer(self, payload: bytes) -> bytes:
        """The same word."""
        return payload + b"\n"

    def reader(self, max_bytes: int) -> LineReader:
        """Of lines."""
        return LineReader(max_bytes)

    def decode(self, payload: bytes) -> Iterator[Request]:
        """`number verb channel since`, with semicolons between commands; empty ones say nothing."""
        for part in filter(None, payload.decode().split(";")):
            match part.split():
                case [number, "sub", channel]:
                    yield Request(Subscribe([channel]), number)
                case [number, "sub", channel, since]:
                    yield Request(Subscribe([channel], {channel: int(since)}), number)
                case [number, "unsub", channel]:
                    yield Request(Unsubscribe([channel]), number)
                case [number, "replay", channel]:
                    yield Request(Replay(channel, start=1), number)
                case [number, "beat"]:
                    yield Request(Heartbeat(), number)
                case [number, *_] if number.isdigit():
                    yield Request(CommandError("UNKNOWN", "no such verb"), number)
                case _:
                    raise FrameError(CloseReason.POLICY, "no number")


class NoFeed:
    """The ring has it all."""

    status = FeedStatus()

    def is_unsure(self, _: int) -> bool:
        """What the ring has is all there was."""
        return False


class World:
    """All parts of a worker between its feed and its sockets, as `Services` puts them together."""

    def __init__(self, **environ: str) -> None:
        settings = Settings.from_environ(environ)
        limits = ConnectionLimits.of(settings)
        self.stats = WorkerStats()
        self.formats = FormatRegistry(JsonFormat, 0, {"lines": LineFormat})
        with cooperative_locks():
            self.strategy: Strategy[Connection] = strategies.create("sync-dict")
        self.clients = Clients(
            limits, self.strategy, self.stats, self.formats.default, lambda conn: self.commands.run(conn)
        )
        self.hub = Hub(
            self.strategy, self.stats, 1000, 0.0, self.formats.default, self.welcome, Ring(1000, 1 << 20)
        )
        recovery = Recovery(settings, self.strategy, self.hub, cast("Any", NoFeed()), self.stats)
        self.broadcaster = StatsBroadcaster(lambda _: 42)
        self.commands: Commands[Connection] = Commands(
            settings, limits, self.strategy, self.stats, self.refresh, recovery, self.broadcaster
        )
        self.lines = cast("LineFormat", self.formats.of("lines", 0))
        self.hub.deliver([NewEpoch("E1", 0)])
        self.seq = 0

    def refresh(self, old: Identity, token: str) -> Identity:
        """Nobody has a token."""
        return old

    def welcome(self, conn: Connection) -> Welcome:
        """As the services make it."""
        return welcome(conn.id, self.hub.epoch)

    def join(self, subprotocol: str | None = "lines") -> tuple[Connection, Peer]:
        """A client that was greeted."""
        ours, theirs = socket_pair()
        self.stats.connections += 1
        conn = self.clients.open(ours.detach(), "peer", self.formats.of(subprotocol, 0))
        conn.inspects = True
        conn.send_value(self.welcome(conn))
        conn.start(b"")
        return conn, Peer(theirs)

    def publish(self, channel: str, *payloads: bytes) -> None:
        """Give the hub messages."""
        for payload in payloads:
            self.seq += 1
            self.hub.receive(Message(channel, self.seq, 0, 1, payload))


def lines(peer: Peer, count: int) -> list[str]:
    """The next lines that a client reads, all that has come."""
    data = b""
    while data.count(b"\n") < count:
        chunk = peer.sock.recv(1 << 16)
        assert chunk, data
        data += chunk
    *found, rest = data.decode().split("\n")
    assert (len(found), rest) == (count, ""), found
    return found


@in_greenlet
def test_commands_and_answers() -> None:
    """Several commands in a line, answered by their numbers; what it has no words for is not answered."""
    world = World()
    conn, peer = world.join()
    assert lines(peer, 1) == ["hello 1 in E1"]
    peer.send(b"7 sub token.A;8 bea")
    settle()
    assert conn.commands is None
    peer.send(b"t;9 fly;;10 unsub token.A;11 sub nowhere;12 sub token.B\n")
    assert lines(peer, 5) == ["7 token.A", "8 alive", "9 failed UNKNOWN", "11 ", "12 token.B"]
    assert [*conn.channels] == ["token.B"]
    assert (conn.errors, world.stats.totals.commands) == (2, 6)
    peer.send(b"no number\n1 beat\n")
    assert lines(peer, 1) == ["end 6008 no number"]
    assert conn.reason is CloseReason.POLICY
    world.clients.abort_all()


@in_greenlet
def test_each_command_of_a_line_counts_against_the_rate() -> None:
    """Those beyond it are refused by their numbers, and too many end the connection."""
    world = World(WS_COMMAND_RATE="0.1", WS_COMMAND_BURST="2", WS_MAX_ERRORS="2")
    _, peer = world.join()
    assert len(lines(peer, 1)) == 1
    peer.send(b"1 beat;2 beat;3 beat;4 beat;5 beat\n")
    refused = [f"{number} failed RATE_LIMIT_EXCEEDED" for number in (3, 4)]
    assert lines(peer, 5) == ["1 alive", "2 alive", *refused, "end 6008 2 bad commands"]
    world.clients.abort_all()


@pytest.mark.parametrize("channels", [["token.A"], ["token.A", "token.B"]])
@in_greenlet
def test_both_formats_in_one_pass(channels: list[str]) -> None:
    """Each is encoded once for all its connections; one may represent what the other can't."""
    world = World()
    (_, one), (_, other), (native, browser) = world.join(), world.join(), world.join(None)
    for channel in channels:
        for peer in (one, other):
            peer.send(f"1 sub {channel}\n".encode())
        world.strategy.subscribe(native, channel)
    settle()
    assert [len(lines(peer, 1 + len(channels))) for peer in (one, other)] == [1 + len(channels)] * 2
    assert browser.next().json["type"] == "welcome"
    with running(world.hub.run):
        for channel in channels:
            world.publish(channel, b"not JSON", b"1\n", b"2")
        last = 3 * len(channels)
        expected = [
            line
            for index, channel in enumerate(channels)
            for line in (
                f"{channel} {3 * index + 1}: not JSON",
                f"{channel} {3 * index + 2}-{3 * index + 2} missing (invalid_payload)",
                f"{channel} {3 * index + 3}: 2",
            )
        ]
        assert lines(one, last) == lines(other, last) == expected
        assert [frame.json["type"] for frame in browser.frames(last)] == ["gap", "message", "message"] * len(
            channels
        )
    assert world.lines.made == [(c, 3 * i + n) for i, c in enumerate(channels) for n in (1, 3)]
    totals = world.stats.totals
    assert (totals.delivered, totals.feed_invalid) == (3 * last, len(channels))
    assert sum(totals.gaps) == 3 * len(channels)
    world.clients.abort_all()


@in_greenlet
def test_wildcards_resuming_and_announcements() -> None:
    """The format learns by which subscription a message goes, live and from the ring."""
    world = World()
    conn, peer = world.join()
    assert len(lines(peer, 1)) == 1
    with running(world.hub.run):
        world.publish("token.A", b"a", b"b")
        gevent.sleep(0.01)
        peer.send(b"1 sub token.* 1;2 replay token.A\n")
        assert lines(peer, 4) == [
            "1 token.*",
            "token.A 2 by token.*: b",
            "token.A 1: a",
            "token.A 2: b",
        ]
        world.publish("token.B", b"c")
        assert lines(peer, 1) == ["token.B 3 by token.*: c"]
        world.hub.receive(Lost(None, 4, 6, "expired"))
        world.hub.receive(NewEpoch("E2", 0))
        assert lines(peer, 2) == ["token.* 4-6 missing (expired)", "hello 1 in E2"]
    conn.abort()


@in_greenlet
def test_figures_pings_and_the_end() -> None:
    """What the server says by itself is said in the client's format too."""
    world = World(WS_HEARTBEAT_SECONDS="5", WS_IDLE_SECONDS="60")
    (conn, peer), (other, leaver) = world.join(), world.join()
    assert [len(lines(each, 1)) for each in (peer, leaver)] == [1, 1]
    assert world.broadcaster.add(conn)
    world.broadcaster.send()
    assert lines(peer, 1) == ["stats 42"]
    world.clients.now += 6
    conn.on_timer()
    assert lines(peer, 1) == [""]
    leaver.send(b"bye\n")
    assert lines(leaver, 1) == ["bye"]
    settle()
    assert (other.state, other.reason) == (State.CLOSED, CloseReason.CLIENT)
    assert world.clients.close_with_retry_hint(conn, CloseReason.RESTART)
    assert lines(peer, 1) == ["end 6012 server restarts come back"]
    world.clients.abort_all()


@in_greenlet
def test_a_slow_client_is_told_in_its_format() -> None:
    """What an outbox drops is named by a gap in the connection's format."""
    world = World(WS_SLOW_POLICY="conflate", WS_OUTBOX_FRAMES="16")
    conn, peer = world.join()
    world.strategy.subscribe(conn, "token.A")
    payload = b"x" * 2000
    with running(world.hub.run):
        world.publish("token.A", *[payload] * 400)
        gevent.sleep(0.01)
        heard = b""
        while not heard.endswith(b"token.A 400: " + payload + b"\n"):
            heard += peer.sock.recv(1 << 16)
    told = [line.split(b":")[0].decode() for line in heard.split(b"\n")[1:-1]]
    whole = [int(line.split()[1]) for line in told if "missing" not in line]
    (gap,) = [line for line in told if "missing" in line]
    assert gap == f"token.A {whole[-2] + 1}-399 missing (slow)"
    assert whole == [*range(1, whole[-2] + 1), 400]
    conn.abort()


def test_it_is_agreed_on_in_a_real_handshake() -> None:
    """A real server, of whose code the format changed nothing: the first subprotocol that it knows counts."""
    command = (sys.executable, "-m", "gunicorn", "-c", "tests/messages/second_format_conf.py")
    with Server({"WS_WORKERS": "1"}, command=command) as server, wire.Peer(server.port) as peer:
        answer = peer.send(wire.request(Sec_WebSocket_Protocol="other, lines, odinws")).http()
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "lines")
        peer.send(b"1 sub global;2 beat\n")
        received = answer.rest
        while received.count(b"\n") < 3:
            received += peer.sock.recv(1024)
        hello, *answers = received.decode().splitlines()
        assert hello.startswith("hello ")
        assert answers == ["1 global", "2 alive"]
