"""What was lost, came twice or out of order: counted exactly, however the bytes are cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from odinws.swarm.flow import START, Flow, Position
from odinws.swarm.formats import Answer
from odinws.swarm.formats import Message as Heard
from odinws.swarm.frames import PONG, frame
from odinws.swarm.tally import Tally
from tests import wire

LATER = 1e9


class Message(NamedTuple):
    """One message of the feed."""

    channel: str
    seq: int
    prev: int

    @property
    def frame(self) -> bytes:
        """As the server sends it."""
        text = (
            f'{{"type":"a \\"b","channel":"{self.channel}","seq":{self.seq},"prev":{self.prev},'
            f'"ts":5,"data":{{"type":"x","channel":"y","seq":1}}}}'
        )
        return wire.frame(wire.TEXT, text.encode(), masked=False)


def feed(channels: Iterable[str]) -> list[Message]:
    """A stream with one message per name, numbered as the server does."""
    last: dict[str, int] = {}
    found = []
    for seq, channel in enumerate(channels, 1):
        found.append(Message(channel, seq, last.get(channel, 0)))
        last[channel] = seq
    return found


def gap(channel: str, first: int, last: int, reason: str = "slow") -> bytes:
    """The frame of a gap."""
    text = json.dumps({"type": "gap", "channel": channel, "from": first, "to": last, "reason": reason})
    return wire.frame(wire.TEXT, text.replace(": ", ":").encode(), masked=False)


def read(flow: Flow, pieces: Sequence[bytes], position: Position = START, times: int = 1) -> Position:
    """Let a client read these pieces."""
    for piece in pieces:
        step = flow.steps.get((position, piece)) or flow.step(position, piece)
        step.times += times
        position = step.after
    return position


def counts(flow: Flow) -> dict[str, int]:
    """What was counted; what is 0 is left out."""
    tally = Tally()
    for step in flow.taken():
        tally.take(step, step.times, 0.0)
    tally.settle(flow.chain, LATER)
    return {name: count for name, count in tally.counts.items() if count}


def frames(messages: Iterable[Message]) -> list[bytes]:
    """The frame of each."""
    return [message.frame for message in messages]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.data())
def test_drops_and_doubles(channels: list[str], data: st.DataObject) -> None:
    """One client gets all, another a part, some twice, in pieces of any size: the difference is counted."""
    messages = feed(channels)
    kept = [data.draw(st.sampled_from([0, 1, 1, 1, 2])) for _ in messages]
    flow = Flow()
    read(flow, frames(messages))
    stream = b"".join(message.frame * times for message, times in zip(messages, kept, strict=True))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    read(flow, [stream[start:stop] for start, stop in pairwise([0, *cuts, len(stream)])])
    lost = 0
    for channel in set(channels):
        heard = [times for message, times in zip(messages, kept, strict=True) if message.channel == channel]
        while heard and not heard[0]:  # before the first nobody can know
            heard.pop(0)
        while heard and not heard[-1]:  # behind the last neither
            heard.pop()
        lost += heard.count(0)
    found = counts(flow)
    assert found["delivered"] == len(messages) + sum(kept)
    assert found.get("lost", 0) == lost
    assert found.get("duplicated", 0) == kept.count(2)
    assert "disordered" not in found


def test_late() -> None:
    """A message behind a later one is out of order, and not lost; the second time it is a double."""
    one, two, three, four = frames(feed("aaaa"))
    flow = Flow()
    position = read(flow, [one, four])
    assert counts(flow) == {"delivered": 2, "lost": 1}  # of two: nobody got the other yet
    read(flow, frames(feed("aaaa")))
    counts(flow)
    position = read(flow, [three + two], position)
    assert counts(flow)["disordered"] == 2
    read(flow, [two], position)
    assert counts(flow) == {"delivered": 1, "duplicated": 1}


def test_late_in_the_same_second() -> None:
    """Swapped messages count as disorder, and nothing is lost."""
    one, two, three = frames(feed("aaa"))
    flow = Flow()
    read(flow, [one + three + two])
    assert counts(flow) == {"delivered": 3, "disordered": 1}


def test_another_prev() -> None:
    """A message whose `prev` is not what came before, although nothing can be missing, is out of order."""
    flow = Flow()
    read(flow, frames([Message("a", 5, 0), Message("a", 9, 3)]))
    assert counts(flow) == {"delivered": 2, "disordered": 1}


def test_gaps() -> None:
    """What a gap names is not lost; what lies behind it is."""
    messages = feed("aaaaaa")
    flow = Flow()
    read(flow, [messages[0].frame, gap("a", 2, 3), messages[3].frame, messages[5].frame])
    assert counts(flow) == {"delivered": 3, "gaps": 1, "lost": 1}


def test_gap_of_all() -> None:
    """A gap on a wildcard covers each of its channels; another epoch starts all of them anew."""
    flow = Flow()
    position = read(flow, frames([Message("token.A", 7, 0), Message("token.B", 8, 0)]))
    position = read(flow, [gap("token.*", 9, 20), Message("token.A", 21, 15).frame], position)
    position = read(flow, [gap("token.*", 0, 0, "epoch"), Message("token.B", 2, 1).frame], position)
    assert position.since() == {"token.B": 2}
    assert counts(flow) == {"delivered": 4, "gaps": 2}


def test_controls_stand_in_the_way() -> None:
    """With another frame among them nothing is judged at once, but frame by frame."""
    one, two = feed("aa")
    flow = Flow()
    step = flow.step(START, one.frame + wire.frame(wire.PING, b"", masked=False) + two.frame[:9])
    assert step.controls is not None
    assert step.controls == [Heard("a", 1, 0, 5), Answer(frame(PONG))]
    assert step.after.rest == two.frame[:9]
    single = flow.one(step.after, step.controls[0])
    assert single is not None
    assert single.after.since() == {"a": 1}
    assert single.after.rest == two.frame[:9]
    assert flow.one(step.after, step.controls[1]) is None


def test_many_share_a_step() -> None:
    """A thousand clients at one position make one step, and each counts."""
    flow = Flow()
    ready = read(flow, frames(feed("ab")))
    counts(flow)
    for _ in range(1000):
        read(flow, frames([Message("a", 3, 1)]), ready)
    assert len(flow.steps) == 1
    assert counts(flow) == {"delivered": 1000}
