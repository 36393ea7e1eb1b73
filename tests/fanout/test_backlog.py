"""`odinws.fanout.backlog` beside a model: what is put in comes out once, in order, or is named as lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.fanout.backlog import Backlog
from odinws.feed.events import FeedEvent, Lost, Message, NewEpoch

CHANNELS = ["a", "b", "c"]


def message(channel: str, seq: int) -> Message:
    """A message that differs from others by its sequence."""
    return Message(channel, seq, 0, 1000 + seq, b"{}")


def events_of(events: list[FeedEvent], channel: str, seqs: list[int]) -> list[Any]:
    """The events of a channel: each sequence with whether it came, other events as they are.

    Args:
        seqs: of all messages of the channel, in order: what an overflow names is a stretch of them.
    """
    found: list[Any] = []
    for event in events:
        if isinstance(event, Message) and event.channel == channel:
            found.append(event.seq)
        elif isinstance(event, Lost) and event.channel == channel and event.reason == "overflow":
            found += seqs[seqs.index(event.first) : seqs.index(event.last) + 1]
        elif event.channel in (None, channel) and not isinstance(event, Message):
            found.append(event)
    return found


# -- one by one ------------------------------------------------------------------------------------


def test_first_in_first_out() -> None:
    """With room for all, what comes out is what was put in, in pieces of at most so many."""
    backlog = Backlog(10)
    events: list[FeedEvent] = [message("a", 1), message("b", 2), Lost("a", 3, 4, "expired"), message("a", 5)]
    assert [backlog.put(event) for event in events] == [True] * 4
    assert len(backlog) == 4
    assert backlog.take(3) == events[:3]
    assert backlog.take(3) == events[3:]
    assert backlog.take(3) == []
    assert len(backlog) == 0


def test_what_has_no_room_is_named_by_channel() -> None:
    """From the first to the last, when all that had room is gone; and it counts as waiting until then."""
    backlog = Backlog(2)
    took = [backlog.put(message(channel, seq)) for seq, channel in enumerate("aabaab", 1)]
    assert took == [True, True, False, False, False, False]
    assert len(backlog) == 2 + 2
    assert backlog.take(9) == [message("a", 1), message("a", 2)]
    assert backlog.take(9) == [Lost("b", 3, 6, "overflow"), Lost("a", 4, 5, "overflow")]
    assert backlog.take(9) == []


def test_a_gap_goes_before_what_has_room_again() -> None:
    """Also before a message of another channel: order between channels is kept at no cost."""
    backlog = Backlog(1)
    backlog.put(message("a", 1))
    assert not backlog.put(message("a", 2))
    assert backlog.take(1) == [message("a", 1)]
    assert backlog.put(message("b", 3))
    assert backlog.take(9) == [Lost("a", 2, 2, "overflow"), message("b", 3)]


def test_a_new_overflow_is_a_new_gap() -> None:
    """What one `Lost` has named is not named by the next."""
    backlog = Backlog(1)
    for seq in (1, 2):
        backlog.put(message("a", seq))
    assert backlog.take(1) == [message("a", 1)]
    assert backlog.put(message("a", 3))
    assert not backlog.put(message("a", 4))
    assert backlog.take(9) == [Lost("a", 2, 2, "overflow"), message("a", 3)]
    assert backlog.take(9) == [Lost("a", 4, 4, "overflow")]


def test_what_concerns_all_comes_alone() -> None:
    """A new epoch, or a loss of unknown channels, keeps its position among the events."""
    backlog = Backlog(10)
    events: list[FeedEvent] = [
        NewEpoch("one"),
        message("a", 1),
        message("b", 2),
        Lost(None, 3, 4, "expired"),
        NewEpoch("two"),
        message("a", 1),
    ]
    for event in events:
        assert backlog.put(event)
    taken = [backlog.take(9) for _ in range(6)]
    assert taken == [events[:1], events[1:3], events[3:4], events[4:5], events[5:], []]


def test_what_is_no_message_always_has_room() -> None:
    """A dropped gap would be a loss that no client learns of."""
    backlog = Backlog(1)
    for seq in (1, 2):
        backlog.put(message("a", seq))
    assert backlog.put(Lost("a", 3, 9, "expired"))
    assert backlog.put(NewEpoch("two"))
    assert not backlog.put(message("a", 1))
    assert backlog.take(9) == [message("a", 1), Lost("a", 2, 2, "overflow"), Lost("a", 3, 9, "expired")]
    assert backlog.take(9) == [NewEpoch("two")]
    assert backlog.take(9) == [Lost("a", 1, 1, "overflow")]


# -- all together ----------------------------------------------------------------------------------

puts = st.sampled_from([*CHANNELS * 3, "lost", "lost-of-all", "epoch"])
moves = st.lists(puts | st.integers(1, 6), max_size=120)


@given(plan=moves, limit=st.integers(1, 8))
def test_delivered_and_named_is_all_that_was_offered(plan: list[str | int], limit: int) -> None:
    """Per channel, in order: messages and what gaps name are every message once, epochs in their places.

    Never do more messages wait than the limit; besides them there is one gap per channel in their midst,
    one per channel still to be told, and what is no message.
    """
    backlog = Backlog(limit)
    offered: list[FeedEvent] = []
    taken: list[FeedEvent] = []
    refused = 0

    def take(most: int) -> int:
        piece = backlog.take(most)
        assert len(piece) <= most
        assert len(piece) == 1 or all(event.channel is not None for event in piece)
        taken.extend(piece)
        return len(piece)

    for seq, move in enumerate(plan, 1):
        if isinstance(move, int):
            waiting = len(backlog)
            assert (take(move) > 0) is (waiting > 0)
            continue
        event: FeedEvent
        if move == "lost":
            event = Lost("a", seq, seq, "expired")
        elif move == "lost-of-all":
            event = Lost(None, seq, seq, "expired")
        elif move == "epoch":
            event = NewEpoch(f"epoch-{seq}")
        else:
            event = message(move, seq)
        offered.append(event)
        took = backlog.put(event)
        refused += not took
        assert took or isinstance(event, Message)
        others = sum(not isinstance(known, Message) for known in offered)
        assert len(backlog) <= limit + (2 + others) * len(CHANNELS) + others
        in_queue = sum(isinstance(known, Message) for known in backlog._waiting)
        assert in_queue <= limit
    while take(4):
        pass
    assert len(backlog) == 0
    for channel in CHANNELS:
        seqs = [event.seq for event in offered if isinstance(event, Message) and event.channel == channel]
        assert events_of(taken, channel, seqs) == events_of(offered, channel, seqs)
    came = sum(isinstance(event, Message) for event in taken)
    assert came + refused == sum(isinstance(event, Message) for event in offered)
