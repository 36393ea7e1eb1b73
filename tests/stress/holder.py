"""A process that holds connections, to be stopped and continued.

python -m tests.stress.holder PORT QUIET FED CHANNEL

Some connections are quiet, the others are subscribed to the channel and have small buffers. It says `ready`
when all are open. At the next line on standard input it reads each of them to its end and says which close
codes it was told, as JSON: -1 stands for none.
"""

from __future__ import annotations

import json
import sys

from tests.wire import CLOSE, Peer

RECEIVE_BUFFER_BYTES = 2048


def main(port: int, quiet: int, fed: int, channel: str) -> None:
    """Hold so many connections."""
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
