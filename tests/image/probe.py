"""Questions that are asked inside the image, of its own Python: fed to `python3 -I -`, with one word.

It imports the standard library alone: there is nothing else to bring along. Answers are JSON lines.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A client ends itself after this time, whatever the server does.
_CLIENT_SECONDS = 30
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_BUILD_TOOLS = (
    *("cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cmake", "cargo", "go"),
    *("git", "curl", "wget", "pip", "pip3", "uv"),
)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _frame(opcode: int, payload: bytes) -> bytes:
    """A masked frame of at most 125 bytes; the mask is zero, which is allowed and enough here."""
    return struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload)) + bytes(4) + payload


class _Stream:
    """A connection that has been upgraded."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        status = self._file.readline().decode().strip()
        while self._file.readline().strip():
            pass
        if " 101 " not in f"{status} ":
            raise ConnectionError(status)

    def send(self, command: dict[str, Any]) -> None:
        self._socket.sendall(_frame(_TEXT, json.dumps(command).encode()))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The server's frames, to the close frame or the end; pings are answered."""
        while head := self._file.read(2):
            opcode, size = head[0] & 0x0F, head[1] & 0x7F
            if size >= 126:
                size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
            payload = self._file.read(size)
            if opcode == _PING:
                self._socket.sendall(_frame(_PONG, payload))
            if opcode == _CLOSE:
                self._socket.sendall(_frame(_CLOSE, payload[:2]))
            yield opcode, payload


def client() -> None:
    """Connect, subscribe to two tokens, and tell of each kind of message once and of the close."""
    signal.alarm(_CLIENT_SECONDS)
    stream = _Stream(int(os.environ["WS_ADDR"].rpartition(":")[2]))
    stream.send({"type": "subscribe", "data": {"channels": ["token.BTC", "token.ETH"]}})
    told = set()
    for opcode, payload in stream.frames():
        if opcode == _CLOSE:
            _say({"closed": int.from_bytes(payload[:2], "big")})
            return
        if opcode == _TEXT:
            message = json.loads(payload)
            kind = "data" if "channel" in message and "seq" in message else message["type"]
            if kind not in told:
                told.add(kind)
                _say({"kind": kind, "message": message})
    _say({"closed": 0})


def contents() -> None:
    """The packages of the image's Python, the build tools on its PATH, and what its user could overwrite."""
    paths = [path for tree in (Path.cwd(), Path(sys.prefix)) for path in (tree, *tree.rglob("*"))]
    files = {path: path.stat() for path in paths if not path.is_symlink()}
    _say(
        {
            "python": sys.version.split()[0],
            "packages": {each.name: each.version for each in importlib.metadata.distributions()},
            "program": sorted(each.name for each in Path.cwd().iterdir()),
            "build_tools": [tool for tool in _BUILD_TOOLS if shutil.which(tool)],
            "writable": [str(p) for p, s in files.items() if s.st_mode & 0o022 or s.st_uid == os.getuid()],
            "unreadable": [str(path) for path in files if not os.access(path, os.R_OK)],
            "uid": os.getuid(),
            "groups": os.getgroups(),
        }
    )


if __name__ == "__main__":
    {"client": client, "contents": contents}[sys.argv[1]]()
