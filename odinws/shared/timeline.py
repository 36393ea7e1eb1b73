"""The timeline: what the page's charts show, one sample a second, kept for who opens it later.

It is of the whole server and outlives its workers; it ends with the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from odinws.shared.shared_ring import SharedRing

SAMPLES = 900
"""A quarter of an hour."""
_ENTRY_BYTES = 2048  # for some 20 strategies


class Moment(NamedTuple):
    """One strategy at one moment; None: not known. Rates and delays are of the last seconds.

    Attributes:
        delivered, refused: per second.
        p50, p99: of the delay from NATS to the kernel, milliseconds.
        cpu: cores.
        stall: the longest iteration of an event loop, milliseconds.
    """

    connections: int
    delivered: float | None
    p50: float | None
    p99: float | None
    cpu: float
    stall: float
    refused: float | None


class Timeline:
    """The latest 900 samples."""

    def __init__(self) -> None:
        self._ring = SharedRing(SAMPLES, _ENTRY_BYTES)

    def add(self, at_ms: int, strategies: Mapping[str, Moment]) -> None:
        """Write a sample.

        Args:
            at_ms: Unix time.

        Raises:
            ValueError: these are too many strategies.
        """
        arms = {name: moment._asdict() for name, moment in strategies.items()}
        self._ring.add(msgspec.json.encode({"at": at_ms, "arms": arms}))

    def latest(self, limit: int = SAMPLES) -> list[msgspec.Raw]:
        """The latest samples as JSON, the oldest first, at most `limit`."""
        return [msgspec.Raw(raw) for raw in reversed(self._ring.latest(limit))]
