"""What is said on `/ws`: client commands and server envelopes, typed and validated. Pure.

Both directions are JSON text. The whole interface is in `docs/protocol.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from odinws.errors import CommandError

CHANNEL = re.compile(r"(?:token|user)\.[A-Za-z0-9_-]{1,64}|global")
WILDCARDS = ("token.*", "user.*")
FIGURES = "server.stats"  # not of NATS: what the server says of itself, to those who may inspect it
MAX_CHANNEL_BYTES = len("token.") + 64
_Seq = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # NATS counts from 1; 0: before all
_ECHO_CHARACTERS = 80  # how much of a bad value an error repeats


class Subscribe(msgspec.Struct, frozen=True):
    """Ask for channels."""

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
    """Ask for messages of the past."""

    channel: str
    since: _Seq | None = None
    start: _Seq | None = None
    end: _Seq | None = None
    epoch: str | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """Ask for a pong."""


class Authenticate(msgspec.Struct, frozen=True):
    """Bring another token."""

    token: str

    def __repr__(self) -> str:
        """Without the token: this may get into a log."""
        return "Authenticate(***)"


Command = Subscribe | Unsubscribe | Replay | Heartbeat | Authenticate

_COMMANDS: dict[str, type[Command]] = {
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "replay": Replay,
    "heartbeat": Heartbeat,
    "authenticate": Authenticate,
}


class _Envelope(msgspec.Struct, frozen=True):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Rejected(msgspec.Struct, frozen=True):
    """One channel that a `subscribe` did not get, and why."""

    channel: str
    code: str
    message: str


_envelope = msgspec.json.Decoder(_Envelope)
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def decode_command(text: bytes) -> Command:
    """Read one command.

    Args:
        text: a text message, valid UTF-8, of a size the caller has bounded.

    Raises:
        CommandError: with the code `INVALID_JSON`, `UNKNOWN_TYPE` or `INVALID_FIELD`.
    """
    try:
        envelope = _envelope.decode(text)
    except msgspec.ValidationError as error:
        _check_json(text)  # msgspec stops at what it does not expect, and what follows may be anything
        raise CommandError(
            "INVALID_FIELD", f'{_plain(error, "")}; expected {{"type": ..., "data": ...}}'
        ) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CommandError("INVALID_JSON", f"not valid JSON: {_short(str(error))}") from None
    kind = _COMMANDS.get(envelope.type)
    if kind is None:
        known = ", ".join(_COMMANDS)
        raise CommandError("UNKNOWN_TYPE", f"unknown type {_short(envelope.type)!r}; known are {known}")
    if kind is Heartbeat:
        return Heartbeat()
    try:
        return msgspec.json.decode(envelope.data, type=kind)
    except msgspec.ValidationError as error:
        raise CommandError("INVALID_FIELD", f"{envelope.type}: {_plain(error, 'data')}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CommandError("INVALID_JSON", f"not valid JSON: {_short(str(error))}") from None


def _check_json(text: bytes) -> None:
    try:
        _any.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CommandError("INVALID_JSON", f"not valid JSON: {_short(str(error))}") from None


def check_channel(channel: str) -> Rejected | None:
    """None if the channel can be subscribed, else why not."""
    if CHANNEL.fullmatch(channel) or channel in WILDCARDS:
        return None
    return Rejected(
        _short(channel),
        "INVALID_CHANNEL",
        "expected token.{id}, user.{id}, global, token.* or user.*; id is 1-64 of A-Z a-z 0-9 _ -",
    )


def not_allowed(channel: str) -> Rejected:
    """The rejection of a channel that the client's token does not give."""
    return Rejected(channel, "FORBIDDEN", "your token does not allow this channel")


def not_carried(channel: str) -> Rejected:
    """The rejection of a channel that this server does not get from NATS."""
    return Rejected(channel, "NOT_CARRIED", "this server does not carry this channel")


def not_inspecting() -> Rejected:
    """The rejection of the figures."""
    return Rejected(
        FIGURES, "FORBIDDEN", "only from this machine, or with WS_ADMIN_TOKEN as data.admin_token"
    )


def wildcard(channel: str) -> str:
    """The pattern that stands for all channels of this one's kind; "" for `global`, which has no kind."""
    kind, dot, _ = channel.partition(".")
    return f"{kind}.*" if dot else ""


def too_many(channel: str, limit: int) -> Rejected:
    """The rejection of a channel beyond the connection's limit."""
    return Rejected(_short(channel), "TOO_MANY_SUBSCRIPTIONS", f"a connection may hold {limit} subscriptions")


def payload_type(payload: bytes) -> bytes:
    """The `type` of a data frame, as JSON: the payload's own if it has one that is text, else `"message"`.

    Raises:
        ValueError: the payload is not valid JSON, so no frame can carry it byte for byte.
    """
    try:
        value = _any.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    kind = value.get("type") if isinstance(value, dict) else None
    return _encode(kind) if isinstance(kind, str) else b'"message"'


def data(kind: bytes, channel: str, seq: int, prev: int, ts_ms: int, payload: bytes) -> bytes:
    """A data message around a payload that is left as it is.

    Args:
        kind: the result of `payload_type`.
        channel: a valid channel: it needs no escaping.
        seq: sequence of the message; prev: the one before it on this channel, 0 if there was none.
        ts_ms: when NATS took the message, milliseconds since 1970.
    """
    return b'{"type":%b,"channel":"%b","seq":%d,"prev":%d,"ts":%d,"data":%b}' % (
        kind,
        channel.encode(),
        seq,
        prev,
        ts_ms,
        payload,
    )


def figures(ts_ms: int, data: object) -> bytes:
    """What the server says of itself. It has no `seq`: only the newest counts, and none is missed."""
    return _encode({"type": "server:stats", "channel": FIGURES, "ts": ts_ms, "data": data})


def welcome(
    *,
    client_id: str,
    epoch: str,
    strategy: str,
    variant: str,
    reason: str,
    shards: int,
    shard_key: str,
    server: str,
    heartbeat_seconds: float,
    limits: Mapping[str, float],
) -> bytes:
    """The first message of a connection, sent again when `epoch` changes: then `seq` starts anew.

    Args:
        variant, reason: of the choice of the strategy, see `choice`.
    """
    return _encode(
        {
            "type": "welcome",
            "client_id": client_id,
            "epoch": epoch,
            "strategy": strategy,
            "variant": variant,
            "reason": reason,
            "shards": shards,
            "shard_key": shard_key,
            "server": server,
            "heartbeat_seconds": heartbeat_seconds,
            "limits": limits,
        }
    )


def subscription_ack(subscribed: Sequence[str], count: int, rejected: Sequence[Rejected]) -> bytes:
    """The answer to `subscribe`: `count` is how many channels the connection now holds."""
    return _encode(
        {"type": "subscription_ack", "subscribed": subscribed, "count": count, "rejected": rejected}
    )


def unsubscription_ack(unsubscribed: Sequence[str], count: int) -> bytes:
    """The answer to `unsubscribe`: `count` is how many channels the connection still holds."""
    return _encode({"type": "unsubscription_ack", "unsubscribed": unsubscribed, "count": count})


def authenticated(subject: str | None, expires_at_ms: int | None, unsubscribed: Sequence[str]) -> bytes:
    """The answer to `authenticate`.

    Args:
        subject: the token's `sub`.
        expires_at_ms: when the connection ends unless another token comes, ms since 1970; None: never.
        unsubscribed: channels that the new token does not allow.
    """
    return _encode(
        {
            "type": "authenticated",
            "subject": subject,
            "expires_at": expires_at_ms,
            "unsubscribed": unsubscribed,
        }
    )


def pong(ts_ms: int) -> bytes:
    """The answer to `heartbeat`."""
    return _encode({"type": "pong", "ts": ts_ms})


def replay_complete(channel: str, first: int, last: int, count: int) -> bytes:
    """All messages of a channel from `first` to `last`, as many as `count`, have been sent."""
    return _encode({"type": "replay_complete", "channel": channel, "from": first, "to": last, "count": count})


def replay_incomplete(channel: str, first: int, last: int, count: int, reason: str) -> bytes:
    """As `replay_complete`, but some are missing, as gaps have said, or what lies behind `last`."""
    return _encode(
        {
            "type": "replay_incomplete",
            "channel": channel,
            "from": first,
            "to": last,
            "count": count,
            "reason": reason,
        }
    )


def error(code: str, message: str) -> bytes:
    """The answer to a command that can't be carried out."""
    return _encode({"type": "error", "code": code, "message": message})


def gap(channel: str, first: int, last: int, reason: str) -> bytes:
    """Says that the messages `first` to `last` (inclusive) of a channel were not delivered, and why."""
    return _encode({"type": "gap", "channel": channel, "from": first, "to": last, "reason": reason})


def _short(text: str) -> str:
    return text if len(text) <= _ECHO_CHARACTERS else text[:_ECHO_CHARACTERS] + "…"


def _plain(error: msgspec.ValidationError, root: str) -> str:
    """msgspec's message without its marks, as in "Expected array, got str at data.channels"."""
    text, _, path = str(error).partition(" - at `$")
    where = f"{root}{path.rstrip('`')}".lstrip(".")
    return _short(json.dumps(text.replace("`", ""))[1:-1]) + (f" at {where}" if where else "")
