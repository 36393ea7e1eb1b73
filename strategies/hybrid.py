"""`hybrid`: one lock per shard, held only until the snapshot is taken that is then walked."""

from collections.abc import Generator, Sequence

from strategies._locked import LockedStrategy
from strategies._sharded import Locator, by_fnv
from strategies.base import C


class Hybrid(LockedStrategy[C]):
    """Shards as `fnv-sharded`; a walk takes a shard's lock for a moment and keeps nobody waiting.

    Whoever leaves during a walk is looked up and left out, as in `sync-dict`. Since no holder of a lock ever
    switches, greenlets never wait for one: what the locks cost is all that is left of them.
    """

    name = "hybrid"

    def _locator(self, shards: int) -> Locator:
        return by_fnv(shards)

    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[C], None, None]:
        for shard in self._shards_to_walk(channel, rotation):
            with shard.lock:
                batches = shard.walk(channel, self._batch_size, rotation)
            yield from batches
