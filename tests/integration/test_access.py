"""Access control of a real server: keys, tokens, origins, permissions and rates."""

from __future__ import annotations

import json
import os
import signal
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.access.material import SECRET, ec_jwk, ec_key, jwks, rsa_jwk, rsa_key, token
from tests.certificate import self_signed
from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import GUNICORN, PATIENCE_SECONDS, Server, free_port, wait_for
from tests.wire import Peer, request

ADMIN = "an admin token of these tests"
BROWSER = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def fresh(seconds: float = 60.0, **claims: Any) -> str:
    """A token of the shared secret that lives this long."""
    return token(exp=time.time() + seconds, **claims)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key file with an RSA and a P-256 key."""
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    path.write_bytes(jwks(rsa_jwk(kid="r1"), ec_jwk("first", kid="e1")))
    return path


@pytest.fixture(scope="module")
def server(serve_module: Serve, keys: Path) -> Server:
    """Asks for tokens; knows a secret and a key file; admits one origin; believes a proxy on this machine."""
    return serve_module(
        WS_JWT_SECRET=SECRET,
        WS_JWKS_FILE=str(keys),
        WS_JWT_LEEWAY_SECONDS="0",
        WS_ALLOW_ANONYMOUS="true",
        WS_ORIGINS="https://odin.example",
        WS_ADMIN_TOKEN=ADMIN,
        WS_TRUSTED_PROXIES="127.0.0.1",
        WS_UPGRADE_RATE="1",
        WS_UPGRADE_BURST="5",
        WS_MAX_SUBSCRIPTIONS="20",
        LOG_LEVEL="debug",
        LOG_ACCESS="true",
        WS_DEMO_FEED="false",
    )


def refused(server: Server, path: str = "/ws", **headers: str) -> tuple[int, dict[str, str], dict[str, str]]:
    """Status, headers and JSON body of an upgrade request that is refused."""
    with Peer(server.port) as peer:
        answer = peer.send(request(path=path, **headers)).http()
        assert answer.status != 101
        return answer.status, answer.headers, json.loads(peer.body(answer))


def subscribed(peer: Peer, *channels: str) -> list[str]:
    """What of these a connection gets."""
    answer = peer.ask("subscribe", channels=list(channels))
    assert {problem["code"] for problem in answer["rejected"]} <= {"FORBIDDEN"}
    return list(answer["subscribed"])


def entered(server: Server, path: str = "/ws", **headers: str) -> tuple[Peer, dict[str, str]]:
    """A connection after its welcome, and the headers of the handshake."""
    peer = Peer(server.port)
    answer = peer.send(request(path=path, **headers)).http()
    assert answer.status == 101, answer
    assert peer.next().json["type"] == "welcome"
    return peer, answer.headers


def test_each_algorithm_at_each_place(server: Server) -> None:
    """HS256, RS256 and ES256, in the header, in the subprotocol and in the query."""
    lives = time.time() + 60
    for text in (
        fresh(),
        token(rsa_key(), "RS256", "r1", exp=lives),
        token(ec_key("first"), "ES256", "e1", exp=lives),
    ):
        for path, headers in (
            ("/ws", {"Authorization": f"Bearer {text}"}),
            ("/ws", {"Sec_WebSocket_Protocol": f"odinws, bearer.{text}"}),
            (f"/ws?token={text}", {}),
        ):
            peer, answer = entered(server, path, **headers)
            with peer:
                assert subscribed(peer, "user.42", "user.43", "token.A") == ["user.42", "token.A"]
            assert ("sec-websocket-protocol" in answer) == ("Sec_WebSocket_Protocol" in headers)


def test_without_a_token_there_is_the_public(server: Server) -> None:
    """As WS_ALLOW_ANONYMOUS says."""
    with Peer(server.port) as peer:
        peer.upgrade()
        assert subscribed(peer, "token.A", "global", "user.42") == ["token.A", "global"]


def test_without_keys_there_is_only_the_public(serve: Serve, nats: NatsServer) -> None:
    """Nobody can prove to be a user there, so nobody gets what is for one, live or from the past."""
    server = serve(NATS_URL=nats.url)
    with Peer(server.port) as peer:
        peer.upgrade()
        ack = peer.ask("subscribe", channels=["user.42", "user.*", "token.*", "global"], last=True)
        assert ack["subscribed"] == ["token.*", "global"]
        assert [(each["channel"], each["code"]) for each in ack["rejected"]] == [
            ("user.42", "FORBIDDEN"),
            ("user.*", "FORBIDDEN"),
        ]
        assert peer.ask("replay", channel="user.42", since=0)["code"] == "FORBIDDEN"
    assert "open to everybody" not in server.log()


def test_a_server_that_others_reach_without_keys_says_so(nats: NatsServer, keys: Path) -> None:
    """At its start, with what is open; not if clients need tokens."""
    port = free_port()
    settings = {"NATS_URL": nats.url, "WS_ADDR": f"0.0.0.0:{port}"}
    with Server(settings, port=port) as server:
        assert "open to everybody" in server.log()
    with Server({**settings, "WS_JWKS_FILE": str(keys)}, port=port) as server:
        assert "open to everybody" not in server.log()


def test_tokens_with_an_embedded_nats_are_told_of(serve: Serve, keys: Path) -> None:
    """It is for trying things out, and the log says so."""
    assert "NATS is embedded" in serve(WS_JWKS_FILE=str(keys)).log()


def test_grants_of_a_token(server: Server) -> None:
    """`channels` says exactly what may be had."""
    peer, _ = entered(server, Authorization=f"Bearer {fresh(channels=['user.*', 'token.A'])}")
    with peer:
        channels = ("token.A", "token.B", "user.1", "user.2", "global")
        assert subscribed(peer, *channels) == ["token.A", "user.1", "user.2"]


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (fresh(-60), 401, "the token has expired"),
        (token("another secret of thirty-two bytes!"), 401, "the token's signature is of no key"),
        ("x.y.z", 401, ""),
        ("x", 401, "the token is not a signed JWT"),
        (fresh(3600, channels=["*"]), 403, "neither a channel nor"),
        (fresh(3600, sub=""), 401, "claim sub"),
    ],
)
def test_bad_tokens(server: Server, text: str, status: int, message: str) -> None:
    """Refused before the handshake with the reason, and counted."""
    before = server.json("/stats")["refused"]
    found, headers, body = refused(server, Authorization=f"Bearer {text}")
    assert found == status
    assert message in body["message"]
    if status == 401:
        assert headers["www-authenticate"] == "Bearer"
    after = server.json("/stats")["refused"]
    reason = "unauthorised" if status == 401 else "forbidden"
    assert after == {**before, reason: before[reason] + 1}


def test_a_connection_ends_with_its_token(server: Server) -> None:
    """4401 at `exp`, to the tick; with another token in time it lives on."""
    peer, _ = entered(server, Authorization=f"Bearer {fresh(1.0)}")
    other, _ = entered(server, Authorization=f"Bearer {fresh(1.0)}")
    with peer, other:
        answer = other.ask("authenticate", token=fresh(600))
        assert (answer["type"], answer["subject"]) == ("authenticated", "42")
        assert answer["expires_at"] > (time.time() + 500) * 1000
        end = peer.closing()
        assert end.code == 4401
        assert b"expired" in end.payload
        assert other.ask("heartbeat")["type"] == "pong"
        error = other.ask("authenticate", token=fresh(600, sub="43"))
        assert (error["type"], error["code"]) == ("error", "FORBIDDEN")
        assert other.ask("heartbeat")["type"] == "pong"


def test_another_token_may_give_less(server: Server) -> None:
    """What it does not allow is given back, and named."""
    peer, _ = entered(server, Authorization=f"Bearer {fresh()}")
    with peer:
        assert subscribed(peer, "token.A", "user.42") == ["token.A", "user.42"]
        answer = peer.ask("authenticate", token=fresh(channels=["user.42"]))
        assert answer["unsubscribed"] == ["token.A"]
        assert peer.ask("unsubscribe", channels=["token.A", "user.42"])["unsubscribed"] == ["user.42"]


def test_keys_rotate_without_a_restart(server: Server, keys: Path) -> None:
    """A new key counts as soon as a token names it; one that is gone counts no more."""
    text = token(ec_key("second"), "ES256", "e2", exp=time.time() + 60)
    assert refused(server, Authorization=f"Bearer {text}")[0] == 401
    new = keys.with_suffix(".new")
    new.write_bytes(jwks(rsa_jwk(kid="r1"), ec_jwk("second", kid="e2")))
    os.replace(new, keys)

    def is_in(which: str) -> bool:
        with Peer(server.port) as peer:
            return peer.send(request(Authorization=f"Bearer {which}")).http().status == 101

    wait_for(lambda: is_in(text), 5, "the new key")
    old = token(ec_key("first"), "ES256", "e1", exp=time.time() + 60)
    wait_for(lambda: not is_in(old) and not is_in(old), 5, "the end of the old key in both workers")


def test_a_worker_that_ends_while_its_keys_are_gone(serve: Serve, nats: NatsServer, tmp_path: Path) -> None:
    """The others serve on with the keys that they have, `/health` says why, and their return mends it."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    server = serve(NATS_URL=nats.url, WS_JWT_SECRET_FILE=str(secret))
    wait_for(lambda: server.json("/health")["warnings"] == [], 10, "both workers")
    secret.rename(secret.with_suffix(".gone"))
    os.kill(server.workers()[0], signal.SIGKILL)
    reason = "a worker can't start: WS_JWT_SECRET_FILE="
    wait_for(lambda: reason in str(server.json("/health")["warnings"]), 10, "the reason")
    with Peer(server.port) as peer:
        assert peer.send(request(Authorization=f"Bearer {token()}")).http().status == 101
    secret.with_suffix(".gone").rename(secret)
    wait_for(lambda: server.json("/health")["warnings"] == [], 10, "another worker")


def test_origins(server: Server) -> None:
    """A page of another origin is refused; the listed one and programs are not."""
    status, _, body = refused(server, Origin="https://evil.example")
    assert (status, body["error"]) == (403, "origin")
    with connect(server.ws, origin=Origin("https://odin.example")) as client:
        assert json.loads(client.recv(PATIENCE_SECONDS))["type"] == "welcome"


def test_one_address_has_a_rate(server: Server) -> None:
    """429 with Retry-After for a client behind the proxy, and not for another one."""
    burst = 2 * 5  # of each worker: an address meets both
    statuses = []
    for _ in range(3 * burst):
        with Peer(server.port) as peer:
            answer = peer.send(request(X_Forwarded_For="203.0.113.7")).http()
            statuses.append(answer.status)
            if answer.status == 429:
                assert int(answer.headers["retry-after"]) >= 1
    assert 5 <= statuses.count(101) <= burst + 3
    assert set(statuses) == {101, 429}
    peer, _ = entered(server, X_Forwarded_For="203.0.113.8")
    peer.shut()


@pytest.mark.parametrize("path", ["/health", "/stats", "/metrics", "/livez", "/readyz", "/nowhere", "/ws"])
def test_every_answer_tells_browsers_what_they_may(server: Server, path: str) -> None:
    """Also the errors, on both planes."""
    for _, headers, _ in (server.get(path), server.ask(path)):
        assert BROWSER.items() <= headers.items()
        assert headers["Cache-Control"] == "no-store"


def test_no_token_is_logged(server: Server) -> None:
    """Not in access lines, not in those of malformed requests, not in refusals."""
    text = fresh()
    entered(server, f"/ws?token={text}")[0].shut()
    refused(server, f"/ws?token={text[:-3]}xxx")
    server.get(f"/health?access_token={text}")
    with Peer(server.port) as peer:
        peer.send(f"GET /ws?token={text} HTTP/9.9\r\n\r\n".encode()).http()
    with Peer(server.port) as peer:
        peer.send(f"/ws?token={text}\r\n\r\n".encode()).http()
    wait_for(lambda: "access_token=***" in server.log(), 5, "the access line")
    log = server.log()
    assert not any(part in log for part in text.split(".")[1:])
    assert SECRET not in log
    assert ADMIN not in log


def test_limits_are_in_the_welcome(server: Server) -> None:
    """All that a client must keep to."""
    with Peer(server.port) as peer:
        limits = peer.upgrade()["limits"]
    assert limits["max_subscriptions"] == 20
    assert {
        "max_message_bytes",
        "max_channel_bytes",
        "commands_per_second",
        "command_burst",
        "max_errors",
        "idle_seconds",
        "first_command_seconds",
    } <= set(limits)


def test_a_command_of_too_many_channels_costs_little(server: Server) -> None:
    """The answer to 64 KB of bad names is short."""
    names = [f"!{n:x}" for n in range(7000)]
    with Peer(server.port) as peer:
        peer.upgrade()
        answer = peer.ask("subscribe", channels=names)
    assert (answer["type"], answer["code"]) == ("error", "INVALID_FIELD")
    assert len(json.dumps(answer)) < 300


def test_a_client_that_says_nothing(serve: Serve) -> None:
    """1008 after WS_FIRST_COMMAND_SECONDS; one command, and it may be silent."""
    server = serve(WS_FIRST_COMMAND_SECONDS="3", WS_DEMO_FEED="false", WS_WORKERS="1")
    with Peer(server.port) as silent, Peer(server.port) as other:
        other.upgrade()
        assert other.ask("heartbeat")["type"] == "pong"
        silent.upgrade()
        end = silent.closing()
        assert (end.code, end.payload[2:]) == (1008, b"no command came")
        time.sleep(0.5)
        assert other.ask("heartbeat")["type"] == "pong"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"WS_JWT_SECRET": "hunter2"}, "WS_JWT_SECRET='***' is not valid: "),
        ({"WS_JWKS_FILE": "/nowhere.json"}, "WS_JWKS_FILE='/nowhere.json' is not valid: "),
        ({"WS_ORIGINS": "odin.example"}, "WS_ORIGINS="),
    ],
)
def test_what_can_not_be_used_stops_the_start(settings: dict[str, str], words: str) -> None:
    """One line, no traceback, and nothing of a secret."""
    server = Server(settings)
    server.launch()
    try:
        assert server.wait() != 0
        lines = server.log().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(f"odinws: {words}")
        assert "hunter2" not in lines[0]
    finally:
        server.stop()


def test_over_tls(tmp_path: Path) -> None:
    """A client speaks TLS with the server itself: messages both ways, a large one, and the close frame."""
    certificate, key = self_signed(tmp_path)
    server = Server(
        {"WS_RECONCILE_SECONDS": "1"},
        command=(*GUNICORN, "--keyfile", str(key), "--certfile", str(certificate)),
    )
    server.launch()
    context = ssl.create_default_context(cafile=str(certificate))
    url = f"wss://127.0.0.1:{server.port}/ws"
    try:

        def is_up() -> bool:
            try:
                connect(url, ssl=context).close()
            except OSError:
                return False
            return True

        wait_for(is_up, 20, "the server")
        with connect(url, ssl=context, compression=None) as client, connect(url, ssl=context) as other:
            assert json.loads(client.recv(PATIENCE_SECONDS))["type"] == "welcome"
            channels = [f"token.{n}{'x' * 50}" for n in range(900)]
            # The one that has prices comes last: none is ahead of the answer then.
            client.send(json.dumps({"type": "subscribe", "data": {"channels": [*channels, "token.BTC"]}}))
            assert json.loads(client.recv(PATIENCE_SECONDS))["count"] == 901
            assert json.loads(client.recv(PATIENCE_SECONDS))["channel"] == "token.BTC"
            time.sleep(2.5)  # the sockets of TLS are nobody's leak
            assert json.loads(other.recv(PATIENCE_SECONDS))["type"] == "welcome"
            other.send('{"type":"heartbeat"}')
            assert json.loads(other.recv(PATIENCE_SECONDS))["type"] == "pong"
            server.signal(15)
            for _ in client:
                pass
            assert client.close_code == 1001
        assert server.wait() == 0
        assert "counts differed" not in server.log()
        assert "Traceback" not in server.log()
    finally:
        server.stop()


def test_where_nobody_is_asked_for_a_token(serve: Serve) -> None:
    """What a gateway passes on for others is not looked at, not by a command either; `*` is every origin."""
    open_server = serve(WS_DEMO_FEED="0")
    for path, headers in (
        ("/ws", {"Authorization": "Bearer opaque"}),
        ("/ws?token=opaque", {"Authorization": "Bearer opaque"}),
        ("/ws", {"Sec_WebSocket_Protocol": "odinws, bearer.opaque"}),
        *(("/ws", {"Origin": origin}) for origin in ("null", "file://", "", "https://a.test/", "x y")),
    ):
        peer, answer = entered(open_server, path, **headers)
        with peer:
            assert ("sec-websocket-protocol" in answer) == ("Sec_WebSocket_Protocol" in headers)
            told = peer.ask("authenticate", token="opaque")  # noqa: S106
            assert (told["type"], told["subject"], told["expires_at"]) == ("authenticated", None, None)
            assert subscribed(peer, "token.A", "user.42") == ["token.A"]
