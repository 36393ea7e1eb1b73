"""TCP_INFO: what the kernel knows about a connection, so that nothing has to be counted here."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from typing import NamedTuple

# Of Linux's struct tcp_info: tcpi_rtt; tcpi_bytes_acked and tcpi_bytes_received.
_RTT, _RTT_OFFSET = struct.Struct("=I"), 68
_BYTES, _BYTES_OFFSET = struct.Struct("=QQ"), 120
_SIZE = _BYTES_OFFSET + _BYTES.size


class TcpInfo(NamedTuple):
    """The kernel's figures for one connection.

    Attributes:
        rtt_seconds: smoothed round-trip time.
        bytes_taken: acknowledged by the peer's kernel.
        bytes_received: from the peer.
        bytes_waiting: in the send buffer, not acknowledged yet.
    """

    rtt_seconds: float
    bytes_taken: int
    bytes_received: int
    bytes_waiting: int


def look(sock: socket.socket) -> TcpInfo | None:
    """The current figures; None if the socket is closed, is not TCP, or the system is not Linux."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
        waiting = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return None
    if len(info) < _SIZE:
        return None
    (rtt,) = _RTT.unpack_from(info, _RTT_OFFSET)
    taken, received = _BYTES.unpack_from(info, _BYTES_OFFSET)
    return TcpInfo(rtt / 1e6, taken, received, int.from_bytes(waiting, sys.byteorder))
