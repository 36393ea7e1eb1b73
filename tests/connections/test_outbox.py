"""`odinws.connections.outbox` against a model that keeps every byte and every frame."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from odinws.connections.outbox import Outbox
from odinws.messages import frames
from odinws.messages.protocol import Message
from odinws.messages.wire_format import Bundle, Entry
from tests import wire
from tests.fakes import FORMATS, pieces

# One to three frames at a time, as a pass joins them, from empty ones to 16-bit lengths.
payloads = st.lists(st.integers(0, 200) | st.sampled_from([125, 126, 1000]), min_size=1, max_size=3)
channels = st.sampled_from(["global", "token.a", "token.b"])


def bundle_of(sizes: Iterable[int], letter: int) -> Bundle:
    """Frames of these payload sizes, with a letter of their own; each is a message. Every third is past."""
    bundle = Bundle.of(
        [Entry(frames.text(bytes((97 + letter % 26,)) * size), "global", letter, letter, 1) for size in sizes]
    )
    return bundle if letter % 3 else Bundle.past([bundle])


def whole(outbox: Outbox) -> list[Entry]:
    """The whole frames that wait; nothing changes."""
    same = Outbox((), 0)
    same._entries, same._partial, same._begun = outbox._entries, outbox._partial, outbox._begun
    return same._unfold()


def message(channel: str, seq: int, size: int = 0) -> Entry:
    """A message of a channel, with this much text in it."""
    made = Message(channel, seq, seq - 1, 0, b'"%b"' % (b"x" * size))
    return Entry(FORMATS.default.message(made, channel), channel, seq, seq, 1)


def gap(channel: str, first: int, last: int, reason: str = "overflow") -> Entry:
    """A gap as a pass sends it."""
    return Entry(FORMATS.default.gap(channel, first, last, reason, channel), channel, first, last)


def control(name: str) -> Entry:
    """An answer."""
    return Entry(frames.text(b'{"type":"%b"}' % name.encode()))


def outbox_of(entries: Sequence[Entry]) -> Outbox:
    """An outbox with exactly these frames, and none under way."""
    return Outbox([Bundle.of(entries)], 0)


def drain(outbox: Outbox) -> bytes:
    """All that waits, in its order."""
    data = b""
    while shown := b"".join(outbox.waiting()):
        outbox.advance(len(shown))
        data += shown
    assert outbox.size_bytes == 0
    return data


def drained(outbox: Outbox) -> list[str]:
    """Drain it; what waited, in a short form: `a7`, `a3-6 slow`, `ack`."""
    found, rest = wire.split(drain(outbox))
    assert rest == b""
    return [short(frame.json) for frame in found]


def short(said: Any) -> str:
    """One message in a short form."""
    if said["type"] == "message":
        return f"{said['channel'][-1]}{said['seq']}"
    if said["type"] == "gap":
        return f"{said['channel'][-1]}{said['from']}-{said['to']} {said['reason']}"
    return str(said["type"])


class Model(RuleBasedStateMachine):
    """What goes in comes out, in order; a cut falls between frames."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []  # all that were queued, in order
        self.taken = b""  # what the socket took
        self.letter = 0

    def _bundle(self, sizes: list[int]) -> Bundle:
        self.letter += 1
        return bundle_of(sizes, self.letter)

    @initialize(sizes=st.lists(payloads, min_size=1, max_size=3), sent=st.integers(0, 5000))
    def make(self, sizes: list[list[int]], sent: int) -> None:
        """A socket took some of the first bundles, not all."""
        bundles = [self._bundle(each) for each in sizes]
        self.frames = [entry.frame for bundle in bundles for entry in bundle.entries]
        first = b"".join(self.frames)
        self.taken = first[: sent % len(first)]
        self.outbox = Outbox(bundles, len(self.taken))

    @property
    def waiting(self) -> bytes:
        """What has not been taken, by the model."""
        return b"".join(self.frames)[len(self.taken) :]

    @property
    def whole(self) -> int:
        """How many frames of the model have not been begun."""
        starts = itertools.accumulate(map(len, self.frames[:-1]), initial=0)
        return sum(start >= len(self.taken) for start in starts) if self.frames else 0

    @rule(sizes=payloads)
    def append(self, sizes: list[int]) -> None:
        """More is queued."""
        new = self._bundle(sizes)
        self.outbox.append(new)
        self.frames += [entry.frame for entry in new.entries]

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
        """Only the half-sent frame is completed; all frames after it are counted, and the outbox is empty."""
        stream = b"".join(self.frames)
        ends = list(itertools.accumulate(map(len, self.frames), initial=0))
        end = min(e for e in ends if e >= len(self.taken))
        rest, dropped = self.outbox.drop_all()
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
        assert len(self.outbox) == self.whole

    @invariant()
    def the_bounds_are_exact(self) -> None:
        """What fits is what waits and no byte or frame less; one frame alone is never too long."""
        if not hasattr(self, "outbox"):
            return
        size, count = len(self.waiting), self.whole
        assert self.outbox.fits(size, count)
        assert self.outbox.fits(size - 1, count) is (count <= 1)
        assert not self.outbox.fits(size, count - 1)


TestOutbox = Model.TestCase


@given(
    chunks=st.lists(payloads, min_size=1, max_size=200),
    sent=st.integers(0, 1 << 16),
    steps=st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_a_stream_is_the_same_however_it_is_taken(
    chunks: list[list[int]], sent: int, steps: list[int]
) -> None:
    """Hundreds of bundles, taken in any steps, give the bytes that went in, and an outbox of size 0."""
    said = [bundle_of(sizes, number) for number, sizes in enumerate(chunks)]
    stream = b"".join([bundle.data for bundle in said])
    sent %= len(said[0].data)
    outbox = Outbox(said[:1], sent)
    for bundle in said[1:]:
        outbox.append(bundle)
    heard = said[0].data[:sent]
    for step in [*(len(piece) for piece in pieces(stream, steps)), 1 << 30]:
        while step and (shown := b"".join(outbox.waiting())):
            taken = min(step, len(shown))
            outbox.advance(taken)
            heard += shown[:taken]
            step -= taken
    assert heard == stream
    assert (outbox.size_bytes, len(outbox)) == (0, 0)
    assert outbox.waiting() == []
    assert outbox.drop_all() == (b"", 0)


def test_the_bounds_at_their_edges() -> None:
    """The last byte and the last frame fit, one more does not; room comes back with what the socket takes."""
    frame = Bundle.control(frames.text(b"x" * 98))  # 100 bytes
    outbox = Outbox([frame], 40)
    assert (outbox.size_bytes, len(outbox)) == (60, 0)
    outbox.append(frame)
    outbox.append(Bundle.control(frames.ping()))
    assert (outbox.size_bytes, len(outbox)) == (162, 2)
    assert outbox.fits(162, 2)
    assert not outbox.fits(161, 2)
    assert not outbox.fits(162, 1)
    outbox.advance(1)
    assert outbox.fits(161, 2)
    outbox.advance(160)
    assert outbox.fits(0, 0)  # one byte of a frame under way


@pytest.mark.parametrize("sent", [0, 4])
def test_a_frame_above_the_bound_waits_all_the_same(sent: int) -> None:
    """It could go no other way; but nothing joins it until both are below the bound."""
    outbox = Outbox([Bundle.control(frames.text(b"x" * 1000))], sent)
    assert outbox.fits(100, 1)
    outbox.append(Bundle.control(frames.ping()))
    outbox.append(Bundle.control(frames.ping()))
    assert not outbox.fits(100, 3)
    outbox.advance(1004 - sent - 96)
    assert outbox.fits(100, 3)


def test_one_showing_is_one_sendmsg() -> None:
    """However many frames wait, at most 257 are shown at once: a kernel takes 1024 buffers."""
    outbox = Outbox([Bundle.control(frames.text(b"first"))], 1)
    for _ in range(2000):
        outbox.append(Bundle.control(frames.ping()))
    shown = outbox.waiting()
    assert len(shown) == 257
    assert bytes(shown[0]) == frames.text(b"first")[1:]


def test_a_cut_counts_messages_alone() -> None:
    """Gaps and answers are dropped with the rest, but do not count as messages."""
    entries = [message("token.a", 1), gap("token.a", 2, 8), control("ack"), message("token.a", 9)]
    outbox = outbox_of(entries)
    assert outbox.drop_all() == (b"", 2)
    assert (outbox.size_bytes, len(outbox), outbox.waiting()) == (0, 0, [])


# -- what is given up ------------------------------------------------------------------------------


def test_conflation_keeps_the_newest_of_each_channel() -> None:
    """The others are named in one gap; answers stay where they stood."""
    outbox = outbox_of(
        [
            message("token.a", 1),
            message("token.b", 7),
            message("token.a", 2),
            control("ack"),
            message("token.a", 3),
            message("token.c", 1),
            control("pong"),
        ]
    )
    assert outbox.conflate(FORMATS.default) == 2
    assert drained(outbox) == ["b7", "a1-2 slow", "ack", "a3", "c1", "pong"]


def test_conflating_again_lets_the_gap_grow() -> None:
    """What was named before is named still, by one gap, and is not counted again."""
    outbox = outbox_of([message("token.a", seq) for seq in (1, 2, 3)])
    assert outbox.conflate(FORMATS.default) == 2
    outbox.append(Bundle.of([message("token.a", 4), message("token.a", 5)]))
    assert outbox.conflate(FORMATS.default) == 2
    assert outbox.conflate(FORMATS.default) == 0
    assert drained(outbox) == ["a1-4 slow", "a5"]
    assert outbox.gaps == 1


def test_a_gap_is_no_newest_message() -> None:
    """A price stays behind which the feed itself has a gap; a gap that stands alone keeps its reason."""
    outbox = outbox_of([message("token.a", 1), message("token.a", 2), gap("token.a", 3, 4)])
    assert outbox.conflate(FORMATS.default) == 1
    assert drained(outbox) == ["a1-1 slow", "a2", "a3-4 overflow"]
    assert outbox.gaps == 1


def test_only_gaps_are_one_gap() -> None:
    """Where no message is left to keep, neighbours still join."""
    outbox = outbox_of([gap("token.a", 1, 2), gap("token.a", 3, 4), gap("token.b", 1, 1)])
    assert outbox.conflate(FORMATS.default) == 0
    assert drained(outbox) == ["a1-4 slow", "b1-1 overflow"]
    assert outbox.gaps == 0


def test_a_message_given_up_between_gaps_makes_none() -> None:
    """It is named by one that is there."""
    outbox = outbox_of([gap("token.a", 1, 2), message("token.a", 3), message("token.a", 4)])
    assert outbox.conflate(FORMATS.default) == 1
    assert drained(outbox) == ["a1-3 slow", "a4"]
    assert outbox.gaps == 0


def epochs() -> list[Entry]:
    """Messages around a welcome, after which sequences start over."""
    old = [message("token.a", 100), message("token.a", 101), message("token.b", 102)]
    new = [message("token.a", 1), message("token.a", 2), message("token.a", 3)]
    return [*old, control("welcome"), *new]


def test_conflation_over_epochs() -> None:
    """A gap belongs to one epoch: those of the old one stand before the welcome."""
    outbox = outbox_of(epochs())
    assert outbox.conflate(FORMATS.default) == 4
    assert drained(outbox) == ["a100-101 slow", "b102", "welcome", "a1-2 slow", "a3"]


def test_dropping_over_epochs() -> None:
    """So it is when the oldest are dropped."""
    outbox = outbox_of(epochs())
    assert outbox.drop_oldest(1 << 20, 4, FORMATS.default) == 5
    assert drained(outbox) == ["a100-101 slow", "b102-102 slow", "welcome", "a1-2 slow", "a3"]


def test_dropping_the_oldest() -> None:
    """Just as many go as it takes to halve the frames; the newest stay."""
    outbox = outbox_of([message("token.a" if seq % 2 == 0 else "token.b", seq) for seq in range(1, 9)])
    assert outbox.drop_oldest(1 << 20, 8, FORMATS.default) == 4
    assert drained(outbox)[-4:] == ["b5", "a6", "b7", "a8"]


def test_policies_by_channel() -> None:
    """What a policy does not apply to stays, however old it is."""
    entries = [message("token.a" if seq % 2 else "token.b", seq) for seq in range(1, 9)]
    assert (outbox := outbox_of(entries)).conflate(FORMATS.default, "token.a".__eq__) == 3
    assert drained(outbox) == ["b2", "b4", "a1-5 slow", "b6", "a7", "b8"]
    assert (outbox := outbox_of(entries)).drop_oldest(1 << 20, 8, FORMATS.default, "token.b".__eq__) == 4
    assert drained(outbox) == ["a1", "a3", "a5", "a7", "b2-8 slow"]


@pytest.mark.parametrize("policy", ["conflate", "drop_oldest"])
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20), st.integers(1, 20))
def test_in_order_no_position_passes_what_is_told_later(policy: str, queue: list[str], every: int) -> None:
    """Who has all channels by one wildcard, and breaks off anywhere, has been told of all before."""
    outbox = Outbox((), 0)
    for seq, letter in enumerate(queue, 1):
        outbox.append(Bundle.of([message(f"token.{letter}", seq)]))
        if seq % every == 0 and policy == "conflate":
            outbox.conflate(FORMATS.default, in_order=True)
        elif seq % every == 0:
            outbox.drop_oldest(1 << 20, 6, FORMATS.default, in_order=True)
    told: set[int] = set()
    for said in (frame.json for frame in wire.split(drain(outbox))[0]):
        if said["type"] == "gap":
            own = [seq for seq, letter in enumerate(queue, 1) if said["channel"] == f"token.{letter}"]
            told.update(seq for seq in own if said["from"] <= seq <= said["to"])
        else:
            told.add(said["seq"])
            assert told >= set(range(1, said["seq"]))
    assert told == set(range(1, len(queue) + 1))


def test_dropping_by_bytes() -> None:
    """Half of the bytes is free afterwards, but for the gaps; a frame under way counts and is finished."""
    entries = [message("token.a", seq, 400) for seq in range(1, 11)]
    size = len(entries[0].frame)
    outbox = Outbox([Bundle.of(entries)], 1)
    assert outbox.drop_oldest(8 * size, 1000, FORMATS.default) == 6
    rest = drain(outbox)
    assert rest[: size - 1] == entries[0].frame[1:]
    assert [short(frame.json) for frame in wire.split(rest[size - 1 :])[0]] == [
        "a2-7 slow",
        "a8",
        "a9",
        "a10",
    ]


def test_nothing_is_dropped_without_need() -> None:
    """At half of the bounds nothing is dropped; one message above it, one is."""
    entries = [message("token.a", seq) for seq in (1, 2, 3, 4)]
    size = sum(len(entry.frame) for entry in entries)
    outbox = outbox_of(entries)
    assert outbox.drop_oldest(2 * size, 8, FORMATS.default) == 0
    assert drained(outbox) == ["a1", "a2", "a3", "a4"]
    assert outbox_of(entries).drop_oldest(2 * size - 2, 8, FORMATS.default) == 1
    assert outbox_of(entries).drop_oldest(2 * size, 7, FORMATS.default) == 1


class Shedding(RuleBasedStateMachine):
    """Per channel, what is delivered and what gaps name is what was offered: all, in order, none twice."""

    def __init__(self) -> None:
        super().__init__()
        self.seqs = itertools.count(1)  # as of a stream: shared by all channels
        self.offered: dict[str, list[tuple[int, int]]] = {}
        self.answers: list[str] = []
        self.messages = self.offered_gaps = self.dropped = 0
        self.taken = b""

    def made(self, plan: list[tuple[str | None, int, int]]) -> Bundle:
        """Frames by plan, noted as offered: a channel and its text, or a gap, or an answer."""
        entries: list[Entry] = []
        for channel, size, width in plan:
            seq = next(self.seqs)
            if channel is None:
                self.answers.append(f"answer-{seq}")
                entries.append(control(self.answers[-1]))
                continue
            last = [next(self.seqs) for _ in range(width)][-1] if width else seq
            entries.append(gap(channel, seq, last) if width else message(channel, seq, size))
            self.offered.setdefault(channel, []).append((seq, last))
            self.offered_gaps += bool(width)
            self.messages += not width
        return Bundle.of(entries) if plan[0][1] % 2 else Bundle.past([Bundle.of(entries)])

    plans = st.lists(
        st.tuples(channels | channels | st.none(), st.integers(0, 300), st.sampled_from([0, 0, 0, 0, 1, 3])),
        min_size=1,
        max_size=8,
    )

    @initialize(plan=plans, sent=st.integers(0, 3000))
    def make(self, plan: list[tuple[str | None, int, int]], sent: int) -> None:
        """A socket took some of the first bundle."""
        bundle = self.made(plan)
        self.taken = bundle.data[: sent % len(bundle.data)]
        self.outbox = Outbox([bundle], len(self.taken))

    @rule(plan=plans)
    def append(self, plan: list[tuple[str | None, int, int]]) -> None:
        """More is queued."""
        self.outbox.append(self.made(plan))

    @rule(part=st.floats(0, 1))
    def advance(self, part: float) -> None:
        """The socket takes some."""
        shown = b"".join(self.outbox.waiting())
        taken = round(part * len(shown))
        self.outbox.advance(taken)
        self.taken += shown[:taken]

    @rule()
    def conflate(self) -> None:
        """At most a gap, a message and a gap stay of each channel."""
        before = self.waiting()
        self.dropped += self.outbox.conflate(FORMATS.default)
        after = self.waiting()
        for channel in self.offered:
            mine = [text for text in after if text.get("channel") == channel]
            assert [text["type"] for text in mine] in (
                ["gap", "message", "gap"],
                ["gap", "message"],
                ["message", "gap"],
                ["message"],
                ["gap"],
                [],
            )
            newest = [text for text in before if text.get("channel") == channel and text["type"] == "message"]
            assert [text for text in mine if text["type"] == "message"] == newest[-1:]

    @rule(max_bytes=st.integers(0, 4000), max_frames=st.integers(0, 40))
    def drop_oldest(self, max_bytes: int, max_frames: int) -> None:
        """Messages go from the front alone, and what stays is within half of the bounds but for the gaps."""
        before = [text for text in self.waiting() if text["type"] == "message"]
        dropped = self.outbox.drop_oldest(max_bytes, max_frames, FORMATS.default)
        self.dropped += dropped
        after = self.waiting()
        left = [text for text in after if text["type"] == "message"]
        assert left == before[dropped:]
        if left:
            named = [len(frames.text(json.dumps(t).encode())) for t in after if t["type"] == "gap"]
            assert self.outbox.size_bytes - sum(named) <= max_bytes // 2
            assert len(self.outbox) - len(named) <= max_frames // 2

    def waiting(self) -> list[Any]:
        """The whole frames that wait, but for the one under way."""
        return [wire.split(entry.frame)[0][0].json for entry in whole(self.outbox)]

    @invariant()
    def sizes_are_exact(self) -> None:
        """Bytes and frames are those in the queue, and no frame is truncated, whatever was dropped."""
        if not hasattr(self, "outbox"):
            return
        assert self.outbox.size_bytes == len(self.outbox._partial) + sum(
            len(entry.frame) for entry in self.outbox._entries
        )
        assert len(self.outbox) == len(whole(self.outbox))
        _, rest = wire.split(self.taken + bytes(self.outbox._partial))
        assert rest == b""

    def teardown(self) -> None:
        """The socket takes the rest, and the reader adds up."""
        if not hasattr(self, "outbox"):
            return
        found, rest = wire.split(self.taken + drain(self.outbox))
        assert rest == b""
        texts = [frame.json for frame in found]
        assert [text["type"] for text in texts if "channel" not in text] == self.answers
        assert sum(text["type"] == "message" for text in texts) == self.messages - self.dropped
        named = sum(text["type"] == "gap" for text in texts)
        assert named <= self.offered_gaps + self.outbox.gaps
        assert 0 <= self.outbox.gaps <= self.dropped
        for channel, offered in self.offered.items():
            at = 0
            for text in texts:
                if text.get("channel") != channel:
                    continue
                if text["type"] == "message":
                    assert offered[at] == (text["seq"], text["seq"])
                    at += 1
                    continue
                assert offered[at][0] == text["from"]
                while offered[at][1] < text["to"]:
                    at += 1
                assert offered[at][1] == text["to"]
                at += 1
            assert at == len(offered)


TestShedding = Shedding.TestCase


@given(st.lists(payloads, min_size=1, max_size=6), st.integers(0, 1 << 16))
def test_what_is_held_is_never_less_than_it_takes(chunks: list[list[int]], sent: int) -> None:
    """Of a piece that was sent in part, all is held until it is sent as a whole."""
    bundles = [bundle_of(sizes, 3) for sizes in chunks]
    total = sum(len(bundle.data) for bundle in bundles)
    outbox = Outbox(bundles, sent % total)
    kept = {id(each): len(each.frame) for each in [*outbox._entries, *filter(None, [outbox._begun])]}
    assert outbox.held_bytes >= sum(kept.values())


def test_past_messages_wait_in_few_objects() -> None:
    """Hundreds of small ones for each of thousands of clients would keep the heap when these have left."""
    found = [message(f"token.{seq}", seq, 200) for seq in range(1000, 1256)]
    bundles = [Bundle.past([Bundle.of(found)])]
    del found
    before = sys.getallocatedblocks()
    outbox = Outbox(bundles, 1)
    bundles.clear()
    assert sys.getallocatedblocks() < before - 500
    assert len(outbox) == 255
    kept = sys.getallocatedblocks()
    del outbox
    assert kept - sys.getallocatedblocks() < 20
