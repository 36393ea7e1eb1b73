"""A nats-server that is killed and started at will."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from odinws.harness.nats import NatsServer
from odinws.harness.process import ProcessError


def info(server: NatsServer) -> bytes:
    """What it says first."""
    with (
        socket.create_connection(("127.0.0.1", server.port)) as connection,
        connection.makefile("rb") as lines,
    ):
        return lines.readline()


def test_it_starts_with_jetstream(tmp_path: Path) -> None:
    """Its files lie in the folder it was given; unless it is told otherwise."""
    with NatsServer(tmp_path / "store") as server:
        assert b'"jetstream":true' in info(server)
        assert server.url == f"nats://127.0.0.1:{server.port}"
    assert (tmp_path / "store" / "jetstream").exists()
    with NatsServer(tmp_path / "bare", jetstream=False, options=("-n", "alone")) as server:
        assert b'"jetstream":true' not in info(server)
        assert b'"server_name":"alone"' in info(server)


def test_it_comes_back_on_its_port(tmp_path: Path) -> None:
    """Killed and started, it is at the same address."""
    with NatsServer(tmp_path) as server:
        port, pid = server.port, server.pid
        server.restart()
        assert server.port == port
        assert server.pid != pid
        assert info(server)


def test_one_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    """The end of its log says why, and nothing is left running."""
    server = NatsServer(tmp_path, options=("-c", str(tmp_path / "none.conf")))
    with pytest.raises(ProcessError, match=r"none.conf: no such file"):
        server.start()
    assert server.status is not None
