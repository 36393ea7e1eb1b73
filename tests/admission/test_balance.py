"""`odinws.admission.balance` on a real shared state, with servers that only note what they are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from gevent.baseserver import BaseServer

from odinws.admission import balance
from odinws.admission.balance import Balance
from odinws.shared import SharedState
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import in_greenlet


class FakeServer:
    """Accepts or does not."""

    def __init__(self) -> None:
        self.accepts = True
        self.stops = 0

    def stop_accepting(self) -> None:
        """As gevent's."""
        self.accepts = False
        self.stops += 1

    def start_accepting(self) -> None:
        """As gevent's."""
        self.accepts = True


class World:
    """A worker with two listening sockets, and others; its clock goes on only by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(balance, "time", clock)
        monkeypatch.setattr(balance, "_LOOK_SECONDS", 0.001)
        self.shared = SharedState(4096)
        self.stats = self.worker(0)
        self.servers = [FakeServer(), FakeServer()]
        self.balance = Balance(self.shared, self.stats, cast("list[BaseServer]", self.servers))

    def worker(self, connections: int, **fields: Any) -> WorkerStats:
        """A worker that lives and accepts, unless the fields say something else."""
        slot = self.shared.claim()
        stats = self.shared.workers[slot]
        stats.pid, stats.accepting, stats.sampled_at, stats.connections = 100 + slot, 1, self.now, connections
        for name, value in fields.items():
            setattr(stats, name, value)
        return stats

    def open(self, connections: int) -> bool:
        """Let the worker hold so many, with a new one among them. Whether it still accepts."""
        self.stats.connections = connections - 1
        self.balance.entered(7)
        self.balance.left(7)
        self.stats.connections = connections
        return self.accepts

    @property
    def accepts(self) -> bool:
        """Whether the servers do; all or none."""
        [accepts] = {server.accepts for server in self.servers}
        return accepts

    def look(self) -> bool:
        """Let some looks pass. Whether it accepts then."""
        for _ in range(3):
            gevent.sleep(0.002)
        return self.accepts


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A worker without connections and without others."""
    return World(monkeypatch)


@in_greenlet
def test_it_steps_aside_and_comes_back(world: World) -> None:
    """While it is ahead it accepts nothing; when the others have caught up it does again, and so on."""
    other = world.worker(100)
    for _ in range(3):
        assert world.open(other.connections)
        assert not world.open(other.connections + 20)
        assert not world.look()
        other.connections += 20
        assert world.look()
    assert [server.stops for server in world.servers] == [3, 3]


@pytest.mark.parametrize(("elsewhere", "most"), [(0, 8), (100, 109), (1000, 1018)])
@in_greenlet
def test_a_little_ahead_is_no_reason(world: World, elsewhere: int, most: int) -> None:
    """One percent and eight connections more than the least are allowed."""
    world.worker(elsewhere)
    world.worker(5000)
    assert world.open(most)
    assert not world.open(most + 1)


@in_greenlet
def test_alone_it_never_stops(world: World) -> None:
    """Nobody else would take the next."""
    for connections in (1, 100, 10_000):
        assert world.open(connections)


@pytest.mark.parametrize(
    "fields", [{"sampled_at": 1.0}, {"accepting": 0}, {"pid": 0}], ids=["silent", "full", "gone"]
)
@in_greenlet
def test_who_cannot_take_the_next_does_not_count(world: World, fields: dict[str, Any]) -> None:
    """A worker that is stuck, that drains, or that is gone holds nobody back."""
    world.worker(0, **fields)
    assert world.open(10_000)
    world.worker(20_000)
    assert world.open(10_001)


@in_greenlet
def test_a_sample_of_some_seconds_is_alive(world: World) -> None:
    """Workers sample themselves every second: two seconds are not yet a death, four are."""
    other = world.worker(0, sampled_at=world.now - 2)
    assert not world.open(100)
    other.connections = 100
    assert world.look()
    other.connections, other.sampled_at = 0, world.now - 4
    assert world.open(101)


@in_greenlet
def test_it_comes_back_when_the_other_dies(world: World) -> None:
    """Whoever steps aside for a worker that is then gone does not wait for it."""
    world.worker(0)
    assert not world.open(100)
    world.shared.retire(1)
    assert world.look()


@in_greenlet
def test_it_does_not_wait_for_ever(world: World) -> None:
    """If nobody takes the next within a quarter of a second, it takes one itself, then steps aside anew."""
    world.worker(0)
    assert not world.open(100)
    assert not world.look()
    world.now += 0.2
    assert not world.look()
    world.now += 0.06
    assert world.look()
    assert not world.open(101)
    assert [server.stops for server in world.servers] == [2, 2]


@in_greenlet
def test_connections_that_still_come_change_nothing(world: World) -> None:
    """Handshakes under way end while it stands aside: it is told to stop once, and comes back once."""
    other = world.worker(0)
    for connections in range(100, 110):
        assert not world.open(connections)
    assert [server.stops for server in world.servers] == [1, 1]
    other.connections = 200
    assert world.look()


@in_greenlet
def test_a_worker_that_drains_does_not_accept_again(world: World) -> None:
    """Its sockets are closed by then."""
    other = world.worker(0)
    assert not world.open(100)
    world.stats.accepting = 0
    other.connections = 100
    assert not world.look()
