"""What the server says, as values, whatever the wire format of the client. Pure.

Fields and tags have the names of `docs/protocol.md`, so the native format needs no table of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from odinws.messages.channels import STATS_CHANNEL, can_be_subscribed

_ECHO_CHARACTERS = 80  # how much of a bad value an error repeats


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


class Rejected(msgspec.Struct, frozen=True):
    """One channel that a `Subscribe` did not get, and why."""

    channel: str
    code: str
    message: str


class Welcome(msgspec.Struct, frozen=True, tag_field="type", tag="welcome", kw_only=True):
    """The first message of a connection, sent again when `epoch` changes: then `seq` starts anew.

    Attributes:
        variant, reason: of the choice of the strategy, see `choice`.
    """

    client_id: str
    epoch: str
    strategy: str
    variant: str
    reason: str
    shards: int
    shard_key: str
    server: str
    heartbeat_seconds: float
    limits: Mapping[str, float]


class SubscriptionAck(msgspec.Struct, frozen=True, tag_field="type", tag="subscription_ack"):
    """The answer to `Subscribe`: `count` is how many channels the connection now holds."""

    subscribed: Sequence[str]
    count: int
    rejected: Sequence[Rejected]


class UnsubscriptionAck(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscription_ack"):
    """The answer to `Unsubscribe`: `count` is how many channels the connection still holds."""

    unsubscribed: Sequence[str]
    count: int


class Authenticated(msgspec.Struct, frozen=True, tag_field="type", tag="authenticated"):
    """The answer to `Authenticate`.

    Attributes:
        subject: the token's `sub`.
        expires_at: when the connection ends unless another token comes, ms since 1970; None: never.
        unsubscribed: channels that the new token does not allow.
    """

    subject: str | None
    expires_at: int | None
    unsubscribed: Sequence[str]


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to `Heartbeat`; `ts` in ms since 1970."""

    ts: int


class ReplayComplete(
    msgspec.Struct,
    frozen=True,
    tag_field="type",
    tag="replay_complete",
    rename={"first": "from", "last": "to"},
):
    """All messages of a channel from `first` to `last`, as many as `count`, have been sent."""

    channel: str
    first: int
    last: int
    count: int


class ReplayIncomplete(
    msgspec.Struct,
    frozen=True,
    tag_field="type",
    tag="replay_incomplete",
    rename={"first": "from", "last": "to"},
):
    """As `ReplayComplete`, but some are missing, as gaps have said, or what lies behind `last`."""

    channel: str
    first: int
    last: int
    count: int
    reason: str


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """The answer to a command that can't be carried out."""

    code: str
    message: str


class Stats(msgspec.Struct, frozen=True, tag_field="type", tag="server:stats"):
    """What the server says of itself. It has no sequence: only the newest counts, and none is missed.

    Attributes:
        ts: when it was collected, ms since 1970.
        data: plain values, as for JSON.
    """

    channel: str
    ts: int
    data: object


Outgoing = (
    Welcome
    | SubscriptionAck
    | UnsubscriptionAck
    | Authenticated
    | Pong
    | ReplayComplete
    | ReplayIncomplete
    | Error
    | Stats
)


def check_channel(channel: str) -> Rejected | None:
    """None if the channel can be subscribed, else why not."""
    if can_be_subscribed(channel):
        return None
    return Rejected(
        short(channel),
        "INVALID_CHANNEL",
        "expected token.{id}, user.{id}, global, token.* or user.*; id is 1-64 of A-Z a-z 0-9 _ -",
    )


def not_allowed(channel: str) -> Rejected:
    """The rejection of a channel that the client's token does not give."""
    return Rejected(channel, "FORBIDDEN", "your token does not allow this channel")


def not_carried(channel: str) -> Rejected:
    """The rejection of a channel that this server does not get from NATS."""
    return Rejected(channel, "NOT_CARRIED", "this server does not carry this channel")


def stats_not_allowed() -> Rejected:
    """The rejection of the figures."""
    return Rejected(
        STATS_CHANNEL, "FORBIDDEN", "only from this machine, or with WS_ADMIN_TOKEN as data.admin_token"
    )


def too_many(channel: str, limit: int) -> Rejected:
    """The rejection of a channel beyond the connection's limit."""
    return Rejected(short(channel), "TOO_MANY_SUBSCRIPTIONS", f"a connection may hold {limit} subscriptions")


def short(text: str) -> str:
    """The head of a text of the client's, to be repeated in an answer."""
    return text if len(text) <= _ECHO_CHARACTERS else text[:_ECHO_CHARACTERS] + "…"
