"""Who is told what passes did. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class DeliveryObserver(Protocol):
    """Is told per pass, or per slice of one, never per message; of gaps also per connection.

    `Row` is one: it counts for all to see.
    """

    def count_pass(self, seconds: float) -> None:
        """A pass has ended, after this time."""

    def count_sends(self, sends: int, delivered: int, undelivered: int, size: int) -> None:
        """What was handed to connections; `size` in bytes."""

    def count_frames(self, frames: int, sends: int) -> None:
        """So many sends had so many frames each."""

    def count_gaps(self, reasons: Iterable[str], clients: int) -> None:
        """So many clients were told of gaps, for these reasons."""

    def observe_lag(self, taken_ms: int, count: int) -> None:
        """So many messages were delivered, of which the oldest was taken by NATS then (ms since 1970)."""

    def count_overflow(self) -> None:
        """A message had no room between feed and hub."""

    def count_invalid(self, messages: int) -> None:
        """Messages had a payload that the default format can't carry."""


class NullObserver:
    """Is told and forgets."""

    def count_pass(self, seconds: float) -> None:
        """Nothing."""

    def count_sends(self, sends: int, delivered: int, undelivered: int, size: int) -> None:
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
