"""The client for asyncio."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self

from odinws.client.backoff import Wait
from odinws.client.base import ROOM, BaseClient, Found
from odinws.client.subscriptions import Event


class AsyncClient(BaseClient):
    """Iterate over it with `async for`: messages and gaps, as long as the server wants this client.

    Arguments are those of `BaseClient`; `token` may be a coroutine function. One task iterates at a time; all
    other methods may be called by any task of the same event loop, also while there is no connection. Whoever
    leaves the loop may iterate again later and misses nothing.

    Raises:
        RefusedError: while iterating: the server will not have this client.
        RuntimeError: while iterating: another task iterates already.
    """

    _task: asyncio.Task[None] | None = None
    _iteration: weakref.ref[AsyncGenerator[Event, None]] | None = None

    def __aiter__(self) -> AsyncGenerator[Event, None]:
        """Connect, read, and come back, until `close`."""
        before = None if self._iteration is None else self._iteration()
        if getattr(before, "ag_frame", None) is not None:  # it has not ended
            raise RuntimeError("somebody iterates over this client already")
        iteration = self._iterate()
        self._iteration = weakref.ref(iteration)
        return iteration

    async def _iterate(self) -> AsyncGenerator[Event, None]:
        while self._task is not None:  # an iteration that was left by `break` and is being ended by the loop
            await asyncio.sleep(0.001)
        if self._is_closed:
            return
        found: asyncio.Queue[Found | None] = asyncio.Queue()
        has_room = asyncio.Event()

        async def put(more: Sequence[Found]) -> None:
            for one in more:
                found.put_nowait(one)
            while found.qsize() >= ROOM:
                has_room.clear()
                await has_room.wait()

        for kept in self._undelivered:
            found.put_nowait(kept)
        task = self._task = asyncio.create_task(self._run(put))
        task.add_done_callback(lambda _: found.put_nowait(None))
        try:
            while (one := await found.get()) is not None and not self._is_closed:
                has_room.set()
                if not isinstance(one, Wait):
                    yield one
                elif self._on_wait is not None:
                    self._on_wait(*one)
            if not self._is_closed:
                task.result()  # raises
        finally:
            await _end(task)
            left = (found.get_nowait() for _ in range(found.qsize()))
            self._undelivered = [event for event in left if event and not isinstance(event, Wait)]
            self._task = None

    async def subscribe(self, *channels: str) -> None:
        """Ask for more channels; the answer is among the events only if one is rejected.

        Without a connection the next one asks. After `close` nothing happens.
        """
        if not self._is_closed:
            await self._say(self._want(channels))

    async def unsubscribe(self, *channels: str) -> None:
        """Give channels back."""
        if not self._is_closed:
            await self._say(self._state.forget(channels))

    async def close(self) -> None:
        """End the connection and the iteration, whatever they are at; it takes `CLOSE_SECONDS` at most.

        What was received and not yet given out is dropped. May be called any number of times.
        """
        self._is_closed = True
        if self._task is not None:
            await _end(self._task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
