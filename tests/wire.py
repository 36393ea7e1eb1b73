"""The client's side of the wire, by hand: bytes of RFC 6455 as a test wants them, right or wrong."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from typing import Any, NamedTuple, Self

from odinws.swarm import frames

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # of that key, both from RFC 6455 section 1.3
_MASK = b"\x37\xfa\x21\x3d"
DEFAULT_SECONDS = 60.0  # a busy machine is slow


class Frame(NamedTuple):
    """One frame from the server, or its end of the stream.

    Attributes:
        head: the first byte: FIN, reserved bits, opcode; -1 at the end of the stream.
    """

    head: int
    payload: bytes

    @property
    def opcode(self) -> int:
        """The opcode; -1 at the end of the stream."""
        return self.head & 0x0F if self.head >= 0 else -1

    @property
    def json(self) -> Any:
        """The payload of a text frame."""
        assert self.opcode == TEXT, self
        return json.loads(self.payload)

    @property
    def code(self) -> int:
        """The code of a close frame; 1005 without one."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


END = Frame(-1, b"")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: bytes | None = None,
) -> bytes:
    """A client's frame.

    Args:
        reserved: the three reserved bits, 0 to 7.
        length: the length field instead of the right one: its first byte without the mask bit, and the rest.
    """
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes((size,))
        elif size < 1 << 16:
            length = b"\x7e" + struct.pack("!H", size)
        else:
            length = b"\x7f" + struct.pack("!Q", size)
    head = bytes(((0x80 if final else 0) | reserved << 4 | opcode, length[0] | (0x80 if masked else 0)))
    if not masked:
        return head + length[1:] + payload
    size = len(payload)
    key = (_MASK * (size // 4 + 1))[:size]
    hidden = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return head + length[1:] + _MASK + hidden


def command(kind: str, **data: Any) -> bytes:
    """The frame of a command."""
    return frame(TEXT, json.dumps({"type": kind, "data": data}).encode())


def close(code: int, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


def request(
    *, method: str = "GET", path: str = "/ws", version: str = "HTTP/1.1", **headers: str | None
) -> bytes:
    """An upgrade request; a header given as None is left out, `_` in a name stands for `-`."""
    fields: dict[str, str | None] = {
        "Host": "test",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode()


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """Whole server frames at the head of `data`, and what is left."""
    found, rest = frames.split(data)
    return [Frame(*each) for each in found], rest


class Http(NamedTuple):
    """The head of an answer, and what came behind it."""

    status: int
    headers: dict[str, str]
    rest: bytes


class Peer:
    """A blocking client that sends what it is told to.

    Args:
        port: of the server on 127.0.0.1.
        receive_buffer_bytes: SO_RCVBUF, set before the connection is made; None: the system's.

    Attributes:
        rest: what was read and is not a whole frame, or belongs to the next answer.
    """

    def __init__(self, port: int, receive_buffer_bytes: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.sock.settimeout(DEFAULT_SECONDS)
        self.sock.connect(("127.0.0.1", port))
        self.rest = b""
        self._frames: list[Frame] = []

    def send(self, data: bytes) -> Self:
        """Send bytes as they are. A server that closed already is not an error."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)
        return self

    def http(self) -> Http:
        """Read the head of an HTTP answer; status 0 if the server closed without one."""
        data = self.rest
        while b"\r\n\r\n" not in data:
            chunk = self._receive()
            if not chunk:
                return Http(0, {}, data)
            data += chunk
        head, _, self.rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Http(int(first.split()[1]), headers, self.rest)

    def body(self, answer: Http) -> bytes:
        """The body of an answer, by its Content-Length."""
        size = int(answer.headers["content-length"])
        while len(self.rest) < size and (chunk := self._receive()):
            self.rest += chunk
        body, self.rest = self.rest[:size], self.rest[size:]
        return body

    def upgrade(self, early: bytes = b"", *, path: str = "/ws") -> Any:
        """Shake hands and read the welcome message.

        Args:
            early: sent behind the request, in the same packet.
        """
        self.send(request(path=path) + early)
        answer = self.http()
        assert answer.status == 101, (answer, self.rest)
        assert answer.headers["sec-websocket-accept"] == ACCEPT
        welcome = self.next().json
        assert welcome["type"] == "welcome"
        return welcome

    def next(self, seconds: float = DEFAULT_SECONDS) -> Frame:
        """The next frame, control frames included; `END` at the end of the stream, also after a reset."""
        deadline = time.monotonic() + seconds
        while not self._frames:
            self._frames, self.rest = split(self.rest)
            if self._frames:
                break
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self._receive()
            if not chunk:
                return END
            self.rest += chunk
        return self._frames.pop(0)

    def answer(self, *kinds: str, seconds: float = DEFAULT_SECONDS) -> Any:
        """The next message that is one of `kinds`, or any that is not data, as JSON."""
        deadline = time.monotonic() + seconds
        while True:
            got = self.next(deadline - time.monotonic())
            assert got.opcode == TEXT, got
            message = got.json
            if message["type"] in kinds or (not kinds and "seq" not in message):
                return message

    def ask(self, kind: str, **data: Any) -> Any:
        """Send a command and give the next message that is not data."""
        self.send(command(kind, **data))
        return self.answer()

    def closing(self, seconds: float = DEFAULT_SECONDS) -> Frame:
        """Read on to the close frame; `END` if the stream ends without one."""
        deadline = time.monotonic() + seconds
        while True:
            got = self.next(deadline - time.monotonic())
            if got.opcode in (CLOSE, -1):
                return got

    def ended(self, seconds: float = DEFAULT_SECONDS) -> bool:
        """Whether the server ends the stream within `seconds`; frames that still come are thrown away."""
        deadline = time.monotonic() + seconds
        try:
            while self.next(deadline - time.monotonic()) is not END:
                pass
        except TimeoutError:
            return False
        return True

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def shut(self) -> None:
        """Close the socket without a word."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
