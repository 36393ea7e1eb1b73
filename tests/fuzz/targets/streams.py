"""Event streams. An input is the position that a client brings, one line, and a payload from NATS.

A position is one that could have been given, or one that nothing is at. An EventSource finds the message in
the block that is made of the payload, or a gap in its place, and nothing else. And whatever a head of a
request has, the answer to it in an overload has one line for each field.
"""

from __future__ import annotations

import json

from odinws.http.handover import retry_answer
from odinws.messages.event_format import JsonLines, ServerSentEvents
from odinws.messages.protocol import Message, Position
from odinws.messages.wire_format import encode
from tests.eventsource import EventSource

_EPOCH = "ODIN-1f"
_SSE, _LINES = ServerSentEvents(lambda: _EPOCH), JsonLines(lambda: _EPOCH)
_FIELDS = (
    b"Content-Type: text/event-stream",
    b"Cache-Control: no-store",
    b"Connection: close",
    b"Access-Control-Allow-Credentials: true",
)


def check(data: bytes) -> str:
    """Look at all three."""
    _check_answer(data)
    brought, _, payload = data.partition(b"\n")
    position = Position.parse(brought.decode("latin-1"))
    assert 0 <= position.seq < 10**19
    assert not position.epoch or str(position).rpartition(":")[0] == position.epoch
    assert Position.parse(str(position)) == position
    message = Message("token.BTC", 7, 5, 1_700_000_000_000, payload)
    client = EventSource()
    bundle = encode([message], "token.BTC", _SSE)
    (event,) = client.feed(bundle.data)
    (line,) = encode([message], "token.BTC", _LINES).data.decode().split("\n")[:-1]
    assert event.data == line
    if bundle.gaps:
        assert (event.kind, client.last_id) == ("gap", "")
        assert json.loads(line)["reason"] == "invalid_payload"
        return f"gap {bool(position.epoch)}"
    assert (event.kind, client.last_id) == ("message", f"{_EPOCH}:7")
    is_one_line = not {*b"\r\n"} & {*payload}
    return f"message {bool(position.epoch)} {is_one_line}"


def read(data: bytes) -> int:
    """What a stranger's request has."""
    Position.parse(data.decode("latin-1"))
    retry_answer(b"GET /sse" + data, 5)
    return 0


def _check_answer(data: bytes) -> None:
    answer = retry_answer(b"GET /sse?" + data, 5)
    if not answer:
        return
    head, body = answer.split(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    assert (status, body) == (b"HTTP/1.1 200 OK", b"retry: 5000\n\n")
    others = [field for field in fields if field not in _FIELDS]
    assert [field.partition(b":")[0] for field in others] in ([], [b"Access-Control-Allow-Origin"])
    assert not any(b"\n" in field or b"\r" in field for field in fields)
