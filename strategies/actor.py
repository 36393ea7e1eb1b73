"""`actor`: no locks; each shard has an owner greenlet, which takes commands from a mailbox."""

import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Unpack

from strategies._shard import Shard
from strategies._sharded import Locator, ShardedStrategy, by_fnv
from strategies.base import C, Options
from strategies.locks import LockStats
from strategies.mailbox import Mailbox


class ActorShard(Shard[C]):
    """A shard and the mailbox of its owner."""

    __slots__ = ("mailbox",)

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox()

    def lock_stats(self) -> LockStats:
        return self.mailbox.stats()


class Actor(ShardedStrategy[C, ActorShard[C]]):
    """Sharded as `fnv-sharded`; an operation is a command, and a walk asks each owner for a snapshot.

    No operation waits for a walk. But each command costs two switches, even without contention.

    The owners, one greenlet per shard, live as long as the registry.
    """

    name = "actor"

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        end = weakref.finalize(self, _close, [shard.mailbox for shard in self._shards])
        end.atexit = False  # daemon threads end with the process by themselves

    def _make_shard(self) -> ActorShard[C]:
        return ActorShard()

    def _locator(self, shards: int) -> Locator:
        return by_fnv(shards)

    def _exclusively(
        self, locate: Callable[[], ActorShard[C]], operation: Callable[[ActorShard[C]], bool]
    ) -> bool:
        shard = locate()
        return shard.mailbox.call(lambda: operation(shard))

    def _walk(
        self, shards: Sequence[ActorShard[C]], start: Callable[[ActorShard[C]], Iterable[Sequence[C]]]
    ) -> Generator[Sequence[C], None, None]:
        for shard in shards:
            yield from shard.mailbox.call(partial(start, shard))


def _close(mailboxes: Iterable[Mailbox]) -> None:
    for mailbox in mailboxes:
        mailbox.close()
