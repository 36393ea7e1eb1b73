"""Back to an even spread: a worker that holds far more than its share sends some of its connections away.

New connections even out by themselves (see balance). What does not is a worker that came back empty while
nobody reconnects. A client that is sent away has to connect anew, so this is done late and slowly.
"""

from __future__ import annotations

import time

import gevent

from odinws.admission.load import accepting_others
from odinws.connections.clients import Clients
from odinws.shared import SharedState
from odinws.shared.worker_stats import WorkerStats

PATIENCE_SECONDS = 60.0  # unevenness that is younger evens out by reconnects, or is of the start
_TOLERANCE_SHARE = 0.1
_TOLERANCE = 50  # connections above the share that are never worth it
_LOOK_SECONDS = 1.0


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
            gevent.sleep(_LOOK_SECONDS)
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
        gone = self._clients.close_some(min(above, max(1, round(self._rate * _LOOK_SECONDS))))
        self._stats.totals.rebalanced += gone
        return gone

    def _excess(self) -> int:
        if not self._rate or not self._stats.accepting:
            return 0
        others = accepting_others(self._shared, self._stats, time.monotonic())
        return excess(self._stats.connections, [stats.connections for stats in others])
