"""`odinws.admission.load`: samples of a made-up process, and sums over the shared state."""

from __future__ import annotations

import errno
import math
import os
import time
from bisect import bisect_left
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest

from odinws import cgroup
from odinws.admission import load
from odinws.admission.guard import SMOOTHING_SECONDS, Usage
from odinws.admission.load import Iterations, Sensor, StallWatch
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.counters import STALL_BOUNDS_SECONDS
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import SECONDS, in_greenlet, running

STEP = 1 - math.exp(-1 / SMOOTHING_SECONDS)  # how much of a step one second shows


class FakeProcess:
    """A process whose CPU time and memory are set by the test."""

    def __init__(self) -> None:
        self.user = 3.0
        self.system = 1.0
        self.rss = 1000
        self.descriptors, self.limit = 7, 1000
        self.tells = True

    def times(self) -> SimpleNamespace:
        """Seconds."""
        return SimpleNamespace(user=self.user, system=self.system, children_user=99.0)

    def memory_info(self) -> SimpleNamespace:
        """Bytes."""
        return SimpleNamespace(rss=self.rss)

    def stat(self, path: str) -> SimpleNamespace:
        """Of the directory of its descriptors."""
        assert path == "/proc/self/fd"
        return SimpleNamespace(st_size=self.descriptors if self.tells else 0)

    def listdir(self, path: str) -> list[str]:
        """The descriptors, and the one that lists them."""
        assert path == "/proc/self/fd"
        if self.descriptors >= self.limit:
            raise OSError(errno.EMFILE, "no more")
        return list(map(str, range(self.descriptors + 1)))


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
        self.process, self.time, self.stats = FakeProcess(), FakeTime(), WorkerStats()
        self.also = 0
        monkeypatch.setattr(load, "psutil", SimpleNamespace(Process=lambda: self.process))
        monkeypatch.setattr(load, "time", self.time)
        monkeypatch.setattr(load, "os", self.process)
        self.iterations: list[list[float]] = []  # their lengths, of each second
        self.sensor = Sensor(self.stats, cast(Any, self), lambda: 42, self._also)

    def take(self) -> Iterations:
        """What the watch of iterations would say."""
        lengths = self.iterations.pop(0) if self.iterations else []
        return Iterations(
            max(lengths, default=0.0), sum(length**2 for length in lengths), max(1.0, sum(lengths))
        )

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
    stats = world.stats
    assert (stats.rss_bytes, stats.greenlets, stats.totals.cpu_seconds) == (5_000_000, 42, 4.5)
    assert stats.descriptors == 7
    assert stats.sampled_at == world.time.monotonic()
    assert stats.cpu_cores == pytest.approx(0.5 * STEP)
    assert world.also == 1


def test_descriptors_on_an_older_kernel(world: World) -> None:
    """They are listed, which costs, so each quarter of a minute; where they can't be, nothing changes."""
    world.process.tells = False
    seen = []
    for second in range(61):
        world.process.descriptors = 100 + second if second < 40 else 1000
        world.use(0.0)
        seen.append(world.stats.descriptors)
    assert seen == [100] * 15 + [115] * 15 + [130] * 31


def test_cpu_is_smoothed(world: World) -> None:
    """A step is 83 % through after five samples, and a single spike does not get through."""
    for _ in range(5):
        world.use(1.0)
    assert world.stats.cpu_cores == pytest.approx(0.83, abs=0.005)
    for _ in range(30):
        world.use(0.2)
    assert world.stats.cpu_cores == pytest.approx(0.2, abs=1e-3)
    world.use(1.0)
    assert world.stats.cpu_cores < 0.45


def test_who_asks_often_does_not_change_the_figure(world: World) -> None:
    """A sample within half a second of the last renews all but the CPU use, whose time is not lost."""
    for _ in range(3):
        world.use(1.0, 0.1)
    assert world.stats.cpu_cores == 0.0
    assert world.stats.totals.cpu_seconds == pytest.approx(4.3)
    assert world.also == 3
    world.use(1.0, 0.7)
    assert world.stats.cpu_cores == pytest.approx(1 - math.exp(-1 / SMOOTHING_SECONDS))


def test_the_use_before_the_sensor_does_not_count(world: World) -> None:
    """A worker that used much while it started does not begin with a spike."""
    world.use(0.0)
    assert world.stats.cpu_cores == 0.0


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

    nothing = SimpleNamespace(take=lambda: Iterations(0.0, 0.0, 0.0))
    with running(Sensor(WorkerStats(), cast(Any, nothing), lambda: 0, also).run):
        assert sampled.wait(SECONDS)


@in_greenlet
def test_stalls_are_seen() -> None:
    """A greenlet that keeps the event loop for 60 ms makes one turn that long; the time asleep is in none."""
    stats = WorkerStats()
    watch = StallWatch(stats)
    watch.start()
    try:
        gevent.sleep(0.5)
        watch.take()
        asleep = stats.totals.stall_seconds
        time.sleep(0.06)  # no other greenlet runs meanwhile: this is the stall
        gevent.sleep(0.001)
    finally:
        watch.stop()
    watch.take()
    assert asleep < 0.25
    assert stats.hub_stall_seconds >= 0.06
    assert stats.totals.stall_seconds >= stats.hub_stall_seconds
    assert sum(stats.totals.stalls[bisect_left(STALL_BOUNDS_SECONDS, 0.06) :]) >= 1
    turns = sum(stats.totals.stalls)
    gevent.sleep(0.01)
    watch.take()
    assert sum(stats.totals.stalls) == turns


def test_a_real_process() -> None:
    """psutil's figures of this very process."""
    stats = WorkerStats()
    Sensor(stats, StallWatch(stats), lambda: 1, lambda: None).sample()
    assert stats.rss_bytes > 1 << 20
    assert stats.totals.cpu_seconds == pytest.approx(sum(os.times()[:2]), abs=0.5)
    assert abs(stats.sampled_at - time.monotonic()) < 5
    assert stats.descriptors == len(os.listdir("/proc/self/fd")) - 1  # one more while they are listed


# -- the whole server ------------------------------------------------------------------------------


def test_measure_sums_the_workers_that_run() -> None:
    """Rows without a process do not count, except that their connection slots are taken."""
    shared = SharedState(4096)
    for pid in (11, 0, 12):
        stats = shared.workers[shared.claim()]
        stats.sampled_at = time.monotonic()
        stats.pid, stats.connections, stats.greenlets, stats.rss_bytes, stats.cpu_cores = (
            pid,
            5,
            10,
            1 << 20,
            0.5,
        )
    settings = Settings.from_environ(
        {
            "WS_MAX_CONNECTIONS": "60",
            "WS_CPU_LIMIT": "4",
            "WS_CPU_REJECT_THRESHOLD": "80",
            "WS_MEMORY_LIMIT": str(8 << 20),
            "WS_MAX_GREENLETS": "100",
        }
    )
    shared.workers[2].hub_lag_seconds = 0.25
    used = load.measure(shared, settings)
    assert used == Usage(
        connections=15, cpu_percent=25.0, memory_percent=25.0, greenlets=20, hub_lag_ms=250.0
    )
    assert load.memory_bytes(shared) == 2 << 20
    shared.workers[2].group_cpu_percent, shared.workers[0].group_memory_percent = 80.0, 70.0
    used = load.measure(shared, settings)
    assert (used.cpu_percent, used.memory_percent) == (80.0, 70.0)


def test_a_stall_is_shown_and_is_no_lag(world: World) -> None:
    """The longest iteration of five samples stands by itself; only what lasts is lag."""
    world.iterations = [[30.0], [0.1]]
    seen = []
    for _ in range(8):
        world.use(0.0)
        seen.append((world.stats.hub_stall_recent_seconds, world.stats.hub_lag_seconds))
    assert [stall for stall, _ in seen] == [30.0] * 5 + [0.1, 0.0, 0.0]
    assert {lag for _, lag in seen} == {0.0}


def test_lag_is_what_most_seconds_have(world: World) -> None:
    """A worker that is behind for three seconds shows it, until it has been well for three."""
    world.iterations = [[0.4, 0.4]] * 6
    lags = []
    for _ in range(10):
        world.use(0.0)
        lags.append(world.stats.hub_lag_seconds)
    assert lags == pytest.approx([0.0] * 2 + [0.32] * 6 + [0.0] * 2)


def test_a_silent_worker_does_not_hold_back_the_others() -> None:
    """A stopped process keeps its memory; what it used when it was stopped says nothing about now."""
    shared = SharedState(4096)
    for sampled_at in (time.monotonic(), time.monotonic() - 11):
        stats = shared.workers[shared.claim()]
        stats.pid, stats.sampled_at, stats.greenlets, stats.rss_bytes = 11, sampled_at, 10, 1 << 20
    settings = Settings.from_environ({"WS_CPU_LIMIT": "1", "WS_MEMORY_LIMIT": str(4 << 20)})
    stopped = shared.workers[1]
    stopped.cpu_cores, stopped.group_cpu_percent, stopped.hub_lag_seconds = 1.0, 100.0, 2.0
    assert load.measure(shared, settings) == Usage(memory_percent=50.0, greenlets=20)
    stopped.sampled_at = time.monotonic()
    used = load.measure(shared, settings)
    assert (used.cpu_percent, used.hub_lag_ms) == (100.0, 2000.0)


def test_a_control_group_counts_as_a_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a quota, the use of all in the group stands beside the worker's own, smoothed alike."""
    used = [10.0]
    for name, value in (
        ("cpu_cores", lambda: 2.0),
        ("cpu_used_seconds", lambda: used[0]),
        ("memory_bytes", lambda: 1000),
        ("memory_used_bytes", lambda: 750),
    ):
        monkeypatch.setattr(cgroup, name, value)
    sensor = Sensor(world.stats, cast(Any, world), lambda: 42, lambda: None)
    used[0] += 1.0
    world.time.now += 1.0
    sensor.sample()
    assert world.stats.group_cpu_percent == pytest.approx(50.0 * STEP)
    assert world.stats.group_memory_percent == 75.0


@in_greenlet
def test_the_iterations_since_the_last_look() -> None:
    """The one under way counts as the longest too; its time is left for the next look."""
    watch = StallWatch(WorkerStats())
    watch.start()
    try:
        gevent.sleep(0.001)
        watch.take()
        time.sleep(0.05)
        longest, squares, elapsed = watch.take()
        assert longest >= 0.05
        assert (squares, elapsed) == (0.0, 0.0)
        gevent.sleep(0.001)
        longest, squares, elapsed = watch.take()  # now it is over
        assert elapsed >= longest >= 0.05
        assert 0.0025 <= squares <= longest * elapsed
        gevent.sleep(0.001)
        assert watch.take().squares < 0.0025
    finally:
        watch.stop()


def test_without_a_descriptor_the_last_figure_stands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is read from a file: a worker that can open none lives on."""
    world.use(0.5)

    def fails() -> SimpleNamespace:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(world.process, "memory_info", fails)
    world.use(1.0)
    assert world.stats.rss_bytes == 1000
    assert world.stats.totals.cpu_seconds == pytest.approx(5.5)
