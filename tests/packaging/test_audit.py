"""The audit of the pins: the real pip-audit, and a source of vulnerabilities on this machine."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging import audit

PIN = f"nothing==1.0 --hash=sha256:{'0' * 64}\nsomething==2.0 --hash=sha256:{'1' * 64}\n"


class Source(http.server.BaseHTTPRequestHandler):
    """Answers as OSV does: `something` has a vulnerability."""

    def do_POST(self) -> None:
        """One package."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {"id": "XYZ-1", "summary": "", "affected": [], "modified": "2026-01-01T00:00:00Z"}
        found = asked["package"]["name"] == "something"
        body = json.dumps({"vulns": [known]} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not on the terminal."""


@pytest.fixture
def source() -> Iterator[str]:
    """Its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Source)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def test_what_is_known_is_found(source: str, tmp_path: Path) -> None:
    """By name, version and id; a source that is away is passed over, and none at all is no verdict."""
    pins = tmp_path / "pins.txt"
    pins.write_text(PIN)
    program = audit.installed()
    away = ("-s", "osv", "--osv-url", "http://127.0.0.1:9/")
    here = ("-s", "osv", "--osv-url", source)
    assert audit.audit(program, [pins], [away, here]) == ["something 2.0: XYZ-1"]
    pins.write_text(PIN.partition("\n")[0] + "\n")
    assert audit.audit(program, [pins], [here]) == []
    assert audit.audit(program, [pins], [away]) is None
