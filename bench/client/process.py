"""One process of the measuring client: lines in, events out."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

Event = dict[str, Any]


class ClientError(Exception):
    """A client process ended or fell silent; the message has its last words."""


def _there(pipe: IO[str] | None) -> IO[str]:
    """The pipe, which is there because Popen was asked for it."""
    if pipe is None:
        raise ValueError("no pipe")
    return pipe


class ClientProcess:
    """One client process; a thread reads its events. `stop` must be called."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._events: queue.Queue[Event | None] = queue.Queue()
        self.progress: Event = {}
        """What it last said of itself, at most a second old; empty before the first."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in _there(self._process.stdout):
            event: Event = json.loads(line)
            if event["event"] == "progress":
                self.progress = event
            else:
                self._events.put(event)
        self._events.put(None)

    def say(self, line: str) -> None:
        """Send a command. Raises ClientError when the process has ended."""
        try:
            stdin = _there(self._process.stdin)
            stdin.write(line + "\n")
            stdin.flush()
        except OSError as error:
            raise ClientError(self._last_words()) from error

    def expect(self, name: str, timeout_seconds: float) -> Event:
        """Wait for an event of that name. Raises ClientError when it does not come."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise ClientError(f"no '{name}' from the client within {timeout_seconds:g} s") from None
            if event is None:
                raise ClientError(self._last_words())
            if event["event"] == name:
                return event

    def _last_words(self) -> str:
        status = self._process.wait(5.0)
        return _there(self._process.stderr).read().strip() or f"the client ended with status {status}"

    def stop(self) -> None:
        """End the process, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            _there(pipe).close()
