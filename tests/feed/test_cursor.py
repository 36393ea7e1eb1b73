"""`odinws.feed.cursor`: positions, gaps and epochs are right, whatever NATS does to the stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.feed.cursor import Cursor
from odinws.feed.events import Lost, Message, NewEpoch
from odinws.feed.stream import ALL_HOLES

CHANNELS = ("global", "token.A", "token.B", None)  # None: of no channel that is carried


@pytest.fixture
def cursor() -> Cursor:
    """At 10 of a stream: `global` had its latest message at 7, `token.A` at 10, `token.B` none."""
    made = Cursor()
    assert made.begin("S-1", 10, {"global": 7, "token.A": 10}) == NewEpoch("S-1", 10)
    return made


def expire(cursor: Cursor, first_seq: int) -> Lost | None:
    """The stream begins here now; what that takes from the cursor."""
    lost = ALL_HOLES.within(cursor.seq + 1, first_seq - 1)
    if lost is not None:
        cursor.lose(lost)
    return lost


def test_it_begins_with_nothing() -> None:
    """No stream goes on from here, not even an empty one."""
    cursor = Cursor()
    assert (cursor.epoch, cursor.seq, cursor.floor) == ("none", 0, 0)
    assert not cursor.continues("S-1", 0)


def test_prev_is_the_message_before_it_on_its_channel(cursor: Cursor) -> None:
    """Also where that was there before the feed; 0 where there was none."""
    assert cursor.take("global", 11, 5, b"1") == Message("global", 11, 7, 5, b"1")
    assert cursor.take("token.B", 12, 6, b"2") == Message("token.B", 12, 0, 6, b"2")
    assert cursor.take("global", 14, 7, b"3") == Message("global", 14, 11, 7, b"3")
    assert cursor.seq == 14


def test_what_is_skipped_is_had(cursor: Cursor) -> None:
    """It can't be gone afterwards, and is nobody's `prev`."""
    cursor.skip(11)
    assert expire(cursor, 12) is None
    assert cursor.take("token.A", 12, 0, b"").prev == 10


def test_what_is_gone_is_told_once(cursor: Cursor) -> None:
    """After the last message; what comes next on any channel follows it."""
    assert expire(cursor, 11) is None
    assert expire(cursor, 15) == Lost(None, 11, 14, "expired")
    assert (cursor.seq, cursor.floor) == (14, 14)
    assert expire(cursor, 15) is None
    assert expire(cursor, 3) is None
    assert expire(cursor, 16) == Lost(None, 15, 15, "expired")
    assert cursor.take("global", 16, 0, b"").prev == 15
    assert cursor.take("token.B", 17, 0, b"").prev == 15
    assert cursor.take("global", 18, 0, b"").prev == 16


def test_what_may_be_lost_behind_it_is_in_doubt(cursor: Cursor) -> None:
    """Of no channel it is certain any more that it had no message up to there."""
    cursor.skip(20)
    assert cursor.is_current("global", 12)
    cursor.doubt(Lost(None, 13, 15, "uncertain"))
    assert not cursor.is_current("global", 12)
    assert not cursor.is_current("global", 14)
    assert cursor.is_current("global", 15)
    cursor.doubt(Lost(None, 11, 12, "uncertain"))
    assert not cursor.is_current("global", 14)


def test_which_stream_continues(cursor: Cursor) -> None:
    """The same life with nothing less in it; an older copy gives its numbers again."""
    assert cursor.continues("S-1", 10)
    assert cursor.continues("S-1", 99)
    assert not cursor.continues("S-1", 9)
    assert not cursor.continues("S-2", 10)


def test_another_sequence_knows_nothing_of_the_last(cursor: Cursor) -> None:
    """Neither its numbers nor its channels nor what was gone."""
    expire(cursor, 20)
    assert cursor.begin("S-2", 3, {"token.B": 2}) == NewEpoch("S-2", 3)
    assert (cursor.epoch, cursor.seq, cursor.floor) == ("S-2", 3, 0)
    assert cursor.take("global", 4, 0, b"").prev == 0
    assert cursor.take("token.B", 5, 0, b"").prev == 2


def test_under_another_name_it_counts_on(cursor: Cursor) -> None:
    """As without JetStream: what was between is not known, but no number comes twice."""
    assert cursor.rename("core-2") == NewEpoch("core-2", 10)
    assert (cursor.epoch, cursor.seq) == ("core-2", 10)
    assert cursor.take("global", 11, 0, b"").prev == 7


@given(
    st.lists(st.sampled_from(CHANNELS), max_size=40),
    st.lists(st.integers(0, 60), max_size=40),
    st.integers(0, 20),
)
def test_a_client_that_compares_prev_misses_nothing(
    published: list[str | None], forgotten: list[int], there: int
) -> None:
    """Each sequence is taken, skipped or reported lost, once; `prev` shows a hole only if none was reported.

    Args:
        published: the channel of each sequence, from 1 on.
        forgotten: before each message is read, the stream may have lost all before this sequence.
        there: what was published before the feed came.
    """
    cursor = Cursor()
    there = min(there, len(published))
    before = {channel: seq for seq, channel in enumerate(published[:there], 1) if channel is not None}
    cursor.begin("S-1", there, before)
    had: list[int] = []
    known = dict(before)  # what a client of each channel knows: its latest message, or what it was told of
    floor = 0
    for first in [*forgotten, *[0] * len(published)]:
        lost = expire(cursor, min(first, len(published) + 1))
        if lost is not None:
            assert lost.reason == "expired"
            had += range(lost.first, lost.last + 1)
            floor = lost.last
        if cursor.seq == len(published):
            break
        seq = cursor.seq + 1
        channel = published[seq - 1]
        had.append(seq)
        if channel is None:
            cursor.skip(seq)
        else:
            assert cursor.take(channel, seq, 0, b"").prev == max(floor, known.get(channel, 0))
            known[channel] = seq
    assert had == list(range(there + 1, len(published) + 1))
