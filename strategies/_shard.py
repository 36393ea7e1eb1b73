"""What a partition stores, and how it is read. Nothing here takes a lock or switches greenlets."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic

from strategies.base import C, ShardStats, Strategy
from strategies.locks import LockProfile, LockStats


class Channel(Generic[C]):
    """The subscribers of one channel in one shard. Never empty while the shard knows it."""

    __slots__ = ("_snapshot", "name", "subscribers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[C, None] = {}
        self._snapshot: tuple[C, ...] | None = None

    def add(self, conn: C) -> None:
        """Subscribe a connection that is not subscribed. O(1): the next reader builds the snapshot again."""
        self.subscribers[conn] = None
        self._snapshot = None

    def remove(self, conn: C) -> None:
        """Remove a subscribed connection. O(1), as `add`."""
        del self.subscribers[conn]
        self._snapshot = None

    def snapshot(self) -> tuple[C, ...]:
        """The subscribers now, oldest subscription first. At most one build per walk, however many joined."""
        if self._snapshot is None:
            self._snapshot = tuple(self.subscribers)
        return self._snapshot

    def walk(self, snapshot: tuple[C, ...], size: int, rotation: int = 0) -> Iterator[Sequence[C]]:
        """Yield a snapshot of this channel in batches of at most `size`, without those who left since.

        The batch to begin with moves on by one with each `rotation`, so that nobody is always last.
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
    """Members and subscriptions of one partition. To write, hold the shard's lock, if it has one."""

    __slots__ = ("channels", "members")

    def __init__(self) -> None:
        self.members: dict[C, None] = {}
        self.channels: dict[str, Channel[C]] = {}

    def add(self, conn: C) -> bool:
        """Make a connection a member; False if it is one, or still has subscriptions."""
        if conn in self.members or conn.channels:
            return False
        self.members[conn] = None
        return True

    def remove(self, conn: C) -> bool:
        """End a membership; False if there was none. Subscriptions stay."""
        if conn not in self.members:
            return False
        del self.members[conn]
        return True

    def subscribe(self, conn: C, channel: str) -> bool:
        """Add a subscription; False if it is there. Membership is the caller's business."""
        entry = self.channels.get(channel)
        if entry is None:
            entry = self.channels[channel] = Channel(channel)
        elif conn in entry.subscribers:
            return False
        entry.add(conn)
        # The channel's own string: otherwise a parsed copy would stay for each client and subscription.
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
        """The batches of a channel's subscribers: those of this moment, without those who leave meanwhile."""
        entry = self.channels.get(channel)
        return () if entry is None else entry.walk(entry.snapshot(), size, rotation)

    def lock_stats(self) -> LockStats | None:
        """The figures of the shard's lock; None if it has none."""
        return None

    def lock_profile(self) -> LockProfile | None:
        """All that is known of the shard's lock; None if it has none."""
        return None

    def stats(self, index: int) -> ShardStats:
        """The shard now, under the index that its strategy knows it by."""
        subscriptions = sum(len(entry.subscribers) for entry in self.channels.values())
        return ShardStats(index, len(self.members), len(self.channels), subscriptions, self.lock_stats())


class ShardStrategy(Strategy[C]):
    """A strategy whose state is a row of shards; one shard is a row too."""

    _shards: Sequence[Shard[C]]

    def connections(self) -> Iterator[Sequence[C]]:
        # All shards are copied before the first switch: one instant, so no lock is needed.
        for shard, members in [(shard, tuple(shard.members)) for shard in self._shards]:
            for start in range(0, len(members), self._batch_size):
                batch = members[start : start + self._batch_size]
                if present := [conn for conn in batch if conn in shard.members]:
                    yield present

    def shards(self) -> list[ShardStats]:
        return [shard.stats(index) for index, shard in enumerate(self._shards)]

    def locks(self) -> list[LockProfile | None]:
        return [shard.lock_profile() for shard in self._shards]
