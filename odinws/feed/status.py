"""How a feed is, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FeedStatus:
    """How the feed is, for health and statistics. Written by the feed alone.

    Attributes:
        ready: messages flow: connected, consuming, and up to date with the stream's subjects.
        mode: "jetstream", "core", or "none" before the first session.
        problem: why it is not ready, or what differs from the settings; "" if nothing.
        stream_differs: how an existing stream differs from the settings; it is left as it is.
        since: when `ready` last changed, seconds since 1970.
    """

    ready: bool = False
    mode: str = "none"
    epoch: str = "none"
    server: str = ""
    problem: str = "not connected yet"
    stream_differs: str = ""
    since: float = 0.0
    last_seq: int = 0
