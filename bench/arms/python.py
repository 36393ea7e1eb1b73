"""The Python peers: websockets, picows on uvloop, Flask-SocketIO on gevent."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

from bench.arms.base import Arm, Command, Place
from bench.build import MissingError
from bench.client.wire import Wire


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    try:
        versions = {name: importlib.metadata.version(name) for name in packages}
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingError(f"Python package {error.name} is not installed") from error
    return {"python": platform.python_version(), **versions}


def _arm(
    name: str, title: str, server: str, packages: tuple[str, ...], wire: Wire, deflates: bool = False
) -> Arm:
    def command(place: Place) -> Command:
        words = (
            place.port,
            place.feed_socket,
            place.ping_seconds,
            *((int(place.deflate),) if deflates else ()),
        )
        return Command((sys.executable, "-m", f"bench.peers.python.{server}", *(str(word) for word in words)))

    return Arm(name, title, lambda: _versions(packages), command, wire=wire, pip_only=True, deflates=deflates)


# Engine.IO and Socket.IO: 40 opens the namespace, 42 is an event; a ping is the text 2, its answer 3.
_SOCKETIO_WIRE = Wire(
    path="/socket.io/?EIO=4&transport=websocket",
    hello="40",
    prefix='42["subscribe",{"channels":[',
    suffix="]}]",
    ask="2",
    reply="3",
)

ARMS = (
    _arm(
        "websockets",
        "Python websockets, broadcast()",
        "websockets_server",
        ("websockets",),
        Wire(),
        deflates=True,
    ),
    _arm("picows", "picows on uvloop", "picows_server", ("picows", "uvloop"), Wire()),
    _arm(
        "flask-socketio",
        "Flask-SocketIO on gevent",
        "socketio_server",
        ("flask-socketio", "python-socketio", "python-engineio", "gevent", "gevent-websocket"),
        _SOCKETIO_WIRE,
    ),
)
