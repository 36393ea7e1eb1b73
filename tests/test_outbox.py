"""`odinws.outbox` against a model that keeps every byte and every frame."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from odinws import frames
from odinws.outbox import Outbox
from tests.fakes import pieces

# One to three frames at a time, as a pass joins them, from empty ones to 16-bit lengths.
payloads = st.lists(st.integers(0, 200) | st.sampled_from([125, 126, 1000]), min_size=1, max_size=3)


def chunk_of(sizes: list[int], letter: int) -> list[bytes]:
    """Frames of these payload sizes, told apart by their letter."""
    return [frames.text(bytes((97 + letter % 26,)) * size) for size in sizes]


class Model(RuleBasedStateMachine):
    """What goes in comes out, in order; the bound holds; a cut falls between frames."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 0
        self.frames: list[bytes] = []  # all that were queued, in order
        self.taken = b""  # what the socket took
        self.letter = 0

    def _chunk(self, sizes: list[int]) -> list[bytes]:
        self.letter += 1
        return chunk_of(sizes, self.letter)

    @initialize(sizes=payloads, limit=st.integers(0, 1500), sent=st.integers(0, 5000))
    def make(self, sizes: list[int], limit: int, sent: int) -> None:
        """A socket took some of the first chunk, not all."""
        self.frames = self._chunk(sizes)
        first = b"".join(self.frames)
        self.limit = limit
        self.taken = first[: sent % len(first)]
        self.outbox = Outbox(first, len(self.taken), limit)

    @property
    def waiting(self) -> bytes:
        """What has not been taken, by the model."""
        return b"".join(self.frames)[len(self.taken) :]

    @rule(sizes=payloads)
    def offer(self, sizes: list[int]) -> None:
        """What fits is queued whole; what does not changes nothing."""
        new = self._chunk(sizes)
        chunk = b"".join(new)
        fits = not self.waiting or len(self.waiting) + len(chunk) <= self.limit
        assert self.outbox.offer(chunk) is fits
        if fits:
            self.frames += new

    @rule(sizes=payloads)
    def append(self, sizes: list[int]) -> None:
        """The last words go in whatever the bound."""
        new = self._chunk(sizes)
        self.outbox.append(b"".join(new))
        self.frames += new

    @rule(part=st.floats(0, 1))
    def advance(self, part: float) -> None:
        """A socket takes some of what is shown to it, from nothing to all."""
        shown = b"".join(self.outbox.waiting())
        taken = round(part * len(shown))
        self.outbox.advance(taken)
        self.taken += shown[:taken]

    @precondition(lambda self: self.frames)
    @rule()
    def cut(self) -> None:
        """Only the frame under way is finished; all frames behind it are counted, and it is empty."""
        stream = b"".join(self.frames)
        ends = list(itertools.accumulate(map(len, self.frames), initial=0))
        end = min(e for e in ends if e >= len(self.taken))
        rest, dropped = self.outbox.cut()
        assert rest == stream[len(self.taken) : end]
        assert dropped == len(self.frames) - ends.index(end)
        self.frames = []
        self.taken = b""

    @invariant()
    def bytes_are_those_that_went_in(self) -> None:
        """What is shown to the socket is the next of what waits, and it is shown something if it waits."""
        if not hasattr(self, "outbox"):
            return
        shown = b"".join(self.outbox.waiting())
        assert self.waiting.startswith(shown)
        assert bool(shown) is bool(self.waiting)
        assert self.outbox.size_bytes == len(self.waiting)


TestOutbox = Model.TestCase


@given(
    chunks=st.lists(payloads, min_size=1, max_size=200),
    sent=st.integers(0, 1 << 16),
    steps=st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_a_stream_is_the_same_however_it_is_taken(
    chunks: list[list[int]], sent: int, steps: list[int]
) -> None:
    """Hundreds of chunks, taken in any steps, give the bytes that went in, and an outbox of size 0."""
    said = [b"".join(chunk_of(sizes, number)) for number, sizes in enumerate(chunks)]
    sent %= len(said[0])
    outbox = Outbox(said[0], sent, 0)
    for chunk in said[1:]:
        outbox.append(chunk)
    heard = said[0][:sent]
    for step in [*(len(piece) for piece in pieces(b"".join(said), steps)), 1 << 30]:
        while step and (shown := b"".join(outbox.waiting())):
            taken = min(step, len(shown))
            outbox.advance(taken)
            heard += shown[:taken]
            step -= taken
    assert heard == b"".join(said)
    assert outbox.size_bytes == 0
    assert outbox.waiting() == []
    assert outbox.cut() == (b"", 0)


def test_the_bound_is_exact() -> None:
    """The last byte that fits is taken, one more is not; room comes back with what the socket takes."""
    frame = frames.text(b"x" * 98)  # 100 bytes
    outbox = Outbox(frame, 40, 160)
    assert outbox.size_bytes == 60
    assert outbox.offer(frame)
    assert outbox.size_bytes == 160
    assert not outbox.offer(frames.text(b""))
    outbox.advance(2)
    assert outbox.offer(frames.text(b""))


def test_a_first_chunk_above_the_bound_waits_all_the_same() -> None:
    """The kernel has half of it already; but nothing joins it until it is below the bound."""
    outbox = Outbox(frames.text(b"x" * 1000), 4, 100)
    assert not outbox.offer(frames.text(b""))
    outbox.advance(len(frames.text(b"x" * 1000)) - 4 - 98)
    assert outbox.offer(frames.text(b""))


def test_one_showing_is_one_sendmsg() -> None:
    """However many chunks wait, at most 64 are shown at once: a kernel takes 1024 buffers."""
    outbox = Outbox(frames.text(b"first"), 1, 1 << 20)
    for _ in range(2000):
        assert outbox.offer(frames.ping())
    shown = outbox.waiting()
    assert len(shown) == 64
    assert bytes(shown[0]) == frames.text(b"first")[1:]
