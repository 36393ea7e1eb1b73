"""What a feed brings to the hub, as values. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One message of a channel.

    Attributes:
        seq: its sequence; rises on every channel.
        prev: the sequence before it on this channel, 0 if none is known.
        ts_ms: when NATS took it (JetStream) or when it came in (core), milliseconds since 1970.
        payload: the bytes as published.
    """

    channel: str
    seq: int
    prev: int
    ts_ms: int
    payload: bytes


class Lost(NamedTuple):
    """Messages that will not come: `first` to `last`, inclusive.

    Attributes:
        channel: which channel; None: any channel may have had some.
        reason: as in a `gap` frame.
    """

    channel: str | None
    first: int
    last: int
    reason: str


class NewEpoch(NamedTuple):
    """From here on `seq` counts anew, under this name.

    Attributes:
        seq: the latest sequence that is there already; what follows it comes.
    """

    epoch: str
    seq: int = 0
    channel: None = None  # it concerns all of them


class Past(NamedTuple):
    """What was published before the feed came up: for those who were away, not to be delivered to all.

    Attributes:
        messages: all behind `first` up to `last`, in order.
    """

    first: int
    last: int
    messages: list[Message]
    channel: None = None  # it concerns all of them


FeedEvent = Message | Lost | NewEpoch | Past
