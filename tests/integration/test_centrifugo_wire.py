"""The endpoint for Centrifugo's clients by the protocol's schema, with what each of them says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import pytest

from tests import ledger
from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.sdks import wire as protocol
from tests.server import ROOT, Server, wait_for
from tests.wire import BINARY, CLOSE, END, TEXT, Frame, Peer, frame, request

PATH = "/connection/websocket"
PAGE = ROOT / "docs/centrifugo-clients.md"


class Style(NamedTuple):
    """How a client speaks.

    Attributes:
        at_once: `connect` and the first `subscribe` are in one frame.
        connect, subscribe: what it puts into these commands besides.
    """

    protobuf: bool
    at_once: bool
    connect: Mapping[str, Any]
    subscribe: Mapping[str, Any]


_ALWAYS = {"positioned": False, "recoverable": False, "join_leave": False}
STYLES = {
    "js": Style(False, True, {"name": "js"}, {"flag": 1}),
    "js, Protobuf": Style(True, True, {"name": "js"}, {"flag": 1}),
    "python": Style(False, False, {"name": "python"}, {"flag": 1}),
    "python, Protobuf": Style(True, False, {"name": "python"}, {"flag": 1}),
    "go": Style(False, False, {"token": "", "name": "go", "version": ""}, {"token": "", "flag": 1}),
    "go, Protobuf": Style(True, False, {"name": "go"}, {"flag": 1}),
    "dart": Style(True, False, {"name": "dart"}, _ALWAYS),
    "swift": Style(True, False, {"name": "swift"}, {**_ALWAYS, "flag": 1}),
    "java": Style(True, False, {"name": "java"}, {**_ALWAYS, "delta": "", "flag": 1}),
}


class Speaker:
    """One connection of a client. Every answer is held against the schema.

    Attributes:
        replies: all that came, but for pings.
        pings: how many of these.
    """

    def __init__(self, port: int, style: Style) -> None:
        self.style = style
        self.replies: list[Any] = []
        self.pings = 0
        self._peer = Peer(port)
        self._id = 0
        offer = {"Sec_WebSocket_Protocol": "centrifuge-protobuf"} if style.protobuf else {}
        head = self._peer.send(request(path=PATH, **offer)).http()
        assert head.status == 101, head
        assert head.headers.get("sec-websocket-protocol") == ("centrifuge-protobuf" if offer else None)

    def send(self, *commands: Mapping[str, Any]) -> list[int]:
        """Send commands in one frame; their ids."""
        first, self._id = self._id + 1, self._id + len(commands)
        numbered = [{"id": first + at, **each} for at, each in enumerate(commands)]
        if self.style.protobuf:
            self._peer.send(frame(BINARY, protocol.join([protocol.pack(each) for each in numbered])))
        else:
            self._peer.send(frame(TEXT, "\n".join(map(json.dumps, numbered)).encode()))
        return list(range(first, self._id + 1))

    def ask(self, **command: Any) -> Any:
        """The answer to one command."""
        (number,) = self.send(command)
        return self.answer(number)

    def answer(self, number: int) -> Any:
        """The answer to a command that was sent."""
        return self.until(lambda reply: reply.get("id") == number)

    def push(self) -> Any:
        """The next push that was not looked at yet."""
        return self.until(lambda reply: "push" in reply)["push"]

    def until(self, wanted: Any) -> Any:
        """Read on to a reply; it is taken out of `replies`."""
        while True:
            for reply in self.replies:
                if wanted(reply):
                    self.replies.remove(reply)
                    return reply
            self.read()

    def read(self) -> None:
        """Read one frame."""
        got = self._peer.next()
        assert got is not END
        assert got.opcode == (BINARY if self.style.protobuf else TEXT), got
        for reply in self._decoded(got):
            assert list(protocol.faults(reply)) == []
            if reply:
                self.replies.append(reply)
            else:
                self.pings += 1
                self._peer.send(frame(BINARY, b"\0") if self.style.protobuf else frame(TEXT, b"{}"))

    def _decoded(self, got: Frame) -> Iterator[Any]:
        assert got.payload
        if self.style.protobuf:
            for message in protocol.split(got.payload):
                yield protocol.unpack(message)
        else:
            for line in got.payload.split(b"\n"):
                yield json.loads(line)

    def subscribe(self, channel: str, **more: Any) -> Any:
        """The result of a subscription."""
        answer = self.ask(subscribe={"channel": channel, **self.style.subscribe, **more})
        return answer.get("subscribe", answer)

    def connected(self, *channels: str) -> list[Any]:
        """Connect as the client does and subscribe; the results."""
        connect = {"connect": dict(self.style.connect)}
        subscribes = [{"subscribe": {"channel": name, **self.style.subscribe}} for name in channels]
        if self.style.at_once:
            first, *numbers = self.send(connect, *subscribes)
            self.answer(first)
        else:
            self.answer(*self.send(connect))
            numbers = [number for each in subscribes for number in self.send(each)]
        return [self.answer(number)["subscribe"] for number in numbers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.shut()


def epoch(server: Server) -> str:
    """What it tells those who speak its own protocol."""
    with Peer(server.port) as peer:
        return str(peer.upgrade()["epoch"])


@pytest.fixture(scope="module")
def server(serve_module: Serve, nats_module: NatsServer) -> Server:
    """One with a stream, and pings every second."""
    found = serve_module(NATS_URL=nats_module.url, WS_WORKERS="1", WS_HEARTBEAT_SECONDS="1")
    wait_for(lambda: epoch(found) != "none", 20, "an epoch")
    return found


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> Style:
    """Each client."""
    return STYLES[request.param]


def publish(nats: NatsServer, *channels: str) -> None:
    """A message on each, which says of which."""
    ledger.publish(nats.url, [(channel, json.dumps({"of": channel}).encode()) for channel in channels])


def test_a_session(server: Server, nats_module: NatsServer, style: Style) -> None:
    """Two subscriptions, their messages, their end."""
    with Speaker(server.port, style) as client:
        one, every = client.connected("token.A", "token.*")
        assert one["recoverable"]
        assert one["positioned"]
        assert one["epoch"] == every["epoch"] != ""
        publish(nats_module, "token.A", "token.B")
        pushes = sorted((client.push() for _ in range(3)), key=lambda push: str(push["channel"]))
        wild_a, wild_b, exact = pushes
        assert exact["channel"] == "token.A"
        assert exact["pub"]["data"] == {"of": "token.A"}
        assert one["offset"] < exact["pub"]["offset"] == wild_a["pub"]["offset"] < wild_b["pub"]["offset"]
        assert [push["pub"]["tags"] for push in (wild_a, wild_b)] == [
            {"channel": "token.A"},
            {"channel": "token.B"},
        ]
        assert "tags" not in exact["pub"]
        for channel in ("token.A", "token.A", "token.never"):
            assert "unsubscribe" in client.ask(unsubscribe={"channel": channel})
        publish(nats_module, "token.A", "token.C")
        assert [client.push()["pub"]["tags"]["channel"] for _ in range(2)] == ["token.A", "token.C"]


def test_recovery(server: Server, nats_module: NatsServer, style: Style) -> None:
    """What was missed comes in order, before what is new; a position of another epoch is not recovered."""
    with Speaker(server.port, style) as client:
        (begun,) = client.connected("token.R")
    publish(nats_module, *["token.R"] * 3)
    position = {"recover": True, "epoch": begun["epoch"], "offset": begun["offset"]}
    with Speaker(server.port, style) as client:
        client.connected()
        again = client.subscribe("token.R", **position)
        assert again["was_recovering"]
        assert again["recovered"]
        assert again["epoch"] == begun["epoch"]
        publish(nats_module, "token.R")
        missed = again.get("publications", [])
        offsets = [pub["offset"] for pub in missed]
        offsets += [client.push()["pub"]["offset"] for _ in range(4 - len(missed))]
        assert offsets == sorted(set(offsets))
        assert begun["offset"] <= again["offset"] or again["offset"] in offsets
    for changed in ({"epoch": "_"}, {"offset": 2**40}):
        with Speaker(server.port, style) as client:
            client.connected()
            lost = client.subscribe("token.R", **{**position, **changed})
            assert lost["was_recovering"]
            assert not lost.get("recovered", False)
            assert lost["offset"] >= offsets[-1]


def test_what_is_not_there(server: Server, style: Style) -> None:
    """Each command that this server does not know, or that is wrong, has the code that says so."""
    wrong: Sequence[tuple[Mapping[str, Any], int]] = (
        ({"subscribe": {"channel": "token.A"}}, 105),
        ({"subscribe": {"channel": "ns:x"}}, 102),
        ({"publish": {"channel": "token.A", "data": {}}}, 108),
        ({"presence": {"channel": "token.A"}}, 108),
        ({"presence_stats": {"channel": "token.A"}}, 108),
        ({"rpc": {"method": "x", "data": {}}}, 108),
    )
    with Speaker(server.port, style) as client:
        client.connected("token.A")
        for command, code in wrong:
            answer = client.ask(**command)
            assert "error" in answer, (command, answer)
            error = answer["error"]
            assert error["code"] == code, command
            assert not error.get("temporary")


def test_pings(server: Server, style: Style) -> None:
    """They come while nothing else does, and the connection lives on as they are answered."""
    with Speaker(server.port, style) as client:
        client.connected("token.quiet")
        while client.pings < 3:
            client.read()
        assert "unsubscribe" in client.ask(unsubscribe={"channel": "token.quiet"})


def test_who_does_not_connect(server: Server) -> None:
    """A subscription without a connection ends it, with a code after which no client returns."""
    with Speaker(server.port, STYLES["js"]) as client:
        client.send({"subscribe": {"channel": "token.A"}})
        last = client._peer.closing()
    assert last.opcode == CLOSE
    assert 3500 <= last.code < 4000


def test_the_page_names_what_is_required() -> None:
    """What docs/centrifugo-clients.md says a client can't do without is required by the schema."""
    results = {name: kind for name, (_, kind) in protocol.MESSAGES["Reply"].items()}
    pushes = {name: kind for name, (_, kind) in protocol.MESSAGES["Push"].items()}
    named = 0
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if "**required**" not in line:
            continue
        for owner, field in re.findall(r"`(?:push\.)?(\w+)\.(\w+)`", cells[1]):
            named += 1
            definition = protocol.SCHEMA["$defs"][{**results, **pushes}[owner]]
            assert field in definition["required"] + list(definition.get("dependentRequired", ())), line
    assert named >= 3


@pytest.mark.parametrize(
    "reply",
    [
        {"id": 1, "connect": {}},
        {"id": 1, "connect": {"client": "", "ping": 25, "pong": True}},
        {"id": 1, "error": {}},
        {"id": 1, "subscribe": {}, "unsubscribe": {}},
        {"push": {"channel": "a", "unsubscribe": {"code": 0, "reason": "x"}}},
        {"push": {"channel": "a", "pub": {"data": 1, "offset": -1}}},
        {"push": {"channel": "a", "pub": {"data": 1, "offset": 2**53 + 1}}},
        {"id": 1},
        {"id": 1, "subscribe": {"unknown": 1}},
        {"id": 1, "refresh": {"client": "x", "expires": True}},
    ],
)
def test_the_schema_refuses(reply: Any) -> None:
    """What would break a client is found; the rest is not."""
    assert list(protocol.faults(reply))
    assert list(protocol.faults({"id": 1, "connect": {"client": "x", "ping": 25, "pong": True}})) == []
    assert list(protocol.faults({})) == []


def test_protobuf_there_and_back() -> None:
    """The two halves of the codec agree, and empty fields are not on the wire."""
    command = {"id": 300, "subscribe": {"channel": "token.A", "recover": True, "offset": 2**40, "token": ""}}
    packed = protocol.pack(command)
    del command["subscribe"]["token"]  # type: ignore[attr-defined]
    assert protocol.unpack(packed, "Command") == command
    assert packed.hex() == "08ac022a" + "12" + "0a07" + b"token.A".hex() + "1801" + "38" + "808080808020"
    with pytest.raises(ValueError, match="field 9"):
        protocol.unpack(b"\x48\x01", "Reply")
