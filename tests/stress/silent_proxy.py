"""A TCP proxy that can go silent: it stops forwarding in both directions, and closes nothing."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from typing import Self

from tests import wire
from tests.wire import Frame

_READ_BYTES = 1 << 16


class SilentProxy:
    """Forwards connections from a port of its own to a server on 127.0.0.1, until it is silenced.

    Attributes:
        port: where it listens.
        heard: what came from the server, by connection.
    """

    def __init__(self, server_port: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        self.heard: dict[socket.socket, bytearray] = {}
        self._other: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        for sock in (self._listener, self._wake_read):
            self._selector.register(sock, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def silence(self) -> None:
        """Stop reading and writing; all sockets stay open."""
        self._wake_write.send(b"!")
        self._thread.join(60.0)
        assert not self._thread.is_alive(), "the proxy does not go silent"

    def frames(self) -> Iterator[list[Frame]]:
        """The frames that each connection received, which must have ended. Call it when silent."""
        for sock, heard in self.heard.items():
            sock.settimeout(wire.DEFAULT_SECONDS)
            while chunk := sock.recv(_READ_BYTES):
                heard += chunk
            frames, rest = wire.split(bytes(heard).partition(b"\r\n\r\n")[2])
            assert rest == b"", "the stream ends with a whole frame"
            yield frames

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                sock = key.fileobj
                if sock is self._wake_read:
                    return
                if sock is self._listener:
                    self._accept()
                elif isinstance(sock, socket.socket) and sock in self._other:
                    self._forward(sock)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._server)
        self._other[client], self._other[server] = server, client
        self.heard[server] = bytearray()
        for sock in (client, server):
            self._selector.register(sock, selectors.EVENT_READ)

    def _forward(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_READ_BYTES)
            if sock in self.heard:
                self.heard[sock] += data
            if data:
                self._other[sock].sendall(data)
                return
        except OSError:
            pass  # one side is gone: so is the other
        other = self._other.pop(sock)
        del self._other[other]
        for each in (sock, other):
            self._selector.unregister(each)
            each.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.silence()
        for sock in (*self._other, self._listener, self._wake_read, self._wake_write):
            sock.close()
        self._selector.close()
