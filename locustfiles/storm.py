"""All clients are cut off at once, again and again, and resume where they were: nothing may be missing.

    locust -f locustfiles/storm.py --headless --run-time 120s --host ws://127.0.0.1:3004 \
        --odin-connections 5000 --odin-storm-every 20

When a client comes back is said by the pure core of the public client library, its backoff. The library's
whole `Client` has a thread and reads each message as JSON, too much for thousands in one process. So what was
heard is kept, and what is missing counted, by the swarm: exactly, over all connections of a client.
"""

from __future__ import annotations

import random

from locustfiles._options import register
from locustfiles._swarm import install
from locustfiles._users import Crowd
from odinws.client import RefusedError
from odinws.client.backoff import Backoff

__all__ = ["Crowd"]


class Library:
    """The library's journey, as the swarm asks for it."""

    def __init__(self) -> None:
        self._journey = Backoff(random.random)

    def closed(self, code: int, text: str, steady: bool) -> float | None:
        """The server ended a connection."""
        try:
            return self._journey.closed(code, text, steady).seconds
        except RefusedError:
            return None

    def refused(self, status: int, retry_after: str | None) -> float | None:
        """The server answered the upgrade with something else."""
        try:
            return self._journey.refused(status, retry_after, "").seconds
        except RefusedError:
            return None

    def lost(self, steady: bool) -> float:
        """Nobody said anything."""
        return self._journey.lost(steady).seconds


register(storm_every=20.0)
install(Library, resume=True)
