"""A child and all below it ends when it has to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from odinws.experiment.child import Child
from tests.server import wait_for

_STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(below.pid, flush=True)
time.sleep(60)
"""


def _child(code: str, directory: Path) -> Child:
    return Child((sys.executable, "-c", code), os.environ, directory / "log")


def test_what_does_not_want_to_end(tmp_path: Path) -> None:
    """It is killed, and what it started with it."""
    child = _child(_STUBBORN, tmp_path)
    child.start()
    below = psutil.Process(int(wait_for((tmp_path / "log").read_text, 10, "a process id")))
    asyncio.run(child.end(signal.SIGTERM, 0.1))
    assert child.status == -signal.SIGKILL
    wait_for(lambda: not below.is_running() or below.status() == psutil.STATUS_ZOMBIE, 5, "its end")
    asyncio.run(child.end(signal.SIGTERM, 0.1))


def test_its_epitaph(tmp_path: Path) -> None:
    """How it ended, and the last lines that it said."""
    child = _child("import sys; print('one'); sys.exit('two')", tmp_path)
    child.start()
    wait_for(lambda: child.status is not None, 10, "its end")
    assert child.epitaph() == "ended with status 1: one | two"
    killed = _child("import os; os.kill(os.getpid(), 9)", tmp_path)
    killed.start()
    wait_for(lambda: killed.status is not None, 10, "its end")
    assert killed.epitaph() == "was killed by SIGKILL: it said nothing"


def test_before_the_start(tmp_path: Path) -> None:
    """There is nothing to end."""
    child = _child("pass", tmp_path)
    asyncio.run(child.end(signal.SIGTERM, 0.1))
    assert child.status is None
    assert child.pid == 0
