"""A Python 2.7 environment with the suite, made once and kept in the user's cache directory.

Python 2.7 is looked for on PATH, then among pyenv's versions; if there is none and pyenv is there, pyenv
builds one, which takes minutes. `virtualenv` makes the environment: it is the last release that still can.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.environments import EnvironmentMissingError, made, step

REQUIREMENTS = Path(__file__).parents[2] / "conf/requirements-autobahn.txt"
VIRTUALENV = REQUIREMENTS.with_name("requirements-virtualenv.txt")
VERSION = "2.7.18"
_BUILD_SECONDS = 1800.0
_CHECK = "import sys, ssl, zlib; sys.exit(sys.version_info[:2] != (2, 7))"


def wstest(cache: Path | None = None) -> Path:
    """The suite's program, in an environment that is made if it is not there.

    Args:
        cache: directory that keeps it; None: that of the user.

    Raises:
        EnvironmentMissingError: there is no Python 2.7, or a step failed.
    """
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "odinws", "autobahn")
    pins = REQUIREMENTS.read_bytes() + VIRTUALENV.read_bytes()
    place = made(cache, pins, _make, lambda place: _is_python_27(place / "env/bin/python"))
    return place / "env/bin/wstest"


def _make(place: Path) -> None:
    python = find_python_27()
    tool = place / "virtualenv"
    pip = ("-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--require-hashes")
    step(sys.executable, *pip, "--target", str(tool), "--requirement", str(VIRTUALENV))
    step(
        *(sys.executable, "-m", "virtualenv", "--quiet", "--no-periodic-update"),
        *("--app-data", str(place / "seeds"), "--python", str(python), str(place / "env")),
        environ={"PYTHONPATH": str(tool)},
    )
    first = place / "first.txt"  # twisted's own build would fetch the newest, which needs another Python
    first.write_text("".join(re.findall(r"(?m)^incremental==.*\n(?: .*\n)+", REQUIREMENTS.read_text())))
    for requirements in (first, REQUIREMENTS):
        step(str(place / "env/bin/python"), *pip, "--requirement", str(requirements))


def find_python_27() -> Path:
    """A Python 2.7 that works.

    Raises:
        EnvironmentMissingError: there is none and pyenv can't build one.
    """
    for python in _candidates():
        if _is_python_27(python):
            return python
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        raise EnvironmentMissingError(
            "the Autobahn testsuite needs Python 2.7: put python2.7 on PATH, or pyenv, which can build it"
        )
    step(pyenv, "install", "--skip-existing", VERSION, seconds=_BUILD_SECONDS)
    python = _pyenv_root(pyenv) / f"versions/{VERSION}/bin/python2.7"
    if not _is_python_27(python):
        raise EnvironmentMissingError(f"pyenv installed Python {VERSION}, but {python} does not work")
    return python


def _candidates() -> Iterator[Path]:
    """Where Python 2.7 may be. One on PATH may be a shim of pyenv's that does not work."""
    if found := shutil.which("python2.7"):
        yield Path(found)
    if pyenv := shutil.which("pyenv"):
        yield from sorted(_pyenv_root(pyenv).glob("versions/2.7*/bin/python2.7"), reverse=True)


def _pyenv_root(pyenv: str) -> Path:
    return Path(step(pyenv, "root").strip())


def _is_python_27(python: Path) -> bool:
    """Whether it runs, is 2.7, and has what pip needs."""
    try:
        return subprocess.run((python, "-c", _CHECK), capture_output=True, timeout=30).returncode == 0
    except OSError:
        return False
