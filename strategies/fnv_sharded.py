"""`fnv-sharded`: one lock per shard; keys map to shards by FNV-1a."""

from strategies._locked import LockedStrategy
from strategies._sharded import Locator, by_fnv
from strategies.base import C


class FnvSharded(LockedStrategy[C]):
    """A key belongs to shard FNV-1a-64(key) modulo the number of shards.

    Cheap, and balanced for realistic ids: 10,000 random or sequential ids over 16 shards stay within 7 % of
    the mean. But few channels use few shards: 10 of them over 16 shards use 7.6 on average. And another
    number of shards moves nearly every key.
    """

    name = "fnv-sharded"

    def _locator(self, shards: int) -> Locator:
        return by_fnv(shards)
