"""A cluster of nats-servers: the server is told one of them, which may be one without JetStream."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import nats.errors

from tests.integration.conftest import Serve
from tests.integration.test_nats_outages import manage
from tests.ledger import publish
from tests.nats import NatsServer
from tests.server import free_port, wait_for
from tests.wire import Peer


@contextlib.contextmanager
def cluster(directory: Path, with_jetstream: Sequence[bool]) -> Iterator[list[NatsServer]]:
    """A cluster of as many nodes, with a leader of those that have JetStream."""
    routes = [free_port() for _ in with_jetstream]
    known = [port for port, one in zip(routes, with_jetstream, strict=True) if one]
    others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in known)
    with contextlib.ExitStack() as stack:
        nodes = [
            NatsServer(
                directory / f"n{index}",
                port=free_port(),
                jetstream=with_jetstream[index],
                config=f"server_name: n{index}\n"
                f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{others}] }}\n',
            )
            for index, port in enumerate(routes)
        ]
        for node in nodes:
            stack.enter_context(node)
        wait_for(lambda: is_led(nodes[-1]), 30, "a leader")
        yield nodes


def is_led(node: NatsServer) -> bool:
    """Whether JetStream answers."""
    with contextlib.suppress(nats.errors.Error):
        return bool(manage(node.url, lambda js: js.account_info()))
    return False


def test_a_cluster_known_by_one_url(serve: Serve, tmp_path: Path) -> None:
    """The others are away for a while; then the one that was named is gone: clients miss nothing."""
    with cluster(tmp_path, [True] * 3) as nodes:
        server = serve(NATS_URL=nodes[0].url, JS_STREAM_REPLICAS="3", WS_WORKERS="1")
        with Peer(server.port) as peer:
            peer.upgrade()
            peer.ask("subscribe", channels=["token.A"])
            publish(nodes[1].url, [("token.A", b"{}")])
            assert peer.next().json["seq"] == 1
            for node in nodes[1:]:
                node.kill()
            silent = (
                "nobody answers $JS.API."  # of the stream, or of the consumer that is due if its was there
            )
            wait_for(lambda: silent in str(server.json("/health")), 20, "that the stream has no leader")
            for node in nodes[1:]:
                node.start()
            wait_for(lambda: silent not in str(server.json("/health")), 60, "a leader")
            nodes[0].kill()
            wait_for(lambda: server.get("/readyz")[0] == 503, 10, "that it is noticed")
            wait_for(lambda: server.get("/readyz")[0] == 200, 30, "another node")
            wait_for(lambda: is_led(nodes[1]), 10, "a leader")
            publish(nodes[2].url, [("token.A", b"{}")])
            message = peer.next().json
            assert (message["seq"], message["prev"]) == (2, 1)
            (first,) = server.workers()
            os.kill(first, signal.SIGKILL)
            wait_for(lambda: first not in server.workers(), 15, "another worker")
            wait_for(lambda: server.get("/readyz")[0] == 200, 15, "that it knows the others too")


def test_a_node_without_jetstream(serve: Serve, tmp_path: Path) -> None:
    """It leads to the others. While they are away, messages are not counted in another way."""
    with cluster(tmp_path, [True, True, True, False]) as nodes:
        server = serve(NATS_URL=nodes[3].url, JS_STREAM_REPLICAS="3", WS_WORKERS="1")
        with Peer(server.port) as peer:
            epoch = peer.upgrade()["epoch"]
            assert epoch.startswith("ODIN_TOKENS-")
            peer.ask("subscribe", channels=["token.A"])
            publish(nodes[3].url, [("token.A", b"{}")])
            assert peer.next(15).json["seq"] == 1
            for node in nodes[:3]:
                node.kill()
            wait_for(
                lambda: "nobody answers $JS.API" in str(server.json("/readyz")["reasons"]), 30, "the reason"
            )
            for node in nodes[:3]:
                node.start()
            wait_for(lambda: server.get("/readyz")[0] == 200, 60, "readiness")
            publish(nodes[3].url, [("token.A", b"{}")])
            message = peer.next(15).json
            assert (message["seq"], message["prev"]) == (2, 1)
        with Peer(server.port) as peer:
            assert peer.upgrade()["epoch"] == epoch
