"""What the control group of this process may use: version 2, version 1, or no limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNLIMITED_BYTES = 1 << 60  # version 1 says "no limit" with a number near 2^63


def cpu_cores(root: Path = _ROOT, own: Path = _OWN) -> float | None:
    """The CPU quota in cores, the smallest of this group and those above it; None without one."""
    quotas = []
    for folder in _folders("cpu", root, own):
        words = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        ]
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_bytes(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """The memory limit in bytes, the smallest of this group and those above it; None without one."""
    limits = []
    for folder in _folders("memory", root, own):
        text = (_read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")).strip()
        if text.isdecimal() and 0 < int(text) < _UNLIMITED_BYTES:
            limits.append(int(text))
    return min(limits, default=None)


def _folders(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's group and of all above it, of both versions."""
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
