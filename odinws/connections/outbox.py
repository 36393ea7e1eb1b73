"""The outbox of a connection: frames that its socket has not accepted yet, bounded in bytes and frames. Pure.

A connection has an outbox only while its socket is full. The outbox knows each frame, so it can drop
messages and put a `gap` in their place. A frame that is half sent is always completed, so no frame is ever
truncated.

Past messages, which one connection alone waits for, are kept as one piece until some must be dropped. Were
each an object, thousands of slow clients would fill the heap with small ones, and any that stays among them
would keep all of its memory from the system when they have left.
"""

from __future__ import annotations

import marshal
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import Enum
from itertools import accumulate, islice

from odinws.connections.ledger import FRAME_BYTES
from odinws.messages.wire_format import Bundle, Entry, WireFormat

_FRAMES_PER_SEND = 256  # well below IOV_MAX (1024)


class SlowPolicy(Enum):
    """What happens to a client whose outbox is full."""

    DISCONNECT = "disconnect"
    CONFLATE = "conflate"
    DROP_OLDEST = "drop-oldest"


def _to_all(_: str) -> bool:
    return True


class _Run:
    """Frames in one piece.

    Attributes:
        frame: all of them, joined.
        ends: where each ends in it.
    """

    __slots__ = ("_about", "ends", "frame")

    def __init__(self, bundle: Bundle) -> None:
        self.frame = bundle.data
        self.ends = array("I", accumulate(len(entry.frame) for entry in bundle.entries))
        self._about = marshal.dumps([tuple(entry[1:]) for entry in bundle.entries])

    def entries(self, first: int = 0) -> list[Entry]:
        """The frames one by one, from a number on."""
        starts = [0, *self.ends]
        about = marshal.loads(self._about)  # noqa: S302 - our own words
        return [Entry(self.frame[starts[n] : starts[n + 1]], *about[n]) for n in range(first, len(about))]


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

    __slots__ = ("_begun", "_entries", "_frames", "_partial", "gaps", "size_bytes", "stalled_since")

    def __init__(self, bundles: Iterable[Bundle], sent: int) -> None:
        self._entries: deque[Entry | _Run] = deque()
        self._frames = 0  # in these
        self._partial: bytes | memoryview = b""  # the rest of the half-sent frame, or run
        self._begun: _Run | None = None  # that `_partial` is of
        self.gaps = 0
        self.size_bytes = 0
        self.stalled_since = 0.0
        for bundle in bundles:
            self.append(bundle)
        self.advance(sent)

    def __len__(self) -> int:
        """The number of whole frames in the queue."""
        run = self._begun
        return self._frames + (
            0 if run is None else len(run.ends) - 1 - bisect_left(run.ends, self._sent(run))
        )

    def _sent(self, run: _Run) -> int:
        return len(run.frame) - len(self._partial)

    @property
    def held_bytes(self) -> int:
        """What is queued, and what that takes besides its bytes."""
        sent = 0 if self._begun is None else self._sent(self._begun)
        return self.size_bytes + FRAME_BYTES * len(self) + sent

    def append(self, bundle: Bundle) -> None:
        """Queue frames."""
        if bundle.is_shared or len(bundle.entries) == 1:
            self._entries.extend(bundle.entries)
        else:
            self._entries.append(_Run(bundle))
        self._frames += len(bundle.entries)
        self.size_bytes += len(bundle.data)

    def fits(self, max_bytes: int, max_frames: int) -> bool:
        """Whether the queue is within bounds. A single frame always is, however long."""
        count = len(self)
        return count <= max_frames and (self.size_bytes <= max_bytes or count <= 1)

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
        self._partial, self._begun = b"", None
        while taken:
            entry = self._entries.popleft()
            run = entry if isinstance(entry, _Run) else None
            self._frames -= 1 if run is None else len(run.ends)
            if taken < len(entry.frame):
                self._partial, self._begun = memoryview(entry.frame)[taken:], run
                return
            taken -= len(entry.frame)

    def _whole(self) -> Iterator[Entry]:
        """All whole frames, one by one, also those of runs."""
        run = self._begun
        if run is not None:
            yield from run.entries(bisect_left(run.ends, self._sent(run)) + 1)
        for entry in self._entries:
            if isinstance(entry, _Run):
                yield from entry.entries()
            else:
                yield entry

    def _unfold(self) -> list[Entry]:
        """All whole frames, which take the place of runs; so that some can be dropped."""
        whole, run = list(self._whole()), self._begun
        if run is not None:
            sent = self._sent(run)
            self._partial, self._begun = run.frame[sent : run.ends[bisect_left(run.ends, sent)]], None
        return whole

    def _replace(self, entries: Iterable[Entry]) -> None:
        self._entries = deque(entries)
        self._frames = len(self._entries)
        self.size_bytes = len(self._partial) + sum([len(entry.frame) for entry in self._entries])

    def drop_all(self) -> tuple[bytes, int]:
        """Drop all but the half-sent frame.

        Returns:
            The rest of that frame, or b"", and how many messages were dropped.
        """
        lost = sum(entry.messages for entry in self._unfold())
        rest, self._partial = bytes(self._partial), b""
        self._replace(())
        return rest, lost

    def conflate(
        self, wire_format: WireFormat, applies: Callable[[str], bool] = _to_all, *, in_order: bool = False
    ) -> int:
        """Keep the newest message of each channel, and replace the others by gaps.

        Args:
            wire_format: the client's.
            applies: to which channels.
            in_order: whether one position of the client tells how far it has come with several channels.

        Returns:
            How many messages were dropped.
        """
        entries = self._unfold()
        newest = {entry.channel: index for index, entry in enumerate(entries) if entry.messages}
        drop_flags = [
            index != newest.get(entry.channel) and entry.channel is not None and applies(entry.channel)
            for index, entry in enumerate(entries)
        ]
        return self._drop(entries, drop_flags, wire_format, in_order=in_order)

    @property
    def channels(self) -> set[str]:
        """The channels, or subscriptions, of what is queued."""
        return {entry.channel for entry in self._whole() if entry.channel is not None}

    def drop_messages(self, wire_format: WireFormat, channels: Collection[str]) -> int:
        """Replace all messages of channels by gaps, one for each; returns how many were dropped."""
        entries = self._unfold()
        return self._drop(entries, [entry.channel in channels for entry in entries], wire_format)

    def drop_oldest(
        self,
        max_bytes: int,
        max_frames: int,
        wire_format: WireFormat,
        applies: Callable[[str], bool] = _to_all,
        *,
        in_order: bool = False,
    ) -> int:
        """Drop the oldest messages until half of each bound is free, not counting the gaps that replace them.

        Args:
            in_order: as for `conflate`.

        Returns:
            How many messages were dropped.
        """
        entries = self._unfold()
        size, count = self.size_bytes, len(entries)
        drop_flags: list[bool] = []
        for entry in entries:
            is_much = size > max_bytes // 2 or count > max_frames // 2
            drop_flags.append(is_much and entry.channel is not None and applies(entry.channel))
            if drop_flags[-1]:
                size -= len(entry.frame)
                count -= 1
        return self._drop(entries, drop_flags, wire_format, in_order=in_order)

    def _drop(
        self,
        entries: Sequence[Entry],
        drop_flags: Sequence[bool],
        wire_format: WireFormat,
        *,
        in_order: bool = False,
    ) -> int:
        """Drop the flagged entries, except control frames; returns how many messages were dropped.

        Adjacent dropped entries of a channel become one gap, at the position of the last. A gap does not
        extend across a message that stays, nor into an older epoch: its sequences are higher, so the gap
        would end before it begins. Where one position stands for several channels, it does not extend across
        anything that stays: a client has been told of all that is before its position.
        """
        in_order = in_order or wire_format.in_stream_order
        kept: list[Entry] = []  # from the last to the first
        gaps: dict[str, int] = {}  # channel -> index in `kept` of its gap that may still be extended
        new: set[str] = set()  # channels whose such gap contains no gap that was queued before
        dropped = 0
        for entry, drop in zip(reversed(entries), reversed(drop_flags), strict=True):
            channel = entry.channel
            if channel is None or not drop:
                if in_order:
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
        self._replace(entry for entry in framed if entry.frame)
        return dropped


def _with_gap(entry: Entry, wire_format: WireFormat) -> Entry:
    """The gap with its frame."""
    channel = entry.channel or ""
    return entry._replace(frame=wire_format.gap(channel, entry.first, entry.last, "slow", channel))
