"""The event log: the latest events that an operator must know, of the whole server, for all workers to read.

Workers and the arbiter write, any worker reads. It ends with the server; the log has the same at more length.
"""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from odinws.shared.shared_ring import SharedRing

ENTRIES = 128
KINDS = (
    "worker_started",
    "worker_left",
    "worker_killed",
    "config_reload",
    "feed_up",
    "feed_lost",
    "refusals_began",
    "refusals_ended",
    "slow_closed",
    "differences",
    "debug",
)
_ENTRY_BYTES = 1024
_TEXT_CHARACTERS = 96  # at most 6 bytes each, as `\u0001`


class EventLog:
    """The latest 128 events.

    An event is `{"at": Unix seconds, "worker": pid, "kind": one of KINDS, "text": str}`; the arbiter
    is worker 0.
    """

    def __init__(self) -> None:
        self._ring = SharedRing(ENTRIES, _ENTRY_BYTES)
        self._arbiter = os.getpid()

    def add(self, kind: str, text: str) -> None:
        """Write an event. The log is the business of who saw it.

        Args:
            kind: one of `KINDS`.
            text: for people; what is longer than 96 characters is cut.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown kind of event {kind!r}, there are {', '.join(KINDS)}")
        pid = os.getpid()
        event = {
            "at": round(time.time(), 3),
            "worker": 0 if pid == self._arbiter else pid,
            "kind": kind,
            "text": text[:_TEXT_CHARACTERS],
        }
        self._ring.add(msgspec.json.encode(event))

    def latest(self, limit: int = ENTRIES) -> list[dict[str, Any]]:
        """The latest events, the newest first.

        Args:
            limit: how many at most.
        """
        return [msgspec.json.decode(raw) for raw in self._ring.latest(limit)]
