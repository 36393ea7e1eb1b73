"""The peers of odinws. All but nats-server are programs of `bench/peers` with the same arguments."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from bench.arms.base import Arm, Build, FeedKind, Place
from bench.build import BENCH, BUILD, ROOT, MissingError, call, compile_c, python_packages, tool
from bench.client.driver import Wire, raise_open_files_limit
from bench.feed import SUBJECT_PREFIX
from odinws.feed.embedded import NatsServerNotFoundError, find_nats_server
from odinws.harness.server import Server

_SOURCES = BENCH / "peers"
_NODE = BUILD / "node"
_GOPATH = Path("/usr/share/gocode")


def _build_c_loop() -> dict[str, str]:
    compile_c(_SOURCES / "c_loop", "c_loop")
    return {"cc": call([tool("cc", "a C compiler"), "--version"]).splitlines()[0]}


def _build_gorilla() -> dict[str, str]:
    """From Debian's packages golang-go and golang-github-gorilla-websocket-dev."""
    go = tool("go", "Debian: golang-go")
    if not (_GOPATH / "src/github.com/gorilla/websocket").exists():
        raise MissingError("gorilla/websocket is not installed (Debian: golang-github-gorilla-websocket-dev)")
    source, program = _SOURCES / "gorilla/main.go", BUILD / "gorilla"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        environment = {"GO111MODULE": "off", "GOPATH": str(_GOPATH), "GOCACHE": str(BUILD / "go-cache")}
        call([go, "build", "-o", str(program), str(source)], environment=environment)
    versions = {"go": call([go, "version"]).split()[2]}
    if shutil.which("dpkg-query"):
        query = ["dpkg-query", "-W", "-f", "${Version}", "golang-github-gorilla-websocket-dev"]
        versions["gorilla"] = call(query)
    return versions


def _build_node(package: str) -> Build:
    """Install a package from npm into the build folder."""

    def build() -> dict[str, str]:
        node, npm = tool("node", "Node 18 or later"), tool("npm", "comes with Node")
        _NODE.mkdir(parents=True, exist_ok=True)
        for source in (_SOURCES / "node").iterdir():
            shutil.copy(source, _NODE)
        version = str(json.loads((_NODE / "package.json").read_text())["dependencies"][package])
        installed = _NODE / "node_modules" / package / "package.json"
        if not installed.exists() or json.loads(installed.read_text())["version"] != version:
            # Scripts of packages are not needed here: ws is plain JavaScript, uwebsockets ships its binaries.
            call([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"], _NODE)
        # A binary that does not fit this Node shows itself here.
        call([node, "-e", f"require('{package}')"], _NODE)
        return {"node": call([node, "--version"]).strip(), package: version}

    return build


def _server(place: Place, *command: object) -> Server:
    return Server({}, place.log, port=place.port, command=[*map(str, command)], directory=ROOT, ready_path="")


def _peer(name: str, title: str, build: Build, *program: str, **traits: Any) -> Arm:
    def server(place: Place) -> Server:
        wanted = place.scenario
        words = (place.port, place.feed_socket, wanted.ping_seconds, wanted.workers, int(wanted.deflate))
        return _server(place, *program, *words)

    return Arm(name, title, build, server, **traits)


def _python(name: str, title: str, *packages: str, **traits: Any) -> Arm:
    module = f"bench.peers.python.{packages[0].removeprefix('flask-')}_server"
    program = (sys.executable, "-m", module)
    return _peer(name, title, lambda: python_packages(packages), *program, pip_only=True, **traits)


def debian(program: str, *packages: str, needs: Path | None = None) -> Build:
    """What Debian's packages bring: their versions."""

    def build() -> dict[str, str]:
        hint = f"Debian: {' '.join(packages)}"
        tool(program, hint)
        if needs is not None and not needs.exists():
            raise MissingError(f"{needs} is not there ({hint})")
        if not shutil.which("dpkg-query"):
            return {}
        return {name: call(["dpkg-query", "-W", "-f", "${Version}", name]) for name in packages}

    return build


def nginx(place: Place, http: str, module: Path | None = None) -> list[str]:
    """The command of an nginx without anything of Debian's configuration."""
    config, files = place.directory / "nginx.conf", raise_open_files_limit()
    load = f"load_module {module};\n" if module else ""
    temporary = "".join(
        f"{name}_temp_path {place.directory}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"{'user root;' if os.geteuid() == 0 else ''}\ndaemon off;\npid {place.directory}/nginx.pid;\n"
        f"error_log stderr error;\nworker_processes {place.scenario.workers};\n"
        f"worker_rlimit_nofile {files};\n"
        f"{load}events {{ worker_connections {files}; }}\nhttp {{\naccess_log off;\n{temporary}{http}\n}}\n"
    )
    return ["nginx", "-e", "stderr", "-p", str(place.directory), "-c", str(config)]


def _nchan(place: Place) -> Server:
    """Clients subscribe by the URL of their upgrade."""
    ping = place.scenario.ping_seconds
    deflate = "nchan_permessage_deflate_compression_window 15;" if place.scenario.deflate else ""
    http = f"""
nchan_shared_memory_size 512M;
{deflate}
large_client_header_buffers 4 64k;
keepalive_requests 1000000000;
server {{
  listen 127.0.0.1:{place.port} backlog=4096;
  location = /subscribe {{
    nchan_subscriber websocket;
    nchan_channel_id $arg_c;
    nchan_channel_id_split_delimiter ",";
    nchan_subscriber_first_message newest;
    {f"nchan_websocket_ping_interval {ping};" if ping else ""}
  }}
  location = /publish {{
    nchan_publisher http;
    nchan_channel_id $arg_c;
    nchan_message_buffer_length 100;
    nchan_message_timeout 10s;
  }}
}}"""
    return _server(place, *nginx(place, http, _NCHAN))


def _mosquitto(place: Place) -> Server:
    config = place.directory / "mosquitto.conf"
    config.write_text(
        f"""
{"user root" if os.geteuid() == 0 else ""}
allow_anonymous true
persistence false
log_dest stderr
log_type error
set_tcp_nodelay true
listener {place.nats_port} 127.0.0.1
protocol mqtt
listener {place.port} 127.0.0.1
protocol websockets
"""  # the port that is waited for comes last
    )
    return _server(place, "mosquitto", "-c", config)


def _build_nats() -> dict[str, str]:
    try:
        binary = find_nats_server()
    except NatsServerNotFoundError as error:
        raise MissingError(error.reason) from error
    return {"nats-server": call([binary, "--version"]).strip().removeprefix("nats-server: ")}


def _nats(place: Place) -> Server:
    """nats-server's own WebSocket listener."""
    wanted = place.scenario
    ping = f'ping_interval: "{wanted.ping_seconds}s"\n' if wanted.ping_seconds else ""
    compression = "true" if wanted.deflate else "false"
    config = place.directory / "websocket.conf"
    config.write_text(
        f'listen: "127.0.0.1:{place.nats_port}"\nmax_connections: {wanted.most_connections + 1000}\n{ping}'
        f'websocket {{ listen: "127.0.0.1:{place.port}", no_tls: true, compression: {compression} }}\n'
    )
    return _server(place, find_nats_server(), "-c", config)


# Clients speak the NATS protocol over WebSocket frames.
_NATS_WIRE = Wire(
    hello='CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":1}\r\n',
    prefix="",
    item=f"SUB {SUBJECT_PREFIX}%c %i",
    separator="\r\n",
    suffix="\r\nPING\r\n",
    ack="PONG",
    ask="PING",
    reply="PONG\r\n",
    binary=True,
)
# Engine.IO and Socket.IO: 40 opens the namespace and answers that, 42 is an event; 3 answers the ping 2.
_SOCKETIO_WIRE = Wire(
    path="/socket.io/?EIO=4&transport=websocket",
    hello="40",
    greeting="40",
    prefix='42["subscribe",{"channels":[',
    suffix="]}]",
    ask="2",
    reply="3",
)
_SOCKETIO_PACKAGES = ("flask-socketio", "python-socketio", "python-engineio", "gevent", "gevent-websocket")
_C_LOOP = str(BUILD / "c_loop")
_UWS, _WS, _SIO = (str(_NODE / f"{name}_server.js") for name in ("uwebsockets", "ws", "socketio"))
_NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
_NCHAN_PACKAGES = ("nginx", "libnginx-mod-nchan")

_BOTH = {"takes_workers": True, "deflates": True}

ARMS = (
    _peer("c-loop", "bare C: one send() per message", _build_c_loop, _C_LOOP, "0", takes_workers=True),
    _peer("c-batch", "bare C: one writev() per burst", _build_c_loop, _C_LOOP, "1", takes_workers=True),
    _peer("uwebsockets", "uWebSockets, Node binding", _build_node("uwebsockets"), "node", _UWS, **_BOTH),
    _peer("node-ws", "Node ws", _build_node("ws"), "node", _WS, deflates=True),
    _peer(
        "gorilla",
        "Go gorilla, PreparedMessage",
        _build_gorilla,
        str(BUILD / "gorilla"),
        deflates=True,
        debian=("golang-go", "golang-github-gorilla-websocket-dev"),
    ),
    Arm(
        "nchan",
        "nginx with nchan",
        debian("nginx", *_NCHAN_PACKAGES, needs=_NCHAN),
        _nchan,
        [Wire(path="/subscribe?c=", in_path=True, prefix="", item="%c", suffix="", ack="")],
        FeedKind.HTTP,
        takes_workers=True,
        debian=_NCHAN_PACKAGES,
        most_subscribed=255,
    ),
    Arm(
        "mosquitto",
        "mosquitto, MQTT over WebSocket",
        debian("mosquitto", "mosquitto"),
        _mosquitto,
        [Wire(path="/mqtt", headers="Sec-WebSocket-Protocol: mqtt\r\n", item="%c", mqtt=True)],
        FeedKind.MQTT,
        debian=("mosquitto",),
    ),
    _peer(
        "socketio",
        "Socket.IO on Node, a room per channel",
        _build_node("socket.io"),
        "node",
        _SIO,
        wires=[_SOCKETIO_WIRE],
        deflates=True,
    ),
    Arm(
        "nats-websocket",
        "nats-server's WebSocket listener",
        _build_nats,
        _nats,
        [_NATS_WIRE],
        FeedKind.OWN_NATS,
        pip_only=True,
        deflates=True,
    ),
    _python("websockets", "Python websockets, broadcast()", "websockets", deflates=True),
    _python("picows", "picows on uvloop", "picows", "uvloop"),
    _python("flask-socketio", "Flask-SocketIO on gevent", *_SOCKETIO_PACKAGES, wires=[_SOCKETIO_WIRE]),
)
