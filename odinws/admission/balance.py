"""An even spread of connections over the workers of a server.

All workers accept from one socket, and the kernel does not care whose turn it is: long-lived connections
pile up unevenly. So a worker that holds clearly more than the one with the fewest steps aside for a
moment, and another one takes the next.

That does not help a worker that came back empty while nobody reconnects. Then those that hold far more than
their share send some of their connections away. Such a client has to connect anew, so this is done late and
slowly.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import gevent
from gevent.baseserver import BaseServer

from odinws.admission.load import accepting_others
from odinws.connections.clients import Clients
from odinws.scheduling import until_tick
from odinws.shared import SharedState
from odinws.shared.worker_stats import WorkerStats

_SLACK = 8  # connections ahead that are no reason to step aside
_SLACK_SHARE = 0.01
_LOOK_SECONDS = 0.005
_ASIDE_SECONDS = 0.25  # then it takes at least one, whatever the others do
PATIENCE_SECONDS = 60.0  # unevenness that is younger evens out by reconnects, or is of the start
_TOLERANCE_SHARE = 0.1
_TOLERANCE = 50  # connections above the share that are never worth it
_REBALANCE_SECONDS = 1.0  # between two looks


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


def excess(held: int, others: list[int]) -> int:
    """Connections of a worker above its share; 0 within the tolerance.

    Args:
        held: by this worker; others: by each of the other workers that accept.
    """
    if not others:
        return 0
    share = (held + sum(others)) / (1 + len(others))
    above = int(held - share)
    return above if above > max(_TOLERANCE, _TOLERANCE_SHARE * share) else 0


class Rebalancing:
    """Sends connections of one worker to the others.

    Args:
        shared: state of the server; stats: of this worker.
        clients: of this worker.
        rate: connections per second; 0: none.
    """

    def __init__(self, shared: SharedState, stats: WorkerStats, clients: Clients, rate: float) -> None:
        self._shared = shared
        self._stats = stats
        self._clients = clients
        self._rate = rate
        self._uneven_since: float | None = None

    def run(self) -> None:
        """Look each second, for the life of the worker."""
        while True:
            gevent.sleep(until_tick(_REBALANCE_SECONDS))
            self.look(time.monotonic())

    def look(self, now: float) -> int:
        """Send away what is due; returns how many went.

        Args:
            now: monotonic seconds.
        """
        above = self._excess()
        if not above:
            self._uneven_since = None
            return 0
        if self._uneven_since is None:
            self._uneven_since = now
        if now - self._uneven_since < PATIENCE_SECONDS:
            return 0
        gone = self._clients.close_some(min(above, max(1, round(self._rate * _REBALANCE_SECONDS))))
        self._stats.totals.rebalanced += gone
        return gone

    def _excess(self) -> int:
        if not self._rate or not self._stats.accepting:
            return 0
        others = accepting_others(self._shared, self._stats, time.monotonic())
        return excess(self._stats.connections, [stats.connections for stats in others])
