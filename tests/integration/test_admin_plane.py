"""The two planes of a real server: each path on each, and nothing of the inside by the public port."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from odinws.debug import http_client
from odinws.harness import fetch
from odinws.harness.process import Process
from tests.browser import Browser
from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.programs import find
from tests.server import GUNICORN, PATIENCE_SECONDS, Server, free_port, wait_for
from tests.wire import Peer, request

TOKEN = "an admin's token: (of 32 letters)"  # noqa: S105
SECONDS = 60.0
INSIDE = ("/stats", "/metrics", "/debug", "/debug/events", "/debug/heap", "/debug/resize?shards=4")
BOTH = ("/", "/health", "/livez", "/readyz", "/client.js", "/client.d.ts", "/dashboard/page.js")
LOCAL_CLAIMS: tuple[dict[str, str], ...] = (
    {},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-For": "127.0.0.1, 127.0.0.1"},
    {"Forwarded": "for=127.0.0.1"},
    {"X-Real-IP": "127.0.0.1"},
    {"Host": "127.0.0.1:3005"},
    {"Authorization": f"Bearer {TOKEN}"},
    {"Origin": "http://127.0.0.1:3005"},
)


@pytest.fixture(scope="module")
def server(nats_module: NatsServer, serve_module: Serve) -> Server:
    """Without a token, and with the world as trusted proxies."""
    return serve_module(NATS_URL=nats_module.url, WS_TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8")


@pytest.fixture(scope="module")
def guarded(nats_module: NatsServer, serve_module: Serve) -> Server:
    """With a token."""
    return serve_module(NATS_URL=nats_module.url, WS_ADMIN_TOKEN=TOKEN, WS_WORKERS="1")


@contextmanager
def forwarder(to: int) -> Iterator[int]:
    """A proxy on this machine that passes bytes on and names nobody; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, far = listener.accept()[0], socket.create_connection(("127.0.0.1", to))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SECONDS)


def get(port: int, path: str, headers: dict[str, str], method: str = "GET") -> tuple[int, bytes]:
    """Status and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize("path", BOTH)
def test_what_both_have(server: Server, path: str) -> None:
    """The page, its files, and the probes."""
    assert server.get(path).status == server.ask(path).status == 200


@pytest.mark.parametrize("path", INSIDE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_public_port_has_nothing_of_the_inside(server: Server, path: str, method: str) -> None:
    """Whatever a request says, straight or by a proxy on this machine; a word says where it went."""
    with forwarder(server.port) as proxied:
        for port in (server.port, proxied):
            for headers in LOCAL_CLAIMS:
                status, body = get(port, path, headers, method)
                assert status == 404
                assert json.loads(body)["error"] == "moved"
                assert "WS_ADMIN_ADDR" in json.loads(body)["message"]


@contextmanager
def haproxy(directory: Path, to: int) -> Iterator[int]:
    """A real one, on this machine, that sets no header; its port."""
    port = free_port()
    config = directory / "haproxy.cfg"
    config.write_text(
        f"""
defaults
    mode http
    timeout connect 5s
    timeout client 90s
    timeout server 90s
frontend clients
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    server one 127.0.0.1:{to}
"""
    )
    command = [find("haproxy", "haproxy"), "-db", "-f", str(config)]
    with Process(command, directory / "haproxy.log") as process:
        process.wait_until(lambda: fetch.answers(port, "/livez"), SECONDS, "ready")
        yield port


def test_nothing_of_the_inside_by_a_real_proxy(server: Server, tmp_path: Path) -> None:
    """For the server each of its clients is on this machine."""
    with haproxy(tmp_path, server.port) as port:
        assert get(port, "/health", {}) == (200, b'{"status":"healthy"}\n')
        for path in INSIDE:
            for headers in LOCAL_CLAIMS:
                assert get(port, path, headers)[0] == 404


def test_clients_of_a_proxy_here_have_a_rate(nats_module: NatsServer, serve: Serve, tmp_path: Path) -> None:
    """By default, whatever it says of them; where programs of this machine are exempt, if it says a word."""
    rates = {"WS_WORKERS": "1", "WS_UPGRADE_RATE": "0.1", "WS_UPGRADE_BURST": "3"}

    def statuses(port: int, **headers: str) -> list[int]:
        found = []
        for _ in range(6):
            with Peer(port) as peer:
                found.append(peer.send(request(**headers)).http().status)
        return found

    refused = [101] * 3 + [429] * 3
    default = serve(NATS_URL=nats_module.url, WS_UPGRADE_EXEMPT_LOOPBACK="false", **rates)
    with haproxy(tmp_path, default.port) as port:
        assert statuses(port) == refused
    exempt = serve(NATS_URL=nats_module.url, WS_UPGRADE_EXEMPT_LOOPBACK="true", **rates)
    assert statuses(exempt.port) == [101] * 6
    assert statuses(exempt.port, X_Forwarded_For="127.0.0.1") == refused
    for name in ("Via", "Forwarded", "X_Real_IP", "X_Forwarded_Proto", "CF_Connecting_IP"):
        assert statuses(exempt.port, **{name: "127.0.0.1"}) == [429] * 6


def test_the_public_health_is_a_word(server: Server) -> None:
    """The admin plane has the rest."""
    assert json.loads(server.get("/health").body) == {"status": "healthy"}
    assert server.json("/health")["checks"]["nats"]["healthy"]


def test_figures_are_on_the_admin_plane(server: Server) -> None:
    """Its own `/ws` gives them; on the public one the channel is rejected with a word where it went."""
    for headers in LOCAL_CLAIMS:
        with Peer(server.port) as peer:
            peer.send(request(**{name.replace("-", "_"): value for name, value in headers.items()}))
            assert peer.http().status == 101
            assert peer.next().json["type"] == "welcome"
            ack = peer.ask("subscribe", channels=["server.stats"], admin_token=TOKEN)
            [rejected] = ack["rejected"]
            assert rejected["code"] == "FORBIDDEN"
            assert "WS_ADMIN_ADDR" in rejected["message"]
    with Peer(server.admin_port) as peer:
        peer.send(request(Host="localhost"))
        assert peer.http().status == 101
        assert peer.next().json["type"] == "welcome"
        assert peer.ask("subscribe", channels=["server.stats"])["subscribed"] == ["server.stats"]
        assert peer.answer("server:stats")["data"]["connections"] >= 1


@pytest.mark.parametrize("path", ["/stats", "/metrics", "/debug/heap", "/", "/ws", "/health", "/nowhere"])
def test_foreign_pages_get_nothing_of_the_admin_plane(server: Server, path: str) -> None:
    """Neither under a name that leads here, nor from elsewhere, nor by an image, nor by a WebSocket."""
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{server.admin_port}", "Origin": f"http://evil.example:{server.admin_port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert server.ask(path, headers).status == 403
    with Peer(server.admin_port) as peer:
        peer.send(request(Host="localhost", Origin="http://evil.example"))
        assert peer.http().status == 403


def test_whom_a_proxy_brings_to_the_admin_plane(server: Server, guarded: Server) -> None:
    """Nothing without a token, whoever the proxy is, and whatever it says of them."""
    for name in ("X-Forwarded-For", "Via", "Forwarded", "X-Real-IP", "CF-Connecting-IP"):
        for path in ("/", "/stats", "/metrics", "/health", "/debug"):
            assert server.ask(path, {name: "127.0.0.1"}).status == 403
        with Peer(server.admin_port) as peer:
            peer.send(request(**{name.replace("-", "_"): "127.0.0.1"}))
            assert peer.http().status == 403
        assert get(guarded.admin_port, "/stats", {name: "127.0.0.1"})[0] == 401
        given = {name: "127.0.0.1", "Authorization": f"Bearer {TOKEN}"}
        assert get(guarded.admin_port, "/stats", given)[0] == 200


def test_changes_are_posts_of_no_other_site(server: Server) -> None:
    """A GET changes nothing; a page of another site is refused before it is looked at."""
    assert get(server.admin_port, "/debug/resize?shards=4", {})[0] == 405
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert get(server.admin_port, "/debug/resize?shards=4", headers, "POST")[0] == 403
    assert get(server.admin_port, "/debug/resize?shards=4", {}, "POST")[0] == 409, "it has no shards"


@pytest.mark.parametrize("path", ["/stats", "/metrics", "/debug", "/debug/heap", "/health", "/nowhere"])
def test_the_token_is_needed_where_one_is_set(guarded: Server, path: str) -> None:
    """On loopback too; the page and the probes are open, as they say nothing."""
    assert get(guarded.admin_port, path, {})[0] == 401
    assert get(guarded.admin_port, "/", {})[0] == get(guarded.admin_port, "/readyz", {})[0] == 200
    with Peer(guarded.admin_port) as peer:
        peer.send(request(Host="localhost"))
        assert peer.http().status == 401
    if path in ("/stats", "/metrics", "/health"):
        assert guarded.ask(path).status == 200


def test_wrong_guesses_are_limited_and_logged(nats_module: NatsServer, serve: Serve) -> None:
    """429 after some, also for the right one; a line a second, without the guess."""
    server = serve(NATS_URL=nats_module.url, WS_ADMIN_TOKEN=TOKEN, WS_WORKERS="1")
    guess = {"Authorization": "Bearer a guess of some letters"}
    statuses = [get(server.admin_port, "/stats", guess)[0] for _ in range(20)]
    assert statuses == sorted(statuses)
    assert set(statuses) == {401, 429}
    assert server.ask("/stats").status == 429
    assert "wrong_token" in server.log()
    assert "a guess of some letters" not in server.log()
    assert TOKEN not in server.log()


def test_a_unix_socket(nats_module: NatsServer, serve: Serve, tmp_path: Path) -> None:
    """For the server's user alone; what a killed server left is taken over, and all is gone in the end."""
    path = tmp_path / "admin.sock"
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()
    server = serve(NATS_URL=nats_module.url, WS_ADMIN_ADDR=f"unix:{path}", WS_WORKERS="1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = http_client.Server(f"unix:{path}", "")
    assert client.json("/stats")["connections"] == 0
    assert b"ws_connections" in client.get("/metrics")
    assert f"unix:{path}" in server.log()
    server.stop()
    assert not path.exists()


def test_a_second_server_with_the_default_address_has_another(nats_module: NatsServer) -> None:
    """Nobody chose it, so nobody relies on it; the log says where the plane is."""
    with ExitStack() as stack:
        with suppress(OSError):  # whoever has it already does as well
            stack.enter_context(socket.create_server(("127.0.0.1", 3005)))
        server = Server(
            {"NATS_URL": nats_module.url, "WS_ADMIN_ADDR": "127.0.0.1:3005", "LOG_FORMAT": "json"}
        )
        stack.callback(server.stop)
        server.start()
        said = [json.loads(line) for line in server.log().splitlines() if "WS_ADMIN_ADDR" in line]
        assert [line["taken"] for line in said] == ["127.0.0.1:3005"]
        port = int(said[0]["at"].rpartition(":")[2])
        assert b"ws_connections" in fetch.get(port, "/metrics").body


@pytest.mark.parametrize("kind", ["port", "socket", "file"])
def test_an_address_that_is_taken_ends_the_start_in_one_line(
    nats_module: NatsServer, tmp_path: Path, kind: str
) -> None:
    """It names the setting, and what to do."""
    path = tmp_path / "admin.sock"
    if kind == "file":
        path.write_text("")
        addr, taken = f"unix:{path}", socket.socket()
    elif kind == "socket":
        addr, taken = f"unix:{path}", socket.socket(socket.AF_UNIX)
        taken.bind(str(path))
        taken.listen()
    else:
        taken = socket.create_server(("127.0.0.1", 0))
        addr = f"127.0.0.1:{taken.getsockname()[1]}"
    server = Server({"NATS_URL": nats_module.url, "WS_ADMIN_ADDR": addr})
    try:
        with taken:
            server.launch()
            assert server.wait(PATIENCE_SECONDS) == 1
        line = server.log().strip().splitlines()[-1]
        assert line.startswith("odinws: WS_ADMIN_ADDR=")
        assert addr in line
    finally:
        server.stop()


@pytest.mark.parametrize(
    "command",
    [GUNICORN, (str(Path(sys.executable).with_name("gunicorn")), "-c", "gunicorn.conf.py")],
    ids=["module", "script"],
)
def test_it_outlives_reloads_and_upgrades(
    command: tuple[str, ...], nats_module: NatsServer, serve: Serve
) -> None:
    """SIGHUP keeps it; USR2 hands it to another arbiter, and it answers all the time."""
    server = serve(NATS_URL=nats_module.url, WS_WORKERS="1", command=command)
    (first,) = server.workers()
    server.signal(signal.SIGHUP)
    wait_for(lambda: first not in server.workers(), SECONDS, "another worker")
    known = {process.pid for process in server.processes()}
    failures: list[OSError] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.02):
            try:
                assert server.ask("/readyz").status in (200, 503)
            except ConnectionResetError:
                continue  # a worker left in just that moment
            except OSError as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        server.signal(signal.SIGUSR2)

        def successor() -> int:
            return next(
                (
                    p.pid
                    for p in server.processes()[1:]
                    if p.pid not in known and "gunicorn" in " ".join(p.cmdline()) and p.children()
                ),
                0,
            )

        second = wait_for(successor, SECONDS, "another arbiter")
        wait_for(
            lambda: server.log().count("all workers accept") + server.log().count("\nopen ") >= 2,
            SECONDS,
            "it accepts",
        )
        os.kill(second, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{second}"), SECONDS, "its end")
        assert server.ask("/stats").status == 200
    finally:
        done.set()
        asking.join()
    assert failures == []


def test_other_ports_by_options_of_gunicorn(nats_module: NatsServer) -> None:
    """`-b` moves the public port, and leaves the admin plane where it is, also after a reload."""
    port = free_port()
    server = Server({"NATS_URL": nats_module.url}, command=(*GUNICORN, "-b", f"127.0.0.1:{port}"), port=port)
    with server:
        assert server.ask("/stats").status == 200
        old = server.workers()
        server.signal(signal.SIGHUP)
        wait_for(lambda: not set(old) & set(server.workers()), SECONDS, "other workers")
        assert server.get("/stats").status == 404


def test_pipelined_metrics_leave_the_worker_to_others(nats_module: NatsServer, serve: Serve) -> None:
    """Two connections that pipeline `/metrics` take a small part of a worker, and its neighbours get in."""
    server = serve(NATS_URL=nats_module.url, WS_WORKERS="1")
    (worker,) = server.json("/stats")["workers"]
    stopping = threading.Event()

    def pipeline() -> None:
        with socket.create_connection(("127.0.0.1", server.admin_port)) as sock:
            threading.Thread(target=drain, args=(sock,), daemon=True).start()
            with suppress(OSError):
                while not stopping.is_set():
                    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)

    def drain(sock: socket.socket) -> None:
        with suppress(OSError):
            while sock.recv(1 << 20):
                pass

    def cpu() -> float:
        fields = Path(f"/proc/{worker['pid']}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    threads = [threading.Thread(target=pipeline, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.0)
        before, began = cpu(), time.monotonic()
        for _ in range(20):
            with Peer(server.port) as peer:
                peer.upgrade()
            time.sleep(0.1)
        share = (cpu() - before) / (time.monotonic() - began)
    finally:
        stopping.set()
    assert share < 0.5, share
    assert server.json("/stats")["refused"]["overload"] == 0


# So that the server refuses, and not the browser before it: others have no guard of their own.
_ONLY_OURS = ("--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",)
TRIES = """await (async () => {
    const tried = async (call) => { try { return await call(); } catch { return "failed"; } };
    const socket = new WebSocket(`${TARGET.replace("http", "ws")}/ws`);
    const opened = new Promise((done) => {
        socket.onopen = () => done("open");
        socket.onclose = () => done("failed");
    });
    const image = new Image();
    return [
        await new Promise((done) => {
            image.onload = () => done("loaded");
            image.onerror = () => done("failed");
            image.src = `${TARGET}/debug/heap?seconds=1`;
        }),
        await tried(async () => (await fetch(`${TARGET}/stats`)).status),
        await tried(async () => (await fetch(`${TARGET}/debug/resize?shards=4`, { method: "POST" })).status),
        await opened,
    ];
})()"""


def looks_of(server: Server) -> list[object]:
    """The events of looks inside."""
    return [event for event in server.json("/debug/events")["events"] if event["kind"] == "debug"]


@pytest.mark.parametrize(
    ("page_at", "target", "found"),
    [
        # Of the same origin, as the browser sees it: the name leads to this machine now (DNS rebinding).
        ("http://rebound.test:{port}", "http://rebound.test:{port}", ["failed", 403, 403, "failed"]),
        # Of another site, and of another port of this machine.
        ("http://evil.test", "http://127.0.0.1:{port}", ["failed"] * 4),
        ("http://127.0.0.1:{other}", "http://127.0.0.1:{port}", ["failed"] * 4),
        ("http://localhost:{other}", "http://localhost:{port}", ["failed"] * 4),
    ],
)
def test_foreign_pages_in_a_browser(server: Server, page_at: str, target: str, found: list[object]) -> None:
    """By an image, a request, a change and a WebSocket: nothing is had, and nothing dear is begun."""
    ports = {"port": server.admin_port, "other": server.port}
    looks = looks_of(server)
    with Browser(_ONLY_OURS) as browser, browser.page("about:blank") as page:
        url = page_at.format(**ports) + "/of-a-stranger"
        page.tab.route(url, lambda route: route.fulfill(body="<p>hello", content_type="text/html"))
        page.tab.goto(url)
        assert page.evaluate(TRIES.replace("TARGET", json.dumps(target.format(**ports)))) == found
    assert looks_of(server) == looks


def test_the_own_page_in_a_browser(server: Server) -> None:
    """The same requests from there are answered."""
    with Browser() as browser, browser.page(server.admin + "/") as page:
        found = page.evaluate(TRIES.replace("TARGET", "location.origin"))
        assert found == ["failed", 200, 409, "open"], "what a look shows is no image, but it is answered"
