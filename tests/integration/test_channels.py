"""Channels by configuration: the platform's file with its clients, wildcards, claims, and a reload."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nats
import pytest

import strategies
from tests.access.material import SECRET, token
from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, ROOT, Server, wait_for
from tests.wire import Peer, request

ODIN = ROOT / "conf" / "channels-odin.toml"
DEFAULT_CHANNELS = ["BTC.trade", "ETH.trade", "SOL.trade", "ODIN.trade", "DOGE.trade"]


def publish(url: str, subjects: Sequence[str], payload: bytes = b'{"n":1}') -> list[int]:
    """Publish to a stream, one after the other; their sequences."""

    async def run() -> list[int]:
        client = await nats.connect(url)
        try:
            js = client.jetstream()
            return [(await js.publish(subject, payload)).seq for subject in subjects]
        finally:
            await client.close()

    return asyncio.run(run())


def told(peer: Peer, count: int) -> list[Any]:
    """The next messages and gaps."""
    found: list[Any] = []
    while len(found) < count:
        message = peer.next(PATIENCE_SECONDS).json
        if "seq" in message or message["type"] == "gap":
            found.append(message)
    return found


def messages(peer: Peer, count: int) -> list[tuple[str, int]]:
    """Channel and sequence of the next messages; there is no gap."""
    return [(message["channel"], message["seq"]) for message in told(peer, count)]


@pytest.mark.parametrize("strategy", strategies.NAMES)
def test_the_platform_s_clients_get_their_messages(nats: NatsServer, serve: Serve, strategy: str) -> None:
    """As its load tester subscribes by default; wildcards too, and who comes back misses nothing."""
    server = serve(
        NATS_URL=nats.url, WS_CHANNELS_FILE=str(ODIN), WS_SHARD_STRATEGY=strategy, WS_RING_MESSAGES="4"
    )
    subjects = [f"odin.token.{name}" for name in DEFAULT_CHANNELS]
    with Peer(server.port) as plain, Peer(server.port) as wild, Peer(server.port) as both:
        for peer in (plain, wild, both):
            assert peer.upgrade()["limits"]["max_channel_bytes"] == 255
        ack = plain.ask("subscribe", channels=DEFAULT_CHANNELS)
        assert (ack["subscribed"], ack["rejected"]) == (DEFAULT_CHANNELS, [])
        assert wild.ask("subscribe", channels=["*.trade", "token.*"])["count"] == 2
        assert both.ask("subscribe", channels=["*.trade", "BTC.trade", "*.liquidity"])["count"] == 3
        seqs = publish(
            nats.url, [*subjects, "odin.token.BTC", "odin.token.ETH.liquidity", "odin.token.X.other"]
        )
        trades = list(zip(DEFAULT_CHANNELS, seqs, strict=False))
        assert messages(plain, 5) == trades
        assert messages(wild, 6) == [*trades, ("token.BTC", seqs[5])]
        assert messages(both, 6) == [*trades, ("ETH.liquidity", seqs[6])]
    missed = publish(nats.url, subjects + subjects)
    with Peer(server.port) as back:
        back.upgrade()
        names = ["*.trade", "BTC.trade", "*.liquidity"]
        back.ask("subscribe", channels=names, since=dict.fromkeys(names, seqs[6]))
        assert messages(back, 10) == list(zip(DEFAULT_CHANNELS * 2, missed, strict=True))
        [live] = publish(nats.url, ["odin.token.BTC.trade"])
        assert messages(back, 1) == [("BTC.trade", live)]
    with Peer(server.port) as peer:
        peer.upgrade()
        rejected = peer.ask("subscribe", channels=["BTC.other", ">", "user.*", "user.7", "*.*"])["rejected"]
        assert [one["code"] for one in rejected] == [
            "INVALID_CHANNEL",
            "INVALID_CHANNEL",
            "FORBIDDEN",
            "FORBIDDEN",
            "INVALID_CHANNEL",
        ]
        answer = peer.ask("replay", channel="*.trade", since=missed[4])
        assert (answer["type"], answer["count"]) == ("replay_complete", 6)


def rule(pattern: str, **keys: str) -> str:
    """A rule as TOML."""
    given = {"pattern": pattern, **keys}
    return "\n".join(["[[channels]]", *(f"{key} = {json.dumps(text)}" for key, text in given.items()), ""])


def test_claims_have_the_same_patterns(nats: NatsServer, serve: Serve, tmp_path: Path) -> None:
    """Own channels of any form, channels by claim only, and more characters."""
    file = tmp_path / "channels.toml"
    file.write_text(
        'characters = ":"\n'
        + rule("orders.>")
        + rule("account.*.>", subscribe="own")
        + rule("news", subscribe="public")
    )
    server = serve(NATS_URL=nats.url, WS_CHANNELS_FILE=str(file), WS_JWT_SECRET=SECRET)

    def subscribed(*channels: str, **claims: Any) -> list[str]:
        with Peer(server.port) as peer:
            text = token(exp=time.time() + 60, **claims)
            assert peer.send(request(Authorization=f"Bearer {text}")).http().status == 101
            assert peer.next().json["type"] == "welcome"
            return list(peer.ask("subscribe", channels=list(channels))["subscribed"])

    asked = (
        "orders.eu.1",
        "orders.eu.>",
        "orders.>",
        "account.a:1.x",
        "account.a:1.>",
        "account.b.x",
        "news",
    )
    assert subscribed(*asked, sub="a:1") == ["account.a:1.x", "account.a:1.>", "news"]
    assert subscribed(*asked, sub="a:1", channels=["orders.eu.>", "gone.*"]) == ["orders.eu.1", "orders.eu.>"]
    assert subscribed(*asked, sub="b", channels=["account.*.>"]) == list(asked[3:6])


def test_a_reload_takes_the_file_or_changes_nothing(nats: NatsServer, serve: Serve, tmp_path: Path) -> None:
    """Who loses a channel by it is told when it resumes; what it keeps goes on without a gap."""
    file = tmp_path / "channels.toml"
    before = (
        rule("a.*", subscribe="public") + rule("b.*", subscribe="public") + rule("c.*", subscribe="public")
    )
    file.write_text(before)
    server = serve(NATS_URL=nats.url, WS_CHANNELS_FILE=str(file))
    names = ["a.1", "b.1", "c.1"]
    with Peer(server.port) as peer:
        peer.upgrade()
        assert peer.ask("subscribe", channels=names)["subscribed"] == names
        workers = set(server.workers())

        file.write_text(before + rule("b.x") + rule("d", subscribe="nobody"))
        server.signal(signal.SIGHUP)
        refusal = f"WS_CHANNELS_FILE={str(file)!r} is not valid: 'd' (number 5): subscribe is 'nobody'"
        wait_for(lambda: _warned(server, refusal), PATIENCE_SECONDS, "a refused reload")
        assert set(server.workers()) == workers
        # A worker that ends meanwhile is replaced by one that has the file as it was.
        os.kill(next(iter(workers)), signal.SIGKILL)
        wait_for(lambda: len(set(server.workers()) - workers) == 1, PATIENCE_SECONDS, "a new worker")
        seqs = publish(nats.url, ["odin.a.1", "odin.b.1", "odin.c.1"])

        file.write_text(rule("a.*", subscribe="public") + rule("b.*"))
        workers = set(server.workers())
        server.signal(signal.SIGHUP)
        wait_for(lambda: not workers & set(server.workers()), PATIENCE_SECONDS, "new workers")
        wait_for(lambda: not _warned(server, "reload refused"), PATIENCE_SECONDS, "no warning")
    more = publish(nats.url, ["odin.a.1", "odin.c.1"])
    with Peer(server.port) as peer:
        peer.upgrade()
        since = dict.fromkeys(names, seqs[0] - 1)
        ack = peer.ask("subscribe", channels=names, since=since)
        assert ack["subscribed"] == ["a.1"]
        assert [(one["channel"], one["code"]) for one in ack["rejected"]] == [
            ("b.1", "FORBIDDEN"),
            ("c.1", "INVALID_CHANNEL"),
        ]
        assert messages(peer, 2) == [("a.1", seqs[0]), ("a.1", more[0])]


def _warned(server: Server, text: str) -> bool:
    return any(text in warning for warning in server.json("/health")["warnings"])


def test_a_file_with_a_mistake_stops_the_start(serve: Serve, tmp_path: Path) -> None:
    """One line, which says how many more there are."""
    file = tmp_path / "channels.toml"
    file.write_text(rule("a..b") + rule("c", keep="much"))
    with pytest.raises(AssertionError) as caught:
        serve(ready=False, WS_CHANNELS_FILE=str(file))
    lines = [line for line in str(caught.value).splitlines() if line.startswith("odinws: ")]
    name = f"odinws: WS_CHANNELS_FILE={str(file)!r}"
    assert lines[0].startswith(f"{name} is not valid: 'a..b' (number 1): pattern is")
    assert lines[0].endswith("; and 1 more, see odinws check")


def test_what_is_kept(nats: NatsServer, serve: Serve, tmp_path: Path) -> None:
    """Of what was missed: all, the newest message alone, or none; a gap names the rest."""
    file = tmp_path / "channels.toml"
    file.write_text(
        "".join(rule(f"{keep}.*", subscribe="public", keep=keep) for keep in ("all", "newest", "none"))
    )
    server = serve(NATS_URL=nats.url, WS_CHANNELS_FILE=str(file), WS_RING_MESSAGES="3", WS_WORKERS="1")
    names = ["all.x", "newest.x", "none.x"]
    seqs = publish(nats.url, [f"odin.{name}" for name in names * 4])
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.ask("subscribe", channels=[*names, "none.*"], since=dict.fromkeys([*names, "none.*"], seqs[2]))
        got = told(peer, 7)
        by_name = {
            name: [(m["type"], m.get("seq"), m.get("from"), m.get("to")) for m in got if m["channel"] == name]
            for name in (*names, "none.*")
        }
        assert by_name["all.x"] == [("message", seq, None, None) for seq in seqs[3::3]]
        assert by_name["newest.x"] == [
            ("gap", None, seqs[2] + 1, seqs[10] - 1),
            ("message", seqs[10], None, None),
        ]
        assert [one[0] for one in by_name["none.x"]] == [one[0] for one in by_name["none.*"]] == ["gap"]
        assert {m["reason"] for m in got if m["type"] == "gap"} == {"not_kept"}
        live = publish(nats.url, [f"odin.{name}" for name in names])
        assert messages(peer, 3) == list(zip(names, live, strict=True))
        for name in ("newest.x", "none.x", "none.*"):
            assert peer.ask("replay", channel=name, since=0)["code"] == "NOT_KEPT"
    with Peer(server.port) as peer:
        peer.upgrade()
        peer.send(b"")
        assert peer.ask("subscribe", channels=names, last=True)["count"] == 3
        assert sorted(messages(peer, 2)) == sorted(list(zip(names, live, strict=True))[:2])
