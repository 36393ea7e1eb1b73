"""What a pass sends: frames that are made once and shared by all who get them. Pure.

A connection whose socket takes everything needs only the joined bytes. One whose socket does not needs
to know which frames are in them, to give some up and tell the client which: so the frames go along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from odinws.messages.outgoing import Lost, Message
from odinws.messages.wire_format import WireFormat

INVALID = "invalid_payload"  # why there is a gap for a message that the format can't carry


class Entry(NamedTuple):
    """One frame.

    Attributes:
        channel: what it belongs to; None: it is no data, and is never given up.
        first, last: the sequences it tells of: one message, or a gap.
        messages: 1 for a message, 0 for a gap.
    """

    frame: bytes
    channel: str | None = None
    first: int = 0
    last: int = 0
    messages: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Frames that go out together. Compared by identity, which makes it a cheap key.

    Attributes:
        data: all frames, joined.
        entries: the same, one by one.
        data_count: how many of them are data: messages and gaps.
        gaps: the reasons of those that are gaps.
    """

    data: bytes
    entries: Sequence[Entry]
    data_count: int
    gaps: Sequence[str] = ()

    @classmethod
    def of(cls, entries: Sequence[Entry], gaps: Sequence[str] = ()) -> Bundle:
        """A bundle of data frames that are made already."""
        return cls(b"".join([entry.frame for entry in entries]), entries, len(entries), gaps)

    @classmethod
    def control(cls, frame: bytes) -> Bundle:
        """A bundle of one frame that is no data."""
        return cls(frame, (Entry(frame),), 0)


def encode(events: Sequence[Message | Lost], via: str, wire_format: WireFormat) -> Bundle:
    """Messages and gaps in a wire format, for all who get them by the subscription `via`."""
    entries: list[Entry] = []
    gaps: list[str] = []
    for event in events:
        if isinstance(event, Message):
            channel, first = event.channel, event.seq
            try:
                frame, last, reason = wire_format.message(event, via), first, ""
            except ValueError:
                frame, last, reason = b"", first, INVALID
        else:
            channel, first, last, reason = event.channel or via, event.first, event.last, event.reason
        if reason:
            frame = wire_format.gap(channel, first, last, reason, via)
        if frame:
            entries.append(Entry(frame, channel, first, last, 0 if reason else 1))
            if reason:
                gaps.append(reason)
    return Bundle.of(entries, gaps)


class Packet:
    """What all with one subscription are due in one pass, made once for each wire format that is wanted.

    Args:
        via: the subscription, a channel or a wildcard.
        default: the format that most of them have.

    Attributes:
        plain: the events in that format.
    """

    __slots__ = ("_events", "_made", "_via", "plain")

    def __init__(self, events: Sequence[Message | Lost], via: str, default: WireFormat) -> None:
        self._events = events
        self._via = via
        self.plain = encode(events, via, default)
        self._made = {default: self.plain}

    @property
    def has_gaps(self) -> bool:
        """Whether anything that was made is a gap."""
        return any(bundle.gaps for bundle in self._made.values())

    def encoded(self, wire_format: WireFormat) -> Bundle:
        """The events in a format."""
        bundle = self._made.get(wire_format)
        if bundle is None:
            bundle = self._made[wire_format] = encode(self._events, self._via, wire_format)
        return bundle
