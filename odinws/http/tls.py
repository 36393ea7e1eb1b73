"""A WebSocket over TLS: two greenlets carry its bytes between the encrypted socket and a pair of plain ones.

The connection has one plain end and is like any other. That costs two greenlets, about 20 KB, and a copy of
each message, so many thousands of clients are better served behind a proxy that ends TLS.
"""

from __future__ import annotations

import contextlib
from typing import Any

import gevent
from gevent import socket
from gevent.ssl import SSLSocket, SSLWantReadError

__all__ = ["SSLSocket", "SSLWantReadError", "bridge"]

_CHUNK_BYTES = 16 << 10  # of one TLS record
_BUFFER_BYTES = 32 << 10  # of the plain pair: what TLS does not take soon waits in the connection's outbox
_SEND_SECONDS = 60.0  # for a peer that takes nothing, after its connection is gone


def bridge(encrypted: Any, owned: set[int]) -> int:
    """Begin to carry bytes.

    Args:
        encrypted: a `SSLSocket` behind its handshake; it is closed when the plain end is.
        owned: has its descriptor for as long as that is open.

    Returns:
        The descriptor of the plain end. Who takes it must close it.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    encrypted.settimeout(None)
    # gevent closes the socket when the request is done; a file of it keeps it open until that is closed too.
    keeper = encrypted.makefile("rb", buffering=0)
    owned.add(encrypted.fileno())
    gevent.spawn(_carry_in, encrypted, ours)
    gevent.spawn(_carry_out, ours, encrypted, keeper, owned)
    return int(theirs.detach())


def _carry_in(encrypted: Any, plain: Any) -> None:
    """From the peer to the connection; its end is told by an end of the stream."""
    with contextlib.suppress(OSError):
        while data := encrypted.recv(_CHUNK_BYTES):
            plain.sendall(data)
    with contextlib.suppress(OSError):
        plain.shutdown(socket.SHUT_WR)


def _carry_out(plain: Any, encrypted: Any, keeper: Any, owned: set[int]) -> None:
    """From the connection to the peer; when the connection is gone, so is the socket."""
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
