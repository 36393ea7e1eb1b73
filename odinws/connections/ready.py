"""What ready sockets are due, in slices of the event loop.

libev calls back for every ready socket within one iteration: 5,000 clients that vanish together would keep
everybody else waiting until the last of them is closed.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import gevent
import structlog
from gevent.event import Event

from odinws.scheduling import Slice

_AT_ONCE_SECONDS = 0.0005  # of each iteration; the commands that were read come on top

T = TypeVar("T")

log = structlog.get_logger("odinws.connections.ready")


class ReadyQueue(Generic[T]):
    """Serves at once what an iteration has time for, and the rest in order, a slice per iteration."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[T, Callable[[], object]] = OrderedDict()
        self._any = Event()
        self._began = math.inf  # of the iteration; until `run` has started everything is served at once

    def __contains__(self, item: T) -> bool:
        return item in self._waiting

    def has_time(self) -> bool:
        """Whether something may be served now: nobody waits, and the iteration has only just begun."""
        return not self._waiting and time.perf_counter() - self._began < _AT_ONCE_SECONDS

    def add(self, item: T, serve: Callable[[], object]) -> None:
        """Have `serve` called soon, and nothing that was to be called for this item before.

        Args:
            serve: returns whether it has woken a greenlet whose work is part of the slice.
        """
        self._waiting[item] = serve
        self._any.set()

    def run(self) -> None:
        """Serve for the life of the worker."""
        loop = gevent.get_hub().loop
        with contextlib.closing(loop.check(ref=False, priority=loop.MAXPRI)) as watcher:
            watcher.start(self._begin_iteration)
            self._serve()

    def _serve(self) -> None:
        time_slice = Slice()
        while True:
            self._any.wait()
            self._any.clear()
            time_slice.begin()
            while self._waiting:
                _, serve = self._waiting.popitem(last=False)
                try:
                    if serve():
                        gevent.sleep(0)
                except Exception:  # a bug must cost one connection, not the worker
                    log.exception("a ready connection could not be served")
                time_slice.yield_if_over()

    def _begin_iteration(self) -> None:
        self._began = time.perf_counter()
