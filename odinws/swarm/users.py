"""The user of Locust: it holds a share of the connections."""

from __future__ import annotations

import gevent
from locust import User, constant, task

from odinws.swarm.run import DEFAULT_HOST


class Crowd(User):
    """Many clients: as many as its share of `--odin-connections` says."""

    host = DEFAULT_HOST
    wait_time = constant(0)

    def on_start(self) -> None:
        """Take a share; its clients connect from now on."""
        self._seats = self.environment.odin.join()

    def on_stop(self) -> None:
        """Give it back; its clients leave."""
        self.environment.odin.leave(self._seats)

    @task
    def stay(self) -> None:
        """The clients do their work without a greenlet."""
        gevent.sleep(5.0)
