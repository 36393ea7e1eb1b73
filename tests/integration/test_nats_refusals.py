"""NATS refuses something: the server says what, wherever somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nats as nats_client
import pytest
from nats.js.api import StreamConfig

from odinws.settings import Settings
from tests.integration.conftest import Serve
from tests.integration.test_nats_outages import manage
from tests.integration.test_recovery import CHANNELS, Over, Reader, settled
from tests.ledger import STREAM, Publisher, publish
from tests.nats import NatsServer
from tests.server import ROOT, Server, free_port, wait_for
from tests.wire import Peer, command

NAMED_SECONDS = 20.0  # ten on a machine that does nothing else
ADMIN = "admin:admin"
USER = "odinws:change-me"


def documented() -> str:
    """The configuration of nats-server in the documentation, with a user who may do everything besides."""
    text = (ROOT / "docs/operations.md").read_text()
    config = text[text.index("```\nauthorization {") + 4 :].partition("```")[0]
    return config.replace("users = [", "users = [\n    { user: admin, password: admin }", 1)


PERMISSIONS = [line.split('"')[1] for line in documented().splitlines() if '"$JS.' in line] + ["_INBOX.>"]


class Guarded(NatsServer):
    """A nats-server that asks who comes; `url` is for the test, who may do everything."""

    @property
    def url(self) -> str:
        """For the test."""
        return super().url.replace("//", f"//{ADMIN}@")

    @property
    def user_url(self) -> str:
        """For the server."""
        return super().url.replace("//", f"//{USER}@")


@contextlib.contextmanager
def guarded(directory: Path, config: str, *, jetstream: bool = True) -> Iterator[Guarded]:
    """A nats-server with this configuration."""
    with Guarded(directory / "nats", config=config, jetstream=jetstream, port=free_port()) as nats:
        yield nats


def make(nats: Guarded, **config: int) -> None:
    """The stream as the settings have it, but for `config`."""
    defaults = Settings.from_environ({})
    whole = StreamConfig(
        name=STREAM,
        subjects=["odin.>"],
        allow_direct=True,
        max_age=defaults.stream_max_age_seconds,
        max_msgs=defaults.stream_max_msgs,
        max_bytes=defaults.stream_max_bytes,
    ).evolve(**config)
    manage(nats.url, lambda js: js.add_stream(whole))


def names(server: Server, subject: str) -> None:
    """Soon health, readiness, the log and the metric say what is refused."""
    began = time.monotonic()
    wait_for(lambda: subject in str(server.json("/health")["errors"]), NAMED_SECONDS, subject)
    assert time.monotonic() - began < NAMED_SECONDS
    # Another worker may answer, which was refused a moment later.
    wait_for(lambda: subject in str(server.json("/readyz")["reasons"]), NAMED_SECONDS, subject)
    assert server.get("/readyz")[0] == 503
    assert server.get("/livez")[0] == 200
    assert server.metric("ws_feed_refused_total") > 0
    workers = len(server.workers())

    def lines() -> int:
        return sum(subject in line and "feed" in line for line in server.log().splitlines())

    wait_for(lambda: lines() >= workers, NAMED_SECONDS, "a line of each worker")
    time.sleep(1)
    assert lines() == workers, "once each, however often it is tried"


def test_these_permissions_are_enough(serve: Serve, tmp_path: Path) -> None:
    """Clients come, go, resume from memory and from the stream, and replay; a restart of NATS is survived."""
    with guarded(tmp_path, documented()) as nats:
        server = serve(NATS_URL=nats.user_url, WS_RING_MESSAGES="100")
        readers = [Reader(CHANNELS[:3]) for _ in range(4)]
        with Publisher(nats.url, CHANNELS, 400):
            for visit in range(3):
                for reader in readers:
                    reader.visit(server.port, Over(0.3, threading.Event()))
                if visit == 1:
                    nats.restart()
                    wait_for(lambda: server.get("/readyz")[0] == 200, 15, "readiness")
        publish(nats.url, [(channel, b"{}") for channel in CHANNELS * 200])
        assert [settled(reader, server, nats) for reader in readers] == [[]] * 4
        assert server.json("/stats")["recovery"]["resumed"]["stream"] > 0
        with Peer(server.port) as peer:
            peer.upgrade()
            peer.send(command("replay", channel=CHANNELS[0], since=0))
            while (message := peer.next().json)["type"] != "replay_complete":
                assert message["channel"] == CHANNELS[0]
            assert message["count"] > 200
        assert server.json("/health")["status"] == "healthy"
        assert server.metric("ws_feed_refused_total") == 0


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_a_permission_is_missing(serve: Serve, tmp_path: Path, permission: str) -> None:
    """It is named, also if it is needed only later."""
    config = "\n".join(
        line.replace(f'"{permission}"', '"none"' if "subscribe" in line else "")
        for line in documented().splitlines()
    )
    with guarded(tmp_path, config) as nats:
        if "STREAM.CREATE" not in permission:
            make(nats)
        server = serve(ready=False, NATS_URL=nats.user_url)
        names(server, permission)


def test_the_feed_does_not_stop_halfway(serve: Serve, tmp_path: Path) -> None:
    """All of the API, and no answers to flow control: it shows at the start, not behind 1,891 messages."""
    may = '{ publish: "$JS.API.>", subscribe: "_INBOX.>" }'
    users = (
        f'{{ user: admin, password: admin }}, {{ user: odinws, password: "change-me", permissions: {may} }}'
    )
    with guarded(tmp_path, f"authorization {{ users = [ {users} ] }}") as nats:
        server = serve(ready=False, NATS_URL=nats.user_url)
        names(server, "$JS.FC.ODIN_TOKENS.>")


def test_a_permission_is_taken_away(serve: Serve, tmp_path: Path) -> None:
    """While the server runs: NATS starts anew with less, or reads its configuration anew and cuts nobody."""
    with guarded(tmp_path, documented()) as nats:
        server = serve(NATS_URL=nats.user_url, WS_WORKERS="1")
        path = tmp_path / "nats" / "nats-server.conf"

        def permit(text: str, apply: Callable[[], object]) -> None:
            path.write_text(text)
            apply()

        permit(documented().replace('"$JS.FC.ODIN_TOKENS.>"', ""), nats.restart)
        names(server, "$JS.FC.ODIN_TOKENS.>")
        permit(documented(), nats.restart)
        for permission in ("$JS.API.CONSUMER.DELETE.ODIN_TOKENS.>", "$JS.API.DIRECT.GET.ODIN_TOKENS"):
            wait_for(lambda: server.get("/readyz")[0] == 200, 15, "readiness")
            permit(documented().replace(f'"{permission}"', ""), lambda: nats.send_signal(signal.SIGHUP))
            names(server, permission)
            permit(documented(), lambda: nats.send_signal(signal.SIGHUP))
        wait_for(lambda: server.get("/readyz")[0] == 200, 15, "readiness")


def test_jetstream_that_comes_later(serve: Serve, tmp_path: Path) -> None:
    """An account gets it while the server runs: from then on messages are those of the stream."""
    account = "accounts {{ A {{ jetstream: {}, users: [ {{ user: admin, password: admin }} ] }} }}"
    with guarded(tmp_path, account.format("disabled")) as nats:
        server = serve(NATS_URL=nats.url, WS_WORKERS="1")
        with Peer(server.port) as peer:
            assert peer.upgrade()["epoch"].startswith("core-")
            (tmp_path / "nats" / "nats-server.conf").write_text(account.format("enabled"))
            nats.send_signal(signal.SIGHUP)
            assert peer.next(30).json["epoch"].startswith("ODIN_TOKENS-")
            peer.ask("subscribe", channels=["token.A"])
            publish(nats.url, [("token.A", b"{}")])
            assert peer.next(15).json["seq"] == 1


def test_without_jetstream(serve: Serve, tmp_path: Path) -> None:
    """A feed that may not subscribe is not up, and clients are told of no epoch with each attempt."""
    user = '{ user: odinws, password: "change-me", permissions: { subscribe: "_INBOX.>" } }'
    with guarded(tmp_path, f"authorization {{ users = [ {user} ] }}", jetstream=False) as nats:
        server = serve(ready=False, NATS_URL=nats.user_url)
        names(server, "odin.>")
        with Peer(server.port) as peer:
            assert peer.upgrade()["epoch"] == "none"
            refused = server.metric("ws_feed_refused_total")
            wait_for(lambda: server.metric("ws_feed_refused_total") > refused + 4, 30, "more attempts")
            assert peer.ask("heartbeat")["type"] == "pong", "nothing came before it"


def test_a_limit_of_the_stream(serve: Serve, tmp_path: Path) -> None:
    """It takes fewer consumers than there are workers."""
    with guarded(tmp_path, documented()) as nats:
        make(nats, max_consumers=1)
        server = serve(ready=False, NATS_URL=nats.user_url, WS_WORKERS="2")
        wait_for(lambda: "maximum consumers limit" in server.log(), NAMED_SECONDS, "the reason")
        wait_for(lambda: server.metric("ws_feed_refused_total") > 0, NAMED_SECONDS, "the metric")
        assert server.get("/readyz")[0] == 503


def test_limits_of_consumers(serve: Serve, nats: NatsServer) -> None:
    """A stream that grants consumers less: the feed asks for less."""

    async def make_it() -> None:
        client = await nats_client.connect(nats.url)
        limits = {"inactive_threshold": 2_000_000_000, "max_ack_pending": 10}
        config = {"name": STREAM, "subjects": ["odin.>"], "allow_direct": True, "consumer_limits": limits}
        answer = await client.request(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(config).encode())
        assert b"error" not in answer.data
        await client.close()

    asyncio.run(make_it())
    server = serve(NATS_URL=nats.url)
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=["token.A"])
        publish(nats.url, [("token.A", b"{}")])
        assert peer.next().json["seq"] == 1


def test_a_host_that_does_not_exist(serve: Serve) -> None:
    """A typing error is named with the host."""
    server = serve(ready=False, NATS_URL="nats://no-such-host.invalid:4222", WS_WORKERS="1")
    wait_for(
        lambda: "no-such-host.invalid" in str(server.json("/health")["errors"]), NAMED_SECONDS, "the host"
    )
    assert "no-such-host.invalid" in server.log()


def test_numbers_that_javascript_does_not_have(serve: Serve, nats: NatsServer) -> None:
    """A stream that counts above 2^53 is named when the server starts."""
    make_plain = StreamConfig(name=STREAM, subjects=["odin.>"], allow_direct=True, first_seq=(1 << 53) + 5)
    manage(nats.url, lambda js: js.add_stream(make_plain))
    server = serve(NATS_URL=nats.url, WS_WORKERS="1")
    health = server.json("/health")
    assert health["status"] == "degraded"
    assert "2^53" in str(health["warnings"])
    assert "2^53" in server.log()
