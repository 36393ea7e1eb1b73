"""Clients that reconnect whenever they are disconnected, also while all workers are replaced."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

import psutil

from tests.life import Life, State
from tests.server import Server, wait_for
from tests.swarm import Swarm

LOOK_SECONDS = 0.01
REPLACED_SECONDS = 20.0


class ReconnectingClients:
    """Clients that reconnect and resubscribe.

    Args:
        swarm: connects them.
        count: how many clients.
        channels: what each subscribes to.
    """

    def __init__(self, swarm: Swarm, count: int, channels: Sequence[str]) -> None:
        self.swarm = swarm
        self.count = count
        self._channels = channels
        self._replaced: set[Life] = set()
        swarm.connect(range(count))
        swarm.subscribe(range(count), channels)
        swarm.settle()
        assert self.all_connected()

    def all_connected(self) -> bool:
        """Whether all are open."""
        return len(self.swarm.open()) == self.count

    def reconnect(self) -> None:
        """Reconnect and resubscribe those that are disconnected. Call it often."""
        gone = [
            life
            for life in list(self.swarm.now.values())
            if life.state is State.ENDED and life not in self._replaced
        ]
        self._replaced.update(gone)
        numbers = [life.index for life in gone]
        self.swarm.connect(numbers)
        self.swarm.subscribe(numbers, self._channels)

    def turned_away(self) -> list[str]:
        """Who ever came and was not welcomed, and what came instead."""
        return [
            f"{life.index}: {life.http[:200] or 'cut off'!r}"
            for life in list(self.swarm.lives)
            if life.state is State.ENDED and not life.epoch
        ]

    def through_reload(self, server: Server) -> list[float]:
        """Replace all workers (SIGHUP), and wait until all clients have reconnected to new ones.

        Returns:
            When each of the old workers had ended, in seconds after the signal, in order.
        """
        old = set(server.workers())
        began = time.monotonic()
        server.signal(signal.SIGHUP)
        ends: dict[int, float] = {}

        def replaced() -> bool:
            self.reconnect()
            for pid in old - set(ends):
                if not psutil.pid_exists(pid):
                    ends[pid] = time.monotonic() - began
            time.sleep(LOOK_SECONDS)
            return len(ends) == len(old) and self.all_connected()

        wait_for(replaced, REPLACED_SECONDS, "that all workers are replaced and all clients back")
        self.swarm.settle()
        wait_for(lambda: len(server.workers()) == len(old), 5, "as many workers as before")
        assert not old & set(server.workers())
        return sorted(ends.values())
