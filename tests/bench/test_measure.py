"""CPU and memory of other processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from bench import measure

# Burns CPU for the seconds it is told, says so, and waits to be ended.
BURN = """
import sys, time
for line in sys.stdin:
    end = time.process_time() + float(line)
    while time.process_time() < end: pass
    print("done", flush=True)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that burns CPU on demand."""
    process = subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def burn(process: subprocess.Popen[str], seconds: float) -> None:
    """Have the process use that much CPU; returns when it has."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_cpu_of_another_process(child: subprocess.Popen[str]) -> None:
    """What a process used is found to within a millisecond or two, however short."""
    burn(child, 0.001)
    before = measure.cpu([psutil.Process(child.pid)])
    burn(child, 0.25)
    used = measure.cpu([psutil.Process(child.pid)]).since(before)
    assert used.total == pytest.approx(0.25, abs=0.01)
    assert used.user + used.system == pytest.approx(used.total)
    assert used.seconds >= used.total
    assert used.machine_busy > 0.2


def test_the_tree_of_a_process(child: subprocess.Popen[str]) -> None:
    """Descendants belong to a server."""
    tree = {process.pid for process in measure.processes(psutil.Process().pid)}
    assert {psutil.Process().pid, child.pid} <= tree


def test_a_process_that_is_gone(child: subprocess.Popen[str]) -> None:
    """A server that has ended is an error, not a server without CPU."""
    gone = psutil.Process(child.pid)
    child.kill()
    child.wait()
    with pytest.raises((OSError, psutil.NoSuchProcess)):
        measure.cpu([gone])


def test_memory() -> None:
    """Resident memory grows with what is touched; the kernel's is there."""
    before = measure.memory([psutil.Process()])
    kept = bytearray(32 << 20)
    after = measure.memory([psutil.Process()])
    assert after.resident - before.resident > 30 << 20
    assert after.slab > 0
    assert after.socket_buffers >= 0
    assert len(kept) == 32 << 20
