"""Starting and ending servers."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import psutil
import pytest

from bench import server
from bench.arms.base import Command

# Listens at the given port, with a child of its own.
LISTEN = """
import socket, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()[0].close()
"""
HTTP = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
answers = iter([503, 503, 200])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(next(answers)); self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(code: str, port: int, ready_path: str = "") -> Command:
    """A server made of a few lines."""
    return Command((sys.executable, "-c", code, str(port)), ready_path=ready_path)


def test_ports_are_free_and_differ() -> None:
    """Ports can be bound, are not given twice, and lie below those of outgoing connections."""
    ports = server.free_ports(3)
    assert len(set(ports)) == 3
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_server_and_its_children_end(tmp_path: Path) -> None:
    """Nothing that was started is left behind."""
    (port,) = server.free_ports(1)
    with server.running(python(LISTEN, port), port, tmp_path, "server") as process:
        socket.create_connection(("127.0.0.1", port)).close()
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        assert len(tree) == 2
    assert not any(each.is_running() for each in tree)


def test_ready_is_a_status_of_200(tmp_path: Path) -> None:
    """A server that answers 503 is waited for."""
    (port,) = server.free_ports(1)
    with server.running(python(HTTP, port, "/readyz"), port, tmp_path, "server"):
        assert (tmp_path / "server.log").read_text().count("503") == 2


def test_a_server_that_fails_is_quoted(tmp_path: Path) -> None:
    """The end of the log says why a server did not start."""
    (port,) = server.free_ports(1)
    with (
        pytest.raises(server.ServerError, match="no luck today"),
        server.running(python("raise SystemExit('no luck today')", port), port, tmp_path, "server"),
    ):
        pytest.fail("it cannot be ready")


def test_nats_starts(tmp_path: Path) -> None:
    """The nats-server beside odinws has JetStream, and its files in the trial's folder."""
    (port,) = server.free_ports(1)
    with (
        server.nats(port, tmp_path),
        socket.create_connection(("127.0.0.1", port)) as connection,
        connection.makefile("rb") as stream,
    ):
        assert b'"jetstream":true' in stream.readline()
    assert (tmp_path / "jetstream").exists()
