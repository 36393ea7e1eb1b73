"""Choosing a strategy by its name."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import strategies
from odinws.assignment import Assignment
from odinws.errors import SettingsError
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies import BrokenStrategy, Strategy, UnknownStrategy


@pytest.mark.parametrize("name", strategies.NAMES)
def test_create_makes_the_strategy_of_that_name(name: str) -> None:
    """Each name leads to a class that bears it, with the default options."""
    made = strategies.create(name)
    assert isinstance(made, Strategy)
    assert made.name == name


def test_names_and_shard_keys_are_those_of_the_settings() -> None:
    """Operators' configurations depend on these words."""
    assert {"single-lock", "fnv-sharded", "consistent-hash", "sync-dict"} <= set(strategies.NAMES)
    assert strategies.SHARD_KEYS == ("channel", "connection")


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    """One line for the operator, fields for the program."""
    with pytest.raises(UnknownStrategy) as caught:
        strategies.create("rw-lock")
    assert caught.value.name == "rw-lock"
    assert caught.value.known == strategies.NAMES
    message = str(caught.value)
    assert "\n" not in message
    assert "package.module:Class" in message
    assert all(name in message for name in ("rw-lock", *strategies.NAMES))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", strategies.NAMES)
def test_only_the_chosen_strategy_is_imported(name: str) -> None:
    """The package imports no strategy; `create` imports one."""
    module = "strategies." + name.replace("-", "_")
    program = (
        "import sys, strategies\n"
        f"arms = {{'strategies.' + name.replace('-', '_') for name in strategies.NAMES}}\n"
        "assert not arms & set(sys.modules), arms & set(sys.modules)\n"
        f"strategies.create({name!r})\n"
        f"assert arms & set(sys.modules) == {{{module!r}}}\n"
        "assert not any(loaded.startswith('gevent') for loaded in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


ROOT = Path(__file__).parents[2]
MINE = "tests.strategies.broken:Loses"


def test_a_class_is_named_by_its_place() -> None:
    """As `package.module:Class`, which the settings take as it is spelt."""
    assert strategies.find(MINE).__name__ == "Loses"
    assert isinstance(strategies.create(MINE, shards=2), Strategy)
    assert Settings.from_environ({"WS_SHARD_STRATEGY": MINE}).strategy == MINE
    row = WorkerStats()
    row.assignment = Assignment(MINE, MINE, "explicit")
    assert row.assignment.strategy == MINE


def test_an_entry_point_names_a_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code is imported only when it is chosen; ours can't be replaced."""
    info = tmp_path / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    points = f"[odinws.strategies]\nmine = {MINE}\nsync-dict = no.such:Thing\ngone = no.such:Thing\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    assert strategies.names() == (*strategies.NAMES, "gone", "mine")
    assert strategies.find("mine") is strategies.find(MINE)
    assert strategies.find("sync-dict").__module__ == "strategies.sync_dict"
    with pytest.raises(BrokenStrategy, match="No module named 'no'"):
        strategies.find("gone")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 +", "SyntaxError: invalid syntax"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("", "has no attribute 'Mine'"),
        ("Mine = 1", "it is no subclass of strategies.Strategy"),
        ("class Mine: pass", "it is no subclass of strategies.Strategy"),
        (
            "from strategies import Strategy\nclass Mine(Strategy): pass",
            "it lacks add, batches, connections, discard, shards, subscribe, unsubscribe",
        ),
        (
            "from strategies.sync_dict import SyncDict\nclass Mine(SyncDict):\n def add(self): pass",
            "add: too many positional arguments",
        ),
        (
            "from strategies.sync_dict import SyncDict\nclass Mine(SyncDict):\n def __init__(self): pass",
            "its constructor: got an unexpected keyword argument 'shards'",
        ),
        (
            "from strategies.sync_dict import SyncDict\nclass Mine(SyncDict):\n"
            " def __init__(self, **options): 1 / 0",
            "its constructor fails: ZeroDivisionError: division by zero",
        ),
        (
            "from strategies.sync_dict import SyncDict\nclass Mine(SyncDict):\n"
            " def __init__(self, **options): raise SystemExit(0)",
            "its constructor fails: SystemExit: 0",
        ),
        ("import os; os._exit(0)", "importing or constructing it ends the process: exit status 0"),
        ("import os; os.kill(os.getpid(), 9)", "importing or constructing it ends the process: SIGKILL"),
        ("import os; os.execv('/bin/true', ['true'])", "ends the process: exit status 0"),
        ("raise KeyboardInterrupt('why')", "KeyboardInterrupt: why"),
        ("import os; os.fork()", "its code forks, and comes back twice"),
        (
            "import os\nfrom strategies.sync_dict import SyncDict\nclass Mine(SyncDict):\n"
            " def __init__(self, **options): os._exit(3)",
            "importing or constructing it ends the process: exit status 3",
        ),
        (
            "import os\nfrom strategies.sync_dict import SyncDict\nclass Mine(SyncDict):\n"
            " def __init__(self, **options): os.fork(); super().__init__(**options)",
            "its code forks, and comes back twice",
        ),
    ],
)
def test_a_broken_one_is_told_in_one_line(body: str, problem: str, tmp_path: Path) -> None:
    """What was given, what is wrong, and what is allowed; in a process of its own, as before a start."""
    (tmp_path / "brought.py").write_text(body)
    done = subprocess.run(
        (sys.executable, "-m", "odinws", "strategies", "load", "brought:Mine"),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("odinws: strategy 'brought:Mine' can't be used: ")
    assert problem in line
    assert line.endswith("by an entry point of the group odinws.strategies")


def test_one_in_the_current_directory_is_found(tmp_path: Path) -> None:
    """As the server finds it, however the command was started."""
    (tmp_path / "brought.py").write_text("from strategies.sync_dict import SyncDict as Mine")
    program = f"import sys; sys.path.append({str(ROOT)!r}); from odinws.cli import main; sys.exit(main())"
    command = (sys.executable, "-P", "-c", program, "strategies", "load", "brought:Mine")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["a.b", "a:b:c", ":a", "a:", "1:a", "a..b:c", "rw-lock"])
def test_what_is_no_name_stops_the_settings(name: str) -> None:
    """Without importing anything."""
    with pytest.raises(SettingsError, match=r"or package\.module:Class"):
        Settings.from_environ({"WS_SHARD_STRATEGY": name})


def test_a_name_has_room_in_shared_memory() -> None:
    """A longer one is refused, not cut off."""
    field: Any = WorkerStats.strategy  # ctypes has a descriptor there
    assert field.size == strategies.MAX_NAME_BYTES
    with pytest.raises(BrokenStrategy, match="longer than 96 bytes"):
        strategies.check_name(f"{'a' * 96}:B")
