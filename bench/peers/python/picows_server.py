"""picows on uvloop: a loop of `send` over the connections of a channel.

Arguments: port, feed socket, ping seconds (0: none); what follows does not concern it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict

import uvloop
from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_create_server,
)

from bench.peers.python.feed_reader import ACK, read_feed

channels: defaultdict[str, set[WSTransport]] = defaultdict(set)


class Client(WSListener):
    """One connection."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.subscribed: set[str] = set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            for name in json.loads(frame.get_payload_as_utf8_text())["data"]["channels"]:
                channels[name].add(transport)
                self.subscribed.add(name)
            transport.send(WSMsgType.TEXT, ACK.encode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for name in self.subscribed:
            channels[name].discard(transport)


def publish(name: str, text: bytes) -> None:
    """Send the text to all who subscribed to the channel."""
    for transport in channels[name]:
        transport.send(WSMsgType.TEXT, text)


async def main(port: str, feed_path: str, ping_seconds: str, *_: str) -> None:
    """Serve until the feed ends."""
    ping = float(ping_seconds)
    server = await ws_create_server(
        lambda _: Client(),
        "127.0.0.1",
        int(port),
        backlog=4096,
        enable_auto_ping=bool(ping),
        auto_ping_idle_timeout=ping or 20.0,
        auto_ping_strategy=WSAutoPingStrategy.PING_PERIODICALLY,
    )
    async with server:
        await read_feed(feed_path, publish)


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main(*sys.argv[1:]))
