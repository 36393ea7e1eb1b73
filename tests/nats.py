"""A real `nats-server` for tests, and whether a process lives."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from odinws.feed.embedded import FREE_PORT, HOST, death_signal, find_nats_server, read_port, server_command

READY_SECONDS = 15.0


def alive(pid: int | None) -> bool:
    """Whether a process runs; a zombie, or one that is being reaped, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class NatsServer:
    """A server that a test starts, kills and restarts at will; nobody restarts it behind the test's back.

    Args:
        store_dir: Where it keeps JetStream's data, its log and its ports file. Made if missing.
        jetstream: Whether JetStream is on.
        port: The client port; -1 takes a free one, which later restarts keep.
        config: What a configuration file says besides.

    The server dies with the thread that started it (Linux), so start it from the main thread.
    """

    def __init__(
        self, store_dir: Path, *, jetstream: bool = True, port: int = FREE_PORT, config: str = ""
    ) -> None:
        self.port = port
        self._store_dir = store_dir
        self._config = config
        self._jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address clients use; valid from the first start on, also while the server is down."""
        return f"nats://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the server that runs, or of the last one."""
        assert self._process is not None, "start() comes first"
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything the server wrote so far, over all its lives."""
        return (self._store_dir / "nats-server.log").read_text(errors="replace")

    def start(self) -> Self:
        """Start the server and return when it accepts connections."""
        assert self._process is None or self._process.poll() is not None, "already running"
        self._store_dir.mkdir(parents=True, exist_ok=True)
        binary = find_nats_server()
        command = server_command(binary, self._store_dir, self.port, jetstream=self._jetstream)
        if self._config:
            path = self._store_dir / "nats-server.conf"
            path.write_text(self._config)
            command += ["-c", str(path)]
        with (self._store_dir / "nats-server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=death_signal(),
            )
        deadline = time.monotonic() + READY_SECONDS
        while (port := read_port(binary, self._store_dir, self._process.pid)) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"nats-server did not come up: {self.log[-2000:]}")
            time.sleep(0.01)
        self.port = port
        return self

    def kill(self) -> None:
        """End the server at once, as a crash does (SIGKILL). Does nothing when it is down."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order (SIGTERM), by force after 5 s. Does nothing when it is down."""
        self._end(signal.SIGTERM)

    def restart(self) -> Self:
        """Kill the server if it runs, and start it on the same port with the same data."""
        self.kill()
        return self.start()

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "start() comes first"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
            return
        self._process.kill()
        self._process.wait()
