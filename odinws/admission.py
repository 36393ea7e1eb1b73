"""Who may connect now: facts in, a verdict out. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Admit:
    """The upgrade may go on."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The upgrade is refused before the handshake.

    Attributes:
        status: HTTP status.
        reason: label of the counter, one of `board.REFUSALS`.
        message: for people.
        retry_after_seconds: when to come back, at least 1.
    """

    status: int
    reason: str
    message: str
    retry_after_seconds: int


Verdict = Admit | Refuse

_CAPACITY_RETRY_SECONDS = (5, 15)
_DRAIN_RETRY_SECONDS = (1, 3)


def decide(*, accepting: bool, has_room: bool, limit: int, spread: float) -> Verdict:
    """Decide on one upgrade.

    Args:
        accepting: whether the worker takes new connections.
        has_room: whether a connection slot could be taken.
        limit: slots of the whole server, for the message.
        spread: 0 to 1; where in its range `Retry-After` falls, so that clients do not come back at once.
    """
    if not accepting:
        return Refuse(503, "draining", "server is going away", _between(_DRAIN_RETRY_SECONDS, spread))
    if not has_room:
        message = f"server holds its {limit} connections"
        return Refuse(503, "capacity", message, _between(_CAPACITY_RETRY_SECONDS, spread))
    return Admit()


def _between(bounds: tuple[int, int], spread: float) -> int:
    low, high = bounds
    return low + round((high - low) * spread)
