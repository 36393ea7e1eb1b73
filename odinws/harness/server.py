"""An odinws server as a process: gunicorn with our configuration, on a port of its own."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from odinws import resources
from odinws.harness import fetch
from odinws.harness.fetch import Answer
from odinws.harness.ports import free_ports
from odinws.harness.process import Process
from odinws.harness.prometheus import Metrics

CONFIG = "python:odinws.gunicorn_conf"
START_SECONDS = 30.0
# Variables that odinws, its strategies under test and Locust read: a server gets none that it was not given.
PREFIXES = ("WS_", "JS_", "NATS_", "LOG_", "ENVIRONMENT", "ODINWS_", "SABOTAGE_", "LOCUST_")


def clean_environ(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what odinws reads, and with `settings`; it imports the odinws that we are."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
    ours = str(resources.PACKAGES)
    if ours != sysconfig.get_path("purelib"):  # not installed: nobody else finds it
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, [ours, inherited.get("PYTHONPATH")]))
    return {**inherited, **settings}


def gunicorn(config: str = CONFIG) -> tuple[str, ...]:
    """The command of a server with that configuration of gunicorn."""
    return (sys.executable, "-m", "gunicorn", "-c", config)


class Server(Process):
    """`start` it, `wait_ready`, ask it, and `end` it; or use it as a context manager, which waits.

    Args:
        settings: its variables besides WS_ADDR and WS_ADMIN_ADDR.
        port: where it listens on 127.0.0.1; a free one unless given.
        has_admin_plane: False: an odinws of before, whose own port tells what is inside.
        ready_path: answers 200 once it is ready; empty: it is when its port accepts.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        log: Path,
        *,
        port: int | None = None,
        command: Sequence[str] | None = None,
        directory: Path | None = None,
        ready_path: str = "/readyz",
        has_admin_plane: bool = True,
    ) -> None:
        self._ready_path = ready_path
        free, admin = free_ports(2)
        self.port = free if port is None else port
        self.settings = {
            "WS_ADDR": f"127.0.0.1:{self.port}",
            **({"WS_ADMIN_ADDR": f"127.0.0.1:{admin}"} if has_admin_plane else {}),
            **settings,
        }
        super().__init__(
            command or gunicorn(), log, environ=clean_environ(self.settings), directory=directory
        )

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_port(self) -> int:
        """Of its admin plane."""
        return int(self.settings.get("WS_ADMIN_ADDR", self.settings["WS_ADDR"]).rpartition(":")[2])

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def wait_ready(self, path: str = "/readyz", seconds: float = START_SECONDS) -> None:
        """Wait for 200 from `path`. Raises ProcessError when it ends, or takes longer than `seconds`."""
        self.wait_until(lambda: fetch.answers(self.port, path), seconds, "ready")

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Status, headers and body of a GET, on a connection of its own. Raises OSError."""
        return fetch.get(self.port, path, headers)

    def ask(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The same of its admin plane, with its token if it has one."""
        token = self.settings.get("WS_ADMIN_TOKEN")
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return fetch.get(self.admin_port, path, {**bearer, **(headers or {})})

    def json(self, path: str) -> Any:
        """What its admin plane answers in JSON, whatever its status. Raises OSError."""
        return json.loads(self.ask(path).body)

    def metrics(self) -> Metrics:
        """What it tells at /metrics. Raises OSError."""
        return Metrics(fetch.good("/metrics", self.ask("/metrics")).decode())

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready(self._ready_path)
        except BaseException:  # Ctrl-C too: there is no `__exit__` after this
            self.end()
            raise
        return self
