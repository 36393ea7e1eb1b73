"""What a pass sends: frames that are encoded once and shared by all recipients. Pure.

A connection whose socket accepts everything needs only the joined bytes. One whose socket does not must know
the frames in them, so that it can drop some and tell the client which. So a bundle has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from odinws.messages.protocol import Lost, Message
from odinws.messages.wire_format import WireFormat

INVALID = "invalid_payload"  # the reason of a gap for a message that the format can't represent


class Entry(NamedTuple):
    """One frame.

    Attributes:
        channel: its channel; None: a control frame or an answer, which is never dropped.
        first, last: the sequences that it covers, inclusive: those of one message, or of a gap.
        messages: 1 for a message, 0 for a gap.
    """

    frame: bytes
    channel: str | None = None
    first: int = 0
    last: int = 0
    messages: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Frames that are sent together. Compared by identity, which makes it a cheap key.

    Attributes:
        data: all frames, joined.
        entries: the same frames, one by one.
        data_count: how many of them are messages or gaps.
        gaps: the reasons of the gaps among them.
    """

    data: bytes
    entries: Sequence[Entry]
    data_count: int
    gaps: Sequence[str] = ()

    @classmethod
    def of(cls, entries: Sequence[Entry], gaps: Sequence[str] = ()) -> Bundle:
        """A bundle of messages and gaps."""
        return cls(b"".join([entry.frame for entry in entries]), entries, len(entries), gaps)

    @classmethod
    def control(cls, frame: bytes) -> Bundle:
        """A bundle of one control frame or answer."""
        return cls(frame, (Entry(frame),), 0)


def encode(events: Sequence[Message | Lost], via: str, wire_format: WireFormat) -> Bundle:
    """Encode messages and gaps for the subscribers of `via`, a channel or a wildcard."""
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
    """What the subscribers of one channel or wildcard get in one pass, encoded once per wire format in use.

    Args:
        via: the channel or the wildcard.
        default: the format that most subscribers have.

    Attributes:
        plain: the events in the default format.
    """

    __slots__ = ("_events", "_made", "_via", "plain")

    def __init__(self, events: Sequence[Message | Lost], via: str, default: WireFormat) -> None:
        self._events = events
        self._via = via
        self.plain = encode(events, via, default)
        self._made = {default: self.plain}

    @property
    def has_gaps(self) -> bool:
        """Whether there is a gap in any format encoded so far."""
        return any(bundle.gaps for bundle in self._made.values())

    def encoded(self, wire_format: WireFormat) -> Bundle:
        """The events in another format."""
        bundle = self._made.get(wire_format)
        if bundle is None:
            bundle = self._made[wire_format] = encode(self._events, self._via, wire_format)
        return bundle
