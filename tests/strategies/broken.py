"""Strategies that break one guarantee each, by the guarantee."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence

from odinws.conformance import model
from odinws.conformance.model import Conn
from strategies import ShardStats
from strategies.single_lock import SingleLock
from strategies.sync_dict import SyncDict


class Loses(SyncDict[Conn]):
    """Forgets the last of several subscribers."""

    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[Conn], None, None]:
        found = [conn for batch in super().batches(channel) for conn in batch]
        if len(found) > 2:
            found.pop()
        for start in range(0, len(found), self._batch_size):
            yield found[start : start + self._batch_size]


class Doubles(SyncDict[Conn]):
    """Gives a batch twice."""

    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[Conn], None, None]:
        for batch in super().batches(channel, rotation):
            yield batch
            yield batch


class Remembers(SyncDict[Conn]):
    """Walks a list that was made at its begin."""

    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[Conn], None, None]:
        yield from list(super().batches(channel, rotation))


class Overlong(SyncDict[Conn]):
    """Takes no notice of the batch size."""

    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[Conn], None, None]:
        found = [conn for batch in super().batches(channel, rotation) for conn in batch]
        if found:
            yield found


class Keeps(SyncDict[Conn]):
    """Discards a member and forgets its subscriptions."""

    def discard(self, conn: Conn) -> bool:
        return self._shard.remove(conn)


class Leaks(SyncDict[Conn]):
    """Keeps channels that are empty."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._known: set[str] = set()

    def subscribe(self, conn: Conn, channel: str) -> bool:
        self._known.add(channel)
        return super().subscribe(conn, channel)

    def shards(self) -> list[ShardStats]:
        [found] = super().shards()
        return [ShardStats(0, found.connections, len(self._known), found.subscriptions, found.lock)]


class Agrees(SyncDict[Conn]):
    """Says that it unsubscribed, whatever it did."""

    def unsubscribe(self, conn: Conn, channel: str) -> bool:
        super().unsubscribe(conn, channel)
        return True


class AddsTwice(SyncDict[Conn]):
    """Says that it added, whatever it did."""

    def add(self, conn: Conn) -> bool:
        super().add(conn)
        return True


class ByName(SyncDict[Conn]):
    """Discards by id."""

    def discard(self, conn: Conn) -> bool:
        for member in list(self._shard.members.conns):
            if member is not conn and member.id == conn.id:
                super().discard(member)
        return super().discard(conn)


class Holds(SingleLock[Conn]):
    """Keeps its lock when a walk is closed early."""

    def batches(self, channel: str, rotation: int = 0) -> Generator[Sequence[Conn], None, None]:
        lock = self._shards[0].lock
        lock.__enter__()
        yield from self._shards[0].walk(channel, self._batch_size, rotation)
        lock.__exit__(None, None, None)


class Strangers(SyncDict[Conn]):
    """Subscribes a connection that is not a member."""

    def subscribe(self, conn: Conn, channel: str) -> bool:
        return self._shard.subscribe(conn, channel)


class Miscounts(SyncDict[Conn]):
    """Counts a member that is none."""

    def shards(self) -> list[ShardStats]:
        [found] = super().shards()
        more = found.connections + 1
        return [ShardStats(0, more, found.channels, found.subscriptions, found.lock)]


class HidesMembers(SyncDict[Conn]):
    """Shows only members that have subscriptions."""

    def connections(self) -> Iterator[Sequence[Conn]]:
        for batch in super().connections():
            if found := [conn for conn in batch if conn.channels]:
                yield found


class Raises(SyncDict[Conn]):
    """Takes a channel without subscribers for an error."""

    def unsubscribe(self, conn: Conn, channel: str) -> bool:
        if channel not in self._shard.channels:
            raise KeyError(channel)
        return super().unsubscribe(conn, channel)


class Outdated(SyncDict[Conn]):
    """Its walk of everyone is that of its beginning."""

    def everyone(
        self, channels: Collection[str], rotation: int = 0
    ) -> Generator[Sequence[Conn], None, None] | None:
        found = super().everyone(channels, rotation)
        return None if found is None else (batch for batch in list(found))


class Omits(SyncDict[Conn]):
    """Its walk of everyone omits the last batch."""

    def everyone(
        self, channels: Collection[str], rotation: int = 0
    ) -> Generator[Sequence[Conn], None, None] | None:
        found = super().everyone(channels, rotation)
        return None if found is None else (batch for batch in list(found)[:-1])


BROKEN = {
    Outdated: "As soon as `discard` has returned a walk of everyone does not meet the connection",
    Omits: model.ONCE,
    Loses: model.ONCE,
    Doubles: model.TWICE,
    Remembers: model.LEFT,
    Overlong: model.BATCHES,
    Keeps: model.DISCARD,
    Leaks: model.EMPTY,
    Agrees: model.CHANGED,
    AddsTwice: model.CHANGED,
    ByName: model.CHANGED,
    Holds: model.WAITS,
    Strangers: model.CHANGED,
    Miscounts: model.SHARDS,
    HidesMembers: model.MEMBERS,
    Raises: "no call raises",
}
