"""The example in docs/strategies.md is a valid strategy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "strategies.md"


def command(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where `mine.py` is."""
    env = {**os.environ, "PYTHONPATH": str(directory)}
    return subprocess.run((sys.executable, *arguments), env=env, capture_output=True, text=True, check=False)


def test_the_example_keeps_every_promise(tmp_path: Path) -> None:
    """By the command, by its own tests, and not without the line that the document takes away."""
    mine, tests = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "mine.py").write_text(mine)
    (tmp_path / "test_mine.py").write_text(tests)
    check = ("-m", "odinws", "strategies", "check", "--examples", "20", "mine:Mine")
    done = command(tmp_path, *check)
    assert (done.returncode, done.stdout) == (0, "mine:Mine: every promise is kept\n"), done.stderr
    done = command(tmp_path, "-m", "pytest", "-q", "-k", "walk", "-c", os.devnull, str(tmp_path))
    assert done.returncode == 0, done.stdout
    wrong = mine.replace(
        "[conn for conn in found[start : start + size] if conn in now]", "found[start : start + size]"
    )
    assert wrong != mine
    (tmp_path / "mine.py").write_text(wrong)
    done = command(tmp_path, *check)
    assert done.returncode == 1
    assert "no later batch" in done.stdout or "does not meet the connection" in done.stdout
