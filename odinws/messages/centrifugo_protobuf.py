"""Centrifugo's client protocol in Protobuf: binary frames of replies or commands, each behind its length.

Commands and replies go through the official runtime. Messages are joined by hand, once for all who get them:
the runtime would copy each payload twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from odinws.close_codes import CloseReason
from odinws.errors import FrameError
from odinws.messages import frames
from odinws.messages.centrifugo import (
    MAX_COMMANDS,
    CentrifugoFormat,
    CentrifugoJson,
    History,
    Position,
    request,
)
from odinws.messages.frames import Opcode
from odinws.messages.protocol import Message, Request
from odinws.messages.wire_format import Factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}
_MAP, _LIST = "map ", "list "
_PACKAGE = "centrifugo"
_SCHEMA: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Command": {
        "id": (1, "uint32"),
        "connect": (4, "ConnectRequest"),
        "subscribe": (5, "SubscribeRequest"),
        "unsubscribe": (6, "ChannelRequest"),
        "publish": (7, "bytes"),
        "presence": (8, "bytes"),
        "presence_stats": (9, "bytes"),
        "history": (10, "HistoryRequest"),
        "ping": (11, "bytes"),
        "send": (12, "bytes"),
        "rpc": (13, "bytes"),
        "refresh": (14, "RefreshRequest"),
        "sub_refresh": (15, "ChannelRequest"),
    },
    "ConnectRequest": {
        "token": (1, "string"),
        "subs": (3, _MAP + "SubscribeRequest"),
        "headers": (6, _MAP + "string"),
    },
    "SubscribeRequest": {
        "channel": (1, "string"),
        "token": (2, "string"),
        "recover": (3, "bool"),
        "epoch": (6, "string"),
        "offset": (7, "uint64"),
        "data": (8, "bytes"),
        "tf": (13, "bytes"),
        "flag": (14, "int64"),
        "type": (15, "int32"),
    },
    "ChannelRequest": {"channel": (1, "string"), "token": (2, "string")},
    "HistoryRequest": {
        "channel": (1, "string"),
        "limit": (7, "int32"),
        "since": (8, "StreamPosition"),
        "reverse": (9, "bool"),
    },
    "StreamPosition": {"offset": (1, "uint64"), "epoch": (2, "string")},
    "RefreshRequest": {"token": (1, "string")},
    "Reply": {
        "id": (1, "uint32"),
        "error": (2, "Error"),
        "push": (4, "Push"),
        "connect": (5, "ConnectResult"),
        "subscribe": (6, "SubscribeResult"),
        "unsubscribe": (7, "UnsubscribeResult"),
        "history": (11, "HistoryResult"),
        "refresh": (14, "RefreshResult"),
        "sub_refresh": (15, "SubRefreshResult"),
    },
    "Error": {"code": (1, "uint32"), "message": (2, "string"), "temporary": (3, "bool")},
    "Push": {"channel": (2, "string"), "pub": (4, "Publication"), "unsubscribe": (7, "Unsubscribe")},
    "Publication": {"data": (4, "bytes"), "offset": (6, "uint64"), "tags": (7, _MAP + "string")},
    "Unsubscribe": {"code": (2, "uint32"), "reason": (3, "string")},
    "ConnectResult": {
        "client": (1, "string"),
        "version": (2, "string"),
        "expires": (3, "bool"),
        "ttl": (4, "uint32"),
        "subs": (6, _MAP + "SubscribeResult"),
        "ping": (7, "uint32"),
        "pong": (8, "bool"),
    },
    "SubscribeResult": {
        "expires": (1, "bool"),
        "ttl": (2, "uint32"),
        "recoverable": (3, "bool"),
        "epoch": (6, "string"),
        "publications": (7, _LIST + "Publication"),
        "recovered": (8, "bool"),
        "offset": (9, "uint64"),
        "positioned": (10, "bool"),
        "was_recovering": (12, "bool"),
    },
    "UnsubscribeResult": {},
    "HistoryResult": {
        "publications": (1, _LIST + "Publication"),
        "epoch": (2, "string"),
        "offset": (3, "uint64"),
    },
    "RefreshResult": {
        "client": (1, "string"),
        "version": (2, "string"),
        "expires": (3, "bool"),
        "ttl": (4, "uint32"),
    },
    "SubRefreshResult": {"expires": (1, "bool"), "ttl": (2, "uint32")},
}
"""The part of the protocol that is used here; what is not in it is passed over. A field whose content does
not matter is read as bytes, which look the same."""

_METHOD = "method"  # what a command has besides its id; at most one of them


def _classes() -> dict[str, Any]:
    """The class of each message of the schema."""
    file = descriptor_pb2.FileDescriptorProto(name="centrifugo.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        if name == "Command":
            message.oneof_decl.add(name=_METHOD)
        for field, (number, kind) in fields.items():
            if kind.startswith(_MAP):
                entry = message.nested_type.add(name=f"{field.capitalize()}Entry")
                entry.options.map_entry = True
                _add(entry, "key", 1, "string")
                _add(entry, "value", 2, kind.removeprefix(_MAP))
                _add(message, field, number, _LIST + f"{name}.{entry.name}")
            else:
                added = _add(message, field, number, kind)
                if name == "Command" and field != "id":
                    added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _SCHEMA
    }


def _add(message: Any, field: str, number: int, kind: str) -> Any:
    label = _Field.LABEL_REPEATED if kind.startswith(_LIST) else _Field.LABEL_OPTIONAL
    kind = kind.removeprefix(_LIST)
    if kind in _SCALARS:
        return message.field.add(name=field, number=number, label=label, type=_SCALARS[kind])
    of = {"type": _Field.TYPE_MESSAGE, "type_name": f".{_PACKAGE}.{kind}"}
    return message.field.add(name=field, number=number, label=label, **of)


_CLASSES = _classes()
_Command, _Reply = _CLASSES["Command"], _CLASSES["Reply"]
_TAG_OF_CHANNEL = b"\x0a\x07channel\x12"  # a key of 7 bytes, and then the value
_MAX_VARINT_BYTES = 5  # of a length


class CentrifugoProtobuf(CentrifugoFormat):
    """Binary frames; payloads are carried as they are, JSON or not."""

    kind = ("centrifugo-protobuf", "websocket")
    command_opcode = Opcode.BINARY

    PING: ClassVar[bytes] = frames.encode(Opcode.BINARY, b"\x00")

    def message(self, message: Message, via: str) -> bytes:
        """A push, joined of bytes: `Reply.push`, `Push.channel` and `pub`, `Publication.data` and so on."""
        payload = message.payload
        publication = b"\x22%b%b\x30%b" % (_varint(len(payload)), payload, _varint(message.seq))
        if via != message.channel:
            tag = _TAG_OF_CHANNEL + _sized(message.channel.encode())
            publication += b"\x3a" + _sized(tag)
        push = b"\x12%b\x22%b" % (_sized(via.encode()), _sized(publication))
        return self.data_frame(_sized(b"\x22" + _sized(push)), message.channel)

    def publication(self, message: Message, via: str) -> dict[str, Any]:
        """The same, for the runtime."""
        tags = {"tags": {"channel": message.channel}} if via != message.channel else {}
        return {"data": message.payload, "offset": message.seq, **tags}

    def frame_of(self, reply: dict[str, Any]) -> bytes:
        """Compressed if that was negotiated and makes it shorter."""
        return self.data_frame(_sized(_Reply(**reply).SerializeToString()))

    def ping(self, payload: bytes) -> bytes:
        """A reply of no bytes; the pong is a command of none."""
        return self.PING

    def decode(self, payload: bytes) -> Iterator[Request]:
        """The commands, each behind its length."""
        at = 0
        for _ in range(MAX_COMMANDS):
            if at == len(payload):
                return
            size, at = _read_varint(payload, at)
            if at + size > len(payload):
                raise FrameError(CloseReason.PROTOCOL, "a command is cut off")
            yield _decode(payload[at : at + size])
            at += size
        if at < len(payload):
            raise FrameError(CloseReason.PROTOCOL, f"more than {MAX_COMMANDS} commands in a frame")


def _decode(data: bytes) -> Request:
    try:
        command = _Command.FromString(data)
    except DecodeError:
        raise FrameError(CloseReason.PROTOCOL, "a command that can't be read") from None
    method = command.WhichOneof(_METHOD) or ""
    body: Any = getattr(command, method, None)
    if method == "history":
        since = Position(body.since.offset, body.since.epoch) if body.HasField("since") else None
        body = History(body.channel, body.limit, since, body.reverse)
    return request(command.id, method, body)


def _sized(data: bytes) -> bytes:
    """Bytes behind their length."""
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """A number in as few bytes as it takes, seven bits each, the lowest first."""
    if number < 128:
        return b"%c" % number
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A length, and where it ends. Raises FrameError."""
    found = 0
    for place, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        found |= (byte & 127) << 7 * place
        if byte < 128:
            return found, at + place + 1
    raise FrameError(CloseReason.PROTOCOL, "a length that can't be read")


FORMATS: Mapping[str, Factory] = {
    "centrifuge-json": CentrifugoJson,
    "centrifuge-protobuf": CentrifugoProtobuf,
}
"""Both encodings, by the subprotocol that names each."""
