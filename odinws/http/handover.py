"""The WSGI handler, and how it hands a socket over to become a WebSocket.

A route that admits a client answers 101, and puts an `Upgrade` into the environ, which takes the socket. The
handler completes the response by the handshake, sends it together with what the connection says first, and
hands the descriptor over.

Otherwise pywsgi's handler would read from the socket and close it at the end of the request. To prevent that,
the descriptor is detached, and the handler's `socket` is None. Bytes that the client sent after its handshake
are in the handler's read buffer, and are handed over too.
"""

from __future__ import annotations

import _socket
import base64
import binascii
import contextlib
import functools
import hashlib
import http.client
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from gevent.pywsgi import Input, WSGIHandler
from geventwebsocket.handler import WebSocketHandler
from gunicorn.workers.ggevent import PyWSGIHandler

from odinws.access.credentials import redact
from odinws.access.peer import UNIX
from odinws.errors import HandshakeError
from odinws.http import tls
from odinws.http.head import PlainHeaders, Reader

UPGRADE = "odinws.upgrade"  # environ key: the `Upgrade` of a response with status 101

_HEAD_SECONDS = 10.0  # for a client to send the head of its request
_KEEP_ALIVE_SECONDS = 75.0  # between two requests: longer than balancers keep idle connections
_SEND_SECONDS = 30.0  # for a client to read a response
_VERSION = "13"  # 7 and 8 were drafts
_KEY_BYTES = 16
_sha1 = functools.partial(hashlib.sha1, usedforsecurity=False)
_OF_BODIES = ("Content-Type", "Content-Length")  # what Flask says of every answer
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n"
    b"%b\r\n"
)


class Upgrade(NamedTuple):
    """The callbacks of an upgrade. Exactly one of the first two is called.

    Attributes:
        take: with the descriptor, for TLS a socket, which it must close, and what the client sent after its
            handshake.
        abandon: there is no socket, as the client is gone or the request was aborted.
        greet: called before one of these; returns what is sent behind the answer, as the first frames.
    """

    take: Callable[[int | _socket.socket, bytes], None]
    abandon: Callable[[], None]
    greet: Callable[[], bytes] = bytes


def check_handshake(environ: Mapping[str, Any]) -> None:
    """Check an opening handshake (RFC 6455 4.2.1), but not `Upgrade` and `Connection`: they chose the route.

    The route does this, so that errors look like those of other routes.

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
    rfile: Reader
    socket: Any
    _served = False

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        super().__init__(sock, address, server, Reader(sock))

    def handle_one_request(self) -> Any:
        """As pywsgi's; a plain upgrade request takes a shorter way to the application.

        In the end the handler is in the state, and the environ has the content, that pywsgi's way would have
        led to.
        """
        self.rfile.deadline = time.monotonic() + (_KEEP_ALIVE_SECONDS if self._served else _HEAD_SECONDS)
        self._served = True
        head = self.rfile.upgrade_head()
        if head is None:
            return super().handle_one_request()
        self.server.wait()
        self.command, self.path, self.request_version = "GET", head.target, "HTTP/1.1"
        self.requestline = f"GET {head.target} HTTP/1.1"
        self.headers, self.content_length, self.close_connection = PlainHeaders(head.lines), None, False
        self.wsgi_input = Input(self.rfile, None)
        self.application = self.server.application
        self.environ = environ = self.server.get_environ()
        environ["REQUEST_METHOD"] = "GET"
        environ["SCRIPT_NAME"] = ""
        environ["PATH_INFO"] = head.path
        environ["QUERY_STRING"] = head.query
        environ["SERVER_PROTOCOL"] = "HTTP/1.1"
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"] = self.client_address[0]
            environ["REMOTE_PORT"] = str(self.client_address[1])
        else:
            environ["REMOTE_ADDR"] = UNIX
        environ.update(head.headers)
        environ["wsgi.input"] = self.rfile
        environ["wsgi.input_terminated"] = False
        environ["gunicorn.sock"] = self.socket
        environ["RAW_URI"] = head.target
        self.socket.settimeout(_SEND_SECONDS)
        self.handle_one_response()
        return None if self.close_connection else True

    def read_requestline(self) -> str:
        """As pywsgi's; then wait for the budget of requests, as for the whole head."""
        line: str = super().read_requestline()
        self.server.wait()
        return line

    def read_request(self, raw_requestline: str) -> bool:
        """As pywsgi's, with a timeout; malformed headers are the client's fault, so no traceback."""
        self.rfile.deadline = time.monotonic() + _HEAD_SECONDS
        try:
            is_good = bool(super().read_request(raw_requestline))
        except (http.client.HTTPException, IndexError) as error:  # IndexError: "HTTP/1"
            raise ValueError(f"malformed headers: {error}") from None
        self.server.wait()
        return is_good

    def MessageClass(self, *arguments: Any) -> Any:  # noqa: N802 -- pywsgi's name
        """Read the headers."""
        lines = self.rfile.plain_lines()
        return super().MessageClass(*arguments) if lines is None else PlainHeaders(lines)

    def _headers(self) -> Iterable[tuple[str, str]]:
        """The headers as they are in the environ."""
        headers = self.headers
        return headers.environ_items() if isinstance(headers, PlainHeaders) else super()._headers()

    def get_environ(self) -> dict[str, Any]:
        """As pywsgi's; a body is not read, and the connection is closed after the response."""
        environ: dict[str, Any] = super().get_environ()
        environ.setdefault("REMOTE_ADDR", UNIX)
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
        upgrade: Upgrade = self.environ[UPGRADE]
        answer = self._handshake() + upgrade.greet()
        self.headers_sent = self.connection_upgraded = self.close_connection = True
        sent = self.socket.send(answer)  # mostly all
        if sent < len(answer):
            self._sendall(answer[sent:])
        upgrade.take(*self._detach())

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """As pywsgi's; to switch protocols takes less."""
        if not status.startswith("101 "):
            return super().start_response(status, headers, exc_info)
        self.code, self.status = HTTPStatus.SWITCHING_PROTOCOLS, status.encode("latin-1")
        self.response_headers = headers
        return self.write

    def _handshake(self) -> bytes:
        """The head of the application's response, with the headers of an opening handshake."""
        key = self.environ["HTTP_SEC_WEBSOCKET_KEY"] + self.GUID
        accept = binascii.b2a_base64(_sha1(key.encode()).digest(), newline=False)
        fields = [f"{name}: {value}\r\n" for name, value in self.response_headers if name not in _OF_BODIES]
        if any("\r" in field[:-2] or "\n" in field[:-2] for field in fields):
            raise ValueError("a header of the answer has a line end")
        return _SWITCH % (accept, "".join(fields).encode("latin-1"))

    def _detach(self) -> tuple[int | _socket.socket, bytes]:
        """Detach the socket from the handler: returns its descriptor (TLS: a socket), and what was read."""
        sock, early = self.socket, self.rfile.take()
        self.server.balance.descriptors.discard(sock.fileno())
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
