"""What clients and server say to each other, as values: channels, commands, answers. Pure.

`connections.commands` executes the commands. Fields and tags are named as in `docs/protocol.md`, so the
native format needs no table of names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec

from odinws.errors import CommandError

STATS_CHANNEL = "server.stats"  # not from NATS: the server's own stats, for connections of the admin plane
_Seq = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # NATS counts from 1; 0 is before all messages


# -- from clients ----------------------------------------------------------------------------------


class Subscribe(msgspec.Struct, frozen=True):
    """Subscribe to channels.

    Attributes:
        since: for channels to resume, the last sequence that the client received.
        epoch: the epoch of these sequences; None: the current one.
        last: send the newest message of each channel that is not resumed.
    """

    channels: list[str]
    since: dict[str, _Seq] | None = None
    epoch: str | None = None
    last: bool = False


class Unsubscribe(msgspec.Struct, frozen=True):
    """End subscriptions."""

    channels: list[str]


class Replay(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """Request past messages: after `since`, or from `start` on; up to `end` inclusive, or the newest."""

    channel: str
    since: _Seq | None = None
    start: _Seq | None = None
    end: _Seq | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """Request a pong."""


class Authenticate(msgspec.Struct, frozen=True):
    """Replace the connection's token."""

    token: str

    def __repr__(self) -> str:
        """Without the token: this may get into a log."""
        return "Authenticate(***)"


class Join(msgspec.Struct, frozen=True):
    """Subscribe to one channel, and be told from which position on.

    Attributes:
        since: the last sequence that the client received; None: it begins anew.
        epoch: the epoch of `since`; None: the current one.
        newest: the newest message is all that the client wants of what it missed.
        token: that allows this channel; "": the connection's must.
        subscribes_anew: the client does so when it is told that the subscription has ended by a gap.
        or_fails: the command should fail if something is missing after `since`.
    """

    channel: str
    since: _Seq | None = None
    epoch: str | None = None
    newest: bool = False
    token: str = ""
    subscribes_anew: bool = False
    or_fails: bool = False

    def __repr__(self) -> str:
        """Without the token: this may get into a log."""
        return f"Join({self.channel!r}, since={self.since}, epoch={self.epoch!r})"


class Connect(msgspec.Struct, frozen=True):
    """Begin a connection that may bring its token only now.

    Attributes:
        token: "": none.
        since: of server-side subscriptions that the client had before.
    """

    token: str = ""
    since: Mapping[str, Join] = {}

    def __repr__(self) -> str:
        """Without the token: this may get into a log."""
        return "Connect(***)"


class Read(msgspec.Struct, frozen=True):
    """Request past messages in one answer, or only the position.

    Attributes:
        limit: how many messages at most; 0: only the position; None: as many as may be.
        since: the sequence after which they begin; None: the earliest.
        epoch: the epoch of `since`; None: the current one.
        backwards: the newest first, from before `since`.
    """

    channel: str
    limit: int | None = 0
    since: _Seq | None = None
    epoch: str | None = None
    backwards: bool = False


class AuthenticateChannel(msgspec.Struct, frozen=True):
    """Replace the token of a channel."""

    channel: str
    token: str

    def __repr__(self) -> str:
        """Without the token: this may get into a log."""
        return f"AuthenticateChannel({self.channel!r}, ***)"


Command = (
    Subscribe | Unsubscribe | Replay | Heartbeat | Authenticate | Join | Connect | Read | AuthenticateChannel
)


class Request(NamedTuple):
    """One command as it was received.

    Attributes:
        command: the command, or the error to answer with if it can't be decoded.
        tag: anything that the wire format needs to encode the answer, such as a request id.
    """

    command: Command | CommandError
    tag: object = None


_SEQ_DIGITS = 20  # more than a sequence has
_ECHO_CHARACTERS = 80  # how much of an invalid value an error quotes


# -- to clients ------------------------------------------------------------------------------------


class Message(NamedTuple):
    """A published message.

    Attributes:
        seq: its sequence; strictly increasing on every channel.
        prev: the sequence of the message before it on this channel; 0 if none is known.
        ts_ms: when NATS stored it (JetStream), or when it was received here (core NATS), Unix milliseconds.
        payload: the bytes as published.
    """

    channel: str
    seq: int
    prev: int
    ts_ms: int
    payload: bytes


class Lost(NamedTuple):
    """Messages that will not be delivered: sequences `first` to `last`, inclusive.

    Attributes:
        channel: their channel; None: they may be of any channel.
        reason: as in a `gap`.
    """

    channel: str | None
    first: int
    last: int
    reason: str


class Rejected(msgspec.Struct, frozen=True):
    """A channel that could not be subscribed to, and why."""

    channel: str
    code: str
    message: str


class Welcome(msgspec.Struct, frozen=True, tag_field="type", tag="welcome", kw_only=True):
    """The first message on a connection. Sent again when the epoch changes, as sequences start over then.

    Attributes:
        variant, reason: how the strategy was chosen, see `assignment.Assignment`.
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


class Position(NamedTuple):
    """Where a client of an event stream is: it has everything up to here, of all its channels."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        """As clients bring it back."""
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """What a client has brought back. What is no position is one of an epoch that never was."""
        epoch, _, seq = text.rpartition(":")
        if seq.isascii() and seq.isdigit() and len(seq) < _SEQ_DIGITS:
            return cls(epoch, int(seq))
        return cls("", 0)


class StreamWelcome(msgspec.Struct, frozen=True, tag_field="type", tag="welcome", kw_only=True):
    """The first message of an event stream. Sent again when the epoch changes.

    Attributes:
        position: where the stream begins, see `Position`; unset: it follows.
    """

    client_id: str
    epoch: str
    server: str
    heartbeat_seconds: float
    subscribed: Sequence[str]
    rejected: Sequence[Rejected]
    position: str | msgspec.UnsetType = msgspec.UNSET


class At(msgspec.Struct, frozen=True, tag_field="type", tag="position"):
    """The client of an event stream has everything up to here, see `Position`."""

    position: str


class SubscriptionAck(msgspec.Struct, frozen=True, tag_field="type", tag="subscription_ack"):
    """The answer to `Subscribe`; `count` is the number of channels that the connection has now."""

    subscribed: Sequence[str]
    count: int
    rejected: Sequence[Rejected]


class UnsubscriptionAck(msgspec.Struct, frozen=True, tag_field="type", tag="unsubscription_ack"):
    """The answer to `Unsubscribe`; `count` is the number of channels that the connection has left."""

    unsubscribed: Sequence[str]
    count: int


class Authenticated(msgspec.Struct, frozen=True, tag_field="type", tag="authenticated"):
    """The answer to `Authenticate`.

    Attributes:
        subject: the token's `sub`.
        expires_at: when the token expires, Unix milliseconds; None: never. The connection is closed then
            unless the client has sent another token.
        unsubscribed: channels that the new token does not allow.
    """

    subject: str | None
    expires_at: int | None
    unsubscribed: Sequence[str]


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to `Heartbeat`; `ts` in Unix milliseconds."""

    ts: int


class ReplayComplete(
    msgspec.Struct,
    frozen=True,
    tag_field="type",
    tag="replay_complete",
    rename={"first": "from", "last": "to"},
):
    """All messages of a channel from `first` to `last` have been sent; `count` of them."""

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
    """As `ReplayComplete`, but some messages are missing: gaps name them, or they lie after `last`."""

    channel: str
    first: int
    last: int
    count: int
    reason: str


class Joined(msgspec.Struct, frozen=True):
    """The answer to `Join`.

    Attributes:
        seq: everything after this sequence follows.
        recovered: whether this is the client's own position; None: it had none.
        messages: what it missed, as far as it comes with the answer.
        expires_in_seconds: when another token is due; None: never.
    """

    channel: str
    epoch: str
    seq: int
    recovered: bool | None = None
    messages: Sequence[Message] = ()
    expires_in_seconds: float | None = None


class Connected(msgspec.Struct, frozen=True):
    """The answer to `Connect`.

    Attributes:
        expires_in_seconds: when another token is due; None: never.
        joined: the server-side subscriptions.
    """

    client_id: str
    ping_seconds: float
    expires_in_seconds: float | None = None
    joined: Sequence[Joined] = ()


class Renewed(msgspec.Struct, frozen=True):
    """The answer to a token that replaces another.

    Attributes:
        client_id: whose; "": it is the token of a channel.
        expires_in_seconds: when the next one is due; None: never.
    """

    client_id: str
    expires_in_seconds: float | None


class Past(msgspec.Struct, frozen=True):
    """The answer to `Read`; `seq` is the latest sequence of the stream."""

    channel: str
    epoch: str
    seq: int
    messages: Sequence[Message] = ()


class Left(msgspec.Struct, frozen=True):
    """The server has ended a subscription.

    Attributes:
        needs_token: the client should come back with another token for the channel; False: not at all.
    """

    channel: str
    needs_token: bool = False


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """The answer to a command that failed."""

    code: str
    message: str


class Stats(msgspec.Struct, frozen=True, tag_field="type", tag="server:stats"):
    """The server's stats. Without a sequence: only the newest matters.

    Attributes:
        ts: when they were collected, Unix milliseconds.
        data: values that JSON can represent.
    """

    channel: str
    ts: int
    data: object


Outgoing = (
    Welcome
    | StreamWelcome
    | At
    | SubscriptionAck
    | UnsubscriptionAck
    | Authenticated
    | Pong
    | ReplayComplete
    | ReplayIncomplete
    | Joined
    | Connected
    | Renewed
    | Past
    | Left
    | Error
    | Stats
)


def stats_not_allowed() -> Rejected:
    """The rejection of the channel of the server's stats."""
    return Rejected(
        STATS_CHANNEL, "FORBIDDEN", "the server's figures are on its admin plane, see WS_ADMIN_ADDR"
    )


def too_many(channel: str, limit: int) -> Rejected:
    """The rejection of a channel beyond the connection's limit."""
    return Rejected(short(channel), "TOO_MANY_SUBSCRIPTIONS", f"a connection may hold {limit} subscriptions")


def too_many_wildcards(channel: str, limit: int) -> Rejected:
    """The rejection of a wildcard beyond the connection's limit."""
    return Rejected(short(channel), "TOO_MANY_SUBSCRIPTIONS", f"a connection may hold {limit} wildcards")


def short(text: str) -> str:
    """The head of a client's text, to be quoted in an answer."""
    return text if len(text) <= _ECHO_CHARACTERS else text[:_ECHO_CHARACTERS] + "…"
