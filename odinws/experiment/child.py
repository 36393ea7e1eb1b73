"""A process that an experiment starts: its output goes to a file, and it does not outlive the experiment.

Each child leads a session, and so a process group, of its own: what it forks is ended with it. When the
experiment ends in whatever way, `kill -9` included, the kernel kills the child (Linux, see
`feed.embedded.death_signal`); what the child has forked then ends by itself: gunicorn's workers notice within
a second, Locust's with their connection to the master.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from odinws.feed.embedded import death_signal

ROOT = Path(__file__).parents[2]
_TAIL_LINES = 3
_POLL_SECONDS = 0.02


class Child:
    """Start it in the thread that lives as long as the experiment; then `end` it.

    Args:
        command: with the program first. It runs in the directory of the repository.
        environ: all of its environment.
        log: takes what it says; made anew.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._environ = environ
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, once."""
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=death_signal(),
            )

    @property
    def pid(self) -> int:
        """Of the leader; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs, and before the start."""
        return self._process.poll() if self._process is not None else None

    def epitaph(self) -> str:
        """How it ended and what it said last, in one line; for one that has ended."""
        status = self.status or 0
        how = (
            f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"
        )
        return f"{how}: {self.last_words()}"

    def last_words(self) -> str:
        """The end of what it has said, in one line."""
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-_TAIL_LINES:]) or "it said nothing"

    async def end(self, number: signal.Signals, seconds: float) -> None:
        """Ask it to end, wait for at most `seconds`, then kill all that is left of its group. Idempotent."""
        if self._process is None:
            return
        try:
            if self._process.poll() is None:
                self._process.send_signal(number)
            deadline = time.monotonic() + seconds
            while self._process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(_POLL_SECONDS)
        finally:  # also when the waiting itself is broken off
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
