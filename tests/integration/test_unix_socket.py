"""A server on a Unix socket behind a real nginx, which says who its clients are."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from odinws.harness import fetch
from tests.ledger import publish
from tests.nats import NatsServer
from tests.programs import find
from tests.server import GUNICORN, PATIENCE_SECONDS, Server, wait_for
from tests.wire import KEY, Peer, request

BURST = 3
FAR, OTHER = "203.0.113.9", "203.0.113.10"
_NGINX = """
    {user} daemon off; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;
    events {{}}
    http {{
        access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
        fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
        map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
        server {{
            listen 127.0.0.1:{port};
            location / {{
                proxy_pass http://unix:{path}:;
                proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $connection_upgrade;
                proxy_set_header X-Forwarded-For $http_x_client;  # as if from there
            }}
        }}
    }}
"""


class Site(NamedTuple):
    """A server, and nginx at its port.

    Attributes:
        path: of the socket.
    """

    server: Server
    path: str

    def directly(self, target: str, headers: Mapping[str, str] = MappingProxyType({})) -> int:
        """The status of a GET on the socket itself."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_SECONDS)
            sock.connect(self.path)
            lines = [
                f"GET {target} HTTP/1.1",
                "Host: x",
                *(f"{name}: {text}" for name, text in headers.items()),
            ]
            sock.sendall("\r\n".join([*lines, "", ""]).encode())
            return int(sock.recv(1 << 16).split()[1])

    def statuses(self, client: str, count: int) -> list[int]:
        """What so many upgrade requests of a client are answered with."""
        found = []
        for _ in range(count):
            with Peer(self.server.port) as peer:
                found.append(peer.send(request(X_Client=client)).http().status)
        return found


@pytest.fixture(params=["unix:", ""], ids=["believed", "not believed"])
def site(request: pytest.FixtureRequest, nats: NatsServer, tmp_path: Path) -> Iterator[Site]:
    """Both, with a narrow rate for each address."""
    program = find("nginx", "nginx-light")
    with tempfile.TemporaryDirectory() as directory:  # a socket's path may have 107 bytes
        path = f"{directory}/odinws.sock"
        settings = {
            "NATS_URL": nats.url,
            "WS_TRUSTED_PROXIES": request.param,
            "WS_UPGRADE_BURST": str(BURST),
            "WS_UPGRADE_RATE": "0.001",
            "WS_WORKERS": "1",
            "WS_RECONCILE_SECONDS": "1",
            "LOG_ACCESS": "1",
        }
        server = Server(settings, command=(*GUNICORN, "-b", f"unix:{path}"))
        user = "" if os.geteuid() else "user root;"
        config = _NGINX.format(user=user, directory=tmp_path, port=server.port, path=path)
        (tmp_path / "nginx.conf").write_text(config)
        nginx = subprocess.Popen(
            [program, "-c", tmp_path / "nginx.conf", "-p", tmp_path], stderr=subprocess.DEVNULL
        )
        try:
            yield Site(server.start(), path)
        finally:
            server.stop()
            nginx.terminate()
            nginx.wait()


def test_clients_are_told_apart(site: Site) -> None:
    """Each has a bucket of its own where nginx is believed; else all share one. Local programs need none."""
    trusted = bool(site.server.settings["WS_TRUSTED_PROXIES"])
    expected = [101] * BURST + [429] * 2
    assert site.statuses(FAR, BURST + 2) == expected
    assert site.statuses(OTHER, BURST + 2) == (expected if trusted else [429] * (BURST + 2))
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    assert [site.directly("/ws", upgrade) for _ in range(BURST + 2)] == [101] * (BURST + 2)
    log = site.server.log()
    assert ("WS_TRUSTED_PROXIES=unix:" in log) is not trusted
    assert (f"address={FAR}" in log) is trusted
    assert ("unix: (forwarded)" in log) is not trusted


def test_what_anybody_may_have(site: Site) -> None:
    """The same on the socket and through nginx; the inside is on neither."""
    for path, status in (("/readyz", 200), ("/livez", 200), ("/ws", 426), ("/stats", 404), ("/debug", 404)):
        assert site.directly(path) == status
        assert fetch.get(site.server.port, path).status == status


def test_messages_come_and_counts_stay(site: Site) -> None:
    """The client's address is in view; nothing differs; a stop says goodbye and takes the socket away."""
    trusted = bool(site.server.settings["WS_TRUSTED_PROXIES"])
    with Peer(site.server.port) as peer:
        assert peer.send(request(X_Client=FAR)).http().status == 101
        assert peer.next().json["type"] == "welcome"
        assert peer.ask("subscribe", channels=["token.BTC"])["count"] == 1
        publish(_nats(site), [("token.BTC", b"1")])
        assert peer.answer("message")["data"] == 1
        [row] = site.server.json("/debug/connections")["workers"][0]["result"]["connections"]
        assert row["peer"] == (FAR if trusted else "unix: (forwarded)")
        before = site.server.metric("ws_reconciliations_total")
        wait_for(lambda: site.server.metric("ws_reconciliations_total") >= before + 2, 10, "two looks")
        assert not any(site.server.json("/stats")["reconciliation"]["differences"].values())
        site.server.signal(signal.SIGTERM)
        assert peer.closing().code == 1001
    assert site.server.wait(PATIENCE_SECONDS) == 0
    assert not Path(site.path).exists()
    log = site.server.log()
    assert f"ws://unix:{site.path}:/ws" in log
    assert '"GET /readyz' in log
    assert "\nunix: - - [" in log
    assert "Traceback" not in log


def _nats(site: Site) -> str:
    return site.server.settings["NATS_URL"]
