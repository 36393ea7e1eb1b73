"""One value for each measure, arm and round."""

from __future__ import annotations

import math

import pytest

from odinws.experiment.kinds import Second, Trial
from odinws.experiment.samples import drifts, logarithm, samples


def _second(second: int, arm: str = "a", number: int = 0, **values: float) -> Second:
    return Second(round=number, order=0, arm=arm, second=second, values=values)


def test_a_trial_s_own_value_goes_first() -> None:
    """Then its counts, then its seconds without the warm-up: their median, or the largest for a maximum."""
    trial = Trial(
        round=2,
        order=0,
        arm="a",
        status="ok",
        values={"delivery_p50_ms": 5.0, "ack_p50_ms": math.inf},
        counts={"lost": 3},
    )
    seconds = [
        _second(at, number=2, delivery_p50_ms=9.0, cpu_us_per_message=cpu, hub_stall_max_ms=cpu)
        for at, cpu in [(-1, 100.0), (0, 1.0), (1, 2.0), (2, 9.0)]
    ]
    found = samples([trial], seconds)
    assert found["delivery_p50_ms"]["a"] == {2: 5.0}
    assert found["lost"]["a"] == {2: 3.0}
    assert found["cpu_us_per_message"]["a"] == {2: 2.0}
    assert found["hub_stall_max_ms"]["a"] == {2: 9.0}
    assert not found["ack_p50_ms"]["a"]
    assert not found["memory_kb_per_connection"]["a"]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_bad_trials_have_no_values(status: str) -> None:
    """What they had may be anything."""
    trial = Trial(round=0, order=0, arm="a", status=status, values={"lost": 1.0})  # type: ignore[arg-type]
    assert not samples([trial], [])["lost"]


def test_logarithm_ends_at_the_floor() -> None:
    """Nobody feels whether a lock waits a tenth or a hundredth of a millisecond; 0 has a logarithm too."""
    assert logarithm("lock_longest_hold_ms", 0.0) == logarithm("lock_longest_hold_ms", 0.5) == math.log(2)
    assert logarithm("lock_longest_hold_ms", 20.0) == math.log(20)


def _ramp(arm: str, number: int, factor: float) -> list[Second]:
    return [_second(at, arm, number, memory_kb_per_connection=10 * factor ** (at / 8)) for at in range(-3, 9)]


def test_drift_is_what_all_trials_do() -> None:
    """From the first third to the last, as a logarithm; one trial is too few."""
    seconds = [*_ramp("a", 0, 2.0), *_ramp("a", 1, 2.0), *_ramp("a", 2, 2.0), *_ramp("b", 0, 2.0)]
    assert drifts(seconds) == {("memory_kb_per_connection", "a"): pytest.approx(math.log(2) * 6 / 8)}


def test_wandering_is_no_drift() -> None:
    """One trial goes up, another down."""
    assert not drifts([*_ramp("a", 0, 2.0), *_ramp("a", 1, 0.5), *_ramp("a", 2, 2.0)])
