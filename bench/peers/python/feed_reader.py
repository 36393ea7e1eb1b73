"""Reads the bench's feed for the asyncio servers: `length (4 bytes) | length of name (2) | name | text`."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable


async def read_feed(path: str, on_message: Callable[[str, bytes], None]) -> None:
    """Call on_message(channel, text) for each record; returns when the feed ends."""
    reader, _ = await asyncio.open_unix_connection(path)
    try:
        while True:
            length, name_length = struct.unpack("!IH", await reader.readexactly(6))
            record = await reader.readexactly(length - 2)
            on_message(record[:name_length].decode(), record[name_length:])
    except asyncio.IncompleteReadError:
        return


ACK = '{"type":"subscription_ack"}'
