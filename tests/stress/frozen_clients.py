"""A process with connections, which a test can freeze (SIGSTOP) and continue.

python -m tests.stress.frozen_clients PORT QUIET FED CHANNEL

QUIET connections subscribe to nothing; FED ones subscribe to the channel, with small buffers. It prints
`ready` when all are open. After a line on standard input it reads each connection to its end, and prints the
close codes as JSON; -1 stands for none.
"""

from __future__ import annotations

import json
import sys

from tests.wire import CLOSE, Peer

RECEIVE_BUFFER_BYTES = 2048


def main(port: int, quiet: int, fed: int, channel: str) -> None:
    """Open the connections, and read them to their end."""
    peers = [Peer(port) for _ in range(quiet)]
    peers += [Peer(port, receive_buffer_bytes=RECEIVE_BUFFER_BYTES) for _ in range(fed)]
    for number, peer in enumerate(peers):
        peer.upgrade()
        if number >= quiet:
            peer.ask("subscribe", channels=[channel])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        return
    ends = [peer.closing() for peer in peers]
    sys.stdout.write(json.dumps([end.code if end.opcode == CLOSE else -1 for end in ends]) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
