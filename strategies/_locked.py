"""The arms that hold a shard's lock while it is walked; they differ only in how a key finds its shard."""

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import Unpack

from strategies._shard import Shard, ShardStrategy
from strategies.base import C, Options
from strategies.locks import InstrumentedLock, LockStats

# Channels whose shard is remembered. A miss costs one hash (1 to 2 µs).
_CACHED_CHANNELS = 4096


class LockedShard(Shard[C]):
    """A shard and its lock."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        super().__init__()
        self.lock = InstrumentedLock()

    def lock_stats(self) -> LockStats:
        return self.lock.stats()


class LockedStrategy(ShardStrategy[C]):
    """One lock per shard, and never two at once.

    Membership lives in the shard of the connection's id, its home. With shard key "channel" a subscription
    lives in the shard of its channel; with "connection" in the home, and a walk visits all shards one after
    another. There is nothing beside the shards: a map of everything would be one lock again.
    """

    _shards: Sequence[LockedShard[C]]

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self._shards = tuple(LockedShard[C]() for _ in range(self._shard_count))
        self._locate = self._locator()
        # Channels are few and asked for on each message; ids are many and asked for on joining and leaving.
        self._locate_channel = lru_cache(maxsize=_CACHED_CHANNELS)(self._locate)

    @abstractmethod
    def _locator(self) -> Callable[[str], int]:
        """A pure function from a key to the index of its shard. Asked for once, in the constructor."""

    def _home(self, conn: C) -> LockedShard[C]:
        return self._shards[self._locate(conn.id)]

    def _shard_of(self, channel: str) -> LockedShard[C]:
        return self._shards[self._locate_channel(channel)]

    def add(self, conn: C) -> bool:
        home = self._home(conn)
        with home.lock:
            return home.add(conn)

    def discard(self, conn: C) -> bool:
        home = self._home(conn)
        with home.lock:
            removed = home.remove(conn)
            if self._by_connection:
                home.unsubscribe_all(conn)
        # From here on no subscribe can succeed, so the set only shrinks.
        for channel in tuple(conn.channels):
            self.unsubscribe(conn, channel)
        return removed

    def subscribe(self, conn: C, channel: str) -> bool:
        home = self._home(conn)
        shard = home if self._by_connection else self._shard_of(channel)
        with shard.lock:
            # Looked up only now: the connection may have been discarded while this greenlet waited. Another
            # shard's members are read without its lock, which is enough for one lookup among greenlets.
            return conn in home.members and shard.subscribe(conn, channel)

    def unsubscribe(self, conn: C, channel: str) -> bool:
        shard = self._home(conn) if self._by_connection else self._shard_of(channel)
        with shard.lock:
            return shard.unsubscribe(conn, channel)

    def batches(self, channel: str, turn: int = 0) -> Generator[Sequence[C], None, None]:
        shards = self._shards if self._by_connection else (self._shard_of(channel),)
        first = turn % len(shards)
        for shard in (*shards[first:], *shards[:first]):
            with shard.lock:
                entry = shard.channels.get(channel)
                if entry is not None:
                    yield from entry.walk(entry.snapshot(), self._batch_size, turn)
