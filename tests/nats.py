"""A real `nats-server` for tests, and whether a process lives."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import TracebackType

import psutil

from odinws.feed.embedded import FREE_PORT
from odinws.harness import nats


def alive(pid: int | None) -> bool:
    """Whether a process runs; a zombie, or one that is being reaped, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class NatsServer(nats.NatsServer):
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
        path = store_dir / "nats-server.conf"
        options = ("-c", str(path)) if config else ()
        super().__init__(store_dir, jetstream=jetstream, port=port, options=options)
        if config:
            path.write_text(config)

    def stop(self) -> None:
        """End the server in order (SIGTERM), by force after 5 s. Does nothing when it is down."""
        self.end(signal.SIGTERM, 5.0)

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing answers."""
        self.send_signal(signal.SIGSTOP)
        process = psutil.Process(self.pid)
        while process.status() != psutil.STATUS_STOPPED:  # until then it may still answer
            time.sleep(0.001)

    def resume(self) -> None:
        """Undo `pause`."""
        self.send_signal(signal.SIGCONT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
