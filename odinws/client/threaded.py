"""The client for threads. Each iteration has an event loop in a thread of its own, which ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from odinws.client.backoff import Wait
from odinws.client.base import ROOM, BaseClient, Found, Put
from odinws.client.subscriptions import Event


class Client(BaseClient):
    """Iterate over it: messages and gaps, as long as the server wants this client.

    Arguments are those of `BaseClient`; `token` runs in a thread of its own. One thread iterates at a time;
    all other methods may be called by any thread, also while there is no connection. Whoever leaves the loop
    may iterate again later and misses nothing.

    Raises:
        RefusedError: while iterating: the server will not have this client.
        RuntimeError: while iterating: another thread iterates already.
    """

    _reader: _Reader | None = None

    def __iter__(self) -> Iterator[Event]:
        """Connect, read, and come back, until `close`."""
        with _lock:
            if self._is_closed:
                return
            if self._reader is not None:
                raise RuntimeError("somebody iterates over this client already")
            reader = self._reader = _Reader(self._run, self._undelivered)
        try:
            while (one := reader.get()) is not None and not self._is_closed:
                if not isinstance(one, Wait):
                    yield one
                elif self._on_wait is not None:
                    self._on_wait(*one)
            if reader.error is not None and not self._is_closed:
                raise reader.error
        finally:
            reader.stop()
            self._undelivered = reader.rest()
            self._reader = None

    def subscribe(self, *channels: str) -> None:
        """Ask for more channels; the answer is among the events only if one is rejected.

        Without a connection the next one asks. After `close` nothing happens.
        """
        self._do(lambda: self._want(channels))

    def unsubscribe(self, *channels: str) -> None:
        """Give channels back."""
        self._do(lambda: self._state.forget(channels))

    def close(self) -> None:
        """End the connection and the iteration, whatever they are at; it takes `CLOSE_SECONDS` at most.

        What was received and not yet given out is dropped. May be called any number of times. What can't be
        interrupted is left to end by itself, and its result is dropped: the token function, and a look-up of
        the host's name.
        """
        with _lock:
            self._is_closed = True
            reader = self._reader
        if reader is not None:
            reader.stop()

    def _do(self, change: Callable[[], str]) -> None:
        """Change the state and send the command for it; in the thread of the connection, if there is one."""
        with _lock:
            reader = self._reader
            if self._is_closed:
                return
            if reader is None or not reader.soon(lambda: reader.loop.create_task(self._say(change()))):
                change()

    async def _call(self, token: Callable[[], str | Awaitable[str]]) -> str:
        """In a thread of its own that nobody waits for: `asyncio.to_thread` holds up the end of a process."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[str] = loop.create_future()

        def give(result: str | None, error: Exception | None) -> None:
            if found.done():
                return
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(result or "")

        def work() -> None:
            result, error = None, None
            try:
                result = asyncio.run(super(Client, self)._call(token))
            except Exception as caught:  # noqa: BLE001 -- whatever a user's function raises
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(give, result, error)

        threading.Thread(target=work, name="odinws-token", daemon=True).start()
        return await found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_lock = threading.Lock()  # of beginnings, ends and subscriptions, which are rare: one for all clients


class _Reader:
    """A thread with an event loop, and what it hands over.

    Attributes:
        error: why it ended by itself.
        loop: that it runs.
    """

    def __init__(self, run: Callable[[Put], Coroutine[Any, Any, None]], before: Iterable[Found]) -> None:
        self.error: BaseException | None = None
        self._found: queue.SimpleQueue[Found | None] = queue.SimpleQueue()
        for one in before:
            self._found.put(one)
        self._has_room = asyncio.Event()
        self.loop = asyncio.new_event_loop()
        self._task = self.loop.create_task(run(self._put))
        self._thread = threading.Thread(target=self._work, name="odinws-client", daemon=True)
        self._thread.start()

    def get(self) -> Found | None:
        """The next one; None: there will be none."""
        found = self._found.get()
        if self._found.qsize() == ROOM // 2:
            self.soon(self._has_room.set)
        return found

    def rest(self) -> list[Found]:
        """What nobody got, apart from waits."""
        rest = (self._found.get() for _ in range(self._found.qsize()))
        return [one for one in rest if one is not None and not isinstance(one, Wait)]

    def stop(self) -> None:
        """End the thread and all that it holds."""
        self.soon(self._task.cancel)
        if threading.current_thread() is not self._thread:  # the garbage collector may end an iteration there
            self._thread.join()

    def soon(self, function: Callable[[], object]) -> bool:
        """Call a function in the thread; False if that has ended."""
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop has ended
            return False
        return True

    async def _put(self, more: Sequence[Found]) -> None:
        for one in more:
            self._found.put(one)
        while self._found.qsize() >= ROOM:
            self._has_room.clear()
            if self._found.qsize() >= ROOM:  # else room was made before it was asked for
                await self._has_room.wait()

    def _work(self) -> None:
        loop = self.loop
        try:
            loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 -- raised in the iteration
            self.error = error
        finally:
            with _lock:  # after this nobody asks it for anything
                loop.run_until_complete(_end_others())
                loop.close()
            self._found.put(None)


async def _end_others() -> None:
    """End all other tasks of a loop, after what was asked of it until now."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
