"""The Centrifugo endpoint of a real server, by frames written by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests import wire
from tests.access.material import SECRET, token
from tests.integration.conftest import Serve
from tests.integration.test_nats_outages import manage
from tests.ledger import STREAM, publish
from tests.nats import NatsServer
from tests.sdk import Sdk
from tests.server import Server, wait_for

NUMBERS = [f"token.N{n}" for n in range(20)]


@pytest.fixture(scope="module")
def server(serve_module: Serve, nats_module: NatsServer) -> Server:
    """One worker, which keeps the latest twenty messages itself."""
    return serve_module(NATS_URL=nats_module.url, WS_WORKERS="1", WS_RING_MESSAGES="20")


both = pytest.mark.parametrize("protobuf", [False, True], ids=["json", "protobuf"])


def send(nats: NatsServer, channel: str, *numbers: int) -> None:
    """Publish numbers."""
    publish(nats.url, [(channel, str(number).encode()) for number in numbers])


def numbers(sdk: Sdk, count: int, channel: str) -> list[Any]:
    """The data of the next publications, all of one subscription."""
    pushes = [sdk.push() for _ in range(count)]
    assert {push["channel"] for push in pushes} == {channel}
    return [push["pub"]["data"] for push in pushes]


# -- the plain path --------------------------------------------------------------------------------


@both
def test_connect_and_subscribe_in_one_frame(server: Server, nats_module: NatsServer, protobuf: bool) -> None:
    """As the JavaScript SDK does it; each command has its reply, and then there are publications."""
    with Sdk(server.port, protobuf=protobuf) as sdk:
        assert sdk.answer.headers.get("sec-websocket-protocol") == (
            "centrifuge-protobuf" if protobuf else None
        )
        hello, here, all_of_them = sdk.tell(
            {"connect": {"name": "js"}},
            {"subscribe": {"channel": "token.A", "flag": 1}},
            {"subscribe": {"channel": "token.*", "flag": 1}},
        )
        connected = sdk.reply(hello)["connect"]
        assert (connected["ping"], connected["pong"], "expires" in connected) == (25, True, False)
        first, second = sdk.reply(here)["subscribe"], sdk.reply(all_of_them)["subscribe"]
        assert first == second
        assert (first["recoverable"], first["positioned"], "recovered" in first) == (True, True, False)
        send(nats_module, "token.A", 1)
        pushes = sorted((sdk.push() for _ in range(2)), key=lambda push: str(push["channel"]))
        offset = pushes[0]["pub"]["offset"]
        assert offset > first["offset"]
        by = {"data": 1, "offset": offset, "tags": {"channel": "token.A"}}
        assert pushes == [
            {"channel": "token.*", "pub": by},
            {"channel": "token.A", "pub": {"data": 1, "offset": offset}},
        ]
        assert sdk.ask("unsubscribe", channel="token.*") == {}
        assert sdk.ask("unsubscribe", channel="token.*") == {}
        send(nats_module, "token.A", 2)
        assert numbers(sdk, 1, "token.A") == [2]


def test_subscribing_is_refused_by_name(server: Server) -> None:
    """The connection stays; each code makes an SDK do the right thing."""
    with Sdk(server.port) as sdk:
        sdk.connect()
        assert "error" not in sdk.subscribe("global")
        codes = {
            "global": 105,
            "user.42": 103,
            "nowhere": 102,
            "server.stats": 102,
        }
        assert {channel: sdk.subscribe(channel)["error"]["code"] for channel in codes} == codes
        assert sdk.ask("rpc")["error"]["code"] == 108
        sdk.ask("unsubscribe", channel="global")
        assert "error" not in sdk.subscribe("global")


def test_the_same_channel_twice_in_a_frame(server: Server) -> None:
    """The second is refused; after an unsubscribe in between it is not."""
    subscribe: dict[str, Any] = {"subscribe": {"channel": "global"}}
    leave: dict[str, Any] = {"unsubscribe": {"channel": "global"}}
    with Sdk(server.port) as sdk:
        sdk.connect()
        replies = [sdk.reply(tag) for tag in sdk.tell(subscribe, subscribe, leave, subscribe)]
        assert [next(iter(reply)) for reply in replies] == ["subscribe", "error", "unsubscribe", "subscribe"]
        assert replies[1]["error"]["code"] == 105


def test_a_thousand_subscriptions_at_once(server: Server) -> None:
    """In one frame, longer than other endpoints take; one more is too many."""
    channels = [f"token.{'x' * 40}{n}" for n in range(1001)]
    position = {"recover": True, "epoch": "ODIN_TOKENS-1a232028e26", "offset": 123456789, "flag": 1}
    with Sdk(server.port) as sdk:
        tags = sdk.tell({"connect": {}}, *({"subscribe": {"channel": c, **position}} for c in channels))
        replies = [sdk.reply(tag) for tag in tags]
        assert {reply["subscribe"]["recovered"] for reply in replies[1:-1]} == {False}
        assert replies[-1]["error"]["code"] == 106


def test_pings_come_at_fixed_times_under_traffic(serve: Serve) -> None:
    """Most SDKs reconnect without a ping, whatever else comes; a client that says nothing is let go."""
    server = serve(WS_HEARTBEAT_SECONDS="0.5", WS_IDLE_SECONDS="4", WS_WORKERS="1", WS_DEMO_FEED="true")
    with Sdk(server.port) as sdk:
        assert sdk.connect()["ping"] == 1
        sdk.subscribe("token.*")
        began = time.monotonic()
        while sdk.pings < 6:
            sdk.push()
        assert time.monotonic() - began > 2.0
        assert sdk.closed() == 3012


def test_connect_comes_first_and_once(server: Server) -> None:
    """Anything else ends the connection for good, as does what nobody can read."""
    with Sdk(server.port) as sdk:
        sdk.tell({"subscribe": {"channel": "global"}})
        assert sdk.closed() == 3501
    for frame in (
        wire.frame(wire.TEXT, b"x"),
        wire.frame(wire.BINARY, b"\x00"),
        wire.frame(wire.TEXT, b"\xff"),
    ):
        with Sdk(server.port) as sdk:
            sdk.connect()
            sdk.peer.send(frame)
            assert sdk.closed() == 3501
    with Sdk(server.port) as sdk:
        sdk.connect()
        sdk.tell({"connect": {}})
        assert sdk.closed() == 3501


def test_how_the_format_is_chosen(server: Server) -> None:
    """Older SDKs send the header without a value: that is none."""
    with Sdk(server.port, Sec_WebSocket_Protocol="") as sdk:
        assert "sec-websocket-protocol" not in sdk.answer.headers
        assert sdk.connect()["pong"] is True
    with Sdk(server.port, protobuf=True, query="?format=protobuf", Sec_WebSocket_Protocol=None) as sdk:
        assert "sec-websocket-protocol" not in sdk.answer.headers
        assert sdk.connect()["pong"] is True
    with Sdk(server.port, Sec_WebSocket_Protocol="centrifuge-json") as sdk:
        assert sdk.answer.headers["sec-websocket-protocol"] == "centrifuge-json"
        assert sdk.connect()["pong"] is True


def test_bad_commands_add_up(server: Server) -> None:
    """At a hundred the connection ends for good."""
    with Sdk(server.port) as sdk:
        sdk.connect()
        sdk.tell(*[{"rpc": {}}] * 100)
        assert sdk.closed() == 3509


def test_a_drain_brings_sdks_back(serve: Serve) -> None:
    """With the code to which they return, spread over time."""
    server = serve(WS_WORKERS="1")
    with Sdk(server.port) as sdk:
        sdk.connect()
        server.signal(15)
        assert sdk.closed() in (3001, 3011)


# -- recovery --------------------------------------------------------------------------------------


@both
def test_recovery_from_ring_and_stream(server: Server, nats_module: NatsServer, protobuf: bool) -> None:
    """Answered at once, with the client's own position; what was missed follows, then what is new."""
    with Sdk(server.port, protobuf=protobuf) as sdk:
        sdk.connect()
        answer = sdk.subscribe("token.R")
        position = (answer["epoch"], answer["offset"])
        send(nats_module, "token.R", *range(100))
        sdk.offsets(95)
        late = (answer["epoch"], sdk.offsets(1)[0])
        sdk.offsets(4)
    for since, count in ((position, 100), (late, 4), (("", position[1]), 100)):
        with Sdk(server.port, protobuf=protobuf) as sdk:
            sdk.connect()
            answer = sdk.subscribe("token.R", since)
            assert (answer["was_recovering"], answer["recovered"]) == (True, True)
            assert answer["offset"] == since[1]
            assert "publications" not in answer
            assert numbers(sdk, count, "token.R") == list(range(100))[-count:]
            send(nats_module, "token.R", 100)
            assert numbers(sdk, 1, "token.R") == [100]
            send(nats_module, "token.Other", 1)


def test_a_payload_that_is_no_json(server: Server, nats_module: NatsServer) -> None:
    """Protobuf carries it; in JSON it is a publication without data, in its place."""
    with Sdk(server.port) as sdk, Sdk(server.port, protobuf=True) as other:
        for each in (sdk, other):
            each.connect()
            each.subscribe("token.Bad")
        publish(nats_module.url, [("token.Bad", payload) for payload in (b"1", b"{", b"[\n2\r\n]")])
        first, none, last = (sdk.push()["pub"] for _ in range(3))
        assert (first["data"], none["data"], last["data"]) == (1, None, [2])
        assert none["tags"] == {"error": "invalid_payload"}
        assert first["offset"] < none["offset"] < last["offset"]
        other.peer.send(b"")
        pushes = [other.peer.next().payload for _ in range(3)]
        assert b'"\x01{0' in pushes[1]
        assert b"[\n2\r\n]" in pushes[2]


def test_a_position_that_is_none(server: Server, nats_module: NatsServer) -> None:
    """Of another epoch, or beyond the end: not recovered, and live from the stream's end on."""
    send(nats_module, "token.P", 1)
    with Sdk(server.port) as sdk:
        sdk.connect()
        epoch = sdk.subscribe("global")["epoch"]
        before = server.metric("ws_gaps_total")
        for since in (("other", 1), (epoch, 1 << 40)):
            answer = sdk.subscribe("token.P", since)
            assert (answer["was_recovering"], answer["recovered"]) == (True, False)
            assert answer["offset"] < 1 << 40
            send(nats_module, "token.P", 2)
            assert numbers(sdk, 1, "token.P") == [2]
            sdk.ask("unsubscribe", channel="token.P")
        assert sdk.subscribe("token.P", ("other", 1), flag=3)["error"]["code"] == 112
        wait_for(lambda: server.metric("ws_gaps_total") == before + 2, 5, "gaps that are counted")


def test_channels_are_recovered_together(server: Server, nats_module: NatsServer) -> None:
    """All are answered before what was missed, and each gets its own."""
    with Sdk(server.port) as sdk:
        sdk.connect()
        start = sdk.subscribe("global")
    publish(nats_module.url, [(channel, str(n).encode()) for n in range(30) for channel in NUMBERS])
    since = {"recover": True, "epoch": start["epoch"], "offset": start["offset"], "flag": 1}
    with Sdk(server.port) as sdk:
        tags = sdk.tell({"connect": {}}, *({"subscribe": {"channel": c, **since}} for c in NUMBERS))
        replies = [sdk.reply(tag) for tag in tags]
        assert {reply["subscribe"]["recovered"] for reply in replies[1:]} == {True}
        found: dict[str, list[Any]] = {channel: [] for channel in NUMBERS}
        for _ in range(30 * len(NUMBERS)):
            push = sdk.push()
            found[push["channel"]].append(push["pub"]["data"])
        assert found == {channel: list(range(30)) for channel in NUMBERS}


def test_the_newest_message(server: Server, nats_module: NatsServer) -> None:
    """For who wants no more of what it missed: with the answer, unless the client has it."""
    send(nats_module, "token.L", 1, 2, 3)
    with Sdk(server.port) as sdk:
        sdk.connect()
        answer = sdk.subscribe("token.L", data={"last": True})
        (newest,) = answer["publications"]
        assert (newest["data"], newest["offset"], "recovered" in answer) == (3, answer["offset"], False)
        send(nats_module, "token.L", 4)
        assert numbers(sdk, 1, "token.L") == [4]
        position = (answer["epoch"], answer["offset"] + 1)
        sdk.ask("unsubscribe", channel="token.L")
        again = sdk.subscribe("token.L", position, data={"last": True})
        assert (again["recovered"], again.get("publications")) == (True, None)
        sdk.ask("unsubscribe", channel="token.L")
        (newest,) = sdk.subscribe("token.L", ("", 0), data={"last": True})["publications"]
        assert newest["data"] == 4
        assert "publications" not in sdk.subscribe("token.Silent", data={"last": True})


# -- history ---------------------------------------------------------------------------------------


def test_history(server: Server, nats_module: NatsServer) -> None:
    """Position, pages forward, the newest message; and what there is not."""
    send(nats_module, "token.H", *range(400))
    with Sdk(server.port) as sdk:
        sdk.connect()
        top = sdk.ask("history", channel="token.H")
        assert top["publications"] == []
        found: list[Any] = []
        since = None
        while page := sdk.ask("history", channel="token.H", limit=-1, since=since)["publications"]:
            assert len(page) <= 300
            found += [publication["data"] for publication in page]
            since = {"epoch": top["epoch"], "offset": page[-1]["offset"]}
        assert found == list(range(400))
        newest = sdk.ask("history", channel="token.H", limit=1, reverse=True)["publications"]
        assert [publication["data"] for publication in newest] == [399]
        assert sdk.ask("history", channel="token.H", limit=2, reverse=True)["error"]["code"] == 108
        assert sdk.ask("history", channel="user.1", limit=2)["error"]["code"] == 103
        foreign = {"epoch": "other", "offset": 1}
        assert sdk.ask("history", channel="token.H", limit=1, since=foreign)["error"]["code"] == 112


# -- what is missing -------------------------------------------------------------------------------


def purge(nats: NatsServer, keep: int) -> None:
    """Leave the stream only its newest messages."""
    manage(nats.url, lambda js: js.purge_stream(STREAM, keep=keep))


def test_a_stream_too_small_is_told(server: Server, nats_module: NatsServer) -> None:
    """What is gone is not recovered, and counted as a gap; a quiet channel has missed nothing."""
    with Sdk(server.port) as sdk:
        sdk.connect()
        quiet = sdk.subscribe("token.Quiet")
        loud = sdk.subscribe("token.Loud")
        send(nats_module, "token.Loud", *range(60))
        assert numbers(sdk, 60, "token.Loud") == list(range(60))
    purge(nats_module, 5)
    before = server.metric("ws_gaps_total")
    with Sdk(server.port) as sdk:
        sdk.connect()
        answer = sdk.subscribe("token.Loud", (loud["epoch"], loud["offset"]))
        assert (answer["was_recovering"], answer["recovered"]) == (True, False)
        assert sdk.subscribe("token.Quiet", (quiet["epoch"], quiet["offset"]))["recovered"] is True
        assert (
            sdk.ask(
                "history",
                channel="token.Loud",
                limit=9,
                since={"epoch": loud["epoch"], "offset": loud["offset"]},
            )["error"]["code"]
            == 112
        )
        send(nats_module, "token.Loud", 60)
        assert numbers(sdk, 1, "token.Loud") == [60]
    wait_for(lambda: server.metric("ws_gaps_total") == before + 1, 5, "the gap that is counted")


@pytest.mark.parametrize("flag", [1, 0], ids=["compaction", "old"])
def test_a_new_stream_ends_subscriptions(serve: Serve, tmp_path: Path, flag: int) -> None:
    """At once: nothing of the new epoch comes at a position of the old; then the client begins anew."""
    with NatsServer(tmp_path / "nats") as nats:
        server = serve(NATS_URL=nats.url, WS_WORKERS="1")
        with Sdk(server.port) as sdk:
            sdk.connect()
            answer = sdk.subscribe("token.A", flag=flag)
            manage(nats.url, lambda js: js.delete_stream(STREAM))
            if flag:
                push = sdk.push()
                assert push == {
                    "channel": "token.A",
                    "unsubscribe": {"code": 2500, "reason": "insufficient state"},
                }
                again = sdk.subscribe("token.A", (answer["epoch"], answer["offset"]))
                assert (again["recovered"], again["epoch"] != answer["epoch"]) == (False, True)
                send(nats, "token.A", 1)
                assert numbers(sdk, 1, "token.A") == [1]
            else:
                assert sdk.closed() == 3010


@pytest.mark.parametrize("policy", ["disconnect", "conflate", "drop-oldest"])
def test_slow_clients(serve: Serve, nats: NatsServer, policy: str) -> None:
    """Closed, and they come back; or unsubscribed, and they get the rest once they have read so far."""
    server = serve(
        NATS_URL=nats.url,
        WS_WORKERS="1",
        WS_SLOW_POLICY=policy,
        WS_SEND_BUFFER_BYTES="4096",
    )
    with Sdk(server.port, receive_buffer_bytes=4096) as sdk:
        sdk.connect()
        answer = sdk.subscribe("token.S")
        payload = json.dumps("x" * 2000).encode()
        publish(nats.url, [("token.S", payload)] * 1000)
        dropped = "ws_messages_undelivered_total" if policy == "disconnect" else "ws_messages_shed_total"
        wait_for(lambda: server.metric(dropped), 30, "a slow client")
        if policy == "disconnect":
            assert sdk.closed() == 3008
            return
        offsets = [answer["offset"]]
        for _ in range(20):  # it may be too slow again and again
            while len(offsets) <= 1000 and "pub" in (push := sdk.push()):
                offsets.append(push["pub"]["offset"])
            if len(offsets) > 1000:
                break
            assert push["unsubscribe"]["code"] == 2500
            assert sdk.subscribe("token.S", (answer["epoch"], offsets[-1]))["recovered"] is True
        assert offsets == list(range(answer["offset"], answer["offset"] + 1001))


# -- tokens ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(serve_module: Serve, nats_module: NatsServer) -> Server:
    """Asks for tokens."""
    return serve_module(
        NATS_URL=nats_module.url,
        WS_WORKERS="1",
        WS_JWT_SECRET=SECRET,
        WS_JWT_LEEWAY_SECONDS="0",
        WS_MAX_PER_SUBJECT="2",
    )


def fresh(seconds: float = 60.0, **claims: Any) -> str:
    """A token that lives this long."""
    return token(exp=time.time() + seconds, **claims)


def test_tokens_come_with_connect(guarded: Server) -> None:
    """Or with the request; a bad one ends the client, an expired one makes it fetch another."""
    with Sdk(guarded.port) as sdk:
        answer = sdk.connect(token=fresh(sub="42"))
        assert (answer["expires"], 50 <= answer["ttl"] <= 60) == (True, True)
        assert "error" not in sdk.subscribe("user.42")
        assert sdk.subscribe("user.43")["error"]["code"] == 103
        refreshed = sdk.ask("refresh", token=fresh(600, sub="42"))
        assert (refreshed["client"], refreshed["ttl"] > 500) == (answer["client"], True)
        assert sdk.ask("refresh", token=fresh(-1, sub="42"))["error"]["code"] == 109
        sdk.tell({"refresh": {"token": fresh(sub="43")}})
        assert sdk.closed() == 3500
    with Sdk(guarded.port, Authorization=f"Bearer {fresh(sub='44')}") as sdk:
        sdk.connect()
        assert "error" not in sdk.subscribe("user.44")
    for bad in ("", "x", fresh(sub="1")[:-4] + "AAAA"):
        with Sdk(guarded.port) as sdk:
            sdk.tell({"connect": {"token": bad}})
            assert sdk.closed() == 3500
    with Sdk(guarded.port) as sdk:
        assert sdk.connect(token=fresh(-1, sub="42"))["error"]["code"] == 109


def test_what_a_new_token_does_not_allow(guarded: Server, nats_module: NatsServer) -> None:
    """Ends, for good; the rest goes on."""
    with Sdk(guarded.port) as sdk:
        sdk.connect(token=fresh(sub="45"))
        for channel in ("user.45", "token.T"):
            sdk.subscribe(channel)
        sdk.ask("refresh", token=fresh(sub="45", channels=["token.T"]))
        push = sdk.push()
        assert (push["channel"], push["unsubscribe"]["code"]) == ("user.45", 2000)
        send(nats_module, "user.45", 1)
        send(nats_module, "token.T", 2)
        assert numbers(sdk, 1, "token.T") == [2]


def test_a_subject_has_its_connections(guarded: Server) -> None:
    """Too many are told to come back."""
    with Sdk(guarded.port) as one, Sdk(guarded.port) as two, Sdk(guarded.port) as three:
        for each in (one, two):
            each.connect(token=fresh(sub="46"))
        three.tell({"connect": {"token": fresh(sub="46")}})
        assert three.closed() == 3013


def test_channels_with_tokens_of_their_own(guarded: Server, nats_module: NatsServer) -> None:
    """A token of a channel allows it to its subject; another one prolongs it."""
    with Sdk(guarded.port) as sdk:
        sdk.connect(token=fresh(sub="47"))
        for bad, code in (("x", 103), (fresh(-1, sub="47", channel="user.1"), 109)):
            assert sdk.subscribe("user.1", token=bad)["error"]["code"] == code
        answer = sdk.subscribe("user.1", token=fresh(sub="47", channel="user.1"))
        assert (answer["expires"], answer["ttl"] > 50) == (True, True)
        send(nats_module, "user.1", 7)
        assert numbers(sdk, 1, "user.1") == [7]
        assert sdk.ask("history", channel="user.1")["epoch"] == answer["epoch"]
        longer = sdk.ask("sub_refresh", channel="user.1", token=fresh(600, sub="47", channel="user.1"))
        assert longer["ttl"] > 500
        assert sdk.ask("sub_refresh", channel="token.X", token="x")["error"]["code"] == 103  # noqa: S106
        sdk.tell({"sub_refresh": {"channel": "user.1", "token": fresh(sub="48", channel="user.1")}})
        assert sdk.closed() == 3500


@both
def test_server_side_subscriptions(guarded: Server, nats_module: NatsServer, protobuf: bool) -> None:
    """From the token; their positions come back with `connect`."""
    mine = fresh(sub="49", subs={"user.1": {}, "token.Mine": {}})
    with Sdk(guarded.port, protobuf=protobuf) as sdk:
        subs = sdk.connect(token=mine)["subs"]
        assert set(subs) == {"user.1", "token.Mine"}
        assert sdk.subscribe("user.1")["error"]["code"] == 105
        send(nats_module, "user.1", 1)
        assert numbers(sdk, 1, "user.1") == [1]
    send(nats_module, "token.Mine", 2, 3)
    known = {name: {"recover": True, "epoch": s["epoch"], "offset": s["offset"]} for name, s in subs.items()}
    with Sdk(guarded.port, protobuf=protobuf) as sdk:
        subs = sdk.connect(token=mine, subs={**known, "token.Other": {}})["subs"]
        assert {name: sub["recovered"] for name, sub in subs.items()} == {"user.1": True, "token.Mine": True}
        pushes = sorted((push["channel"], push["pub"]["data"]) for push in (sdk.push() for _ in range(3)))
        assert pushes == [("token.Mine", 2), ("token.Mine", 3), ("user.1", 1)]


# -- what is kept ----------------------------------------------------------------------------------


def test_channels_of_which_less_is_kept(serve: Serve, nats: NatsServer, tmp_path: Path) -> None:
    """The newest message is all that a client gets of what it missed; or nothing, and it is told."""
    rules = tmp_path / "channels.toml"
    rules.write_text(
        '[[channels]]\npattern = "cache.*"\nsubscribe = "public"\nkeep = "newest"\n'
        '[[channels]]\npattern = "live.*"\nsubscribe = "public"\nkeep = "none"\n'
    )
    server = serve(NATS_URL=nats.url, WS_WORKERS="1", WS_CHANNELS_FILE=str(rules))
    with Sdk(server.port) as sdk:
        sdk.connect()
        start = {channel: sdk.subscribe(channel) for channel in ("cache.A", "live.A")}
        for channel in start:
            send(nats, channel, 1, 2, 3)
        assert sorted(sdk.push()["pub"]["data"] for _ in range(6)) == [1, 1, 2, 2, 3, 3]
    with Sdk(server.port) as sdk:
        sdk.connect()
        since = {channel: (answer["epoch"], answer["offset"]) for channel, answer in start.items()}
        cached = sdk.subscribe("cache.A", since["cache.A"])
        assert cached["recovered"] is True
        assert [publication["data"] for publication in cached["publications"]] == [3]
        live = sdk.subscribe("live.A", since["live.A"])
        assert (live["recovered"], live.get("publications")) == (False, None)
        for channel in start:
            send(nats, channel, 4)
        assert [sdk.push()["pub"]["data"] for _ in range(2)] == [4, 4]
        assert sdk.ask("history", channel="cache.A", limit=1)["error"]["code"] == 108
        newest = sdk.ask("history", channel="cache.A", limit=1, reverse=True)["publications"]
        assert [publication["data"] for publication in newest] == [4]
        assert sdk.ask("history", channel="live.A", limit=1, reverse=True)["error"]["code"] == 108
