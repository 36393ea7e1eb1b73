"""`odinws.messages.event_format`: what an EventSource, and a reader of lines, makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odinws.close_codes import CloseReason
from odinws.messages.event_format import EventFormat, JsonLines, ServerSentEvents
from odinws.messages.json_format import envelope
from odinws.messages.protocol import At, Lost, Message, Pong, Position, Rejected, StreamWelcome
from odinws.messages.wire_format import Bundle, encode
from tests.eventsource import EventSource
from tests.fakes import JSON, pieces

EPOCH = "S-1f"
SSE = ServerSentEvents(lambda: EPOCH)
LINES = JsonLines(lambda: EPOCH)
WELCOME = StreamWelcome(
    client_id="a-1",
    epoch=EPOCH,
    server="odinws/0",
    heartbeat_seconds=25.0,
    subscribed=["global"],
    rejected=[Rejected("x", "INVALID_CHANNEL", "no")],
)
payloads = st.builds(
    lambda value, indent, is_ascii: json.dumps(value, indent=indent, ensure_ascii=is_ascii).encode(),
    JSON,
    st.sampled_from((None, 0, 2, "\t", "\r\n", "\r")),
    st.booleans(),
)
messages = st.builds(
    Message,
    st.sampled_from(("global", "token.BTC")),
    st.integers(1, 1 << 53),
    st.integers(0, 1 << 53),
    st.integers(0, 1 << 53),
    payloads,
)


gaps = st.builds(Lost, st.just("global"), st.integers(1, 9), st.integers(9, 99), st.just("slow"))


@given(st.lists(messages | gaps), st.lists(st.integers(0)))
@example([Message("global", 7, 3, 5, b'\r\n{"a":\r"\xef\xbb\xbf\xe2\x80\xa8"\n}\n\n')], [1, 2, 3])
@example([Message("global", 7, 3, 5, b'{"type":"error\\n\\ndata: x"}')], [])
def test_an_eventsource_reads_what_was_sent(events: list[Message | Lost], cuts: list[int]) -> None:
    """Messages by `onmessage`, gaps by their name, and its position is that of the last message."""
    bundle = encode(events, "", SSE)
    stream = SSE.retry(1.5) + SSE.encode(WELCOME) + bundle.data + SSE.ping(b"")
    client = EventSource()
    found = [event for part in pieces(stream, cuts) for event in client.feed(part)]
    assert [event.kind for event in found[:1]] == ["welcome"]
    assert client.retry_ms == 1500
    assert client.comments == 1
    native = encode(events, "", LINES)
    for event, line in zip(found[1:], native.data.split(b"\n")[:-1], strict=True):
        assert event.data.encode() == line
    carried = [e.first for e in bundle.entries if e.messages]
    assert client.last_id == (f"{EPOCH}:{carried[-1]}" if carried else "")


@given(messages)
def test_a_line_is_the_native_text(message: Message) -> None:
    """Byte for byte but for line ends, which JSON has only between its parts."""
    try:
        expected = envelope(message)
    except ValueError:
        return
    expected = bytes(byte for byte in expected if byte not in b"\r\n")
    assert LINES.message(message, "global") == expected + b"\n"
    assert b"\ndata: " + expected + b"\n\n" in SSE.message(message, "global")
    assert json.loads(expected)["data"] == json.loads(message.payload)


@pytest.mark.parametrize("wire_format", [SSE, LINES])
def test_what_is_no_json_can_not_be_carried(wire_format: EventFormat) -> None:
    """A line end within a text would end the block: a gap takes its place."""
    bundle = encode([Message("global", 4, 2, 0, b'"a\nb"')], "", wire_format)
    assert bundle.gaps == ["invalid_payload"]
    assert b"a\nb" not in bundle.data


def test_a_gap_moves_no_position() -> None:
    """What is before its end on another channel may still be to come."""
    client = EventSource("S:3")
    (event,) = client.feed(SSE.gap("token.A", 4, 9, "expired", "token.*"))
    assert event.kind == "gap"
    assert json.loads(event.data) == {
        "type": "gap",
        "channel": "token.A",
        "from": 4,
        "to": 9,
        "reason": "expired",
    }
    assert client.last_id == "S:3"


def test_a_welcome_and_a_position_move_it() -> None:
    """Where the stream begins, and where a client is that gets nothing."""
    client = EventSource()
    assert [e.kind for e in client.feed(SSE.encode(WELCOME))] == ["welcome"]
    assert client.last_id == ""
    client.feed(SSE.encode(At("a:b:12")))
    assert client.last_id == "a:b:12"
    assert json.loads(LINES.encode(At("a:b:12"))) == {"type": "position", "position": "a:b:12"}


@pytest.mark.parametrize(
    ("hint", "reason", "retry_ms", "told"),
    [
        (2.74, CloseReason.GOING_AWAY, 2740, {"code": 1001, "reason": "bye", "retry_after_seconds": 2.7}),
        (None, CloseReason.SLOW, 1000, {"code": 4008, "reason": "bye", "retry_after_seconds": 1.0}),
        (None, CloseReason.UNAUTHORISED, None, {"code": 4401, "reason": "bye"}),
    ],
)
def test_the_end(hint: float | None, reason: CloseReason, retry_ms: int | None, told: dict[str, Any]) -> None:
    """Why, and when to come back."""
    client = EventSource("S:3")
    (event,) = client.feed(SSE.close(reason, "bye", hint))
    assert event.kind == "closing"
    assert json.loads(event.data) == {"type": "closing", **told}
    assert client.retry_ms == retry_ms
    assert client.last_id == "S:3"
    assert json.loads(LINES.close(reason, "bye", hint)) == {"type": "closing", **told}


@pytest.mark.parametrize("wire_format", [SSE, LINES])
def test_what_an_event_stream_does_not_have(wire_format: EventFormat) -> None:
    """Nothing is sent for it, and nothing is read."""
    assert wire_format.encode(Pong(1)) == b""
    assert wire_format.pong(b"x") == wire_format.close_answer(b"x") == b""
    with pytest.raises(NotImplementedError):
        wire_format.reader(1)
    with pytest.raises(NotImplementedError):
        wire_format.decode(b"")


@given(st.text(max_size=40))
@example("a:b:12")
@example(":1")
@example("S:" + "9" * 30)
@example("S:\u0663")
@example("S:-1")
@example("")
def test_a_position_that_comes_back(text: str) -> None:
    """It is that which was given, or one that nothing is at."""
    found = Position.parse(text)
    assert 0 <= found.seq < 10**19
    if found.epoch:
        assert found.epoch + ":" == text[: len(found.epoch) + 1]
    assert Position.parse(str(found)) == found


@given(st.lists(st.lists(st.integers(1, 1000), unique=True), max_size=4))
def test_bundles_are_merged_in_the_order_of_the_stream(channels: list[list[int]]) -> None:
    """All frames, each once, whose positions rise."""
    bundles = [
        encode([Message("global", seq, 0, 0, b"1") for seq in sorted(seqs)], "", SSE) for seqs in channels
    ]
    merged = Bundle.merged(bundles)
    assert [entry.first for entry in merged.entries] == sorted(seq for seqs in channels for seq in seqs)
    assert merged.data == b"".join(entry.frame for entry in merged.entries)
    assert merged.data_count == sum(map(len, channels))
