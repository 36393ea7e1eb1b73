"""The bytes of RFC 6455, seen from a client. No input or output."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Sequence

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A  # first bytes of whole frames
_DEFLATED = 0xC1  # text, compressed
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # of that key, both from RFC 6455 section 1.3
_OFFER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
_TAIL = b"\0\0\xff\xff"  # taken off each compressed message, and put back (RFC 7692 section 7.2.2)
_STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
_RETRY_AFTER = re.compile(rb"(?i)\r\nretry-after: *([0-9]+)")

Frame = tuple[int, bytes]  # first byte, payload


class WireError(ValueError):
    """The server broke the rules."""


def upgrade(host: str, path: str, *, compression: bool = False) -> bytes:
    """The request that opens a WebSocket.

    Args:
        compression: whether it is offered; each message must stand for itself then (RFC 7692).
    """
    offer = f"Sec-WebSocket-Extensions: {_OFFER}\r\n" if compression else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    ).encode()


def answer(data: bytes) -> tuple[int, str | None, int]:
    """The head of the answer to an upgrade.

    Returns:
        Status, `Retry-After` if there is one, and where the frames begin; status 0: the head is not whole.

    Raises:
        WireError: it is no HTTP, or accepts another key.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0, None, 0
    found = _STATUS.match(data)
    if not found:
        raise WireError(f"no HTTP: {data[:40]!r}")
    status = int(found[1])
    if status == 101 and _ACCEPT not in data[:end]:
        raise WireError("the upgrade was accepted with another key")
    hint = _RETRY_AFTER.search(data, 0, end)
    return status, hint[1].decode() if hint else None, end + 4


def frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame of at most 65,535 bytes, masked with zeros: masking hides nothing here."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes((first,)) + length + b"\0\0\0\0" + payload


def command(kind: str, **data: object) -> bytes:
    """The frame of a command."""
    return frame(TEXT, json.dumps({"type": kind, "data": data}).encode())


def subscribe(channels: Sequence[str], since: dict[str, int] | None = None, epoch: str = "") -> bytes:
    """The frame that subscribes, and resumes where `since` says what was heard last."""
    if since:
        return command("subscribe", channels=list(channels), since=since, epoch=epoch)
    return command("subscribe", channels=list(channels))


def scan(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the head of `data`, and what is left.

    Raises:
        WireError: a frame is masked, or a fragment: this server sends none. Or it can't be inflated.
    """
    frames: list[Frame] = []
    at, end = 0, len(data)
    while end - at >= 2:
        size, start = data[at + 1], at + 2
        if size >= 126:
            if size > 127:
                raise WireError("a server's frame is masked")
            start += 2 if size == 126 else 8
            if end < start:
                break
            size = int.from_bytes(data[at + 2 : start], "big")
        first = data[at]
        if first not in (TEXT, CLOSE, PING, PONG, _DEFLATED):
            raise WireError(f"a frame that begins with {first:#x}")
        stop = start + size
        if stop > end:
            break
        payload = data[start:stop]
        frames.append((TEXT, _inflated(payload)) if first == _DEFLATED else (first, payload))
        at = stop
    return frames, data[at:]


def _inflated(payload: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + _TAIL)
    except zlib.error as error:
        raise WireError(f"a frame that can't be inflated: {error}") from None
