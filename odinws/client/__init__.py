"""A client that comes back by itself and misses nothing: `Client` for threads, `AsyncClient` for asyncio.

    from odinws.client import Client, Gap, Message

    with Client("ws://127.0.0.1:3004/ws", ["token.BTC", "global"]) as client:
        for event in client:
            ...

It needs `websockets`. The rules of when to come back are in `backoff`, what it keeps in `book`.
"""

from odinws.client.asynchronous import AsyncClient
from odinws.client.book import Event, Gap, Message, Rejected
from odinws.client.errors import RefusedError
from odinws.client.threaded import Client

__all__ = ["AsyncClient", "Client", "Event", "Gap", "Message", "RefusedError", "Rejected"]
