"""The subscription registry of one worker: the interface of strategies, and their guarantees.

A strategy stores subscriptions, partitions them, and locks. It does not send, log or count messages. It is
for the greenlets of one OS thread: between two waits for a lock nothing switches, so what happens there is
atomic. It is not thread-safe.

Guarantees
    A walk is one `batches()` iterator. It starts with the first `next()`, and ends when it is exhausted or
    closed.

    - A connection that was subscribed before the walk started and is not removed meanwhile appears exactly
      once.
    - No connection appears twice in one walk, whatever happens meanwhile.
    - A connection whose `unsubscribe` or `discard` has returned is in no later batch of an open walk.
    - Whether a connection that subscribes during a walk appears in it is unspecified.
    - Closing a walk early (`close()`) releases every lock it holds. Use `contextlib.closing`: the traceback
      of a killed greenlet keeps an iterator that is merely dropped, and its lock, alive.
    - A channel without subscribers takes no memory. An unknown channel is not an error.
    - A wildcard, such as `token.*` or `orders.*.>`, is a channel like any other: what it stands for is the
      caller's business, who walks the channel and then each of its wildcards.

Obligations of the caller
    The walking greenlet may switch between batches. Before its walk has ended it must not call `add`,
    `discard`, `subscribe` or `unsubscribe`, nor start another walk, nor wait for a greenlet that does: with
    locks, that would be a deadlock. So discard a dead connection after the walk, or in another greenlet.
    `connections()` and `shards()` take no lock, and may be called at any time.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, Self, TypedDict, TypeVar

from strategies.locks import LockProfile, LockStats

SHARD_KEYS = ("channel", "connection")


class Subscriber(Protocol):
    """What a strategy needs of a connection. Hashed and compared by identity."""

    id: str
    """Unique among the members of a worker, and constant. Determines the shard of the membership."""
    channels: dict[str, None]
    """Its subscriptions. Created empty by the owner. Only the strategy changes it, or replaces it by another.

    A dict, because in CPython a set of five takes 728 bytes, and a dict of five 184 (`sys.getsizeof`).
    """


C = TypeVar("C", bound=Subscriber)


@dataclass(frozen=True, slots=True)
class ShardStats:
    """The state of one shard."""

    index: int
    connections: int
    """Members whose id maps to this shard."""
    channels: int
    """Channels with subscribers here. With shard key "connection", a channel counts in several shards."""
    subscriptions: int
    lock: LockStats | None
    """None if the strategy has no locks."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What one step of a resize did."""

    channels: int = 0
    """Channels that moved to another shard; with shard key "connection" always 0."""
    connections: int = 0
    """Connections whose membership moved to another shard."""
    seen_channels: int = 0
    """Channels that were checked, including those that moved."""
    seen_connections: int = 0
    """Connections that were checked, including those that moved."""

    def __add__(self, more: Self) -> Self:
        return type(self)(
            self.channels + more.channels,
            self.connections + more.connections,
            self.seen_channels + more.seen_channels,
            self.seen_connections + more.seen_connections,
        )


class CannotResize(TypeError):  # noqa: N818 -- as UnknownStrategy
    """This strategy can't be resized while it runs.

    Attributes:
        name: of the strategy.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} can't be resized while it runs; consistent-hash can, others take their shards at start"
        )
        self.name = name


class Options(TypedDict, total=False):
    """The keyword arguments of every strategy. Those that a strategy does not use are validated too."""

    shards: int
    shard_key: str
    batch_size: int


class Strategy(ABC, Generic[C]):
    """A subscription registry. A method that returns a bool tells whether it changed anything.

    The docstring of this module has the guarantees.
    """

    name: ClassVar[str]
    """The name in settings, metrics and reports."""
    can_resize: ClassVar[bool] = False
    """Whether `resize` is supported."""

    def __init__(self, *, shards: int = 16, shard_key: str = "channel", batch_size: int = 256) -> None:
        """Create an empty registry.

        Args:
            shards: number of partitions, at least 1.
            shard_key: what is hashed to find the shard of a subscription, one of `SHARD_KEYS`.
            batch_size: the maximum number of connections in a batch, at least 1.

        Raises:
            ValueError: an argument is out of bounds.
        """
        self._check_shards(shards)
        if shard_key not in SHARD_KEYS:
            raise ValueError(f"shard_key must be one of {', '.join(SHARD_KEYS)}, not {shard_key!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._shard_count = shards
        self._by_connection = shard_key == "connection"
        self._batch_size = batch_size

    @staticmethod
    def _check_shards(shards: int) -> None:
        if shards < 1:
            raise ValueError(f"shards must be at least 1, not {shards}")

    @property
    def shard_count(self) -> int:
        """The number of shards requested last, by the constructor or by `resize`."""
        return self._shard_count

    @abstractmethod
    def add(self, conn: C) -> bool:
        """Make a connection a member. It may be added again after `discard` has returned.

        Returns:
            False if it is a member already, or still has subscriptions because a `discard` has not returned.
        """

    @abstractmethod
    def discard(self, conn: C) -> bool:
        """End a connection's membership and all its subscriptions, in time proportional to their number.

        Connections are compared by identity: a late or repeated call does not affect another one with the
        same id. If it waits for locks, the membership ends first. If its greenlet is killed while waiting, a
        second call removes what is left.

        Returns:
            False if the connection was not a member. It has no subscriptions in any case when this returns.
        """

    @abstractmethod
    def subscribe(self, conn: C, channel: str) -> bool:
        """Subscribe a connection to a channel.

        Returns:
            False if it is subscribed already, is not a member, or was discarded while this waited for a lock.
        """

    @abstractmethod
    def unsubscribe(self, conn: C, channel: str) -> bool:
        """End one subscription.

        Returns:
            False if there was none.
        """

    @abstractmethod
    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[C], None, None]:
        """Walk the subscribers of a channel in batches of 1 to `batch_size` connections.

        Args:
            rotation: which batch comes first, at least 0, modulo their number. If it increases by one with
                each walk, nobody is always last.

        A generator. It may hold a lock until it ends, and may wait for one in any `next()`.
        """

    def everyone(
        self, channels: Collection[str], rotation: int = 0
    ) -> Generator[Sequence[C], None, None] | None:
        """Walk all members, if that is cheaper than to walk these channels one by one.

        A walk as `batches()`, of all these channels at once, in which members without any of them appear
        too. The caller reads from `conn.channels` what a connection is subscribed to at that moment. In a
        batch it is hashable, never changes (the strategy replaces it by another), and is mostly the same
        object for connections with the same channels. So what they are due can be looked up.

        Returns:
            None if it is not cheaper, or the strategy has no such walk: then walk each channel.
        """
        return None

    def has_subscribers(self, channel: str) -> bool:
        """Whether a channel has subscribers. May wait for a lock, as a walk may."""
        with closing(self.batches(channel)) as batches:
            return next(batches, None) is not None

    @abstractmethod
    def connections(self) -> Iterator[Sequence[C]]:
        """Walk all members, in batches as in `batches()`, for drains and announcements. Takes no lock.

        Each connection that is a member at the first `next()` and is not discarded meanwhile appears exactly
        once. None appears after its membership has ended.
        """

    @abstractmethod
    def shards(self) -> list[ShardStats]:
        """The state of each shard, by index: a consistent snapshot. Takes no lock and does not switch.

        Called once a second: what it tells is counted, not walked.
        """

    def resize(self, shards: int) -> Generator[Moves, None, None]:
        """Change the number of shards while the registry is in use; all guarantees hold meanwhile.

        A generator: each `next()` is a step of about 0.25 ms that does not switch, and the resize is
        complete when it is exhausted. The caller lets others run between steps. A step does nothing while a
        walk is open, including one of `connections()`: so take steps between walks.

        An unfinished resize leaves the registry usable, and the next resize completes it first. Two resizes
        at the same time help each other, and the one that was started last determines the number.

        Args:
            shards: the new number, at least 1.

        Raises:
            CannotResize: immediately, if this strategy does not support it.
            ValueError: immediately, if the number is out of bounds.
        """
        raise CannotResize(self.name)

    def locks(self) -> list[LockProfile | None]:
        """The lock profile of each shard, by index; None for a shard without a lock. Takes no lock."""
        return []
