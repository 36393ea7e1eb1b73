"""permessage-deflate. An input is a `Sec-WebSocket-Extensions` header, and a payload at the same time.

An offer is answered with a window that zlib has and the parameters of RFC 7692, or with nothing. A payload is
inflated to no more than the bound or refused; deflated and inflated again it is what it was.
"""

from __future__ import annotations

import re

from odinws.errors import FrameError
from odinws.messages.deflate import NONE, Deflater, inflate, negotiate
from tests.fuzz.targets.base import MAX_BYTES

_HEADER = re.compile(
    r"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    r"(?:; server_max_window_bits=(9|1[0-5]))?"
)
_LARGEST_BYTES = 64 << 10
_BOUNDS = (100, MAX_BYTES)
_deflaters = (Deflater(9), Deflater(15))


def check(data: bytes) -> str:
    """Negotiate, inflate, and go there and back."""
    label = f"{_negotiated(data.decode('latin-1'))}; {' '.join(_inflated(data, most) for most in _BOUNDS)}"
    for deflater in _deflaters:
        assert inflate(deflater.deflate(data), MAX_BYTES) == data
    return label


def read(data: bytes) -> int:
    """Negotiate, and inflate to the largest message; what is inflated is charged."""
    negotiate(data.decode("latin-1"))
    try:
        return len(inflate(data, _LARGEST_BYTES))
    except FrameError:
        return _LARGEST_BYTES


def _negotiated(offers: str) -> str:
    agreement = negotiate(offers)
    if agreement.bits == 0:
        assert agreement == NONE
        return "none"
    assert "permessage-deflate" in offers.lower()
    match = _HEADER.fullmatch(agreement.header)
    assert match is not None, agreement.header
    assert agreement.bits == int(match[1] or 15)
    assert match[1] is None or f"server_max_window_bits={match[1]}" in _squeezed(offers)
    return agreement.header[-2:]


def _squeezed(offers: str) -> str:
    return re.sub(r'[\s"]', "", offers).lower()


def _inflated(payload: bytes, max_bytes: int) -> str:
    try:
        message = inflate(payload, max_bytes)
    except FrameError as error:
        return f"{error.reason.label}: {error.message}"
    assert len(message) <= max_bytes
    return "inflated"
