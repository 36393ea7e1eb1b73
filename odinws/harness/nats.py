"""A `nats-server` that is started, killed and restarted at will; nobody restarts it behind our back."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from odinws.feed.embedded import FREE_PORT, HOST, find_nats_server, read_port, server_command
from odinws.harness.process import Process

READY_SECONDS = 15.0


class NatsServer(Process):
    """Use it as a context manager, or with `start` and `end`. It can be started again on its port.

    Args:
        directory: where it keeps JetStream's data, its log and its ports file; made if missing.
        port: the client port; -1 takes a free one, which later starts keep.
        options: further arguments of nats-server.

    Raises:
        NatsServerNotFoundError: there is no nats-server.
    """

    def __init__(
        self,
        directory: Path,
        *,
        jetstream: bool = True,
        port: int = FREE_PORT,
        options: Sequence[str] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port
        self._store = directory
        self._jetstream = jetstream
        self._options = options
        self._binary = find_nats_server()
        super().__init__((), directory / "nats-server.log")

    @property
    def url(self) -> str:
        """The address clients use; valid from the first start on, also while the server is down."""
        return f"nats://{HOST}:{self.port}"

    def start(self) -> Self:
        """Start it and return when it accepts connections.

        Raises ProcessError, with nothing left running, when it ends or takes longer than `READY_SECONDS`.
        """
        self.launch()
        try:
            self.port = self.wait_until(
                lambda: read_port(self._binary, self._store, self.pid) or 0, READY_SECONDS, "ready"
            )
        except BaseException:  # Ctrl-C too: nobody else would end it
            self.kill()
            raise
        return self

    def launch(self) -> None:
        """Start it and wait for nothing."""
        command = server_command(self._binary, self._store, self.port, jetstream=self._jetstream)
        self.command = (*command, *self._options)
        super().start()

    def kill(self) -> None:
        """End it at once, as a crash does. Does nothing when it is down."""
        self.end(signal.SIGKILL)

    def restart(self) -> Self:
        """Kill it if it runs, and start it on the same port with the same data."""
        self.kill()
        return self.start()
