"""What follows from looks at a server."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from odinws.experiment import scrape
from odinws.experiment.arms import Arm, ArmError
from odinws.experiment.plan import Arm as ArmPlan
from odinws.experiment.scrape import Look


def _look(at: float, *, delivered: int = 0, stall_ms: float = 1.0, **more: object) -> Look:
    """One worker with two shards, of which one is used and locked."""
    lock = {"waits": 2 * at, "wait_seconds": at / 100, "longest_wait_seconds": 0.02}
    lock |= {"waits": int(2 * at), "longest_hold_seconds": 0.03}
    raw = {
        "connections": 100,
        "refused": {},
        "fan_out": {"delivered": delivered, "undelivered": 0, "shed": 0},
        "workers": [
            {
                "pid": 1,
                "details": {"shards": [{"subscriptions": 6, "lock": lock}, {"subscriptions": 0}]},
                "gc_longest_seconds": 0.004,
                "hub_stall_recent_seconds": stall_ms / 1000,
            }
        ],
        **more,
    }
    return scrape.seen(at, at / 10, int(at) << 20, raw)


def test_a_second() -> None:
    """CPU time goes by what was delivered in it."""
    values = scrape.second_values(_look(1.0, delivered=100), _look(2.0, delivered=1100, stall_ms=7.0))
    assert values["cpu_us_per_message"] == pytest.approx(100.0)
    assert values["delivered_per_s"] == 1000.0
    assert values["hub_stall_max_ms"] == 7.0
    assert values["lock_waits_per_s"] == 2.0
    assert values["lock_wait_ms_per_s"] == pytest.approx(10.0)


def test_a_window() -> None:
    """Locks, shards and memory; and no stall that was before it."""
    looks = [
        _look(float(at), delivered=100 * at, stall_ms=50.0 if at < 13 else 5.0 + at) for at in range(10, 19)
    ]
    empty = _look(2.0, connections=0)
    values = scrape.window_values(looks, empty)
    assert values["cpu_us_per_message"] == pytest.approx(1000.0)
    assert values["hub_stall_max_ms"] == 23.0
    assert values["lock_longest_wait_ms"] == 20.0
    assert values["lock_longest_hold_ms"] == 30.0
    assert values["shard_balance"] == 2.0
    assert values["used_shards"] == 1.0
    assert values["memory_kb_per_connection"] == pytest.approx(8 * 1024 / 100)
    assert "gc_pause_max_ms" not in values


def test_nothing_delivered() -> None:
    """There is no CPU time per message then."""
    assert "cpu_us_per_message" not in scrape.window_values([_look(1.0), _look(2.0)], _look(1.0))


@pytest.mark.parametrize(("counts", "ms"), [([5, 1, 0], 0.0), ([6, 1, 0], 1.0), ([5, 2, 0], 4.0)])
def test_garbage_collection(counts: list[int], ms: float) -> None:
    """The longest pause within the window, known to its bucket."""
    bounds = [0.001, 0.01]
    before = {"pauses": {"bounds_seconds": bounds, "counts": [5, 1, 0]}}
    after = {"pauses": {"bounds_seconds": bounds, "counts": counts}}
    values = scrape.window_values([_look(1.0, gc=before), _look(2.0, gc=after)], _look(0.0))
    assert values["gc_pause_max_ms"] == ms


def test_cpu_time_of_a_process() -> None:
    """All its threads, close to what it says itself."""
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert scrape.cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), rel=0.2)


def test_nobody_answers(tmp_path: Path) -> None:
    """One line says so."""
    arm = Arm(ArmPlan("a"), "nats://127.0.0.1:1", tmp_path / "log")
    with pytest.raises(ArmError, match=r"it does not answer, or not as it should: .*refused"):
        asyncio.run(arm.look())
