"""`odinws.load`: samples with a process and a clock that the test makes, and sums over the board."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable
from types import SimpleNamespace

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws import load
from odinws.board import STALL_BOUNDS_SECONDS, Board, Row
from odinws.load import Load, Sensor, StallWatch
from odinws.settings import Settings
from tests.fakes import in_greenlet, running


class FakeProcess:
    """A process whose CPU time and memory are set by the test."""

    def __init__(self) -> None:
        self.user = 3.0
        self.system = 1.0
        self.rss = 1000

    def cpu_times(self) -> SimpleNamespace:
        """Seconds."""
        return SimpleNamespace(user=self.user, system=self.system, children_user=99.0, children_system=99.0)

    def memory_info(self) -> SimpleNamespace:
        """Bytes."""
        return SimpleNamespace(rss=self.rss)


class FakeTime:
    """`time` that stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def time(self) -> float:
        """Seconds since 1970."""
        return 1_700_000_000.0 + self.now


class World:
    """A sensor with a made-up process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.process, self.time, self.row = FakeProcess(), FakeTime(), Row()
        self.also = 0
        monkeypatch.setattr(load, "psutil", SimpleNamespace(Process=lambda: self.process))
        monkeypatch.setattr(load, "time", self.time)
        self.sensor = Sensor(self.row, lambda: 42, self._also)

    def _also(self) -> None:
        self.also += 1

    def use(self, cores: float, seconds: float = 1.0) -> None:
        """Let time pass with this use of CPU, then sample."""
        self.time.now += seconds
        self.process.user += cores * seconds
        self.sensor.sample()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A new sensor."""
    return World(monkeypatch)


def test_a_sample(world: World) -> None:
    """What a worker uses stands in its row, and what is published in the same rhythm is called."""
    world.process.rss = 5_000_000
    world.use(0.5)
    row = world.row
    assert (row.rss_bytes, row.greenlets, row.cpu_seconds) == (5_000_000, 42, 4.5)
    assert row.beat == world.time.time()
    assert row.cpu_cores == pytest.approx(0.15)
    assert world.also == 1


def test_cpu_is_smoothed(world: World) -> None:
    """A step is 83 % through after five samples, and a single spike does not get through."""
    for _ in range(5):
        world.use(1.0)
    assert world.row.cpu_cores == pytest.approx(0.83, abs=0.005)
    for _ in range(30):
        world.use(0.2)
    assert world.row.cpu_cores == pytest.approx(0.2, abs=1e-3)
    world.use(1.0)
    assert world.row.cpu_cores < 0.45


def test_who_asks_often_does_not_change_the_figure(world: World) -> None:
    """A sample within half a second of the last renews all but the CPU use, whose time is not lost."""
    for _ in range(3):
        world.use(1.0, 0.1)
    assert world.row.cpu_cores == 0.0
    assert world.row.cpu_seconds == pytest.approx(4.3)
    assert world.also == 3
    world.use(1.0, 0.7)
    assert world.row.cpu_cores == pytest.approx(0.3)


def test_the_use_before_the_sensor_does_not_count(world: World) -> None:
    """A worker that used much while it started does not begin with a spike."""
    world.use(0.0)
    assert world.row.cpu_cores == 0.0


@in_greenlet
def test_it_samples_for_the_life_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once at the start, then again and again."""
    monkeypatch.setattr(load, "SAMPLE_SECONDS", 0.002)
    sampled = gevent.event.Event()
    count = 0

    def also() -> None:
        nonlocal count
        count += 1
        if count == 3:
            sampled.set()

    with running(Sensor(Row(), lambda: 0, also).run):
        assert sampled.wait(5)


@in_greenlet
def test_stalls_are_seen() -> None:
    """A greenlet that keeps the event loop for 60 ms makes one turn that long; the time asleep is in none."""
    row = Row()
    watch = StallWatch(row)
    watch.start()
    try:
        gevent.sleep(0.1)
        asleep = row.totals.stall_seconds
        time.sleep(0.06)  # no other greenlet runs meanwhile: this is the stall
        gevent.sleep(0.001)
    finally:
        watch.stop()
    assert asleep < 0.05
    assert row.hub_stall_seconds >= 0.06
    assert row.totals.stall_seconds >= row.hub_stall_seconds
    assert sum(row.totals.stalls[bisect_left(STALL_BOUNDS_SECONDS, 0.06) :]) >= 1
    turns = sum(row.totals.stalls)
    gevent.sleep(0.01)
    assert sum(row.totals.stalls) == turns


def test_a_real_process() -> None:
    """psutil's figures of this very process."""
    row = Row()
    Sensor(row, lambda: 1, lambda: None).sample()
    assert row.rss_bytes > 1 << 20
    assert row.cpu_seconds == pytest.approx(sum(os.times()[:2]), abs=0.5)
    assert abs(row.beat - time.time()) < 5


# -- the whole server ------------------------------------------------------------------------------


def test_measure_sums_the_workers_that_run() -> None:
    """Rows without a process do not count, except that their connection slots are taken."""
    board = Board(4096)
    for pid in (11, 0, 12):
        row = board.rows[board.claim()]
        row.pid, row.connections, row.greenlets, row.rss_bytes, row.cpu_cores = pid, 5, 10, 1 << 20, 0.5
    settings = Settings.from_environ(
        {
            "WS_MAX_CONNECTIONS": "60",
            "WS_CPU_LIMIT": "4",
            "WS_CPU_REJECT_THRESHOLD": "80",
            "WS_MEMORY_LIMIT": str(8 << 20),
            "WS_MAX_GREENLETS": "100",
        }
    )
    used = load.measure(board, settings)
    assert used == Load(
        connections=15,
        max_connections=60,
        cpu_percent=25.0,
        cpu_threshold=80.0,
        memory_bytes=2 << 20,
        memory_limit=8 << 20,
        greenlets=20,
        max_greenlets=100,
    )
    assert (used.connections_percent, used.memory_percent, used.greenlets_percent) == (25.0, 25.0, 20.0)


def made(**fields: float) -> Load:
    """A load with some figures of its own."""
    base: dict[str, float] = {
        "connections": 0,
        "max_connections": 10,
        "cpu_percent": 0.0,
        "cpu_threshold": 75.0,
        "memory_bytes": 0,
        "memory_limit": 1000,
        "greenlets": 0,
        "max_greenlets": 100,
    }
    return Load(**{**base, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "check", "healthy"),
    [
        ({"connections": 9}, lambda used: used.has_room, True),
        ({"connections": 10}, lambda used: used.has_room, False),
        ({"connections": 11}, lambda used: used.has_room, False),
        ({"cpu_percent": 75.0}, lambda used: used.cpu_healthy, True),
        ({"cpu_percent": 75.1}, lambda used: used.cpu_healthy, False),
        ({"cpu_percent": 500.0, "cpu_threshold": 100.0}, lambda used: used.cpu_healthy, True),
        ({"memory_bytes": 899}, lambda used: used.memory_healthy, True),
        ({"memory_bytes": 900}, lambda used: used.memory_healthy, False),
        ({"greenlets": 99}, lambda used: used.greenlets_healthy, True),
        ({"greenlets": 100}, lambda used: used.greenlets_healthy, False),
    ],
)
def test_bounds(fields: dict[str, float], check: Callable[[Load], bool], healthy: bool) -> None:
    """Each check at its bound."""
    assert check(made(**fields)) is healthy


@given(connections=st.integers(0, 1 << 40), limit=st.integers(1, 1 << 40))
def test_room_is_what_percent_says(connections: int, limit: int) -> None:
    """There is room exactly below 100 %."""
    used = made(connections=connections, max_connections=limit)
    assert used.has_room is (connections < limit)
    assert used.connections_percent == 100 * connections / limit
