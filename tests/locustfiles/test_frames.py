"""Bytes of the server, as the swarm reads them."""

from __future__ import annotations

import json
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odinws.swarm import frames
from odinws.swarm.frames import CLOSE, PING, PONG, TEXT, WireError
from tests import wire

FRAMES = st.lists(
    st.tuples(
        st.sampled_from([TEXT, CLOSE, PING, PONG]),
        st.one_of(st.binary(max_size=300), st.integers(120, 70_000).map(lambda size: b"x" * size)),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(FRAMES, st.data())
def test_any_split(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """However the stream is cut, the frames come out as they went in."""
    stream = b"".join(wire.frame(first & 0x0F, payload, masked=False) for first, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    found, rest = [], b""
    for start, stop in pairwise([0, *cuts, len(stream)]):
        more, rest = frames.scan(rest + stream[start:stop])
        found += more
    assert found == sent
    assert not rest


@pytest.mark.parametrize("data", [wire.frame(wire.TEXT, b"hidden"), b"\x01\x01a", b"\x82\x01a"])
def test_what_this_server_never_sends(data: bytes) -> None:
    """Masked, fragmented and binary frames are an error of the server."""
    with pytest.raises(WireError):
        frames.scan(data)


@given(st.binary(max_size=65_535))
def test_own_frames(payload: bytes) -> None:
    """What the swarm sends is masked, and is what it should be once unmasked."""
    frame = frames.frame(TEXT, payload)
    assert frame[1] & 0x80
    head = 2 if len(payload) < 126 else 4
    assert frame[head : head + 4] == b"\0\0\0\0"
    assert frame[head + 4 :] == payload


def test_subscribe() -> None:
    """It resumes where something was heard, with the epoch of those numbers."""
    plain = frames.subscribe(["a"])
    assert json.loads(plain[6:]) == {"type": "subscribe", "data": {"channels": ["a"]}}
    resumed = json.loads(frames.subscribe(["a", "b"], {"a": 3}, "e")[6:])
    assert resumed["data"] == {"channels": ["a", "b"], "since": {"a": 3}, "epoch": "e"}


def test_answers() -> None:
    """An answer that is not whole, an upgrade with frames behind it, a refusal with its hint."""
    head = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {wire.ACCEPT}\r\n\r\n".encode()
    assert frames.answer(head[:-1]) is None
    assert frames.answer(head + b"\x81\0") == (101, None, head, b"\x81\0")
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n"
    assert frames.answer(refusal + b"{") is None, "its body is not whole"
    assert frames.answer(refusal + b"{}") == (503, "7", refusal, b"{}")
    for body, reason in ((b'{"error":"overload"}', "overload"), (b"{}", ""), (b"[1]", ""), (b"<p>", "")):
        assert frames.Answer(503, "7", refusal, body).reason == reason
    for wrong in (b"SSH-2.0\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"):
        with pytest.raises(WireError):
            frames.answer(wrong)


def test_compression() -> None:
    """It is offered when asked for; a compressed text reads like any other; what is none breaks the rules."""
    assert b"permessage-deflate" not in frames.upgrade("h", "/ws")
    assert b"permessage-deflate; server_no_context_takeover" in frames.upgrade("h", "/ws", compression=True)
    payload = b'{"type":"pong"}'
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert frames.scan(bytes((0xC1, len(packed))) + packed) == ([(TEXT, payload)], b"")
    with pytest.raises(WireError, match="can't be inflated"):
        frames.scan(b"\xc1\x01\xff")
