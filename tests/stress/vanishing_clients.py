"""A process with many connections, which a test kills: all of them vanish at once.

python -m tests.stress.vanishing_clients PORT COUNT CHANNEL

It prints `ready` when all are subscribed, and then reads what they get.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import sys
import time

from tests import wire

_AGAIN_SECONDS = 0.2  # until the next attempt of one that was refused
_READ_BYTES = 1 << 16


def main(port: int, count: int, channel: str) -> None:
    """Open the connections one after the other, and read until killed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    poll = select.epoll()
    socks: dict[int, socket.socket] = {}
    while len(socks) < count:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(wire.request() + wire.command("subscribe", channels=[channel]))
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # it was refused before all was read
            while b"subscription_ack" not in answer and (data := sock.recv(_READ_BYTES)):
                answer += data
        if not answer.startswith(b"HTTP/1.1 101"):
            time.sleep(_AGAIN_SECONDS)
            continue
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for descriptor, _ in poll.poll():
            with contextlib.suppress(BlockingIOError):
                socks[descriptor].recv(_READ_BYTES)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
