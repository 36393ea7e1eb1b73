"""What a server's processes used: CPU to the nanosecond, resident memory, kernel slab."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_CPUCLOCK_SCHED = 2


@dataclass(frozen=True)
class Cpu:
    """Seconds of CPU since the processes and the machine began, or between two such samples.

    `total` is exact. The kernel tells user from system by ticks of 10 ms, so that split is an estimate.
    """

    seconds: float
    """Of the monotonic clock."""
    total: float
    user: float
    system: float
    machine_busy: float

    def since(self, before: Cpu) -> Cpu:
        """What was used between two samples."""
        total = self.total - before.total
        user, system = self.user - before.user, self.system - before.system
        share = user / (user + system) if user + system > 0 else 0.0
        return Cpu(
            seconds=self.seconds - before.seconds,
            total=total,
            user=total * share,
            system=total * (1.0 - share),
            machine_busy=self.machine_busy - before.machine_busy,
        )


def _cpu_clock_seconds(pid: int) -> float:
    """The CPU clock of another process (clock_getcpuclockid): ended threads included, ended children not."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def processes(root: int) -> list[psutil.Process]:
    """The process and its descendants. Raises psutil.NoSuchProcess."""
    top = psutil.Process(root)
    return [top, *top.children(recursive=True)]


def cpu(of: list[psutil.Process]) -> Cpu:
    """Sample the CPU used so far. Raises OSError or psutil.NoSuchProcess when a process has ended."""
    times = [process.cpu_times() for process in of]
    machine = psutil.cpu_times()
    return Cpu(
        seconds=time.monotonic(),
        total=sum(_cpu_clock_seconds(process.pid) for process in of),
        user=sum(each.user for each in times),
        system=sum(each.system for each in times),
        machine_busy=sum(machine) - machine.idle - machine.iowait,
    )


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Slab and socket buffers are the whole machine's: both ends of every loopback connection, and all else.
    """

    resident: int
    slab: int
    socket_buffers: int


def resident(of: list[psutil.Process]) -> int:
    """Resident bytes of the processes, shared pages once for each."""
    return sum(process.memory_info().rss for process in of)


def slab() -> int:
    """Bytes of all the kernel's objects."""
    return int(Path("/proc/meminfo").read_text().partition("\nSlab:")[2].split()[0]) * 1024


def memory(of: list[psutil.Process]) -> Memory:
    """That of the processes, and the kernel's of the machine."""
    tcp = Path("/proc/net/sockstat").read_text().partition("\nTCP:")[2].partition("\n")[0]
    return Memory(resident(of), slab(), int(tcp.split()[-1]) * resource.getpagesize())
