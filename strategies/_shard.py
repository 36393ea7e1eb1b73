"""The data of one shard. Nothing here takes a lock or switches greenlets."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic

from strategies.base import C, ShardStats, Strategy
from strategies.locks import LockProfile, LockStats


class Channel(Generic[C]):
    """The subscribers of one channel in one shard. Never empty while it is in the shard."""

    __slots__ = ("_snapshot", "name", "subscribers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[C, None] = {}
        self._snapshot: tuple[C, ...] | None = None

    def add(self, conn: C) -> None:
        """Add a connection that is not subscribed. O(1): the next walk rebuilds the snapshot."""
        self.subscribers[conn] = None
        self._snapshot = None

    def remove(self, conn: C) -> None:
        """Remove a subscriber. O(1), as `add`."""
        del self.subscribers[conn]
        self._snapshot = None

    def snapshot(self) -> tuple[C, ...]:
        """The current subscribers, oldest subscription first. Built at most once per walk."""
        if self._snapshot is None:
            self._snapshot = tuple(self.subscribers)
        return self._snapshot

    def walk(self, snapshot: tuple[C, ...], size: int, rotation: int = 0) -> Iterator[Sequence[C]]:
        """Yield a snapshot of this channel in batches of at most `size`, without those removed since.

        The walk begins with batch number `rotation`, modulo their number, so that nobody is always last.
        """
        count = -(-len(snapshot) // size)
        for index in range(rotation, rotation + count):
            start = index % count * size
            batch = snapshot[start : start + size]
            if self._snapshot is not snapshot:
                batch = tuple([conn for conn in batch if conn in self.subscribers])
            if batch:
                yield batch


class Shard(Generic[C]):
    """The members and subscriptions of one shard. To write, hold the shard's lock, if it has one."""

    __slots__ = ("channels", "members")

    def __init__(self) -> None:
        self.members: dict[C, None] = {}
        self.channels: dict[str, Channel[C]] = {}

    def add(self, conn: C) -> bool:
        """Make a connection a member; False if it is one already, or still has subscriptions."""
        if conn in self.members or conn.channels:
            return False
        self.members[conn] = None
        return True

    def remove(self, conn: C) -> bool:
        """End a membership; False if there was none. Subscriptions remain."""
        if conn not in self.members:
            return False
        del self.members[conn]
        return True

    def subscribe(self, conn: C, channel: str) -> bool:
        """Add a subscription; False if it exists. The caller has checked the membership."""
        entry = self.channels.get(channel)
        if entry is None:
            entry = self.channels[channel] = Channel(channel)
        elif conn in entry.subscribers:
            return False
        entry.add(conn)
        # Keep the channel's string rather than the parsed copy, so that all subscriptions share it.
        conn.channels[entry.name] = None
        return True

    def unsubscribe(self, conn: C, channel: str) -> bool:
        """Remove a subscription, and the channel with its last one; False if there was none."""
        entry = self.channels.get(channel)
        if entry is None or conn not in entry.subscribers:
            return False
        entry.remove(conn)
        conn.channels.pop(channel, None)
        if not entry.subscribers:
            del self.channels[channel]
        return True

    def unsubscribe_all(self, conn: C) -> None:
        """Remove all subscriptions of a connection, which are all in this shard."""
        for channel in tuple(conn.channels):
            self.unsubscribe(conn, channel)

    def walk(self, channel: str, size: int, rotation: int) -> Iterable[Sequence[C]]:
        """The channel's current subscribers in batches, without those removed meanwhile."""
        entry = self.channels.get(channel)
        return () if entry is None else entry.walk(entry.snapshot(), size, rotation)

    def lock_stats(self) -> LockStats | None:
        """The stats of the shard's lock; None if it has none."""
        return None

    def lock_profile(self) -> LockProfile | None:
        """The profile of the shard's lock; None if it has none."""
        return None

    def stats(self, index: int) -> ShardStats:
        """The current state of the shard; `index` is its index in the strategy."""
        subscriptions = sum(len(entry.subscribers) for entry in self.channels.values())
        return ShardStats(index, len(self.members), len(self.channels), subscriptions, self.lock_stats())


class ShardStrategy(Strategy[C]):
    """The base of strategies that consist of one or more shards."""

    _shards: Sequence[Shard[C]]

    def connections(self) -> Iterator[Sequence[C]]:
        # All shards are copied before the first switch, so this needs no lock.
        for shard, members in [(shard, tuple(shard.members)) for shard in self._shards]:
            for start in range(0, len(members), self._batch_size):
                batch = members[start : start + self._batch_size]
                if present := [conn for conn in batch if conn in shard.members]:
                    yield present

    def shards(self) -> list[ShardStats]:
        return [shard.stats(index) for index, shard in enumerate(self._shards)]

    def locks(self) -> list[LockProfile | None]:
        return [shard.lock_profile() for shard in self._shards]
