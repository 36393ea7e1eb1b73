"""`odinws.shared.debug_lock`: one at a time, over all processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from odinws.shared.debug_lock import BusyError, DebugLock
from tests.fakes import forked


@pytest.fixture
def debug_lock() -> DebugLock:
    """Of a server."""
    return DebugLock()


def test_one_at_a_time(debug_lock: DebugLock) -> None:
    """The second is told who has it and when to come; afterwards it is free."""
    with debug_lock.held("profile", 30.0):
        with (
            pytest.raises(BusyError, match=r"a profile is under way.*try again in (29|30) s") as raised,
            debug_lock.held("heap", 1.0),
        ):
            pass
        assert raised.value.retry_after_seconds == pytest.approx(30, abs=1)
    with debug_lock.held("heap", 1.0):
        pass


def test_it_falls_with_its_holder(debug_lock: DebugLock, tmp_path: Path) -> None:
    """A worker that is killed in the middle blocks nobody."""

    def hold() -> None:
        with debug_lock.held("heap", 9.0):
            (tmp_path / "held").touch()
            time.sleep(30)

    child = forked(hold)
    until = time.monotonic() + 10
    while not (tmp_path / "held").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    with pytest.raises(BusyError, match="a heap is under way"), debug_lock.held("profile", 1.0):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with debug_lock.held("profile", 1.0):
        pass
