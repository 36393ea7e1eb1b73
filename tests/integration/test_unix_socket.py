"""A server on a Unix socket behind a real nginx, which says who its clients are."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ledger import publish
from tests.nats import NatsServer
from tests.programs import find
from tests.server import GUNICORN, PATIENCE_SECONDS, Server, wait_for
from tests.wire import Peer, request

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

    def directly(self, target: str) -> tuple[int, bytes]:
        """Status and body of a GET on the socket itself."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_SECONDS)
            sock.connect(self.path)
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while chunk := sock.recv(1 << 16):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

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
    """Each has a bucket of its own where nginx is believed; else it is one client, of this machine."""
    trusted = bool(site.server.settings["WS_TRUSTED_PROXIES"])
    expected = [101] * BURST + [429] * 2 if trusted else [101] * (BURST + 2)
    assert site.statuses(FAR, BURST + 2) == expected
    assert site.statuses(OTHER, BURST + 2) == expected
    log = site.server.log()
    assert ("WS_TRUSTED_PROXIES=unix:" in log) is not trusted
    assert (f"address={FAR}" in log) is trusted


def test_who_may_look_inside(site: Site) -> None:
    """Programs of this machine, on the socket or through nginx; nobody who comes from elsewhere."""
    assert site.directly("/stats")[0] == 200
    assert site.directly("/readyz")[0] == 200
    assert site.server.get("/stats")[0] == 200
    assert site.server.get("/stats", {"X-Client": FAR})[0] == 403
    assert site.server.get("/stats", {"X-Client": f"127.0.0.1, {FAR}"})[0] == 403
    assert site.server.get("/readyz", {"X-Client": FAR})[0] == 200


def test_messages_come_and_counts_stay(site: Site) -> None:
    """The client's address is in view; nothing differs; a stop says goodbye and takes the socket away."""
    trusted = bool(site.server.settings["WS_TRUSTED_PROXIES"])
    with Peer(site.server.port) as peer:
        assert peer.send(request(X_Client=FAR)).http().status == 101
        assert peer.next().json["type"] == "welcome"
        assert peer.ask("subscribe", channels=["token.BTC"])["count"] == 1
        publish(_nats(site), [("token.BTC", b"1")])
        assert peer.answer("message")["data"] == 1
        [row] = json.loads(site.directly("/debug/connections")[1])["workers"][0]["result"]["connections"]
        assert row["peer"] == (FAR if trusted else "unix:")
        before = site.server.metric("ws_reconciliations_total")
        wait_for(lambda: site.server.metric("ws_reconciliations_total") >= before + 2, 10, "two looks")
        assert not any(site.server.json("/stats")["reconciliation"]["differences"].values())
        site.server.signal(signal.SIGTERM)
        assert peer.closing().code == 1001
    assert site.server.wait(PATIENCE_SECONDS) == 0
    assert not Path(site.path).exists()
    log = site.server.log()
    assert f"http://unix:{site.path}:/" in log
    assert '"GET /readyz' in log
    assert "\nunix: - - [" in log
    assert "Traceback" not in log


def _nats(site: Site) -> str:
    return site.server.settings["NATS_URL"]
