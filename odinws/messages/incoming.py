"""Commands of clients as values, independent of the wire format. Pure.

`connections.commands` executes them. Messages that come in from NATS are `feed.events`.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from odinws.errors import CommandError

_Seq = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # NATS counts from 1; 0 is before all messages


class Subscribe(msgspec.Struct, frozen=True):
    """Subscribe to channels.

    Attributes:
        since: for channels to resume, the last sequence that the client received.
        epoch: the epoch of these sequences; None: the current one.
        last: send the newest message of each channel that is not resumed.
        admin_token: for the channel of the server's stats.
    """

    channels: list[str]
    since: dict[str, _Seq] | None = None
    epoch: str | None = None
    last: bool = False
    admin_token: str | None = None

    def __repr__(self) -> str:
        """Without the token: this may get into a log."""
        return f"Subscribe({self.channels!r}, ***)"


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


Command = Subscribe | Unsubscribe | Replay | Heartbeat | Authenticate


class Request(NamedTuple):
    """One command as it was received.

    Attributes:
        command: the command, or the error to answer with if it can't be decoded.
        tag: anything that the wire format needs to encode the answer, such as a request id.
    """

    command: Command | CommandError
    tag: object = None
