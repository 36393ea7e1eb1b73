"""How an asyncio event loop lives in one greenlet beside gevent's.

gevent's own selector stops and starts its watchers and makes a timer with every turn of the asyncio loop,
and switches greenlets even when callbacks are waiting. This one keeps its watchers, switches when there
is nothing to do, or when asyncio has had its slice of time: so a feed that never pauses cannot keep the
other greenlets waiting.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from selectors import SelectorKey
from typing import Any

import gevent
from gevent.event import Event

from odinws.scheduling import Slice


class GreenletSelector(selectors.BaseSelector):
    """Waits for descriptors by gevent's loop. File objects are descriptors, as asyncio gives them.

    A descriptor must be unregistered before it is closed. Serves the greenlets of one OS thread.
    """

    def __init__(self) -> None:
        self._loop = gevent.get_hub().loop
        self._keys: dict[Any, SelectorKey] = {}
        self._watchers: dict[int, Any] = {}
        self._ready: dict[int, int] = {}  # descriptor -> events since the last `select`
        self._any_ready = Event()
        self._slice = Slice()

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch a descriptor for `EVENT_READ` (1), `EVENT_WRITE` (2) or both.

        Raises:
            KeyError: it is watched already.
        """
        if fileobj in self._keys:
            raise KeyError(f"{fileobj} is registered already")
        key = self._keys[fileobj] = SelectorKey(fileobj, int(fileobj), events, data)
        watcher = self._watchers[key.fd] = self._loop.io(key.fd, events)  # gevent counts events alike
        watcher.start(self._happened, key.fd, pass_events=True)
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        """Watch it no longer.

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
        """What is ready; waits for it at most `timeout` seconds (None: for ever; 0 or less: not at all)."""
        if not self._ready and (timeout is None or timeout > 0):
            self._any_ready.clear()
            self._any_ready.wait(timeout)
            self._slice.begin()
        else:
            self._slice.yield_if_over()
        ready, self._ready = self._ready, {}
        return [(self._keys[fd], events & self._keys[fd].events) for fd, events in ready.items()]

    def close(self) -> None:
        """Watch nothing any more."""
        for fileobj in list(self._keys):
            self.unregister(fileobj)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """The keys by their file objects."""
        return self._keys

    def _happened(self, events: int, fd: int) -> None:
        self._ready[fd] = self._ready.get(fd, 0) | events
        self._any_ready.set()


def greenlet_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop for the greenlet that runs it; a thread can have one at a time."""
    return asyncio.SelectorEventLoop(GreenletSelector())
