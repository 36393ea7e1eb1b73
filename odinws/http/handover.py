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
import json
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

import structlog
from gevent.pywsgi import Input, WSGIHandler, format_date_time
from geventwebsocket.handler import WebSocketHandler
from gunicorn.workers.ggevent import PyWSGIHandler

from odinws.access.credentials import redact
from odinws.access.peer import UNIX
from odinws.errors import HandshakeError
from odinws.http import tls
from odinws.http.head import Fields, Head, HeadError, Reader, parse
from odinws.logs import clip

UPGRADE = "odinws.upgrade"  # environ key: the `Upgrade` of a response with status 101

_DRAIN_BYTES = 64 << 10  # at once
_DRAINED_READS = 4
_VERSION = "13"  # 7 and 8 were drafts
_KEY_BYTES = 16
_sha1 = functools.partial(hashlib.sha1, usedforsecurity=False)
_WITH_TOKENS = ("Authorization", "Cookie", "Sec-Websocket-Protocol")  # as `str.title` writes them
_OF_BODIES = ("Content-Type", "Content-Length")  # what Flask says of every answer
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n"
    b"%b\r\n"
)
_STREAM = b"HTTP/1.1 200 OK\r\nDate: %b\r\nConnection: close\r\n%b\r\n"
_IS_EVENT_SOURCE = re.compile(rb"\r\n(?i:Accept): ?text/event-stream\r\n")
_ORIGIN = re.compile(rb"\r\n(?i:Origin): ?([!-~]{1,300})\r\n")

log = structlog.get_logger("odinws.http.handover")


class Upgrade(NamedTuple):
    """The callbacks of an upgrade. Exactly one of the first two is called.

    Attributes:
        take: with the descriptor, for TLS a socket, which it must close, and what the client sent after its
            handshake.
        abandon: there is no socket, as the client is gone or the request was aborted.
        greet: called before one of these; returns what is sent behind the answer, as the first frames.
        code: the HTTP status of the answer after which the socket is handed over.
    """

    take: Callable[[int | _socket.socket, bytes], None]
    abandon: Callable[[], None]
    greet: Callable[[], bytes] = bytes
    code: int = HTTPStatus.SWITCHING_PROTOCOLS


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

    Heads are read and parsed by `odinws.http.head`. No body is read, as no route needs one: after a request
    that has one the connection is closed. Each wait has a deadline, which the listener enforces.

    Attributes:
        is_detached: whether the socket has been handed over.
    """

    is_detached = False
    rfile: Reader
    socket: Any
    headers: Any
    _is_further = False  # this request is not the first one of its connection
    _began = 0.0

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        super().__init__(sock, address, server, Reader(sock, server.heads))
        self._descriptor: int = sock.fileno()

    def handle(self) -> None:
        """Serve requests until one of both sides ends the connection, or it is handed over."""
        try:
            with contextlib.suppress(OSError):  # the client left, or was dropped
                while self.handle_one_request():
                    self._is_further = True
        finally:
            if not self.is_detached:  # else the descriptor may be another client's already
                self.server.forget(self._descriptor)
                self._close()
            self.server.balance.left(None if self.is_detached else self._descriptor)
            for name in ("socket", "rfile", "wsgi_input"):  # a cycle would keep them
                self.__dict__.pop(name, None)

    def handle_one_request(self) -> bool:
        """Serve a request; False: it was the last one, or none came."""
        try:
            head = self._head()
        except HeadError as error:
            self._reject(error)
            return False
        if head is None:
            return False
        self.command, self.path, self.request_version = head.method, head.target, head.version
        self.requestline = f"{head.method} {head.target} {head.version}"
        self.headers, self.close_connection = Fields(head.lines), head.closes
        self.application = self.server.application
        self.environ = environ = self.server.get_environ()
        environ["REQUEST_METHOD"] = head.method
        environ["SCRIPT_NAME"] = ""
        environ["PATH_INFO"] = unquote(head.path, encoding="latin-1")
        environ["QUERY_STRING"] = head.query
        environ["SERVER_PROTOCOL"] = head.version
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"] = self.client_address[0]
            environ["REMOTE_PORT"] = str(self.client_address[1])
        else:
            environ["REMOTE_ADDR"] = UNIX
        environ.update(head.environ)
        self.wsgi_input = environ["wsgi.input"] = Input(self.rfile, 0)
        environ["wsgi.input_terminated"] = True
        environ["gunicorn.sock"] = self.socket
        environ["RAW_URI"] = head.target
        if environ.get("CONTENT_LENGTH", "0").strip("0") or "HTTP_TRANSFER_ENCODING" in environ:
            self.close_connection = True
        self.handle_one_response()
        return not self.close_connection

    def _head(self) -> Head | None:
        """Wait for the next head, and then for the budget to serve it; None: the client has left."""
        server, reader, descriptor = self.server, self.rfile, self._descriptor
        if self._is_further and not reader.has_begun():
            server.kept.add(descriptor)
            if not reader.wait():
                return None
            server.kept.discard(descriptor)
        server.unheard.add(descriptor)
        head = reader.head()
        server.unheard.discard(descriptor)
        if head is None:
            return None
        server.wait(self._is_further)
        self._began = time.perf_counter()
        return parse(head)

    def _reject(self, error: HeadError) -> None:
        """Answer what is no request; what more comes of it is not looked at."""
        self.server.forget(self._descriptor)
        self.server.rejected(error.reason, self.client_address, why=str(error))
        self.server.unread.add(self._descriptor)
        self.socket.sendall(error_answer(error.status, error.reason, str(error)))

    def _close(self) -> None:
        """Close the socket. What is not read would make the kernel reset it, and the answer would be lost."""
        if isinstance(self.socket, tls.SSLSocket):
            tls.say_end(self.socket)
        drain(self.socket._sock)
        self.socket.close()

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        """As pywsgi's, unless the client is gone or too slow."""
        if isinstance(error, OSError):
            self.close_connection = True
        else:
            log.error("request failed", exc_info=(kind, error, trace))
            self._send_error_response_if_possible(HTTPStatus.INTERNAL_SERVER_ERROR)

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
        """As pywsgi's; after the response of an upgrade the socket is handed over."""
        upgrade: Upgrade | None = self.environ.get(UPGRADE)
        if upgrade is None or self.code != upgrade.code:
            super().process_result()
            return
        switches = self.code == HTTPStatus.SWITCHING_PROTOCOLS
        answer = (self._handshake() if switches else self._stream_head()) + upgrade.greet()
        self.headers_sent = self.connection_upgraded = self.close_connection = True
        self.server.unread.add(self._descriptor)
        sent = self.socket.send(answer)  # mostly all
        if sent < len(answer):
            self._sendall(answer[sent:])
        self.server.unread.discard(self._descriptor)
        upgrade.take(*self._detach())

    def _sendall(self, data: bytes) -> None:
        """As pywsgi's; a client that does not read it is dropped in time."""
        self.server.unread.add(self._descriptor)
        super()._sendall(data)
        self.server.unread.discard(self._descriptor)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """As pywsgi's; to switch protocols takes less. What the answer took is charged."""
        if self._is_further:
            self.server.queue.charge(time.perf_counter() - self._began)
        upgrade: Upgrade | None = self.environ.get(UPGRADE)
        if upgrade is None or not status.startswith(f"{upgrade.code:d} "):
            return super().start_response(status, headers, exc_info)
        self.code, self.status = upgrade.code, status.encode("latin-1")
        self.response_headers = headers
        return self.write

    def _handshake(self) -> bytes:
        """The head of the application's response, with the headers of an opening handshake."""
        key = self.environ["HTTP_SEC_WEBSOCKET_KEY"] + self.GUID
        accept = binascii.b2a_base64(_sha1(key.encode()).digest(), newline=False)
        return _SWITCH % (accept, self._fields(_OF_BODIES))

    def _stream_head(self) -> bytes:
        """The head of an answer without an end, which no proxy need take apart: not in chunks."""
        return _STREAM % (format_date_time(time.time()), self._fields(("Content-Length",)))

    def _fields(self, without: Collection[str]) -> bytes:
        """The headers of the application's response."""
        fields = [f"{name}: {value}\r\n" for name, value in self.response_headers if name not in without]
        if any("\r" in field[:-2] or "\n" in field[:-2] for field in fields):
            raise ValueError("a header of the answer has a line end")
        return "".join(fields).encode("latin-1")

    def _detach(self) -> tuple[int | _socket.socket, bytes]:
        """Detach the socket from the handler: returns its descriptor (TLS: a socket), and what was read."""
        sock, early = self.socket, self.rfile.take()
        self.server.balance.descriptors.discard(sock.fileno())
        detached = tls.TlsSocket(sock) if isinstance(sock, tls.SSLSocket) else sock.detach()
        self.socket, self.is_detached = None, True
        return detached, early

    def log_request(self) -> None:
        """Log the access, unless there was no request, or it became a connection, which has its own."""
        if not self.connection_upgraded and self.server.log.access_log.isEnabledFor(logging.INFO):
            self._prepare_log()
            super().log_request()

    def _prepare_log(self) -> None:
        """Remove tokens and cut what is long, so that no format of the access log can contain it."""
        environ = {
            name: clip(value) if isinstance(value, str) else value for name, value in self.environ.items()
        }
        for name in ("RAW_URI", "QUERY_STRING", "HTTP_REFERER"):
            if name in environ:
                environ[name] = redact(environ[name])
        for name in _WITH_TOKENS:
            environ.pop(f"HTTP_{name.upper().replace('-', '_')}", None)
        self.environ = environ
        self.headers = {
            name: clip(value) for name, value in self.headers.items() if name.title() not in _WITH_TOKENS
        }


def error_answer(status: int, error: str, message: str, fields: Mapping[str, str] | None = None) -> bytes:
    """A whole answer, without Flask: before a request is known, or where it would take too long."""
    body = json.dumps({"error": error, "message": message})
    more = "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{more}"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
        f"\r\n{body}"
    ).encode()


def retry_answer(head: bytes, seconds: int) -> bytes:
    """The answer to an EventSource that is to come back; to others `b""`.

    Any other answer than a stream ends it for good, and so does one that its page may not read.

    Args:
        head: what has come of the request.
    """
    if not head.startswith(b"GET /sse") or not _IS_EVENT_SOURCE.search(head):
        return b""
    origin = _ORIGIN.search(head)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n%b%b\r\n%b" % (
        b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Allow-Credentials: true\r\n" % origin[1]
        if origin
        else b"",
        b"Connection: close\r\n",
        b"retry: %d\n\n" % (1000 * seconds),
    )


def drain(sock: _socket.socket) -> None:
    """Throw away what has come to a socket, up to a bound."""
    with contextlib.suppress(OSError):
        for _ in range(_DRAINED_READS):
            if len(sock.recv(_DRAIN_BYTES, _socket.MSG_DONTWAIT)) < _DRAIN_BYTES:
                return
