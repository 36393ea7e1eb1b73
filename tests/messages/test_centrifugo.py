"""`odinws.messages.centrifugo`: what SDKs say, and what they are told, in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.close_codes import CENTRIFUGO, CloseReason
from odinws.errors import CommandError, FrameError
from odinws.messages.centrifugo import ERRORS, CentrifugoJson, embedded
from odinws.messages.json_format import JsonFormat
from odinws.messages.protocol import (
    Authenticate,
    AuthenticateChannel,
    Connect,
    Connected,
    Error,
    Heartbeat,
    Join,
    Joined,
    Left,
    Lost,
    Message,
    Past,
    Pong,
    Read,
    Renewed,
    Request,
    Stats,
    Unsubscribe,
    UnsubscriptionAck,
)
from odinws.messages.wire_format import INVALID, Packet, encode
from tests import wire
from tests.fakes import JSON, welcome

FORMAT = CentrifugoJson()
BTC = Message("token.BTC", 7, 5, 1000, b'{"price":1}')


def told(frame: bytes) -> Any:
    """What a frame says."""
    (found,), rest = wire.split(frame)
    assert rest == b""
    return found.json


def asked(*commands: Any) -> list[Request]:
    """What a frame of these commands means."""
    return list(FORMAT.decode("\n".join(map(json.dumps, commands)).encode()))


# -- messages --------------------------------------------------------------------------------------


def test_a_message_by_its_channel_and_by_a_wildcard() -> None:
    """By a wildcard a tag names the channel, as SDKs hand over nothing else."""
    pub = {"data": {"price": 1}, "offset": 7}
    assert told(FORMAT.message(BTC, "token.BTC")) == {"push": {"channel": "token.BTC", "pub": pub}}
    by = {**pub, "tags": {"channel": "token.BTC"}}
    assert told(FORMAT.message(BTC, "token.*")) == {"push": {"channel": "token.*", "pub": by}}


@given(JSON, st.sampled_from([None, 2]))
def test_any_json_is_embedded_in_one_line(value: Any, indent: int | None) -> None:
    """Also if it comes in many lines: SDKs take a line for a reply."""
    payload = json.dumps(value, indent=indent).encode()
    (frame,), _ = wire.split(FORMAT.message(BTC._replace(payload=payload), "token.BTC"))
    assert b"\n" not in frame.payload
    assert frame.json["push"]["pub"]["data"] == value


@given(
    st.binary()
    | st.sampled_from([b"\xff", b"1e400", b'"\\ud800"', b"[" * 2000 + b"]" * 2000, b"NaN", b"1 2"])
)
def test_what_is_json_is_what_the_native_format_takes_for_it(payload: bytes) -> None:
    """One message is never valid in one format and invalid in the other."""
    message = BTC._replace(payload=payload)
    try:
        JsonFormat().message(message, "token.BTC")
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            embedded(payload)
    else:
        assert embedded(payload) == payload.replace(b"\n", b"").replace(b"\r", b"")


def test_a_payload_that_is_no_json_is_a_publication_without_data() -> None:
    """At its offset, with the reason in a tag; the subscription goes on."""
    events = [BTC._replace(payload=b"\xff"), BTC._replace(seq=8)]
    bundle = encode(events, "token.*", FORMAT)
    none, some = (told(entry.frame)["push"]["pub"] for entry in bundle.entries)
    assert none == {"data": None, "offset": 7, "tags": {"channel": "token.BTC", "error": INVALID}}
    assert some["offset"] == 8
    assert (bundle.gaps, bundle.ends, bundle.data_count) == ([INVALID], "", 2)


def test_a_gap_ends_the_subscription() -> None:
    """Nothing follows it: the SDK subscribes anew, with the position that it had before."""
    events: list[Message | Lost] = [BTC, Lost("token.BTC", 8, 9, "overflow"), BTC._replace(seq=10)]
    bundle = Packet(events, "token.*", FORMAT).encoded(FORMAT)
    assert [entry.channel for entry in bundle.entries] == ["token.*"] * 2
    assert told(bundle.entries[1].frame) == {
        "push": {"channel": "token.*", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}
    }
    assert (bundle.gaps, bundle.ends) == (["overflow"], "token.*")


# -- replies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reply"),
    [
        (
            Connected("c-1", 25.4),
            {"connect": {"client": "c-1", "version": "odinws", "ping": 25, "pong": True}},
        ),
        (
            Connected("c-1", 0.1, 59.9, [Joined("global", "E", 3, True)]),
            {
                "connect": {
                    "client": "c-1",
                    "version": "odinws",
                    "ping": 1,
                    "pong": True,
                    "expires": True,
                    "ttl": 59,
                    "subs": {
                        "global": {
                            "recoverable": True,
                            "positioned": True,
                            "epoch": "E",
                            "offset": 3,
                            "was_recovering": True,
                            "recovered": True,
                        }
                    },
                }
            },
        ),
        (
            Joined("global", "E", 3),
            {"subscribe": {"recoverable": True, "positioned": True, "epoch": "E", "offset": 3}},
        ),
        (UnsubscriptionAck(["global"], 0), {"unsubscribe": {}}),
        (Renewed("c-1", 0.2), {"refresh": {"client": "c-1", "version": "odinws", "expires": True, "ttl": 1}}),
        (Renewed("", None), {"sub_refresh": {}}),
        (Renewed("", 1.8e12), {"sub_refresh": {"expires": True, "ttl": (1 << 31) - 1}}),
        (
            Past("token.BTC", "E", 9, [BTC, BTC._replace(payload=b"{", seq=8)]),
            {
                "history": {
                    "publications": [
                        {"data": {"price": 1}, "offset": 7},
                        {"data": None, "offset": 8, "tags": {"error": INVALID}},
                    ],
                    "epoch": "E",
                    "offset": 9,
                }
            },
        ),
        (Error("FORBIDDEN", "no"), {"error": {"code": 103, "message": "no"}}),
        (Error("UNAVAILABLE", "no"), {"error": {"code": 100, "message": "no", "temporary": True}}),
        (Error("NEVER_HEARD", "no"), {"error": {"code": 100, "message": "no", "temporary": True}}),
    ],
)
def test_replies(value: Any, reply: Any) -> None:
    """Each repeats the id of its command; to a command without an id there is none."""
    assert told(FORMAT.encode(value, 5)) == {"id": 5, **reply}
    assert FORMAT.encode(value, 0) == b""


def test_what_is_not_told() -> None:
    """An SDK would stumble over what it does not expect."""
    assert FORMAT.encode(welcome("c-1", "E")) == b""
    assert FORMAT.encode(Pong(1), 3) == b""
    assert FORMAT.encode(Stats("server.stats", 1, {})) == b""


def test_the_server_ends_a_subscription() -> None:
    """For good: an SDK comes back to codes from 2500 on."""
    push = told(FORMAT.encode(Left("global")))["push"]
    assert (push["channel"], push["unsubscribe"]["code"]) == ("global", 2000)


def test_pings_and_closes() -> None:
    """A ping is an empty reply; codes that end an SDK say why."""
    assert told(FORMAT.ping(b"payload")) == {}
    (closed,), _ = wire.split(FORMAT.close(CloseReason.RESTART, "server restarts", 1.5))
    assert (closed.code, closed.payload[2:]) == (3011, b"force reconnect")
    (closed,), _ = wire.split(FORMAT.close(CloseReason.PROTOCOL, "connect comes first"))
    assert (closed.code, closed.payload[2:]) == (3501, b"bad request: connect comes first")
    for reason, (code, _) in CENTRIFUGO.items():
        (closed,), _ = wire.split(FORMAT.close(reason, reason.text))
        assert closed.code == code


def test_errors_are_those_of_the_protocol() -> None:
    """Only what may be better later is temporary."""
    assert {code for code, _ in ERRORS.values()} <= set(range(100, 114))
    assert {name for name, (_, temporary) in ERRORS.items() if temporary} == {
        "UNAVAILABLE",
        "RATE_LIMIT_EXCEEDED",
    }


# -- commands --------------------------------------------------------------------------------------


def test_several_commands_in_a_frame() -> None:
    """In order, each with its id; blank lines say nothing."""
    assert list(
        FORMAT.decode(b'{"id":1,"connect":{}}\n\n{}\n {"id":2,"subscribe":{"channel":"global"}}\n')
    ) == [
        (Connect(), 1),
        (Heartbeat(), None),
        (Join("global"), 2),
    ]


def test_what_subscribing_means() -> None:
    """A position only with `recover`; an empty epoch matches any."""
    flags = {"flag": 3, "token": "t", "data": {"last": True}}
    position = {"recover": True, "epoch": "E", "offset": 9}
    found = asked(
        {"id": 1, "subscribe": {"channel": "a", "epoch": "E", "offset": 9}},
        {"id": 2, "subscribe": {"channel": "a", **position, **flags}},
        {"id": 3, "subscribe": {"channel": "a", "recover": True, "offset": 1 << 63}},
        {"id": 4, "subscribe": {"channel": "a", "data": [1]}},
        {"id": 5, "subscribe": {"channel": "a", "new": 1, "delta": "fossil", "join_leave": True}},
    )
    assert [request.command for request in found] == [
        Join("a", None, "E"),
        Join("a", 9, "E", True, "t", True, True),
        Join("a", (1 << 63) - 1),
        Join("a"),
        Join("a"),
    ]


def test_other_commands() -> None:
    """What they mean to the server."""
    since = {"offset": 4, "epoch": ""}
    subs = {"a": {"recover": True, "offset": 3, "epoch": "E"}, "b": {"type": 1}}
    found = asked(
        {"id": 1, "connect": {"token": "t", "subs": subs, "name": "js"}},
        {"id": 2, "connect": {"headers": {"Authorization": "Bearer t"}}},
        {"id": 3, "unsubscribe": {"channel": "a"}},
        {"id": 4, "history": {"channel": "a", "limit": -1, "since": since, "reverse": True}},
        {"id": 5, "history": {"channel": "a"}},
        {"id": 6, "refresh": {"token": "t"}},
        {"id": 7, "sub_refresh": {"channel": "a", "token": "t"}},
    )
    assert found == [
        (Connect("t", {"a": Join("a", 3, "E")}), 1),
        (Connect("t"), 2),
        (Unsubscribe(["a"]), 3),
        (Read("a", None, 4, None, True), 4),
        (Read("a"), 5),
        (Authenticate("t"), 6),
        (AuthenticateChannel("a", "t"), 7),
    ]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        *(({name: {}}, 108) for name in ("publish", "presence", "presence_stats", "ping", "rpc", "send")),
        ({"subscribe": {"channel": "a", "type": 1}}, 108),
        ({"subscribe": {"channel": "a", "tf": {"key": "x"}}}, 107),
        ({"subscribe": {"channel": 7}}, 107),
        ({"history": {"channel": "a", "since": 3}}, 107),
        ({"unheard": {}}, 104),
        ({}, 104),
    ],
)
def test_what_there_is_not(command: dict[str, Any], code: int) -> None:
    """Each is answered with the code that says so."""
    (found,) = asked({"id": 3, **command})
    assert isinstance(found.command, CommandError)
    assert told(FORMAT.encode(Error(found.command.code, "no"), found.tag))["error"]["code"] == code


@pytest.mark.parametrize(
    "line", [b"x", b"[]", b'{"id":-1}', b'{"id":"1"}', b'{"id":1,', b'{"subscribe":3}', b"\n" * 20_001]
)
def test_what_cannot_be_answered_ends_the_connection(line: bytes) -> None:
    """Without an id there is nobody to tell."""
    with pytest.raises(FrameError) as error:
        list(FORMAT.decode(line))
    assert error.value.reason is CloseReason.PROTOCOL


@pytest.mark.parametrize(("field", "value"), [("subs", {}), ("headers", "")])
def test_a_connect_is_not_longer_than_it_need_be(field: str, value: Any) -> None:
    """A stranger's frame has room for tens of thousands of entries, and each takes time."""
    most, more = ({f"{index}": value for index in range(count)} for count in (1000, 1001))
    found = asked({"id": 1, "connect": {field: most}}, {"id": 2, "connect": {field: more}})
    assert isinstance(found[0].command, Connect)
    assert isinstance(found[1].command, CommandError)
    assert (found[1].command.code, found[1].tag) == ("INVALID_FIELD", 2)


def test_tokens_are_not_shown() -> None:
    """Commands may get into a log."""
    for command in (Connect("secret"), Join("a", token="secret"), AuthenticateChannel("a", "secret")):  # noqa: S106
        assert "secret" not in repr(command)
