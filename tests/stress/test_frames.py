"""Malformed frames, cut at random places on their way: each ends its own connection, with its own code."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests import wire
from tests.server import wait_for
from tests.stress.conftest import RunningServer
from tests.stress.leaks import assert_no_leaks, measure_baseline
from tests.stress.scenario import CHANNELS, MAX_MESSAGE_BYTES, Listeners, seeded_random
from tests.wire import BINARY, CLOSE, CONTINUATION, END, PING, TEXT, Peer, frame

LISTENERS = 20
BEAT = b'{"type":"heartbeat"}'
TOO_MANY = 1025  # pieces of a message, see docs/protocol.md
LABELS = {1002: "protocol", 1003: "unsupported", 1007: "bad_text", 1009: "too_big"}

MALFORMED = {
    "unmasked": (frame(TEXT, BEAT, masked=False), 1002),
    "reserved bits": (frame(TEXT, BEAT, reserved=3), 1002),
    "first reserved bit, not agreed": (frame(TEXT, BEAT, reserved=4), 1002),
    "reserved data opcode": (frame(3, b"x"), 1002),
    "reserved control opcode": (frame(11, b"x"), 1002),
    "control frame in pieces": (frame(PING, b"x", final=False) + frame(CONTINUATION, b"x"), 1002),
    "control frame of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "continuation of nothing": (frame(CONTINUATION, BEAT), 1002),
    "message amid a message": (frame(TEXT, b"{", final=False) + frame(TEXT, BEAT), 1002),
    "16-bit length above the limit": (
        frame(TEXT, length=b"\x7e" + struct.pack("!H", MAX_MESSAGE_BYTES + 1)),
        1009,
    ),
    "64-bit length above the limit": (frame(TEXT, length=b"\x7f" + struct.pack("!Q", 1 << 40)), 1009),
    "64-bit length with the top bit": (frame(TEXT, length=b"\x7f" + struct.pack("!Q", 1 << 63)), 1002),
    "pieces above the limit": (
        frame(TEXT, b" " * MAX_MESSAGE_BYTES, final=False) + frame(CONTINUATION, b" "),
        1009,
    ),
    "16-bit length of 125": (frame(TEXT, b"x" * 125, length=b"\x7e\x00\x7d"), 1002),
    "64-bit length of 65535": (frame(TEXT, length=b"\x7f" + struct.pack("!Q", 65535)), 1002),
    "close frame of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close code 1005": (wire.close(1005), 1002),
    "close code 2999": (wire.close(2999), 1002),
    "close reason not UTF-8": (wire.close(1000, b"\xf0\x28\x8c\x28"), 1007),
    "text not UTF-8": (frame(TEXT, b'{"type":"\xc3\x28"}'), 1007),
    "text not UTF-8 over two pieces": (
        frame(TEXT, b"\xe2\x82", final=False) + frame(CONTINUATION, b"\x28"),
        1007,
    ),
    "text that ends amid a character": (
        frame(TEXT, b"\xe2", final=False) + frame(CONTINUATION, b"\x82"),
        1007,
    ),
    "too many pieces": (
        frame(TEXT, final=False) + frame(CONTINUATION, final=False) * (TOO_MANY - 1),
        1009,
    ),
    "binary": (frame(BINARY, b"x"), 1003),
}


@pytest.fixture(scope="module")
def listeners(standing: RunningServer) -> Iterator[Listeners]:
    """Clients that behave, through all of it; in the end they have everything and nothing else is left."""
    before = measure_baseline(standing.server)
    with Listeners(standing.server, standing.url, LISTENERS) as listeners:
        yield listeners
        listeners.assert_complete()
    assert_no_leaks(standing.server, before)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_frame_ends_its_own_connection(
    standing: RunningServer, listeners: Listeners, name: str
) -> None:
    """Amid a feed, in pieces of any size: exactly this code, once, and the others are served as before."""
    server = standing.server
    data, code = MALFORMED[name]
    draw = seeded_random(name)
    closed = server.json("/stats")["closed"]
    with Peer(server.port) as peer:
        peer.upgrade()
        assert peer.ask("subscribe", channels=CHANNELS)["count"] == len(CHANNELS)
        assert peer.ask("heartbeat")["type"] == "pong"
        heard = listeners.swarm.messages()
        while data:
            size = draw.choice((1, 2, 3, 7, 64, len(data)))
            peer.send(data[:size])
            data = data[size:]
        close_frame = peer.closing()
        assert close_frame.code == code
        close_frame.payload[2:].decode()
        peer.send(wire.close(code))
        assert peer.next() is END
    wait_for(lambda: server.json("/stats")["connections"] == LISTENERS, 3, "its slot")
    closed[LABELS[code]] += 1
    assert server.json("/stats")["closed"] == closed
    wait_for(lambda: listeners.swarm.messages() >= heard + 2 * LISTENERS, 3, "the feed of the others")
    assert len(listeners.swarm.open()) == LISTENERS
    assert listeners.swarm.problems() == []
