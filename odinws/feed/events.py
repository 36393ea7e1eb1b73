"""What a feed brings to the hub, as values. Pure."""

from __future__ import annotations

from typing import NamedTuple

from odinws.messages.outgoing import Lost, Message

__all__ = ["Backfill", "FeedEvent", "Lost", "Message", "NewEpoch"]


class NewEpoch(NamedTuple):
    """From here on `seq` counts anew, under this name.

    Attributes:
        seq: the latest sequence that is there already; what follows it comes.
    """

    epoch: str
    seq: int = 0
    channel: None = None  # it concerns all of them


class Backfill(NamedTuple):
    """What was published before the feed came up: for those who were away, not to be delivered to all.

    Attributes:
        messages: all behind `first` up to `last`, in order.
    """

    first: int
    last: int
    messages: list[Message]
    channel: None = None  # it concerns all of them


FeedEvent = Message | Lost | NewEpoch | Backfill
