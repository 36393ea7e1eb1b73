"""TCP_INFO: what the kernel knows about a connection, so that nothing has to be counted here."""

from __future__ import annotations

import _socket
import fcntl
import socket
import struct
import sys
import termios
from typing import NamedTuple

# Of Linux's struct tcp_info, where tcpi_state is the first byte: tcpi_last_data_recv; tcpi_rtt;
# tcpi_bytes_acked and tcpi_bytes_received.
_AGE, _AGE_OFFSET = struct.Struct("=I"), 52
_RTT, _RTT_OFFSET = struct.Struct("=I"), 68
_BYTES, _BYTES_OFFSET = struct.Struct("=QQ"), 120
_SIZE = _BYTES_OFFSET + _BYTES.size
_ESTABLISHED = 1  # TCP_ESTABLISHED: the peer has not closed its end
_CLOSE = 7  # TCP_CLOSE: it has reset the connection, or the kernel has given it up


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
    info = _info(sock)
    if info is None:
        return None
    try:
        waiting = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return None
    (rtt,) = _RTT.unpack_from(info, _RTT_OFFSET)
    taken, received = _BYTES.unpack_from(info, _BYTES_OFFSET)
    return TcpInfo(rtt / 1e6, taken, received, int.from_bytes(waiting, sys.byteorder))


class Arrival(NamedTuple):
    """What the kernel knows about a client that was accepted.

    Attributes:
        has_sent: it has sent something.
        has_left: it has closed its end, or reset the connection.
        age_seconds: since its last bytes came, to 1 ms (1 to 10 ms on some kernels).
    """

    has_sent: bool
    has_left: bool
    age_seconds: float


def arrival(sock: _socket.socket) -> Arrival | None:
    """How a client stands; None as in `look`."""
    info = _info(sock)
    if info is None:
        return None
    _, received = _BYTES.unpack_from(info, _BYTES_OFFSET)
    (age_ms,) = _AGE.unpack_from(info, _AGE_OFFSET)
    return Arrival(received > 0, info[0] != _ESTABLISHED, age_ms / 1e3)


def is_dead(sock: _socket.socket) -> bool:
    """Whether the kernel has given a TCP socket up: who does not read or write would never hear of it."""
    info = _info(sock)
    return info is not None and info[0] == _CLOSE


def shut_down(descriptor: int) -> None:
    """End both directions. It is not closed: whoever has it after all must not find somebody else's there."""
    sock = _socket.socket(fileno=descriptor)
    try:
        sock.shutdown(_socket.SHUT_RDWR)
    except OSError:
        return
    finally:
        sock.detach()


def _info(sock: _socket.socket) -> bytes | None:
    """The kernel's struct; None as in `look`."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:
        return None
    return info if len(info) >= _SIZE else None
