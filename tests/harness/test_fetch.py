"""Asking a server of this machine."""

from __future__ import annotations

import socket
import threading

import pytest

from odinws.harness import fetch
from odinws.harness.ports import free_port
from tests.harness.http_server import answering


def test_an_answer() -> None:
    """Status, headers and body, whatever the status."""
    with answering(404, b"none") as port:
        status, headers, body = fetch.get(port, "/where", {"X-Word": "hi"})
        assert (status, headers["X-Asked"], body) == (404, "/where hi", b"none")
        with pytest.raises(OSError, match="/where is answered with 404: none"):
            fetch.body(port, "/where")
        assert not fetch.answers(port, "/where")
        assert fetch.answers(port), "it listens"


def test_the_body_of_a_good_answer() -> None:
    """It is that of a status of 200."""
    with answering(200, b"all") as port:
        assert fetch.body(port, "/") == b"all"
        assert fetch.answers(port, "/")


def test_nobody_listens() -> None:
    """An OSError."""
    port = free_port()
    with pytest.raises(ConnectionRefusedError):
        fetch.get(port, "/")
    assert not fetch.answers(port)
    assert not fetch.answers(port, "/")


def test_what_is_not_http() -> None:
    """An OSError too, that names the path."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"SSH-2.0\r\n")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(OSError, match="/x is not answered: BadStatusLine"):
            fetch.get(listener.getsockname()[1], "/x")
