"""What a scenario is made of: Locust's user, a shape of load, and what lets clients come back."""

from __future__ import annotations

import random
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any

import gevent
from locust import LoadTestShape, User, constant, events, task
from locust.runners import WorkerRunner

from odinws.client.backoff import Backoff, RefusedError, Wait
from odinws.swarm import options
from odinws.swarm.engine import problem_of
from odinws.swarm.run import DEFAULT_HOST, Swarm

_USERS_PER_SECOND = 10  # of the shape; each brings a tenth of what comes in a second

Library = partial(Backoff, random.random)
"""Comes back as the public client library does."""


class Patience(Backoff):
    """Comes back as the public client library does, and also where that would stay away."""

    def __init__(self) -> None:
        super().__init__(random.random)

    def closed(self, code: int, text: str, steady: bool) -> Wait:
        try:
            return super().closed(code, text, steady)
        except RefusedError as error:
            return self.broken(str(error))

    def refused(self, status: int, retry_after: str | None, body: str) -> Wait:
        try:
            return super().refused(status, retry_after, body)
        except RefusedError as error:
            return self.broken(str(error))


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
    """`--odin-connections` come at `--odin-ramp` per second; all stay for `--odin-sustain` seconds.

    These begin when each has been answered, or has had the time for it.
    """

    abstract = True
    runner: Any

    def tick(self) -> tuple[int, float] | None:
        """Users and their rate now; None: it is over."""
        chosen = self.runner.environment.parsed_options
        rate = chosen.odin_ramp or float(chosen.odin_connections)
        per_user = max(1.0, rate / _USERS_PER_SECOND)
        passed = self.get_run_time()  # type: ignore[no-untyped-call]
        latest = chosen.odin_connections / rate + chosen.odin_timeout
        since = min(self.runner.environment.odin.settled_after(), latest)
        if passed > max(since, chosen.odin_connections / rate) + chosen.odin_sustain:
            return None
        return max(1, ceil(chosen.odin_connections / per_user)), min(rate, _USERS_PER_SECOND)


def install(backoff: Callable[[], Backoff] | None, *, resume: bool = False, **defaults: Any) -> None:
    """Make this Locust run a swarm.

    Args:
        backoff: makes what says when a client comes back; None: who is cut off stays away.
        resume: whether it asks for what it missed.
        defaults: of the options, by their names.
    """

    @events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
    def add(parser: ArgumentParser) -> None:
        options.add(parser, defaults)

    @events.init.add_listener  # type: ignore[untyped-decorator]
    def init(environment: Any, **_: Any) -> None:
        record = environment.parsed_options.odin_record
        if problem := problem_of(environment.host or DEFAULT_HOST) or options.record_problem(record):
            if not isinstance(environment.runner, WorkerRunner):
                sys.stderr.write(f"{problem}\n")
            sys.exit(2)
        swarm = environment.odin = Swarm(environment, backoff, resume)
        environment.events.test_start.add_listener(lambda **_: swarm.start())
        environment.events.test_stopping.add_listener(lambda **_: swarm.finish())
        environment.events.quitting.add_listener(lambda **_: swarm.quit())
