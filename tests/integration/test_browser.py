"""What a real browser sees: the live page, and the close codes of the server.

Not here: 4009, because a browser answers pings whatever its page does; 1002 and 1007, because it makes
neither bad frames nor bad UTF-8; and 1006, which says that the server said nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from nats import connect

from odinws.client import backoff
from odinws.close_codes import NATIVE, CloseReason
from odinws.feed.simulator import TOKENS
from tests import ledger
from tests.access.material import SECRET, token
from tests.browser import Browser, Page
from tests.nats import NatsServer
from tests.server import Server, wait_for

SECONDS = 60.0  # for anything that takes a second or two on an idle machine
MAX_BYTES = 1024
MAX_ERRORS = 3
PHONE_WIDTH = 320
LIVE = "document.body.dataset.state === 'live'"
PRICES = "Object.fromEntries([...tokens.rows].map((row) => [row.dataset.token, row.cells[1].textContent]))"
COUNT_RENDERS = """
    globalThis.renders = 0;
    const request = globalThis.requestAnimationFrame;
    globalThis.requestAnimationFrame = (call) => { renders += 1; return request(call); };
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests; each opens pages of its own."""
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with narrow limits, its own NATS and the demo feed."""
    limits = {
        "WS_MAX_MESSAGE_BYTES": str(MAX_BYTES),
        "WS_MAX_ERRORS": str(MAX_ERRORS),
        "WS_OUTBOX_BYTES": str(64 << 10),
    }
    with Server(limits) as server:
        yield server


def text(page: Page, element: str) -> str:
    """What an element of the page says."""
    return str(page.evaluate(f"document.getElementById('{element}').textContent"))


def wait_for_new_prices(page: Page) -> None:
    """Wait until every token shows a price, and then another one."""
    page.until(LIVE, SECONDS, "the page is live")
    page.until(
        f"Object.values({PRICES}).every((price) => /\\d/.test(price))", SECONDS, "all tokens have prices"
    )
    first = page.evaluate(PRICES)
    assert set(first) == set(TOKENS)
    changed: set[str] = set()

    def all_changed() -> bool:
        changed.update(token for token, price in page.evaluate(PRICES).items() if price != first[token])
        return changed == set(TOKENS)

    page.until(all_changed, SECONDS, "all prices change")


# -- the page -------------------------------------------------------------------------------------


def test_the_page_shows_moving_prices_and_nothing_fails(browser: Browser, server: Server) -> None:
    """All tokens move, nothing is missed, nothing is logged as an error, nothing comes from elsewhere."""
    with browser.page(server.admin + "/", script=COUNT_RENDERS) as page:
        wait_for_new_prices(page)
        page.until("Math.abs(parseFloat(rate.textContent) - 19.2) < 3", SECONDS, "the demo feed's rate")
        page.until("/ms$/.test(latency.textContent)", SECONDS, "a latency")
        page.until("workers.rows.length === 2", SECONDS, "both workers")
        page.until("/\\d/.test(document.querySelector('#deliveries b').textContent)", SECONDS, "two readings")
        assert text(page, "gaps") == "0"
        assert text(page, "reconnects") == "0"
        assert text(page, "health") == "healthy"
        assert re.fullmatch(r"odinws/[01]", text(page, "worker"))
        assert text(page, "strategy") == server.json("/stats")["strategy"]["name"]
        assert page.evaluate("notice.hidden")
        assert page.errors == []
        assert page.failures == []
        assert "/dashboard/favicon.svg" in {urlsplit(url).path for url in page.requests}
        assert {urlsplit(url).netloc for url in page.requests} == {urlsplit(server.admin).netloc}


def test_the_page_renders_at_most_ten_times_a_second(browser: Browser, server: Server) -> None:
    """A flood of messages costs the page no more than the rate of its renders."""
    with browser.page(server.admin + "/", script=COUNT_RENDERS) as page:
        page.until(LIVE, SECONDS, "the page is live")
        received = "Number(received.textContent.replace(/\\D/g, ''))"
        before = page.evaluate(f"[renders, performance.now(), {received}]")

        def flooded() -> bool:
            publish(server, "token.BTC", b'{"type":"price:update","price":1.5}', 100)
            return bool(page.evaluate(received) >= before[2] + 2000)

        page.until(flooded, SECONDS, "the flood has come")
        after = page.evaluate("[renders, performance.now()]")
        seconds = (after[1] - before[1]) / 1000
        assert 1 <= after[0] - before[0] <= 10 * seconds + 1
        assert text(page, "gaps") == "0"
        assert page.errors == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_a_phone_in_the_colours_of_its_user(
    browser: Browser, server: Server, dark: bool
) -> None:
    """On a narrow screen nothing sticks out, and the ground is light or dark as preferred."""
    with browser.page(server.admin + "/", width=PHONE_WIDTH, dark=dark) as page:
        wait_for_new_prices(page)
        page.until("workers.rows.length === 2", SECONDS, "both workers")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE_WIDTH
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(re.findall(r"\d+", ground)[0])
        assert red < 60 if dark else red > 200
        assert page.errors == []


def test_the_button_pauses_and_resumes(browser: Browser, server: Server) -> None:
    """A pause closes the connection with 1000; what is missed meanwhile is no gap."""
    with browser.page(server.admin + "/") as page:
        page.until(LIVE, SECONDS, "the page is live")
        closed = server.json("/stats")["closed"]["client"]
        page.evaluate("document.getElementById('switch').click()")
        page.until("document.body.dataset.state === 'paused'", SECONDS, "the page is paused")
        wait_for(lambda: server.json("/stats")["closed"]["client"] > closed, SECONDS, "closed by its client")
        seen = server.json("/stats")["feed"]["messages"]
        wait_for(lambda: server.json("/stats")["feed"]["messages"] > seen + 20, SECONDS, "messages missed")
        page.evaluate("document.getElementById('switch').click()")
        wait_for_new_prices(page)
        assert text(page, "reconnects") == "1"
        assert text(page, "gaps") == "0"
        assert page.errors == []
        assert page.failures == []


def test_the_page_comes_back_after_a_restart(browser: Browser) -> None:
    """The server closes with 1001 and is restarted on its port: prices move again."""
    first = Server()
    with first, browser.page(first.admin + "/") as page:
        wait_for_new_prices(page)
        page.evaluate(
            f"""await new Promise((resolve) => {{
                const socket = new WebSocket({json.dumps(f"ws://127.0.0.1:{first.admin_port}/ws")});
                socket.onopen = resolve;
                globalThis.end = new Promise((ended) => {{ socket.onclose = ended; }});
            }})"""
        )
        first.signal(signal.SIGTERM)
        end = page.evaluate("end.then(({ code, reason, wasClean }) => [code, reason, wasClean])")
        assert (end[0], end[2]) == (CloseReason.GOING_AWAY.code, True)
        assert end[1].startswith(f"{CloseReason.GOING_AWAY.text}; retry_after=")
        page.until("document.body.dataset.state === 'waiting'", SECONDS, "the page waits")
        assert first.wait() == 0
        with Server({"WS_ADMIN_ADDR": first.settings["WS_ADMIN_ADDR"]}, port=first.port):
            wait_for_new_prices(page)
            page.until("health.textContent === 'healthy'", SECONDS, "the new server's health")
            page.until("reconnects.textContent === '1'", SECONDS, "one reconnect")
            assert text(page, "gaps") == "0"  # a new epoch has no past
            assert "the stream began anew" in text(page, "resume")
            assert page.errors == []


def test_files_of_the_page_say_what_they_are(server: Server) -> None:
    """Type, policy and caching are right, an unchanged file is not sent again, no other file is served."""
    types = {
        "/": "text/html; charset=utf-8",
        "/dashboard/page.js": "text/javascript; charset=utf-8",
        "/dashboard/style.css": "text/css; charset=utf-8",
        "/dashboard/favicon.svg": "image/svg+xml; charset=utf-8",
    }
    policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    for path, content_type in types.items():
        status, headers, body = server.get(path)
        assert status == 200
        assert body
        assert headers["Content-Type"] == content_type
        assert headers["Cache-Control"] == "no-cache"
        assert headers["Content-Security-Policy"].startswith(policy)
        assert server.get(path, {"If-None-Match": headers["ETag"]})[0] == 304
    for path in ("/dashboard/none.js", "/dashboard/../routes.py", "/dashboard/..%2froutes.py"):
        assert server.get(path)[0] == 404


# -- its client -----------------------------------------------------------------------------------


def test_the_client_waits_as_the_python_client_does(browser: Browser, server: Server) -> None:
    """The same values by name, the same table of close codes, the same bound for what the server asks for."""
    texts = [
        "",
        "; retry_after=1.5",
        "; retry_after=1000000000",
        "; retry_after=-1",
        "; retry_after=Infinity",
    ]
    with browser.page(server.http + "/") as page:
        times, table, another_token, waits = page.evaluate(
            f"""import('/dashboard/client.js').then((client) => [
                client.TIMES, [...client.RETURN_AFTER_SECONDS], [...client.ANOTHER_TOKEN],
                {texts}.map((text) => client.returnAfterSeconds(1012, text)),
            ])"""
        )
    assert times == {name: getattr(backoff, name) for name in times}
    assert {name for name in vars(backoff) if name.isupper() and name[0] != "_"} == {
        *times,
        "RETURN_AFTER_SECONDS",
        "ANOTHER_TOKEN",
        "TOO_BIG",
    }
    assert dict(table) == {reason.code: reason.retry_after_seconds for reason in NATIVE}
    assert set(another_token) == {reason.code for reason in NATIVE if reason.another_token}
    assert waits == [backoff.Backoff(lambda: 0.0).closed(1012, text, False).seconds for text in texts]


def test_the_client_gives_up_what_is_not_the_protocol(browser: Browser, server: Server) -> None:
    """And comes back later."""
    with browser.page(server.http + "/") as page:
        found = page.evaluate(
            """import('/dashboard/client.js').then(({ Client }) => ["?", "[]", "null", "{}"].map((text) => {
                let socket;
                globalThis.WebSocket = class { constructor() { socket = this; } send() {} close() {} };
                const client = new Client("", []);
                client.start();
                socket.onmessage({ data: text });
                const late = client.dueAt - performance.now() > 4000;
                const { state, closed } = client;
                client.stop();
                return [state, closed.code, late];
            }))"""
        )
    assert found == [["waiting", 1002, True]] * 4


def test_messages_that_are_called_like_our_own(browser: Browser, server: Server) -> None:
    """A publisher may give its payloads any type: they are messages, and the client stays."""
    types = ["welcome", "gap", "error", "subscription_ack", "server:stats", "pong", "message"]
    with browser.page(server.http + "/") as page:
        page.evaluate(
            f"""import('/dashboard/client.js').then(({{ Client }}) => new Promise((resolve) => {{
                globalThis.heard = [];
                const client = new Client({json.dumps(server.ws)}, ["token.ODD"], {{
                    message(message) {{ heard.push(message.type); }},
                    change() {{ client.state === "live" ? resolve() : client.closed && heard.push("end"); }},
                }});
                client.start();
            }}))"""
        )
        messages = [("token.ODD", json.dumps({"type": kind, "data": kind}).encode()) for kind in types]
        elsewhere(lambda: ledger.publish(server.nats_url(), messages))
        page.until(f"heard.length >= {len(types)}", SECONDS, "all of them")
        assert page.evaluate("heard") == types


def test_the_client_backs_off_with_full_jitter(browser: Browser, server: Server) -> None:
    """Waits fill the whole range from 0 to a bound that doubles up to its cap."""
    with browser.page(server.http + "/") as page:
        waits = page.evaluate(
            """import('/dashboard/client.js').then(({ backoffSeconds }) =>
                [0, 1, 2, 50].flatMap((n) => [0, 0.5, 1].map((luck) => backoffSeconds(n, () => luck))))
            """
        )
    assert waits == [0, 0.25, 0.5, 0, 0.5, 1, 0, 1, 2, 0, 15, 30]


def test_the_client_counts_every_kind_of_gap_once(browser: Browser, server: Server) -> None:
    """A broken chain is a gap, a `gap` frame is one, and a new epoch is none."""
    frames: list[dict[str, Any]] = [
        {"type": "welcome", "epoch": "a"},
        {"type": "x", "channel": "global", "seq": 5, "prev": 3, "ts": 0, "data": 0},
        {"type": "x", "channel": "global", "seq": 6, "prev": 5, "ts": 0, "data": 0},
        {"type": "x", "channel": "global", "seq": 9, "prev": 8, "ts": 0, "data": 0},  # a broken chain
        {"type": "gap", "channel": "global", "from": 10, "to": 11, "reason": "slow"},
        {"type": "x", "channel": "global", "seq": 12, "prev": 11, "ts": 0, "data": 0},
        {"type": "welcome", "epoch": "b"},
        {"type": "x", "channel": "global", "seq": 2, "prev": 1, "ts": 0, "data": 0},
    ]
    with browser.page(server.http + "/") as page:
        counted = page.evaluate(
            f"""import('/dashboard/client.js').then(({{ Client }}) => {{
                let socket;
                globalThis.WebSocket = class {{ constructor() {{ socket = this; }} send() {{}} }};
                const client = new Client("", [], {{ change() {{}}, message() {{}} }});
                client.start();
                return {json.dumps(frames)}.map((frame) => {{
                    socket.onmessage({{ data: JSON.stringify(frame) }});
                    return client.gaps;
                }});
            }})"""
        )
    assert counted == [0, 0, 0, 1, 2, 2, 2, 2]


def test_the_client_stays_away_when_told_to(browser: Browser, server: Server) -> None:
    """After 1008 it does not come back by itself."""
    with browser.page(server.http + "/") as page:
        state = page.evaluate(
            f"""import('/dashboard/client.js').then(({{ Client }}) => new Promise((resolve) => {{
                let socket;
                globalThis.WebSocket = class extends WebSocket {{
                    constructor(url) {{ super(url); socket = this; }}
                }};
                const client = new Client({json.dumps(server.ws)}, ["global"], {{ message() {{}}, change() {{
                    if (client.state === "live") for (let i = 0; i < {MAX_ERRORS}; i++) socket.send("?");
                    if (client.closed) resolve([client.state, client.closed.code, client.dueAt]);
                }} }});
                client.start();
            }}))"""
        )
    assert state == ["ended", CloseReason.POLICY.code, 0]


def test_a_page_in_a_local_file(browser: Browser, server: Server, tmp_path: Path) -> None:
    """As an app that brings its pages along: `WS_ORIGINS=*` is meant for it too."""
    (tmp_path / "page.html").write_text("<!doctype html><title>local</title>")
    with browser.page((tmp_path / "page.html").as_uri()) as page:
        first = page.evaluate(
            f"""new Promise((resolve) => {{
                const socket = new WebSocket({json.dumps(server.ws)});
                socket.onmessage = ({{ data }}) => resolve(JSON.parse(data).type);
                socket.onclose = ({{ code }}) => resolve(code);
            }})"""
        )
    assert first == "welcome"


def test_the_client_ends_where_it_can_not_count(browser: Browser, server: Server) -> None:
    """Above 2^53 a message would be taken for the one before it, and dropped silently."""
    most = (1 << 53) - 1
    frames = [
        '{"type":"welcome","epoch":"a"}',
        f'{{"type":"x","channel":"global","seq":{most},"prev":0,"ts":0,"data":0}}',
        f'{{"type":"x","channel":"global","seq":{most + 2},"prev":{most},"ts":0,"data":0}}',
    ]
    with browser.page(server.http + "/") as page:
        found = page.evaluate(
            f"""import('/dashboard/client.js').then(({{ Client }}) => {{
                let socket;
                globalThis.WebSocket = class {{
                    constructor() {{ socket = this; }}
                    send() {{}}
                    close() {{}}
                }};
                const client = new Client("", []);
                client.start();
                return {json.dumps(frames)}.map((text) => {{
                    socket.onmessage({{ data: text }});
                    return [client.state, client.received, client.closed?.reason ?? ""];
                }});
            }})"""
        )
    assert [state for state, _, _ in found] == ["connecting", "connecting", "ended"]
    assert [received for _, received, _ in found] == [0, 1, 1]
    assert "above 2^53" in found[2][2]


def elsewhere(function: Callable[[], None]) -> None:
    """In a thread: Playwright has an event loop in this one."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_a_stream_that_has_counted_too_far(browser: Browser, tmp_path: Path) -> None:
    """With a real one: the message is not taken for another, and the page learns why there are no more."""
    first = (1 << 53) + 1
    stream = {"name": "ODIN_TOKENS", "subjects": ["odin.>"], "storage": "memory", "first_seq": first}

    async def create(url: str) -> None:
        client = await connect(url)
        answer = await client.request("$JS.API.STREAM.CREATE.ODIN_TOKENS", json.dumps(stream).encode())
        assert "error" not in json.loads(answer.data)
        await client.close()

    with NatsServer(tmp_path / "nats") as broker:
        thread = threading.Thread(
            target=lambda: asyncio.run(create(broker.url))
        )  # Playwright has a loop here
        thread.start()
        thread.join()
        with (
            Server({"NATS_URL": broker.url, "WS_WORKERS": "1"}) as server,
            browser.page(server.http + "/") as page,
        ):
            page.evaluate(
                f"""import('/dashboard/client.js').then(({{ Client }}) => {{
                    globalThis.client = new Client({json.dumps(server.ws)}, ["token.A"]);
                    client.start();
                }})"""
            )
            page.until("client.state === 'live'", SECONDS, "a subscription")
            elsewhere(lambda: ledger.publish(broker.url, [("token.A", b"1")]))
            page.until("client.state === 'ended'", SECONDS, "the end")
            assert page.evaluate("client.received") == 0
            assert "above 2^53" in page.evaluate("client.closed.reason")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that asks for tokens, of clocks that agree."""
    with Server({"WS_JWT_SECRET": SECRET, "WS_JWT_LEEWAY_SECONDS": "0", "WS_WORKERS": "1"}) as server:
        yield server


@pytest.mark.parametrize(
    ("lives", "fails", "accepted", "closed"),
    [([8, 60], 1, 1, 0), ([3, 60], 99, 2, 1), ([3, 3], 0, 1, 1)],
    ids=["once at renewal", "until it has expired", "the same again"],
)
def test_the_client_and_its_tokens(
    browser: Browser, guarded: Server, lives: list[float], fails: int, accepted: int, closed: int
) -> None:
    """One that can't be had is asked for again; 4401 asks for another; the same one again is the end."""
    before = guarded.json("/stats")
    with browser.page(guarded.http + "/") as page:
        now = time.time()
        tokens = [token(exp=now + seconds) for seconds in lives]
        if fails == 0:
            tokens[1] = tokens[0]
        state = page.evaluate(
            f"""import('/dashboard/client.js').then(({{ Client }}) => new Promise((resolve) => {{
                const [first, next] = {json.dumps(tokens)};
                let fails = {fails}, asked = 0;
                const get = () => {{
                    if (!asked++) return first;
                    if (first !== next && fails-- > 0 && !client.closed) throw new Error("asleep");
                    return next;
                }};
                const client = new Client({json.dumps(guarded.ws)}, ["token.BTC"], {{}}, {{ token: get }});
                client.start();
                setTimeout(() => {{ const {{ state }} = client; client.stop(); resolve(state); }}, 10000);
            }}))"""
        )
    after = guarded.json("/stats")
    assert state == ("live" if fails else "ended")
    assert after["accepted"] - before["accepted"] == accepted
    assert after["closed"]["unauthorised"] - before["closed"]["unauthorised"] == closed


@pytest.mark.parametrize("given", [["a", "a"], ["a", None, "a"], ["a", "b", "a"]])
def test_the_client_shows_no_token_twice(browser: Browser, server: Server, given: list[str | None]) -> None:
    """After 4401 the same one again is the end, also where one could not be had in between."""
    with browser.page(server.http + "/") as page:
        found = page.evaluate(
            f"""import('/dashboard/client.js').then(async ({{ Client }}) => {{
                const given = {json.dumps(given)}, shown = [];
                let socket;
                globalThis.WebSocket = class {{
                    constructor(url, protocols) {{ socket = this; shown.push(protocols[1]); }}
                    send() {{}}
                    close() {{}}
                }};
                Math.random = () => 0;
                const token = () => given.shift() ?? Promise.reject(new Error("none"));
                const client = new Client("", [], {{}}, {{ token }});
                const moment = () => new Promise((resolve) => setTimeout(resolve, 50));
                client.start();
                await moment();
                socket.onmessage({{ data: '{{"type":"welcome","epoch":"a"}}' }});
                socket.onclose({{ code: 4401, reason: "the token has expired" }});
                for (let i = 0; i < 10; i++) await moment();
                const end = [client.state, client.closed.code, shown];
                client.stop();
                return end;
            }})"""
        )
    if "b" in given:
        assert found == ["connecting", 4401, ["bearer.a", "bearer.b"]]
    else:
        assert found == ["ended", 4401, ["bearer.a"]]


# -- close codes ----------------------------------------------------------------------------------


def close_event(page: Page, server: Server, when_open: str) -> list[Any]:
    """Code, reason and cleanness of the close event after `when_open` has run on an open `socket`."""
    event: list[Any] = page.evaluate(
        f"""new Promise((resolve) => {{
            const socket = new WebSocket({json.dumps(server.ws)});
            socket.onopen = () => {{ {when_open} }};
            socket.onclose = ({{ code, reason, wasClean }}) => resolve([code, reason, wasClean]);
        }})"""
    )
    return event


@pytest.mark.parametrize(
    ("when_open", "code", "reason"),
    [
        ("socket.close(1000, 'done');", 1000, ""),
        ("socket.close();", 1005, ""),
        ("socket.close(3456, 'mine');", 3456, ""),
        ("socket.send(new Uint8Array(3));", 1003, CloseReason.UNSUPPORTED.text),
        (f"for (let i = 0; i < {MAX_ERRORS}; i++) socket.send('?');", 1008, f"{MAX_ERRORS} bad commands"),
        (f"socket.send('x'.repeat({MAX_BYTES + 1}));", 1009, f"message above {MAX_BYTES} bytes"),
    ],
    ids=["own", "own-without-code", "own-private", "binary", "errors", "too-big"],
)
def test_a_browser_sees_the_close_code(
    browser: Browser, server: Server, when_open: str, code: int, reason: str
) -> None:
    """The close event has the code and the reason of the server, and counts as clean."""
    with browser.page(server.http + "/") as page:
        seen = close_event(page, server, when_open)
    assert seen == [code, reason, True]


def test_a_browser_that_still_sends_sees_the_close_code(browser: Browser, server: Server) -> None:
    """4 MB that nobody wants are not waited for, so the close may be unclean, but its code arrives."""
    with browser.page(server.http + "/") as page:
        code, reason, _ = close_event(page, server, "socket.send('x'.repeat(4 << 20));")
    assert [code, reason] == [1009, f"message above {MAX_BYTES} bytes"]


# Nothing that compression could shrink, so that the page's buffers fill quickly.
NOISE = b'"' + random.Random(1).randbytes(100_000).hex().encode() + b'"'


def test_a_browser_that_does_not_keep_up_sees_4008(browser: Browser, server: Server) -> None:
    """A page that blocks its main thread stalls its socket; afterwards it learns of it."""
    with browser.page(server.http + "/") as page:
        page.evaluate(
            f"""await new Promise((resolve) => {{
                const socket = new WebSocket({json.dumps(server.ws)});
                const subscribe = {{ type: "subscribe", data: {{ channels: ["token.BIG"] }} }};
                socket.onopen = () => socket.send(JSON.stringify(subscribe));
                socket.onmessage = ({{ data }}) => data.includes("subscription_ack") && resolve();
                globalThis.end = new Promise((ended) => {{ socket.onclose = ended; }});
            }})"""
        )
        block = "{ const until = Date.now() + 3000; while (Date.now() < until); }"
        page.evaluate(f"void setTimeout(() => {block})")

        def closed() -> bool:
            publish(server, "token.BIG", NOISE, 20)
            return bool(server.json("/stats")["closed"]["slow"])

        wait_for(closed, SECONDS, "the server gives the page up")
        seen = page.evaluate("end.then(({ code, reason, wasClean }) => [code, reason, wasClean])")
    assert seen == [CloseReason.SLOW.code, CloseReason.SLOW.text, True]


def publish(server: Server, channel: str, payload: bytes, times: int) -> None:
    """Publish to the server's own NATS, in NATS' text protocol."""
    url = urlsplit(server.nats_url())
    with socket.create_connection((url.hostname, url.port), timeout=SECONDS) as nats:
        message = b"PUB odin.%b %d\r\n%b\r\n" % (channel.encode(), len(payload), payload)
        options = json.dumps({"verbose": False, "auth_token": url.username}).encode()
        nats.sendall(b"CONNECT " + options + b"\r\n" + message * times + b"PING\r\n")
        answer = b""
        while not answer.endswith(b"PONG\r\n"):
            part = nats.recv(4096)
            assert part, answer
            answer += part
