"""`odinws.recycling`: when a worker is replaced, at the very second and the very byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.recycling import RecyclingPolicy

draws = st.floats(0.0, 1.0)
ages = st.floats(0.0, 1e9)
sizes = st.integers(0, 1 << 63)


@pytest.mark.parametrize(
    ("age_seconds", "memory_bytes", "why"),
    [
        (99.9, 999, ""),
        (100.0, 999, "age 100 s >= 100 s"),
        (250.4, 5000, "age 250 s >= 100 s"),
        (60.0, 999, ""),
        (60.0, 1000, "memory 1000 B >= 1000 B"),
        (99.9, 4096, "memory 4096 B >= 1000 B"),
        (59.9, 4096, ""),
    ],
)
def test_the_end(age_seconds: float, memory_bytes: int, why: str) -> None:
    """It ends at its age or its memory, whichever comes first, and says by which."""
    assert RecyclingPolicy(100.0, 1000, draw=0.0).end(age_seconds, memory_bytes) == why


@given(age=ages, size=sizes, draw=draws)
def test_a_zero_switches_off(age: float, size: int, draw: float) -> None:
    """Neither age nor memory ends a worker for which neither matters."""
    assert RecyclingPolicy(0.0, 0, draw).end(age, size) == ""
    assert RecyclingPolicy(0.0, 1000, draw).end(age, 999) == ""
    assert RecyclingPolicy(100.0, 0, draw).end(99.0, size) == ""


@given(limit=st.floats(1.0, 1e6), draw=draws)
def test_workers_of_one_start_do_not_leave_at_one_time(limit: float, draw: float) -> None:
    """None leaves before its age or later than a tenth more; what is drawn decides when between."""
    life = RecyclingPolicy(limit, 0, draw)
    assert life.end(limit * 0.999, 0) == ""
    assert life.end(limit * 1.101, 0)
    due = limit * (1 + 0.1 * draw)
    assert bool(life.end(due * 1.0001, 0))
    assert not life.end(due * 0.9999, 0)
