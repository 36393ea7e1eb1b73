"""The status of the feed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FeedStatus:
    """The status of the feed, for health checks and stats. Written only by the feed.

    Attributes:
        ready: whether a session is established and messages flow.
        mode: "jetstream", "core", or "none" before the first session.
        problem: why the feed is not ready; "" if it is.
        warnings: what an operator should know of the stream.
        stream_differs: how the existing stream differs from the settings; it is left unchanged.
        since: when `ready` last changed, Unix seconds.
    """

    ready: bool = False
    mode: str = "none"
    epoch: str = "none"
    server: str = ""
    problem: str = "not connected yet"
    stream_differs: str = ""
    warnings: tuple[str, ...] = ()
    since: float = 0.0
    last_seq: int = 0
