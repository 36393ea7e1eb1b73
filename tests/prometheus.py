"""Debian's Prometheus for tests: `promtool`, and a server that scrapes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGE = "prometheus"  # of Debian; it has promtool too
SECONDS = 30.0


def find(program: str) -> str:
    """The path of a program of the package. Without it the test is skipped, on CI it fails."""
    path = shutil.which(program)
    if path is None:
        missing = f"no `{program}` on PATH: install the Debian package {PACKAGE}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(f"PROMETHEUS TESTS DID NOT RUN, {missing}")
    return path


def promtool(*arguments: str, stdin: bytes = b"", directory: Path | None = None) -> str:
    """What promtool says; it must find no fault."""
    done = subprocess.run(
        (find("promtool"), *arguments), input=stdin, capture_output=True, timeout=SECONDS, cwd=directory
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
