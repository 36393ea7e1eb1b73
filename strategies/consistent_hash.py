"""`consistent-hash`: one lock per shard; keys map to shards by a hash ring with virtual nodes; live resize.

How a resize keeps the guarantees
    - Keys (channels or connections) move only while no walk is open, in steps that do not switch. So no walk
      sees a move.
    - During a resize, a key that its former shard still has is there; every other key, including a new one,
      is where the new ring puts it. So a key is in exactly one shard at any time.
    - After waiting for a lock, an operation checks again that its key still belongs to that shard.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Unpack

from strategies._locked import LockedShard, LockedStrategy
from strategies._sharded import Locator
from strategies.base import C, Moves, Options
from strategies.hashing import Ring

# The size of a step, in keys checked and subscriptions moved with them: 1 to 2 µs each.
_STEP = 256


class ConsistentHash(LockedStrategy[C]):
    """A key belongs to the shard of the next point on the ring.

    Shards are less balanced than by FNV (about 8 % standard deviation), but one more shard moves only its own
    share of the keys.
    """

    name = "consistent-hash"
    can_resize = True

    def __init__(self, **options: Unpack[Options]) -> None:
        # During a resize: the former locators of ids and channels, and the keys that are still to be checked.
        self._former: tuple[Locator, Locator] | None = None
        self._keys_left: Iterator[tuple[LockedShard[C], C | str]] = iter(())
        self._resizes = 0
        self._open_walks = 0
        super().__init__(**options)

    def _locator(self, shards: int) -> Locator:
        return Ring.of(shards).locate

    def _home(self, conn: C) -> LockedShard[C]:
        if self._former is not None:
            former = self._shards[self._former[0](conn.id)]
            if conn in former.members.conns:
                return former
        return super()._home(conn)

    def _shard_of(self, channel: str) -> LockedShard[C]:
        if self._former is not None:
            former = self._shards[self._former[1](channel)]
            if channel in former.channels:
                return former
        return super()._shard_of(channel)

    def _exclusively(
        self, locate: Callable[[], LockedShard[C]], operation: Callable[[LockedShard[C]], bool]
    ) -> bool:
        while True:
            resizes = self._resizes
            shard = locate()
            with shard.lock:
                if (self._former is None and resizes == self._resizes) or shard is locate():
                    return operation(shard)

    def _walk(
        self, shards: Sequence[LockedShard[C]], start: Callable[[LockedShard[C]], Iterable[Sequence[C]]]
    ) -> Generator[Sequence[C], None, None]:
        self._open_walks += 1
        try:
            yield from super()._walk(shards, start)
        finally:
            self._open_walks -= 1

    def connections(self) -> Iterator[Sequence[C]]:
        self._open_walks += 1
        try:
            yield from super().connections()
        finally:
            self._open_walks -= 1

    def resize(self, shards: int) -> Generator[Moves, None, None]:
        self._check_shards(shards)
        return self._resize(shards)

    def _resize(self, shards: int) -> Generator[Moves, None, None]:
        yield from self._move()  # completes an earlier, unfinished resize
        if shards != self._shard_count:
            self._start_resize(shards)
            yield from self._move()

    def _start_resize(self, shards: int) -> None:
        self._former = (self._locate, self._locate_channel)
        self._keys_left = self._keys(self._shards)
        more = [self._make_shard() for _ in range(shards - self._shard_count)]
        self._shards = (*self._shards, *more)
        self._shard_count = shards
        self._resizes += 1
        self._use(self._locator(shards))

    def _move(self) -> Generator[Moves, None, None]:
        while self._former is not None:
            yield Moves() if self._open_walks else self._step()

    def _step(self) -> Moves:
        """Check some keys, and move those that belong to another shard now. Does not switch."""
        channels = connections = seen_channels = seen_connections = weight = 0
        for shard, key in self._keys_left:
            weight += 1
            if isinstance(key, str):
                seen_channels += 1
                channels += self._move_channel(shard, key)
            else:
                seen_connections += 1
                if self._move_connection(shard, key):
                    connections += 1
                    weight += len(key.channels) if self._by_connection else 0
            if weight >= _STEP:
                break
        else:
            self._former = None
            self._shards = self._shards[: self._shard_count]
        return Moves(channels, connections, seen_channels, seen_connections)

    def _keys(self, shards: Sequence[LockedShard[C]]) -> Iterator[tuple[LockedShard[C], C | str]]:
        """The keys in these shards, read shard by shard. Keys added later are in the right shard already."""
        for shard in shards:
            if not self._by_connection:
                for channel in tuple(shard.channels):
                    yield shard, channel
            for conn in shard.members.snapshot():
                yield shard, conn

    def _move_channel(self, shard: LockedShard[C], channel: str) -> bool:
        target = self._shards[self._locate_channel(channel)]
        if target is shard or channel not in shard.channels:
            return False
        target.take(channel, shard)
        return True

    def _move_connection(self, shard: LockedShard[C], conn: C) -> bool:
        target = self._shards[self._locate(conn.id)]
        if target is shard or conn not in shard.members.conns:
            return False
        shard.members.remove(conn)
        target.members.add(conn)
        if self._by_connection:
            for channel in tuple(conn.channels):
                shard.unsubscribe(conn, channel)
                target.subscribe(conn, channel)
        return True
