"""Flask-SocketIO on gevent: a room for each channel, `emit` to the room.

Arguments: port, feed socket, ping seconds (0: the library's default, 25); what follows does not concern it.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - after the patch
import socket  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

from flask import Flask  # noqa: E402
from flask_socketio import SocketIO, emit, join_room  # type: ignore[import-untyped] # noqa: E402

port, feed_path, ping_seconds = sys.argv[1:4]
app = Flask(__name__)
socketio = SocketIO(app, async_mode="gevent", ping_interval=int(ping_seconds) or 25)


def subscribe(data: dict[str, Any]) -> None:
    """Join the rooms of the channels asked for."""
    for name in data["channels"]:
        join_room(name)
    emit("subscription_ack")


socketio.on_event("subscribe", subscribe)


def read_feed() -> None:
    """Emit each line of the feed to the room of its channel; the process ends with the feed."""
    feed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    feed.connect(feed_path)
    with feed.makefile() as lines:
        for line in lines:
            name, _, text = line.partition(" ")
            socketio.emit("message", json.loads(text), to=name)


socketio.start_background_task(read_feed)
socketio.run(app, host="127.0.0.1", port=int(port))
