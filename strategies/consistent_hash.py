"""`consistent-hash`: one lock per shard, the shard found on a ring with virtual nodes."""

from collections.abc import Callable

from strategies._locked import LockedStrategy
from strategies.base import C
from strategies.hashing import Ring


class ConsistentHash(LockedStrategy[C]):
    """A key belongs to the shard of the first ring point behind it.

    Shares differ more than by FNV (about 8 % standard deviation), but one shard more moves only its own share
    of keys.
    """

    name = "consistent-hash"

    def _locator(self) -> Callable[[str], int]:
        return Ring.of(self._shard_count).locate
