"""A server on a real socket that does as much of the protocol as a test says, and then nothing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

WELCOME = {"type": "welcome", "epoch": "one"}
MESSAGE = {"type": "t", "channel": "token.A", "seq": 1, "prev": 0, "ts": 5, "data": 1}
ACKNOWLEDGED = {"type": "subscription_ack", "subscribed": ["token.A"], "count": 1, "rejected": []}

Act = Callable[["Caller"], None]


def frame(data: bytes, opcode: int = 1) -> bytes:
    """One frame of a server."""
    if len(data) < 126:
        length = bytes([len(data)])
    elif len(data) < 1 << 16:
        length = b"\x7e" + struct.pack("!H", len(data))
    else:
        length = b"\x7f" + struct.pack("!Q", len(data))
    return bytes([0x80 | opcode]) + length + data


class Caller:
    """One connection of a client.

    Attributes:
        number: from 0.
        path: of its request.
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.number = number
        self.path = ""
        self._sock = sock

    def request(self) -> str:
        """Read the head of a request."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._exactly(1)
        return head.decode()

    def upgrade(self) -> None:
        """Make the handshake."""
        found = re.search("Sec-WebSocket-Key: (.+)\r", request := self.request())
        assert found
        self.path = request.split()[1]
        digest = hashlib.sha1(
            (found[1] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode(), usedforsecurity=False
        ).digest()
        accept = base64.b64encode(digest).decode()
        offered = "Sec-WebSocket-Protocol: odinws\r\n" if "bearer." in request else ""
        self.send(
            f"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offered}"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )

    def refuse(self, status: int, *headers: str) -> None:
        """Answer the request with HTTP."""
        self.request()
        lines = [f"HTTP/1.1 {status} No", "Content-Length: 0", *headers, "", ""]
        self.send("\r\n".join(lines).encode())

    def tell(self, *messages: dict[str, Any]) -> None:
        """Send text frames."""
        for message in messages:
            self.send(frame(json.dumps(message).encode()))

    def heard(self) -> dict[str, Any]:
        """The next command, or {} if a close frame came."""
        while True:
            opcode, length = self._exactly(2)
            length &= 127
            if length == 126:
                [length] = struct.unpack("!H", self._exactly(2))
            mask = self._exactly(4)
            data = bytes(byte ^ mask[n % 4] for n, byte in enumerate(self._exactly(length)))
            if opcode & 15 == 8:
                return {}
            if opcode & 15 == 1:
                found: dict[str, Any] = json.loads(data)
                return found

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def gone(self) -> bool:
        """Wait until the client has closed its socket."""
        with contextlib.suppress(ConnectionError):
            while self._sock.recv(65536):
                pass
        return True

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._sock.recv(count - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data


class Peer:
    """The server. `reached` is set when an act has run, `left` when that client's socket is closed."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws"
        self.reached = threading.Event()
        self.left = threading.Event()
        self.calls = 0
        self.errors: list[BaseException] = []
        self._socks: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(30)
            self._socks.append(sock)
            caller = Caller(sock, self.calls)
            self.calls += 1
            thread = threading.Thread(target=self._serve, args=(caller,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, caller: Caller) -> None:
        try:
            self._act(caller)
        except (ConnectionError, TimeoutError):
            pass
        except BaseException as error:  # noqa: BLE001 -- the test shall see it
            self.errors.append(error)
        self.reached.set()
        with contextlib.suppress(OSError):
            caller.gone()
        self.left.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._socks:
            sock.close()
        assert self.errors == []


@contextlib.contextmanager
def peer(act: Act) -> Iterator[Peer]:
    """A server for a test."""
    running = Peer(act)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def mute_host() -> Iterator[str]:
    """The URL of a host that answers no attempt to connect: its queue of those is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
