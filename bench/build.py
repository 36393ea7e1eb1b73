"""Building what is compiled or installed, into a folder of the bench's own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import click

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
BUILD = BENCH / "build"

CALL_SECONDS = 600.0


class MissingError(click.ClickException):
    """Something cannot be built, found or run here; the message says what and why."""


def tool(name: str, hint: str) -> str:
    """The path of a program. Raises MissingError with the hint."""
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"{name} is not installed ({hint})")
    return found


def call(
    command: Sequence[str], directory: Path = ROOT, environment: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Run to the end, for 10 minutes at most, and return what it printed.

    Raises MissingError, with the line of its output that tells of an error, when it fails.
    """
    try:
        done = subprocess.run(
            list(command),
            cwd=directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        reason = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise MissingError(f"{' '.join(command[:2])}: {reason.strip()}")
    return done.stdout


def install(packages: Sequence[str]) -> None:
    """Have apt-get install those of Debian's packages that are missing; needs root. Raises MissingError."""
    there = subprocess.run(
        [tool("dpkg-query", "this is no Debian"), "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    if missing := [name for name in packages if f"{name} installed" not in there]:
        words = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
        call(words, environment={"DEBIAN_FRONTEND": "noninteractive"})


def python_packages(names: Sequence[str]) -> dict[str, str]:
    """The versions of Python and of these packages. Raises MissingError."""
    try:
        versions = {name: importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingError(f"Python package {error.name} is not installed") from error
    return {"python": platform.python_version(), **versions}


def revision(directory: Path = ROOT) -> str:
    """The commit of a checkout, with a plus sign when files differ from it; empty where there is none."""
    try:
        return call(["git", "describe", "--always", "--dirty=+", "--abbrev=12"], directory).strip()
    except MissingError:
        return ""


def compile_c(sources: Path, name: str, *flags: str) -> Path:
    """Compile the C files of a folder into one program, unless it is newer than all of them."""
    program = BUILD / name
    files = sorted(sources.glob("*.[ch]"))
    if program.exists() and all(program.stat().st_mtime >= file.stat().st_mtime for file in files):
        return program
    compiler = tool("cc", "a C compiler, such as Debian's gcc")
    BUILD.mkdir(parents=True, exist_ok=True)
    units = [str(file) for file in files if file.suffix == ".c"]
    made = program.with_suffix(f".{os.getpid()}")  # others may run or build it at this moment
    call([compiler, "-O2", "-std=gnu11", "-o", str(made), *units, *flags])
    return made.replace(program)
