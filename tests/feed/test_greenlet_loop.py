"""`odinws.feed.greenlet_loop`: asyncio in one greenlet, with real sockets, beside other greenlets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterator
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, TypeVar

import gevent
import pytest

from odinws.feed.greenlet_loop import GreenletEventLoop, GreenletSelector
from tests.fakes import in_greenlet, running, settle

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, in this greenlet."""
    with asyncio.Runner(loop_factory=GreenletEventLoop) as runner:
        return runner.run(main)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one stream, which do not block."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


Pair = tuple[socket.socket, socket.socket]


@in_greenlet
def test_a_stream_of_bytes(pair: Pair) -> None:
    """Megabytes go both ways through asyncio streams, whole and in order."""
    size = 4 << 20
    text = bytes(range(256)) * (size // 256)

    async def talk(end: socket.socket) -> bytes:
        reader, writer = await asyncio.open_connection(sock=end)
        writer.write(text)
        found = await reader.readexactly(size)
        await writer.drain()
        writer.close()
        return found

    async def both() -> list[bytes]:
        return await asyncio.gather(*(talk(end.dup()) for end in pair))

    assert run(both()) == [text, text]


@in_greenlet
def test_timers_and_threads() -> None:
    """Timers come in time, and what another thread calls wakes the loop."""

    async def main() -> tuple[float, int]:
        started = time.perf_counter()
        await asyncio.sleep(0.02)
        return time.perf_counter() - started, await asyncio.to_thread(lambda: 7)

    slept, answer = run(main())
    assert 0.02 <= slept < 20
    assert answer == 7


@in_greenlet
def test_others_run_while_asyncio_waits_and_while_it_does_not() -> None:
    """A loop that always has something to do gives the thread away every few milliseconds."""
    turns = 0

    def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    async def wait() -> None:
        await asyncio.sleep(0.02)

    async def busy() -> None:
        end = time.perf_counter() + 0.05
        while time.perf_counter() < end:
            await asyncio.sleep(0)

    with running(other):
        run(wait())
        assert turns > 2
        turns = 0
        run(busy())
        assert turns > 2


@in_greenlet
def test_ready_descriptors(pair: Pair) -> None:
    """Readiness is reported while it lasts, for the requested events; not for unregistered descriptors."""
    selector = GreenletSelector()
    ours, theirs = pair[0].fileno(), pair[1]
    key = selector.register(ours, EVENT_READ | EVENT_WRITE, "it")
    assert selector.select(1) == [(key, EVENT_WRITE)]
    theirs.send(b"x")
    selector.unregister(ours)
    settle()
    assert selector.select(0) == []
    key = selector.register(ours, EVENT_READ)
    for _ in range(2):
        assert selector.select(1) == [(key, EVENT_READ)], "it has not been read"
    pair[0].recv(1)
    settle()
    selector.select(0)
    assert selector.select(0.01) == []
    selector.close()
    assert not selector.get_map()


@in_greenlet
def test_wrong_registrations(pair: Pair) -> None:
    """Twice is an error, and so is letting go of what is not held."""
    with GreenletSelector() as selector:
        selector.register(pair[0].fileno(), EVENT_READ)
        with pytest.raises(KeyError, match="registered already"):
            selector.register(pair[0].fileno(), EVENT_READ)
        with pytest.raises(KeyError):
            selector.unregister(pair[1].fileno())
