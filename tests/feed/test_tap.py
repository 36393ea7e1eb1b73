"""`odinws.feed.tap`: takes our messages from what NATS sends, whole and in order; the rest is for nats-py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import gevent
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from odinws.feed.greenlet_loop import GreenletEventLoop
from odinws.feed.tap import CHECK_MESSAGES, READ_BYTES, Tap
from tests.fakes import in_greenlet, pieces
from tests.nats import NatsServer

Taken = tuple[str, bytes, bytes, bytes]


class Frame(NamedTuple):
    """Something that NATS sends, and what is to be taken of it."""

    data: bytes
    taken: Taken | None = None


def message(number: int, subject: str, reply: bytes, headers: bytes, payload: bytes) -> Frame:
    """A message of a subscription; number 1 is ours."""
    head = [b"HMSG" if headers else b"MSG", subject.encode(), b"%d" % number]
    head += [reply] * bool(reply) + [b"%d" % len(headers)] * bool(headers)
    data = b" ".join([*head, b"%d" % len(headers + payload)]) + b"\r\n" + headers + payload + b"\r\n"
    return Frame(data, (subject, reply, headers, payload) if number == 1 else None)


LINES = [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"a":"MSG x 1 5"}\r\n', b"-ERR 'no'\r\n"]
PAYLOADS = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"\r\n", b"\r\nMSG a 1 3\r\nabc\r\n", b"PING\r\n", b"x" * 5000])
)
MESSAGES = st.builds(
    message,
    st.integers(1, 11),
    st.sampled_from(["odin.token.BTC", "_INBOX.a.b", "é"]),
    st.sampled_from([b"", b"$JS.ACK.S.c.1.2.3.4.5"]),
    st.sampled_from([b"", b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"]),
    PAYLOADS,
)
FRAMES = st.lists(MESSAGES | st.sampled_from(LINES).map(Frame), max_size=20)
OURS = [message(1, "odin.global", b"", b"", b"%d" % number) for number in range(3 * CHECK_MESSAGES)]


class World:
    """A tap without a connection, the messages that it took, and the bytes that went on."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.rest = b""
        self.errors: list[Exception] = []
        self.room = 1_000_000
        self.defect: Exception | None = None
        parser = SimpleNamespace(parse=self._parse)
        self._client = cast(Any, SimpleNamespace(_transport=None, _ps=parser, subscribe=self._subscribe))
        self._tap = Tap(self._client, self._take, lambda: self.room <= 0, self._wait, self.errors.append)

    async def see(self, *data: bytes) -> None:
        """NATS sends this, in these pieces."""
        if not self._tap._ids:
            await self._tap.subscribe(self._client, "odin.>")
        for piece in data:
            await self._client._ps.parse(piece)

    async def _parse(self, data: bytes) -> None:
        self.rest += data

    async def _subscribe(self, subject: str) -> Any:
        return SimpleNamespace(_id=1)

    def _take(self, *taken: Any) -> None:
        if self.defect:
            raise self.defect
        self.room -= 1
        self.taken.append(cast(Taken, taken))

    def _wait(self) -> None:
        self.room = CHECK_MESSAGES


@given(FRAMES, st.lists(st.integers(0, 20_000), max_size=12))
def test_what_is_ours_is_taken_however_the_bytes_come(frames: list[Frame], cuts: list[int]) -> None:
    """Each message once and in order; nats-py sees all other bytes in order, and none of ours."""

    async def run() -> None:
        world = World()
        await world.see(*pieces(b"".join(frame.data for frame in frames), cuts))
        assert world.taken == [frame.taken for frame in frames if frame.taken]
        assert world.rest == b"".join(frame.data for frame in frames if not frame.taken)
        assert world.errors == []

    asyncio.run(run())


@given(st.lists(st.integers(0, 20_000), max_size=12))
def test_without_room_it_waits(cuts: list[int]) -> None:
    """Nothing is taken meanwhile; then it goes on where it was, in portions for which there is room."""

    async def run() -> None:
        world = World()
        world.room = 0
        stream = b"".join(frame.data + LINES[0] for frame in OURS)
        for piece in pieces(stream, cuts):
            await world.see(piece)
        assert world.taken == []
        while len(world.taken) < len(OURS):
            before = len(world.taken)
            await asyncio.sleep(0)
            assert len(world.taken) - before <= CHECK_MESSAGES
        await world.see(LINES[1])
        assert world.taken == [frame.taken for frame in OURS]
        assert world.rest == LINES[0] * len(OURS) + LINES[1]

    asyncio.run(run())


def test_an_error_ends_it() -> None:
    """It is told once, and nothing is taken any more; nats-py goes on until it is closed."""

    async def run(world: World, *data: bytes) -> None:
        await world.see(*data, OURS[0].data, LINES[0])
        assert world.taken == []
        assert len(world.errors) == 1

    async def both() -> None:
        world = World()
        world.defect = RuntimeError("a defect")
        await run(world, OURS[0].data)
        assert world.errors == [world.defect]
        assert world.rest == LINES[0]
        await run(World(), b"MSG odin.x 1 many\r\n")

    asyncio.run(both())


@in_greenlet
def beside_nats(directory: Path, main: Callable[[NatsServer], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in asyncio's loop as the feed does, with a real nats-server."""
    with NatsServer(directory) as server, asyncio.Runner(loop_factory=GreenletEventLoop) as runner:
        runner.run(main(server))


@contextlib.asynccontextmanager
async def tapped(
    server: NatsServer,
    take: Callable[..., None],
    full: Callable[[], bool] = lambda: False,
    wait: Callable[[], None] = lambda: None,
) -> AsyncIterator[Client]:
    """A client of nats-py whose messages of `odin.>` are taken."""
    async with Client() as client:
        await client.connect(server.url)
        await Tap(client, take, full, wait, _fail).subscribe(client, "odin.>")
        yield client


def test_this_nats_py_can_be_tapped(tmp_path: Path) -> None:
    """With a real connection: messages are read in gevent's loop, and all that nats-py does goes on.

    If this fails with a new version of nats-py, `odinws/feed/tap.py` must follow what it has changed.
    """
    big = b"x" * (3 * READ_BYTES)

    async def main(server: NatsServer) -> None:
        taken: list[Taken] = []
        greenlets = set()

        def take(*message: Any) -> None:
            taken.append(cast(Taken, message))
            greenlets.add(gevent.getcurrent())

        closed = asyncio.Event()

        async def on_closed() -> None:
            closed.set()

        client, other = Client(), Client()
        await client.connect(server.url, allow_reconnect=False, closed_cb=on_closed)
        await other.connect(server.url)
        tap = Tap(client, take, lambda: False, lambda: None, _fail)
        await tap.subscribe(client, "odin.>")
        await client.flush()
        await client.flush()  # the first PING may overtake the subscription
        for payload in (b"1", big, b"3"):
            await other.publish("odin.a", payload, reply="answer")
        await other.publish("odin.b", b"4", headers={"A": "b"})
        while len(taken) < 4:
            await client.flush()  # PING and PONG, by nats-py
            await asyncio.sleep(0.01)
        assert [(subject, reply, payload) for subject, reply, _, payload in taken] == [
            ("odin.a", b"answer", b"1"),
            ("odin.a", b"answer", big),
            ("odin.a", b"answer", b"3"),
            ("odin.b", b"", b"4"),
        ]
        assert taken[3][2] == b"NATS/1.0\r\nA: b\r\n\r\n"
        assert greenlets == {gevent.get_hub()}
        assert [subscription.pending_msgs for subscription in client._subs.values()] == [0]
        assert (await client.jetstream().account_info()).streams == 0
        server.kill()
        await asyncio.wait_for(closed.wait(), 5)
        assert tap._watcher is None
        await other.close()

    beside_nats(tmp_path / "nats", main)


def test_a_reader_that_is_behind(tmp_path: Path) -> None:
    """nats-py's stream reader stops reading and goes on, as answers do not fit into it: none is lost."""
    count, size = 40, 50_000

    async def main(server: NatsServer) -> None:
        taken: list[bytes] = []
        async with tapped(server, lambda *message: taken.append(message[3])) as client:
            theirs = await client.subscribe("other")
            for number in range(count):
                await client.publish("odin.a", b"%d" % number)
                await client.publish("other", b"%d" % number + b" " * size)
            for number in range(count):
                assert (await theirs.next_msg(5)).data.rstrip() == b"%d" % number
            assert taken == [b"%d" % number for number in range(count)]

    beside_nats(tmp_path / "nats", main)


def test_a_connection_without_room_is_not_read(tmp_path: Path) -> None:
    """As long as it lasts; then all comes, with pauses whenever there is no room again."""
    count = 5_000

    async def main(server: NatsServer) -> None:
        taken: list[bytes] = []
        used = 0

        def take(*message: Any) -> None:
            nonlocal used
            used += 1
            taken.append(message[3])

        def wait() -> None:
            nonlocal used
            gevent.sleep(0.001)
            used = 0

        async with tapped(server, take, lambda: used >= 500, wait) as client:
            for number in range(count):
                await client.publish("odin.a", b"%d" % number)
            while len(taken) < count:
                await client.flush()
            assert taken == [b"%d" % number for number in range(count)]

    beside_nats(tmp_path / "nats", main)


def _fail(error: Exception) -> None:
    raise error
