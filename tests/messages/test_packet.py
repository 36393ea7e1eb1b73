"""`odinws.messages.packet`: frames that are made once, plain and compressed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.messages import frames, packet
from odinws.messages.deflate import Deflater, inflate
from odinws.messages.packet import Bundle, Entry, Packer, Packet, Text
from tests import wire

PRICES = [Text(b'{"price":%d}' % seq + b" " * 400, "token.a", seq, seq) for seq in range(1, 4)]
GAP = Text(b'{"type":"gap"}', "token.a", 4, 9, "slow")
DEFLATED = 0xC1  # FIN, the first reserved bit, text

texts = st.builds(
    Text,
    st.text(max_size=100).map(lambda some: (some * 5).encode()),
    st.sampled_from(["global", "token.a"]),
    st.integers(1, 9),
    st.integers(10, 20),
    st.sampled_from(["", "slow", "expired"]),
)


class Counting(Deflater):
    """Counts what is compressed."""

    made: list[tuple[int, bytes]]

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self._bits = bits

    def deflate(self, payload: bytes) -> bytes:
        """Compress it and note it."""
        self.made.append((self._bits, payload))
        return super().deflate(payload)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bytes]]:
    """What was compressed, and for which window."""
    monkeypatch.setattr(Counting, "made", [], raising=False)
    monkeypatch.setattr(packet, "Deflater", Counting)
    return Counting.made


def heard(bundle: Bundle) -> list[bytes]:
    """What a client makes of a bundle, whose two forms say the same."""
    assert bundle.data == b"".join(entry.frame for entry in bundle.entries)
    found, rest = wire.split(bundle.data)
    assert rest == b""
    assert len(found) == len(bundle.entries)
    assert {frame.head for frame in found} <= {0x81, DEFLATED}
    return [inflate(frame.payload, 1 << 20) if frame.head == DEFLATED else frame.payload for frame in found]


def heads(bundle: Bundle) -> list[int]:
    """The first byte of each frame."""
    return [entry.frame[0] for entry in bundle.entries]


@given(said=st.lists(texts, max_size=5), min_bytes=st.integers(0, 300), bits=st.integers(9, 15))
def test_both_forms_say_the_same(said: list[Text], min_bytes: int, bits: int) -> None:
    """Plain or compressed, a packet has the same messages, and its entries tell of the same sequences."""
    pack = Packet(Packer(min_bytes), said)
    assert pack.plain.data == b"".join(frames.text(text.payload) for text in said)
    for bundle in (pack.plain, pack.deflated(bits)):
        assert heard(bundle) == [text.payload for text in said]
        assert [entry[1:] for entry in bundle.entries] == [
            (*text[1:4], 0 if text.gap else 1) for text in said
        ]
        assert list(bundle.gaps) == [text.gap for text in said if text.gap]
    assert len(pack.deflated(bits).data) <= len(pack.plain.data)


def test_made_once(made: list[tuple[int, bytes]]) -> None:
    """Nothing is compressed that nobody wants, and nothing twice for one window."""
    pack = Packet(Packer(0), PRICES)
    assert made == []
    assert pack.plain is pack.plain
    first = pack.deflated(15)
    assert made == [(15, text.payload) for text in PRICES]
    assert pack.deflated(15) is first
    assert len(made) == 3
    assert pack.deflated(9) is not first
    assert made[3:] == [(9, text.payload) for text in PRICES]


def test_a_compressor_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packer has one compressor for each window, however many packets it makes."""
    built: list[int] = []

    class Noting(Deflater):
        """Notes that it was made."""

        def __init__(self, bits: int) -> None:
            super().__init__(bits)
            built.append(bits)

    monkeypatch.setattr(packet, "Deflater", Noting)
    packer = Packer(0)
    for bits in (15, 9, 15, 9):
        assert heads(Packet(packer, PRICES).deflated(bits)) == [DEFLATED] * 3
    assert built == [15, 9]


def test_short_messages_stay_plain(made: list[tuple[int, bytes]]) -> None:
    """A payload of the threshold is compressed, one byte less is not even tried."""
    said = [Text(b"x" * size, "global", size, size) for size in (255, 256)]
    bundle = Packet(Packer(256), [*said, GAP]).deflated(15)
    assert heads(bundle) == [0x81, DEFLATED, 0x81]
    assert [payload for _, payload in made] == [b"x" * 256]
    assert bundle.entries[0].frame == frames.text(b"x" * 255)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256))])
def test_what_does_not_shrink_stays_plain(payload: bytes) -> None:
    """A payload that would not be shorter goes out as it is."""
    assert heads(Packet(Packer(0), [Text(payload, "global", 1, 1)]).deflated(15)) == [0x81]


def test_bundles() -> None:
    """A bundle joins its frames; an answer belongs to no channel and is no message."""
    entries = [Entry(b"a", "global", 1, 1, 1), Entry(b"bc")]
    whole = Bundle.of(entries)
    assert (whole.data, whole.entries, whole.data_count) == (b"abc", entries, 2)
    empty = Bundle.of([])
    assert (empty.data, list(empty.entries), empty.data_count) == (b"", [], 0)
    control = Bundle.control(b"x")
    assert (control.data, control.entries, control.data_count) == (b"x", (Entry(b"x", None, 0, 0, 0),), 0)
