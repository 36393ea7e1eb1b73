"""Centrifugo's protocol, in each of its encodings. An input is what an SDK sends in one frame.

It is read as requests that can be carried out, or ends the connection as a bad request; no other exception.
Each is answered with an error that any SDK can read. The same bytes as a payload from NATS become a message
that the other end reads as it was published, or in JSON one that says that it can't be carried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from odinws.close_codes import CloseReason
from odinws.errors import CommandError, FrameError
from odinws.messages.centrifugo import MAX_COMMANDS, CentrifugoFormat, CentrifugoJson
from odinws.messages.centrifugo_protobuf import _CLASSES, CentrifugoProtobuf, _read_varint
from odinws.messages.protocol import Command, Error, Message, Request
from odinws.messages.wire_format import encode
from tests import wire
from tests.fuzz.targets.base import assert_brief

JSON, PROTOBUF = CentrifugoJson(), CentrifugoProtobuf()
_SEQ = 7


def check_json(data: bytes) -> str:
    """As a frame of commands, which is UTF-8, and as a payload."""
    text = data.decode(errors="replace").encode()
    found = _requests(JSON, text)
    (entry,) = encode([Message("token.BTC", _SEQ, 0, 0, data)], "token.*", JSON).entries
    (frame,), _ = wire.split(entry.frame)
    assert b"\n" not in frame.payload
    try:
        pub = _loads(frame.payload)["push"]["pub"]
        expected = _loads(data) if "error" not in pub["tags"] else None
    except RecursionError:  # this reader's limit, not the format's
        return f"{_kinds(found)} deep"
    assert (pub["data"], pub["offset"]) == (expected, str(_SEQ))
    return f"{_kinds(found)} {'error' in pub['tags']}"


def check_protobuf(data: bytes) -> str:
    """The same; any payload can be carried."""
    found = _requests(PROTOBUF, data)
    (frame,), _ = wire.split(PROTOBUF.message(Message("token.BTC", _SEQ, 0, 0, data), "token.BTC"))
    pub = _reply(frame).push.pub
    assert (pub.data, pub.offset) == (data, _SEQ)
    return _kinds(found)


def read_json(data: bytes) -> int:
    """The commands alone."""
    for _ in _decoded(JSON, data.decode(errors="replace").encode()):
        pass
    return 0


def read_protobuf(data: bytes) -> int:
    """The commands alone."""
    for _ in _decoded(PROTOBUF, data):
        pass
    return 0


def _decoded(wire_format: CentrifugoFormat, data: bytes) -> Iterator[Request]:
    try:
        yield from wire_format.decode(data)
    except FrameError as error:
        if error.reason is not CloseReason.PROTOCOL:
            raise
        assert_brief(error.message)


def _requests(wire_format: CentrifugoFormat, data: bytes) -> list[Request]:
    found = list(_decoded(wire_format, data))
    assert len(found) <= MAX_COMMANDS
    for command, tag in found:
        assert isinstance(command, Command | CommandError)
        assert tag is None or (isinstance(tag, int) and 0 <= tag < 1 << 32)
        if isinstance(command, CommandError):
            assert_brief(command.message, 120)
        _check_answer(wire_format, command, tag)
    return found


def _check_answer(wire_format: CentrifugoFormat, command: object, tag: object) -> None:
    error = command if isinstance(command, CommandError) else CommandError("FORBIDDEN", "no")
    answer = wire_format.encode(Error(error.code, error.message), tag)
    if not tag:
        assert answer == b""
        return
    (frame,), _ = wire.split(answer)
    if wire_format is PROTOBUF:
        reply = _reply(frame)
        assert reply.id == tag
        assert reply.error.code
        assert reply.error.message
    else:
        told = json.loads(frame.payload)
        assert told["id"] == tag
        assert told["error"]["code"]
        assert told["error"]["message"]


def _reply(frame: wire.Frame) -> Any:
    size, at = _read_varint(frame.payload, 0)
    assert at + size == len(frame.payload)
    return _CLASSES["Reply"].FromString(frame.payload[at:])


def _loads(text: bytes) -> Any:
    """JSON, with numbers as they stand there."""
    return json.loads(text.decode(), parse_int=str, parse_float=str)


def _kinds(found: list[Request]) -> str:
    return " ".join(sorted({type(command).__name__ for command, _ in found}))
