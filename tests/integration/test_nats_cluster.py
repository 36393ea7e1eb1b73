"""A cluster of nats-servers of which the server is told one."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from tests.integration.conftest import Serve
from tests.integration.test_nats_outages import manage
from tests.ledger import publish
from tests.nats import NatsServer
from tests.server import free_port, wait_for
from tests.wire import Peer


def test_a_cluster_known_by_one_url(serve: Serve, tmp_path: Path) -> None:
    """The one that was named is gone for good: the feed goes on with the others, and clients miss nothing."""
    routes = [free_port() for _ in range(3)]
    others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    with contextlib.ExitStack() as stack:
        nodes = [
            NatsServer(
                tmp_path / f"n{index}",
                port=free_port(),
                config=f"server_name: n{index}\n"
                f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{others}] }}\n',
            )
            for index, port in enumerate(routes)
        ]
        for node in nodes:
            stack.enter_context(node)
        server = serve(NATS_URL=nodes[0].url, JS_STREAM_REPLICAS="3", WS_WORKERS="1")
        with Peer(server.port) as peer:
            peer.upgrade()
            peer.ask("subscribe", channels=["token.A"])
            publish(nodes[1].url, [("token.A", b"{}")])
            assert peer.next().json["seq"] == 1
            nodes[0].kill()
            wait_for(lambda: server.get("/readyz")[0] == 503, 10, "that it is noticed")
            wait_for(lambda: server.get("/readyz")[0] == 200, 30, "another node")
            wait_for(lambda: manage(nodes[1].url, lambda js: js.account_info()), 10, "a leader")
            publish(nodes[2].url, [("token.A", b"{}")])
            message = peer.next().json
            assert (message["seq"], message["prev"]) == (2, 1)
            (first,) = server.workers()
            os.kill(first, signal.SIGKILL)
            wait_for(lambda: first not in server.workers(), 15, "another worker")
            wait_for(lambda: server.get("/readyz")[0] == 200, 15, "that it knows the others too")
