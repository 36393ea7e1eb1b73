"""What the application of an official client sees, as the agents write it: a line of JSON each. Pure.

The first element of a line names its kind, the second is the client's number in its agent; -1: the agent.
"""

from __future__ import annotations

import msgspec


class Subscribed(msgspec.Struct, array_like=True, frozen=True, tag="subscribed"):
    """A subscription begins, or is there again.

    Attributes:
        via: a channel, or a wildcard.
        at: the position in the stream that the server names.
        recovering: whether the client has asked for what it missed; recovered: whether it gets all of it.
    """

    client: int
    via: str
    epoch: str
    at: int
    recovering: bool
    recovered: bool


class Heard(msgspec.Struct, array_like=True, frozen=True, tag="message"):
    """A message; `via` is empty where the client can't tell."""

    client: int
    via: str
    channel: str
    seq: int


class Gap(msgspec.Struct, array_like=True, frozen=True, tag="gap"):
    """The server says that `first` to `last` of a channel won't come."""

    client: int
    channel: str
    first: int
    last: int
    reason: str


class Lost(msgspec.Struct, array_like=True, frozen=True, tag="lost"):
    """A connection or a subscription is lost, and the client tries to get it back."""

    client: int
    code: int
    reason: str


class Wrong(msgspec.Struct, array_like=True, frozen=True, tag="error"):
    """What must not be: an exception, or an end for good."""

    client: int
    text: str


Record = Subscribed | Heard | Gap | Lost | Wrong

decode = msgspec.json.Decoder(Record).decode
"""Raises msgspec.DecodeError for what is none."""
