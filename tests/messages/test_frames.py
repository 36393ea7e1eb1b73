"""`odinws.messages.frames` against the rules at its head, a bytewise model, and wsproto as an oracle.

Where it differs from wsproto on purpose:

- stricter: a message is bounded in bytes and in fragments; wsproto has no bound;
- looser: close code 1014 (bad gateway, in the IANA registry) is taken; wsproto does not know it;
- earlier: what the first two bytes tell (no mask, a reserved bit, a fragment out of order) is refused with
  them; wsproto waits for the length, or for a byte of the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason as OracleReason
from wsproto.frame_protocol import FrameProtocol, ParseFailed
from wsproto.frame_protocol import Opcode as OracleOpcode

from odinws.close_codes import CloseReason
from odinws.errors import FrameError
from odinws.messages import frames
from odinws.messages.deflate import Deflater
from odinws.messages.frames import BYTES_PER_FRAGMENT, MIN_FRAGMENTS, FrameReader, Message, Opcode
from tests import wire
from tests.fakes import pieces

MAX_BYTES = 1 << 17
MAX_FRAGMENTS = MAX_BYTES // BYTES_PER_FRAGMENT
EDGES = [0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537]

sizes = st.one_of(st.integers(0, 300), st.sampled_from(EDGES))
payloads = sizes.flatmap(
    lambda size: st.binary(min_size=min(size, 64), max_size=min(size, 64)).map(
        lambda head: (head * (size // max(len(head), 1) + 1))[:size]
    )
)
controls = st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))
cuts = st.lists(st.integers(0, 1 << 18), max_size=20)


def read(
    stream: bytes, at: Iterable[int] = (), max_bytes: int = MAX_BYTES, *, deflate: bool = False
) -> list[Message]:
    """All messages of a stream that is cut at these places."""
    reader = FrameReader(max_bytes, deflate=deflate)
    return [message for piece in pieces(stream, at) for message in reader.feed(piece)]


def refused(
    stream: bytes, at: Iterable[int] = (), max_bytes: int = MAX_BYTES, *, deflate: bool = False
) -> CloseReason:
    """Why a stream is refused."""
    with pytest.raises(FrameError) as caught:
        read(stream, at, max_bytes, deflate=deflate)
    assert str(caught.value) == caught.value.message
    return caught.value.reason


def bytewise(payload: bytes, key: bytes) -> bytes:
    """Section 5.3 to the letter."""
    return bytes(octet ^ key[index % 4] for index, octet in enumerate(payload))


# -- encoding --------------------------------------------------------------------------------------


@given(opcode=st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payload=payloads)
def test_encoded_frames_are_what_wsproto_sends(opcode: Opcode, payload: bytes) -> None:
    """Byte for byte the frame of the oracle's server side, at every size of the length field."""
    assert frames.encode(opcode, payload) == bytes(
        FrameProtocol(client=False, extensions=[])._serialize_frame(OracleOpcode(opcode), payload)
    )


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (127, b"\x81\x7e\x00\x7f"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_length_field_at_its_edges(size: int, header: bytes) -> None:
    """The length takes 7, 16 or 64 bits, always the fewest that do."""
    assert frames.text(b"x" * size) == header + b"x" * size


def test_control_frames() -> None:
    """Ping and pong carry their payload, a ping without one is two bytes."""
    assert frames.ping() == b"\x89\x00"
    assert frames.ping(b"hi") == b"\x89\x02hi"
    assert frames.pong(b"hi") == b"\x8a\x02hi"


@given(code=st.sampled_from([reason.code for reason in CloseReason]), reason=st.text(max_size=200))
@example(code=1008, reason="€" * 42)
@example(code=1008, reason="x" * 124)
def test_close_frames_hold_code_and_reason(code: int, reason: str) -> None:
    """A close frame is a valid control frame whatever the reason; the reason is cut between characters."""
    frame = frames.close(code, reason)
    assert frame[0] == 0x88
    assert frame[1] == len(frame) - 2 <= 125
    assert struct.unpack("!H", frame[2:4]) == (code,)
    said = frame[4:].decode()
    assert reason.startswith(said)
    assert said == reason or len(reason[: len(said) + 1].encode()) > 123


def test_compressed_text_has_the_first_reserved_bit() -> None:
    """And nothing else tells it from a plain frame (RFC 7692 section 6)."""
    assert frames.text(b"x" * 126, deflated=True) == b"\xc1" + frames.text(b"x" * 126)[1:]


# -- decoding --------------------------------------------------------------------------------------


@given(payload=payloads, key=st.binary(min_size=4, max_size=4))
def test_unmasking_is_the_bytewise_rule(payload: bytes, key: bytes) -> None:
    """The XOR of one long integer is section 5.3, for any key and length."""
    assert frames._unmask(payload, key) == bytewise(payload, key)
    assert frames._unmask(bytearray(payload), bytearray(key)) == bytewise(payload, key)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Message]]:
    """A valid stream as the oracle's client side sends it, and what it says."""
    client = FrameProtocol(client=True, extensions=[])
    stream, said = b"", []
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            opcode, payload = draw(controls)
            stream += client.ping(payload) if opcode is Opcode.PING else client.pong(payload)
            said.append(Message(opcode, payload))
            continue
        as_text = draw(st.booleans())
        whole = draw(st.text(max_size=200)).encode() if as_text else draw(payloads)
        parts = pieces(whole, draw(st.lists(st.integers(0, 1 << 17), max_size=4))) or [b""]
        opcode = Opcode.TEXT if as_text else Opcode.BINARY
        for index, part in enumerate(parts):
            final = index == len(parts) - 1
            # By hand for text: a cut may fall into a character, which wsproto's sender can't express.
            stream += wire.frame(opcode if index == 0 else wire.CONTINUATION, part, final=final)
            if not final and draw(st.booleans()):
                between = draw(controls)
                stream += wire.frame(between[0], between[1])
                said.append(Message(*between))
        said.append(Message(opcode, whole))
    return bytes(stream), said


def test_the_examples_of_the_rfc() -> None:
    """Section 5.7: a masked "Hello", a ping and a pong with it."""
    key = b"\x37\xfa\x21\x3d"
    assert read(b"\x81\x85" + key + b"\x7f\x9f\x4d\x51\x58") == [Message(Opcode.TEXT, b"Hello")]
    assert read(b"\x89\x85" + key + b"\x7f\x9f\x4d\x51\x58") == [Message(Opcode.PING, b"Hello")]
    assert read(b"\x8a\x85" + key + b"\x7f\x9f\x4d\x51\x58") == [Message(Opcode.PONG, b"Hello")]


@given(conversation=conversations(), at=cuts)
def test_any_split_gives_the_same_messages(conversation: tuple[bytes, list[Message]], at: list[int]) -> None:
    """Messages come out whole and in order however the stream is cut, and nothing is held at its end."""
    stream, said = conversation
    reader = FrameReader(MAX_BYTES)
    heard = [message for piece in pieces(stream, at) for message in reader.feed(piece)]
    assert heard == said
    assert reader.is_idle


@given(conversation=conversations())
def test_byte_by_byte(conversation: tuple[bytes, list[Message]]) -> None:
    """The finest split: one byte at a time, for the first bytes and the last ones of the stream."""
    stream, said = conversation
    edge = min(len(stream), 400)
    at = [*range(edge), *range(len(stream) - edge, len(stream))]
    assert read(stream, at) == said


@given(conversation=conversations(), at=cuts)
def test_each_message_comes_with_the_byte_that_completes_it(
    conversation: tuple[bytes, list[Message]], at: list[int]
) -> None:
    """Nothing is kept back: the messages of a prefix are those whose last byte is in it."""
    stream, _ = conversation
    reader = FrameReader(MAX_BYTES)
    fed = 0
    for piece in pieces(stream, at):
        heard = len(list(reader.feed(piece)))
        before, after = read(stream[:fed]), read(stream[: fed + len(piece)])
        assert heard == len(after) - len(before)
        fed += len(piece)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_header_in_two_pieces(size: int) -> None:
    """A header may be cut anywhere: nothing is decided before it is whole, and nothing is lost."""
    whole = wire.frame(wire.BINARY, b"x" * size)
    for cut in range(len(whole) - size + 1):
        assert read(whole, [cut]) == [Message(Opcode.BINARY, b"x" * size)]


def test_is_idle() -> None:
    """A reader is at rest only between messages, also when only a header byte or a fragment is held."""
    reader = FrameReader(100)
    assert reader.is_idle
    first, second = wire.frame(wire.TEXT, b"a", final=False), wire.frame(wire.CONTINUATION, b"b")
    assert list(reader.feed(first[:1])) == []
    assert not reader.is_idle
    assert list(reader.feed(first[1:])) == []
    assert not reader.is_idle
    assert list(reader.feed(second)) == [Message(Opcode.TEXT, b"ab")]
    assert reader.is_idle


@given(conversation=conversations(), at=cuts, max_bytes=st.integers(0, 400))
def test_what_is_held_is_bounded(
    conversation: tuple[bytes, list[Message]], at: list[int], max_bytes: int
) -> None:
    """Whatever comes, a reader holds no more than a message and a control frame with its header."""
    reader = FrameReader(max_bytes)
    try:
        for piece in pieces(conversation[0], at):
            for _ in reader.feed(piece):
                pass
            assert len(reader._buffer) + len(reader._message) <= max_bytes + 14 + 125
    except FrameError as error:
        assert error.reason is CloseReason.TOO_BIG  # noqa: PT017 - not every example raises


@given(extra=st.binary(max_size=40))
def test_a_consumer_may_stop_early(extra: bytes) -> None:
    """A message that was taken is not delivered again when the rest of the iterator was dropped."""
    reader = FrameReader(100)
    one, two = wire.frame(wire.PING, b"1"), wire.frame(wire.PING, b"2")
    messages = reader.feed(one + two + extra[:1])
    assert next(messages) == Message(Opcode.PING, b"1")
    del messages
    assert next(reader.feed(b"")) == Message(Opcode.PING, b"2")


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_unmasked(size: int) -> None:
    """Every client frame must be masked (5.1)."""
    assert refused(wire.frame(wire.TEXT, b"x" * size, masked=False)) is CloseReason.PROTOCOL


@pytest.mark.parametrize("reserved", range(1, 8))
def test_reserved_bits(reserved: int) -> None:
    """Without an extension no reserved bit may be set (5.2)."""
    assert refused(wire.frame(wire.TEXT, b"x", reserved=reserved)) is CloseReason.PROTOCOL


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes(opcode: int) -> None:
    """Opcodes without a meaning are refused (5.2)."""
    assert refused(wire.frame(opcode, b"")) is CloseReason.PROTOCOL


@pytest.mark.parametrize(
    ("length", "size"),
    [
        (b"\x7e" + struct.pack("!H", 0), 0),
        (b"\x7e" + struct.pack("!H", 125), 125),
        (b"\x7f" + struct.pack("!Q", 0), 0),
        (b"\x7f" + struct.pack("!Q", 126), 126),
        (b"\x7f" + struct.pack("!Q", 65535), 65535),
        (b"\x7f" + struct.pack("!Q", 1 << 63), 0),
        (b"\x7f" + struct.pack("!Q", (1 << 64) - 1), 0),
    ],
)
def test_length_must_be_minimal(length: bytes, size: int) -> None:
    """A length in more bytes than it needs, or with its highest bit set, is refused (5.2)."""
    assert refused(wire.frame(wire.TEXT, b"x" * size, length=length)) is CloseReason.PROTOCOL


@pytest.mark.parametrize("size", [125, 126, 127, 65535, 65536])
@pytest.mark.parametrize("opcode", [wire.TEXT, wire.BINARY])
def test_minimal_lengths_are_taken(opcode: int, size: int) -> None:
    """The edges of the three forms of the length are good frames."""
    assert read(wire.frame(opcode, b"x" * size)) == [Message(Opcode(opcode), b"x" * size)]


@pytest.mark.parametrize("opcode", [wire.CLOSE, wire.PING, wire.PONG])
def test_control_frames_are_short_and_whole(opcode: int) -> None:
    """A control frame has at most 125 bytes and is not fragmented (5.5)."""
    assert refused(wire.frame(opcode, b"x" * 126)) is CloseReason.PROTOCOL
    assert refused(wire.frame(opcode, b"x" * 65536)) is CloseReason.PROTOCOL
    assert refused(wire.frame(opcode, b"", final=False)) is CloseReason.PROTOCOL
    assert read(wire.frame(opcode, b"x" * 125)) == [Message(Opcode(opcode), b"x" * 125)]


@pytest.mark.parametrize("final", [True, False])
def test_fragments_out_of_order(final: bool) -> None:
    """A continuation needs a beginning, and a beginning must not stand within a message (5.4)."""
    assert refused(wire.frame(wire.CONTINUATION, b"x", final=final)) is CloseReason.PROTOCOL
    begun = wire.frame(wire.TEXT, b"x", final=False)
    assert refused(begun + wire.frame(wire.TEXT, b"x", final=final)) is CloseReason.PROTOCOL
    assert refused(begun + wire.frame(wire.BINARY, b"x", final=final)) is CloseReason.PROTOCOL


@pytest.mark.parametrize(
    "payload", [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xe2\x82"]
)
def test_text_is_utf8(payload: bytes) -> None:
    """Text that is not UTF-8 is refused, whole or in fragments; the same bytes are good binary (8.1)."""
    assert refused(wire.frame(wire.TEXT, payload)) is CloseReason.BAD_TEXT
    split = wire.frame(wire.TEXT, payload[:1], final=False) + wire.frame(wire.CONTINUATION, payload[1:])
    assert refused(split) is CloseReason.BAD_TEXT
    assert read(wire.frame(wire.BINARY, payload)) == [Message(Opcode.BINARY, payload)]


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_bad_byte_is_refused_when_it_comes(first: bool, final: bool) -> None:
    """The rest of the frame is not waited for, nor that of the message; what is good so far is kept."""
    good, bad = "κόσμε".encode(), b"\xf4\x90"
    begun = b"" if first else wire.frame(wire.TEXT, good, final=False)
    frame = wire.frame(wire.TEXT if first else wire.CONTINUATION, good + bad + b"edited", final=final)
    cut = len(frame) - len(b"edited")
    assert read((begun + frame)[: len(begun) + cut - 1]) == []
    assert refused((begun + frame)[: len(begun) + cut]) is CloseReason.BAD_TEXT


@given(text=st.text(min_size=1, max_size=50), at=cuts)
def test_characters_may_be_cut_by_fragments(text: str, at: list[int]) -> None:
    """A fragment may end within a character: UTF-8 is a rule of the message."""
    parts = pieces(text.encode(), at)
    stream = b"".join(
        wire.frame(wire.TEXT if i == 0 else wire.CONTINUATION, part, final=i == len(parts) - 1)
        for i, part in enumerate(parts)
    )
    assert read(stream) == [Message(Opcode.TEXT, text.encode())]


@given(limit=st.integers(0, 70_000), over=st.integers(1, 5))
def test_message_bound_is_known_from_the_header(limit: int, over: int) -> None:
    """A message of the bound passes; the header alone of a longer one is refused with 1009."""
    assert read(wire.frame(wire.BINARY, b"x" * limit), max_bytes=limit) == [
        Message(Opcode.BINARY, b"x" * limit)
    ]
    long = wire.frame(wire.BINARY, b"x" * (limit + over))
    header = long[: len(long) - (limit + over) - 4]
    assert refused(header, max_bytes=limit) is CloseReason.TOO_BIG


@given(first=st.integers(0, 50), second=st.integers(0, 50), limit=st.integers(0, 100))
def test_message_bound_counts_all_fragments(first: int, second: int, limit: int) -> None:
    """The bound is one of the whole message; the fragment that breaks it is refused by its header."""
    begun = wire.frame(wire.BINARY, b"x" * first, final=False)
    header = wire.frame(wire.CONTINUATION, b"x" * second)[:2]
    reader = FrameReader(limit)
    if first > limit:
        with pytest.raises(FrameError) as caught:
            list(reader.feed(begun[:2]))
    else:
        assert list(reader.feed(begun)) == []
        if first + second <= limit:
            assert list(reader.feed(header)) == []
            return
        with pytest.raises(FrameError) as caught:
            list(reader.feed(header))
    assert caught.value.reason is CloseReason.TOO_BIG


@pytest.mark.parametrize("opcode", [wire.CLOSE, wire.PING, wire.PONG])
def test_control_frames_stand_between_fragments(opcode: int) -> None:
    """One between fragments is delivered at once, and does not count for the bound of the message."""
    between = b"y" * 125
    first, last = wire.frame(wire.TEXT, b"x", final=False), wire.frame(wire.CONTINUATION, b"x")
    assert read(first + wire.frame(opcode, between) + last, max_bytes=2) == [
        Message(Opcode(opcode), between),
        Message(Opcode.TEXT, b"xx"),
    ]


@pytest.mark.parametrize("size", [0, 1])
def test_fragment_bound_is_known_from_the_header(size: int) -> None:
    """`MAX_FRAGMENTS` pieces pass, empty ones too; the header of one more is refused with 1009."""
    begin = wire.frame(wire.BINARY, b"x" * size, final=False)
    more = wire.frame(wire.CONTINUATION, b"x" * size, final=False)
    last = wire.frame(wire.CONTINUATION, b"x" * size)
    full = begin + more * (MAX_FRAGMENTS - 2)
    assert len(read((full + last) * 2)) == 2
    assert read(full + last) == [Message(Opcode.BINARY, b"x" * size * MAX_FRAGMENTS)]
    assert refused(full + more + last[:2]) is CloseReason.TOO_BIG


@pytest.mark.parametrize(
    ("max_bytes", "fragments"),
    [
        (0, MIN_FRAGMENTS),
        (MIN_FRAGMENTS * BYTES_PER_FRAGMENT, MIN_FRAGMENTS),
        ((MIN_FRAGMENTS + 1) * BYTES_PER_FRAGMENT - 1, MIN_FRAGMENTS),
        ((MIN_FRAGMENTS + 1) * BYTES_PER_FRAGMENT, MIN_FRAGMENTS + 1),
    ],
)
def test_fragment_bound_grows_with_that_in_bytes(max_bytes: int, fragments: int) -> None:
    """A long message may come in more pieces, a short one never in fewer than `MIN_FRAGMENTS`."""
    begin = wire.frame(wire.BINARY, b"", final=False)
    more = wire.frame(wire.CONTINUATION, b"", final=False)
    read(begin + more * (fragments - 1), max_bytes=max_bytes)
    assert refused(begin + more * fragments, max_bytes=max_bytes) is CloseReason.TOO_BIG


def test_fragment_bound_is_one_of_a_message() -> None:
    """Fragments of earlier messages and control frames in between do not count."""
    message = (
        wire.frame(wire.BINARY, b"", final=False) + wire.frame(wire.PING) + wire.frame(wire.CONTINUATION, b"")
    )
    assert len(read(message * MAX_FRAGMENTS)) == 2 * MAX_FRAGMENTS


# -- compressed messages ---------------------------------------------------------------------------

SMALL = Deflater(15).deflate(b"hello" * 40)


@given(said=st.lists(st.tuples(st.text(max_size=200), st.booleans(), cuts), max_size=5), at=cuts)
def test_compressed_and_plain_messages(said: list[tuple[str, bool, list[int]]], at: list[int]) -> None:
    """With an agreement each message is compressed or not, in any fragments, with pings in between."""
    deflater = Deflater(15)
    stream, expected = b"", []
    for text, deflated, places in said:
        payload = text.encode()
        parts = pieces(deflater.deflate(payload) if deflated else payload, places) or [b""]
        for index, part in enumerate(parts):
            opcode = wire.CONTINUATION if index else wire.TEXT
            reserved = 4 if deflated and not index else 0
            if index:
                stream += wire.frame(wire.PING, b"!")
                expected.append(Message(Opcode.PING, b"!"))
            stream += wire.frame(opcode, part, reserved=reserved, final=index == len(parts) - 1)
        expected.append(Message(Opcode.TEXT, payload))
    assert read(stream, at, deflate=True) == expected


def test_binary_may_be_compressed() -> None:
    """The bit belongs to the message, text or not; what is inflated is not unmasked again."""
    stream = wire.frame(wire.BINARY, Deflater(15).deflate(b"\xff" * 50), reserved=4)
    assert read(stream, deflate=True) == [Message(Opcode.BINARY, b"\xff" * 50)]


@pytest.mark.parametrize("opcode", [wire.TEXT, wire.BINARY])
@pytest.mark.parametrize("reserved", range(1, 8))
def test_reserved_bits_with_an_agreement(opcode: int, reserved: int) -> None:
    """Only the first of the three has a meaning, and only if it was agreed on."""
    stream = wire.frame(opcode, SMALL, reserved=reserved)
    assert refused(stream) is CloseReason.PROTOCOL
    if reserved == 4:
        assert read(stream, deflate=True) == [Message(Opcode(opcode), b"hello" * 40)]
    else:
        assert refused(stream, deflate=True) is CloseReason.PROTOCOL


@pytest.mark.parametrize("opcode", [wire.CLOSE, wire.PING, wire.PONG])
def test_control_frames_are_not_compressed(opcode: int) -> None:
    """The bit on a control frame is refused, also within a compressed message (RFC 7692 section 5)."""
    bad = wire.frame(opcode, b"", reserved=4)
    assert refused(bad, deflate=True) is CloseReason.PROTOCOL
    begun = wire.frame(wire.TEXT, SMALL, reserved=4, final=False)
    assert refused(begun + bad, deflate=True) is CloseReason.PROTOCOL


@pytest.mark.parametrize("final", [True, False])
def test_the_bit_stands_on_the_first_fragment_alone(final: bool) -> None:
    """On a continuation it is refused, of a compressed message and of a plain one (RFC 7692 6.1)."""
    for reserved in (0, 4):
        begun = wire.frame(wire.BINARY, SMALL[:4], reserved=reserved, final=False)
        bad = wire.frame(wire.CONTINUATION, SMALL[4:], reserved=4, final=final)
        assert refused(begun + bad, deflate=True) is CloseReason.PROTOCOL


def test_the_bit_is_forgotten_with_its_message() -> None:
    """A plain message after a compressed one is plain, in fragments too, and vice versa."""
    small = wire.frame(wire.TEXT, SMALL, reserved=4)
    plain = wire.frame(wire.TEXT, b"a", final=False) + wire.frame(wire.CONTINUATION, b"b")
    expected = [Message(Opcode.TEXT, b"hello" * 40), Message(Opcode.TEXT, b"ab")]
    assert read((small + plain) * 2, deflate=True) == expected * 2


def test_the_bound_of_an_inflated_message() -> None:
    """It counts inflated bytes as well as those that came; the latter are known from the header."""
    stream = wire.frame(wire.TEXT, SMALL, reserved=4)
    assert read(stream, max_bytes=200, deflate=True) == [Message(Opcode.TEXT, b"hello" * 40)]
    assert refused(stream, max_bytes=199, deflate=True) is CloseReason.TOO_BIG
    assert refused(wire.frame(wire.TEXT, bytes(100), reserved=4)[:2], max_bytes=99, deflate=True) is (
        CloseReason.TOO_BIG
    )


def test_what_is_inflated_must_be_text() -> None:
    """UTF-8 is a rule of the inflated message; what is no deflate stream is refused with 1007 as well."""
    bad = Deflater(15).deflate(b"\xff" * 50)
    assert refused(wire.frame(wire.TEXT, bad, reserved=4), deflate=True) is CloseReason.BAD_TEXT
    assert refused(wire.frame(wire.TEXT, b"\xff" * 9, reserved=4), deflate=True) is CloseReason.BAD_TEXT
    whole = Deflater(15).deflate("grüß".encode())
    for cut in range(len(whole) + 1):
        stream = wire.frame(wire.TEXT, whole[:cut], reserved=4, final=False)
        stream += wire.frame(wire.CONTINUATION, whole[cut:])
        assert read(stream, deflate=True) == [Message(Opcode.TEXT, "grüß".encode())]


# -- close frames ----------------------------------------------------------------------------------

ALLOWED = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def test_close_codes() -> None:
    """Exactly the codes of 7.4 and the IANA registry may be sent; every other is a protocol error."""
    for code in range(1 << 16):
        payload = struct.pack("!H", code) + "grüß".encode()
        if code in ALLOWED:
            assert frames.parse_close(payload) == (code, "grüß")
        else:
            with pytest.raises(FrameError) as caught:
                frames.parse_close(payload)
            assert caught.value.reason is CloseReason.PROTOCOL


def test_close_payloads() -> None:
    """No payload stands for 1005; one byte is no code; the reason is UTF-8."""
    assert frames.parse_close(b"") == (1005, "")
    assert frames.parse_close(b"\x03\xe8") == (1000, "")
    with pytest.raises(FrameError) as caught:
        frames.parse_close(b"\x03")
    assert caught.value.reason is CloseReason.PROTOCOL
    with pytest.raises(FrameError) as caught:
        frames.parse_close(b"\x03\xe8\xff")
    assert caught.value.reason is CloseReason.BAD_TEXT


@given(reason=st.sampled_from([r for r in CloseReason if r is not CloseReason.GONE]))
def test_our_own_close_frames_are_allowed(reason: CloseReason) -> None:
    """What we send is what we would take."""
    payload = frames.close(reason.code, reason.text)[2:]
    assert frames.parse_close(payload) == (reason.code, reason.text)


# -- the oracle ------------------------------------------------------------------------------------

Verdict = int | None  # the close code of the refusal, None: taken


class Oracle:
    """wsproto's server side, with its data frames put together as ours are, up to the first close frame."""

    def __init__(self) -> None:
        self._protocol = FrameProtocol(client=False, extensions=[])
        self._message = b""
        self.opcode: OracleOpcode | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Messages that `data` completes."""
        self._protocol.receive_bytes(data)
        found = []
        for frame in self._protocol.received_frames():
            payload = frame.payload
            if isinstance(payload, tuple):
                code, reason = payload
                none = code is OracleReason.NO_STATUS_RCVD
                found.append(
                    Message(Opcode.CLOSE, b"" if none else struct.pack("!H", code) + reason.encode())
                )
                continue
            data = payload.encode() if isinstance(payload, str) else bytes(payload)
            if frame.opcode.iscontrol():
                found.append(Message(Opcode(frame.opcode), data))
                continue
            self._message += data
            self.opcode = self.opcode or frame.opcode
            if frame.message_finished:
                found.append(Message(Opcode(self.opcode), self._message))
                self._message, self.opcode = b"", None
        return found


def oracle(stream: bytes) -> tuple[list[Message], Verdict, Oracle]:
    """What wsproto reads from a stream, byte by byte, so that all before an invalid one is included."""
    side = Oracle()
    heard: list[Message] = []
    try:
        for index in range(len(stream)):
            heard += side.feed(stream[index : index + 1])
            if heard and heard[-1].opcode is Opcode.CLOSE:
                break
    except ParseFailed as error:
        return heard, int(error.code), side
    return heard, None, side


def ours(stream: bytes) -> tuple[list[Message], Verdict]:
    """What we make of it, up to the first close frame, as a connection does."""
    reader = FrameReader(MAX_BYTES)
    heard: list[Message] = []
    try:
        for message in reader.feed(stream):
            heard.append(message)
            if message.opcode is Opcode.CLOSE:
                frames.parse_close(message.payload)
                break
    except FrameError as error:
        if heard and heard[-1].opcode is Opcode.CLOSE:
            heard.pop()
        return heard, error.reason.code
    return heard, None


@st.composite
def dubious_frames(draw: st.DrawFn) -> bytes:
    """One frame, mostly near the edge of some rule."""
    opcode = draw(st.sampled_from([0, 1, 1, 2, 8, 9, 10]) | st.integers(0, 15))
    size = draw(st.sampled_from([0, 1, 2, 3, 124, 125, 126, 127]) | st.integers(0, 40))
    payload = draw(st.binary(min_size=size, max_size=size))
    if opcode == wire.CLOSE and draw(st.booleans()):
        payload = struct.pack("!H", draw(st.integers(990, 1020) | st.integers(2990, 5010))) + payload[:100]
    if opcode == wire.TEXT and draw(st.booleans()):
        payload = draw(st.text(max_size=30)).encode()
    length = None
    if draw(st.integers(0, 4)) == 0:
        form = draw(st.sampled_from(["!H", "!Q"]))
        length = (b"\x7e" if form == "!H" else b"\x7f") + struct.pack(form, len(payload))
    return wire.frame(
        opcode,
        payload,
        final=draw(st.integers(0, 3)) > 0,
        reserved=draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 4])),
        masked=draw(st.integers(0, 7)) > 0,
        length=length,
    )


def agree(stream: bytes) -> None:
    """Both read the same and refuse for the same reason, except for what the docstring of this file lists."""
    theirs, their_verdict, side = oracle(stream)
    heard, verdict = ours(stream)
    if verdict == CloseReason.TOO_BIG.code:  # stricter: they wait for the payload
        assert (theirs, their_verdict) == (heard, None)
        return
    if heard and heard[-1].opcode is Opcode.CLOSE and heard[-1].payload[:2] == struct.pack("!H", 1014):
        assert (theirs, their_verdict) == (heard[:-1], CloseReason.PROTOCOL.code)  # looser
        return
    if verdict is not None and their_verdict is None:  # earlier: they want more, whatever it is
        with pytest.raises(ParseFailed) as caught:
            side.feed(bytes(12))
        their_verdict = int(caught.value.code)
    assert (theirs, their_verdict) == (heard, verdict)


@given(stream=st.lists(dubious_frames(), max_size=6).map(b"".join), keep=st.integers(0, 400))
@example(stream=wire.close(1014), keep=400)
@example(stream=wire.frame(wire.TEXT, b"\xff", final=False), keep=400)
@example(stream=wire.frame(wire.TEXT, b"\xff", final=False) + wire.frame(wire.TEXT, b""), keep=400)
@example(stream=wire.frame(wire.TEXT, b"x" * 126, masked=False), keep=2)
def test_wsproto_and_we_agree_on_dubious_frames(stream: bytes, keep: int) -> None:
    """Valid or not, complete or truncated: wsproto reads the same messages and refuses the same streams."""
    agree(stream[:keep])


@given(conversation=conversations(), index=st.integers(0, 1 << 18), bit=st.integers(0, 7))
def test_wsproto_and_we_agree_on_a_flipped_bit(
    conversation: tuple[bytes, list[Message]], index: int, bit: int
) -> None:
    """One bit of a good stream flips, headers and masks included: the verdicts stay the same."""
    stream = bytearray(conversation[0][:600])
    if stream:
        stream[index % len(stream)] ^= 1 << bit
    agree(bytes(stream))


@given(noise=st.binary(max_size=200), at=cuts)
def test_noise_never_raises_anything_else(noise: bytes, at: list[int]) -> None:
    """Bytes that are no WebSocket at all end in messages or in a `FrameError`, as for wsproto."""
    reader = FrameReader(1000)
    try:
        for piece in pieces(noise, at):
            list(reader.feed(piece))
    except FrameError as error:
        assert error.reason in (CloseReason.PROTOCOL, CloseReason.TOO_BIG, CloseReason.BAD_TEXT)  # noqa: PT017
    agree(noise)
