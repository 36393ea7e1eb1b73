"""The bytes of RFC 6455, seen from a client. No input or output."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A  # first bytes of whole frames
_DEFLATED = 0x40  # in the first byte: compressed
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # of that key, both from RFC 6455 section 1.3
_OFFER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
_TAIL = b"\0\0\xff\xff"  # taken off each compressed message, and put back (RFC 7692 section 7.2.2)
_STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
_RETRY_AFTER = re.compile(rb"(?i)\r\nretry-after: *([0-9]+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")

Frame = tuple[int, bytes]  # first byte, payload

data_of = re.compile(
    rb'\{"type":"(?:[^"\\]|\\.)*","channel":"([^"\\]+)","seq":(\d+),"prev":(\d+),"ts":(\d+),"data":'
).match
"""Matches a data message: its channel, `seq`, `prev` and `ts`."""


class WireError(ValueError):
    """The server broke the rules."""


def upgrade(host: str, path: str, *, compression: bool = False, headers: str = "") -> bytes:
    """The request that opens a WebSocket; `headers` are lines with their ends."""
    # Each message must stand for itself then (RFC 7692).
    offer = f"Sec-WebSocket-Extensions: {_OFFER}\r\n" if compression else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}{offer}\r\n"
    ).encode()


class Answer(NamedTuple):
    status: int
    retry_after: str | None  # the header, if there is one
    head: bytes  # with the empty line behind it
    behind: bytes  # the body of a refusal, or the first frames

    @property
    def reason(self) -> str:
        """Why the server refuses, in one word of its own; "" where it does not say."""
        try:
            return str(json.loads(self.behind)["error"])
        except (ValueError, LookupError, TypeError):
            return ""


def answer(data: bytes) -> Answer | None:
    """Read an answer; None: it is not whole. Raises WireError: no HTTP, or another key is accepted."""
    head, end, behind = data.partition(b"\r\n\r\n")
    if not end:
        return None
    found = _STATUS.match(head)
    if not found:
        raise WireError(f"no HTTP: {data[:40]!r}")
    status = int(found[1])
    if status == 101 and _ACCEPT not in head:
        raise WireError("the upgrade was accepted with another key")
    length = _LENGTH.search(head)
    if status != 101 and length and len(behind) < int(length[1]):
        return None
    hint = _RETRY_AFTER.search(head)
    return Answer(status, hint[1].decode() if hint else None, head + end, behind)


def frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame of at most 65,535 bytes, masked with zeros: masking hides nothing here."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes((first,)) + length + b"\0\0\0\0" + payload


def command(kind: str, **data: object) -> bytes:
    return frame(TEXT, json.dumps({"type": kind, "data": data}).encode())


def subscribe(channels: Sequence[str], since: dict[str, int] | None = None, epoch: str = "") -> bytes:
    """The frame that subscribes, and resumes where `since` says what was heard last."""
    if since:
        return command("subscribe", channels=list(channels), since=since, epoch=epoch)
    return command("subscribe", channels=list(channels))


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """The whole frames at the head of `data`, and what is left. Raises WireError: a frame is masked."""
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
        stop = start + size
        if stop > end:
            break
        frames.append((data[at], data[start:stop]))
        at = stop
    return frames, data[at:]


def scan(data: bytes, kind: int = TEXT) -> tuple[list[Frame], bytes]:
    """The same of what this server sends, texts or binary frames, with what is compressed inflated.

    Raises WireError: a frame is masked, of the other kind or a fragment, or can't be inflated.
    """
    frames, rest = split(data)
    for index, (first, payload) in enumerate(frames):
        if first == kind | _DEFLATED:
            frames[index] = (kind, _inflated(payload))
        else:
            _check(first, kind)
    if rest:
        _check(rest[0], kind)
    return frames, rest


def _check(first: int, kind: int) -> None:
    if first not in (kind, CLOSE, PING, PONG, kind | _DEFLATED):
        raise WireError(f"a frame that begins with {first:#x}")


def _inflated(payload: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + _TAIL)
    except zlib.error as error:
        raise WireError(f"a frame that can't be inflated: {error}") from None
