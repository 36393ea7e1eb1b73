"""The subscription registry of one worker: its interface, and its guarantees, written here once.

A strategy stores, partitions and locks. It does not send, log or count messages. It serves the greenlets of
one OS thread: what it does between two waits for a lock is atomic because nothing there switches. It does not
serve several threads.

Guarantees
    A walk is one `batches()` iterator. It starts with the first `next()` and ends exhausted or closed.

    - A connection subscribed before the walk started and not removed meanwhile appears in it exactly once.
    - No connection appears in one walk twice, whatever happens meanwhile.
    - A connection whose `unsubscribe` or `discard` has returned is in no later batch of a walk under way.
    - Whether a connection that subscribes during a walk appears in it is not promised.
    - Closing a walk early (`close()`) frees every lock it holds. Hold it in `contextlib.closing`: the
      traceback of a killed greenlet keeps an iterator that is merely dropped, and its lock, alive.
    - A channel without subscribers leaves nothing behind. An unknown channel is not an error.

What the caller owes
    The walking greenlet may switch between batches. It must not call `add`, `discard`, `subscribe` or
    `unsubscribe`, nor start another walk, before its walk has ended, nor wait for a greenlet that does: in an
    arm with locks it would wait for itself. So whoever finds a dead connection in a batch discards it after
    the walk, or in another greenlet. `connections()` and `shards()` take no lock; use them at any time.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, Self, TypedDict, TypeVar

from strategies.locks import LockProfile, LockStats

SHARD_KEYS = ("channel", "connection")


class Subscriber(Protocol):
    """A connection, as far as a strategy knows it. Hashed and compared by identity."""

    id: str
    """Unique among the members of a worker, and constant. It decides the shard of the membership."""
    channels: dict[str, None]
    """Its subscriptions. Created empty by the owner, written only by the strategy.

    A dict, because a set of five takes 728 bytes in CPython, and a dict of five 184 (`sys.getsizeof`).
    """


C = TypeVar("C", bound=Subscriber)


@dataclass(frozen=True, slots=True)
class ShardStats:
    """One shard at one instant."""

    index: int
    connections: int
    """Members whose id belongs to this shard."""
    channels: int
    """Channels with subscribers here. With shard key "connection" one channel counts in several shards."""
    subscriptions: int
    lock: LockStats | None
    """None where the strategy takes no lock."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What one step of a resize did."""

    channels: int = 0
    """Channels that have another shard now; with shard key "connection" they have none of their own."""
    connections: int = 0
    """Connections whose membership has another shard now."""
    seen_channels: int = 0
    """Channels that were looked at, those that moved included."""
    seen_connections: int = 0

    def __add__(self, more: Self) -> Self:
        return type(self)(
            self.channels + more.channels,
            self.connections + more.connections,
            self.seen_channels + more.seen_channels,
            self.seen_connections + more.seen_connections,
        )


class CannotResize(TypeError):  # noqa: N818 -- as UnknownStrategy
    """This strategy has no live resize.

    Attributes:
        name: of the strategy.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} can't be resized while it runs; consistent-hash can, others take their shards at start"
        )
        self.name = name


class Options(TypedDict, total=False):
    """The keyword arguments of every strategy. Those that mean nothing to one are checked and ignored."""

    shards: int
    shard_key: str
    batch_size: int


class Strategy(ABC, Generic[C]):
    """A subscription registry. Booleans mean "really changed". The head of this module has the promises."""

    name: ClassVar[str]
    """What it is called in settings, metrics and reports."""
    can_resize: ClassVar[bool] = False
    """Whether `resize` is more than a refusal."""

    def __init__(self, *, shards: int = 16, shard_key: str = "channel", batch_size: int = 256) -> None:
        """Make an empty registry.

        Args:
            shards: number of partitions, at least 1.
            shard_key: what is hashed to find the shard of a subscription, one of `SHARD_KEYS`.
            batch_size: longest batch, in connections, at least 1.

        Raises:
            ValueError: an argument is out of these bounds.
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
        """The number of shards that was asked for last, by the constructor or by `resize`."""
        return self._shard_count

    @abstractmethod
    def add(self, conn: C) -> bool:
        """Make a connection a member. One that was discarded may be added again once that call has returned.

        Returns:
            False if it is one already, or still has subscriptions because a `discard` of it has not ended.
        """

    @abstractmethod
    def discard(self, conn: C) -> bool:
        """End a connection's membership and all its subscriptions, in time proportional to their number.

        It goes by identity: a late or second call cannot touch a successor with the same id. Where it waits
        for locks, membership ends first. If its greenlet is killed while it waits, a second call removes what
        is left.

        Returns:
            False if the connection was not a member. Even then it has no subscriptions when the call returns.
        """

    @abstractmethod
    def subscribe(self, conn: C, channel: str) -> bool:
        """Subscribe a connection to a channel.

        Returns:
            False if it is subscribed already, or is not a member, or was discarded while this call waited for
            a lock.
        """

    @abstractmethod
    def unsubscribe(self, conn: C, channel: str) -> bool:
        """End one subscription.

        Returns:
            False if there was none.
        """

    @abstractmethod
    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[C], None, None]:
        """Walk the subscribers of a channel in batches, never empty and never longer than `batch_size`.

        Args:
            rotation: which batch comes first, 0 or more, counted round and round: who adds one with each walk
                serves nobody last each time.

        A generator. It may hold a lock as long as it lives, and may wait for one in any `next()`.
        """

    def has_subscribers(self, channel: str) -> bool:
        """Whether a walk of this channel would find anybody. May wait for a lock, as the walk would."""
        with closing(self.batches(channel)) as batches:
            return next(batches, None) is not None

    @abstractmethod
    def connections(self) -> Iterator[Sequence[C]]:
        """Walk all members, in batches as in `batches()`, for drains and announcements. Holds no lock.

        Each connection that is a member at the first `next()` and is not discarded meanwhile appears exactly
        once. None appears in a batch after its membership has ended.
        """

    @abstractmethod
    def shards(self) -> list[ShardStats]:
        """The state of each shard, by index, all of one instant. Takes no lock and does not switch.

        Takes time proportional to the number of channels.
        """

    def resize(self, shards: int) -> Generator[Moves, None, None]:
        """Change the number of shards while the registry is in use; all promises hold meanwhile.

        A generator: each `next()` is a step, of about a quarter of a millisecond, that does not switch; its
        end is the end of the resize. The caller lets others run between the steps. While a walk is open,
        also one of `connections()`, a step does nothing: so close walks, and take steps between them.

        Given up half-way, the registry works on, and the next resize first finishes what is left. Of two at
        a time each helps the other; the one that began last has its way.

        Args:
            shards: how many there are to be, at least 1.

        Raises:
            CannotResize: at once, if this strategy can't.
            ValueError: at once, if the number is out of bounds.
        """
        raise CannotResize(self.name)

    def locks(self) -> list[LockProfile | None]:
        """All that is known of the lock of each shard, by index; None where there is none. Takes no lock."""
        return []
