"""The interface by which passes report their counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class DeliveryObserver(Protocol):
    """Counts what passes do. Called once per pass or slice, never per message; for gaps, also per connection.

    `WorkerStats` implements it.
    """

    def count_pass(self, seconds: float) -> None:
        """A pass has ended, and took this long."""

    def count_sends(self, sends: int, delivered: int, undelivered: int, size: int) -> None:
        """Sends to connections, messages delivered and undelivered, and bytes sent."""

    def count_kind(self, kind: tuple[str, str], messages: int, size: int) -> None:
        """So many messages and bytes were sent in a format, one of `KINDS`."""

    def count_frames(self, frames: int, sends: int) -> None:
        """`sends` sends had `frames` frames each."""

    def count_gaps(self, reasons: Iterable[str], clients: int) -> None:
        """`clients` clients were sent a gap for each of these reasons."""

    def observe_lag(self, taken_ms: int, count: int) -> None:
        """`count` messages were delivered; NATS stored the oldest at `taken_ms`, Unix milliseconds."""

    def count_overflow(self) -> None:
        """A message was dropped because the backlog was full."""

    def count_invalid(self, messages: int) -> None:
        """Messages had a payload that the default format can't represent."""


class NullObserver:
    """Counts nothing."""

    def count_pass(self, seconds: float) -> None:
        """Nothing."""

    def count_sends(self, sends: int, delivered: int, undelivered: int, size: int) -> None:
        """Nothing."""

    def count_kind(self, kind: tuple[str, str], messages: int, size: int) -> None:
        """Nothing."""

    def count_frames(self, frames: int, sends: int) -> None:
        """Nothing."""

    def count_gaps(self, reasons: Iterable[str], clients: int) -> None:
        """Nothing."""

    def observe_lag(self, taken_ms: int, count: int) -> None:
        """Nothing."""

    def count_overflow(self) -> None:
        """Nothing."""

    def count_invalid(self, messages: int) -> None:
        """Nothing."""
