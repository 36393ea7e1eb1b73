"""The HTTP paths: their shape, that all workers tell the same, and that slow clients hold nobody up."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, Server, wait_for
from tests.swarm import Swarm
from tests.wire import Peer, request

PATHS = ("/health", "/livez", "/readyz", "/")
ADMIN_PATHS = (*PATHS, "/stats", "/metrics")
CLIENTS = 20


@pytest.fixture(scope="module")
def server(nats_module: NatsServer, serve_module: Serve) -> Server:
    """Two workers."""
    return serve_module(NATS_URL=nats_module.url, WS_MAX_CONNECTIONS="200")


@pytest.fixture
def http_connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    """A connection that is kept alive."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    yield connection
    connection.close()


def by_slot(server: Server) -> dict[int, Any]:
    """The `/stats` of each worker."""
    found: dict[int, Any] = {}

    def all_answered() -> bool:
        stats = server.json("/stats")
        found[stats["answered_by"]] = stats
        return len(found) == 2

    wait_for(all_answered, 10, "an answer of each worker")
    return found


def test_health_has_its_shape(server: Server) -> None:
    """Every key of the interface, with its type, and figures that can be."""
    status, headers, body = server.ask("/health")
    health = json.loads(body)
    assert json.loads(server.get("/health").body) == {"status": "healthy"}
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert (health["status"], health["healthy"]) == ("healthy", True)
    assert health["warnings"] == health["errors"] == []
    assert 0 < health["uptime"] < 3600
    checks = health["checks"]
    assert (checks["nats"]["status"], checks["nats"]["healthy"]) == ("connected", True)
    assert checks["capacity"] == {"current": 0, "max": 200, "percentage": 0, "healthy": True}
    assert 0 <= checks["cpu"]["percentage"] <= checks["cpu"]["threshold"]
    assert 10 < checks["memory"]["used_mb"] < checks["memory"]["limit_mb"]
    assert 0 < checks["memory"]["percentage"] < 90
    assert 0 < checks["greenlets"]["current"] < checks["greenlets"]["limit"]
    assert all(checks[name]["healthy"] for name in ("cpu", "memory", "greenlets"))
    assert checks["limits"]["max_connections"] == 200
    assert checks["limits"]["workers"] == 2


def test_all_workers_tell_the_same(server: Server) -> None:
    """Connections, subscriptions and totals, in `/stats` and in `/metrics`, whichever worker answers."""
    with Swarm(server.port) as swarm:
        swarm.connect(range(CLIENTS))
        swarm.subscribe(range(CLIENTS), ["token.BTC", "global"])
        swarm.settle()
        wait_for(lambda: server.json("/stats")["subscriptions"] == 2 * CLIENTS, 5, "the subscriptions")
        one, two = by_slot(server).values()
        for key in (
            "connections",
            "subscriptions",
            "accepted",
            "refused",
            "closed",
            "commands",
            "fan_out",
            "feed",
        ):
            assert one[key] == two[key], key
        assert one["connections"] == CLIENTS == sum(worker["connections"] for worker in one["workers"])
        assert [worker["pid"] for worker in one["workers"]] == [worker["pid"] for worker in two["workers"]]
        assert (
            sum(shard["subscriptions"] for w in one["workers"] for shard in w["details"]["shards"])
            == 2 * CLIENTS
        )
        for _ in range(10):  # whichever worker answers
            assert server.metric("ws_connections") == CLIENTS
            assert server.metric("ws_subscriptions") == 2 * CLIENTS
            assert server.metric("ws_connections_accepted_total") == one["accepted"]
            assert server.metric("ws_commands_total") == one["commands"]["received"]
    wait_for(lambda: server.metric("ws_connections") == 0, 5, "the connections to end")
    wait_for(lambda: server.metric("ws_subscriptions") == 0, 5, "the subscriptions to end")


def test_metrics_are_well_formed(server: Server) -> None:
    """Each family has help and type, every name begins with ws_, and no sample comes twice."""
    status, headers, body = server.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = body.decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    assert len({name for name, _, _ in samples}) == len(samples) > 30
    assert all(name.startswith("ws_") and float(value) >= 0 for name, _, value in samples)
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert typed == {line.split()[2] for line in lines if line.startswith("# HELP")}


@pytest.mark.parametrize(
    ("is_admin", "path"), [*((False, path) for path in PATHS), *((True, path) for path in ADMIN_PATHS)]
)
def test_head_is_get_without_a_body(server: Server, is_admin: bool, path: str) -> None:
    """The same status and type, no body, and the connection can be used again."""
    port = server.admin_port if is_admin else server.port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    for method in ("HEAD", "GET", "HEAD"):
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200
        assert bool(body) == (method == "GET")
    connection.close()


def test_a_connection_is_kept_alive(http_connection: http.client.HTTPConnection) -> None:
    """Many requests, refused upgrades among them, on one connection."""
    http_connection.connect()
    sock = http_connection.sock
    paths = [*PATHS, "/nowhere", "/ws"] * 5
    for path in paths:
        http_connection.request("GET", path)
        answer = http_connection.getresponse()
        assert answer.status in (200, 404, 426)
        assert answer.read()
        assert http_connection.sock is sock, "the same connection"
    http_connection.request("GET", "/health", headers={"Connection": "close"})
    assert http_connection.getresponse().read()


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """Three requests in one packet, the last of them an upgrade, followed by a command."""
    plain = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with Peer(server.port) as peer:
        peer.send(plain + plain.replace(b"livez", b"nowhere") + request())
        first = peer.http()
        assert first.status == 200
        assert json.loads(peer.body(first)) == {"status": "alive"}
        second = peer.http()
        assert second.status == 404
        assert peer.body(second)
        assert peer.http().status == 101
        assert peer.next().json["type"] == "welcome"
        assert peer.ask("heartbeat")["type"] == "pong"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/ws/", "/health/", "/..%2f..%2fetc/passwd", "/dashboard/../app.py"]
)
def test_unknown_paths_are_404_in_json(server: Server, path: str) -> None:
    """With a word on what there is."""
    status, headers, body = server.get(path)
    assert status == 404
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["error"] == "not_found"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
@pytest.mark.parametrize("path", [*PATHS, "/ws"])
def test_other_methods_are_405_in_json(server: Server, method: str, path: str) -> None:
    """With a word on what is allowed, also when they bring a body; the server does not read it."""
    with Peer(server.port) as peer:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
        answer = peer.send(head.encode() + b"hello").http()
        assert answer.status == 405
        assert "GET" in answer.headers["allow"]
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(peer.body(answer))["error"] == "method_not_allowed"
        assert peer.ended()


def test_answers_say_nothing_of_the_inside(server: Server) -> None:
    """Neither tracebacks nor paths nor library versions in headers and errors."""
    for path in ("/nowhere", "/ws", "/health", "/%ff%fe", "/ws?a=%00"):
        _, headers, body = server.get(path)
        said = (str(headers) + body.decode(errors="replace")).lower()
        for word in ("traceback", "site-packages", "werkzeug", "/odinws/"):
            assert word not in said, (path, word)


def test_slow_requests_hold_nobody_up(server: Server) -> None:
    """Twenty half requests, some of which trickle: others are answered at once, and the slow are let go."""
    with ExitStack() as stack:
        halves = [stack.enter_context(Peer(server.port)) for _ in range(20)]
        for number, half in enumerate(halves):
            half.send((b"", b"GET", b"GET /health HTTP/1.1\r\nHost: x", request()[:-2])[number % 4])
        body = stack.enter_context(Peer(server.port))
        body.send(b"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert body.http().status == 405, "nobody waits for the body"
        with Swarm(server.port) as swarm:
            for turn in range(20):
                assert server.get(("/health", "/livez")[turn % 2])[0] == 200
                assert server.ask(("/metrics", "/stats")[turn % 2])[0] == 200
                swarm.connect(turn)
                swarm.settle()
                for half in halves[2::4]:
                    half.send(b"x")
            assert len(swarm.open()) == 20
        wait_for(
            lambda: all(half.send(b"x").ended(0.05) for half in halves),
            15,
            "the end of requests that do not come",
        )
    wait_for(lambda: server.metric("ws_greenlets") < 30, 5, "the greenlets to end")


@pytest.mark.parametrize("is_admin", [False, True])
def test_a_client_that_does_not_read_its_answers_holds_nobody_up(server: Server, is_admin: bool) -> None:
    """A thousand requests in one go, no answer read: only its own greenlet waits."""
    path, port = ("/metrics", server.admin_port) if is_admin else ("/dashboard/client.js", server.port)
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        greedy.connect(("127.0.0.1", port))
        greedy.settimeout(0.5)
        with suppress(TimeoutError):
            greedy.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 1000)
        for _ in range(20):
            assert server.get("/health")[0] == server.ask("/health")[0] == 200
