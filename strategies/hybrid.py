"""`hybrid`: one lock per shard, held only while a walk takes its snapshot."""

from collections.abc import Callable, Generator, Iterable, Sequence

from strategies._locked import LockedShard, LockedStrategy
from strategies._sharded import Locator, by_fnv
from strategies.base import C


class Hybrid(LockedStrategy[C]):
    """Sharded as `fnv-sharded`; a walk holds a shard's lock only briefly.

    Connections that leave during a walk are looked up and left out, as in `sync-dict`. As no holder of a lock
    ever switches, greenlets never wait for one: only the overhead of the locks remains.
    """

    name = "hybrid"

    def _locator(self, shards: int) -> Locator:
        return by_fnv(shards)

    def _walk(
        self, shards: Sequence[LockedShard[C]], start: Callable[[LockedShard[C]], Iterable[Sequence[C]]]
    ) -> Generator[Sequence[C], None, None]:
        for shard in shards:
            with shard.lock:
                batches = start(shard)
            yield from batches
