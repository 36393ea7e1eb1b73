"""The server's figures, once a second, for the connections that watch it.

They are no messages: not of NATS, without a sequence, in no count of deliveries, and in no strategy. They are
encoded once for all watchers of a worker with the same wire format, and nothing is computed while there are
none. Any worker sees the whole shared state, so each serves its own watchers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
from gevent.event import Event

from odinws.connections.connection import Connection
from odinws.messages.protocol import STATS_CHANNEL, Stats
from odinws.messages.wire_format import WireFormat

PERIOD_SECONDS = 1.0


class StatsBroadcaster:
    """Sends the figures to those who watch.

    Args:
        collect: the figures of this moment, as plain values for JSON; with True also those of before, for who
            has had none yet.
    """

    def __init__(self, collect: Callable[[bool], object]) -> None:
        self._collect = collect
        self._watchers: dict[Connection, bool] = {}  # whether it has had figures
        self._anyone = Event()

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, conn: Connection) -> bool:
        """Send figures to a connection from now on; False if it may not have them."""
        if not conn.inspects:
            return False
        self._watchers[conn] = False
        self._anyone.set()
        return True

    def discard(self, conn: Connection) -> bool:
        """Send it no more; False if it did not watch."""
        if conn not in self._watchers:
            return False
        del self._watchers[conn]
        return True

    def run(self) -> None:
        """Serve the watchers, for the life of the worker."""
        while True:
            self._anyone.wait()
            self.send()
            gevent.sleep(PERIOD_SECONDS)

    def send(self) -> None:
        """Send one frame to all but those who have not taken what came before: only the newest counts.

        Another one is made for those who come new.
        """
        for conn in [conn for conn in self._watchers if conn.state]:
            del self._watchers[conn]
        if not self._watchers:
            self._anyone.clear()
            return
        due = [conn for conn in self._watchers if not conn.has_waiting]
        for is_known in (True, False):
            group = [conn for conn in due if self._watchers[conn] is is_known]
            if not group:
                continue
            stats = Stats(STATS_CHANNEL, int(time.time() * 1000), self._collect(not is_known))
            made: dict[WireFormat, bytes] = {}
            for conn in group:
                wire_format = conn.wire_format
                if wire_format not in made:
                    made[wire_format] = wire_format.encode(stats)
                self._watchers[conn] = True
                conn.send_frame(made[wire_format])
