"""Whether a client was given all that is due to it, in order, once, or was told what is missing. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.sdks.records import Gap, Heard, Lost, Record, Subscribed, Wrong

SHOWN = 5
_UNKNOWN = "none"  # the epoch of a worker that has not heard of NATS yet: a client keeps the one it has


def matches(via: str, channel: str) -> bool:
    """Whether a subscription, which may be a wildcard at its end, gives the messages of a channel."""
    return channel == via or (via.endswith(".*") and channel.startswith(via[:-1]))


def due(seqs: Mapping[str, Sequence[int]], via: str) -> Sequence[int]:
    """The sequences of all that was published for a subscription, rising."""
    found = [seqs[channel] for channel in seqs if matches(via, channel)]
    return found[0] if len(found) == 1 else sorted(seq for part in found for seq in part)


class Track:
    """One subscription of one client, over all its connections.

    Attributes:
        start: what comes behind it is due; -1: it never began.
        last: up to here all was heard or told.
        told: channel (or wildcard), first and last of a stretch of which it is known that it has not all.
        faults: what can't be right.
    """

    def __init__(self, via: str) -> None:
        self.via = via
        self.start = self.last = -1
        self.epoch = _UNKNOWN
        self.heard: array[int] = array("Q")
        self.told: list[tuple[str, int, int]] = []
        self.faults: list[str] = []

    def subscribed(self, record: Subscribed) -> None:
        """It begins, or is there again."""
        if self.start < 0:
            self.start = self.last = record.at
        elif not record.recovering:
            self.faults.append(f"subscribed anew at {record.at}, without a position, behind {self.last}")
        elif not record.recovered:
            self._tell(self.via, self.last + 1, record.at)
        elif _UNKNOWN not in (record.epoch, self.epoch) and record.epoch != self.epoch:
            self.faults.append(f"recovered from epoch {self.epoch} in {record.epoch}")
        if record.epoch != _UNKNOWN:
            self.epoch = record.epoch

    def take(self, record: Heard) -> None:
        """One message, which must lie behind all before it."""
        if self.start < 0:
            self.faults.append(f"{record.seq} came before the subscription")
        elif self.heard and record.seq <= self.heard[-1]:
            self.faults.append(f"{record.seq} came after {self.heard[-1]}")
        self.heard.append(record.seq)
        self.last = max(self.last, record.seq)

    def gap(self, record: Gap) -> None:
        """A stretch of one of its channels is named."""
        self._tell(record.channel, record.first, record.last)

    def _tell(self, channel: str, first: int, last: int) -> None:
        self.told.append((channel, first, last))
        self.last = max(self.last, last)

    def wrong(self, seqs: Mapping[str, Sequence[int]], *, whole: bool = True) -> Iterator[str]:
        """What was neither heard nor told, and what was heard that was never published.

        Args:
            seqs: what was published, by channel.
            whole: whether that is all.
        """
        yield from self.faults
        if self.start < 0:
            yield "never subscribed"
            return
        published, heard = due(seqs, self.via), set(self.heard)
        wanted = set(published[bisect_right(published, self.start) :])
        missing = wanted - heard
        for channel, first, last in self.told:
            named = due(seqs, channel)
            missing.difference_update(named[bisect_left(named, first) : bisect_right(named, last)])
        if missing:
            those = f"{sorted(missing)[:SHOWN]} of {len(missing)}"
            yield f"neither heard nor told: {those}, told {self.told[-2:]}"
        if whole and (stray := heard - wanted):
            yield f"heard what was not due: {sorted(stray)[:SHOWN]} of {len(stray)}"

    def is_behind(self, seqs: Mapping[str, Sequence[int]]) -> bool:
        """Whether something is still to come."""
        published = due(seqs, self.via)
        return self.start < 0 or bool(published and self.last < published[-1])


class Client:
    """All subscriptions of one client.

    Args:
        one_order: whether its messages come in the order of the stream over all subscriptions.

    Attributes:
        lost: how often a connection or a subscription was lost, by code and reason.
    """

    def __init__(self, channels: Iterable[str], *, one_order: bool = False) -> None:
        self.tracks = {via: Track(via) for via in channels}
        self.lost: dict[str, int] = {}
        self.faults: list[str] = []
        self._one_order = one_order
        self._last = 0

    def take(self, record: Record) -> None:
        """One record."""
        match record:
            case Heard():
                self._track(record.via or record.channel).take(record)
                if self._one_order and record.seq <= self._last:
                    self.faults.append(f"{record.channel} {record.seq} came after {self._last}")
                self._last = record.seq
            case Subscribed():
                self._track(record.via).subscribed(record)
            case Gap():
                self._track(record.channel).gap(record)
            case Lost():
                name = f"{record.code} {record.reason}"
                self.lost[name] = self.lost.get(name, 0) + 1
            case Wrong():
                self.faults.append(record.text)

    def _track(self, name: str) -> Track:
        if (track := self.tracks.get(name)) is not None:
            return track
        for via, track in self.tracks.items():
            if matches(via, name):
                return track
        return self.tracks.setdefault(name, Track(name))  # nobody asked for it: its messages come too early

    def wrong(self, seqs: Mapping[str, Sequence[int]], *, whole: bool = True) -> Iterator[str]:
        """What is not as it must be, a line each; for the arguments see `Track`."""
        yield from self.faults
        for via, track in self.tracks.items():
            yield from (f"{via}: {text}" for text in track.wrong(seqs, whole=whole))
