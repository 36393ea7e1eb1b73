"""What Locust runs: its user, which holds a share of the connections, and its shape of load."""

from __future__ import annotations

from math import ceil
from typing import Any

import gevent
from locust import LoadTestShape, User, constant, task

from odinws.swarm.run import DEFAULT_HOST

_USERS_PER_SECOND = 10  # of the shape; each brings a tenth of what comes in a second


class Clients(User):
    """Many clients: as many as its share of `--odin-connections` says."""

    abstract = True
    host = DEFAULT_HOST
    wait_time = constant(0)

    def on_start(self) -> None:
        """Take a share; its clients connect from now on."""
        self._share = self.environment.odin.join()

    def on_stop(self) -> None:
        """Give it back; its clients leave."""
        self.environment.odin.leave(self._share)

    @task
    def stay(self) -> None:
        """The clients do their work without a greenlet."""
        gevent.sleep(5.0)


class Ramp(LoadTestShape):
    """`--odin-connections` come at `--odin-ramp` per second; all stay for `--odin-sustain` seconds."""

    abstract = True
    runner: Any

    def tick(self) -> tuple[int, float] | None:
        """Users and their rate now; None: it is over."""
        options = self.runner.environment.parsed_options
        rate = options.odin_ramp or float(options.odin_connections)
        per_user = max(1.0, rate / _USERS_PER_SECOND)
        passed = self.get_run_time()  # type: ignore[no-untyped-call]
        if passed > options.odin_connections / rate + options.odin_sustain:
            return None
        return max(1, ceil(options.odin_connections / per_user)), min(rate, _USERS_PER_SECOND)
