"""The base of strategies with one lock per shard, held while the shard is walked."""

from collections.abc import Callable, Generator, Iterable, Sequence

from strategies._shard import Shard
from strategies._sharded import ShardedStrategy
from strategies.base import C
from strategies.locks import InstrumentedLock, LockProfile, LockStats


class LockedShard(Shard[C]):
    """A shard and its lock."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        super().__init__()
        self.lock = InstrumentedLock()

    def lock_stats(self) -> LockStats:
        return self.lock.stats()

    def lock_profile(self) -> LockProfile:
        return self.lock.profile()


class LockedStrategy(ShardedStrategy[C, LockedShard[C]]):
    """One lock per shard, and never two at once."""

    def _make_shard(self) -> LockedShard[C]:
        return LockedShard()

    def _exclusively(
        self, locate: Callable[[], LockedShard[C]], operation: Callable[[LockedShard[C]], bool]
    ) -> bool:
        shard = locate()
        with shard.lock:
            return operation(shard)

    def _walk(
        self, shards: Sequence[LockedShard[C]], start: Callable[[LockedShard[C]], Iterable[Sequence[C]]]
    ) -> Generator[Sequence[C], None, None]:
        for shard in shards:
            with shard.lock:
                yield from start(shard)
