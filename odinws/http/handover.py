"""The WSGI handler, and how a socket leaves it to become a WebSocket.

A route that lets a client in answers 101 and names in its environ who takes the socket (`Upgrade`). The
handler completes that answer by gevent-websocket's handshake, sends it, and hands the descriptor over.

pywsgi's handler would read from a socket that it still has, close it when the request ends, and
gevent-websocket would send a close frame. So all three are prevented: the descriptor is detached, the
handler's `socket` is None, and the WebSocket object counts as closed. Bytes that the client sent behind
its handshake are in the handler's read buffer and go along.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

import gevent
from gevent.pywsgi import Input, WSGIHandler
from geventwebsocket.handler import WebSocketHandler
from gunicorn.workers.ggevent import PyWSGIHandler

from odinws.access.credentials import redact
from odinws.http import tls

UPGRADE = "odinws.upgrade"  # environ key: the `Upgrade` that belongs to an answer with status 101

_HEAD_SECONDS = 10.0  # for a client to send the head of its request
_KEEP_ALIVE_SECONDS = 75.0  # between two requests: more than balancers keep idle connections for
_SEND_SECONDS = 30.0  # for a client to take an answer


class Upgrade(NamedTuple):
    """What becomes of a socket. Exactly one of the two is called.

    Attributes:
        take: with the descriptor, which it must close, and what the client sent behind its handshake.
        abandon: there is no socket to take, as the client is gone or its request was ended.
    """

    take: Callable[[int, bytes], None]
    abandon: Callable[[], None]


class Handler(PyWSGIHandler, WebSocketHandler):  # type: ignore[misc]
    """pywsgi's handler whose application decides on the upgrade.

    pywsgi waits for ever for the head of a request, for its body, and for a client to take the answer.
    Enough such clients would fill the pool and stop the server, so each wait has an end, and no body is
    read: nothing here takes one.

    Attributes:
        is_detached: the socket belongs to somebody else.
    """

    is_detached = False
    socket: Any
    _served = False

    def read_requestline(self) -> str:
        """As pywsgi's, for a limited time; then in turn with all else that the worker does."""
        self.socket.settimeout(None)
        with gevent.Timeout(_KEEP_ALIVE_SECONDS if self._served else _HEAD_SECONDS, TimeoutError()):
            line: str = super().read_requestline()
        self.server.budget.wait()
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
            balance.left(None if self.is_detached else descriptor)

    def handle_error(self, kind: Any, error: Any, trace: Any) -> None:
        """As pywsgi's, unless the client is gone or too slow."""
        if isinstance(error, OSError):
            self.close_connection = True
        else:
            super().handle_error(kind, error, trace)

    def _handle_client_error(self, error: Exception) -> Any:
        """As pywsgi's, unless the client is gone or too slow: then nothing answers."""
        return None if isinstance(error, OSError) else super()._handle_client_error(error)

    def _send_error_response_if_possible(self, error_code: int) -> None:
        """As pywsgi's, unless another answer has begun."""
        if self.headers_sent:
            self.close_connection = True
        else:
            super()._send_error_response_if_possible(error_code)

    def run_application(self) -> None:
        """As pywsgi's: gevent-websocket's would make the handshake first. No upgrade is left half made."""
        try:
            WSGIHandler.run_application(self)
        finally:  # whatever ended the request, also a kill
            upgrade: Upgrade | None = self.environ.get(UPGRADE)
            if upgrade is not None and not self.is_detached:
                upgrade.abandon()

    def process_result(self) -> None:
        """As pywsgi's; with the answer 101 the socket changes hands."""
        if self.code != HTTPStatus.SWITCHING_PROTOCOLS:
            super().process_result()
            return
        self._send_handshake()
        self.environ[UPGRADE].take(*self._detach())

    def _send_handshake(self) -> None:
        """Send the application's answer with gevent-websocket's headers."""
        headers = self.response_headers
        self.upgrade_websocket()  # calls `start_response`
        websocket = self.environ.pop("wsgi.websocket")
        websocket.closed = True
        websocket.handler = None  # else its __del__ looks for an application to tell, which takes 50 µs
        self.websocket = None
        self.response_headers += headers
        self.write(b"")

    def _detach(self) -> tuple[int, bytes]:
        """Take the socket away from the handler: its descriptor, and what was read of it already."""
        sock = self.socket
        sock.settimeout(0.0)  # so that peek returns what is there and does not wait
        try:
            early = self.rfile.peek()
        except tls.SSLWantReadError:  # the same as none, in TLS
            early = b""
        owned = self.server.balance.descriptors
        if isinstance(sock, tls.SSLSocket):
            descriptor = tls.bridge(sock, owned)
        else:
            owned.discard(sock.fileno())
            descriptor = sock.detach()
        self.socket, self.is_detached = None, True
        return descriptor, early

    def log_request(self) -> None:
        """One access line, unless it was no request, or became a connection, which has lines of its own."""
        if self.environ is not None and not self.connection_upgraded:
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
