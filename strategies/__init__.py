"""Subscription registries to choose among by name. `strategies.base` says what each of them promises."""

from importlib import import_module
from typing import Any, Unpack, cast

from strategies.base import SHARD_KEYS, CannotResize, Moves, Options, ShardStats, Strategy, Subscriber
from strategies.locks import BOUNDS_SECONDS, LockProfile, LockStats

__all__ = [
    "BOUNDS_SECONDS",
    "NAMES",
    "SHARD_KEYS",
    "CannotResize",
    "LockProfile",
    "LockStats",
    "Moves",
    "Options",
    "ShardStats",
    "Strategy",
    "Subscriber",
    "UnknownStrategy",
    "create",
]


class UnknownStrategy(ValueError):  # noqa: N818 -- the name says it; an ending would add nothing
    """No strategy has this name.

    Attributes:
        name: the name that was asked for.
        known: the names there are.
    """

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown strategy {name!r}, known are: {', '.join(known)}")
        self.name = name
        self.known = known


def create(name: str, **options: Unpack[Options]) -> Strategy[Any]:
    """Make an empty registry; its module is imported only now.

    Args:
        name: one of `NAMES`.
        options: `shards` (16), `shard_key` ("channel") and `batch_size` (256), see `Strategy`. A strategy
            without partitions takes them all the same, so that the caller need not know which it is.

    Raises:
        UnknownStrategy: there is no strategy of this name.
        ValueError: an option is out of bounds.
    """
    try:
        place = _PLACES[name]
    except KeyError:
        raise UnknownStrategy(name, NAMES) from None
    module, _, attribute = place.partition(":")
    made = cast("type[Strategy[Any]]", getattr(import_module(module), attribute))
    return made(**options)


_PLACES = {
    "single-lock": "strategies.single_lock:SingleLock",
    "fnv-sharded": "strategies.fnv_sharded:FnvSharded",
    "consistent-hash": "strategies.consistent_hash:ConsistentHash",
    "sync-dict": "strategies.sync_dict:SyncDict",
    "hybrid": "strategies.hybrid:Hybrid",
    "actor": "strategies.actor:Actor",
}

NAMES = tuple(_PLACES)
