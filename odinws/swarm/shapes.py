"""Shapes of load."""

from __future__ import annotations

from math import ceil
from typing import Any

from locust import LoadTestShape

_USERS_PER_SECOND = 10  # each brings a tenth of what comes in a second


class Capacity(LoadTestShape):
    """`--odin-connections` come at `--odin-ramp` per second; all stay for `--odin-sustain` seconds."""

    abstract = False

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
