"""`odinws.http.handover`: what is refused and how; gevent-websocket accepts everything else."""

from __future__ import annotations

import base64
import io
import socket
from typing import Any

import pytest
from geventwebsocket.handler import WebSocketHandler
from hypothesis import given
from hypothesis import strategies as st

from odinws.errors import HandshakeError
from odinws.http.handover import check_handshake
from tests.wire import ACCEPT, KEY

GOOD = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": KEY,
}


class Oracle(WebSocketHandler):  # type: ignore[misc]
    """gevent-websocket's handshake of one request."""

    application = None

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ: dict[str, Any] = dict(environ)
        self.request_version = environ["SERVER_PROTOCOL"]
        self.socket, self.rfile = socket.socket(), io.BytesIO()
        self.server = type("Server", (), {})()
        self.answer: tuple[str, dict[str, str]] | None = None
        self.upgrade_websocket()
        self.socket.close()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        """Note the answer."""
        self.answer = status, dict(headers)


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426, "WebSocket version '8' is not supported, 13 is"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "x" * 99}, 426, f"WebSocket version '{'x' * 20}' is not supported"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, 426, "WebSocket version '' is not supported, 13 is"),
        ({"CONTENT_LENGTH": "5"}, 400, "an upgrade request has no body"),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 400, "an upgrade request has no body"),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 400, "an upgrade needs HTTP/1.1"),
        ({"REQUEST_METHOD": "HEAD"}, 400, "an upgrade request is a GET"),
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, 400, "Sec-WebSocket-Key is not of 16 bytes"),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, 400, "Sec-WebSocket-Key is not of 16 bytes"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "YWJj"}, 400, "Sec-WebSocket-Key is not of 16 bytes"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "YWJ"}, 400, "Sec-WebSocket-Key is not base64: "),
        ({"HTTP_SEC_WEBSOCKET_KEY": "schl\u00fcssel"}, 400, "Sec-WebSocket-Key is not base64: "),
    ],
)
def test_what_is_refused(changes: dict[str, str | None], status: int, message: str) -> None:
    """With the status, a message that says why, and the version to use if that is the matter."""
    environ = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(HandshakeError) as refused:
        check_handshake(environ)
    assert refused.value.status == status
    assert refused.value.message.startswith(message)
    assert refused.value.headers == ((("Sec-WebSocket-Version", "13"),) if status == 426 else ())


def test_what_is_accepted() -> None:
    """The example of RFC 6455, also with a body of nothing; gevent-websocket's answer is that of the RFC."""
    check_handshake(GOOD)
    check_handshake({**GOOD, "CONTENT_LENGTH": "0"})
    assert Oracle(GOOD).answer == (
        "101 Switching Protocols",
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT},
    )


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "REQUEST_METHOD": st.sampled_from(["GET", "HEAD"]),
            "SERVER_PROTOCOL": st.sampled_from(["HTTP/1.0", "HTTP/1.1"]),
            "HTTP_SEC_WEBSOCKET_VERSION": st.sampled_from(["7", "13", ""]),
            "HTTP_SEC_WEBSOCKET_KEY": st.text(max_size=30)
            | st.binary(min_size=15, max_size=17).map(lambda key: base64.b64encode(key).decode())
            | st.binary(min_size=16, max_size=16).map(lambda key: f" {base64.b64encode(key).decode()}\t"),
        },
    )
)
def test_gevent_websocket_refuses_nothing_more(changes: dict[str, str]) -> None:
    """What passes here gets its 101: the handler need not expect anything else."""
    environ = {**GOOD, **changes}
    try:
        check_handshake(environ)
    except HandshakeError:
        return
    answer = Oracle(environ).answer
    assert answer is not None
    assert answer[0] == "101 Switching Protocols"
