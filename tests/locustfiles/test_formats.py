"""What clients of each format say, and what the server's bytes mean to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.swarm.flow import START, Flow
from odinws.swarm.formats import (
    FORMATS,
    Answer,
    Close,
    Dropped,
    Failure,
    Format,
    Gap,
    Heard,
    Message,
    Subscribed,
    Welcome,
)
from odinws.swarm.frames import WireError
from tests import wire
from tests.sdks import wire as protocol

NATIVE, CENTRIFUGO, PROTOBUF, SSE = (FORMATS[name] for name in ("native", "centrifugo", "protobuf", "sse"))

REPLIES = [
    {"id": 1, "connect": {"client": "x", "version": "odinws", "ping": 25, "pong": True}},
    {"id": 2, "subscribe": {"recoverable": True, "positioned": True, "epoch": "e", "offset": 300}},
    {"id": 3, "subscribe": {"epoch": "e", "offset": 300, "was_recovering": True}},
    {"id": 3, "subscribe": {"epoch": "e", "offset": 300, "was_recovering": True, "recovered": True}},
    {"id": 4, "error": {"code": 103, "message": "permission denied"}},
    {"push": {"channel": "token.A", "pub": {"data": {"offset": 1}, "offset": 301}}},
    {"push": {"channel": "token.*", "pub": {"data": {}, "offset": 302, "tags": {"channel": "token.B"}}}},
    {"push": {"channel": "token.A", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}},
]
MEANT: list[Heard] = [
    Welcome(""),
    Subscribed(0, "", "e"),
    Subscribed(1, "", "e", 300),
    Subscribed(1, "", "e"),
    Subscribed(2, "103"),
    Message("token.A", 301, -1, -1),
    Message("token.B", 302, -1, -1),
    Dropped("token.A"),
]


def server(payload: bytes, opcode: int = wire.TEXT) -> bytes:
    """A server's frame."""
    return wire.frame(opcode, payload, masked=False)


def read(spoken: Format, stream: bytes, cuts: Sequence[int] = ()) -> list[Heard]:
    """What a client hears of a stream that comes in pieces."""
    heard: list[Heard] = []
    rest = b""
    for start, stop in pairwise([0, *sorted(cuts), len(stream)]):
        more, rest = spoken.read(rest + stream[start:stop])
        heard += more
    assert rest == b""
    return heard


def packed(*replies: object) -> bytes:
    """Replies in Protobuf, in one frame."""
    return server(protocol.join([protocol.pack(reply, "Reply") for reply in replies]), wire.BINARY)  # type: ignore[arg-type]


def text(*replies: object) -> bytes:
    """Replies in JSON, in one frame."""
    return server(b"\n".join(json.dumps(reply).encode() for reply in replies))


CENTRIFUGO_STREAM = b"".join(map(text, [*REPLIES, {}])) + text(*REPLIES)
PROTOBUF_STREAM = b"".join(map(packed, [*REPLIES, {}])) + packed(*REPLIES)
PONGS = {CENTRIFUGO: (wire.TEXT, b"{}"), PROTOBUF: (wire.BINARY, b"\0")}


@pytest.mark.parametrize(("spoken", "stream"), [(CENTRIFUGO, CENTRIFUGO_STREAM), (PROTOBUF, PROTOBUF_STREAM)])
@given(data=st.data())
def test_centrifugo(spoken: Format, stream: bytes, data: st.DataObject) -> None:
    """Replies alone and several in a frame, a ping among them, cut anywhere."""
    cuts = data.draw(st.sets(st.integers(0, len(stream)), max_size=8))
    opcode, payload = PONGS[spoken]
    pong = Answer(bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
    assert read(spoken, stream, sorted(cuts)) == [*MEANT, pong, *MEANT]


@pytest.mark.parametrize("spoken", [CENTRIFUGO, PROTOBUF])
def test_commands_of_centrifugo(spoken: Format) -> None:
    """They connect, and subscribe with a position where there is one."""
    said = [spoken.hello(), spoken.subscribe(["token.A", "token.*"], {"token.*": 300}, "e", 5)]
    found = []
    for frame in said:
        payload = frame[8 if frame[1] == 0xFE else 6 :]  # masked with zeros
        if spoken is PROTOBUF:
            found += [protocol.unpack(message, "Command") for message in protocol.split(payload)]
        else:
            found += [json.loads(line) for line in payload.split(b"\n")]
    assert found == [
        {"id": 1, "connect": {}},
        {"id": 7, "subscribe": {"channel": "token.A", "flag": 1}},
        {
            "id": 8,
            "subscribe": {"channel": "token.*", "flag": 1, "recover": True, "offset": 300, "epoch": "e"},
        },
    ]


EVENTS = b"".join(
    [
        b'retry: 2000\nevent: welcome\nid: e:7\ndata: {"epoch":"e","subscribed":["a"],"rejected":[]}\n\n',
        b':\n\nid: e:8\ndata: {"type":"x","channel":"a","seq":8,"prev":7,"ts":5,"data":{}}\n\n',
        b'event: gap\nid: e:9\ndata: {"type":"gap","channel":"a","from":9,"to":9,"reason":"slow"}\n\n',
        b"event: position\nid: e:10\ndata:\n\n",
        b'event: closing\ndata: {"code":1012,"reason":"restart"}\n\n',
    ]
)


@given(st.sets(st.integers(0, len(EVENTS)), max_size=8))
def test_events(cuts: set[int]) -> None:
    """Of Server-Sent Events; comments and positions mean nothing here."""
    assert read(SSE, EVENTS, sorted(cuts)) == [
        Welcome("e"),
        Subscribed(-1),
        Message("a", 8, 7, 5),
        Gap("a", 9, "slow"),
        Close(1012, "restart"),
    ]


def test_requests() -> None:
    """All is in the request of Server-Sent Events; a subprotocol stands for Protobuf."""
    asked = SSE.request("h:1", "/base", ["token.A", "token.*"], "e:7", compression=False)
    line, *fields = asked.decode().split("\r\n")
    assert line == "GET /base/sse?channel=token.A&channel=token.%2A HTTP/1.1"
    assert fields == ["Host: h:1", "Last-Event-ID: e:7", "", ""]
    for spoken, path, offers in ((NATIVE, "/ws", False), (PROTOBUF, "/connection/websocket", True)):
        head = spoken.request("h:1", "", (), "", compression=False).decode()
        assert head.startswith(f"GET {path} HTTP/1.1\r\n")
        assert ("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n" in head) is offers


def test_native() -> None:
    """Messages, and what is none."""
    texts = [
        b'{"type":"welcome","epoch":"e"}',
        b'{"type":"subscription_ack","subscribed":[],"count":0,"rejected":[{"channel":"x","code":"FORBIDDEN"}]}',
        b'{"type":"x","channel":"a","seq":8,"prev":7,"ts":5,"data":{}}',
        b'{"type":"error","code":"INVALID_JSON","message":"x"}',
        b'{"type":"pong","ts":1}',
    ]
    stream = b"".join(map(server, texts)) + server(b"\x0f\xa8slow", wire.CLOSE) + server(b"", wire.PONG)
    assert read(NATIVE, stream) == [
        Welcome("e"),
        Subscribed(-1, "FORBIDDEN"),
        Message("a", 8, 7, 5),
        Failure("INVALID_JSON"),
        Close(4008, "slow"),
    ]


def test_what_nobody_numbers_is_known_from_others() -> None:
    """Without `prev` a message is missed if another client of the process got it."""
    flow = Flow(CENTRIFUGO)

    def pushed(*seqs: int) -> bytes:
        return text(*({"push": {"channel": "a", "pub": {"data": 1, "offset": seq}}} for seq in seqs))

    assert flow.step(START, pushed(1, 4, 9)).holes == []
    step = flow.step(START, pushed(1, 9))
    assert [(hole.after, hole.last) for hole in step.holes] == [(1, 4)]
    assert step.messages == 2
    assert step.ages_at == []


@pytest.mark.parametrize(
    "stream",
    [text(1), server(b"{"), server(b"", wire.BINARY), text({"push": {"pub": {}}}), text({"id": 1})],
)
def test_broken_rules(stream: bytes) -> None:
    """What a server must not send ends a connection, whatever it is."""
    with pytest.raises(WireError):
        Flow(CENTRIFUGO).step(START, stream)
