"""Validates the opening handshake of a client (RFC 6455 section 4.2.1). Pure.

The route does this, so that errors look like those of other routes. gevent-websocket, which completes the
handshake afterwards, then finds nothing to refuse.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from odinws.errors import HandshakeError

_VERSION = "13"  # 7 and 8 were drafts
_KEY_BYTES = 16


def check(environ: Mapping[str, Any]) -> None:
    """Check all but `Upgrade` and `Connection`, by which the route was selected.

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
