"""`odinws.messages.deflate` against RFC 7692, with wsproto's extension as the other side."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.close_codes import CloseReason
from odinws.errors import FrameError
from odinws.messages import frames
from odinws.messages.deflate import NONE, Agreement, Deflater, inflate, negotiate

BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
PLAIN = Agreement(15, BOTH)
MAX_BYTES = 1 << 20
DEFLATED = 0x40  # the first reserved bit

payloads = st.text(max_size=300).map(str.encode) | st.binary(max_size=300).map(lambda some: some * 40)


def window(bits: int) -> Agreement:
    """The answer to an offer that names the server's window."""
    return Agreement(bits, f"{BOTH}; server_max_window_bits={bits}")


def refused(payload: bytes, max_bytes: int = MAX_BYTES) -> CloseReason:
    """Why a compressed message is refused."""
    with pytest.raises(FrameError) as caught:
        inflate(payload, max_bytes)
    return caught.value.reason


# -- negotiation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offers", "agreement"),
    [
        ("", NONE),
        ("permessage-deflate", PLAIN),
        ("Permessage-Deflate", PLAIN),
        ("  permessage-deflate  ", PLAIN),
        # what Chrome, Firefox and Safari say
        ("permessage-deflate; client_max_window_bits", PLAIN),
        ("x-webkit-deflate-frame", NONE),
        # parameters that are taken
        ("permessage-deflate; server_no_context_takeover", PLAIN),
        ("permessage-deflate; client_no_context_takeover", PLAIN),
        ("permessage-deflate;server_no_context_takeover;client_no_context_takeover", PLAIN),
        ("permessage-deflate; client_max_window_bits=8", PLAIN),
        ("permessage-deflate; client_max_window_bits=15", PLAIN),
        ('permessage-deflate; client_max_window_bits="10"', PLAIN),
        ('permessage-deflate; server_max_window_bits="10"', window(10)),
        ("permessage-deflate; server_max_window_bits = 10", window(10)),
        ("permessage-deflate; server_max_window_bits=12; client_max_window_bits=9", window(12)),
        # parameters that are not
        ("permessage-deflate;", NONE),
        ("permessage-deflate; unknown", NONE),
        ("permessage-deflate; unknown=1", NONE),
        ("permessage-deflate; server_no_context_takeover=1", NONE),
        ("permessage-deflate; client_no_context_takeover=", NONE),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", NONE),
        ("permessage-deflate; server_max_window_bits=10; server_max_window_bits=10", NONE),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=10", NONE),
        ("permessage-deflate; server_max_window_bits", NONE),
        ("permessage-deflate; server_max_window_bits=", NONE),
        # several offers: the first that can be had
        ("foo, permessage-deflate", PLAIN),
        ("foo; bar=1, permessage-deflate; server_max_window_bits=11, permessage-deflate", window(11)),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", PLAIN),
        ("permessage-deflate; unknown, permessage-deflate; server_max_window_bits=9", window(9)),
        ("permessage-deflate, permessage-deflate; server_max_window_bits=9", PLAIN),
        ("permessage-deflate; unknown, permessage-deflate; other", NONE),
        (",,", NONE),
    ],
)
def test_offers(offers: str, agreement: Agreement) -> None:
    """The first offer that can be had is taken; one that can't be is as good as none (section 7.1)."""
    assert negotiate(offers) == agreement


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize(
    "bits", ["7", "16", "-9", "+9", "09", "015", "9.0", "1e1", "٩", "¹⁰", "x", "100000000000"]
)
def test_windows_that_are_none(side: str, bits: str) -> None:
    """A window is 8 to 15, without leading zeroes (7.1.2); an offer with another is declined."""
    assert negotiate(f"permessage-deflate; {side}_max_window_bits={bits}") == NONE


@pytest.mark.parametrize("bits", range(8, 16))
def test_windows(bits: int) -> None:
    """Any window for the client; for us from 9 bits, as zlib has no smaller one."""
    assert negotiate(f"permessage-deflate; client_max_window_bits={bits}") == PLAIN
    expected = NONE if bits == 8 else window(bits)
    assert negotiate(f"permessage-deflate; server_max_window_bits={bits}") == expected


@given(offers=st.text(alphabet=st.sampled_from('permessage-deflate;=," _0123456789\x00é'), max_size=80))
def test_nonsense_is_no_offer(offers: str) -> None:
    """Whatever stands there, nothing is raised, and what is agreed has a window."""
    agreement = negotiate(offers)
    assert agreement == NONE or 9 <= agreement.bits <= 15


@given(
    parameters=st.lists(
        st.sampled_from(
            ["server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits"]
        )
        | st.integers(9, 15).map("server_max_window_bits={}".format),
        unique_by=lambda text: text.partition("=")[0],
    )
)
def test_wsproto_takes_our_answer(parameters: list[str]) -> None:
    """A client that made the offer accepts what we answer, and knows that we forget between messages."""
    bits, header = negotiate("; ".join(["permessage-deflate", *parameters]))
    client = PerMessageDeflate()
    client.finalize(header)
    assert client.enabled()
    assert client.server_no_context_takeover
    assert client.client_no_context_takeover
    assert client.server_max_window_bits == bits


# -- compression -----------------------------------------------------------------------------------


def oracle(bits: int, payload: bytes) -> bytes:
    """What a client of its own, with a window of `bits`, makes of one compressed message."""
    extension = PerMessageDeflate()
    extension.finalize(f"{BOTH}; server_max_window_bits={bits}")
    client = FrameProtocol(client=True, extensions=[extension])
    client.receive_bytes(frames.encode(DEFLATED | frames.Opcode.BINARY, payload))
    heard = [frame.payload for frame in client.received_frames()]
    return b"".join(piece for piece in heard if isinstance(piece, bytes | bytearray))


@given(messages=st.lists(payloads, max_size=5), bits=st.integers(9, 15))
def test_each_message_stands_for_itself(messages: list[bytes], bits: int) -> None:
    """Each message can be inflated by itself, whichever message a client receives first; so can ours."""
    deflater = Deflater(bits)
    for payload in messages:
        small = deflater.deflate(payload)
        assert oracle(bits, small) == payload
        assert inflate(small, len(payload)) == payload


@pytest.mark.parametrize("bits", range(9, 16))
def test_a_window_is_kept_to(bits: int) -> None:
    """A message much longer than the window refers to nothing beyond it."""
    payload = b"".join(b"%d," % (number * number) for number in range(20_000))
    assert oracle(bits, Deflater(bits).deflate(payload)) == payload


@given(payload=payloads, bits=st.integers(9, 15), level=st.integers(0, 9))
def test_what_any_client_compresses(payload: bytes, bits: int, level: int) -> None:
    """Any level and window of the client is inflated, also when its stream ends with a last block (7.2.3)."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    small = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert inflate(small, len(payload)) == payload
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    assert inflate(compressor.compress(payload) + compressor.flush() + b"\x00", len(payload)) == payload


@pytest.mark.parametrize(
    "payload",
    [
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",  # 7.2.3.1
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",  # 7.2.3.3
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",  # 7.2.3.4
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",  # 7.2.3.5
    ],
)
def test_the_examples_of_the_rfc(payload: bytes) -> None:
    """Section 7.2.3: "Hello" in one block, uncompressed, with a last block, and in two blocks."""
    assert inflate(payload, 5) == b"Hello"


@given(parts=st.lists(payloads, min_size=1, max_size=8))
def test_blocks_after_a_last_one(parts: list[bytes]) -> None:
    """Blocks may follow one that is marked as the last (7.2.1), and refer to what is before it."""
    stream, said = b"", b""
    for part in parts:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=said[-(1 << 15) :])
        stream += compressor.compress(part) + compressor.flush()
        said += part
    assert inflate(stream, len(said)) == said
    assert inflate(stream + b"\x00", len(said)) == said


def test_last_blocks_are_bounded() -> None:
    """Each stream costs a copy of what follows it, so a message has at most 32."""
    end = b"\x03\x00"  # an empty last block
    assert inflate(end * 32, 0) == b""
    assert refused(end * 33) is CloseReason.BAD_TEXT


@given(
    payload=st.text(min_size=1, max_size=300).map(str.encode) | st.binary(min_size=1, max_size=300),
    level=st.integers(0, 9),
    keep=st.floats(0, 1, exclude_max=True),
)
def test_what_is_cut_off(payload: bytes, level: int, keep: float) -> None:
    """A message without its last bytes is refused, whatever kind of block they were of."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    small = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    cut = small[: max(1, int(len(small) * keep))]
    if cut not in (small, b"\x00"):  # one byte of a stored block is an empty message
        assert refused(cut) is CloseReason.BAD_TEXT


@pytest.mark.parametrize("missing", range(1, 12))
def test_a_stored_block_that_is_cut_off(missing: int) -> None:
    """The tail is not taken for its data, also where it would just fill it."""
    stored = b"\x00\x10\x00\xef\xff" + bytes(16) + b"\x00"
    assert inflate(stored, 16) == bytes(16)
    assert refused(stored[: -1 - missing]) is CloseReason.BAD_TEXT


def test_empty_messages() -> None:
    """An empty message is one byte (7.2.3.6), or none."""
    assert inflate(b"\x00", 0) == b""
    assert inflate(b"", 0) == b""


@given(payload=payloads, less=st.integers(1, 400))
def test_the_bound_is_exact(payload: bytes, less: int) -> None:
    """A message of the bound passes, one byte more is refused with 1009."""
    small = Deflater(15).deflate(payload)
    assert inflate(small, len(payload)) == payload
    if less <= len(payload):
        assert refused(small, len(payload) - less) is CloseReason.TOO_BIG


def test_a_bomb_takes_no_memory() -> None:
    """Of 64 MB in 64 KB nothing beyond the bound is inflated."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join([compressor.compress(bytes(1 << 20)) for _ in range(64)])
    bomb += compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    try:
        assert refused(bomb, 1 << 16) is CloseReason.TOO_BIG
        assert tracemalloc.get_traced_memory()[1] < 1 << 19
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("payload", [b"\xff" * 20, b"\x06", b"hello, world", b"\x00\x05\x00\x05\x00hello"])
def test_garbage(payload: bytes) -> None:
    """What is no deflate stream is refused with 1007."""
    assert refused(payload) is CloseReason.BAD_TEXT


@given(payload=st.binary(max_size=100))
def test_noise_never_raises_anything_else(payload: bytes) -> None:
    """Any bytes end in a message within the bound or in a `FrameError`."""
    try:
        assert len(inflate(payload, 50)) <= 50
    except FrameError as error:
        assert error.reason in (CloseReason.BAD_TEXT, CloseReason.TOO_BIG)  # noqa: PT017
