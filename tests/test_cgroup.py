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


def test_version_2_takes_the_smallest_on_the_way_up(tmp_path: Path) -> None:
    """A limit of a group above holds too."""
    where = tree(
        tmp_path,
        "0::/slice/unit\n",
        {
            "cgroup.controllers": "cpu memory\n",
            "slice/cpu.max": "150000 100000\n",
            "slice/memory.max": "max\n",
            "slice/unit/cpu.max": "max 100000\n",
            "slice/unit/memory.max": "1073741824\n",
        },
    )
    assert cgroup.cpu_cores(*where) == 1.5
    assert cgroup.memory_bytes(*where) == 1 << 30


def test_version_1(tmp_path: Path) -> None:
    """Each controller has a tree of its own, and a huge number means no limit."""
    where = tree(
        tmp_path,
        "4:memory:/docker/x\n1:cpu:/docker/x\n0::/\n",
        {
            "cpu/docker/x/cpu.cfs_quota_us": "50000\n",
            "cpu/docker/x/cpu.cfs_period_us": "100000\n",
            "memory/docker/x/memory.limit_in_bytes": "268435456\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert cgroup.cpu_cores(*where) == 0.5
    assert cgroup.memory_bytes(*where) == 256 << 20


@pytest.mark.parametrize("own", ["", "0::/\n", "1:cpu:/\n3:memory:/gone\n"])
def test_without_a_limit(tmp_path: Path, own: str) -> None:
    """No group, no file, or no quota."""
    where = tree(tmp_path, own, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"})
    assert cgroup.cpu_cores(*where) is None
    assert cgroup.memory_bytes(*where) is None
