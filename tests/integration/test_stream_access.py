"""Who gets an event stream: tokens, origins, limits; and how an EventSource is told what it can hear."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.access.material import SECRET, token
from tests.eventsource import Stream, asked
from tests.integration.conftest import Serve
from tests.integration.test_streams import refused
from tests.ledger import publish
from tests.nats import NatsServer
from tests.server import Server, wait_for
from tests.wire import Peer

PAGE = "https://odin.example"
MINE = ["user.42"]


def fresh(seconds: float = 60.0, **claims: Any) -> str:
    """A token of the shared secret that lives this long."""
    return token(exp=time.time() + seconds, **claims)


@pytest.fixture(scope="module")
def server(serve_module: Serve, nats_module: NatsServer) -> Server:
    """Asks for tokens, also in a cookie, and knows one origin."""
    return serve_module(
        NATS_URL=nats_module.url,
        WS_WORKERS="1",
        WS_JWT_SECRET=SECRET,
        WS_JWT_LEEWAY_SECONDS="0",
        WS_ORIGINS=PAGE,
        WS_TOKEN_COOKIE="odin",  # noqa: S106 - its name
        LOG_LEVEL="debug",
        LOG_ACCESS="true",
    )


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({}, {"Authorization": "Bearer {}"}),
        ({"token": "{}"}, {}),
        ({"access_token": "{}"}, {"Cookie": "odin=nobody's"}),
        ({}, {"Cookie": "a=b; odin={}; c", "Origin": PAGE, "Sec_Fetch_Site": "cross-site"}),
        ({}, {"Cookie": "odin={}", "Sec_Fetch_Site": "same-origin"}),
        ({}, {"Cookie": "odin={}"}),
    ],
)
def test_each_place_of_a_token(server: Server, query: dict[str, str], headers: dict[str, str]) -> None:
    """By header, query or cookie; no log has it."""
    text = fresh()
    request = asked(
        MINE,
        query={name: value.format(text) for name, value in query.items()},
        **{name: value.format(text) for name, value in headers.items()},
    )
    with Stream(server.port, request) as stream:
        assert stream.json("welcome")["subscribed"] == MINE
    with Peer(server.port) as peer:
        assert peer.send(request.replace(b"channel=user.42", b"channel=nonsense")).http().status == 400
    assert text not in server.log()


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "odin={}", "Sec_Fetch_Site": "cross-site"},
        {"Cookie": "odin={}", "Sec_Fetch_Site": "same-site"},
        {"Cookie": "other={}"},
        {},
    ],
)
def test_no_token(server: Server, headers: dict[str, str]) -> None:
    """A cookie is nobody's consent if a foreign page may have sent it."""
    text = fresh()
    brought = {name: value.format(text) for name, value in headers.items()}
    status, fields, body = refused(server, asked(MINE, "/sse", {}, **brought))
    assert (status, json.loads(body)["error"]) == (401, "unauthorised")
    assert fields["www-authenticate"] == "Bearer"


def test_one_that_must_not_come_back(server: Server) -> None:
    """204 is what stops an EventSource; it has been told why."""
    with Stream(server.port, asked(MINE, query={"token": fresh(1.0)})) as stream:
        position = stream.json("welcome")["position"]
        closing = stream.json("closing")
        assert closing == {"type": "closing", "code": 4401, "reason": "the token has expired"}
        assert stream.next() is None
    query = {"token": fresh(-1.0)}
    assert refused(server, asked(MINE, query=query, Last_Event_ID=position, Origin=PAGE))[0] == 204
    assert refused(server, asked(MINE, query=query))[0] == 401


def test_pages_of_other_origins(server: Server) -> None:
    """A listed one may read everything, with cookies; others nothing."""
    with Stream(server.port, asked(MINE, query={"token": fresh()}, Origin=PAGE)) as stream:
        fields = stream.answer.headers
    for headers in (fields, refused(server, asked(MINE, Origin=PAGE))[1]):
        assert headers["access-control-allow-origin"] == PAGE
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["vary"] == "Origin"
    status, fields, body = refused(
        server, asked(MINE, query={"token": fresh()}, Origin="https://evil.example")
    )
    assert (status, json.loads(body)["error"]) == (403, "origin")
    assert "access-control-allow-origin" not in fields
    preflight = asked([], Origin=PAGE, Access_Control_Request_Method="GET").replace(b"GET", b"OPTIONS", 1)
    status, fields, _ = refused(server, preflight)
    assert status == 204
    assert fields["access-control-allow-origin"] == PAGE
    assert "Last-Event-ID" in fields["access-control-allow-headers"]
    status, fields, _ = refused(server, preflight.replace(PAGE.encode(), b"https://evil.example"))
    assert "access-control-allow-origin" not in fields


def test_with_all_origins_cookies_are_nobodys(serve: Serve, nats: NatsServer) -> None:
    """Every page may read what is public, and none with what the browser adds."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_ORIGIN_REQUIRED="1")
    with Stream(server.port, asked(["global"], Origin="https://any.example", Cookie="odin=x")) as stream:
        assert stream.answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in stream.answer.headers
    with Stream(server.port, asked(["global"], Sec_Fetch_Site="same-origin")) as stream:
        assert stream.answer.status == 200
    assert refused(server, asked(["global"]))[0] == 403


def test_one_that_may_come_back(serve: Serve, nats: NatsServer) -> None:
    """A full server tells an EventSource when, in a stream that ends: else it would end for good."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_MAX_CONNECTIONS="1")
    with Stream(server.port, asked(["global"])) as stream:
        position = stream.json("welcome")["position"]
        status, _, body = refused(server, asked(["global"]))
        assert (status, json.loads(body)["error"]) == (503, "capacity")
        for headers in ({"Accept": "text/event-stream"}, {"Last_Event_ID": position}):
            with Stream(server.port, asked(["global"], **headers), position) as other:
                assert other.answer.status == 200
                told = other.json("refused")
                assert (told["error"], other.client.last_id) == ("capacity", position)
                assert (other.client.retry_ms or 0) >= 1000
        assert refused(server, asked(["global"], "/stream", Last_Event_ID=position))[0] == 503
    wait_for(lambda: server.metric("ws_connections") == 0, 10, "its end")
    publish(nats.url, [("global", b"1")])
    with Stream(server.port, asked(["global"], Last_Event_ID=position)) as stream:
        assert stream.json()["data"] == 1
    assert server.metric("ws_connections_refused_total") == 4


@pytest.mark.parametrize("policy", ["disconnect", "conflate", "drop-oldest"])
def test_a_slow_client(serve: Serve, nats: NatsServer, policy: str) -> None:
    """It is told of what it did not get before its position passes that, so it can go on where it was."""
    server = serve(
        NATS_URL=nats.url,
        WS_WORKERS="1",
        WS_SLOW_POLICY=policy,
        WS_OUTBOX_BYTES="20000",
        WS_SEND_BUFFER_BYTES="4096",
    )
    names, count = ["token.A", "token.B"], 6000
    with Stream(server.port, asked(names)) as stream:
        stream.json("welcome")
        payload = json.dumps("x" * 1000).encode()
        publish(nats.url, [(names[n % 2], payload) for n in range(count)])
        metric = "ws_connections_closed_total" if policy == "disconnect" else "ws_messages_shed_total"
        wait_for(lambda: server.metric(metric) > 0, 10, policy)
        wait_for(lambda: server.json("/stats")["feed"]["messages"] >= count, 10, "all messages")
        told: set[int] = set()
        at = 0
        while at < count and (event := stream.next()) is not None:
            value = json.loads(event.data)
            if event.kind == "message":
                assert value["seq"] > at
                at = value["seq"]
                told.add(at)
            elif event.kind == "gap":
                assert value["from"] > at
                odd = names.index(value["channel"]) == 0
                told.update(seq for seq in range(value["from"], value["to"] + 1) if bool(seq % 2) == odd)
            assert told >= set(range(1, at + 1))
    assert (at < count) == (policy == "disconnect")
