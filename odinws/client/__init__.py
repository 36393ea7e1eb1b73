"""A client that comes back by itself and misses nothing: `Client` for threads, `AsyncClient` for asyncio.

    from odinws.client import Client, Gap, Message

    with Client("ws://127.0.0.1:3004/ws", ["token.BTC", "global"]) as client:
        for event in client:
            ...

It needs `websockets` and nothing else. The rules of when to come back are in `backoff`, what it keeps in
`subscriptions`.
"""

from odinws.client.asynchronous import AsyncClient
from odinws.client.backoff import RefusedError
from odinws.client.subscriptions import Event, Gap, Message, Rejected
from odinws.client.threaded import Client

__all__ = ["AsyncClient", "Client", "Event", "Gap", "Message", "RefusedError", "Rejected"]
