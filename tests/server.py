"""A real server for tests: gunicorn with this repository's configuration, on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

ROOT = Path(__file__).parents[1]
GUNICORN = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py")
START_SECONDS = 30.0
STOP_SECONDS = 10.0


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until `condition()` is true, and return what it gave.

    Raises:
        AssertionError: it did not become true within `seconds`.
    """
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


class Server:
    """`gunicorn -c gunicorn.conf.py` in an environment of its own.

    Args:
        settings: environment variables besides WS_ADDR; 2 workers and a drain of half a second unless given.
        command: what is run instead, as leader of a session of its own.
        directory: where; this repository unless given.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] = GUNICORN,
        directory: Path = ROOT,
    ) -> None:
        self.port = free_port()
        self._command = command
        self._directory = directory
        self.settings = {"WS_WORKERS": "2", "WS_DRAIN_SECONDS": "0.5", **(settings or {})}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def http(self) -> str:
        """The base of its HTTP paths."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """Its WebSocket address."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def pid(self) -> int:
        """The arbiter."""
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start it and wait for nothing."""
        own = ("WS_", "JS_", "NATS_", "LOG_", "ENVIRONMENT")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        environ |= {"WS_ADDR": f"127.0.0.1:{self.port}", **self.settings}
        self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def start(self, *, ready: bool = True) -> Self:
        """Start it and wait until it is ready, or only alive."""
        self.launch()
        path = "/readyz" if ready else "/livez"
        try:
            wait_for(lambda: self._answers(path), START_SECONDS, f"200 from {path}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self

    def _answers(self, path: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the server ended:\n{self.log()}"
        with contextlib.suppress(OSError):
            return self.get(path)[0] == 200
        return False

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a GET, on a connection of its own."""
        request = urllib.request.Request(self.http + path, headers=dict(headers or {}))  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def json(self, path: str) -> Any:
        """The JSON body of a GET, whatever its status."""
        return json.loads(self.get(path)[2])

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        total, found = 0.0, False
        for line in self.get("/metrics")[2].decode().splitlines():
            if line.startswith((name + " ", name + "{")):
                total += float(line.rpartition(" ")[2])
                found = True
        assert found, f"no metric {name}"
        return total

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [worker["pid"] for worker in self.json("/stats")["workers"]]

    def processes(self) -> list[psutil.Process]:
        """The arbiter and all below it."""
        arbiter = psutil.Process(self.pid)
        return [arbiter, *arbiter.children(recursive=True)]

    def log(self) -> str:
        """What it has written so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the arbiter."""
        assert self._process is not None
        self._process.send_signal(number)

    def poll(self) -> int | None:
        """The arbiter's exit status; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the arbiter's end; its exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> None:
        """End it, with force if it does not end by itself."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            below = self.processes()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                for other in below:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        other.kill()
                process.wait(STOP_SECONDS)
        self._log.close()
        self._process = None

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self._process is not None:
            sys.stderr.write(self.log())
        self.stop()
