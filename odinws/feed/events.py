"""What the feed hands to the hub: messages, losses, new epochs, backfills. Pure."""

from __future__ import annotations

from typing import NamedTuple

from odinws.messages.protocol import Lost, Message

__all__ = ["Backfill", "FeedEvent", "Lost", "Message", "NewEpoch"]


class NewEpoch(NamedTuple):
    """Sequences start over in this epoch.

    Attributes:
        seq: the latest sequence that exists already; messages after it will come.
    """

    epoch: str
    seq: int = 0
    channel: None = None  # all channels


class Backfill(NamedTuple):
    """Messages that were published before the feed came up: for the ring only, not to be delivered.

    Attributes:
        messages: all messages after `first` and up to `last`, in order.
    """

    first: int
    last: int
    messages: list[Message]
    channel: None = None  # all channels


FeedEvent = Message | Lost | NewEpoch | Backfill
