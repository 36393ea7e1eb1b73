"""The data of one shard. Nothing here takes a lock or switches greenlets."""

import sys
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar, Unpack
from weakref import WeakValueDictionary

from strategies.base import C, Options, ShardStats, Strategy, Subscriber
from strategies.locks import LockProfile, LockStats

_MAX_SHARED_CHANNELS = 32  # larger sets are rarely equal, and their key costs memory
_CHANNELS_PER_SUBSCRIPTION = 10  # that a walk of everyone may look up for each that is there
_LARGE_BYTES = 64 << 10  # of a dict that is worth to be made anew
_MOSTLY_EMPTY_BYTES = 256  # for each key: some ten times what a dict takes that is full
_MAX_SHARED_SETS = 1024  # 252 are all choices of 5 of 10 channels


class Channels(dict[str, None]):
    """The channels of a connection, and of others that have the same. Never changes; hashed by identity."""

    __slots__ = ("__weakref__",)
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __setitem__(self, *_: object) -> None:
        raise TypeError("shared by several connections: replace it by a copy")

    __delitem__ = __setitem__

    def pop(self, *_: Any) -> Any:
        """Refuse, as `__setitem__`."""
        self[""] = None


class ChannelSets:
    """Gives connections with the same channels the same object, by which a pass knows what they are due."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakValueDictionary[frozenset[str], Channels] = WeakValueDictionary()

    def share(self, conns: Iterable[Subscriber]) -> None:
        """Replace the channels of each connection, unless that is done and they have not changed since."""
        for conn in conns:
            if type(conn.channels) is dict:
                conn.channels = self._shared(conn.channels)

    def _shared(self, channels: dict[str, None]) -> Channels:
        if len(channels) > _MAX_SHARED_CHANNELS:
            return Channels(channels)
        key = frozenset(channels)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MAX_SHARED_SETS:
                self._known.clear()  # they stay with their connections, and newcomers share others
            found = self._known[key] = Channels(channels)
        return found


def _own(conn: Subscriber) -> dict[str, None]:
    """The channels of a connection, to be changed."""
    if type(conn.channels) is not dict:
        conn.channels = dict(conn.channels)
    return conn.channels


class Roster(Generic[C]):
    """Connections in the order in which they came, and a snapshot of them for walks."""

    __slots__ = ("_snapshot", "conns")

    def __init__(self) -> None:
        self.conns: dict[C, None] = {}
        self._snapshot: tuple[C, ...] | None = None

    def add(self, conn: C) -> None:
        """Add a connection that is not there. O(1): the next walk rebuilds the snapshot."""
        self.conns[conn] = None
        self._snapshot = None

    def remove(self, conn: C) -> None:
        """Remove a connection that is there. O(1), as `add`."""
        del self.conns[conn]
        self._snapshot = None

    def snapshot(self) -> tuple[C, ...]:
        """The current connections, the oldest entry first. Built at most once per walk."""
        if self._snapshot is None:
            self._snapshot = tuple(self.conns)
        return self._snapshot

    def walk(self, snapshot: tuple[C, ...], size: int, rotation: int = 0) -> Iterator[Sequence[C]]:
        """Yield a snapshot of this roster in batches of at most `size`, without those removed since.

        The walk begins with batch number `rotation`, modulo their number, so that nobody is always last.
        """
        count = -(-len(snapshot) // size)
        for index in range(rotation, rotation + count):
            start = index % count * size
            batch = snapshot[start : start + size]
            if self._snapshot is not snapshot:
                batch = tuple([conn for conn in batch if conn in self.conns])
            if batch:
                yield batch


class Channel(Roster[C]):
    """The subscribers of one channel in one shard. Never empty while it is in the shard."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Shard(Generic[C]):
    """The members and subscriptions of one shard. To write, hold the shard's lock, if it has one.

    A channel with one subscriber is that subscriber itself: it takes half the memory of a `Channel`, and a
    client that subscribes to thousands of channels of its own is alone in each.

    Attributes:
        subscriptions: how many there are.
    """

    __slots__ = ("channels", "members", "subscriptions")

    def __init__(self) -> None:
        self.members = Roster[C]()
        self.channels: dict[str, Channel[C] | C] = {}
        self.subscriptions = 0

    def add(self, conn: C) -> bool:
        """Make a connection a member; False if it is one already, or still has subscriptions."""
        if conn in self.members.conns or conn.channels:
            return False
        self.members.add(conn)
        return True

    def remove(self, conn: C) -> bool:
        """End a membership; False if there was none. Subscriptions remain."""
        if conn not in self.members.conns:
            return False
        self.members.remove(conn)
        return True

    def subscribe(self, conn: C, channel: str) -> bool:
        """Add a subscription; False if it exists. The caller has checked the membership."""
        entry = self.channels.get(channel)
        if entry is None:
            self.channels[channel] = conn
        elif not isinstance(entry, Channel):
            if entry is conn:
                return False
            found = self.channels[channel] = Channel(channel)
            found.add(entry)
            found.add(conn)
        elif conn in entry.conns:
            return False
        else:
            entry.add(conn)
            channel = entry.name  # rather than the parsed copy, so that subscriptions share the string
        _own(conn)[channel] = None
        self.subscriptions += 1
        return True

    def unsubscribe(self, conn: C, channel: str) -> bool:
        """Remove a subscription, and the channel with its last one; False if there was none."""
        entry = self.channels.get(channel)
        if not isinstance(entry, Channel):
            if entry is not conn:
                return False
            self._drop(channel)
        elif conn not in entry.conns:
            return False
        else:
            entry.remove(conn)
            if not entry.conns:
                self._drop(channel)
        _own(conn).pop(channel, None)
        self.subscriptions -= 1
        return True

    def _drop(self, channel: str) -> None:
        """Remove a channel. A dict never shrinks by that, so one that is mostly empty is made anew."""
        del self.channels[channel]
        size = sys.getsizeof(self.channels)
        if size > _LARGE_BYTES and size > _MOSTLY_EMPTY_BYTES * len(self.channels):
            self.channels = dict(self.channels)

    def unsubscribe_all(self, conn: C) -> None:
        """Remove all subscriptions of a connection, which are all in this shard."""
        for channel in tuple(conn.channels):
            self.unsubscribe(conn, channel)

    def count(self, channel: str) -> int:
        """How many subscribers a channel has."""
        entry = self.channels.get(channel)
        return len(entry.conns) if isinstance(entry, Channel) else int(entry is not None)

    def take(self, channel: str, other: Self) -> None:
        """Move a channel with its subscribers here from another shard."""
        count = other.count(channel)
        self.channels[channel] = other.channels.pop(channel)
        self.subscriptions += count
        other.subscriptions -= count

    def walk(self, channel: str, size: int, rotation: int) -> Iterable[Sequence[C]]:
        """The channel's current subscribers in batches, without those removed meanwhile."""
        entry = self.channels.get(channel)
        if entry is None:
            return ()
        if isinstance(entry, Channel):
            return entry.walk(entry.snapshot(), size, rotation)
        return _alone(channel, entry)

    def everyone(self, sets: ChannelSets, size: int, rotation: int) -> Iterable[Sequence[C]]:
        """The current members in batches, without those removed meanwhile. Their channels are shared."""
        return self._sharing(sets, self.members.walk(self.members.snapshot(), size, rotation))

    @staticmethod
    def _sharing(sets: ChannelSets, batches: Iterable[Sequence[C]]) -> Iterator[Sequence[C]]:
        for batch in batches:
            sets.share(batch)
            yield batch

    def lock_stats(self) -> LockStats | None:
        """The stats of the shard's lock; None if it has none."""
        return None

    def lock_profile(self) -> LockProfile | None:
        """The profile of the shard's lock; None if it has none."""
        return None

    def stats(self, index: int) -> ShardStats:
        """The current state of the shard; `index` is its index in the strategy."""
        return ShardStats(
            index, len(self.members.conns), len(self.channels), self.subscriptions, self.lock_stats()
        )


def _alone(channel: str, conn: C) -> Iterator[Sequence[C]]:
    """The one subscriber of a channel, unless that has ended meanwhile."""
    if channel in conn.channels:
        yield (conn,)


S = TypeVar("S", bound=Shard[Any])


class ShardStrategy(Strategy[C], Generic[C, S]):
    """The base of strategies that consist of one or more shards."""

    _shards: Sequence[S]

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self._sets = ChannelSets()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "batches" in cls.__dict__ and "everyone" not in cls.__dict__:
            cls.everyone = Strategy.everyone  # type: ignore[method-assign]  # it must not pass by these batches

    def _shards_to_walk(self, channel: str, rotation: int) -> Sequence[S]:
        """The shards that a walk of a channel visits, in order."""
        return self._rotated(rotation)

    def _rotated(self, rotation: int) -> Sequence[S]:
        first = rotation % len(self._shards)
        return (*self._shards[first:], *self._shards[:first])

    @abstractmethod
    def _walk(
        self, shards: Sequence[S], start: Callable[[S], Iterable[Sequence[C]]]
    ) -> Generator[Sequence[C], None, None]:
        """Walk shards one after another, each as `start` does, with the locks that this takes."""

    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[C], None, None]:
        yield from self._walk(
            self._shards_to_walk(channel, rotation),
            lambda shard: shard.walk(channel, self._batch_size, rotation),
        )

    def everyone(
        self, channels: Collection[str], rotation: int = 0
    ) -> Generator[Sequence[C], None, None] | None:
        members = sum([len(shard.members.conns) for shard in self._shards])
        least = members * max(1, len(channels) // _CHANNELS_PER_SUBSCRIPTION)
        found = 0
        for channel in channels:
            for shard in self._shards_to_walk(channel, 0):
                found += shard.count(channel)
            if found >= least:
                return self._walk_everyone(rotation)
        return None

    def _walk_everyone(self, rotation: int) -> Generator[Sequence[C], None, None]:
        yield from self._walk(
            self._rotated(rotation), lambda shard: shard.everyone(self._sets, self._batch_size, rotation)
        )

    def connections(self) -> Iterator[Sequence[C]]:
        # The snapshots of all shards are taken before the first switch, so this needs no lock.
        for members, snapshot in [(shard.members, shard.members.snapshot()) for shard in self._shards]:
            yield from members.walk(snapshot, self._batch_size)

    def shards(self) -> list[ShardStats]:
        return [shard.stats(index) for index, shard in enumerate(self._shards)]

    def locks(self) -> list[LockProfile | None]:
        return [shard.lock_profile() for shard in self._shards]
