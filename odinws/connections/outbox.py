"""What a socket did not take yet: a queue bounded in bytes and frames. Pure.

A connection has an outbox only while its socket is full. It knows its frames one by one, so it can give
some up and put a `gap` in their place; the frame under way is always finished, so none is ever cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import islice

from odinws.messages.packet import Bundle, Entry
from odinws.messages.wire_format import WireFormat

_FRAMES_PER_SEND = 256  # well below IOV_MAX (1024)


class SlowPolicy(Enum):
    """What becomes of a client that does not keep up, when its outbox is full."""

    DISCONNECT = "disconnect"
    CONFLATE = "conflate"
    DROP_OLDEST = "drop-oldest"


class Outbox:
    """Frames that wait for their socket.

    Args:
        bundles: what was to be sent.
        sent: how many of their bytes the socket took, less than all.

    Attributes:
        gaps: how many gaps were made; one that reaches further later on is still one.
        stalled_since: when the socket took something last, by the clock of who sets it.
    """

    __slots__ = ("_entries", "_partial", "gaps", "size_bytes", "stalled_since")

    def __init__(self, bundles: Iterable[Bundle], sent: int) -> None:
        self._entries: deque[Entry] = deque()
        self._partial: bytes | memoryview = b""  # of the frame under way
        self.gaps = 0
        self.size_bytes = 0
        self.stalled_since = 0.0
        for bundle in bundles:
            self.append(bundle)
        self.advance(sent)

    def __len__(self) -> int:
        """Whole frames that wait."""
        return len(self._entries)

    def append(self, bundle: Bundle) -> None:
        """Queue frames."""
        self._entries.extend(bundle.entries)
        self.size_bytes += len(bundle.data)

    def fits(self, max_bytes: int, max_frames: int) -> bool:
        """Whether what waits is within bounds. One frame alone always is, however long."""
        return len(self._entries) <= max_frames and (self.size_bytes <= max_bytes or len(self._entries) <= 1)

    def waiting(self) -> list[bytes | memoryview]:
        """The next bytes for the socket, for one `sendmsg`."""
        buffers: list[bytes | memoryview] = [self._partial] if self._partial else []
        buffers += [entry.frame for entry in islice(self._entries, _FRAMES_PER_SEND)]
        return buffers

    def advance(self, taken: int) -> None:
        """Forget `taken` bytes that the socket took of what is waiting."""
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
        """Give up all but the frame under way.

        Returns:
            The rest of that frame (empty if none is half sent), and how many messages were given up.
        """
        rest = bytes(self._partial)
        lost = sum(entry.messages for entry in self._entries)
        self._entries.clear()
        self._partial = b""
        self.size_bytes = 0
        return rest, lost

    def conflate(self, wire_format: WireFormat) -> int:
        """Keep the newest message of each channel, and name the others in gaps.

        Args:
            wire_format: that of the client.

        Returns:
            How many messages were given up.
        """
        newest = {entry.channel: index for index, entry in enumerate(self._entries) if entry.messages}
        drop_flags = [index != newest.get(entry.channel) for index, entry in enumerate(self._entries)]
        return self._drop(drop_flags, wire_format)

    def drop_oldest(self, max_bytes: int, max_frames: int, wire_format: WireFormat) -> int:
        """Give up the oldest messages until half of the bounds is free, but for the gaps that name them.

        Returns:
            How many messages were given up.
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
        """Give entries up, except those that are no data; returns how many messages that were.

        Neighbours of a channel give way to one gap, where the last of them stood. A gap does not reach over
        a message that stays, nor into an older epoch, whose sequences are higher: it would end before it
        begins.
        """
        kept: list[Entry] = []  # from the last to the first
        gaps: dict[str, int] = {}  # where in `kept` the gap of a channel stands that may still grow
        new: set[str] = set()  # channels where that gap has none in it that stood there before
        dropped = 0
        for entry, drop in zip(reversed(self._entries), reversed(drop_flags), strict=True):
            channel = entry.channel
            if channel is None:
                kept.append(entry)
                continue
            if not drop:
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
    """The entry with its frame."""
    channel = entry.channel or ""
    return entry._replace(frame=wire_format.gap(channel, entry.first, entry.last, "slow", channel))
