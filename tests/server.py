"""A real server for tests: gunicorn with this repository's configuration, on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from odinws.harness import server
from odinws.harness.ports import free_port
from odinws.harness.process import ProcessError

__all__ = ["GUNICORN", "PATIENCE_SECONDS", "ROOT", "Server", "established", "free_port", "wait_for"]

PATIENCE_SECONDS = 60.0  # for what takes moments on a machine that does nothing else
ROOT = Path(__file__).parents[1]
GUNICORN = server.gunicorn("gunicorn.conf.py")


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until `condition()` is true, and return what it gave.

    Args:
        seconds: how long it may take; `PATIENCE_SECONDS` at least.

    Raises:
        AssertionError: it did not become true in time.
    """
    seconds = max(seconds, PATIENCE_SECONDS)
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def established(port: int) -> int:
    """Server-side sockets on `port` that the kernel calls established, as `ss` lists them."""
    command = ["ss", "-Htn", "state", "established", f"( sport = :{port} )"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


class Server(server.Server):
    """`gunicorn -c gunicorn.conf.py` in an environment of its own.

    Args:
        settings: environment variables besides WS_ADDR; 2 workers and a drain of half a second unless given.
        command: what is run instead, as leader of a session of its own.
        directory: where; this repository unless given.
        port: a free one unless given.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] = GUNICORN,
        directory: Path = ROOT,
        port: int | None = None,
    ) -> None:
        given = {"WS_WORKERS": "2", "WS_DRAIN_SECONDS": "0.5", **(settings or {})}
        handle, log = tempfile.mkstemp(prefix="odinws-server-")
        os.close(handle)
        super().__init__(given, Path(log), port=port, command=command, directory=directory)

    def launch(self) -> None:
        """Start it and wait for nothing."""
        super().start()

    def start(self, *, ready: bool = True) -> Self:
        """Start it and wait until it is ready, or only alive."""
        self.launch()
        try:
            self.wait_ready("/readyz" if ready else "/livez", PATIENCE_SECONDS)
        except ProcessError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        metrics = self.metrics()
        assert name in metrics, f"no metric {name}"
        return metrics.total(name)

    def nats_url(self) -> str:
        """The URL of its embedded NATS, with the credentials, from the file that its banner names."""
        named = re.search(r'nats_url_file"?:?\s+"?([^"\s]+)', self.log())
        assert named, "no embedded NATS"
        return Path(named[1]).read_text().strip()

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [worker["pid"] for worker in self.json("/stats")["workers"]]

    def processes(self) -> list[psutil.Process]:
        """The arbiter and all below it."""
        arbiter = psutil.Process(self.pid)
        return [arbiter, *arbiter.children(recursive=True)]

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end; the exit status. Raises subprocess.TimeoutExpired."""
        return super().wait(seconds)

    def signal(self, number: int) -> None:
        """Send a signal to the arbiter."""
        self.send_signal(number)

    def poll(self) -> int | None:
        """The arbiter's exit status; None while it runs."""
        return self.status

    def stop(self) -> None:
        """End it, with force if it does not end by itself."""
        self.end(signal.SIGTERM, PATIENCE_SECONDS)
        self._log.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self if self.pid else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self.pid:
            sys.stderr.write(self.log())
        self.stop()
