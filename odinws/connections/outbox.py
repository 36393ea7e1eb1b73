"""The outbox of a connection: frames that its socket has not accepted yet, bounded in bytes and frames. Pure.

A connection has an outbox only while its socket is full. The outbox knows each frame, so it can drop
messages and put a `gap` in their place. A frame that is half sent is always completed, so no frame is ever
truncated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import islice

from odinws.connections.ledger import FRAME_BYTES
from odinws.messages.wire_format import Bundle, Entry, WireFormat

_FRAMES_PER_SEND = 256  # well below IOV_MAX (1024)


class SlowPolicy(Enum):
    """What happens to a client whose outbox is full."""

    DISCONNECT = "disconnect"
    CONFLATE = "conflate"
    DROP_OLDEST = "drop-oldest"


class Outbox:
    """A queue of frames for one socket.

    Args:
        bundles: what was to be sent.
        sent: how many bytes of them the socket has accepted; fewer than all.

    Attributes:
        gaps: how many gaps were created; extending one does not count.
        size_bytes: what is queued, the rest of a half-sent frame included.
        stalled_since: when the socket last accepted something, by the clock of the connection's owner.
    """

    __slots__ = ("_entries", "_partial", "gaps", "size_bytes", "stalled_since")

    def __init__(self, bundles: Iterable[Bundle], sent: int) -> None:
        self._entries: deque[Entry] = deque()
        self._partial: bytes | memoryview = b""  # the rest of the half-sent frame
        self.gaps = 0
        self.size_bytes = 0
        self.stalled_since = 0.0
        for bundle in bundles:
            self.append(bundle)
        self.advance(sent)

    def __len__(self) -> int:
        """The number of whole frames in the queue."""
        return len(self._entries)

    @property
    def held_bytes(self) -> int:
        """What is queued, and what that takes besides its bytes."""
        return self.size_bytes + FRAME_BYTES * len(self._entries)

    def append(self, bundle: Bundle) -> None:
        """Queue frames."""
        self._entries.extend(bundle.entries)
        self.size_bytes += len(bundle.data)

    def fits(self, max_bytes: int, max_frames: int) -> bool:
        """Whether the queue is within bounds. A single frame always is, however long."""
        return len(self._entries) <= max_frames and (self.size_bytes <= max_bytes or len(self._entries) <= 1)

    def waiting(self) -> list[bytes | memoryview]:
        """The next bytes for the socket, for one `sendmsg`."""
        buffers: list[bytes | memoryview] = [self._partial] if self._partial else []
        buffers += [entry.frame for entry in islice(self._entries, _FRAMES_PER_SEND)]
        return buffers

    def advance(self, taken: int) -> None:
        """Remove the first `taken` bytes, which the socket has accepted."""
        self.size_bytes -= taken
        if taken < len(self._partial):
            self._partial = memoryview(self._partial)[taken:]
            return
        taken -= len(self._partial)
        self._partial = b""
        while taken:
            frame = self._entries.popleft().frame
            if taken < len(frame):
                self._partial = memoryview(frame)[taken:]
                return
            taken -= len(frame)

    def drop_all(self) -> tuple[bytes, int]:
        """Drop all but the half-sent frame.

        Returns:
            The rest of that frame, or b"", and how many messages were dropped.
        """
        rest = bytes(self._partial)
        lost = sum(entry.messages for entry in self._entries)
        self._entries.clear()
        self._partial = b""
        self.size_bytes = 0
        return rest, lost

    def conflate(self, wire_format: WireFormat) -> int:
        """Keep the newest message of each channel, and replace the others by gaps.

        Args:
            wire_format: the client's.

        Returns:
            How many messages were dropped.
        """
        newest = {entry.channel: index for index, entry in enumerate(self._entries) if entry.messages}
        drop_flags = [index != newest.get(entry.channel) for index, entry in enumerate(self._entries)]
        return self._drop(drop_flags, wire_format)

    @property
    def channels(self) -> set[str]:
        """The channels, or subscriptions, of what is queued."""
        return {entry.channel for entry in self._entries if entry.channel is not None}

    def drop_messages(self, wire_format: WireFormat) -> int:
        """Replace all messages by gaps, one for each channel; returns how many were dropped."""
        return self._drop([True] * len(self._entries), wire_format)

    def drop_oldest(self, max_bytes: int, max_frames: int, wire_format: WireFormat) -> int:
        """Drop the oldest messages until half of each bound is free, not counting the gaps that replace them.

        Returns:
            How many messages were dropped.
        """
        size, count = self.size_bytes, len(self._entries)
        drop_flags: list[bool] = []
        for entry in self._entries:
            drop_flags.append(size > max_bytes // 2 or count > max_frames // 2)
            if drop_flags[-1] and entry.channel is not None:
                size -= len(entry.frame)
                count -= 1
        return self._drop(drop_flags, wire_format)

    def _drop(self, drop_flags: Sequence[bool], wire_format: WireFormat) -> int:
        """Drop the flagged entries, except control frames; returns how many messages were dropped.

        Adjacent dropped entries of a channel become one gap, at the position of the last. A gap does not
        extend across a message that stays, nor into an older epoch: its sequences are higher, so the gap
        would end before it begins. Where the order of the stream is kept, it does not extend across anything
        that stays: a client has been told of all that is before its position.
        """
        kept: list[Entry] = []  # from the last to the first
        gaps: dict[str, int] = {}  # channel -> index in `kept` of its gap that may still be extended
        new: set[str] = set()  # channels whose such gap contains no gap that was queued before
        dropped = 0
        for entry, drop in zip(reversed(self._entries), reversed(drop_flags), strict=True):
            channel = entry.channel
            if channel is None or not drop:
                if wire_format.in_stream_order:
                    gaps.clear()
                elif channel is not None:
                    gaps.pop(channel, None)
                kept.append(entry)
                continue
            dropped += entry.messages
            at = gaps.get(channel)
            if at is not None and entry.last < kept[at].first:
                kept[at] = Entry(b"", channel, entry.first, kept[at].last)
                if not entry.messages and channel in new:
                    new.discard(channel)
                    self.gaps -= 1
                continue
            gaps[channel] = len(kept)
            self.gaps += entry.messages
            (new.add if entry.messages else new.discard)(channel)
            kept.append(Entry(b"", channel, entry.first, entry.last) if entry.messages else entry)
        framed = (entry if entry.frame else _with_gap(entry, wire_format) for entry in reversed(kept))
        self._entries = deque([entry for entry in framed if entry.frame])
        self.size_bytes = len(self._partial) + sum([len(entry.frame) for entry in self._entries])
        return dropped


def _with_gap(entry: Entry, wire_format: WireFormat) -> Entry:
    """The gap with its frame."""
    channel = entry.channel or ""
    return entry._replace(frame=wire_format.gap(channel, entry.first, entry.last, "slow", channel))
