"""Reads the bench's feed for the asyncio servers: lines of a channel's name, a space and a text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def read_feed(path: str, on_message: Callable[[str, bytes], None]) -> None:
    """Call on_message(channel, text) for each record; returns when the feed ends."""
    reader, writer = await asyncio.open_unix_connection(path)  # which closes when the writer is collected
    async for line in reader:
        name, _, text = line.rstrip(b"\n").partition(b" ")
        on_message(name.decode(), text)
    writer.close()


ACK = '{"type":"subscription_ack"}'
