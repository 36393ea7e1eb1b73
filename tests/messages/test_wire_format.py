"""`odinws.messages.wire_format`: frames are encoded once for each wire format."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.messages.deflate import inflate
from odinws.messages.json_format import JsonFormat, envelope
from odinws.messages.protocol import Lost, Message
from odinws.messages.wire_format import Bundle, Entry, FormatRegistry, Packet, encode
from tests import wire

PRICES = [Message("token.a", seq, seq - 1, 9, b'{"price":%d,"x":"%b"}' % (seq, b"x" * 400)) for seq in (1, 2)]
DEFLATED = 0xC1  # FIN, the first reserved bit, text

channels = st.sampled_from(["global", "token.a"])
payloads = st.text(max_size=100).map(lambda some: json.dumps(some * 5).encode()) | st.just(b"no JSON")
events = st.builds(Message, channels, st.integers(1, 9), st.just(0), st.just(9), payloads) | st.builds(
    Lost, channels, st.integers(1, 9), st.integers(10, 20), st.sampled_from(["overflow", "expired"])
)


def heard(bundle: Bundle) -> list[bytes]:
    """What a client makes of a bundle, whose two forms say the same."""
    assert bundle.data == b"".join(entry.frame for entry in bundle.entries)
    found, rest = wire.split(bundle.data)
    assert rest == b""
    assert len(found) == len(bundle.entries) == bundle.data_count
    assert {frame.head for frame in found} <= {0x81, DEFLATED}
    return [inflate(frame.payload, 1 << 20) if frame.head == DEFLATED else frame.payload for frame in found]


@given(said=st.lists(events, max_size=5), min_bytes=st.integers(0, 300), bits=st.integers(9, 15))
def test_all_forms_say_the_same(said: list[Message | Lost], min_bytes: int, bits: int) -> None:
    """Plain or compressed, a packet has the same messages, and its entries cover the same sequences."""
    formats = FormatRegistry(JsonFormat, min_bytes)
    packet = Packet(said, "global", formats.default)
    plain, small = packet.plain, packet.encoded(formats.of(None, bits))
    assert heard(plain) == heard(small)
    assert len(small.data) <= len(plain.data)
    for bundle in (plain, small):
        told: list[tuple[str | None, int, int, int]] = []
        gaps: list[str] = []
        for event, text in zip(said, heard(bundle), strict=True):
            if isinstance(event, Message) and event.payload != b"no JSON":
                told.append((event.channel, event.seq, event.seq, 1))
                assert text == envelope(event)
                continue
            lost = (
                event
                if isinstance(event, Lost)
                else Lost(event.channel, event.seq, event.seq, "invalid_payload")
            )
            told.append((lost.channel, lost.first, lost.last, 0))
            gaps.append(lost.reason)
            assert json.loads(text) == {
                "type": "gap",
                "channel": lost.channel,
                "from": lost.first,
                "to": lost.last,
                "reason": lost.reason,
            }
        assert [entry[1:] for entry in bundle.entries] == told
        assert list(bundle.gaps) == gaps


def test_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made that nobody wants, and nothing twice for one format."""
    made: list[tuple[int, int, str]] = []
    message = JsonFormat.message

    def noting(self: JsonFormat, each: Message, via: str) -> bytes:
        made.append((self.window_bits, each.seq, via))
        return message(self, each, via)

    monkeypatch.setattr(JsonFormat, "message", noting)
    formats = FormatRegistry(JsonFormat, 0)
    packet = Packet(PRICES, "token.*", formats.default)
    assert packet.encoded(formats.default) is packet.plain
    first = packet.encoded(formats.of(None, 15))
    assert packet.encoded(formats.of(None, 15)) is first
    assert packet.encoded(formats.of(None, 9)) is not first
    assert made == [(bits, seq, "token.*") for bits in (0, 15, 9) for seq in (1, 2)]


def test_a_format_is_one_object() -> None:
    """So that what is made for one connection is found for the next, and has one compressor."""
    formats = FormatRegistry(JsonFormat, 0)
    assert formats.of(None, 0) is formats.of("odinws", 0) is formats.default
    assert formats.of(None, 15) is formats.of(None, 15) is not formats.of(None, 9)
    assert [formats.of(None, bits).window_bits for bits in (0, 9, 15)] == [0, 9, 15]


def test_some_channels_are_never_compressed() -> None:
    """In any format, as their rules say."""
    formats = FormatRegistry(JsonFormat, 0, compresses=lambda channel: channel != "token.secret")
    for bits in (0, 15):
        for channel in ("token.secret", "token.open"):
            made = formats.of(None, bits).message(Message(channel, 1, 0, 1, b'"%b"' % (b"x" * 500)), channel)
            assert bool(made[0] & 0x40) is (bits == 15 and channel == "token.open")


@pytest.mark.parametrize("payload", [b'""', b"1"])
def test_what_does_not_shrink_stays_plain(payload: bytes) -> None:
    """A message that would not be shorter goes out as it is, also where it is tried."""
    ((frame, *_),) = encode([Message("global", 1, 0, 1, payload)], "global", JsonFormat(15, 1000)).entries
    assert frame[0] == 0x81


def test_what_a_format_has_no_words_for() -> None:
    """It leaves no empty frame behind, and does not count as a gap."""

    class Silent(JsonFormat):
        def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
            return b""

    bundle = encode([Lost("global", 1, 2, "expired"), PRICES[0]], "global", Silent())
    assert [entry.first for entry in bundle.entries] == [1]
    assert (bundle.data_count, bundle.gaps) == (1, [])


def test_bundles() -> None:
    """A bundle joins its frames; an answer belongs to no channel and is no message."""
    entries = [Entry(b"a", "global", 1, 1, 1), Entry(b"bc")]
    whole = Bundle.of(entries)
    assert (whole.data, whole.entries, whole.data_count) == (b"abc", entries, 2)
    empty = Bundle.of([])
    assert (empty.data, list(empty.entries), empty.data_count) == (b"", [], 0)
    control = Bundle.control(b"x")
    assert (control.data, control.entries, control.data_count) == (b"x", (Entry(b"x", None, 0, 0, 0),), 0)
