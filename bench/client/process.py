"""One process of the measuring client: lines in, events out."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from odinws.harness.process import STOP_SECONDS, Process, ProcessError

Event = dict[str, Any]


class ClientProcess(Process):
    """One client process; a thread reads its events. `end` must be called.

    Attributes:
        progress: what it last said of itself, at most a second old; empty before the first.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        super().__init__(command, log, piped=True)
        self._events: queue.Queue[Event | None] = queue.Queue()
        self.progress: Event = {}

    def start(self) -> Self:
        super().start()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        for line in self.pipes[1]:
            event: Event = json.loads(line)
            if event["event"] == "progress":
                self.progress = event
            else:
                self._events.put(event)
        self._events.put(None)

    def say(self, line: str) -> None:
        """Send a command. Raises ProcessError when the process has ended."""
        stdin = self.pipes[0]
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except OSError as error:
            raise self._ended_by_itself() from error

    def expect(self, name: str, timeout_seconds: float) -> Event:
        """Wait for an event of that name. Raises ProcessError when it does not come."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise ProcessError(f"no '{name}' from the client within {timeout_seconds:g} s") from None
            if event is None:
                raise self._ended_by_itself()
            if event["event"] == name:
                return event

    def end(self, number: int = signal.SIGKILL, seconds: float = STOP_SECONDS) -> None:
        super().end(number, seconds)
        self._reader.join()
        for pipe in self.pipes:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _ended_by_itself(self) -> ProcessError:
        self.wait()
        return ProcessError(f"the client {self.exit_summary()}")
