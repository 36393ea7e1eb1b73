"""nats-server's own WebSocket listener: clients speak the NATS protocol over WebSocket frames."""

from __future__ import annotations

from bench import server
from bench.arms.base import Arm, Command, FeedKind, Place
from bench.build import call
from bench.client.wire import Wire
from bench.feed import SUBJECT_PREFIX


def _build() -> dict[str, str]:
    return {"nats-server": call([server.nats_server(), "--version"]).strip().removeprefix("nats-server: ")}


def _command(place: Place) -> Command:
    ping = f'ping_interval: "{place.ping_seconds}s"\n' if place.ping_seconds else ""
    compression = "true" if place.deflate else "false"
    config = place.directory / "websocket.conf"
    config.write_text(
        f'listen: "127.0.0.1:{place.nats_port}"\nmax_connections: {place.connections + 1000}\n{ping}'
        f'websocket {{ listen: "127.0.0.1:{place.port}", no_tls: true, compression: {compression} }}\n'
    )
    return Command((server.nats_server(), "-c", str(config)))


ARMS = (
    Arm(
        "nats-websocket",
        "nats-server's WebSocket listener",
        _build,
        _command,
        wire=Wire(
            hello='CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":1}\r\n',
            prefix="",
            item=f"SUB {SUBJECT_PREFIX}%c %i\r\n",
            separator="",
            suffix="PING\r\n",
            ack="PONG",
            ask="PING",
            reply="PONG\r\n",
            binary=True,
        ),
        feed=FeedKind.OWN_NATS,
        pip_only=True,
        deflates=True,
    ),
)
