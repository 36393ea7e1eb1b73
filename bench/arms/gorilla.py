"""Go gorilla, from Debian's packages golang-go and golang-github-gorilla-websocket-dev."""

from __future__ import annotations

import os
from pathlib import Path

from bench.arms.base import Arm, Command, Place
from bench.build import BENCH, BUILD, MissingError, call, tool

_SOURCE = BENCH / "peers/gorilla/main.go"
_PROGRAM = BUILD / "gorilla"
_GOPATH = Path("/usr/share/gocode")
_LIBRARY = _GOPATH / "src/github.com/gorilla/websocket"


def _build() -> dict[str, str]:
    go = tool("go", "Debian: golang-go")
    if not _LIBRARY.exists():
        raise MissingError("gorilla/websocket is not installed (Debian: golang-github-gorilla-websocket-dev)")
    if not _PROGRAM.exists() or _PROGRAM.stat().st_mtime < _SOURCE.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        environment = {"GO111MODULE": "off", "GOPATH": str(_GOPATH), "GOCACHE": str(BUILD / "go-cache")}
        call([go, "build", "-o", str(_PROGRAM), str(_SOURCE)], environment=environment)
    versions = {"go": call([go, "version"]).split()[2]}
    if os.access("/usr/bin/dpkg-query", os.X_OK):
        query = ["dpkg-query", "-W", "-f", "${Version}", "golang-github-gorilla-websocket-dev"]
        versions["gorilla"] = call(query)
    return versions


def _command(place: Place) -> Command:
    words = (place.port, place.feed_socket, place.ping_seconds, int(place.deflate))
    return Command((str(_PROGRAM), *(str(word) for word in words)))


ARMS = (Arm("gorilla", "Go gorilla, PreparedMessage", _build, _command, deflates=True),)
