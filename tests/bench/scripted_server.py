"""A WebSocket server for tests that sends exactly what a script tells it to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from odinws.messages import frames

SECONDS = 60.0


def text_frame(text: str | bytes, opcode: int = 1, deflated: bool = False) -> bytes:
    """A server's frame."""
    return frames.encode(opcode, text.encode() if isinstance(text, str) else text, deflated=deflated)


class Peer:
    """One accepted connection, its handshake done."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self.request = b""
        while not self.request.endswith(b"\r\n\r\n"):
            line = self._stream.readline()
            if not line:
                raise ConnectionError("no request")
            self.request += line

    def accept(self, headers: bytes = b"") -> None:
        """Answer the upgrade. The measuring client does not check Sec-WebSocket-Accept."""
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.send(head + headers + b"\r\n")

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._connection.sendall(data)

    def text(self, text: str | bytes) -> None:
        """Send a text frame."""
        self.send(text_frame(text))

    def read(self) -> tuple[int, bytes]:
        """The client's next frame: opcode and unmasked payload. Raises ConnectionError at the end."""
        head = self._stream.read(2)
        if len(head) < 2:
            raise ConnectionError("closed")
        assert head[1] & 0x80, "a client's frame must be masked"
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._stream.read(2))
        mask = self._stream.read(4)
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self._stream.read(length)))
        return head[0] & 0x0F, payload

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self._connection.close()


class ScriptedServer:
    """Runs a script for each connection, in a thread of its own; keeps connections open until it is left."""

    def __init__(self, script: Callable[[Peer], None], upgrade: bool = True) -> None:
        self._script = script
        self._upgrade = upgrade
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._peers: list[Peer] = []
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> ScriptedServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            peer.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(SECONDS)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            peer = Peer(connection)
            self._peers.append(peer)
            if self._upgrade:
                peer.accept()
            self._script(peer)
