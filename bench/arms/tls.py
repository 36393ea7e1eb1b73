"""odinws over TLS, by itself and behind a proxy that ends it. On request."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.arms import odinws, peers
from bench.arms.base import Arm, Place
from bench.build import BUILD, MissingError, call, tool
from bench.client.driver import has_tls
from odinws.harness import fetch
from odinws.harness.server import START_SECONDS, Server

_CERTIFICATE, _KEY = BUILD / "certificate.pem", BUILD / "key.pem"


class _TlsServer(Server):
    """A server whose admin plane, which does not encrypt, is asked whether it is ready."""

    def wait_ready(self, path: str = "/readyz", seconds: float = START_SECONDS) -> None:
        self.wait_until(lambda: fetch.answers(self.admin_port, path), seconds, "ready")


def _build_certificate() -> None:
    """For 127.0.0.1, signed by itself: a key of 2,048 bits, which all arms use."""
    if not has_tls():
        raise MissingError("OpenSSL's headers are not installed, which the client needs (Debian: libssl-dev)")
    if not _KEY.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        words = "req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=127.0.0.1 -keyout"
        call([tool("openssl", "Debian: openssl"), *words.split(), str(_KEY), "-out", str(_CERTIFICATE)])


def _haproxy(place: Place) -> list[str]:
    both = place.directory / "both.pem"
    both.write_bytes(_CERTIFICATE.read_bytes() + _KEY.read_bytes())
    config = place.directory / "haproxy.cfg"
    config.write_text(
        f"""
global
    nbthread {place.scenario.workers}
defaults
    mode http
    timeout connect 5s
    timeout client 90s
    timeout server 90s
    timeout tunnel 90s
frontend clients
    bind 127.0.0.1:{place.port} ssl crt {both}
    default_backend servers
backend servers
    server one 127.0.0.1:{place.inner_port}
"""
    )
    return ["haproxy", "-db", "-f", str(config)]


def _nginx(place: Place) -> list[str]:
    return peers.nginx(
        place,
        f"""
server {{
  listen 127.0.0.1:{place.port} ssl backlog=4096;
  ssl_certificate {_CERTIFICATE};
  ssl_certificate_key {_KEY};
  location / {{
    proxy_pass http://127.0.0.1:{place.inner_port};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
    proxy_read_timeout 90s;
  }}
}}""",
    )


def _arm(
    name: str,
    title: str,
    server: Callable[[Place, Server], Server],
    *packages: str,
) -> Arm:
    plain = odinws.plain(name, title)

    def build_all() -> dict[str, str]:
        _build_certificate()
        return {**plain.build(), **(peers.debian(*packages, *packages)() if packages else {})}

    return replace(
        plain,
        build=build_all,
        server=lambda place: server(place, plain.server(place)),
        wires=[replace(wire, tls=True) for wire in plain.wires],
        pip_only=False,
        debian=("libssl-dev", *packages),
    )


def _own(place: Place, plain: Server) -> Server:
    command = (*plain.command, "--certfile", str(_CERTIFICATE), "--keyfile", str(_KEY))
    return _TlsServer(plain.settings, place.log, port=place.port, command=command)


def _behind(proxy: Callable[[Place], Sequence[str]]) -> Callable[[Place, Server], Server]:
    """A proxy beside odinws, as its child, so that its CPU and memory count with the server's."""

    def server(place: Place, plain: Server) -> Server:
        both = f"{shlex.join(proxy(place))} & exec {shlex.join(plain.command)}"
        settings = {**plain.settings, "WS_ADDR": f"127.0.0.1:{place.inner_port}"}
        return Server(settings, place.log, port=place.inner_port, command=["sh", "-c", both])

    return server


ARMS = (
    _arm("odinws-tls", ", TLS by itself", _own),
    _arm("odinws-haproxy", ", haproxy ends TLS", _behind(_haproxy), "haproxy"),
    _arm("odinws-nginx", ", nginx ends TLS", _behind(_nginx), "nginx"),
)
