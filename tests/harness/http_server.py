"""A small HTTP server as a process, and in a thread."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

READY_AT_THIRD = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
answers = iter([503, 503, 200])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(next(answers)); self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def ready_at_third(port: int) -> tuple[str, ...]:
    """The command of a server that answers the third request with 200, those before with 503."""
    return (sys.executable, "-uc", READY_AT_THIRD, str(port))


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """The port of a server that always gives this answer, and the header `X-Asked` as it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Asked", f"{self.path} {self.headers.get('X-Word', '')}")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
