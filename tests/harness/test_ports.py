"""Free ports."""

from __future__ import annotations

import socket

from odinws.harness.ports import free_port, free_ports


def test_ports_are_free_and_differ() -> None:
    """They can be bound, and are not given twice."""
    ports = free_ports(50)
    assert len(set(ports)) == 50
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_a_taken_port_is_not_given() -> None:
    """However often one asks."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        assert taken.getsockname()[1] not in free_ports(5_000)
