"""Clients that come back whenever they are sent away, also while all workers are replaced."""

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


class Returning:
    """A swarm whose members connect and subscribe anew as soon as they are gone.

    Args:
        swarm: they are in.
        count: how many.
        channels: that each has.
    """

    def __init__(self, swarm: Swarm, count: int, channels: Sequence[str]) -> None:
        self.swarm = swarm
        self.count = count
        self._channels = channels
        self._replaced: set[Life] = set()
        swarm.connect(range(count))
        swarm.subscribe(range(count), channels)
        swarm.settle()
        assert self.are_in()

    def are_in(self) -> bool:
        """Whether all are open and have asked for everything."""
        return len(self.swarm.open()) == self.count

    def come_back(self) -> None:
        """Let each that is gone connect and subscribe again. Call it often."""
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
        """Have all workers replaced (SIGHUP), until all clients are back at other ones.

        Returns:
            When each of the old workers had ended, seconds behind the signal, in order.
        """
        old = set(server.workers())
        began = time.monotonic()
        server.signal(signal.SIGHUP)
        ends: dict[int, float] = {}

        def replaced() -> bool:
            self.come_back()
            for pid in old - set(ends):
                if not psutil.pid_exists(pid):
                    ends[pid] = time.monotonic() - began
            time.sleep(LOOK_SECONDS)
            return len(ends) == len(old) and self.are_in()

        wait_for(replaced, REPLACED_SECONDS, "that all workers are replaced and all clients back")
        self.swarm.settle()
        wait_for(lambda: len(server.workers()) == len(old), 5, "as many workers as before")
        assert not old & set(server.workers())
        return sorted(ends.values())
