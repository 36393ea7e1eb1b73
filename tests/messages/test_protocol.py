"""`odinws.messages.protocol`: rejections."""

from __future__ import annotations

from odinws.messages import protocol
from odinws.messages.protocol import Rejected


def test_too_many() -> None:
    """The rejection beyond the limit says the limit, and of a long channel only the head."""
    assert protocol.too_many("x" * 80, 3).channel == "x" * 80
    rejected = protocol.too_many("x" * 100, 3)
    assert rejected == Rejected(
        "x" * 80 + "…", "TOO_MANY_SUBSCRIPTIONS", "a connection may hold 3 subscriptions"
    )
