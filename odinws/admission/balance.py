"""An even spread of connections over the workers of a server.

All workers accept from one socket, and the kernel does not care whose turn it is: long-lived connections
pile up unevenly. So a worker that holds clearly more than the one with the fewest steps aside for a
moment, and another one takes the next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import gevent
from gevent.baseserver import BaseServer

from odinws.admission.load import accepting_others
from odinws.shared import SharedState
from odinws.shared.worker_stats import WorkerStats

_SLACK = 8  # connections ahead that are no reason to step aside
_SLACK_SHARE = 0.01
_LOOK_SECONDS = 0.005
_ASIDE_SECONDS = 0.25  # then it takes at least one, whatever the others do


class Balance:
    """Lets one worker step aside.

    Args:
        shared: state of the server; stats: of this worker.
        servers: what accepts.
    """

    def __init__(self, shared: SharedState, stats: WorkerStats, servers: Sequence[BaseServer]) -> None:
        self._shared = shared
        self._stats = stats
        self._servers = servers
        self._aside = False
        self.descriptors: set[int] = set()  # of clients' sockets that no connection owns

    def entered(self, descriptor: int) -> None:
        """A client was accepted: count it, and look whether the next is another's."""
        self._stats.pending += 1
        self.descriptors.add(descriptor)
        if not self._aside and self._is_ahead():
            self._aside = True
            for server in self._servers:
                server.stop_accepting()
            gevent.spawn(self._wait)

    def left(self, descriptor: int | None) -> None:
        """Its last request is done: it is gone, or (None) its socket has become a connection's."""
        self._stats.pending -= 1
        if descriptor is not None:
            self.descriptors.discard(descriptor)

    def _wait(self) -> None:
        until = time.monotonic() + _ASIDE_SECONDS
        while self._is_ahead() and time.monotonic() < until:
            gevent.sleep(_LOOK_SECONDS)
        self._aside = False
        if self._stats.accepting:
            for server in self._servers:
                server.start_accepting()

    def _is_ahead(self) -> bool:
        fewest = self._fewest_elsewhere()
        return fewest is not None and _held(self._stats) > fewest * (1 + _SLACK_SHARE) + _SLACK

    def _fewest_elsewhere(self) -> int | None:
        return min(map(_held, accepting_others(self._shared, self._stats, time.monotonic())), default=None)


def _held(stats: WorkerStats) -> int:
    """Clients of a worker, also those whose request is under way: a burst is accepted faster than served."""
    return stats.connections + stats.pending
