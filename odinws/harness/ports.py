"""Free ports of the loopback."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

from odinws.harness.process import ProcessError

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 10_000  # below are ports that services are known by


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody listens on now.

    They lie below the range from which the kernel takes ports for outgoing connections, so none of these
    takes one before the server does. They are drawn by lot, so that two who search at once rarely meet.
    Raises ProcessError when there are not so many.
    """
    lowest = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for port in random.sample(range(_FIRST, lowest), lowest - _FIRST):
            if len(found) == count:
                return found
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    raise ProcessError("no free ports")


def free_port() -> int:
    """One such port. Raises ProcessError."""
    return free_ports(1)[0]
