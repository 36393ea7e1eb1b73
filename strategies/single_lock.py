"""`single-lock`, the baseline: one shard, whose lock is held for the whole walk, switches included."""

from typing import Unpack

from strategies._locked import LockedStrategy
from strategies._sharded import Locator
from strategies.base import C, Options


class SingleLock(LockedStrategy[C]):
    """One shard with a lock, whatever `shards` and `shard_key` are.

    Joining, leaving and subscribing wait until the fan-out has ended. The other strategies are compared with
    that.
    """

    name = "single-lock"

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self._shards = self._shards[:1]
        # With this, a discard takes the lock only once.
        self._by_connection = True

    def _locator(self, shards: int) -> Locator:
        return lambda _key: 0
