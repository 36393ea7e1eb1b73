"""Event streams in a real Chromium: its own EventSource, and client.js where no WebSocket can be had."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.browser import Browser, Page
from tests.integration.conftest import Serve
from tests.integration.test_browser import elsewhere
from tests.integration.test_recovery import CHANNELS, fed
from tests.ledger import Ledger, Publisher, publish, read
from tests.nats import NatsServer
from tests.server import Server, wait_for

SECONDS = 60.0
PAGE = "/client.js"  # any that opens no connection by itself


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests here."""
    with Browser() as browser:
        yield browser


def stored(nats: NatsServer) -> Ledger:
    """All that NATS has."""
    found: list[Ledger] = []
    elsewhere(lambda: found.append(read(nats.url)))
    return found[0]


FOLLOW = """(() => {
    globalThis.got = [], globalThis.gaps = 0, globalThis.ids = [];
    globalThis.source = new EventSource(%s);
    source.onmessage = ({ data, lastEventId }) => {
        const { channel, seq } = JSON.parse(data);
        got.push([channel, seq]);
        ids.push(lastEventId);
    };
    source.addEventListener("gap", () => gaps++);
    source.addEventListener("welcome", ({ lastEventId }) => (globalThis.welcomes ??= []).push(lastEventId));
})()"""


def begun(page: Page, count: int = 1) -> None:
    """Wait for so many welcomes."""
    page.until(f"globalThis.welcomes?.length >= {count}", SECONDS, f"{count} welcomes")


def test_an_eventsource_comes_back_where_it_was(browser: Browser, serve: Serve, nats: NatsServer) -> None:
    """By itself, while its worker is killed: nothing missing, nothing twice."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    query = "&".join(f"channel={name}" for name in CHANNELS[:3])
    url = f"{server.http}/sse?{query}"
    with browser.page(server.http + PAGE) as page:
        page.evaluate(FOLLOW % json.dumps(url))
        begun(page)
        feed = Publisher(nats.url, CHANNELS, 200)
        with feed:
            page.until("got.length > 20", SECONDS, "messages")
            os.kill(server.workers()[0], signal.SIGKILL)
            begun(page, 2)
            page.until("got.length > 100", SECONDS, "more messages")
        truth = stored(nats)
        due = [[name, seq] for seq, name in sorted((s, n) for n in CHANNELS[:3] for s in truth.seqs[n])]
        page.until(f"got.length >= {len(due)}", SECONDS, "the last message")
        assert page.evaluate("got") == due
        assert page.evaluate("gaps") == 0
        assert page.evaluate("ids.every((id, i) => Number(id.split(':')[1]) === got[i][1])")


def test_what_stops_an_eventsource(browser: Browser, serve: Serve, nats: NatsServer) -> None:
    """204 ends it without an error of the page; a full server does not."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_MAX_CONNECTIONS="1")
    states = """(() => {
        globalThis.states = [];
        globalThis.source = new EventSource(%s);
        source.onerror = () => states.push(source.readyState);
        source.addEventListener("refused", () => states.push("refused"));
        source.addEventListener("welcome", () => states.push("welcome"));
    })()"""
    with browser.page(server.http + PAGE) as page:
        page.evaluate(states % json.dumps(f"{server.http}/sse?channel=global"))
        page.until("states.includes('welcome')", SECONDS, "the first")
        with browser.page(server.http + PAGE) as other:
            other.evaluate(states % json.dumps(f"{server.http}/sse?channel=global"))
            other.until("states.includes('refused')", SECONDS, "the refusal")
            other.until("states.at(-1) === 0", SECONDS, "that it is to come back")
            page.evaluate("source.close()")
        page.evaluate(states % json.dumps(f"{server.http}/sse?channel=user.1"))
        page.until("states.includes(2)", SECONDS, "the end")


CLIENT = """(() => {
    const Real = (globalThis.Real ??= globalThis.WebSocket);
    globalThis.blocked = true;
    globalThis.WebSocket = class {
        static OPEN = 1;
        constructor(...given) {
            if (!globalThis.blocked) return new Real(...given);
            setTimeout(() => this.onclose?.({ code: 1006, reason: "" }), 1);
        }
        send() {}
        close() {}
    };
    const later = (globalThis.later ??= globalThis.setTimeout);
    // What takes a minute there takes a second here.
    globalThis.setTimeout = (work, ms) => later(work, ms >= 60000 ? ms / 60 : ms);
    globalThis.got = [], globalThis.gaps = [], globalThis.transports = [];
    import('/client.js').then(({ Client }) => {
        globalThis.client = new Client(%s, %s, {
            message: ({ channel, seq }) => got.push([channel, seq]),
            gap: (gap) => gaps.push(gap),
            change: () => { if (client.state === "live") transports.push(client.transport); },
        }, %s);
        client.start();
    });
})()"""


def follow(page: Page, server: Server, channels: list[str], options: str = "{}") -> None:
    """Start a client that gets no WebSocket."""
    page.evaluate(CLIENT % (json.dumps(server.ws), json.dumps(channels), options))


def test_the_client_takes_a_stream_and_comes_back(browser: Browser, serve: Serve, nats: NatsServer) -> None:
    """While the WebSocket fails; nothing is missing or twice over all changes, a killed worker included."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_RING_MESSAGES="100")
    names = [*CHANNELS[:3], "token.quiet"]
    with browser.page(server.http + PAGE) as page:
        follow(page, server, names)
        page.until("globalThis.client?.state === 'live'", SECONDS, "the stream")
        assert page.evaluate("client.transport") == "sse"
        assert "position" in page.evaluate("client.welcome")
        with Publisher(nats.url, CHANNELS, 200):
            page.until("got.length > 20", SECONDS, "messages")
            os.kill(server.workers()[0], signal.SIGKILL)
            page.until("client.reconnects > 0 && got.length > 60", SECONDS, "the stream again")
            assert page.evaluate("client.transport") == "sse"
            page.evaluate("blocked = false")
            page.until("client.transport === 'websocket' && client.state === 'live'", SECONDS, "a WebSocket")
            count = page.evaluate("got.length")
            page.until(f"got.length > {count + 20}", SECONDS, "messages by it")
            page.evaluate("blocked = true")
            os.kill(server.workers()[0], signal.SIGKILL)
            page.until("client.transport === 'sse' && client.state === 'live'", SECONDS, "the stream again")
        truth = stored(nats)
        page.until(f"got.length >= {sum(len(truth.seqs[name]) for name in names[:3])}", SECONDS, "all")
        got = page.evaluate("got")
        for name in names[:3]:
            assert [seq for channel, seq in got if channel == name] == truth.seqs[name]
        assert page.evaluate("gaps") == []
        page.evaluate("client.stop()")
    wait_for(lambda: server.metric("ws_connections") == 0, 10, "its end")


def test_the_client_stays_with_websockets_if_told_to(
    browser: Browser, serve: Serve, nats: NatsServer
) -> None:
    """And where there are no streams it goes on to try."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    with browser.page(server.http + PAGE) as page:
        follow(page, server, ["global"], "{ fallback: false }")
        page.until("globalThis.client?.closed", SECONDS, "the first failure")
        time.sleep(3)
        assert page.evaluate("client.transport") == "websocket"
        page.evaluate("client.stop()")
        follow(page, server, ["global"], "{ fallback: '/nothing' }")
        page.until("globalThis.client?.closed?.reason?.includes('no such path')", SECONDS, "a failed stream")
        page.evaluate("blocked = false")
        page.until("client.state === 'live'", SECONDS, "a WebSocket")
        assert page.evaluate("client.transport") == "websocket"


def test_the_client_hears_what_a_stream_is_refused_for(
    browser: Browser, serve: Serve, nats: NatsServer
) -> None:
    """A browser's WebSocket would not say; and it gets text with any character."""
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    with browser.page(server.http + PAGE) as page:
        follow(page, server, ["user.1"])
        page.until("globalThis.client?.state === 'ended'", SECONDS, "the end")
        assert page.evaluate("client.closed.code") == 4403
        assert "needs a token" in page.evaluate("client.closed.reason")
        follow(page, server, ["token.A"])
        page.until("globalThis.client?.state === 'live'", SECONDS, "the stream")
        page.evaluate("globalThis.text = '', client.stop()")
        text = "a: b\u2028c\u0085\ufeff\U0001f9c2: d"
        elsewhere(lambda: publish(nats.url, [("token.A", json.dumps(text, ensure_ascii=False).encode())]))
        fed(server, 1)
        page.evaluate(
            f"""import('/client.js').then(({{ Client }}) => {{
                globalThis.client = new Client({json.dumps(server.ws)}, ["token.A"], {{
                    message: ({{ data }}) => (globalThis.text = data),
                }});
                client.start();
            }})"""
        )
        page.until("globalThis.client?.state === 'live'", SECONDS, "the stream")
        elsewhere(lambda: publish(nats.url, [("token.A", json.dumps(text, ensure_ascii=False).encode())]))
        page.until("text !== ''", SECONDS, "the text")
        assert page.evaluate("text") == text
