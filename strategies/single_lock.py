"""`single-lock`, the control arm: one partition, its lock held for the whole of a walk, switches included."""

from typing import Unpack

from strategies._locked import LockedStrategy
from strategies._sharded import Locator
from strategies.base import C, Options


class SingleLock(LockedStrategy[C]):
    """The locked registry with one shard, whatever `shards` and `shard_key` say.

    Whoever joins, leaves or subscribes during a fan-out waits for its end. That is what the other arms are
    measured against.
    """

    name = "single-lock"

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self._shards = self._shards[:1]
        # All that a connection has is in the one shard, so a discard takes the lock once.
        self._by_connection = True

    def _locator(self, shards: int) -> Locator:
        return lambda _key: 0
