"""What clients ask for, as values, whatever their wire format. Pure."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from odinws.errors import CommandError

_Seq = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # NATS counts from 1; 0: before all


class Subscribe(msgspec.Struct, frozen=True):
    """Ask for channels.

    Attributes:
        since: the last sequence that was heard, of channels to resume.
        epoch: in which `since` was heard; None: in the present one.
        last: send the newest message of channels that are not resumed.
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
    """Give channels back."""

    channels: list[str]


class Replay(msgspec.Struct, frozen=True, rename={"start": "from", "end": "to"}):
    """Ask for messages of the past: behind `since`, or from `start` on; up to `end`, or the newest."""

    channel: str
    since: _Seq | None = None
    start: _Seq | None = None
    end: _Seq | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """Ask for a pong."""


class Authenticate(msgspec.Struct, frozen=True):
    """Bring another token."""

    token: str

    def __repr__(self) -> str:
        """Without the token: this may get into a log."""
        return "Authenticate(***)"


Command = Subscribe | Unsubscribe | Replay | Heartbeat | Authenticate


class Request(NamedTuple):
    """One command of a client.

    Attributes:
        command: what is asked for; a CommandError: it can't be read, and the error is the answer.
        tag: belongs to the wire format, which gets it back with the answer: an id, for instance.
    """

    command: Command | CommandError
    tag: object = None
