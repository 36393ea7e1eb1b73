"""The code of a strategy that is not ours, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from odinws import strategy_check
from odinws.harness.server import gunicorn
from strategies import NAMES, BrokenStrategy
from tests.server import PATIENCE_SECONDS, ROOT

_GOOD = "from strategies.sync_dict import SyncDict as Mine\n"


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module to write, `brought_apart`, which this process finds."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "brought_apart.py"


@pytest.mark.parametrize(
    "code",
    [
        "",
        "print('odinws: nothing is wrong', flush=True)",
        "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
        "import atexit, os; atexit.register(os._exit, 3)",
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(5)'])",
    ],
)
def test_what_is_no_business_of_ours(brought: Path, code: str) -> None:
    """It may write, and start threads and programs; nobody waits for those."""
    brought.write_text(f"{_GOOD}{code}\n")
    strategy_check.check("brought_apart:Mine", 30.0)
    assert "brought_apart" not in sys.modules


def test_it_must_come_to_an_end(brought: Path) -> None:
    """A start does not wait for it for ever."""
    brought.write_text("import time; time.sleep(60)\n")
    with pytest.raises(BrokenStrategy) as caught:
        strategy_check.check("brought_apart:Mine", 1.0)
    assert caught.value.problem == "importing and constructing it did not end within 1 s"


def test_ours_need_no_process() -> None:
    """They are imported by the worker that runs them."""
    for name in NAMES:
        strategy_check.check(name, 0.0)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("os._exit(0)", "importing or constructing it ends the process: exit status 0"),
        ("os.fork()", "its code forks, and comes back twice"),
    ],
)
def test_a_start_ends_with_one_line(brought: Path, code: str, problem: str) -> None:
    """It names the setting, the value and what happened."""
    brought.write_text(f"import os\n{_GOOD}{code}\n")
    settings = {
        "WS_SHARD_STRATEGY": "brought_apart:Mine",
        "WS_ADDR": "127.0.0.1:0",
        "PYTHONPATH": str(brought.parent),
    }
    ended = subprocess.run(
        gunicorn("gunicorn.conf.py"),
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    start = f"odinws: WS_SHARD_STRATEGY: strategy 'brought_apart:Mine' can't be used: {problem}; expected "
    assert line.startswith(start)
