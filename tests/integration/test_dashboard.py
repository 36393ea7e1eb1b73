"""The live page of a server in use: its charts, a restart, a refusal, and two strategies side by side."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest

import odinws
from odinws.feed.simulator import TOKENS
from odinws.harness.ports import free_ports
from tests import wire
from tests.browser import Browser
from tests.integration.conftest import Serve
from tests.ledger import publish
from tests.nats import NatsServer
from tests.server import Server, wait_for

SECONDS = 60.0  # for anything that takes a second or two on an idle machine
MOST_BYTES = 300 << 10  # of the page with all that belongs to it
ADMIN_TOKEN = "an admin's token"  # noqa: S105
PAGE = Path(odinws.__file__).with_name("dashboard")
CHARTS = ("connections", "deliveries", "delay", "cpu", "stall", "refused")
SCREENS = {"wide": {"width": 1500, "height": 900}, "phone": {"width": 390, "height": 844}}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PRICE = b'{"type":"price:update","price":%d}'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests; each opens pages of its own."""
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with its own NATS and the demo feed."""
    with Server({"WS_SHARD_STRATEGY": "fnv-sharded"}) as server:
        yield server


def value(chart: str, arm: int = 0) -> str:
    """JavaScript for the large number of a chart."""
    return f"document.querySelectorAll('#{chart} .value')[{arm}]?.querySelector('b').textContent"


def lines(chart: str) -> str:
    """JavaScript for how many lines of a chart join at least two moments, by arm."""
    return (
        f"Object.fromEntries([...document.querySelectorAll('#{chart} path.line')]"
        ".filter((line) => line.getAttribute('d').includes('L')).map((line) => [line.dataset.arm, 1]))"
    )


def says(element: str, text: str) -> str:
    """JavaScript for whether an element of the page has this text somewhere."""
    return f"document.getElementById('{element}').textContent.includes({json.dumps(text)})"


def subscriber(server: Server, *channels: str) -> wire.Peer:
    """A client that is subscribed."""
    peer = wire.Peer(server.port)
    peer.upgrade()
    peer.ask("subscribe", channels=list(channels))
    return peer


def publish_all(nats: NatsServer, messages: list[tuple[str, bytes]]) -> None:
    """In a thread: in this one Playwright's event loop counts as running."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(publish, nats.url, messages).result(SECONDS)


def test_the_page_follows_the_server(browser: Browser, server: Server) -> None:
    """Every chart draws, a number changes as the server does, and nothing fails or comes from elsewhere."""
    with browser.page(server.admin + "/") as page, ExitStack() as clients:
        for chart in CHARTS:
            page.until(f"Object.keys({lines(chart)}).length === 1", SECONDS, f"a line of {chart}")
        for _ in range(5):
            clients.enter_context(subscriber(server, "token.BTC"))
        page.until(f"{value('connections')} === '6'", SECONDS, "the page and five more")
        page.until(f"parseFloat({value('deliveries')}) > 20", SECONDS, "deliveries to all of them")
        page.until(f"/ms$/.test({value('delay')})", SECONDS, "a delay")
        page.until(
            "[...document.querySelectorAll('#shards .strip svg')].every((one) => one.children.length === 16)",
            SECONDS,
            "16 shards",
        )
        page.until(says("feed", "2 of 2"), SECONDS, "the feeds of both workers")
        assert page.evaluate("document.querySelectorAll('#workers tr[data-ours]').length") == 1
        assert page.errors == []
        assert page.failures == []
        assert all(url.startswith(server.admin) for url in page.requests)


def test_a_refused_client_shows_on_the_page(browser: Browser, serve: Serve) -> None:
    """On the page of one who got in: when the server is full, by reason, and as an event."""
    server = serve(WS_WORKERS="1", WS_MAX_CONNECTIONS="1")
    with browser.page(server.admin + "/") as page:
        page.until(f"{value('connections')} === '1'", SECONDS, "the page is the only client")
        with wire.Peer(server.port) as peer:
            peer.send(wire.request())
            assert peer.http().status == 503
        page.until(says("refusals", "all connections taken"), SECONDS, "the reason")
        page.until(says("events", "1 client refused: capacity"), SECONDS, "the event")
        page.until(says("health", "degraded"), SECONDS, "the health")
        page.screenshot("full")
        assert page.errors == []


def test_the_page_says_that_it_was_refused_and_gets_in_later(browser: Browser, serve: Serve) -> None:
    """A browser hides the answer to an upgrade, so the page asks `/health` and says it in words."""
    server = serve(WS_WORKERS="1", WS_MAX_CONNECTIONS="1")
    occupant = subscriber(server, "global")
    with browser.page(server.admin + "/") as page:
        page.until(says("notice", "refused this page: capacity: all 1 connections"), SECONDS, "why")
        assert page.evaluate("document.body.dataset.state") in ("waiting", "connecting")
        page.until("/next attempt in \\d+ s/.test(countdown.textContent)", SECONDS, "when it tries again")
        page.screenshot("refused")
        occupant.shut()
        wait_for(lambda: server.json("/health")["checks"]["capacity"]["current"] == 0, SECONDS, "room")
        page.evaluate(
            "document.body.dataset.state === 'waiting' && document.getElementById('switch').click()"
        )
        page.until(f"{value('connections')} === '1'", SECONDS, "the page is in")
        assert page.evaluate("notice.hidden")
        assert page.errors == []


def test_prices_resume_after_a_restart(browser: Browser, tmp_path: Path) -> None:
    """What was published while the server was away is shown as resumed, and nothing was lost."""
    with NatsServer(tmp_path) as nats, Server({"NATS_URL": nats.url, "WS_WORKERS": "1"}) as first:
        channels = [f"token.{token}" for token in TOKENS]
        with browser.page(first.admin + "/") as page:
            page.until("document.body.dataset.state === 'live'", SECONDS, "the page is live")
            publish_all(nats, [(channel, PRICE % 1) for channel in channels])
            page.until("received.textContent === '10'", SECONDS, "a price of each token")
            page.until(f"Object.keys({lines('connections')}).length === 1", SECONDS, "a line")
            first.signal(signal.SIGTERM)
            assert first.wait() == 0
            page.until("!notice.hidden", SECONDS, "the page says what happened")
            publish_all(nats, [(channel, PRICE % 2) for channel in channels * 3])
            same = {"WS_ADMIN_ADDR": first.settings["WS_ADMIN_ADDR"]}
            with Server({"NATS_URL": nats.url, "WS_WORKERS": "1", **same}, port=first.port):
                page.until(says("resume", "30 missed messages resumed, none lost"), SECONDS, "resumed")
                assert page.evaluate("document.querySelectorAll('polyline.resumed').length") == len(TOKENS)
                page.until(says("events", "the server was started anew"), SECONDS, "the event")
                page.until(f"{value('connections')} === '1'", SECONDS, "figures of the new server")
                assert page.evaluate("gaps.textContent") == "0"
                page.screenshot("resumed")
                assert page.errors == []


def test_two_servers_stand_side_by_side(browser: Browser, serve: Serve) -> None:
    """Two strategies in the same charts, distinct by letter and colour; screenshots of all four themes."""
    first, second = free_ports(2)
    peers = f"http://127.0.0.1:{first}, http://127.0.0.1:{second}"
    server = serve(WS_SHARD_STRATEGY="fnv-sharded", WS_ADMIN_ADDR=f"127.0.0.1:{first}", WS_ADMIN_PEERS=peers)
    other = serve(
        WS_SHARD_STRATEGY="single-lock",
        WS_WORKERS="1",
        WS_ADMIN_ADDR=f"127.0.0.1:{second}",
        WS_ADMIN_PEERS=peers,
    )
    compared = f"{server.admin}/?compare=ws://127.0.0.1:{second}/ws"
    with ExitStack() as clients, browser.page(compared, width=1500) as page:
        for one, count in ((server, 3), (other, 2)):
            for _ in range(count):
                clients.enter_context(subscriber(one, "token.*"))
        for chart in CHARTS:
            page.until(f"Object.keys({lines(chart)}).length === 2", SECONDS, f"two lines of {chart}")
        page.until(f"{value('connections', 0)} === '4' && {value('connections', 1)} === '3'", SECONDS, "both")
        legend = page.evaluate("[...arms.children].map((arm) => arm.textContent)")
        assert legend == ["Afnv-sharded", f"Bsingle-lock · 127.0.0.1:{second}"]
        page.until("workers.rows.length === 3", SECONDS, "workers of both")
        assert page.evaluate("shards.children.length") == 2
        colours = page.evaluate(
            "[...document.querySelectorAll('#connections path.line')].map((l) => getComputedStyle(l).stroke)"
        )
        assert len(set(colours)) == 2
        for screen, size in SCREENS.items():
            for scheme in SCHEMES:
                page.tab.set_viewport_size(size)  # type: ignore[arg-type]
                page.tab.emulate_media(color_scheme=scheme)
                assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
                assert page.screenshot(f"{screen}-{scheme}").stat().st_size > 10_000
        assert page.errors == []


def test_a_page_that_is_opened_later_shows_what_was_before(browser: Browser, serve: Serve) -> None:
    """Also of workers that are gone: the lines begin before the page did, and go on without a hole."""
    server = serve(WS_WORKERS="2")
    ready = time.monotonic()
    first = {worker["pid"] for worker in server.json("/stats")["workers"]}
    server.signal(signal.SIGHUP)
    wait_for(
        lambda: first.isdisjoint(worker["pid"] for worker in server.json("/stats")["workers"]),
        SECONDS,
        "new workers",
    )
    up = time.monotonic() - ready
    with browser.page(server.admin + "/") as page:
        page.until(f"Object.keys({lines('cpu')}).length === 1", SECONDS, "a line")
        points = page.evaluate(
            "document.querySelector('#cpu path.line').getAttribute('d').match(/[ML]/g).length"
        )
        assert points >= up - 3  # a sample per second, but for the first ones
        assert page.evaluate("document.querySelectorAll('#cpu .hole').length") == 0
        assert page.errors == []


def test_samples_are_taken_once(browser: Browser, server: Server) -> None:
    """However readings overlap; a strategy that is gone stays as long as its samples."""
    with browser.page(server.admin + "/") as page:
        found = page.evaluate(
            """await import('/dashboard/figures.js').then(({ Timeline }) => {
                const timeline = new Timeline();
                const reading = (ts, strategy, ...ats) => ({ ts, data: {
                    workers: [{ strategy }],
                    timeline: ats.map((at) => ({ at, arms: { [strategy]: { connections: at } } })),
                } });
                const held = () => [...timeline.arms].map(([name, { samples }]) =>
                    [name, ...samples.map((one) => [one.at, one.connections])]);
                const found = [];
                const hour = 3_600_000; // by which the clocks differ
                for (const [now, ...rest] of [
                    [3000, "a", 1000, 2000, 3000], [4000, "a", 2000, 3000, 4000], [5000, "b", 4000, 5000],
                    [6000, "b"], [hour, "b", hour],
                ]) {
                    timeline.take(reading(now, ...rest), now + hour);
                    found.push(held());
                }
                return found;
            })"""
        )
    hour = 3_600_000
    a, b = [[hour + second, second] for second in (1000, 2000, 3000, 4000)], [[hour + 5000, 5000]]
    assert found == [
        [["a", *a[:3]]],
        [["a", *a]],
        [["a", *a], ["b", *b]],
        [["a", *a], ["b", *b]],
        [["b", [2 * hour, hour]]],
    ]


def test_events_of_the_server_appear_once_and_in_order(browser: Browser, server: Server) -> None:
    """A server that tells events itself tells all it has each time, the newest first."""
    with browser.page(server.admin + "/") as page:
        told = page.evaluate(
            """await import('/dashboard/events.js').then(({ EventLog }) => {
                const list = document.createElement("ol");
                const log = new EventLog(list, document.createElement("p"));
                const source = { name: "" };
                const event = (at, kind) => ({ at, worker: 1, kind, text: `event ${at}` });
                const [first, second, third] = [event(1, "x"), event(2, "feed_up"), event(3, "feed_lost")];
                for (const events of [[second, first], [third, second]]) {
                    source.now = { data: { events } };
                    log.compare(source, null);
                }
                return [...list.children].map((item) => [item.dataset.kind, item.lastChild.textContent]);
            })"""
        )
    assert told == [["bad", "event 3"], ["good", "event 2"], ["plain", "event 1"]]


def test_the_admin_page_asks_for_the_token(browser: Browser, serve: Serve) -> None:
    """Where one is set: nothing without it, nothing with a wrong one, all with the right one."""
    server = serve(WS_WORKERS="1", WS_ADMIN_TOKEN=ADMIN_TOKEN)
    with browser.page(server.admin + "/") as page:
        page.until("!locked.hidden", SECONDS, "the form")
        assert page.evaluate("arms.children.length") == 0
        for token, shown in (("wrong", False), (ADMIN_TOKEN, True)):
            page.tab.get_by_label("WS_ADMIN_TOKEN").fill(token)
            page.tab.get_by_role("button", name="Show").click()
            if not shown:
                page.until("document.body.dataset.state === 'waiting' && !locked.hidden", SECONDS, "refused")
        page.until(f"/[1-9]/.test({value('connections')})", SECONDS, "figures")
        page.until("/[1-9]/.test(received.textContent)", SECONDS, "prices")
        assert page.evaluate("locked.hidden && withheld.hidden")
        assert page.errors == []


def test_the_public_page_has_prices_and_says_where_the_figures_are(browser: Browser, server: Server) -> None:
    """No more, though it is asked from this machine."""
    with browser.page(server.http + "/") as page:
        page.until("/[1-9]/.test(received.textContent)", SECONDS, "prices")
        page.until("!withheld.hidden", SECONDS, "the word")
        assert "WS_ADMIN_ADDR" in page.evaluate("withheld.textContent")
        assert not page.tab.locator("main").is_visible(), "no charts that stay empty"
        assert page.evaluate("arms.children.length") == 0
        assert page.evaluate("elsewhere.hidden && locked.hidden")
        assert page.errors == page.failures == []


def test_keys_reach_and_move_everything(browser: Browser, server: Server) -> None:
    """Every control has a name, Tab comes to all of them, and arrows read a chart."""
    with browser.page(server.admin + "/") as page:
        page.until(f"Object.keys({lines('delay')}).length === 1", SECONDS, "a line")
        for name in ("Server", "Workers", "Shards", "Feed", "Refused, by reason", "Prices", "Events"):
            assert page.tab.get_by_role("heading", name=name, exact=True).count() == 1, name
        for role, name in (("button", "Pause"), ("button", "Light or dark"), ("combobox", "Last")):
            assert page.tab.get_by_role(role, name=name).count() == 1, name  # type: ignore[arg-type]
        chart = page.tab.get_by_role("slider", name="Delivery delay, over time")
        chart.focus()
        page.tab.keyboard.press("ArrowLeft")
        page.until("/^at \\d/.test(moment.textContent)", SECONDS, "the moment of the cursor")
        assert page.evaluate("document.querySelectorAll('.plot .cursor').length") == len(CHARTS)

        def spoken() -> str:
            page.tab.keyboard.press("Escape")  # to the present, and from there to the latest point
            page.tab.keyboard.press("ArrowLeft")
            return str(chart.get_attribute("aria-valuetext"))

        wait_for(lambda: "ms" in spoken(), SECONDS, "a second in which something was delivered")
        page.tab.keyboard.press("Escape")
        page.until("moment.textContent === ''", SECONDS, "the present again")
        reached = set()
        page.evaluate("document.activeElement.blur()")
        for _ in range(30):
            page.tab.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert {"switch", "theme", "span", "frame", "strip", "events"} <= reached
        page.tab.get_by_role("button", name="Light or dark").press("Enter")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_figures_are_no_messages(serve: Serve) -> None:
    """Watchers get figures, and in no count of messages is there any more than before."""
    quiet = serve(WS_WORKERS="1", WS_DEMO_FEED="0")
    with wire.Peer(quiet.admin_port) as peer:
        peer.send(wire.request(Host="localhost"))
        assert peer.http().status == 101
        assert peer.next().json["type"] == "welcome"
        ack = peer.ask("subscribe", channels=["server.stats"])
        assert (ack["subscribed"], ack["count"]) == (["server.stats"], 0)
        readings = [peer.answer("server:stats") for _ in range(2)]
        assert "seq" not in readings[0]
        assert readings[1]["ts"] - readings[0]["ts"] >= 900
        assert readings[1]["data"]["connections"] == 1
        assert quiet.metric("ws_connections") == 1
        for name in ("delivered_total", "undelivered_total", "shed_total"):
            assert quiet.metric(f"ws_messages_{name}") == 0
        assert quiet.metric("ws_sends_total") == 0
        assert quiet.metric("ws_feed_messages_total") == 0
        assert quiet.metric("ws_subscriptions") == 0


def test_the_page_is_small_and_its_own() -> None:
    """All of it together, and nothing in it leads to another host."""
    files = [path for path in PAGE.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    hosts = ("http://www.w3.org/2000/svg", "https://your.server", "wss://your.server")  # names, not addresses
    for path in files:
        text = path.read_text()
        for host in hosts:
            text = text.replace(host, "")
        assert "://" not in text, path
