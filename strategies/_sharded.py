"""The base of strategies that spread the registry over shards.

Subclasses decide how a key maps to a shard, and how an operation gets exclusive access to it.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Generic, Unpack

from strategies._shard import S, ShardStrategy
from strategies.base import C, Options
from strategies.hashing import fnv1a_64, octets

# Channels whose shard is cached. A miss costs one hash (1 to 2 µs).
_CACHED_CHANNELS = 4096

Locator = Callable[[str], int]


def by_fnv(shards: int) -> Locator:
    """Maps a key to shard FNV-1a-64(key) modulo the number of shards."""
    return lambda key: fnv1a_64(octets(key)) % shards


class ShardedStrategy(ShardStrategy[C, S], Generic[C, S]):
    """An operation never holds two shards at once.

    The membership is in the shard of the connection's id, its home. With the shard key "channel", a
    subscription is in the shard of its channel; with "connection" it is in the home, and a walk visits all
    shards one after another. There is no data beside the shards, as a global map would need a global lock.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self._shards = tuple(self._make_shard() for _ in range(self._shard_count))
        self._use(self._locator(self._shard_count))

    @abstractmethod
    def _make_shard(self) -> S:
        """An empty shard."""

    @abstractmethod
    def _locator(self, shards: int) -> Locator:
        """A pure function from a key to the index of its shard. Called once for each number of shards."""

    @abstractmethod
    def _exclusively(self, locate: Callable[[], S], operation: Callable[[S], bool]) -> bool:
        """Run an operation on the shard that `locate` returns, with exclusive access to that shard."""

    def _use(self, locate: Locator) -> None:
        self._locate = locate
        # Channels are few and located for each message; ids are many and located only on joining and leaving.
        self._locate_channel = lru_cache(maxsize=_CACHED_CHANNELS)(locate)

    def _home(self, conn: C) -> S:
        return self._shards[self._locate(conn.id)]

    def _shard_of(self, channel: str) -> S:
        return self._shards[self._locate_channel(channel)]

    def _shard_for(self, conn: C, channel: str) -> S:
        return self._home(conn) if self._by_connection else self._shard_of(channel)

    def _shards_to_walk(self, channel: str, rotation: int) -> Sequence[S]:
        return self._rotated(rotation) if self._by_connection else (self._shard_of(channel),)

    def add(self, conn: C) -> bool:
        return self._exclusively(lambda: self._home(conn), lambda home: home.add(conn))

    def discard(self, conn: C) -> bool:
        def leave(home: S) -> bool:
            removed = home.remove(conn)
            if self._by_connection:
                home.unsubscribe_all(conn)
            return removed

        removed = self._exclusively(lambda: self._home(conn), leave)
        # From here on no subscribe can succeed, so the set only shrinks.
        for channel in tuple(conn.channels):
            self.unsubscribe(conn, channel)
        return removed

    def subscribe(self, conn: C, channel: str) -> bool:
        def join(shard: S) -> bool:
            # Checked here because the connection may have been discarded while this greenlet waited. Reading
            # another shard's members without its lock is safe, as nothing switches during the lookup.
            home = shard if self._by_connection else self._home(conn)
            return conn in home.members.conns and shard.subscribe(conn, channel)

        return self._exclusively(lambda: self._shard_for(conn, channel), join)

    def unsubscribe(self, conn: C, channel: str) -> bool:
        return self._exclusively(
            lambda: self._shard_for(conn, channel), lambda shard: shard.unsubscribe(conn, channel)
        )
