"""`odinws.messages.centrifugo_protobuf`: it says what the JSON encoding says, and the runtime reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from odinws.close_codes import CloseReason
from odinws.errors import FrameError
from odinws.messages.centrifugo import MAX_COMMANDS, CentrifugoJson
from odinws.messages.centrifugo_protobuf import _CLASSES, FORMATS, CentrifugoProtobuf, _read_varint, _varint
from odinws.messages.protocol import (
    Connected,
    Error,
    Heartbeat,
    Joined,
    Left,
    Message,
    Outgoing,
    Past,
    Renewed,
    Request,
    UnsubscriptionAck,
)
from odinws.messages.wire_format import encode
from tests import wire

JSON, PROTOBUF = CentrifugoJson(), CentrifugoProtobuf()
BTC = Message("token.BTC", 7, 5, 1000, b'{"price":1}')

texts = st.text(st.characters(codec="utf-8"), max_size=10)
seqs = st.integers(0, (1 << 53) - 1)
positions = st.integers(0, (1 << 64) - 1)
names = st.sampled_from(["token.BTC", "token.*", "global", "user.42"])
seconds = st.none() | st.floats(0, 1 << 53)
messages = st.builds(
    Message, st.just("token.BTC"), seqs, seqs, seqs, st.sampled_from([b"1", b"{}", b'[ "x" ]'])
)
joined = st.builds(
    Joined, names, texts, seqs, st.none() | st.booleans(), st.lists(messages, max_size=3), seconds
)
answers: st.SearchStrategy[Outgoing] = st.one_of(
    joined,
    st.builds(
        Connected,
        texts,
        st.floats(0, 1000),
        seconds,
        st.lists(joined, max_size=3, unique_by=lambda j: j.channel),
    ),
    st.builds(Renewed, texts, seconds),
    st.builds(Past, names, texts, seqs, st.lists(messages, max_size=3)),
    st.builds(Error, st.sampled_from(["FORBIDDEN", "UNAVAILABLE", "OTHER"]), texts),
    st.just(UnsubscriptionAck([], 0)),
    st.builds(Left, names),
)

subscriptions = st.fixed_dictionaries(
    {},
    optional={
        "channel": texts,
        "token": texts,
        "recover": st.booleans(),
        "epoch": texts,
        "offset": positions,
        "flag": st.integers(0, 7),
        "type": st.integers(0, 2),
    },
)
bodies: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(
        st.just("connect"),
        st.fixed_dictionaries(
            {},
            optional={
                "token": texts,
                "subs": st.dictionaries(names, subscriptions, max_size=3),
                "headers": st.dictionaries(texts | st.just("AUTHORIZATION"), texts, max_size=2),
            },
        ),
    ),
    st.tuples(st.just("subscribe"), subscriptions),
    st.tuples(
        st.sampled_from(["unsubscribe", "sub_refresh"]),
        st.fixed_dictionaries({"channel": texts, "token": texts}),
    ),
    st.tuples(st.just("refresh"), st.fixed_dictionaries({"token": texts})),
    st.tuples(
        st.just("history"),
        st.fixed_dictionaries(
            {"channel": texts},
            optional={
                "limit": st.integers(-3, 1000),
                "since": st.fixed_dictionaries({}, optional={"offset": positions, "epoch": texts}),
                "reverse": st.booleans(),
            },
        ),
    ),
)
commands = st.lists(st.tuples(st.integers(0, (1 << 32) - 1), bodies), max_size=5)


def replies(frame: bytes) -> Iterator[Any]:
    """What the official runtime reads of a frame."""
    (found,), rest = wire.split(frame)
    assert rest == b""
    assert found.opcode == wire.BINARY
    at = 0
    while at < len(found.payload):
        size, at = _read_varint(found.payload, at)
        yield _CLASSES["Reply"].FromString(found.payload[at : at + size])
        at += size


def plain(value: Any) -> Any:
    """Without what Protobuf does not write: zeros, and what is empty."""
    if isinstance(value, Mapping):
        found = {name: plain(each) for name, each in value.items()}
        return {n: each for n, each in found.items() if each not in (0, "", False, []) or each is True}
    return [plain(each) for each in value] if isinstance(value, list) else value


def as_json(value: Any, key: str = "") -> Any:
    """As `json_format` writes: long numbers are texts."""
    if isinstance(value, dict):
        return {name: as_json(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [as_json(each) for each in value]
    if key == "offset":
        return str(value)
    return value


@given(answers, st.integers(1, (1 << 32) - 1))
def test_both_encodings_say_the_same(value: Outgoing, tag: int) -> None:
    """For every answer, but for how payloads are carried."""
    (text,), _ = wire.split(JSON.encode(value, tag))
    (reply,) = replies(PROTOBUF.encode(value, tag))
    for publications in (
        reply.history.publications,
        reply.subscribe.publications,
        *(result.publications for result in reply.connect.subs.values()),
    ):
        for publication in publications:
            json.loads(publication.data)
            publication.data = b""
    expected = as_json(plain(_without_data(text.json)))
    found = plain(json_format.MessageToDict(reply, preserving_proto_field_name=True))
    assert found == expected


def _without_data(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_data(each) for name, each in value.items() if name != "data"}
    return [_without_data(each) for each in value] if isinstance(value, list) else value


@given(st.binary(max_size=300), st.integers(1, (1 << 63) - 1), st.sampled_from(["token.BTC", "token.*", ">"]))
def test_the_runtime_reads_joined_messages(payload: bytes, seq: int, via: str) -> None:
    """Whatever the payload, JSON or not; the bytes are those that the runtime would write."""
    message = Message("token.BTC", seq, 0, 0, payload)
    (reply,) = replies(PROTOBUF.message(message, via))
    publication = reply.push.pub
    assert (reply.push.channel, publication.data, publication.offset) == (via, payload, seq)
    assert dict(publication.tags) == ({} if via == "token.BTC" else {"channel": "token.BTC"})
    written = PROTOBUF.frame_of({"push": {"channel": via, "pub": PROTOBUF.publication(message, via)}})
    if payload:  # the runtime leaves out what is empty
        assert PROTOBUF.message(message, via) == written


def test_a_gap_and_a_ping() -> None:
    """As in JSON; nothing that Protobuf can't carry is a gap."""
    (reply,) = replies(PROTOBUF.gap("token.BTC", 1, 2, "expired", "token.*"))
    assert (reply.push.channel, reply.push.unsubscribe.code) == ("token.*", 2500)
    assert reply.push.unsubscribe.reason
    assert encode([BTC._replace(payload=b"\xff")], "token.BTC", PROTOBUF).gaps == []
    (found,), _ = wire.split(PROTOBUF.ping(b"x"))
    assert found == (0x80 | wire.BINARY, b"\x00")


@given(commands)
def test_commands_mean_the_same_in_both_encodings(given_commands: list[tuple[int, tuple[str, Any]]]) -> None:
    """Several in a frame, with whatever fields."""
    frame, lines = b"", []
    for tag, (method, body) in given_commands:
        lines.append(json.dumps({"id": tag, method: body}))
        command = _CLASSES["Command"](id=tag, **{method: body}).SerializeToString()
        frame += _varint(len(command)) + command
    expected = list(JSON.decode("\n".join(lines).encode()))
    found = list(PROTOBUF.decode(frame))
    assert [str(request) for request in found] == [str(request) for request in expected]
    assert [_comparable(request) for request in found] == [_comparable(request) for request in expected]


def _comparable(request: Request) -> Any:
    command, tag = request
    return (str(command) if isinstance(command, Exception) else command, tag)


def test_what_there_is_not() -> None:
    """By the name of the field alone, whatever is in it; a field that is not known says nothing."""
    known = [b"\x08\x01\x3a\x00", b"\x08\x02\x6a\x02\x0a\x00", b"\x08\x03\xf2\x7f\x00"]
    frame = b"".join(_varint(len(command)) + command for command in known)
    codes = [getattr(request.command, "code", None) for request in PROTOBUF.decode(frame)]
    assert codes == ["NOT_AVAILABLE", "NOT_AVAILABLE", "UNKNOWN_METHOD"]
    assert list(PROTOBUF.decode(b"\x00")) == [Request(Heartbeat())]


@pytest.mark.parametrize(
    "data",
    [
        b"\x01",
        b"\x05\x08\x01",
        b"\xff\xff\xff\xff\xff\x01",
        b"\x80",
        b"\x02\x0a\xff",
        b"\x00" * (MAX_COMMANDS + 1),
    ],
)
def test_what_cannot_be_read_ends_the_connection(data: bytes) -> None:
    """Cut off, without an end, or too many."""
    with pytest.raises(FrameError) as error:
        list(PROTOBUF.decode(data))
    assert error.value.reason is CloseReason.PROTOCOL


@given(st.integers(0, (1 << 63) - 1))
def test_numbers(number: int) -> None:
    """Seven bits a byte."""
    data = _varint(number)
    assert len(data) == max(1, -(-number.bit_length() // 7))
    if number < 1 << 35:
        assert _read_varint(b"x" + data + b"y", 1) == (number, 1 + len(data))


def test_formats_by_subprotocol() -> None:
    """As SDKs offer them."""
    assert {name: make(0, 0).command_opcode for name, make in FORMATS.items()} == {
        "centrifuge-json": wire.TEXT,
        "centrifuge-protobuf": wire.BINARY,
    }
