"""The WSGI handler, and how it hands a socket over to become a WebSocket.

A route that admits a client answers 101, and puts an `Upgrade` into the environ, which takes the socket. The
handler completes the response by gevent-websocket's handshake, sends it, and hands the descriptor over.

Otherwise pywsgi's handler would read from the socket and close it at the end of the request, and
gevent-websocket would send a close frame. To prevent that, the descriptor is detached, the handler's
`socket` is None, and the WebSocket object is marked as closed. Bytes that the client sent after its
handshake are in the handler's read buffer, and are handed over too.
"""

from __future__ import annotations

import _socket
import base64
import contextlib
import http.client
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import gevent
from gevent.pywsgi import Input, WSGIHandler
from geventwebsocket.handler import WebSocketHandler
from gunicorn.workers.ggevent import PyWSGIHandler

from odinws.access.credentials import redact
from odinws.errors import HandshakeError
from odinws.http import tls

UPGRADE = "odinws.upgrade"  # environ key: the `Upgrade` of a response with status 101

_HEAD_SECONDS = 10.0  # for a client to send the head of its request
_KEEP_ALIVE_SECONDS = 75.0  # between two requests: longer than balancers keep idle connections
_SEND_SECONDS = 30.0  # for a client to read a response
_VERSION = "13"  # 7 and 8 were drafts
_KEY_BYTES = 16


class Upgrade(NamedTuple):
    """The callbacks of an upgrade. Exactly one of the two is called.

    Attributes:
        take: with the descriptor, for TLS a socket, which it must close, and what the client sent after its
            handshake.
        abandon: there is no socket, as the client is gone or the request was aborted.
    """

    take: Callable[[int | _socket.socket, bytes], None]
    abandon: Callable[[], None]


def check_handshake(environ: Mapping[str, Any]) -> None:
    """Check an opening handshake (RFC 6455 4.2.1), but not `Upgrade` and `Connection`: they chose the route.

    The route does this, so that errors look like those of other routes. gevent-websocket, which completes the
    handshake afterwards, then finds nothing to refuse.

    Args:
        environ: the WSGI environ.

    Raises:
        HandshakeError: the request is not valid; with the status, message and headers of the response.
    """
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION", "")
    if version != _VERSION:
        headers = (("Sec-WebSocket-Version", _VERSION),)
        raise HandshakeError(426, f"WebSocket version {version[:20]!r} is not supported, 13 is", headers)
    if int(environ.get("CONTENT_LENGTH") or 0) or environ.get("HTTP_TRANSFER_ENCODING"):
        raise HandshakeError(400, "an upgrade request has no body")
    if environ["SERVER_PROTOCOL"] != "HTTP/1.1":
        raise HandshakeError(400, "an upgrade needs HTTP/1.1")
    if environ["REQUEST_METHOD"] != "GET":
        raise HandshakeError(400, "an upgrade request is a GET")
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""))
    except ValueError as error:  # binascii.Error, or it is not even ASCII
        raise HandshakeError(400, f"Sec-WebSocket-Key is not base64: {error}") from None
    if len(key) != _KEY_BYTES:
        raise HandshakeError(400, f"Sec-WebSocket-Key is not of {_KEY_BYTES} bytes")


class Handler(PyWSGIHandler, WebSocketHandler):  # type: ignore[misc]
    """pywsgi's handler, where the application decides on upgrades.

    pywsgi has no timeouts for the head of a request, for its body, or for a client to read the response.
    Enough such clients would fill the pool and block the server. So each wait has a timeout, and no body is
    read, as no route needs one.

    Attributes:
        is_detached: whether the socket has been handed over.
    """

    is_detached = False
    socket: Any
    _served = False

    def read_requestline(self) -> str:
        """As pywsgi's, with a timeout; then wait for the budget of requests, as for the whole head."""
        self.socket.settimeout(None)
        with gevent.Timeout(_KEEP_ALIVE_SECONDS if self._served else _HEAD_SECONDS, TimeoutError()):
            line: str = super().read_requestline()
        self.server.wait()
        self._served = True
        return line

    def read_request(self, raw_requestline: str) -> bool:
        """As pywsgi's, with a timeout; malformed headers are the client's fault, so no traceback."""
        try:
            with gevent.Timeout(_HEAD_SECONDS, TimeoutError()):
                is_good = bool(super().read_request(raw_requestline))
        except (http.client.HTTPException, IndexError) as error:  # IndexError: "HTTP/1"
            raise ValueError(f"malformed headers: {error}") from None
        self.server.wait()
        return is_good

    def get_environ(self) -> dict[str, Any]:
        """As pywsgi's; a body is not read, and the connection is closed after the response."""
        environ: dict[str, Any] = super().get_environ()
        if self.content_length or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            self.wsgi_input = environ["wsgi.input"] = Input(self.rfile, 0)
        self.socket.settimeout(_SEND_SECONDS)
        return environ

    def handle(self) -> None:
        """As pywsgi's; no traceback for a client that leaves before its response."""
        balance, descriptor = self.server.balance, self.socket.fileno()
        try:
            with contextlib.suppress(OSError):
                super().handle()
        finally:
            balance.left(None if self.is_detached else descriptor)

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        """As pywsgi's, unless the client is gone or too slow."""
        if isinstance(error, OSError):
            self.close_connection = True
        else:
            super().handle_error(kind, error, trace)

    def _handle_client_error(self, error: Exception) -> Any:
        """As pywsgi's, unless the client is gone or too slow: then there is no response."""
        return None if isinstance(error, OSError) else super()._handle_client_error(error)

    def _send_error_response_if_possible(self, error_code: int) -> None:
        """As pywsgi's, unless a response has begun already."""
        if self.headers_sent:
            self.close_connection = True
        else:
            super()._send_error_response_if_possible(error_code)

    def run_application(self) -> None:
        """As pywsgi's, without gevent-websocket's early handshake; abandons an unfinished upgrade."""
        try:
            WSGIHandler.run_application(self)
        finally:  # however the request ended, also by a kill
            upgrade: Upgrade | None = self.environ.get(UPGRADE)
            if upgrade is not None and not self.is_detached:
                upgrade.abandon()

    def process_result(self) -> None:
        """As pywsgi's; after a response with status 101 the socket is handed over."""
        if self.code != HTTPStatus.SWITCHING_PROTOCOLS:
            super().process_result()
            return
        self._send_handshake()
        self.environ[UPGRADE].take(*self._detach())

    def _send_handshake(self) -> None:
        """Send the application's response with gevent-websocket's headers."""
        headers = self.response_headers
        self.upgrade_websocket()  # calls `start_response`
        websocket = self.environ.pop("wsgi.websocket")
        websocket.closed = True
        websocket.handler = None  # else its __del__ notifies the application, which takes 50 µs
        self.websocket = None
        self.response_headers += headers
        self.write(b"")

    def _detach(self) -> tuple[int | _socket.socket, bytes]:
        """Detach the socket from the handler: returns its descriptor (TLS: a socket), and what was read."""
        sock = self.socket
        sock.settimeout(0.0)  # so that peek does not wait
        try:
            early = self.rfile.peek()
        except tls.SSLWantReadError:  # nothing was read, over TLS
            early = b""
        owned = self.server.balance.descriptors
        owned.discard(sock.fileno())
        detached = tls.TlsSocket(sock) if isinstance(sock, tls.SSLSocket) else sock.detach()
        self.socket, self.is_detached = None, True
        return detached, early

    def log_request(self) -> None:
        """Log the access, unless there was no request, or it became a connection, which has its own."""
        if self.environ is not None and not self.connection_upgraded:
            self._forget_tokens()
            super().log_request()

    def _forget_tokens(self) -> None:
        """Remove tokens, so that no format of the access log can contain one."""
        for name in ("RAW_URI", "QUERY_STRING", "HTTP_REFERER"):
            if name in self.environ:
                self.environ[name] = redact(self.environ[name])
        for name in ("Authorization", "Sec-WebSocket-Protocol"):
            self.environ.pop(f"HTTP_{name.upper().replace('-', '_')}", None)
            del self.headers[name]
