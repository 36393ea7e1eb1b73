"""Python websockets: `broadcast()` to the connections of a channel, as its documentation recommends.

Arguments: port, feed socket, ping seconds (0: none), processes (it is one), compression (1: the default).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.python.feed_reader import ACK, read_feed

channels: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def handle(connection: ServerConnection) -> None:
    """Subscribe the connection to what it asks for, until it closes."""
    subscribed: set[str] = set()
    try:
        async for command in connection:
            for name in json.loads(command)["data"]["channels"]:
                channels[name].add(connection)
                subscribed.add(name)
            await connection.send(ACK)
    finally:
        for name in subscribed:
            channels[name].discard(connection)


def publish(name: str, text: bytes) -> None:
    """Send the text to all who subscribed to the channel."""
    broadcast(channels[name], text.decode())


async def main(port: str, feed_path: str, ping_seconds: str, _: str, deflate: str) -> None:
    """Serve until the feed ends."""
    ping = float(ping_seconds) or None
    compression = "deflate" if int(deflate) else None
    async with serve(
        handle, "127.0.0.1", int(port), backlog=4096, ping_interval=ping, compression=compression
    ):
        await read_feed(feed_path, publish)


asyncio.run(main(*sys.argv[1:]))
