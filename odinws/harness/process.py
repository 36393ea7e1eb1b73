"""A process that we start: its output goes to a file, and it does not outlive us.

It leads a session, and so a process group, of its own: what it forks is ended with it. When we end in
whatever way, `kill -9` included, the kernel kills it (Linux, see `feed.embedded.death_signal`); what it has
forked then ends by itself: gunicorn's workers notice within a second, Locust's with their connection to the
master.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar, cast

from odinws.errors import OdinError
from odinws.feed.embedded import death_signal

STOP_SECONDS = 10.0
_TAIL_LINES = 3
_POLL_SECONDS = 0.02

T = TypeVar("T")


class ProcessError(OdinError):
    """A process does not start, does not become ready, or ended by itself."""


class Process:
    """Start it in a thread that lives as long as it shall; then `end` it, or leave its `with` block.

    It may be started again after its end.

    Args:
        log: the file that takes what it says; made anew by the first start, appended to by later ones.
        environ: all of its environment; ours unless given.
        directory: where it runs; where we are unless given.
        piped: its standard input and output are pipes, see `pipes`; only its errors go to the log.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        piped: bool = False,
    ) -> None:
        self.command = command
        self._log = log
        self._environ = environ
        self._directory = directory
        self._piped = piped
        self._process: subprocess.Popen[str] | None = None
        self._ended = False

    def start(self) -> Self:
        """Start it and wait for nothing. Raises ProcessError when there is no such program."""
        with self._log.open("wb" if self._process is None else "ab") as log:
            try:
                self._process = subprocess.Popen(
                    self.command,
                    cwd=self._directory,
                    env=None if self._environ is None else dict(self._environ),
                    stdin=subprocess.PIPE if self._piped else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if self._piped else log,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                    preexec_fn=death_signal(),
                )
            except OSError as error:
                raise ProcessError(f"cannot run {self.command[0]}: {error.strerror}") from error
        self._ended = False
        return self

    @property
    def pid(self) -> int:
        """Of the leader; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs, and before the start. Below 0: the signal that killed it."""
        return self._process.poll() if self._process is not None else None

    @property
    def pipes(self) -> tuple[IO[str], IO[str]]:
        """Its standard input and output, for one that is `piped` and was started; ours to close."""
        process = self._started()
        return cast(IO[str], process.stdin), cast(IO[str], process.stdout)

    def log(self) -> str:
        """What it has said so far; nothing before the start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def last_words(self, lines: int = _TAIL_LINES) -> str:
        """The end of what it has said, in one line."""
        said = [line.strip() for line in self.log().splitlines() if line.strip()]
        return " | ".join(said[-lines:]) or "it said nothing"

    def exit_summary(self) -> str:
        """How it ended and what it said last, in one line; for one that has ended."""
        status = self.status or 0
        how = (
            f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
        )
        return f"{how}: {self.last_words()}"

    def wait_until(self, condition: Callable[[], T], seconds: float, what: str) -> T:
        """Poll until `condition()`, which is called `what`, is true, and return what it gave.

        Raises ProcessError when the process ends, or after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            self.check(deadline, what)
            time.sleep(_POLL_SECONDS)
        return value

    def check(self, deadline: float = float("inf"), what: str = "") -> None:
        """Raise ProcessError when it has ended, or the monotonic `deadline` for `what` has passed."""
        if self.status is not None:
            raise ProcessError(f"{Path(self.command[0]).name} {self.exit_summary()}")
        if time.monotonic() > deadline:
            raise ProcessError(f"{Path(self.command[0]).name}: not {what} in time: {self.last_words()}")

    def send_signal(self, number: int) -> None:
        """Send a signal to the leader; nothing happens when it has ended."""
        self._started().send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end of the leader; its exit status. Raises subprocess.TimeoutExpired."""
        return self._started().wait(seconds)

    def end(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, wait for at most `seconds`, then kill all that is left of its group. Idempotent."""
        with self._ending(number) as process, contextlib.suppress(subprocess.TimeoutExpired):
            if process is not None:
                process.wait(seconds)

    async def end_async(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> None:
        """The same, in an event loop of asyncio; kills at once when it is cancelled."""
        with self._ending(number) as process:
            deadline = time.monotonic() + seconds
            while process is not None and process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(_POLL_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise ValueError("it was not started")
        return self._process

    @contextlib.contextmanager
    def _ending(self, number: int) -> Iterator[subprocess.Popen[str] | None]:
        process = self._process
        if process is None or self._ended:
            yield None
            return
        self._ended = True  # from then on its number may be another's
        try:
            process.send_signal(number)
            yield process
        finally:  # also when the waiting itself is broken off
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
