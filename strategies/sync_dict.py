"""`sync-dict`: no partitions and no lock. A walk reads an immutable snapshot; a write invalidates it."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Unpack

from strategies._shard import Shard, ShardStrategy
from strategies.base import C, Options


class SyncDict(ShardStrategy[C, Shard[C]]):
    """One shard without a lock, whatever `shards` and `shard_key` are. No operation ever waits.

    Each of many joins costs O(1), and each walk rebuilds the snapshot at most once: 8 bytes and a few ns per
    subscriber. If the channel changes during a walk, each remaining subscriber costs one more lookup.
    """

    name = "sync-dict"

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self._shard = Shard[C]()
        self._shards = (self._shard,)

    def add(self, conn: C) -> bool:
        return self._shard.add(conn)

    def discard(self, conn: C) -> bool:
        self._shard.unsubscribe_all(conn)
        return self._shard.remove(conn)

    def subscribe(self, conn: C, channel: str) -> bool:
        return conn in self._shard.members.conns and self._shard.subscribe(conn, channel)

    def unsubscribe(self, conn: C, channel: str) -> bool:
        return self._shard.unsubscribe(conn, channel)

    def _walk(
        self, shards: Sequence[Shard[C]], start: Callable[[Shard[C]], Iterable[Sequence[C]]]
    ) -> Generator[Sequence[C], None, None]:
        for shard in shards:
            yield from start(shard)
