"""`close` of both clients, in every state, on real sockets: it is quick, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from odinws.client import AsyncClient, Client, Message
from tests.client.peer import ACKNOWLEDGED, MESSAGE, WELCOME, Caller, Peer, frame, mute_host, peer

SOON_SECONDS = 25.0  # below the 30 s and 300 s that some states would last


def silent(caller: Caller) -> None:
    """Accepts, and says nothing."""


def shaking_hands(caller: Caller) -> None:
    """Reads the request, and says nothing."""
    caller.request()


def before_welcome(caller: Caller) -> None:
    """The upgrade, and no welcome."""
    caller.upgrade()


def subscribing(caller: Caller) -> None:
    """No acknowledgement."""
    caller.upgrade()
    caller.tell(WELCOME)
    caller.heard()


def reading(caller: Caller) -> None:
    """A message, then silence."""
    subscribing(caller)
    caller.tell(ACKNOWLEDGED, MESSAGE)


def flooding(caller: Caller) -> None:
    """More messages than anybody reads."""
    subscribing(caller)
    caller.tell(ACKNOWLEDGED, *({**MESSAGE, "seq": n, "prev": n - 1} for n in range(1, 500)))


def closing(caller: Caller) -> None:
    """A close frame, and no end."""
    reading(caller)
    caller.send(frame(b"\x03\xe9server is going away; retry_after=60", 8))


def refusing(caller: Caller) -> None:
    """No room, for minutes."""
    caller.refuse(503, "Retry-After: 300")


def leaving(caller: Caller) -> None:
    """The server goes away for a minute."""
    subscribing(caller)
    caller.send(frame(b"\x03\xe9server is going away; retry_after=60", 8))
    caller._sock.close()


STATES = (
    silent,
    shaking_hands,
    before_welcome,
    subscribing,
    reading,
    flooding,
    closing,
    refusing,
    leaving,
)
states = pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
WAITING = (refusing, leaving)


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith(("socket:", "anon_inode:[eventpoll]"))
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After a test there are no more threads and sockets than before."""
    threads, before = set(threading.enumerate()), sockets()
    yield
    assert set(threading.enumerate()) <= threads
    assert sockets() <= before


class Iteration:
    """A thread that iterates over a client."""

    def __init__(self, client: Client) -> None:
        self.events: list[Any] = []
        self.error: BaseException | None = None
        self._client = client
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self._client:
                self.events.append(event)
        except BaseException as error:  # noqa: BLE001 -- the test shall see it
            self.error = error

    def ends(self) -> bool:
        """Whether it ends soon, and without an exception."""
        self._thread.join(SOON_SECONDS)
        return not self._thread.is_alive() and self.error is None


def close_in_time(client: Client) -> None:
    """Closing takes no longer than it may, twice."""
    began = time.monotonic()
    client.close()
    client.close()
    assert time.monotonic() - began < SOON_SECONDS
    assert list(client) == []


@contextlib.asynccontextmanager
async def iterating(
    server: Peer, state: Callable[[Caller], None]
) -> AsyncIterator[tuple[AsyncClient, asyncio.Task[list[Any]]]]:
    """A client and its iteration, which has come to that state; the body must end it soon."""
    waiting = asyncio.Event()
    client = AsyncClient(server.url, ["token.A"], on_wait=lambda *_: waiting.set())
    iteration = asyncio.create_task(collect(client))
    assert await asyncio.to_thread(server.reached.wait, SOON_SECONDS)
    async with asyncio.timeout(SOON_SECONDS):
        if state in WAITING:
            await waiting.wait()
        yield client, iteration
    assert await asyncio.to_thread(server.left.wait, SOON_SECONDS)


@states
def test_from_another_thread(state: Callable[[Caller], None]) -> None:
    """The iteration ends, and so does the socket."""
    waiting = threading.Event()
    with peer(state) as server:
        client = Client(server.url, ["token.A"], on_wait=lambda *_: waiting.set())
        iteration = Iteration(client)
        assert server.reached.wait(SOON_SECONDS)
        if state in WAITING:
            assert waiting.wait(SOON_SECONDS)
        close_in_time(client)
        assert iteration.ends()
        assert server.left.wait(SOON_SECONDS)
        assert server.calls == 1


@states
def test_from_another_task(state: Callable[[Caller], None]) -> None:
    """The same in asyncio."""

    async def main() -> None:
        async with iterating(server, state) as (client, iteration):
            await client.close()
            await client.close()
            await iteration
        assert await collect(client) == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with peer(state) as server:
        asyncio.run(main())
        assert server.calls == 1


@states
def test_by_cancelling_the_task(state: Callable[[Caller], None]) -> None:
    """Who cancels the task needs no `close`."""

    async def main() -> None:
        async with iterating(server, state) as (_, iteration):
            iteration.cancel()
            await asyncio.wait([iteration])
        assert iteration.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with peer(state) as server:
        asyncio.run(main())


async def collect(client: AsyncClient) -> list[Any]:
    """All events, until the end."""
    return [event async for event in client]


def test_while_connecting_to_a_host_that_does_not_answer() -> None:
    """For threads, and for asyncio."""

    async def main() -> None:
        client = AsyncClient(url)
        iteration = asyncio.create_task(collect(client))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(SOON_SECONDS):
            await client.close()
            assert await iteration == []

    with mute_host() as url:
        waits: list[str] = []
        client = Client(url, on_wait=lambda _, why: waits.append(why))
        iteration = Iteration(client)
        time.sleep(0.2)
        close_in_time(client)
        assert iteration.ends()
        assert waits == []
        asyncio.run(main())


def test_before_it_was_started() -> None:
    """Nobody calls the server."""

    async def main(url: str) -> None:
        client = AsyncClient(url)
        await client.close()
        await client.close()
        await client.subscribe("token.B")
        assert await collect(client) == []

    with peer(reading) as server:
        close_in_time(Client(server.url))
        asyncio.run(main(server.url))
        assert server.calls == 0


def test_while_a_slow_function_gets_a_token() -> None:
    """Its answer comes too late to matter, also when it is an error; asyncio cancels it."""
    asked, answer = threading.Semaphore(0), threading.Event()

    def slow() -> str:
        asked.release()
        answer.wait(30)
        return "token"

    def slow_and_wrong() -> str:
        slow()
        raise ZeroDivisionError

    async def forever() -> str:
        asked.release()
        await asyncio.sleep(300)
        return "token"

    async def main(url: str) -> None:
        client = AsyncClient(url, token=forever)
        iteration = asyncio.create_task(collect(client))
        await asyncio.to_thread(asked.acquire)
        async with asyncio.timeout(SOON_SECONDS):
            await client.close()
            assert await iteration == []

    with peer(reading) as server:
        for token in (slow, slow_and_wrong):
            client = Client(server.url, token=token)
            iteration = Iteration(client)
            assert asked.acquire(timeout=SOON_SECONDS)
            close_in_time(client)
            assert iteration.ends()
        answer.set()
        for thread in threading.enumerate():
            if thread.name == "odinws-token":
                thread.join()
        asyncio.run(main(server.url))
        assert server.calls == 0


def test_from_inside_the_loop_body() -> None:
    """The loop ends with the round it is in."""

    async def main(url: str) -> None:
        async with AsyncClient(url, ["token.A"]) as client:
            events = []
            async for event in client:
                events.append(event)
                await client.close()
        assert events == [Message("token.A", 1, "t", 5, 1)]

    with peer(flooding) as server:
        events = []
        with Client(server.url, ["token.A"]) as client:
            for event in client:
                events.append(event)
                client.close()
        assert events == [Message("token.A", 1, "t", 5, 1)]
        assert server.left.wait(SOON_SECONDS)
        asyncio.run(main(server.url))


def test_leaving_the_loop_ends_the_connection() -> None:
    """Also without `close`; the next loop begins with what the one before had not given out."""

    async def main(url: str) -> None:
        client = AsyncClient(url, ["token.A"])
        for seq in range(1, 200):
            async for event in client:
                assert event == Message("token.A", seq, "t", 5, 1)
                break
            await asyncio.sleep(0)
        async with asyncio.timeout(SOON_SECONDS):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)

    with peer(flooding) as server:
        client = Client(server.url, ["token.A"])
        for seq in range(1, 200):
            for event in client:
                assert event == Message("token.A", seq, "t", 5, 1)
                break
        asyncio.run(main(server.url))


def test_a_server_that_reads_nothing() -> None:
    """What can't be sent does not hold a close up."""

    async def main(url: str) -> None:
        async with AsyncClient(url, ["token.A"]) as client:
            async for _ in client:
                names = [f"token.{n:064d}" for n in range(1000)]
                writers = [asyncio.create_task(client.subscribe(*names)) for _ in range(100)]
                await asyncio.sleep(0.2)
                async with asyncio.timeout(SOON_SECONDS):
                    await client.close()
                    await asyncio.wait(writers)

    def deaf(caller: Caller) -> None:
        reading(caller)
        time.sleep(2)

    with peer(deaf) as server:
        asyncio.run(main(server.url))


def test_subscribing_after_close_does_nothing() -> None:
    """No error either: another thread may have closed just now."""
    with peer(reading) as server:
        client = Client(server.url, ["token.A"])
        assert next(iter(client))
        client.close()
        client.subscribe("token.B")
        client.unsubscribe("token.A")
        assert list(client) == []


def test_two_loops_at_a_time_are_refused() -> None:
    """Each would get a part."""

    async def main(url: str) -> None:
        async with AsyncClient(url, ["token.A"]) as client:
            async for _ in client:
                with pytest.raises(RuntimeError, match="already"):
                    await collect(client)
                return

    with peer(reading) as server:
        with Client(server.url, ["token.A"]) as client:
            for _ in client:
                with pytest.raises(RuntimeError, match="already"):
                    list(client)
                break
        asyncio.run(main(server.url))
