"""An asyncio event loop that runs in one greenlet, beside gevent's loop.

gevent's own selector restarts its watchers and creates a timer in every iteration of the asyncio loop, and
switches greenlets even if callbacks are ready. This one keeps its watchers, and switches only when there is
nothing to do or when asyncio has used up its slice of time. So a busy feed can't starve other greenlets.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from contextvars import Context
from selectors import SelectorKey
from typing import Any, TypeVarTuple

import gevent
from gevent.event import Event

from odinws.scheduling import Slice

Ts = TypeVarTuple("Ts")


class GreenletSelector(selectors.BaseSelector):
    """Waits for descriptors with gevent's loop.

    A descriptor must be unregistered before it is closed. For the greenlets of one OS thread.
    """

    def __init__(self) -> None:
        self._loop = gevent.get_hub().loop
        self._keys: dict[Any, SelectorKey] = {}
        self._watchers: dict[int, Any] = {}
        self._ready: dict[int, int] = {}  # descriptor -> events since the last `select`
        self._any_ready = Event()
        self._waits = False
        self._slice = Slice()

    def wake(self) -> None:
        """Have `select` return if it waits: there is something to do other than for a descriptor."""
        if self._waits:
            self._any_ready.set()

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch a descriptor for `EVENT_READ` (1), `EVENT_WRITE` (2) or both.

        Raises:
            KeyError: it is watched already.
        """
        if fileobj in self._keys:
            raise KeyError(f"{fileobj} is registered already")
        key = self._keys[fileobj] = SelectorKey(fileobj, int(fileobj), events, data)
        watcher = self._watchers[key.fd] = self._loop.io(key.fd, events)  # gevent uses the same event masks
        watcher.start(self._happened, key.fd, pass_events=True)
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        """Stop watching a descriptor.

        Raises:
            KeyError: it is not watched.
        """
        key = self._keys.pop(fileobj)
        watcher = self._watchers.pop(key.fd)
        watcher.stop()
        watcher.close()
        self._ready.pop(key.fd, None)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """What is ready; waits at most `timeout` seconds (None: forever; 0 or less: not at all)."""
        if not self._ready and (timeout is None or timeout > 0):
            self._any_ready.clear()
            self._waits = True
            try:
                self._any_ready.wait(timeout)
            finally:
                self._waits = False
            self._slice.begin()
        else:
            self._slice.yield_if_over()
        ready, self._ready = self._ready, {}
        return [(self._keys[fd], events & self._keys[fd].events) for fd, events in ready.items()]

    def close(self) -> None:
        """Stop watching all descriptors."""
        for fileobj in list(self._keys):
            self.unregister(fileobj)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """The keys by file object."""
        return self._keys

    def _happened(self, events: int, fd: int) -> None:
        self._ready[fd] = self._ready.get(fd, 0) | events
        self._any_ready.set()


class GreenletEventLoop(asyncio.SelectorEventLoop):
    """To be run in one greenlet; only one such loop can run at a time in a thread.

    Other greenlets of the thread may schedule callbacks too.
    """

    def __init__(self) -> None:
        self._greenlet_selector = GreenletSelector()
        super().__init__(self._greenlet_selector)

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.AbstractEventLoop`."""
        self._greenlet_selector.wake()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        self._greenlet_selector.wake()
        return super().call_at(when, callback, *args, context=context)
