"""Subscription registries by name. `strategies.base` has their interface and guarantees."""

import re
from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from typing import Any, Unpack, cast

from strategies.base import SHARD_KEYS, CannotResize, Moves, Options, ShardStats, Strategy, Subscriber
from strategies.locks import BOUNDS_SECONDS, LockProfile, LockStats

__all__ = [
    "BOUNDS_SECONDS",
    "GROUP",
    "MAX_NAME_BYTES",
    "NAMES",
    "SHARD_KEYS",
    "BrokenStrategy",
    "CannotResize",
    "LockProfile",
    "LockStats",
    "Moves",
    "Options",
    "ShardStats",
    "Strategy",
    "Subscriber",
    "UnknownStrategy",
    "check",
    "check_name",
    "create",
    "find",
    "names",
]


class UnknownStrategy(ValueError):  # noqa: N818 -- the name says it; an ending would add nothing
    """No strategy has this name.

    Attributes:
        name: the requested name.
        known: the names that exist.
    """

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"unknown strategy {name!r}, known are: {', '.join(known)}, and package.module:Class"
        )
        self.name = name
        self.known = known


class BrokenStrategy(ValueError):  # noqa: N818 -- as UnknownStrategy
    """A name does not refer to a usable strategy.

    Attributes:
        name: the requested name.
        problem: what is wrong, in one line.
    """

    def __init__(self, name: str, problem: str) -> None:
        problem = " ".join(problem.split())
        super().__init__(
            f"strategy {name!r} can't be used: {problem}; expected a subclass of strategies.Strategy, as "
            "package.module:Class or by an entry point of the group odinws.strategies"
        )
        self.name = name
        self.problem = problem


def names() -> tuple[str, ...]:
    """All names: built-in ones, and those of entry points, whose code is not imported."""
    return (*NAMES, *sorted({point.name for point in entry_points(group=GROUP)} - set(NAMES)))


def check_name(name: str) -> None:
    """Check the form of a name; nothing is imported.

    Raises:
        UnknownStrategy: it is not a known name, and does not have the form `package.module:Class`.
        BrokenStrategy: it is too long.
    """
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BrokenStrategy(name, f"the name is longer than {MAX_NAME_BYTES} bytes")
    if name not in NAMES and not _TARGET.fullmatch(name) and name not in names():
        raise UnknownStrategy(name, names())


def find(name: str) -> type[Strategy[Any]]:
    """Import the class that a name refers to.

    Raises:
        UnknownStrategy: no strategy has this name.
        BrokenStrategy: it can't be imported, is not a strategy, or has other signatures than a strategy.
    """
    check_name(name)
    target = _TARGETS.get(name, name)
    if ":" not in target:
        target = next(point.value for point in entry_points(group=GROUP) if point.name == name)
    module, _, attribute = target.partition(":")
    try:
        made = getattr(import_module(module.strip()), attribute.strip())
    except (Exception, SystemExit) as error:  # a script without a guard ends its process
        raise BrokenStrategy(name, f"{type(error).__name__}: {error}") from error
    problem = _problem(made)
    if problem:
        raise BrokenStrategy(name, problem)
    return cast("type[Strategy[Any]]", made)


def create(name: str, **options: Unpack[Options]) -> Strategy[Any]:
    """Create an empty registry.

    Args:
        name: one of `names()`, or `package.module:Class`.
        options: `shards` (16), `shard_key` ("channel") and `batch_size` (256), see `Strategy`. Strategies
            without partitions accept them too.

    Raises:
        UnknownStrategy: no strategy has this name.
        BrokenStrategy: the name does not refer to a usable strategy.
        ValueError: an option is out of bounds.
    """
    return find(name)(**options)


def check(name: str) -> None:
    """Check that a strategy can be imported and created; ours can. Foreign code runs: use a separate process.

    Raises:
        UnknownStrategy: no strategy has this name.
        BrokenStrategy: the name does not refer to a usable strategy.
    """
    if name in NAMES:
        return
    made = find(name)
    try:
        made(shards=16, shard_key="channel", batch_size=256)
    except (Exception, SystemExit) as error:
        raise BrokenStrategy(name, f"its constructor fails: {type(error).__name__}: {error}") from error


def _problem(made: object) -> str:
    """Why an object is not a strategy class; "" if it is one."""
    if not isinstance(made, type) or not issubclass(made, Strategy):
        return "it is no subclass of strategies.Strategy"
    if missing := sorted(made.__abstractmethods__):
        return f"it lacks {', '.join(missing)}"
    if not isinstance(getattr(made, "name", None), str):
        return "it has no name"
    calls: dict[str, tuple[object, ...]] = {
        **dict.fromkeys(("add", "discard"), (None, None)),
        **dict.fromkeys(("subscribe", "unsubscribe"), (None, None, "")),
        **dict.fromkeys(("connections", "shards", "locks"), (None,)),
        "has_subscribers": (None, ""),
        "batches": (None, "", 0),
        "everyone": (None, (), 0),
    }
    for method, arguments in calls.items():
        try:
            signature(getattr(made, method)).bind(*arguments)
        except (TypeError, ValueError) as error:
            return f"{method}: {error}"
    try:
        signature(made).bind(shards=16, shard_key="channel", batch_size=256)
    except (TypeError, ValueError) as error:
        return f"its constructor: {error}"
    return ""


GROUP = "odinws.strategies"
"""The entry-point group for further strategies."""
MAX_NAME_BYTES = 96
"""Bound of a name, as it is stored in shared memory, and is a label of metrics."""

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

_TARGETS = {
    "single-lock": "strategies.single_lock:SingleLock",
    "fnv-sharded": "strategies.fnv_sharded:FnvSharded",
    "consistent-hash": "strategies.consistent_hash:ConsistentHash",
    "sync-dict": "strategies.sync_dict:SyncDict",
    "hybrid": "strategies.hybrid:Hybrid",
    "actor": "strategies.actor:Actor",
}

NAMES = tuple(_TARGETS)
