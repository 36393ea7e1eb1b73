"""Node ws and uWebSockets, installed from npm into the build folder."""

from __future__ import annotations

import json
import shutil

from bench.arms.base import Arm, Command, Place
from bench.build import BENCH, BUILD, call, tool

_SOURCES = BENCH / "peers/node"
_FOLDER = BUILD / "node"


def _build(package: str) -> dict[str, str]:
    node = tool("node", "Node 18 or later")
    npm = tool("npm", "comes with Node")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    for source in (*_SOURCES.glob("*.js"), _SOURCES / "package.json"):
        shutil.copy(source, _FOLDER)
    version = str(json.loads((_SOURCES / "package.json").read_text())["dependencies"][package])
    installed = _FOLDER / "node_modules" / package / "package.json"
    if not installed.exists() or json.loads(installed.read_text())["version"] != version:
        # Scripts of packages are not needed here: ws is plain JavaScript, uwebsockets ships its binaries.
        install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        call(install, _FOLDER)
    # A binary that does not fit this Node shows itself here.
    call([node, "-e", f"require('{package}')"], _FOLDER)
    return {"node": call([node, "--version"]).strip(), package: version}


def _arm(package: str, name: str, title: str, server: str, takes_workers: bool) -> Arm:
    def command(place: Place) -> Command:
        node = tool("node", "Node 18 or later")
        words = (place.port, place.feed_socket, place.ping_seconds, place.workers, int(place.deflate))
        return Command((node, str(_FOLDER / server), *(str(word) for word in words)))

    return Arm(name, title, lambda: _build(package), command, takes_workers=takes_workers, deflates=True)


ARMS = (
    _arm(
        "uwebsockets", "uwebsockets", "uWebSockets, Node binding", "uwebsockets_server.js", takes_workers=True
    ),
    _arm("ws", "node-ws", "Node ws", "ws_server.js", takes_workers=False),
)
