"""Limits and usage of this process's control group, for cgroup version 2 and version 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNLIMITED_BYTES = 1 << 60  # version 1 represents "no limit" by a number near 2^63


def cpu_cores(root: Path = _ROOT, own: Path = _OWN) -> float | None:
    """The CPU quota in cores, the smallest of this group and its ancestors; None without one."""
    return min((cores for cores, _ in _quotas(root, own)), default=None)


def cpu_used_seconds(root: Path = _ROOT, own: Path = _OWN) -> float | None:
    """CPU time used by the group with the smallest quota, all processes together; None without a quota."""
    _, folder = min(_quotas(root, own), default=(0.0, None))
    if folder is None:
        return None
    for line in _read(folder / "cpu.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec" and value.isdecimal():
            return int(value) / 1e6
    nanoseconds = _read(folder / "cpuacct.usage").strip()
    return int(nanoseconds) / 1e9 if nanoseconds.isdecimal() else None


def memory_bytes(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """The memory limit in bytes, the smallest of this group and its ancestors; None without one."""
    return min((limit for limit, _ in _limits(root, own)), default=None)


def memory_used_bytes(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Memory used by the group with the smallest limit, all processes together; None without a limit.

    Inactive file pages are not counted: the kernel reclaims those before it kills a process.
    """
    _, folder = min(_limits(root, own), default=(0, None))
    if folder is None:
        return None
    text = (_read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")).strip()
    if not text.isdecimal():
        return None
    reclaimable = 0
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            reclaimable = int(value)  # version 1 has both names; the last one is for the whole group
    return max(0, int(text) - reclaimable)


def _quotas(root: Path, own: Path) -> Iterator[tuple[float, Path]]:
    for folder in _folders("cpu", root, own):
        words = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        ]
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
            yield int(words[0]) / int(words[1]), folder


def _limits(root: Path, own: Path) -> Iterator[tuple[int, Path]]:
    for folder in _folders("memory", root, own):
        text = (_read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")).strip()
        if text.isdecimal() and 0 < int(text) < _UNLIMITED_BYTES:
            yield int(text), folder


def _folders(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's group and of its ancestors, in both versions."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        if not controllers and not (top / "cgroup.controllers").exists():
            top = root / "unified"  # version 2 beside version 1
        group = top / path.strip("/")
        while True:
            yield group
            if group == top or top not in group.parents:
                break
            group = group.parent


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
