"""permessage-deflate with a client that we did not write, beside clients without it."""

from __future__ import annotations

import json
import zlib
from itertools import pairwise
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.sync.client import ClientConnection, connect

from tests import ledger, wire
from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, Server, wait_for
from tests.swarm import Swarm
from tests.wire import TEXT, Peer

CHANNEL = "token.A"
COUNT = 40
LONG = json.dumps({"type": "price:update", "filling": "price " * 200, "sign": "ü"}).encode()
SHORT = b'{"type":"price:update","short":true}'
MESSAGES = [(CHANNEL, SHORT if number % 4 == 0 else LONG) for number in range(COUNT)]


@pytest.fixture
def server(nats: NatsServer, serve: Serve) -> Server:
    """With the default settings of compression."""
    return serve(NATS_URL=nats.url)


def command(client: ClientConnection, kind: str, **data: Any) -> Any:
    """Send a command, and the answer to it."""
    client.send(json.dumps({"type": kind, "data": data}))
    return json.loads(client.recv(PATIENCE_SECONDS))


def welcomed(client: ClientConnection) -> None:
    """Read the welcome and subscribe."""
    assert json.loads(client.recv(PATIENCE_SECONDS))["type"] == "welcome"
    assert command(client, "subscribe", channels=[CHANNEL])["subscribed"] == [CHANNEL]


def received(client: ClientConnection) -> list[Any]:
    """The data messages, all of them."""
    return [json.loads(client.recv(PATIENCE_SECONDS)) for _ in range(COUNT)]


def right(messages: list[Any]) -> None:
    """They say what was published, once and in order."""
    assert [message["data"] for message in messages] == [json.loads(payload) for _, payload in MESSAGES]
    for one, two in pairwise(messages):
        assert two["prev"] == one["seq"] < two["seq"]


@pytest.mark.parametrize("bits", [None, 9, 12, 15])
def test_compressed_and_plain_clients_read_the_same(
    nats: NatsServer, server: Server, bits: int | None
) -> None:
    """The library's client, with its default offer and with windows of its own; others without; one feed."""
    # None: the library's own offer.
    own = [ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=True)]
    offer = {} if bits is None else {"compression": None, "extensions": own}
    with (
        connect(server.ws, **offer) as small,  # type: ignore[arg-type]
        connect(server.ws, compression=None) as plain,
        Swarm(server.port, keep=True) as swarm,
    ):
        [agreed] = small.protocol.extensions
        assert isinstance(agreed, PerMessageDeflate)
        assert agreed.remote_no_context_takeover
        assert agreed.local_no_context_takeover
        assert agreed.remote_max_window_bits == (bits or 15)
        assert plain.protocol.extensions == []
        for client in (small, plain):
            welcomed(client)
        swarm.connect(range(10))
        swarm.subscribe(range(10), [CHANNEL])
        swarm.settle()
        ledger.publish(nats.url, MESSAGES)
        messages = received(small)
        right(messages)
        assert received(plain) == messages
        wait_for(lambda: swarm.messages() == 10 * COUNT, 10, "all messages")
        assert swarm.problems() == []
        for life in swarm.lives:
            assert [json.loads(text) for text in life.payloads or ()] == messages
        assert command(small, "heartbeat")["type"] == "pong"


class Wire:
    """A client by hand that counts what comes over the wire."""

    def __init__(self, port: int, extensions: str | None) -> None:
        self.peer = Peer(port)
        self.peer.send(wire.request(Sec_WebSocket_Extensions=extensions))
        answer = self.peer.http()
        assert answer.status == 101
        self.agreed = answer.headers.get("sec-websocket-extensions", "")
        assert self.peer.next().json["type"] == "welcome"
        assert self.peer.ask("subscribe", channels=[CHANNEL])["count"] == 1

    def read(self) -> tuple[int, list[bool], list[Any]]:
        """Bytes of payloads, which messages were compressed, and what they say."""
        size = 0
        small: list[bool] = []
        messages: list[Any] = []
        while len(messages) < COUNT:
            frame = self.peer.next()
            assert frame.opcode == TEXT
            size += len(frame.payload)
            small.append(frame.head == 0xC1)
            assert small[-1] or frame.head == 0x81
            # Each stands for itself: a fresh inflater reads it.
            tail = b"\x00\x00\xff\xff"
            text = zlib.decompressobj(-15).decompress(frame.payload + tail) if small[-1] else frame.payload
            messages.append(json.loads(text))
        return size, small, messages


def test_fewer_bytes_go_over_the_wire(nats: NatsServer, server: Server) -> None:
    """Long messages are compressed, short ones are not; who did not offer it gets all of them plain."""
    small, plain = Wire(server.port, "permessage-deflate"), Wire(server.port, None)
    with small.peer, plain.peer:
        assert small.agreed.startswith("permessage-deflate")
        assert plain.agreed == ""
        ledger.publish(nats.url, MESSAGES)
        small_bytes, compressed, messages = small.read()
        plain_bytes, untouched, same = plain.read()
        right(messages)
        assert same == messages
        assert compressed == [payload is LONG for _, payload in MESSAGES]
        assert not any(untouched)
        assert small_bytes < plain_bytes / 4
        heads = sum(2 + 2 * (len(payload) > 60) for _, payload in MESSAGES)  # 2 or 4 bytes of each frame
        most = small_bytes + plain_bytes + 2 * 2 * heads

        def delivered() -> int:
            found: int = server.json("/stats")["fan_out"]["delivered_bytes"]
            return found

        # A pass is counted at its end, which the other worker may not have reached yet.
        wait_for(lambda: delivered() > small_bytes + plain_bytes, 5, "the end of both passes")
        assert delivered() <= most


def test_a_client_that_keeps_its_context_is_told_so(server: Server) -> None:
    """What it agreed not to do stands in the close frame."""
    compressor = zlib.compressobj(wbits=-15)
    with Peer(server.port) as peer:
        answer = peer.send(wire.request(Sec_WebSocket_Extensions="permessage-deflate")).http()
        assert answer.headers["sec-websocket-extensions"].endswith("; client_no_context_takeover")
        for _ in range(2):
            text = compressor.compress(b'{"type":"subscribe","data":{"channels":["token.A"]}}')
            message = (text + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            peer.send(wire.frame(TEXT, message, reserved=4))
        end = peer.closing()
    assert end.code == 1007
    assert end.payload[2:] == (
        b"compressed with the context of earlier messages; client_no_context_takeover was agreed"
    )


def test_it_can_be_switched_off(nats: NatsServer, serve: Serve) -> None:
    """Then no compression is negotiated, whatever is offered."""
    server = serve(NATS_URL=nats.url, WS_COMPRESSION="0")
    by_hand = Wire(server.port, "permessage-deflate; client_max_window_bits")
    with by_hand.peer, connect(server.ws) as client:
        assert client.protocol.extensions == []
        assert by_hand.agreed == ""
        welcomed(client)
        ledger.publish(nats.url, MESSAGES)
        right(received(client))
        _, small, messages = by_hand.read()
        right(messages)
        assert not any(small)


def test_the_bound_can_be_moved(nats: NatsServer, serve: Serve) -> None:
    """With a higher least length nothing here is worth compressing, though it was agreed on."""
    server = serve(NATS_URL=nats.url, WS_COMPRESSION_MIN_BYTES="5000")
    client = Wire(server.port, "permessage-deflate")
    with client.peer:
        assert client.agreed
        ledger.publish(nats.url, MESSAGES)
        _, small, messages = client.read()
        right(messages)
        assert not any(small)
