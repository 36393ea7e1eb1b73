"""Several hosts on one machine: three nats-servers as a cluster, two odinws servers, haproxy before them.

For trying (`make cluster`) and for tests. Everything listens on 127.0.0.1, keeps its data in one temporary
directory, and ends with the process that made it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from odinws.errors import OdinError
from odinws.feed.embedded import death_signal, find_nats_server

ROOT = Path(__file__).parents[2]
NODES = 3
HOSTS = 2
_READY_SECONDS = 40.0
_STOP_SECONDS = 20.0


class ClusterError(OdinError):
    """A part of the cluster is missing or does not come up."""


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def find_haproxy() -> str:
    """The program.

    Raises:
        ClusterError: it is not installed.
    """
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ClusterError("haproxy is not installed: apt-get install haproxy")
    return found


class Cluster:
    """Start it, use it as a context manager, end it.

    Args:
        settings: environment of the odinws servers, besides what makes them a cluster.

    Attributes:
        port: of the balancer.
        ports: of the odinws servers.
        node_ports: of the nats-servers.

    Raises:
        ClusterError: a part is missing, or does not come up.
    """

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self._settings = settings or {}
        self._haproxy = find_haproxy()
        self._nats = find_nats_server()
        self._directory = Path(tempfile.mkdtemp(prefix="odinws-cluster-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        ports = _free_ports(2 * NODES + HOSTS + 1)
        self.node_ports, self._routes = ports[:NODES], ports[NODES : 2 * NODES]
        self.ports, self.port = ports[2 * NODES : -1], ports[-1]

    @property
    def nats_url(self) -> str:
        """All nodes, comma-separated."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self.node_ports)

    def pid(self, name: str) -> int:
        """Of `nats-0`, `host-0`, `haproxy` and so on."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """What a part has written."""
        return (self._directory / f"{name}.log").read_text(errors="replace")

    def start(self) -> Self:
        """Start all, and wait until clients are served."""
        try:
            for number in range(NODES):
                self.start_node(number)
            for number in range(HOSTS):
                self.start_host(number)
            for port in self.ports:
                self._wait(port)
            environ = {
                "ODINWS_BIND": f"127.0.0.1:{self.port}",
                "ODINWS_ONE": f"127.0.0.1:{self.ports[0]}",
                "ODINWS_TWO": f"127.0.0.1:{self.ports[1]}",
            }
            self._launch("haproxy", [self._haproxy, "-db", "-f", str(ROOT / "conf/haproxy.cfg")], environ)
            self._wait(self.port)
        except BaseException:
            self.stop()
            raise
        return self

    def start_node(self, number: int) -> None:
        """Start a nats-server, also again after `kill`; it is not waited for."""
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        store = self._directory / f"js-{number}"
        command = [
            self._nats,
            "-a",
            "127.0.0.1",
            "-p",
            str(self.node_ports[number]),
            "-js",
            "-sd",
            str(store),
        ]
        command += ["-n", f"n{number}", "--cluster_name", "odinws", "--routes", routes]
        command += ["--cluster", f"nats://127.0.0.1:{self._routes[number]}"]
        self._launch(f"nats-{number}", command, {})

    def start_host(self, number: int) -> None:
        """Start an odinws server, also again after it has ended; it is not waited for."""
        environ = {
            "WS_WORKERS": "1",
            "WS_DRAIN_SECONDS": "2",
            **self._settings,
            "WS_ADDR": f"127.0.0.1:{self.ports[number]}",
            "NATS_URL": self.nats_url,
            "JS_STREAM_REPLICAS": str(NODES),
            "WS_TRUSTED_PROXIES": "127.0.0.1",
            "ENVIRONMENT": f"host-{number}",
        }
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
        self._launch(f"host-{number}", command, environ)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a part."""
        self._processes[name].send_signal(number)

    def wait(self, name: str, seconds: float = _STOP_SECONDS) -> int:
        """Wait for the end of a part; its exit status."""
        return self._processes[name].wait(seconds)

    def stop(self) -> None:
        """End all: the servers in order, then what they need."""
        hosts = [name for name in self._processes if name.startswith("host")]
        others = [name for name in self._processes if not name.startswith("host")]
        for names in (hosts, others):
            for name in names:
                if self._processes[name].poll() is None:
                    self._processes[name].terminate()
            for name in names:
                try:
                    self._processes[name].wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._processes[name].kill()
                    self._processes[name].wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _launch(self, name: str, command: list[str], environ: dict[str, str]) -> None:
        ours = ("WS_", "JS_", "NATS_", "ODINWS_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        with (self._directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=death_signal(),
            )

    def _wait(self, port: int) -> None:
        """Until 200 comes from /readyz."""
        until = time.monotonic() + _READY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                ended = [name for name, process in self._processes.items() if process.poll() is not None]
                if ended or time.monotonic() > until:
                    logs = "\n".join(f"--- {name}\n{self.log(name)[-2000:]}" for name in ended or ["host-0"])
                    raise ClusterError(f"no answer at 127.0.0.1:{port}; ended: {ended}\n{logs}") from None
                time.sleep(0.1)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
