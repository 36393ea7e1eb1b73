"""From an HTTP request to a raw socket: gevent-websocket's handshake, then the descriptor changes hands.

pywsgi's handler would read from a socket that it still has, close it when the request ends, and
gevent-websocket would send a close frame. So all three are prevented: the descriptor is detached, the
handler's `socket` is None, and the WebSocket object counts as closed. Bytes that the client sent behind
its handshake are in the handler's read buffer and go along.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gevent
from gevent.pywsgi import Input
from geventwebsocket.handler import WebSocketHandler
from gunicorn.workers.ggevent import PyWSGIHandler

from odinws.access.credentials import redact
from odinws.errors import HandshakeError
from odinws.http import tls

UPGRADE = "odinws.upgrade"  # environ key: a function that makes the handshake and hands the socket over

_HEAD_SECONDS = 10.0  # for a client to send the head of its request
_KEEP_ALIVE_SECONDS = 75.0  # between two requests: more than balancers keep idle connections for
_SEND_SECONDS = 30.0  # for a client to take an answer


class Upgraded(NamedTuple):
    """A socket after its handshake. Who takes it must close it."""

    descriptor: int
    early: bytes


class Handler(PyWSGIHandler, WebSocketHandler):  # type: ignore[misc]
    """pywsgi's handler whose application decides on the upgrade.

    gevent-websocket upgrades before it calls the application. Here the application is called as for any
    request, finds `UPGRADE` in its environ, and calls it when it admits the client.

    pywsgi waits for ever for the head of a request, for its body, and for a client to take the answer.
    Enough such clients would fill the pool and stop the server, so each wait has an end, and no body is
    read: nothing here takes one.
    """

    SUPPORTED_VERSIONS = ("13",)  # RFC 6455; 7 and 8 were drafts
    upgraded = False
    socket: Any
    _served = False

    def read_requestline(self) -> str:
        """As pywsgi's, for a limited time; then in turn with all else that the worker does."""
        self.socket.settimeout(None)
        with gevent.Timeout(_KEEP_ALIVE_SECONDS if self._served else _HEAD_SECONDS, TimeoutError()):
            line: str = super().read_requestline()
        self.server.queue.wait()
        self._served = True
        return line

    def read_request(self, raw_requestline: str) -> bool:
        """As pywsgi's, for a limited time; odd headers are the client's fault, not worth a traceback."""
        try:
            with gevent.Timeout(_HEAD_SECONDS, TimeoutError()):
                return bool(super().read_request(raw_requestline))
        except (http.client.HTTPException, IndexError) as error:  # IndexError: "HTTP/1"
            raise ValueError(f"malformed headers: {error}") from None

    def get_environ(self) -> dict[str, Any]:
        """As pywsgi's; a body stays unread, and the connection ends behind the answer."""
        environ: dict[str, Any] = super().get_environ()
        if self.content_length or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            self.wsgi_input = environ["wsgi.input"] = Input(self.rfile, 0)
        self.socket.settimeout(_SEND_SECONDS)
        return environ

    def handle(self) -> None:
        """As pywsgi's; a client that is gone before its answer is not worth a traceback."""
        balance, descriptor = self.server.balance, self.socket.fileno()
        balance.entered(descriptor)
        try:
            with contextlib.suppress(OSError):
                super().handle()
        finally:
            balance.left(None if self.upgraded else descriptor)

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        """As pywsgi's, unless the client is gone or too slow."""
        if isinstance(error, OSError):
            self.close_connection = True
        else:
            super().handle_error(kind, error, trace)

    def _handle_client_error(self, error: Exception) -> Any:
        """As pywsgi's, unless the client is gone or too slow: then nothing answers."""
        return None if isinstance(error, OSError) else super()._handle_client_error(error)

    def run_application(self) -> None:
        """Call the application; its answer to an upgraded request goes nowhere."""
        self.environ[UPGRADE] = self.upgrade
        super(WebSocketHandler, self).run_application()

    def upgrade(self, extensions: str, subprotocol: str | None) -> Upgraded:
        """Make the handshake and give the socket away. What the application answers then goes nowhere.

        Args:
            extensions: `Sec-WebSocket-Extensions` of the answer, "" for none.
            subprotocol: `Sec-WebSocket-Protocol` of the answer, None for none.

        Raises:
            HandshakeError: the request is not one of RFC 6455 section 4.2.1; nothing was sent.
            OSError: the client is gone.
        """
        self._check_request()
        try:
            answer = self.upgrade_websocket()
        except ValueError as error:  # binascii.Error, or it is not even ASCII
            raise HandshakeError(400, f"Sec-WebSocket-Key is not base64: {error}") from None
        websocket = self.environ.pop("wsgi.websocket", None)
        if websocket is None:
            self.status, self.headers_sent = None, False
            raise HandshakeError(400, str(answer[0]) if answer else "not a WebSocket handshake")
        websocket.closed = True
        websocket.handler = None  # else its __del__ looks for an application to tell, which takes 50 µs
        self.websocket = None
        self.upgraded = True
        if extensions:
            self.response_headers.append((b"Sec-WebSocket-Extensions", extensions.encode()))
        if subprotocol:
            self.response_headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode()))
        self.write(b"")  # sends the headers
        sock = self.socket
        sock.settimeout(0.0)  # so that peek returns what is there and does not wait
        try:
            early = self.rfile.peek()
        except tls.SSLWantReadError:  # the same as none, in TLS
            early = b""
        self.socket = None
        owned = self.server.balance.descriptors
        if isinstance(sock, tls.SSLSocket):
            return Upgraded(tls.bridge(sock, owned), early)
        owned.discard(sock.fileno())
        return Upgraded(sock.detach(), early)

    def _check_request(self) -> None:
        version = self.environ.get("HTTP_SEC_WEBSOCKET_VERSION", "")
        if version not in self.SUPPORTED_VERSIONS:
            headers = (("Sec-WebSocket-Version", ", ".join(self.SUPPORTED_VERSIONS)),)
            raise HandshakeError(426, f"WebSocket version {version[:20]!r} is not supported, 13 is", headers)
        if self.content_length or self.headers.get("Transfer-Encoding"):
            raise HandshakeError(400, "an upgrade request has no body")
        if self.request_version != "HTTP/1.1":
            raise HandshakeError(400, "an upgrade needs HTTP/1.1")

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """As pywsgi's; after the upgrade the application's answer is dropped."""
        if self.upgraded:
            return _drop
        write: Callable[[bytes], None] = super().start_response(status, headers, exc_info)
        return write

    def process_result(self) -> None:
        """As pywsgi's; after the upgrade the application's answer is dropped."""
        if not self.upgraded:
            super().process_result()

    def log_request(self) -> None:
        """One access line, unless it was no request, or became a connection, which has lines of its own."""
        if self.environ is not None and not self.upgraded:
            self._forget_tokens()
            super().log_request()

    def _forget_tokens(self) -> None:
        """Whatever the format of the access line asks for, it finds no token."""
        for name in ("RAW_URI", "QUERY_STRING", "HTTP_REFERER"):
            if name in self.environ:
                self.environ[name] = redact(self.environ[name])
        for name in ("Authorization", "Sec-WebSocket-Protocol"):
            self.environ.pop(f"HTTP_{name.upper().replace('-', '_')}", None)
            del self.headers[name]


def _drop(_: bytes | Iterable[bytes]) -> None:
    """A `write` that writes nothing."""
