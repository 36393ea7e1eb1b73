"""A client of the Centrifugo endpoint, by hand: frames as an SDK has them, in JSON or Protobuf."""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from typing import Any, Self

from google.protobuf import json_format

from odinws.messages.centrifugo_protobuf import _CLASSES, _read_varint, _varint
from tests import wire
from tests.wire import BINARY, CLOSE, DEFAULT_SECONDS, END, TEXT, Peer

PATH = "/connection/websocket"
COMPACTION = 1  # a flag of a subscribe command: the SDK is new enough for unsubscribes with 2500


class Sdk:
    """One connection, which answers pings.

    Args:
        protobuf: whether it speaks Protobuf; it offers the subprotocol then, unless `headers` say otherwise.

    Attributes:
        peer: its frames.
        pushes: what came besides replies.
        pings: how many came.
    """

    def __init__(
        self,
        port: int,
        *,
        protobuf: bool = False,
        query: str = "",
        receive_buffer_bytes: int | None = None,
        **headers: str | None,
    ) -> None:
        self.peer = Peer(port, receive_buffer_bytes)
        self._protobuf = protobuf
        offer = {"Sec_WebSocket_Protocol": "centrifuge-protobuf"} if protobuf else {}
        fields: dict[str, Any] = {"path": PATH + query, **offer, **headers}
        self.peer.send(wire.request(**fields))
        self.answer = self.peer.http()
        self.pushes: deque[dict[str, Any]] = deque()
        self.pings = 0
        self._id = 0

    def frame(self, *commands: Any) -> bytes:
        """The frame of some commands."""
        if self._protobuf:
            written = [
                json_format.ParseDict(command, _CLASSES["Command"](), ignore_unknown_fields=True)
                for command in commands
            ]
            written = [command.SerializeToString() for command in written]
            return wire.frame(BINARY, b"".join(_varint(len(each)) + each for each in written))
        return wire.frame(TEXT, "\n".join(map(json.dumps, commands)).encode())

    def tell(self, *commands: dict[str, Any]) -> list[int]:
        """Send commands in one frame; returns their ids."""
        first = self._id + 1
        self._id += len(commands)
        self.peer.send(self.frame(*({"id": first + n, **command} for n, command in enumerate(commands))))
        return list(range(first, self._id + 1))

    def ask(self, method: str, **body: Any) -> dict[str, Any]:
        """Send a command and give its reply: the result, or `{"error": ...}`."""
        (tag,) = self.tell({method: body})
        reply = self.reply(tag)
        return reply if "error" in reply else reply[method]

    def connect(self, **body: Any) -> dict[str, Any]:
        """Say `connect`."""
        assert self.answer.status == 101, self.answer
        return self.ask("connect", **body)

    def subscribe(self, channel: str, since: tuple[str, int] | None = None, **body: Any) -> dict[str, Any]:
        """Subscribe, with a position (epoch and offset) if there is one; again while that is not possible."""
        if since is not None:
            body |= {"recover": True, "epoch": since[0], "offset": since[1]}
        while True:
            answer = self.ask("subscribe", **{"channel": channel, "flag": COMPACTION, **body})
            if not answer.get("error", {}).get("temporary"):
                return answer
            time.sleep(0.2)

    def reply(self, tag: int) -> dict[str, Any]:
        """The reply to a command; pushes that come before are kept."""
        while True:
            found = self._next(DEFAULT_SECONDS)
            if "push" in found:
                self.pushes.append(found["push"])
            elif found:
                assert found.pop("id") == tag, (tag, found)
                return found

    def push(self, seconds: float = DEFAULT_SECONDS) -> dict[str, Any]:
        """The next push."""
        deadline = time.monotonic() + seconds
        while not self.pushes:
            found = self._next(deadline - time.monotonic())
            if found:
                self.pushes.append(found["push"])
        return self.pushes.popleft()

    def offsets(self, count: int) -> list[int]:
        """Those of the next publications, which must come next."""
        return [self.push()["pub"]["offset"] for _ in range(count)]

    def _next(self, seconds: float) -> dict[str, Any]:
        """The next reply or push; an empty one is a ping, and answered."""
        frame = self.peer.next(seconds)
        assert frame is not END, "the server left"
        assert frame.opcode == (BINARY if self._protobuf else TEXT), frame
        found: dict[str, Any] = _read(frame.payload) if self._protobuf else frame.json
        if not found:
            self.pings += 1
            self.peer.send(self.frame({}))
        return found

    def closed(self, seconds: float = DEFAULT_SECONDS) -> int:
        """The code by which the server closes the connection, whatever comes before."""
        frame = self.peer.closing(seconds)
        assert frame.opcode == CLOSE, frame
        return frame.code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.shut()


def _read(payload: bytes) -> dict[str, Any]:
    """A reply in Protobuf, as it is in JSON."""
    size, at = _read_varint(payload, 0)
    assert at + size == len(payload)
    reply = _CLASSES["Reply"].FromString(payload[at:])
    found: dict[str, Any] = _as_json(json_format.MessageToDict(reply, preserving_proto_field_name=True))
    return found


def _as_json(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _as_json(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    if key == "data":
        return json.loads(base64.b64decode(value))
    return int(value) if key == "offset" else value
