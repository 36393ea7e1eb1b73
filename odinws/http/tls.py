"""WebSocket over TLS: the socket of a connection, which encrypts what it sends.

It takes the place of the plain one, so a connection needs no greenlet and no other descriptor for TLS. What
OpenSSL keeps for each comes on top.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import ssl
from collections.abc import Iterable
from typing import Any

from gevent.ssl import SSLSocket

__all__ = ["HANDSHAKE", "SSLSocket", "TlsSocket", "say_end"]

HANDSHAKE = b"\x16"  # the type of the first record of a client

_RECORD_BYTES = 16 << 10  # the most that one record of TLS carries
_BUSY = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Closed:
    """In place of OpenSSL's object once the descriptor is closed."""

    def read(self, *_: Any) -> int:
        raise OSError(errno.EBADF, "the socket is closed")

    write = shutdown = read


_CLOSED = _Closed()


class TlsSocket(_socket.socket):
    """A non-blocking socket whose peer speaks TLS.

    OpenSSL takes a record as a whole, and insists on it: when the kernel has no room, the same bytes must
    come again. So they are kept here, and all but the last of them count as sent: that byte comes again
    first, as it belongs to a half-sent frame, which is never dropped.

    Args:
        encrypted: gevent's socket, after its TLS handshake; it is detached.
    """

    def __init__(self, encrypted: Any) -> None:
        self._openssl: Any = encrypted._sslobj
        self._carrier = encrypted._sock  # OpenSSL's object has a weak reference to it
        self._kept = b""
        super().__init__(fileno=encrypted.detach())

    def send(self, data: Any, flags: int = 0, /) -> int:
        """As a socket's. Raises BlockingIOError."""
        if not self._kept and len(data) <= _RECORD_BYTES:
            return self._write(data)
        taken = 0
        if self._kept:
            try:
                self._openssl.write(self._kept)
            except _BUSY:
                raise BlockingIOError from None
            self._kept, taken = b"", 1
        view = memoryview(data)
        while taken < len(view) and not self._kept:
            try:
                taken += self._write(view[taken : taken + _RECORD_BYTES])
            except BlockingIOError:
                break
        if not taken:
            raise BlockingIOError
        return taken

    def _write(self, data: bytes | memoryview) -> int:
        """Send one record."""
        try:
            return int(self._openssl.write(data))
        except _BUSY:
            if len(data) < 2:
                raise BlockingIOError from None
            self._kept = bytes(data)
            return len(data) - 1

    def sendmsg(self, buffers: Iterable[Any], *_: Any) -> int:
        """As a socket's, without ancillary data."""
        return self.send(b"".join(buffers))

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As a socket's; if it fills the buffer, there may be more that no event tells of."""
        try:
            return int(self._openssl.read(nbytes or len(buffer), buffer))
        except _BUSY:
            raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            return 0

    def shutdown(self, how: int, /) -> None:
        """As a socket's; the peer is told that this was the end."""
        self._say_end()
        super().shutdown(how)

    def close(self) -> None:
        """As a socket's; the peer is told that this was the end.

        OpenSSL would go on using the number of the descriptor.
        """
        self._say_end()
        self._openssl = _CLOSED
        super().close()

    def _say_end(self) -> None:
        """Send close_notify if there is room. For that the carrier must have the descriptor."""
        if self._openssl is _CLOSED:
            return
        carrier = self._carrier
        _socket.socket.__init__(carrier, self.family, self.type, self.proto, self.fileno())
        try:
            carrier.setblocking(False)
            self._openssl.shutdown()
        except OSError:  # also: the peer has not said so yet
            pass
        finally:
            carrier.detach()


def say_end(encrypted: Any) -> None:
    """Tell the peer of gevent's socket that this was the end (close_notify), if there is room to say it."""
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: it has been shut down
        encrypted._sslobj.shutdown()
