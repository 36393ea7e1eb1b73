"""Centrifugo's client protocol as a schema: what an answer may have, and what clients can't do without. Pure.

Made from the published protocol, not from what this server does; its Protobuf is code of its own too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema

# Of a field its number in Protobuf and its type: a scalar or another message, with "*" before it a list.
# `bytes` is embedded JSON in the format JSON, a `map` is of texts.
Fields = Mapping[str, tuple[int, str]]

MESSAGES: Mapping[str, Fields] = {
    "Command": {
        "id": (1, "uint"),
        "connect": (4, "ConnectRequest"),
        "subscribe": (5, "SubscribeRequest"),
        "unsubscribe": (6, "ChannelRequest"),
        "publish": (7, "PublishRequest"),
        "presence": (8, "ChannelRequest"),
        "presence_stats": (9, "ChannelRequest"),
        "history": (10, "HistoryRequest"),
        "ping": (11, "Empty"),
        "rpc": (13, "RpcRequest"),
        "refresh": (14, "TokenRequest"),
        "sub_refresh": (15, "TokenRequest"),
    },
    "ConnectRequest": {
        "token": (1, "text"),
        "data": (2, "bytes"),
        "name": (4, "text"),
        "version": (5, "text"),
        "flag": (7, "uint"),
    },
    "SubscribeRequest": {
        "channel": (1, "text"),
        "token": (2, "text"),
        "recover": (3, "bool"),
        "epoch": (6, "text"),
        "offset": (7, "uint"),
        "data": (8, "bytes"),
        "positioned": (9, "bool"),
        "recoverable": (10, "bool"),
        "join_leave": (11, "bool"),
        "delta": (12, "text"),
        "flag": (14, "uint"),
        "type": (15, "uint"),
    },
    "ChannelRequest": {"channel": (1, "text")},
    "PublishRequest": {"channel": (1, "text"), "data": (2, "bytes")},
    "HistoryRequest": {
        "channel": (1, "text"),
        "limit": (7, "uint"),
        "since": (8, "Position"),
        "reverse": (9, "bool"),
    },
    "Position": {"offset": (1, "uint"), "epoch": (2, "text")},
    "RpcRequest": {"data": (1, "bytes"), "method": (2, "text")},
    "TokenRequest": {"token": (1, "text")},
    "Empty": {},
    "Entry": {"key": (1, "text"), "value": (2, "text")},  # of a map
    "Reply": {
        "id": (1, "uint"),
        "error": (2, "Error"),
        "push": (4, "Push"),
        "connect": (5, "ConnectResult"),
        "subscribe": (6, "SubscribeResult"),
        "unsubscribe": (7, "Empty"),
        "history": (11, "HistoryResult"),
        "refresh": (14, "RefreshResult"),
    },
    "Error": {"code": (1, "uint"), "message": (2, "text"), "temporary": (3, "bool")},
    "Push": {"channel": (2, "text"), "pub": (4, "Publication"), "unsubscribe": (7, "Unsubscribe")},
    "Publication": {"data": (4, "bytes"), "offset": (6, "uint"), "tags": (7, "map"), "channel": (10, "text")},
    "Unsubscribe": {"code": (2, "uint"), "reason": (3, "text")},
    "ConnectResult": {
        "client": (1, "text"),
        "version": (2, "text"),
        "expires": (3, "bool"),
        "ttl": (4, "uint"),
        "data": (5, "bytes"),
        "ping": (7, "uint"),
        "pong": (8, "bool"),
    },
    "SubscribeResult": {
        "expires": (1, "bool"),
        "ttl": (2, "uint"),
        "recoverable": (3, "bool"),
        "epoch": (6, "text"),
        "publications": (7, "*Publication"),
        "recovered": (8, "bool"),
        "offset": (9, "uint"),
        "positioned": (10, "bool"),
        "data": (11, "bytes"),
        "was_recovering": (12, "bool"),
    },
    "HistoryResult": {"publications": (1, "*Publication"), "epoch": (2, "text"), "offset": (3, "uint")},
    "RefreshResult": {
        "client": (1, "text"),
        "version": (2, "text"),
        "expires": (3, "bool"),
        "ttl": (4, "uint"),
    },
}

# What the most demanding client can't do without: docs/centrifugo-clients.md says which one.
_REQUIRED: Mapping[str, Sequence[str]] = {
    "Error": ("code", "message"),
    "ConnectResult": ("client", "ping", "pong"),
    "Push": ("channel",),
    "Publication": ("data",),
    "Unsubscribe": ("code", "reason"),
    "RefreshResult": ("client",),
}
_RESULTS = sorted(set(MESSAGES["Reply"]) - {"id", "error", "push"})
# In JSON numbers beyond this are read as others by JavaScript.
_MOST = 2**53

_SCALARS: Mapping[str, Any] = {
    "uint": {"type": "integer", "minimum": 0, "maximum": _MOST},
    "text": {"type": "string"},
    "bool": {"type": "boolean"},
    "bytes": {},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
}


def _schema_of(kind: str) -> Any:
    if kind.startswith("*"):
        return {"type": "array", "items": _schema_of(kind[1:])}
    return _SCALARS.get(kind, {"$ref": f"#/$defs/{kind}"})


def _definition(name: str) -> Any:
    fields = {field: _schema_of(kind) for field, (_, kind) in MESSAGES[name].items()}
    found: dict[str, Any] = {"type": "object", "properties": fields, "additionalProperties": False}
    found["required"] = list(_REQUIRED.get(name, ()))
    if "expires" in fields:
        found["dependentRequired"] = {"expires": ["ttl"], "ttl": ["expires"]}
    return found


_DEFINITIONS = {name: _definition(name) for name in MESSAGES}
_NEVER_ZERO = {"code", "message", "reason", "client", "epoch", "ttl", "ping"}

SCHEMA: Any = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": _DEFINITIONS,
    "oneOf": [
        {"$ref": "#/$defs/Reply", "maxProperties": 0},  # a ping
        {"$ref": "#/$defs/Reply", "required": ["push"], "maxProperties": 1},
        {"$ref": "#/$defs/Reply", "required": ["id", "error"], "maxProperties": 2},
        *({"$ref": "#/$defs/Reply", "required": ["id", name], "maxProperties": 2} for name in _RESULTS),
    ],
}
_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def faults(reply: Any) -> Iterator[str]:
    """What the schema does not allow in one answer, a line each."""
    for error in _VALIDATOR.iter_errors(reply):
        yield f"{error.message[:200]} in {json.dumps(reply)[:200]}"
    yield from _zeros(reply)


def _zeros(value: Any) -> Iterator[str]:
    """Fields that may not be empty, as Protobuf would leave them out."""
    if isinstance(value, list):
        for each in value:
            yield from _zeros(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in _NEVER_ZERO and each in (0, ""):
                yield f"{name} is empty"
            if name not in ("data", "tags"):  # what is in there is the application's
                yield from _zeros(each)


# -- Protobuf ------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes((*out, number))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return number, at


def pack(value: Mapping[str, Any], name: str = "Command") -> bytes:
    """A message as Protobuf, without its length. What is empty is left out, as all encoders do."""
    out = b""
    for field, each in value.items():
        number, kind = MESSAGES[name][field]
        if kind in ("uint", "bool"):
            out += (_varint(number << 3) + _varint(int(each))) if each else b""
            continue
        for body in _bodies(each, kind):
            out += _varint(number << 3 | 2) + _varint(len(body)) + body
    return out


def _bodies(value: Any, kind: str) -> list[bytes]:
    """What stands behind each length of a field: one piece, of a text none if it is empty, of a list all."""
    if kind == "bytes":
        return [json.dumps(value).encode()]
    if kind == "text":
        return [value.encode()] if value else []
    if kind == "map":
        return [pack({"key": key, "value": text}, "Entry") for key, text in value.items()]
    if kind.startswith("*"):
        return [pack(each, kind[1:]) for each in value]
    return [pack(value, kind)]


def unpack(data: bytes, name: str = "Reply") -> dict[str, Any]:
    """A message of Protobuf as it would be in JSON.

    Raises:
        ValueError: it has a field that the protocol does not know, or of another type.
    """
    by_number = {number: (field, kind) for field, (number, kind) in MESSAGES[name].items()}
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        if tag >> 3 not in by_number:
            raise ValueError(f"{name} has a field {tag >> 3}")
        field, kind = by_number[tag >> 3]
        number, at = _read_varint(data, at)
        if kind in ("uint", "bool"):
            if tag & 7:
                raise ValueError(f"{name}.{field} has the wire type {tag & 7}")
            found[field] = bool(number) if kind == "bool" else number
            continue
        if tag & 7 != 2 or at + number > len(data):
            raise ValueError(f"{name}.{field} has the wire type {tag & 7}, or ends early")
        body, at = data[at : at + number], at + number
        if kind == "bytes":
            found[field] = json.loads(body)
        elif kind == "text":
            found[field] = body.decode()
        elif kind == "map":
            entry = unpack(body, "Entry")
            found.setdefault(field, {})[entry["key"]] = entry["value"]
        elif kind.startswith("*"):
            found.setdefault(field, []).append(unpack(body, kind[1:]))
        else:
            found[field] = unpack(body, kind)
    return found


def split(frame: bytes) -> Iterator[bytes]:
    """The messages of a frame of Protobuf, each behind its length."""
    at = 0
    while at < len(frame):
        size, at = _read_varint(frame, at)
        if at + size > len(frame):
            raise ValueError("a message ends early")
        yield frame[at : at + size]
        at += size


def join(messages: Sequence[bytes]) -> bytes:
    """A frame of several messages."""
    return b"".join(_varint(len(message)) + message for message in messages)
