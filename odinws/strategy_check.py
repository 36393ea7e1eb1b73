"""A strategy that is not ours is checked in a process of its own: its code may do anything when it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

import strategies

_SECONDS = 60.0


def check(name: str, seconds: float = _SECONDS) -> None:
    """Import a strategy and make one, as a worker will; nothing of it gets into this process.

    Args:
        name: as `strategies.check` takes it.
        seconds: how long that may take.

    Raises:
        UnknownStrategy: no strategy has this name.
        BrokenStrategy: it can't be used, or its code ends the process, forks, or does not come to an end.
    """
    strategies.check_name(name)
    if name in strategies.NAMES:
        return
    problem = _problem(name, seconds)
    if problem:
        raise strategies.BrokenStrategy(name, problem)


def _problem(name: str, seconds: float) -> str:
    reading, writing = os.pipe()
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"from {__name__} import check_and_end; check_and_end({name!r}, {writing})"
    )
    try:
        # What it writes is not ours to pass on; and who waits for the end of a pipe waits for its children.
        ended = subprocess.run(
            (sys.executable, "-c", program),
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"importing and constructing it did not end within {seconds:g} s"
    finally:
        os.close(writing)
        os.set_blocking(reading, False)
        with suppress(BlockingIOError), os.fdopen(reading, "rb", buffering=0) as pipe:
            found = (pipe.read() or b"").decode(errors="replace")
    if not found:
        return f"importing or constructing it ends the process: {_status(ended.returncode)}"
    return "" if found == "ok" else found


def _status(returncode: int) -> str:
    return f"exit status {returncode}" if returncode >= 0 else signal.Signals(-returncode).name


def check_and_end(name: str, descriptor: int) -> NoReturn:
    """Check a strategy here, write what is wrong to a pipe, "ok" if nothing is, and end the process."""
    os.set_inheritable(descriptor, False)  # not for the programs it starts
    own, forks = os.getpid(), [0]

    def count() -> None:
        forks[0] += 1

    os.register_at_fork(after_in_parent=count)
    problem = ""
    try:
        strategies.check(name)
    except strategies.BrokenStrategy as error:
        problem = error.problem
    except BaseException as error:  # noqa: BLE001 -- whatever foreign code raises, as KeyboardInterrupt
        problem = f"{type(error).__name__}: {error}"
    if forks[0]:
        problem = "its code forks, and comes back twice"
    if os.getpid() == own:
        os.write(descriptor, (problem or "ok").encode()[:4096])
    os._exit(0)  # its threads and its exit handlers wait for nobody
