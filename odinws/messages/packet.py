"""What a pass sends: frames that are made once and shared by all who get them. Pure.

A connection whose socket takes everything needs only the joined bytes. One whose socket does not needs
to know which frames are in them, to give some up and tell the client which: so the frames go along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from odinws.messages import frames
from odinws.messages.deflate import Deflater


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


class Text(NamedTuple):
    """One message or gap of a channel before it is framed.

    Attributes:
        channel, first, last: as in `Entry`.
        gap: why there is a gap; "": it is a message.
    """

    payload: bytes
    channel: str
    first: int
    last: int
    gap: str = ""

    def framed(self, frame: bytes) -> Entry:
        """The entry of the frame that was made of it."""
        return Entry(frame, self.channel, self.first, self.last, 0 if self.gap else 1)


class Packer:
    """Frames messages, compressed for those who agreed on it.

    Args:
        min_deflate_bytes: shorter payloads are not compressed: they would hardly shrink.
    """

    def __init__(self, min_deflate_bytes: int) -> None:
        self._min_deflate_bytes = min_deflate_bytes
        self._deflaters: dict[int, Deflater] = {}

    def plain(self, texts: Sequence[Text]) -> Bundle:
        """The frames as they are."""
        return Bundle.of([text.framed(frames.text(text.payload)) for text in texts], _gaps(texts))

    def deflated(self, texts: Sequence[Text], bits: int) -> Bundle:
        """The frames for connections with a window of `bits`."""
        return Bundle.of([text.framed(self._deflate(text.payload, bits)) for text in texts], _gaps(texts))

    def _deflate(self, payload: bytes, bits: int) -> bytes:
        if len(payload) >= self._min_deflate_bytes:
            deflater = self._deflaters.get(bits)
            if deflater is None:
                deflater = self._deflaters[bits] = Deflater(bits)
            small = deflater.deflate(payload)
            if len(small) < len(payload):
                return frames.text(small, deflated=True)
        return frames.text(payload)


def _gaps(texts: Sequence[Text]) -> Sequence[str]:
    return [text.gap for text in texts if text.gap]


class Packet:
    """The messages of one channel in one pass, framed once, and compressed once if anyone wants that."""

    __slots__ = ("_deflated", "_packer", "_texts", "plain")

    def __init__(self, packer: Packer, texts: Sequence[Text]) -> None:
        self._packer = packer
        self._texts = texts
        self._deflated: dict[int, Bundle] = {}
        self.plain = packer.plain(texts)

    def deflated(self, bits: int) -> Bundle:
        """The frames for connections with a window of `bits`; made once for all of them."""
        bundle = self._deflated.get(bits)
        if bundle is None:
            bundle = self._deflated[bits] = self._packer.deflated(self._texts, bits)
        return bundle
