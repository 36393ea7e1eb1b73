"""Connections, configurations and a model to hold a strategy against."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Unpack

import gevent
import gevent.event
import gevent.lock
import gevent.thread

import strategies
from strategies import Options, Strategy

# The promises, as reports name them; strategies/base.py has them in full.
ONCE = "a connection that is subscribed and stays appears in a walk exactly once"
TWICE = "no connection appears in one walk twice"
LEFT = "a connection that has left is in no later batch"
BATCHES = "a batch is never empty and never longer than batch_size"
CHANGED = "an answer of True means that something really changed"
DISCARD = "discard ends all subscriptions of a connection"
MEMBERS = "connections() has each member exactly once"
CHANNELS = "conn.channels has the subscriptions of a connection"
SHARDS = "shards() counts members and subscriptions"
EMPTY = "a channel without subscribers leaves nothing behind"
WAITS = "only an open walk keeps a call waiting; its end frees every lock"


class Conn:
    """The least that a strategy asks of a connection, and weak references to watch it go."""

    __slots__ = ("__weakref__", "_mark", "channels", "id")

    def __init__(self, id: str, mark: str = "") -> None:  # noqa: A002 -- the name of the attribute
        self.id = id
        self._mark = mark  # tells those apart that share an id
        self.channels: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<{self.id}{self._mark}>"


class GreenletThread:
    """The part of `threading.Thread` that strategies use, as a greenlet."""

    def __init__(self, target: Callable[[], None], name: str, *, daemon: bool) -> None:
        assert daemon, "a thread that is no daemon would keep the process"
        self._target = target

    def start(self) -> None:
        """Run the target from the next switch on."""
        gevent.spawn(self._target)


@contextmanager
def cooperative_locks() -> Iterator[None]:
    """Give `threading` gevent's locks (and threads), as in a patched worker, without patching the process."""
    before = threading.Lock, threading.Thread
    threading.Lock, threading.Thread = gevent.thread.LockType, GreenletThread  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        threading.Lock, threading.Thread = before  # type: ignore[misc]


@dataclass(frozen=True)
class Arm:
    """One strategy in one configuration."""

    name: str  # as settings have it
    shards: int
    shard_key: str
    strategy: type[Strategy[Any]] | None = None  # None: `strategies.create` finds it by its name

    def __str__(self) -> str:
        return f"{self.name}-{self.shards}-{self.shard_key}"

    def make(self, batch_size: int = 256) -> Strategy[Conn]:
        """An empty registry whose locks switch greenlets."""
        with cooperative_locks():
            return self.create(shards=self.shards, shard_key=self.shard_key, batch_size=batch_size)

    def create(self, **options: Unpack[Options]) -> Strategy[Conn]:
        return self.strategy(**options) if self.strategy else strategies.create(self.name, **options)


def arms(name: str, strategy: type[Strategy[Any]] | None = None) -> list[Arm]:
    """The configurations that a strategy is held to its promises in."""
    return [Arm(name, shards, key, strategy) for shards in (1, 16) for key in strategies.SHARD_KEYS]


def populate(strategy: Strategy[Conn], count: int, *channels: str) -> list[Conn]:
    """Add `count` connections and subscribe each to all `channels`."""
    conns = [Conn(f"conn-{number}") for number in range(count)]
    for conn in conns:
        assert strategy.add(conn)
        for channel in channels:
            assert strategy.subscribe(conn, channel)
    return conns


def walked(strategy: Strategy[Conn], channel: str) -> list[Conn]:
    """All connections of one walk, in its order."""
    return [conn for batch in strategy.batches(channel) for conn in batch]


def settle(waiting: int = 10) -> None:
    """Let every greenlet run that can, when up to `waiting` of them hand a lock on to each other.

    And each of them may ask the owners of 16 shards one after another, two switches each.
    """
    for _ in range(3 * waiting + 40):
        gevent.sleep(0)


class Walker:
    """A greenlet that takes one batch and then waits, with the walk still open, until it may go on."""

    def __init__(self, strategy: Strategy[Conn], channel: str) -> None:
        self.go_on = gevent.event.Event()
        self.batches: list[Sequence[Conn]] = []
        self._walk = strategy.batches(channel)
        self.greenlet = gevent.spawn(self._run)
        settle()
        assert len(self.batches) == 1

    def _run(self) -> None:
        with closing(self._walk) as batches:
            for batch in batches:
                self.batches.append(batch)
                self.go_on.wait()

    def finish(self) -> list[Conn]:
        """Let it walk to the end; what it met after the first batch."""
        self.go_on.set()
        self.greenlet.get()
        return [conn for batch in self.batches[1:] for conn in batch]


class Walk:
    """A greenlet that walks a channel, one batch per `step()`, and checks what it meets against a model.

    Args:
        channel: None: it walks everyone, if the strategy has that for the channels of the model.
    """

    def __init__(self, model: Model, channel: str | None, batch_size: int, *, free: bool = False) -> None:
        self.channel = channel
        self.due: set[Conn] = set()
        self.seen: set[Conn] = set()
        self._model = model
        self._batch_size = batch_size
        self._free = free
        self._stopped = False
        self._permits = gevent.lock.Semaphore(0)
        self.greenlet = gevent.spawn(self._run)

    def __str__(self) -> str:
        return "everyone" if self.channel is None else repr(self.channel)

    def step(self) -> None:
        """Allow one batch more."""
        self._permits.release()

    def stop(self) -> None:
        """Close the generator as soon as it has a batch out."""
        self._stopped = True
        self._permits.release()

    def _pause(self) -> None:
        if self._free:
            gevent.sleep(0)
        else:
            self._permits.acquire()

    def _run(self) -> None:
        self._pause()
        self.due = self._model.staying(self.channel)
        self._model.walks.append(self)
        try:
            if self.channel is not None:
                walk = self._model.strategy.batches(self.channel)
            elif (everyone := self._model.strategy.everyone(list(self._model.subscribers))) is not None:
                walk = everyone
            else:
                return
            with closing(walk) as batches:
                for batch in batches:
                    self._check(batch)
                    self._pause()
                    if self._stopped:
                        return
            assert self.due <= self.seen, f"{ONCE}: a walk missed {self.due - self.seen}"
        finally:
            self._model.walks.remove(self)

    def _check(self, batch: Iterable[Conn]) -> None:
        conns = list(batch)
        assert 0 < len(conns) <= self._batch_size, f"{BATCHES}: one has {len(conns)}"
        assert len(set(conns)) == len(conns), f"{TWICE}: one batch is {conns}"
        assert not self.seen & set(conns), f"{TWICE}: {self.seen & set(conns)}"
        left = set(conns) - self._model.present(self.channel)
        assert not left, f"{LEFT}: {left}"
        self.seen.update(conns)


class Model:
    """The registry as two plain dicts, kept in step with a strategy by the greenlets that call it.

    Calls return in the order in which they took effect. So when one returns, the entries here are those of
    the moment of its effect. Only a `discard` may take effect bit by bit; while one is under way, the answers
    to other calls for that connection are not compared.
    """

    def __init__(self, strategy: Strategy[Conn]) -> None:
        self.strategy = strategy
        self.members: set[Conn] = set()
        self.subscribers: defaultdict[str, set[Conn]] = defaultdict(set)
        self.walks: list[Walk] = []
        self.leaving: Counter[Conn] = Counter()
        self.subscribing: Counter[tuple[Conn, str]] = Counter()
        self._adding: Counter[Conn] = Counter()
        self._unsubscribing: Counter[tuple[Conn, str]] = Counter()

    def present(self, channel: str | None) -> set[Conn]:
        """The subscribers, or all members, and those who are about to become one."""
        if channel is None:
            return self.members | set(+self._adding)
        return self.subscribers[channel] | {conn for conn, name in +self.subscribing if name == channel}

    def staying(self, channel: str | None) -> set[Conn]:
        """The subscribers, or all members, that nobody is about to remove."""
        if channel is None:
            return {conn for conn in self.members if not self.leaving[conn]}
        return {
            conn
            for conn in self.subscribers[channel]
            if not self.leaving[conn] and not self._unsubscribing[conn, channel]
        }

    def add(self, conn: Conn) -> None:
        self._adding[conn] += 1
        added = self.strategy.add(conn)
        self._adding[conn] -= 1
        assert added == (conn not in self.members), f"{CHANGED}: add({conn}) gave {added}"
        self.members.add(conn)

    def subscribe(self, conn: Conn, channel: str) -> None:
        self.subscribing[conn, channel] += 1
        subscribed = self.strategy.subscribe(conn, channel)
        self.subscribing[conn, channel] -= 1
        if not self.leaving[conn]:
            expected = conn in self.members and conn not in self.subscribers[channel]
            assert subscribed == expected, f"{CHANGED}: subscribe({conn}, {channel!r}) gave {subscribed}"
        if subscribed:
            self.subscribers[channel].add(conn)

    def unsubscribe(self, conn: Conn, channel: str) -> None:
        for walk in self.walks:
            if walk.channel == channel:
                walk.due.discard(conn)
        self._unsubscribing[conn, channel] += 1
        unsubscribed = self.strategy.unsubscribe(conn, channel)
        self._unsubscribing[conn, channel] -= 1
        if not self.leaving[conn]:
            expected = conn in self.subscribers[channel]
            assert unsubscribed == expected, (
                f"{CHANGED}: unsubscribe({conn}, {channel!r}) gave {unsubscribed}"
            )
        self.subscribers[channel].discard(conn)

    def discard(self, conn: Conn) -> None:
        for walk in self.walks:
            walk.due.discard(conn)
        alone = not self.leaving[conn]
        self.leaving[conn] += 1
        discarded = self.strategy.discard(conn)
        self.leaving[conn] -= 1
        if alone and not self.leaving[conn]:
            assert discarded == (conn in self.members), f"{CHANGED}: discard({conn}) gave {discarded}"
        if discarded:
            self.members.remove(conn)
        assert not conn.channels, f"{DISCARD}: {conn} has {[*conn.channels]}"
        for subscribers in self.subscribers.values():
            subscribers.discard(conn)

    def compare(self) -> None:
        """Hold the whole strategy against the model. Nothing may be under way."""
        assert not self.walks
        assert not +self.leaving
        members = [conn for batch in self.strategy.connections() for conn in batch]
        assert len(members) == len(set(members)), f"{MEMBERS}: {members}"
        assert set(members) == self.members, f"{MEMBERS}: {members}, expected {self.members}"
        for channel, subscribers in self.subscribers.items():
            seen = walked(self.strategy, channel)
            assert len(seen) == len(set(seen)), f"{TWICE}: {seen}"
            assert not set(seen) - subscribers, f"{LEFT}: {set(seen) - subscribers}"
            assert not subscribers - set(seen), f"{ONCE}: a walk missed {subscribers - set(seen)}"
        for conn in members:
            held = {name for name, conns in self.subscribers.items() if conn in conns}
            assert conn.channels.keys() == held, f"{CHANNELS}: {conn} has {[*conn.channels]}, expected {held}"
        shards = self.strategy.shards()
        held_now = sum(map(len, self.subscribers.values()))
        assert sum(shard.connections for shard in shards) == len(self.members), f"{SHARDS}: {shards}"
        assert sum(shard.subscriptions for shard in shards) == held_now, f"{SHARDS}: {shards}"
        channels = sum(1 for conns in self.subscribers.values() if conns)
        known = sum(shard.channels for shard in shards)
        assert channels <= known <= channels * len(shards), f"{EMPTY}: {known} are known, {channels} have any"
