"""The native wire format: JSON in WebSocket text frames, as specified in `docs/protocol.md`. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from odinws.errors import CommandError
from odinws.messages import frames
from odinws.messages.protocol import (
    Authenticate,
    Command,
    Heartbeat,
    Message,
    Outgoing,
    Replay,
    Request,
    Subscribe,
    Unsubscribe,
    short,
)
from odinws.messages.unread_json import own_type
from odinws.messages.wire_format import WebSocketFormat

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


class _Gap(msgspec.Struct, frozen=True, tag_field="type", tag="gap", rename={"first": "from", "last": "to"}):
    channel: str
    first: int
    last: int
    reason: str


_envelope = msgspec.json.Decoder(_Envelope)
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


class JsonFormat(WebSocketFormat):
    """One JSON object per text frame, both ways. Answers carry no tag, as they come in order."""

    def message(self, message: Message, via: str) -> bytes:
        """The payload is embedded byte for byte."""
        return self.data_frame(envelope(message), message.channel)

    def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
        """A message of the type `gap`; too short to be compressed."""
        return frames.text(encode_gap(channel, first, last, reason))

    def encode(self, value: Outgoing, tag: object = None) -> bytes:
        """Never compressed: answers are short, and each is for one client."""
        return frames.text(_encode(value))

    def decode(self, payload: bytes) -> Iterator[Request]:
        """Always one command."""
        try:
            yield Request(decode_command(payload))
        except CommandError as error:
            yield Request(error)


def envelope(message: Message) -> bytes:
    """A message as JSON. Its `type` is that of the payload if it has one that is a string, else `message`.

    Raises:
        ValueError: the payload is not valid JSON, so it can't be embedded.
    """
    channel, seq, prev, ts_ms, payload = message
    try:
        value = _any.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        kind = own_type(payload)
    else:
        own = value.get("type") if isinstance(value, dict) else None
        kind = _encode(own) if isinstance(own, str) else None
    return b'{"type":%b,"channel":"%b","seq":%d,"prev":%d,"ts":%d,"data":%b}' % (
        kind or b'"message"',
        channel.encode(),  # a valid channel needs no escaping
        seq,
        prev,
        ts_ms,
        payload,
    )


def encode_gap(channel: str, first: int, last: int, reason: str) -> bytes:
    """A gap as JSON."""
    return _encode(_Gap(channel, first, last, reason))


def decode_command(text: bytes) -> Command:
    """Decode one command.

    Args:
        text: valid UTF-8, of a length that the caller has bounded.

    Raises:
        CommandError: with the code `INVALID_JSON`, `UNKNOWN_TYPE` or `INVALID_FIELD`.
    """
    try:
        envelope = _envelope.decode(text)
    except msgspec.ValidationError as error:
        _check_json(text)  # msgspec stops at the first wrong field; what follows may not even be JSON
        raise CommandError(
            "INVALID_FIELD", f'{_plain(error, "")}; expected {{"type": ..., "data": ...}}'
        ) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CommandError("INVALID_JSON", f"not valid JSON: {short(str(error))}") from None
    kind = _COMMANDS.get(envelope.type)
    if kind is None:
        known = ", ".join(_COMMANDS)
        raise CommandError("UNKNOWN_TYPE", f"unknown type {short(envelope.type)!r}; known are {known}")
    if kind is Heartbeat:
        return Heartbeat()
    try:
        return msgspec.json.decode(envelope.data, type=kind)
    except msgspec.ValidationError as error:
        raise CommandError("INVALID_FIELD", f"{envelope.type}: {_plain(error, 'data')}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CommandError("INVALID_JSON", f"not valid JSON: {short(str(error))}") from None


def _check_json(text: bytes) -> None:
    try:
        _any.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CommandError("INVALID_JSON", f"not valid JSON: {short(str(error))}") from None


def _plain(error: msgspec.ValidationError, root: str) -> str:
    """msgspec's message without its markup, as in "Expected array, got str at data.channels"."""
    text, _, path = str(error).partition(" - at `$")
    where = f"{root}{path.rstrip('`')}".lstrip(".")
    return short(json.dumps(text.replace("`", ""))[1:-1]) + (f" at {where}" if where else "")
