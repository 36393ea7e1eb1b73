"""Several hosts on one machine: three nats-servers as a cluster, two odinws servers, haproxy before them.

For trying (`make cluster`) and for tests. Everything listens on 127.0.0.1, keeps its data in one temporary
directory, and ends with the process that made it.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path
from typing import Self

from odinws import resources
from odinws.errors import OdinError
from odinws.feed.embedded import find_nats_server
from odinws.harness import fetch
from odinws.harness.ports import free_ports
from odinws.harness.process import Process, ProcessError
from odinws.harness.server import Server, clean_environ

NODES = 3
HOSTS = 2
_READY_SECONDS = 40.0
STOP_SECONDS = 20.0


class ClusterError(OdinError):
    """A part of the cluster is missing or does not come up."""


def find_haproxy() -> str:
    """The program. Raises ClusterError when it is not installed."""
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ClusterError("haproxy is not installed: apt-get install haproxy")
    return found


class Cluster:
    """Start it and stop it, or use it as a context manager.

    Args:
        settings: environment of the odinws servers, besides what makes them a cluster.

    Attributes:
        hosts: the odinws servers.
        parts: `host-0`, `host-1`, `haproxy`, `nats-0` and so on; each can be ended and started again.

    Raises:
        ClusterError: a part is missing, or does not come up.
    """

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        haproxy = find_haproxy()
        self._directory = Path(tempfile.mkdtemp(prefix="odinws-cluster-"))
        ports = free_ports(2 * NODES + HOSTS + 1)
        # Of the nats-servers, the odinws servers, the balancer.
        self.node_ports, routes = ports[:NODES], ports[NODES : 2 * NODES]
        self.ports, self.port = ports[2 * NODES : -1], ports[-1]
        shared = {
            "WS_WORKERS": "1",
            "WS_DRAIN_SECONDS": "2",
            **(settings or {}),
            "NATS_URL": self.nats_url,
            "JS_STREAM_REPLICAS": str(NODES),
            "WS_TRUSTED_PROXIES": "127.0.0.1",
        }
        self.hosts = [
            Server({**shared, "ENVIRONMENT": f"host-{number}"}, self._log(f"host-{number}"), port=port)
            for number, port in enumerate(self.ports)
        ]
        binds = {"ODINWS_BIND": self.port, "ODINWS_ONE": self.ports[0], "ODINWS_TWO": self.ports[1]}
        # In the order of their end: the servers, then what they need.
        self.parts: dict[str, Process] = {f"host-{number}": host for number, host in enumerate(self.hosts)}
        self.parts["haproxy"] = Process(
            [haproxy, "-db", "-f", str(resources.find("conf/haproxy.cfg"))],
            self._log("haproxy"),
            environ=clean_environ({name: f"127.0.0.1:{port}" for name, port in binds.items()}),
        )
        for number in range(NODES):
            name = f"nats-{number}"
            self.parts[name] = Process(self._node_command(number, routes), self._log(name))

    @property
    def nats_url(self) -> str:
        """All nodes, comma-separated."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self.node_ports)

    def start(self) -> Self:
        """Start all, and wait until clients are served."""
        balancer = self.parts["haproxy"]
        try:
            for part in reversed(self.parts.values()):
                if part is not balancer:
                    part.start()
            for host in self.hosts:
                host.wait_ready(seconds=_READY_SECONDS)
            answers = partial(fetch.answers, self.port, "/readyz")
            balancer.start().wait_until(answers, _READY_SECONDS, "ready")
        except BaseException as error:  # Ctrl-C too: nobody else would end what has started
            self.stop()
            if isinstance(error, ProcessError):
                raise ClusterError(str(error)) from error
            raise
        return self

    def stop(self) -> None:
        for host in self.hosts:
            if host.pid:
                host.send_signal(signal.SIGTERM)  # they drain side by side
        for part in self.parts.values():
            part.end(seconds=STOP_SECONDS)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _node_command(self, number: int, routes: list[int]) -> list[str]:
        """A node of the cluster, which keeps its streams beside the logs."""
        store = str(self._directory / f"js-{number}")
        client = ["-a", "127.0.0.1", "-p", str(self.node_ports[number]), "-js", "-sd", store]
        urls = [f"nats://127.0.0.1:{port}" for port in routes]
        cluster = ["-n", f"n{number}", "--cluster_name", "odinws", "--routes", ",".join(urls)]
        return [find_nats_server(), *client, *cluster, "--cluster", urls[number]]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
