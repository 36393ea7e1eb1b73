"""WebSocket over TLS: two greenlets copy bytes between the encrypted socket and a pair of plain ones.

The connection gets a plain socket and is like any other. That costs two greenlets, about 20 KB, and a copy of
each message. For many thousands of clients, terminate TLS in a proxy.
"""

from __future__ import annotations

import contextlib
from typing import Any

import gevent
from gevent import socket
from gevent.ssl import SSLSocket

__all__ = ["SSLSocket", "bridge"]

_CHUNK_BYTES = 16 << 10  # one TLS record
_BUFFER_BYTES = 32 << 10  # of the plain pair; small, so that what waits is in the connection's outbox
_SEND_SECONDS = 60.0  # for a peer that reads nothing, after its connection has been closed


def bridge(encrypted: Any, owned: set[int]) -> int:
    """Start copying.

    Args:
        encrypted: an `SSLSocket` after its TLS handshake; it is closed when the plain end is.
        owned: contains its descriptor while that is open.

    Returns:
        The descriptor of the plain end. The caller must close it.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    encrypted.settimeout(None)
    # gevent closes the socket at the end of the request; a file object of it keeps it open.
    keeper = encrypted.makefile("rb", buffering=0)
    owned.add(encrypted.fileno())
    gevent.spawn(_carry_in, encrypted, ours)
    gevent.spawn(_carry_out, ours, encrypted, keeper, owned)
    return int(theirs.detach())


def _carry_in(encrypted: Any, plain: Any) -> None:
    """Copy from the peer to the connection; the end of the stream is passed on."""
    with contextlib.suppress(OSError):
        while data := encrypted.recv(_CHUNK_BYTES):
            plain.sendall(data)
    with contextlib.suppress(OSError):
        plain.shutdown(socket.SHUT_WR)


def _carry_out(plain: Any, encrypted: Any, keeper: Any, owned: set[int]) -> None:
    """Copy from the connection to the peer; the socket is closed when the connection is."""
    with contextlib.suppress(OSError):
        while data := plain.recv(_CHUNK_BYTES):
            with gevent.Timeout(_SEND_SECONDS, TimeoutError()):
                encrypted.sendall(data)
    with contextlib.suppress(OSError):
        encrypted.shutdown(socket.SHUT_RDWR)
    owned.discard(encrypted.fileno())
    keeper.close()
    encrypted.close()
    plain.close()
