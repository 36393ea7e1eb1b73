"""Centrifugo's client protocol, version 2: what its SDKs say and are told, as values. Pure.

An SDK sends commands, several in a frame, each with an id that the reply repeats; messages and what ends a
subscription are pushes. `offset` is our sequence, `epoch` our epoch. This module knows what commands and
replies mean; `CentrifugoJson` here and `CentrifugoProtobuf` in `centrifugo_protobuf` know how they look.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import msgspec

from odinws.close_codes import CENTRIFUGO, CloseReason
from odinws.errors import CommandError, FrameError
from odinws.messages import frames
from odinws.messages.protocol import (
    Authenticate,
    AuthenticateChannel,
    Command,
    Connect,
    Connected,
    Error,
    Heartbeat,
    Join,
    Joined,
    Left,
    Message,
    Outgoing,
    Past,
    Read,
    Renewed,
    Request,
    Unsubscribe,
    UnsubscriptionAck,
)
from odinws.messages.unread_json import own_type
from odinws.messages.wire_format import INVALID, WebSocketFormat

ERRORS: Mapping[str, tuple[int, bool]] = {
    "UNAVAILABLE": (100, True),
    "UNAUTHORISED": (103, False),
    "INVALID_CHANNEL": (102, False),
    "NOT_CARRIED": (102, False),
    "FORBIDDEN": (103, False),
    "UNKNOWN_METHOD": (104, False),
    "ALREADY_SUBSCRIBED": (105, False),
    "TOO_MANY_SUBSCRIPTIONS": (106, False),
    "INVALID_FIELD": (107, False),
    "NOT_AVAILABLE": (108, False),
    "TOKEN_EXPIRED": (109, False),
    "RATE_LIMIT_EXCEEDED": (111, True),
    "UNRECOVERABLE": (112, False),
}
"""By our code: Centrifugo's, and whether an SDK should try again by itself."""

MAX_COMMANDS = 20_000  # in a frame

_MAX_ENTRIES = 1000  # of a map in `connect`: the server makes fewer subscriptions
_INTERNAL = (100, True)  # for a code that is not in the table
_INSUFFICIENT = {"code": 2500, "reason": "insufficient state"}  # the SDK subscribes anew, with its position
_ENDED = {"code": 2000, "reason": "unsubscribed by the server"}
_EXPIRED = {"code": 2501, "reason": "subscription expired"}  # it does so with another token
_VERSION = "odinws"  # of the server, as an SDK shows it
_COMPACTION = 1  # flags of a subscribe command
_NO_FALSE_RECOVERY = 2
_MAX_SEQ = (1 << 63) - 1
_MAX_TTL_SECONDS = (1 << 31) - 1  # a ttl has 32 bits, and to some SDKs a sign
_NOT_AVAILABLE = {
    "publish": "clients don't publish here",
    "presence": "presence is not kept",
    "presence_stats": "presence is not kept",
    "ping": "pings are the server's",
    "send": "nobody listens to asynchronous messages",
    "rpc": "there are no remote procedures",
}
_LINE = re.compile(rb"[^\n]+")


class CentrifugoFormat(WebSocketFormat):
    """What both encodings have in common. Tags are ids of commands; to 0 nobody expects a reply."""

    delivers_once = False
    gaps_end = True

    @abstractmethod
    def frame_of(self, reply: dict[str, Any]) -> bytes:
        """The frame of a reply with fields as the protocol names them; payloads are `publication`'s."""

    @abstractmethod
    def publication(self, message: Message, via: str) -> dict[str, Any]:
        """The fields of a message in a reply; by a wildcard, a tag names its channel."""

    def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
        """The subscription ends, and the SDK subscribes anew with its position."""
        return self.frame_of({"push": {"channel": via, "unsubscribe": _INSUFFICIENT}})

    def encode(self, value: Outgoing, tag: object = None) -> bytes:
        """Replies; and b"" for what an SDK does not expect, such as a welcome."""
        if isinstance(value, Left):
            end = _EXPIRED if value.needs_token else _ENDED
            return self.frame_of({"push": {"channel": value.channel, "unsubscribe": end}})
        result = self._result(value) if tag else None
        return self.frame_of({"id": tag, **result}) if result else b""

    def close(self, reason: CloseReason, text: str, retry_after_seconds: float | None = None) -> bytes:
        """A close frame with Centrifugo's code; when to come back is the SDK's choice.

        A code that ends a client says why; the others have the text that the protocol gives them.
        """
        code, standard = CENTRIFUGO[reason]
        says_more = code >= 3500 and text != reason.text
        return frames.close(code, f"{standard}: {text}" if says_more else standard)

    def pong(self, payload: bytes) -> bytes:
        """A pong frame: a proxy may ping."""
        return frames.pong(payload)

    def _result(self, value: Outgoing) -> dict[str, Any] | None:
        match value:
            case Error():
                code, temporary = ERRORS.get(value.code, _INTERNAL)
                error = {"code": code, "message": value.message}
                return {"error": {**error, "temporary": True} if temporary else error}
            case Connected():
                subs = {joined.channel: self._subscription(joined) for joined in value.joined}
                result = {"client": value.client_id, "version": _VERSION, **_expiry(value)}
                ping = {"ping": max(1, round(value.ping_seconds)), "pong": True}
                return {"connect": {**result, **ping, **({"subs": subs} if subs else {})}}
            case Joined():
                return {"subscribe": self._subscription(value)}
            case UnsubscriptionAck():
                return {"unsubscribe": {}}
            case Past():
                found = [self.publication(message, value.channel) for message in value.messages]
                return {"history": {"publications": found, "epoch": value.epoch, "offset": value.seq}}
            case Renewed(client_id=""):
                return {"sub_refresh": _expiry(value)}
            case Renewed():
                return {"refresh": {"client": value.client_id, "version": _VERSION, **_expiry(value)}}
        return None

    def _subscription(self, joined: Joined) -> dict[str, Any]:
        result: dict[str, Any] = {"recoverable": True, "positioned": True}
        result |= {"epoch": joined.epoch, "offset": joined.seq, **_expiry(joined)}
        if joined.recovered is not None:
            result |= {"was_recovering": True, "recovered": joined.recovered}
        if joined.messages:
            result["publications"] = [self.publication(found, joined.channel) for found in joined.messages]
        return result


def _expiry(value: Connected | Joined | Renewed) -> dict[str, Any]:
    seconds = value.expires_in_seconds
    if seconds is None:
        return {}
    return {"expires": True, "ttl": int(min(max(1, seconds), _MAX_TTL_SECONDS))}


# -- commands --------------------------------------------------------------------------------------


def request(tag: int, method: str, body: Any) -> Request:
    """The request that a command means.

    Args:
        tag: its id; 0: none.
        method: the name of its one field besides; "": none.
        body: this field, with attributes as the protocol names them.
    """
    if method == "subscribe":
        return Request(_join(body.channel, body), tag)
    if method == "unsubscribe":
        return Request(Unsubscribe([body.channel]), tag)
    if method in _NOT_AVAILABLE:
        return Request(CommandError("NOT_AVAILABLE", _NOT_AVAILABLE[method]), tag)
    if method:
        return Request(_others(method, body), tag)
    if tag:
        return Request(CommandError("UNKNOWN_METHOD", "no such method"), tag)
    return Request(Heartbeat())  # a pong, which needs no answer


def _others(method: str, body: Any) -> Command | CommandError:
    if method == "connect":
        if max(len(body.subs), len(body.headers)) > _MAX_ENTRIES:
            return CommandError("INVALID_FIELD", f"more than {_MAX_ENTRIES} subs or headers")
        token = body.token or next(
            (value for name, value in body.headers.items() if name.lower() == "authorization"), ""
        )
        since = {channel: _join(channel, asked) for channel, asked in body.subs.items()}
        # Of its subscriptions, only those that the token makes count.
        known = {channel: join for channel, join in since.items() if isinstance(join, Join)}
        return Connect(token.removeprefix("Bearer ").strip(), known)
    if method == "history":
        since, limit = body.since, body.limit
        return Read(
            body.channel,
            None if limit < 0 else limit,
            None if since is None else min(since.offset, _MAX_SEQ),
            (since.epoch or None) if since is not None else None,
            body.reverse,
        )
    if method == "refresh":
        return Authenticate(body.token)
    return AuthenticateChannel(body.channel, body.token)


def _join(channel: str, body: Any) -> Join | CommandError:
    if body.type:
        return CommandError("NOT_AVAILABLE", "there are only stream subscriptions")
    if body.tf:
        return CommandError("INVALID_FIELD", "messages are not filtered by tags")
    return Join(
        channel,
        min(body.offset, _MAX_SEQ) if body.recover else None,
        body.epoch or None,
        bool(body.data) and _wants_newest(bytes(body.data)),
        body.token,
        bool(body.flag & _COMPACTION),
        bool(body.flag & _NO_FALSE_RECOVERY),
    )


class _Wish(msgspec.Struct, frozen=True):
    last: bool = False


_wish = msgspec.json.Decoder(_Wish)


def _wants_newest(data: bytes) -> bool:
    """Whether the data of a subscribe command is `{"last": true}`; it may be anything."""
    try:
        return _wish.decode(data).last
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False


# -- JSON ------------------------------------------------------------------------------------------

_NOTHING = msgspec.Raw(b"")
_Unsigned = Annotated[int, msgspec.Meta(ge=0)]


class _Subscription(msgspec.Struct, frozen=True):
    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: _Unsigned = 0
    data: msgspec.Raw = _NOTHING
    tf: msgspec.Raw = _NOTHING
    flag: _Unsigned = 0
    type: _Unsigned = 0


class _Connection(msgspec.Struct, frozen=True):
    token: str = ""
    headers: dict[str, str] = {}
    subs: dict[str, _Subscription] = {}


class _Channel(msgspec.Struct, frozen=True):
    channel: str = ""
    token: str = ""


class Position(msgspec.Struct, frozen=True):
    """Where a client is in the stream."""

    offset: _Unsigned = 0
    epoch: str = ""


class History(msgspec.Struct, frozen=True):
    """The body of the command."""

    channel: str = ""
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


class _Id(msgspec.Struct, frozen=True):
    id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = 0


class _Command(_Id, frozen=True):
    connect: _Connection | None = None
    subscribe: _Subscription | None = None
    unsubscribe: _Channel | None = None
    history: History | None = None
    refresh: _Channel | None = None
    sub_refresh: _Channel | None = None
    publish: msgspec.Raw = _NOTHING
    presence: msgspec.Raw = _NOTHING
    presence_stats: msgspec.Raw = _NOTHING
    ping: msgspec.Raw = _NOTHING
    send: msgspec.Raw = _NOTHING
    rpc: msgspec.Raw = _NOTHING


_METHODS = tuple(name for name in _Command.__struct_fields__ if name != "id")
_command = msgspec.json.Decoder(_Command)
_id = msgspec.json.Decoder(_Id)
_raw = msgspec.json.Decoder(msgspec.Raw)
_encode = msgspec.json.Encoder().encode


class CentrifugoJson(CentrifugoFormat):
    """Text frames with one JSON object per line; payloads are embedded."""

    kind = ("centrifugo-json", "websocket")
    PING: ClassVar[bytes] = frames.text(b"{}")

    def message(self, message: Message, via: str) -> bytes:
        """A push; its payload is as published, but for line ends."""
        channel = via.encode()  # a valid channel needs no escaping
        tags = b',"tags":{"channel":"%b"}' % message.channel.encode() if via != message.channel else b""
        return self.data_frame(
            b'{"push":{"channel":"%b","pub":{"data":%b,"offset":%d%b}}}'
            % (channel, embedded(message.payload), message.seq, tags),
            message.channel,
        )

    def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
        """As ever; but what JSON can't carry is a publication without data, and a tag says why."""
        if reason != INVALID:
            return super().gap(channel, first, last, reason, via)
        return self.frame_of({"push": {"channel": via, "pub": _without_data(channel, last, via)}})

    def publication(self, message: Message, via: str) -> dict[str, Any]:
        """The payload as it is, or none if JSON can't carry it."""
        try:
            data = msgspec.Raw(embedded(message.payload))
        except ValueError:
            return _without_data(message.channel, message.seq, via)
        tags = {"tags": {"channel": message.channel}} if via != message.channel else {}
        return {"data": data, "offset": message.seq, **tags}

    def frame_of(self, reply: dict[str, Any]) -> bytes:
        """Compressed if that was negotiated and makes it shorter."""
        return self.data_frame(_encode(reply))

    def ping(self, payload: bytes) -> bytes:
        """An empty object; the pong is another."""
        return self.PING

    def decode(self, payload: bytes) -> Iterator[Request]:
        """The commands of all lines."""
        if payload.count(b"\n") > MAX_COMMANDS:
            raise FrameError(CloseReason.PROTOCOL, f"more than {MAX_COMMANDS} lines in a frame")
        for found in _LINE.finditer(payload):  # one at a time: a list of all would be held meanwhile
            line = found[0]
            if not line.isspace():
                yield _decode(line)


def _decode(line: bytes) -> Request:
    try:
        command = _command.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Request(CommandError("INVALID_FIELD", f"bad request: {error}"[:100]), _id_of(line))
    for method in _METHODS:
        body = getattr(command, method)
        if body:
            return request(command.id, method, body)
    return request(command.id, "", None)


def _id_of(line: bytes) -> int:
    """The id of a command that is wrong otherwise. Raises FrameError: it has none."""
    try:
        found = _id.decode(line).id
        _raw.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        found = 0
    if found <= 0:
        raise FrameError(CloseReason.PROTOCOL, "a command that can't be read")
    return found


def _without_data(channel: str, seq: int, via: str) -> dict[str, Any]:
    by = {"channel": channel} if via != channel else {}
    return {"data": None, "offset": seq, "tags": {**by, "error": INVALID}}


def embedded(payload: bytes) -> bytes:
    """A payload as it stands in a line of JSON: line ends are white space, and are left out.

    Raises:
        ValueError: it is not valid JSON.
    """
    payload.decode()
    try:
        _raw.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        own_type(payload)
    if b"\n" in payload or b"\r" in payload:
        return payload.translate(None, b"\r\n")
    return payload
