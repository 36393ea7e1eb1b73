"""What tests need that no package of Python brings. CI installs all of it, so there nothing is skipped."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def miss(what: str) -> NoReturn:
    """Skip the test because of what is missing; on CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(f"DID NOT RUN: {what}")


def find(program: str, package: str) -> str:
    """The path of a program, which a package of Debian has; without it the test does not run."""
    return shutil.which(program) or miss(f"no `{program}` on PATH: install the Debian package {package}")
