"""Limits of control groups, on files as the kernel shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from odinws import cgroup


def tree(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A root of control groups and a /proc/self/cgroup."""
    root = folder / "cgroup"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return root, folder / "own"


VERSION_2 = {
    "cgroup.controllers": "cpu memory\n",
    "slice/cpu.max": "150000 100000\n",
    "slice/memory.max": "max\n",
    "slice/unit/cpu.max": "max 100000\n",
    "slice/unit/memory.max": "1073741824\n",
}
VERSION_1 = {
    "cpu/docker/x/cpu.cfs_quota_us": "50000\n",
    "cpu/docker/x/cpu.cfs_period_us": "100000\n",
    "memory/docker/x/memory.limit_in_bytes": "268435456\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
}


@pytest.mark.parametrize(
    ("own", "files", "cores", "size"),
    [
        ("0::/slice/unit\n", VERSION_2, 1.5, 1 << 30),
        ("4:memory:/docker/x\n1:cpu:/docker/x\n0::/\n", VERSION_1, 0.5, 256 << 20),
    ],
)
def test_limits(tmp_path: Path, own: str, files: dict[str, str], cores: float, size: int) -> None:
    """The smallest on the way up holds. In version 1 each controller has a tree; a huge number is none."""
    where = tree(tmp_path, own, files)
    assert cgroup.cpu_cores(*where) == cores
    assert cgroup.memory_bytes(*where) == size


@pytest.mark.parametrize("own", ["", "0::/\n", "1:cpu:/\n3:memory:/gone\n"])
def test_without_a_limit(tmp_path: Path, own: str) -> None:
    """No group, no file, or no quota."""
    where = tree(tmp_path, own, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert cgroup.cpu_cores(*where) is None
    assert cgroup.memory_bytes(*where) is None
