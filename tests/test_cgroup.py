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


# -- what is used ----------------------------------------------------------------------------------

USE_2 = {
    "slice/cpu.stat": "usage_usec 1250000\nuser_usec 1000000\nsystem_usec 250000\n",
    "slice/unit/cpu.stat": "usage_usec 999\n",
    "slice/memory.current": "77\n",
    "slice/unit/memory.current": "700000000\n",
    "slice/unit/memory.stat": "anon 500000000\ninactive_file 150000000\nactive_file 5\n",
}
USE_1 = {
    "cpu/docker/x/cpuacct.usage": "2500000000\n",
    "cpu/docker/x/cpu.stat": "nr_periods 7\nnr_throttled 1\nthrottled_time 5\n",
    "memory/docker/x/memory.usage_in_bytes": "200000000\n",
    "memory/docker/x/memory.stat": "inactive_file 1000\ntotal_inactive_file 50000000\n",
}
OWN_2 = "0::/slice/unit\n"
OWN_1 = "4:memory:/docker/x\n1:cpu:/docker/x\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "cpu_seconds", "memory_bytes"),
    [(OWN_2, VERSION_2 | USE_2, 1.25, 550_000_000), (OWN_1, VERSION_1 | USE_1, 2.5, 150_000_000)],
)
def test_use(tmp_path: Path, own: str, files: dict[str, str], cpu_seconds: float, memory_bytes: int) -> None:
    """Of the group whose limit holds, be it this one or one above; memory without what can be dropped."""
    where = tree(tmp_path, own, files)
    assert cgroup.cpu_used_seconds(*where) == cpu_seconds
    assert cgroup.memory_used_bytes(*where) == memory_bytes


@pytest.mark.parametrize("own", ["", "0::/\n", "1:cpu:/\n3:memory:/gone\n"])
def test_use_without_a_limit(tmp_path: Path, own: str) -> None:
    """Nobody asks what a group without a limit uses: it is not known."""
    where = tree(tmp_path, own, USE_2 | USE_1 | {"cgroup.controllers": "cpu memory\n"})
    assert cgroup.cpu_used_seconds(*where) is None
    assert cgroup.memory_used_bytes(*where) is None


@pytest.mark.parametrize(("own", "files"), [(OWN_2, VERSION_2), (OWN_1, VERSION_1)])
def test_use_that_can_not_be_read(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    """A limit whose use no file tells is no reason to fail."""
    where = tree(tmp_path, own, files)
    assert cgroup.cpu_used_seconds(*where) is None
    assert cgroup.memory_used_bytes(*where) is None


@pytest.mark.parametrize(
    ("files", "used"),
    [
        ({"memory.current": "100\n"}, 100),
        ({"memory.current": "100\n", "memory.stat": "inactive_file 30\n"}, 70),
        ({"memory.current": "100\n", "memory.stat": "inactive_file 300\n"}, 0),
        ({"memory.current": "100\n", "memory.stat": "inactive_file many\nother\n\n"}, 100),
        ({"memory.current": "much\n"}, None),
    ],
)
def test_memory_that_can_be_dropped(tmp_path: Path, files: dict[str, str], used: int | None) -> None:
    """The two files are not of one instant: never below 0; what makes no sense is passed over."""
    found = {f"slice/unit/{name}": text for name, text in files.items()}
    assert cgroup.memory_used_bytes(*tree(tmp_path, OWN_2, VERSION_2 | found)) == used


@pytest.mark.parametrize("text", ["", "usage_usec\n", "usage_usec often\n", "user_usec 5\n"])
def test_cpu_time_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    """It is not known."""
    where = tree(tmp_path, OWN_2, VERSION_2 | {"slice/cpu.stat": text})
    assert cgroup.cpu_used_seconds(*where) is None


def test_two_groups_with_one_limit(tmp_path: Path) -> None:
    """Equal limits on the way up: one of the two is chosen, always the same."""
    files = VERSION_2 | USE_2 | {"slice/unit/cpu.max": "150000 100000\n"}
    where = tree(tmp_path, OWN_2, files)
    found = {cgroup.cpu_used_seconds(*where) for _ in range(3)}
    assert len(found) == 1
    assert found <= {1.25, 999e-6}
