"""`odinws.fanout.ring`: its answers are complete, or it says that they are not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from odinws.fanout.ring import Ring
from odinws.feed.events import Message

CHANNELS = ("token.A", "token.B", "global")


def feed(channels: list[str]) -> list[Message]:
    """A feed of these channels."""
    last: dict[str, int] = {}
    made = []
    for seq, channel in enumerate(channels, 1):
        made.append(Message(channel, seq, last.get(channel, 0), seq * 10, b"x" * (seq % 7)))
        last[channel] = seq
    return made


@given(
    channels=st.lists(st.sampled_from(CHANNELS), max_size=60),
    most=st.integers(1, 20),
    max_bytes=st.integers(1, 20_000),
    since=st.integers(0, 70),
    start=st.integers(0, 5),
    lost=st.sets(st.integers(1, 60), max_size=5),
)
def test_complete_or_unknown(
    channels: list[str], most: int, max_bytes: int, since: int, start: int, lost: set[int]
) -> None:
    """Against the whole truth: every answer is exactly what was published, or none is given."""
    ring = Ring(most, max_bytes)
    ring.restart(start)
    messages = [m for m in feed(channels) if m.seq > start]
    for message in messages:
        if message.seq in lost:
            ring.mark_lost(message.seq)
        else:
            ring.add(message)
    assert len(ring) <= most
    answered = ring.all_after(since)
    if answered is not None:
        assert answered == [m for m in messages if m.seq > since]
    for channel in CHANNELS:
        found = ring.after(channel, since)
        assert (found is None) == (answered is None)
        if found is not None:
            assert found == [m for m in messages if m.seq > since and m.channel == channel]
        newest = ring.newest(channel)
        if newest is not None:
            assert newest == [m for m in messages if m.channel == channel and m.seq not in lost][-1]
    if messages:
        assert ring.last == messages[-1].seq
        assert ring.after("token.A", ring.last) == []


def test_bytes_are_bounded() -> None:
    """Large messages push out more; one always stays."""
    ring = Ring(1000, 10_000)
    for message in feed(["token.A"] * 100):
        ring.add(message._replace(payload=b"x" * 2_000))
        assert len(ring) <= 4
    ring.add(Message("token.A", 101, 100, 0, b"x" * 1_000_000))
    assert len(ring) == 1
    assert ring.after("token.A", 100) == [ring.newest("token.A")]
    assert ring.after("token.A", 99) is None


def test_numbers_that_begin_anew() -> None:
    """Nothing of before is known any more."""
    ring = Ring(10, 10_000)
    for message in feed(["token.A"] * 3):
        ring.add(message)
    ring.restart(7)
    assert ring.newest("token.A") is None
    assert ring.after("token.A", 6) is None
    assert ring.after("token.A", 7) == []


@given(
    channels=st.lists(st.sampled_from(CHANNELS), max_size=40),
    horizon=st.integers(0, 45),
    more=st.integers(0, 5),
)
def test_filled(channels: list[str], horizon: int, more: int) -> None:
    """What was published before is there from the horizon on, and nothing that was there before that."""
    messages = feed(channels)
    last = len(messages) + more
    ring = Ring(100, 1 << 20)
    ring.restart(0)
    ring.add(Message("token.A", 1, 0, 0, b"of another life"))
    ring.backfill(horizon, last, [m for m in messages if m.seq > horizon])
    assert (ring.horizon, ring.last) == (horizon, last)
    assert ring.all_after(horizon) == [m for m in messages if m.seq > horizon]
    if horizon:
        assert ring.all_after(horizon - 1) is None
