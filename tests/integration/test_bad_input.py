"""What a client may do wrong, and that it costs nobody but itself."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests import wire
from tests.integration.conftest import Serve
from tests.ledger import Publisher, read
from tests.nats import NatsServer
from tests.server import Server, established, wait_for
from tests.swarm import Swarm
from tests.wire import CLOSE, CONTINUATION, END, PING, PONG, TEXT, Peer, command, frame

MAX_BYTES = 4096
MAX_ERRORS = 20
MAX_SUBSCRIPTIONS = 5
RATE, BURST = 20, 300  # of commands
CHANNELS = [f"token.T{number}" for number in range(5)]
WITNESSES = 20


class Scene(NamedTuple):
    """A server with a running feed, and clients that behave."""

    server: Server
    nats: NatsServer
    publisher: Publisher
    witnesses: Swarm
    rss_bytes: int  # of all workers, at the start


@pytest.fixture(scope="module")
def scene(nats_module: NatsServer, serve_module: Serve) -> Iterator[Scene]:
    """Small limits, so that they are soon reached."""
    server = serve_module(
        NATS_URL=nats_module.url,
        WS_MAX_MESSAGE_BYTES=str(MAX_BYTES),
        WS_MAX_ERRORS=str(MAX_ERRORS),
        WS_MAX_SUBSCRIPTIONS=str(MAX_SUBSCRIPTIONS),
        WS_COMMAND_RATE=str(RATE),
        WS_COMMAND_BURST=str(BURST),
        WS_CLOSE_SECONDS="1",
    )
    with Swarm(server.port) as witnesses, Publisher(nats_module.url, CHANNELS, rate=200) as publisher:
        witnesses.connect(range(WITNESSES))
        witnesses.subscribe(range(WITNESSES), CHANNELS)
        witnesses.settle()
        yield Scene(server, nats_module, publisher, witnesses, rss_bytes(server))


@pytest.fixture
def peer(scene: Scene) -> Iterator[Peer]:
    """A client after its handshake."""
    with Peer(scene.server.port) as peer:
        peer.upgrade()
        yield peer


def rss_bytes(server: Server) -> int:
    """Resident memory of all workers."""
    return sum(worker["rss_bytes"] for worker in server.json("/stats")["workers"])


def lives(peer: Peer) -> bool:
    """Whether a command is still answered as it should be."""
    return bool(peer.ask("heartbeat")["type"] == "pong")


# -- commands that are well framed and wrong --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "INVALID_JSON"),
        (b"hello", "INVALID_JSON"),
        (b'{"type":"subscribe"', "INVALID_JSON"),
        (b'{"type":"heartbeat"} {}', "INVALID_JSON"),
        (b"[" * 4000, "INVALID_JSON"),
        (b'{"type":"subscribe","data":' + b"[" * 4000, "INVALID_JSON"),
        (b"\x00", "INVALID_JSON"),
        (b"NaN", "INVALID_JSON"),
        (b"null", "INVALID_FIELD"),
        (b"7", "INVALID_FIELD"),
        (b"[]", "INVALID_FIELD"),
        (b"{}", "INVALID_FIELD"),
        (b'{"type":7}', "INVALID_FIELD"),
        (b'{"type":null}', "INVALID_FIELD"),
        (b'{"data":{"channels":["global"]}}', "INVALID_FIELD"),
        (b'{"type":"subscribe"}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":null}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":[]}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":{}}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":{"channels":null}}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":{"channels":"global"}}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":{"channels":[]}}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":{"channels":[7]}}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":{"channels":[null]}}', "INVALID_FIELD"),
        (b'{"type":"subscribe","data":{"channels":[["global"]]}}', "INVALID_FIELD"),
        (b'{"type":"unsubscribe","data":{"channels":{"global":1}}}', "INVALID_FIELD"),
        (b'{"type":"unsubscribe","data":{"channels":[]}}', "INVALID_FIELD"),
        (b'{"type":"replay","data":{"channel":7,"since":1}}', "INVALID_FIELD"),
        (b'{"type":"replay","data":{"channel":"global","since":"1"}}', "INVALID_FIELD"),
        (b'{"type":"nonsense"}', "UNKNOWN_TYPE"),
        (b'{"type":""}', "UNKNOWN_TYPE"),
        (b'{"type":"SUBSCRIBE"}', "UNKNOWN_TYPE"),
        ('{"type":"\u202e\U0001f4a9"}'.encode(), "UNKNOWN_TYPE"),
    ],
)
def test_a_bad_command_gets_one_error_and_the_connection_lives(peer: Peer, text: bytes, code: str) -> None:
    """One error frame with the right code and a message, then commands work as before."""
    peer.send(frame(TEXT, text))
    answer = peer.answer()
    assert answer["type"] == "error"
    assert answer["code"] == code
    assert 0 < len(answer["message"]) < 400
    assert lives(peer)


@pytest.mark.parametrize(
    "channel",
    [
        "",
        "token",
        "token.",
        "*",
        ">",
        "token.>",
        "token.a.b",
        "token.a b",
        "token." + "x" * 65,
        "TOKEN.a",
        "global.x",
        "global\n",
        "odin.token.BTC",
        "$JS.API.INFO",
        "token.\u00e9",
        "token.\u0000",
        "x" * 3000,
    ],
)
def test_an_unknown_channel_is_rejected_beside_the_good_one(peer: Peer, channel: str) -> None:
    """The acknowledgement names both; the rejection has a code, and repeats no more than a little."""
    ack = peer.ask("subscribe", channels=[channel, "token.me"])
    assert ack["type"] == "subscription_ack"
    assert ack["subscribed"] == ["token.me"]
    assert ack["count"] == 1
    [rejected] = ack["rejected"]
    assert rejected["code"] == "INVALID_CHANNEL"
    assert rejected["message"]
    assert len(rejected["channel"]) <= 81
    assert channel.startswith(rejected["channel"].rstrip("…"))


def test_too_many_subscriptions_are_rejected(peer: Peer) -> None:
    """What fits is subscribed, the rest is rejected by name, and giving one back makes room for one."""
    names = [f"token.N{number}" for number in range(MAX_SUBSCRIPTIONS + 3)]
    ack = peer.ask("subscribe", channels=names)
    assert ack["subscribed"] == names[:MAX_SUBSCRIPTIONS]
    assert [(each["channel"], each["code"]) for each in ack["rejected"]] == [
        (name, "TOO_MANY_SUBSCRIPTIONS") for name in names[MAX_SUBSCRIPTIONS:]
    ]
    assert peer.ask("unsubscribe", channels=names[:1])["count"] == MAX_SUBSCRIPTIONS - 1
    assert peer.ask("subscribe", channels=names[-2:])["count"] == MAX_SUBSCRIPTIONS


def test_the_same_channel_twice_counts_once(peer: Peer) -> None:
    """In one command or in two; what was never subscribed can't be given back."""
    assert peer.ask("subscribe", channels=["token.a", "token.a"])["count"] == 1
    assert peer.ask("subscribe", channels=["token.a"])["count"] == 1
    gone = peer.ask("unsubscribe", channels=["token.a", "token.a", "token.b"])
    assert gone["unsubscribed"] == ["token.a"]
    assert gone["count"] == 0


def test_the_error_budget_ends_with_1008(peer: Peer) -> None:
    """Each error is answered, the last one by a close frame as well."""
    peer.send(frame(TEXT, b"x") * (MAX_ERRORS + 5))
    answers = [peer.next() for _ in range(MAX_ERRORS)]
    assert {answer.json["code"] for answer in answers} == {"INVALID_JSON"}
    close_frame = peer.next()
    assert close_frame.code == 1008
    assert str(MAX_ERRORS).encode() in close_frame.payload
    peer.send(wire.close(1008))
    assert peer.ended()


def test_rejected_channels_count_as_errors(peer: Peer) -> None:
    """A client that only asks for what can't be had is closed, too."""
    peer.send(command("subscribe", channels=["no"]) * (MAX_ERRORS + 1))
    assert peer.closing().code == 1008


def test_a_flood_of_commands_meets_the_rate_limit(peer: Peer) -> None:
    """The burst is served; beyond it every command is answered by an error, until the budget is spent."""
    began = time.monotonic()
    peer.send(command("heartbeat") * 600)
    kinds = []
    while (got := peer.next()).opcode == TEXT:
        kinds.append(got.json.get("code", "pong"))
    assert got.code == 1008
    assert BURST <= kinds.count("pong") <= BURST + 1 + (time.monotonic() - began) * RATE
    assert kinds.count("RATE_LIMIT_EXCEEDED") == MAX_ERRORS
    assert len(kinds) == kinds.count("pong") + MAX_ERRORS


def test_two_hundred_commands_in_one_packet_are_served_in_order(peer: Peer) -> None:
    """Subscribe and unsubscribe alternate; the counts show that nothing overtook."""
    pair = command("subscribe", channels=["token.a"]) + command("unsubscribe", channels=["token.a"])
    peer.send(pair * 100)
    counts = [peer.next().json["count"] for _ in range(200)]
    assert counts == [1, 0] * 100


# -- frames that are wrong ----------------------------------------------------------------------------

WHOLE = frame(TEXT, b'{"type":"heartbeat"}')


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(TEXT, b"x" * (MAX_BYTES + 1)), 1009, id="oversize"),
        pytest.param(frame(TEXT, length=b"\x7e\x10\x01"), 1009, id="oversize by its header"),
        pytest.param(frame(TEXT, length=b"\x7f" + b"\x7f" + b"\xff" * 7), 1009, id="64-bit length"),
        pytest.param(frame(TEXT, length=b"\x7f" + struct.pack("!Q", 1 << 32)), 1009, id="4 GiB"),
        pytest.param(frame(TEXT, length=b"\x7f" + b"\xff" * 8), 1002, id="64-bit length, top bit"),
        pytest.param(frame(2, b"x"), 1003, id="binary"),
        pytest.param(frame(2), 1003, id="empty binary"),
        pytest.param(frame(TEXT, b"{}", masked=False), 1002, id="unmasked"),
        pytest.param(frame(PING, masked=False), 1002, id="unmasked ping"),
        *(pytest.param(frame(TEXT, b"{}", reserved=bit), 1002, id=f"RSV {bit}") for bit in (1, 2, 4, 7)),
        *(pytest.param(frame(code, b"{}"), 1002, id=f"opcode {code}") for code in (3, 7, 11, 15)),
        pytest.param(frame(TEXT, b"{}", length=b"\x7e\x00\x02"), 1002, id="16-bit length of 2"),
        pytest.param(frame(TEXT, length=b"\x7e\x00\x7d"), 1002, id="16-bit length of 125"),
        pytest.param(frame(TEXT, length=b"\x7f" + struct.pack("!Q", 2)), 1002, id="64-bit length of 2"),
        pytest.param(
            frame(TEXT, length=b"\x7f" + struct.pack("!Q", 65535)), 1002, id="64-bit length of 65535"
        ),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="bad UTF-8"),
        pytest.param(frame(TEXT, b"\xed\xa0\x80"), 1007, id="a surrogate in UTF-8"),
        pytest.param(frame(TEXT, b"\xc0\xaf"), 1007, id="overlong UTF-8"),
        pytest.param(frame(TEXT, b"\xf4\x90\x80\x80"), 1007, id="above U+10FFFF"),
        pytest.param(frame(TEXT, b"{\xe2\x82"), 1007, id="cut UTF-8"),
        pytest.param(
            frame(TEXT, b"\xe2", final=False) + frame(CONTINUATION, b"\x28\xa1"), 1007, id="bad in two pieces"
        ),
        pytest.param(frame(PING, b"x" * 126), 1002, id="long ping"),
        pytest.param(frame(PONG, b"x" * 126), 1002, id="long pong"),
        pytest.param(frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002, id="long close"),
        pytest.param(frame(PING, b"x", final=False), 1002, id="ping in pieces"),
        pytest.param(frame(CLOSE, b"\x03\xe8", final=False), 1002, id="close in pieces"),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="a piece of nothing"),
        pytest.param(frame(TEXT, b"{", final=False) + WHOLE, 1002, id="a message inside another"),
        pytest.param(frame(TEXT, b"x", final=False) + frame(CONTINUATION, b"x" * MAX_BYTES), 1009, id="sum"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="close of one byte"),
        *(
            pytest.param(wire.close(code), 1002, id=f"close code {code}")
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
        ),
        pytest.param(wire.close(1000, b"\xff\xfe"), 1007, id="close reason not UTF-8"),
    ],
)
def test_a_broken_frame_closes_with_its_code(peer: Peer, data: bytes, code: int) -> None:
    """The code is on the wire, what came after is ignored, and the stream ends."""
    peer.send(data + WHOLE)
    close_frame = peer.next()
    assert close_frame.opcode == CLOSE
    assert close_frame.code == code
    assert 0 < len(close_frame.payload) - 2 <= 123
    close_frame.payload[2:].decode()
    peer.send(wire.close(code))
    assert peer.next() is END


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 4999])
def test_a_right_close_code_comes_back(peer: Peer, code: int) -> None:
    """The same code, and the server ends the stream first."""
    peer.send(wire.close(code, "tschüß".encode()))
    close_frame = peer.next()
    assert close_frame.code == code
    assert peer.next() is END


def test_a_close_frame_without_code_comes_back_empty(peer: Peer) -> None:
    """1005 is never sent."""
    peer.send(frame(CLOSE))
    assert peer.next() == (0x88, b"")
    assert peer.next() is END


@pytest.mark.parametrize("piece", [b"x", b""], ids=["data", "empty"])
def test_a_message_in_pieces_for_ever_is_ended(scene: Scene, peer: Peer, piece: bytes) -> None:
    """By its size or by the number of pieces, whichever comes first; memory does not grow."""
    peer.send(frame(TEXT, final=False))
    for _ in range(200):
        peer.send(frame(CONTINUATION, piece, final=False) * 100)
    assert peer.closing().code == 1009
    assert rss_bytes(scene.server) < scene.rss_bytes + (16 << 20)


def test_right_frames_in_odd_shapes_are_served(peer: Peer) -> None:
    """Pieces with control frames between them, single bytes, an empty piece, a message of the full size."""
    text = b'{"type":"heartbeat"}'
    pieces = [
        frame(TEXT, text[:3], final=False),
        frame(PING, b"in between"),
        frame(CONTINUATION, final=False),
    ]
    peer.send(b"".join(pieces) + frame(CONTINUATION, text[3:]))
    assert peer.next() == (0x80 | PONG, b"in between")
    assert peer.next().json["type"] == "pong"
    for byte in WHOLE:
        peer.send(bytes((byte,)))
    assert peer.next().json["type"] == "pong"
    peer.send(frame(TEXT, text + b" " * (MAX_BYTES - len(text))))
    assert peer.next().json["type"] == "pong"
    peer.send(frame(PING, b"y" * 125) + frame(PONG, b"unasked") + frame(PONG))
    assert peer.next() == (0x80 | PONG, b"y" * 125)
    assert lives(peer)


def test_a_flood_of_pings_is_answered_and_holds_nobody_up(scene: Scene, peer: Peer) -> None:
    """A thousand pings in one packet, many times over; another client still gets its answers."""
    with Peer(scene.server.port) as other:
        other.upgrade()
        for _ in range(20):
            peer.send(frame(PING) * 1000)
            assert lives(other)
    answered = [peer.next() for _ in range(20_000)]
    assert set(answered) == {(0x80 | PONG, b"")}
    assert lives(peer)


# -- requests that are wrong --------------------------------------------------------------------------


def asked(scene: Scene, data: bytes) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON body of the answer to a request."""
    with Peer(scene.server.port) as peer:
        answer = peer.send(data).http()
        body = peer.body(answer) if "content-length" in answer.headers else answer.rest
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return answer.status, answer.headers, json.loads(body) if is_json else body


def test_a_plain_get_on_ws_says_what_is_spoken_here(scene: Scene) -> None:
    """426 with a JSON body and the `Upgrade` header."""
    plain = wire.request(Upgrade=None, Connection=None, Sec_WebSocket_Key=None, Sec_WebSocket_Version=None)
    status, headers, body = asked(scene, plain)
    assert status == 426
    assert headers["upgrade"] == "websocket"
    assert body["error"] == "upgrade_required"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(wire.request(method="POST", Content_Length="0"), 405, id="POST with upgrade"),
        pytest.param(
            wire.request(method="POST", Upgrade=None, Connection=None, Content_Length="2") + b"{}",
            405,
            id="POST",
        ),
        pytest.param(wire.request(method="DELETE"), 405, id="DELETE"),
        pytest.param(wire.request(Sec_WebSocket_Key=None), 400, id="no key"),
        pytest.param(wire.request(Sec_WebSocket_Key=""), 400, id="empty key"),
        pytest.param(wire.request(Sec_WebSocket_Key="no base64!"), 400, id="key not base64"),
        pytest.param(wire.request(Sec_WebSocket_Key="schl\u00fcssel"), 400, id="key not ASCII"),
        pytest.param(wire.request(Sec_WebSocket_Key="YWJj"), 400, id="short key"),
        pytest.param(wire.request(Sec_WebSocket_Version="8"), 426, id="version 8"),
        pytest.param(wire.request(Sec_WebSocket_Version="14"), 426, id="version 14"),
        pytest.param(wire.request(Sec_WebSocket_Version="x" * 5000), 426, id="version nonsense"),
        pytest.param(wire.request(Sec_WebSocket_Version=None), 426, id="no version"),
        pytest.param(wire.request(version="HTTP/1.0"), 400, id="HTTP/1.0"),
        pytest.param(wire.request(Content_Length="5") + b"hello", 400, id="body"),
        pytest.param(
            wire.request(Transfer_Encoding="chunked") + b"5\r\nhello\r\n0\r\n\r\n", 400, id="chunked body"
        ),
        pytest.param(wire.request(Connection=None), 426, id="no Connection"),
        pytest.param(wire.request(Upgrade="h2c"), 426, id="another Upgrade"),
        pytest.param(wire.request(path="/nowhere"), 404, id="another path"),
    ],
)
def test_a_bad_upgrade_is_refused_with_a_reason(scene: Scene, data: bytes, status: int) -> None:
    """An HTTP error with a JSON body that says why; no slot is lost by it."""
    got, headers, body = asked(scene, data)
    assert got == status
    assert body["error"]
    assert body["message"]
    if "version" in body["message"]:
        assert headers["sec-websocket-version"] == "13"


def test_right_upgrades_in_odd_shapes_are_served(scene: Scene) -> None:
    """Names in any case, several values, extensions and protocols that nobody here speaks."""
    odd = wire.request(
        Upgrade="WebSocket",
        Connection="keep-alive, Upgrade",
        Sec_WebSocket_Extensions="x-unknown; a=1, permessage-deflate; unknown",
        Origin="https://elsewhere.example",
    )
    with Peer(scene.server.port) as peer:
        answer = peer.send(odd).http()
        assert answer.status == 101
        assert answer.headers.keys() == {"upgrade", "connection", "sec-websocket-accept"}
        assert peer.next().json["type"] == "welcome"
        assert lives(peer)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="TLS hello"),
        pytest.param(bytes(range(256)) * 8, id="all bytes"),
        pytest.param(b"\r\n" * 2000, id="empty lines"),
        pytest.param(b"GET\r\n\r\n", id="half a line"),
        pytest.param(b"GET /ws HTTP/9.9\r\n\r\n", id="HTTP/9.9"),
        pytest.param(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", id="long line"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5000 + b"\r\n", id="many headers"),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(b"POST /ws HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad chunk"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 preface"),
        pytest.param(frame(TEXT, b"{}") * 10, id="frames without handshake"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_garbage_on_the_port_ends_soon(scene: Scene, data: bytes) -> None:
    """An HTTP error or the end of the stream, never an upgrade, never a hang once the client has ended."""
    with Peer(scene.server.port) as peer:
        peer.send(data)
        with contextlib.suppress(OSError):  # it may have ended already
            peer.sock.shutdown(socket.SHUT_WR)
        answer = peer.http()
        assert answer.status in (0, 400, 404, 405, 414, 431, 505)


def test_a_command_in_the_packet_of_the_handshake_is_served(scene: Scene) -> None:
    """A subscription, half a frame and its other half: nothing of it is lost."""
    sampled_at = WHOLE[:7], WHOLE[7:]
    with Peer(scene.server.port) as peer:
        peer.upgrade(command("subscribe", channels=CHANNELS) + sampled_at[0])
        assert peer.answer()["subscribed"] == CHANNELS
        assert peer.answer(*["price:update"])["channel"] in CHANNELS
        peer.send(sampled_at[1])
        assert peer.answer()["type"] == "pong"


def test_a_full_buffer_behind_the_handshake_is_served(scene: Scene) -> None:
    """More than any buffer on the way holds."""
    filled = frame(TEXT, b'{"type":"heartbeat"}' + b" " * 3500)
    with Peer(scene.server.port) as peer:
        peer.upgrade(filled * 50)
        assert [peer.answer()["type"] for _ in range(50)] == ["pong"] * 50


def test_clients_that_vanish_around_the_handshake_leave_nothing(scene: Scene) -> None:
    """Reset before the answer, after it, amid a frame and amid a request: every slot comes back."""
    for data in (
        wire.request(),
        wire.request()[:-7],
        wire.request() + WHOLE[:5],
        b"",
        wire.request() + WHOLE * 9,
    ):
        for _ in range(40):
            sock = socket.create_connection(("127.0.0.1", scene.server.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(data)
            sock.close()
    counts_are_true(scene)
    assert "Traceback" not in scene.server.log()


# -- and nobody else noticed --------------------------------------------------------------------------


def counts_are_true(scene: Scene) -> None:
    """The server's count of connections comes back to that of the witnesses, and the kernel agrees."""
    server = scene.server
    wait_for(lambda: server.json("/stats")["connections"] == WITNESSES, 5, "the count of connections")
    wait_for(lambda: established(server.port) == WITNESSES, 5, "the kernel's count")
    assert server.metric("ws_connections") == WITNESSES


def test_nobody_else_lost_anything(scene: Scene) -> None:
    """After all of that: the witnesses have every message, memory and greenlets are as before."""
    counts_are_true(scene)
    server, witnesses = scene.server, scene.witnesses
    assert rss_bytes(server) < scene.rss_bytes + (24 << 20)
    wait_for(lambda: server.metric("ws_greenlets") < 30, 5, "the greenlets to end")
    subscriptions = server.json("/stats")["subscriptions"]
    assert subscriptions == WITNESSES * len(CHANNELS)
    log = server.log()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    scene.publisher.stop()
    taken = read(scene.nats.url)
    wait_for(lambda: taken.reached(witnesses), 10, "the witnesses to have all messages")
    assert witnesses.problems() == []
    assert taken.faults(witnesses.stretches()) == []
    assert len(witnesses.open()) == WITNESSES
    assert len(taken) > 20
