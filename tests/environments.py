"""Environments that a test needs beside this one: made once by other programs, and kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

_STEP_SECONDS = 600.0


class EnvironmentMissingError(Exception):
    """An environment can't be made; says what is missing, or what a step wrote."""


def made(
    cache: Path, pins: bytes, make: Callable[[Path], None], works: Callable[[Path], bool] = lambda _: True
) -> Path:
    """The directory of an environment, which is made if it is not there. One process at a time makes it.

    Args:
        cache: directory that keeps it.
        pins: all that it depends on; another environment is made for others.
        make: makes it in a directory that is not there yet.
        works: whether one that is there still does.

    Raises:
        EnvironmentMissingError: a step of `make` failed.
    """
    place = cache / hashlib.sha256(pins).hexdigest()[:16]
    complete = place / "complete"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists() or not works(place):
            shutil.rmtree(place, ignore_errors=True)
            make(place)
            complete.touch()
    return place


def step(
    *command: str,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    seconds: float = _STEP_SECONDS,
) -> str:
    """Run a command, with more in its environment; what it wrote.

    Raises:
        EnvironmentMissingError: it is not there, or it failed.
    """
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
    except OSError as error:
        raise EnvironmentMissingError(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise EnvironmentMissingError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout
