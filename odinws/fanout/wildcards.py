"""Which wildcards have subscribers, and what of a pass is theirs.

The strategy knows who is subscribed. What is kept here is only which patterns to ask it for: each that was
subscribed to, until it is seen to have nobody left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import count

from odinws.access.patterns import PatternSet, covers
from odinws.connections.connection import Connection
from odinws.feed.events import Lost, Message
from odinws.messages.wire_format import Packet

_REMEMBERED = 16_384  # channels whose wildcards are known, some 4 MB
_LOOKS = 2  # at others for each wildcard that comes: so those without subscribers never become many

Events = list[Message | Lost]


@lru_cache(_REMEMBERED)
def has(pattern: str, channel: str) -> bool:
    """Whether a pattern covers a channel, or another pattern."""
    return covers(pattern.split("."), channel.split("."))


class Wildcards:
    """The wildcards of one worker that have subscribers. A channel that none of them has costs one lookup.

    Args:
        has_subscribers: as of the strategy; may wait.
    """

    def __init__(self, has_subscribers: Callable[[str], bool]) -> None:
        self._has_subscribers = has_subscribers
        self._patterns = PatternSet()
        self._added: dict[str, int] = {}  # by pattern, when it was last subscribed to
        self._times = count()
        self._to_look_at: deque[str] = deque()  # the patterns, in turn
        self._known: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._added)

    def add(self, pattern: str) -> None:
        """A connection has been subscribed to a wildcard."""
        self._added[pattern] = next(self._times)
        if self._patterns.add(pattern):
            self._known.clear()
            self._to_look_at.append(pattern)
            for _ in range(_LOOKS):
                self.look()

    def look(self) -> None:
        """Ask whether one of the wildcards still has subscribers, and forget it if not. May wait."""
        if self._to_look_at:
            pattern = self._to_look_at.popleft()
            added = self._added[pattern]
            # Whoever subscribes while this waits adds it again.
            if self._has_subscribers(pattern) or self._added[pattern] != added:
                self._to_look_at.append(pattern)
                return
            del self._added[pattern]
            self._patterns.discard(pattern)
            self._known.clear()

    def of(self, name: str) -> tuple[str, ...]:
        """The wildcards that have a channel, or all of a pattern: itself, if it is one of them."""
        if not self._added:
            return ()
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[name] = tuple(self._patterns.covering(name))
        return found


class Matches:
    """What of a pass is due to the subscribers of wildcards.

    Args:
        by_channel: the events of the pass.
        wildcards: which there are.

    Attributes:
        events: by wildcard, in the order of the stream.
        of: the wildcards of each channel that has some.
    """

    __slots__ = ("_groups", "events", "of")

    def __init__(self, by_channel: Mapping[str, Events], wildcards: Wildcards) -> None:
        self.events: dict[str, Events] = {}
        self.of: dict[str, tuple[str, ...]] = {}
        self._groups: dict[str, dict[str, None]] = {}
        if not len(wildcards):
            return
        for channel, events in by_channel.items():
            patterns = wildcards.of(channel)
            if patterns:
                self.of[channel] = patterns
                for pattern in patterns:
                    self.events.setdefault(pattern, []).extend(events)
                if len(patterns) > 1:
                    self._unite(patterns)
        for found in self.events.values():
            found.sort(key=_first_seq)

    def _unite(self, patterns: Sequence[str]) -> None:
        """Put wildcards that share a channel, and those that they share channels with, into one group."""
        group = self._groups.setdefault(patterns[0], {patterns[0]: None})
        for pattern in patterns:
            if pattern not in group:
                others = self._groups.get(pattern, {pattern: None})
                group.update(others)
                for other in others:
                    self._groups[other] = group

    def share(self, pattern: str) -> bool:
        """Whether a wildcard has channels of this pass in common with another one."""
        return pattern in self._groups

    def held(self, pattern: str, channels: Mapping[str, None]) -> tuple[str, ...]:
        """What a connection has of a wildcard's group. It gets the events of all of these together, once.

        Args:
            channels: its subscriptions.
        """
        group = self._groups[pattern]
        if len(group) <= len(channels):
            return tuple([name for name in group if name in channels])
        found = {name for name in channels if name in group}
        return tuple([name for name in group if name in found])

    def merged(self, patterns: Iterable[str]) -> Events:
        """The events of several wildcards, each once, in the order of the stream."""
        found = {id(event): event for pattern in patterns for event in self.events[pattern]}
        return sorted(found.values(), key=_first_seq)

    def names(self, held: Sequence[str]) -> list[tuple[str, ...]]:
        """What a connection gets together, so that each event comes once.

        Args:
            held: channels of the pass and wildcards that it is subscribed to.

        Returns:
            A channel or wildcard each; or several wildcards, which are `merged`.
        """
        channels = dict.fromkeys(held)
        found: list[tuple[str, ...]] = []
        for name in held:
            if name in self.events:
                together = self.held(name, channels) if self.share(name) else (name,)
                if together[0] == name:
                    found.append(together)
            elif not any(pattern in channels for pattern in self.of.get(name, ())):
                found.append((name,))
        return found


class Postponed:
    """Who is passed over by a channel, because a wildcard brings the same, in one pass.

    Others run between the batches of a pass. Who has left the wildcard by then is `left`, and is due the
    events by the channel after all.
    """

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[Connection, dict[str, Sequence[str]]] = {}

    def without(
        self, batch: Sequence[Connection], name: str, wildcards: Sequence[str]
    ) -> Sequence[Connection]:
        """Those who get the events by this name.

        Args:
            batch: subscribers of `name`.
            wildcards: that are walked later, and have all events of `name`.
        """
        if self._names:
            for conn in batch:
                if conn in self._names:
                    self._served(conn, name)
        here = batch
        for pattern in wildcards:
            here = [conn for conn in here if pattern not in conn.channels]
        if len(here) != len(batch):
            plain = set(here)
            for conn in batch:
                if conn not in plain:
                    if conn.wire_format.delivers_once:
                        self._names.setdefault(conn, {})[name] = wildcards
                    else:
                        here = [*here, conn]
        return here

    def _served(self, conn: Connection, wildcard: str) -> None:
        names = self._names[conn]
        for name in [name for name, wildcards in names.items() if wildcard in wildcards]:
            del names[name]
        if not names:
            del self._names[conn]

    def left(self) -> list[tuple[str, list[Connection]]]:
        """Who was passed over, and met by no wildcard, but is still subscribed; by channel."""
        found: dict[str, list[Connection]] = {}
        for conn, names in self._names.items():
            for name in names:
                if name in conn.channels:
                    found.setdefault(name, []).append(conn)
        self._names.clear()
        return list(found.items())


class Merged:
    """Packets for those who have several wildcards with the same channels, in one pass.

    Args:
        matches: what is due by wildcards.
        pack: encodes events.
    """

    __slots__ = ("_matches", "_pack", "_packets", "_served")

    def __init__(self, matches: Matches, pack: Callable[[Events, str], Packet]) -> None:
        self._matches = matches
        self._pack = pack
        self._packets: dict[tuple[str, ...], Packet] = {}
        self._served: set[Connection] = set()

    @property
    def has_gaps(self) -> bool:
        """Whether there is a gap in one of the packets."""
        return any(packet.has_gaps for packet in self._packets.values())

    def split(
        self, name: str, batch: Sequence[Connection]
    ) -> tuple[list[Connection], list[tuple[Connection, Packet]]]:
        """Tell the subscribers of a wildcard apart.

        Returns:
            Those who have it alone; and the others, with their packet, unless they have got it already.
        """
        alone: list[Connection] = []
        several: list[tuple[Connection, Packet]] = []
        for conn in batch:
            held = self._matches.held(name, conn.channels) if conn.wire_format.delivers_once else ()
            if len(held) < 2:
                alone.append(conn)
            elif conn not in self._served:
                self._served.add(conn)
                packet = self._packets.get(held)
                if packet is None:
                    packet = self._packets[held] = self._pack(self._matches.merged(held), held[0])
                several.append((conn, packet))
        return alone, several


def _first_seq(event: Message | Lost) -> int:
    return event.seq if isinstance(event, Message) else event.first
