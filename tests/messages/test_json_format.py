"""`odinws.messages.json_format`: commands invalid in every way, envelopes of exactly the documented form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odinws.errors import CommandError
from odinws.messages import frames, json_format
from odinws.messages.deflate import inflate
from odinws.messages.json_format import JsonFormat, envelope
from odinws.messages.protocol import (
    Authenticated,
    Error,
    Heartbeat,
    Message,
    Outgoing,
    Pong,
    Rejected,
    Replay,
    ReplayComplete,
    ReplayIncomplete,
    Request,
    Stats,
    Subscribe,
    SubscriptionAck,
    Unsubscribe,
    UnsubscriptionAck,
    Welcome,
)
from tests import wire
from tests.fakes import JSON

CODES = {"INVALID_JSON", "UNKNOWN_TYPE", "INVALID_FIELD"}
DEEP = 1_000_000  # too deep for every Python: from 3.14 on the C stack is the limit


def command(kind: Any, *data: Any) -> bytes:
    """A command as a client writes it."""
    return json.dumps({"type": kind, **({"data": data[0]} if data else {})}).encode()


def said(value: Outgoing) -> Any:
    """What a client reads of a value."""
    return read(JsonFormat().encode(value))


def read(data: bytes) -> Any:
    """What is in one plain text frame."""
    ((head, payload),), rest = wire.split(data)
    assert (head, rest) == (0x81, b"")
    return json.loads(payload)


def problem(text: bytes) -> CommandError:
    """What is wrong with a command; what an error frame says is short, and valid UTF-8."""
    with pytest.raises(CommandError) as caught:
        json_format.decode_command(text)
    error = caught.value
    assert error.code in CODES
    assert str(error) == error.message
    assert 0 < len(error.message) < 300
    frame = said(Error(error.code, error.message))
    assert frame == {"type": "error", "code": error.code, "message": error.message}
    return error


# -- good commands ---------------------------------------------------------------------------------


def test_every_command() -> None:
    """The four commands, with all their fields."""
    decode = json_format.decode_command
    assert decode(command("subscribe", {"channels": ["token.BTC", "global"]})) == Subscribe(
        ["token.BTC", "global"]
    )
    assert decode(command("subscribe", {"channels": [], "since": {"token.BTC": 7}})) == Subscribe(
        [], {"token.BTC": 7}
    )
    assert decode(command("unsubscribe", {"channels": ["global"]})) == Unsubscribe(["global"])
    assert decode(command("replay", {"channel": "global", "since": 3})) == Replay("global", since=3)
    assert decode(command("replay", {"channel": "global", "from": 3, "to": 9})) == Replay(
        "global", start=3, end=9
    )
    assert decode(command("heartbeat")) == Heartbeat()


@given(data=JSON)
def test_a_heartbeat_takes_any_data(data: Any) -> None:
    """Existing clients send none, null, or an object: all the same."""
    assert json_format.decode_command(command("heartbeat", data)) == Heartbeat()


def test_unknown_fields_are_ignored() -> None:
    """A client of a later version is understood as far as it goes."""
    text = json.dumps({"id": 1, "type": "subscribe", "data": {"channels": ["global"], "x": {}}}).encode()
    assert json_format.decode_command(text) == Subscribe(["global"])


@given(names=st.lists(st.text(), max_size=5), ascii_only=st.booleans(), space=st.sampled_from(["", " \n\t"]))
def test_any_json_form_of_a_command(names: list[str], ascii_only: bool, space: str) -> None:
    """Escapes, raw UTF-8 and white space are the writer's choice; names are taken as they are."""
    text = json.dumps({"type": "subscribe", "data": {"channels": names}}, ensure_ascii=ascii_only)
    decoded = json_format.decode_command((space + text + space).encode())
    assert decoded == Subscribe(names)


# -- bad commands ----------------------------------------------------------------------------------

NOT_JSON = [
    b"",
    b" ",
    b"{",
    b'{"type"',
    b'{"type":"heartbeat"',
    b'{"type":"heartbeat"}}',
    b'{"type":"heartbeat"} x',
    b'{"type":"heartbeat",}',
    b"{'type':'heartbeat'}",
    b'{"type":heartbeat}',
    b'{"type":"heartbeat","data":NaN}',
    b'{"type":"subscribe","data":{"channels":[}}',
    b'{"type":"subscribe","data":{"channels":["a",]}}',
    b'{"type":"subscribe","data":{"channels":["\xff"]}}',
    b'{"type":"subscribe","data":{"channels":["\\ud800"]}}',
    b'{"type":"subscribe","data":{"channels":["\x01"]}}',
    b'{"type":"\xff"}',
    b"\xef\xbb\xbf{}",
    b"\x00",
    b"[" * DEEP,
    b'{"type":' * DEEP,
    b'{"type":"subscribe","data":' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"type":"subscribe","data":{"x":' + b"[" * DEEP + b"]" * DEEP + b"}}",
]


@pytest.mark.parametrize("text", NOT_JSON, ids=lambda text: repr(text[:40]))
def test_what_is_not_json(text: bytes) -> None:
    """Truncated, trailing, quoted wrongly, not UTF-8, not a number, nested too deep."""
    assert problem(text).code == "INVALID_JSON"


@pytest.mark.parametrize(
    "text", [b"null", b"1", b'"subscribe"', b"[]", b'["subscribe"]', b"{}", b'{"data":{}}', b"true"]
)
def test_what_is_no_envelope(text: bytes) -> None:
    """JSON, but no object with a type: the answer shows the form."""
    error = problem(text)
    assert error.code == "INVALID_FIELD"
    assert '{"type": ..., "data": ...}' in error.message


@pytest.mark.parametrize("kind", [None, 1, 1.5, True, [], {}, ["subscribe"]])
def test_type_must_be_text(kind: Any) -> None:
    """A type of another kind is named with its place."""
    error = problem(command(kind, {"channels": []}))
    assert error.code == "INVALID_FIELD"
    assert "at type" in error.message


@pytest.mark.parametrize("kind", ["", "Subscribe", "SUBSCRIBE", "subscribe ", "ping", "x" * 1000, "\n", "💥"])
def test_unknown_types(kind: str) -> None:
    """The answer repeats some of the type and lists those that are known."""
    error = problem(command(kind, {"channels": ["global"]}))
    assert error.code == "UNKNOWN_TYPE"
    assert "subscribe, unsubscribe, replay, heartbeat" in error.message
    assert repr(kind[:80])[:-1] in error.message


def bad_fields() -> Iterator[tuple[str, Any, str]]:
    """Each field of each command with each wrong kind of value, and where the answer must point."""
    scalars: list[Any] = [None, 1, 1.5, True]
    for kind in ("subscribe", "unsubscribe", "replay"):
        for data in (*scalars, "x", []):
            yield kind, data, "data"
    for kind in ("subscribe", "unsubscribe"):
        yield kind, {}, "channels"
        for value in (*scalars, "token.BTC", {"token.BTC": 1}):
            yield kind, {"channels": value}, "data.channels"
        for value in (*scalars, [], {}, ["token.BTC"]):
            yield kind, {"channels": ["global", value]}, "data.channels[1]"
    for value in (1, 1.5, True, "x", []):
        yield "subscribe", {"channels": [], "since": value}, "data.since"
    for value in (None, "1", 1.5, True, [], {}, -1, 1 << 63, 1 << 200):
        yield "subscribe", {"channels": [], "since": {"global": value}}, "data.since[...]"
    yield "replay", {}, "channel"
    for value in (*scalars, ["global"], {}):
        yield "replay", {"channel": value}, "data.channel"
    for name in ("since", "from", "to"):
        for value in ("1", 1.5, True, [], {}, -1, 1 << 63, 1 << 200):
            yield "replay", {"channel": "global", name: value}, f"data.{name}"


@pytest.mark.parametrize(("kind", "data", "place"), list(bad_fields()), ids=lambda part: str(part)[:30])
def test_bad_fields(kind: str, data: Any, place: str) -> None:
    """Each field of each command, of each wrong kind: the answer names the command and the place."""
    error = problem(command(kind, data))
    assert error.code == "INVALID_FIELD"
    assert error.message.startswith((f"{kind}: Expected ", f"{kind}: Object missing "))
    assert "`" not in error.message
    assert place in error.message


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "replay"])
def test_data_may_not_be_missing(kind: str) -> None:
    """Without data the missing field is named."""
    error = problem(command(kind))
    assert error.code == "INVALID_FIELD"
    assert "missing required field channel" in error.message


@given(text=st.binary() | st.text().map(str.encode))
@example(b'{"type":"subscribe","data":{"channels":["token.BTC"],"since":{"a":99999999999999999999999}}}')
def test_noise_raises_nothing_but_command_errors(text: bytes) -> None:
    """Any bytes at all give a command or a `CommandError`."""
    try:
        json_format.decode_command(text)
    except CommandError as error:
        assert error.code in CODES  # noqa: PT017 - not every example raises


@given(
    envelope=JSON
    | st.fixed_dictionaries({"type": st.sampled_from([*json_format._COMMANDS]) | JSON, "data": JSON})
)
def test_any_json_raises_nothing_but_command_errors(envelope: Any) -> None:
    """Any JSON at all gives a command of its type or a `CommandError`."""
    try:
        decoded = json_format.decode_command(json.dumps(envelope).encode())
    except CommandError as error:
        assert error.code in CODES  # noqa: PT017 - not every example raises
    else:
        assert type(decoded) is json_format._COMMANDS[envelope["type"]]


@given(
    kind=st.sampled_from([*json_format._COMMANDS]),
    data=st.dictionaries(st.sampled_from(["channels", "channel", "since", "from", "to", "x"]), JSON),
)
def test_known_fields_of_any_kind(kind: str, data: Any) -> None:
    """The right names with any values: a command holds only what its type says, or it is refused."""
    try:
        decoded = json_format.decode_command(command(kind, data))
    except CommandError as error:
        assert error.code in CODES  # noqa: PT017 - not every example raises
        return
    if isinstance(decoded, Subscribe | Unsubscribe):
        assert decoded.channels == data["channels"]
    if isinstance(decoded, Replay):
        assert (decoded.channel, decoded.start, decoded.end) == (
            data["channel"],
            data.get("from"),
            data.get("to"),
        )


@given(cut=st.integers(0, 200))
def test_truncated_commands(cut: int) -> None:
    """Every proper prefix of a command is no JSON."""
    text = command("subscribe", {"channels": ["token.BTC", "user.7"], "since": {"token.BTC": 12}})
    assert problem(text[: cut % len(text)]).code == "INVALID_JSON"


# -- data frames -----------------------------------------------------------------------------------


def data_frame(payload: bytes) -> bytes:
    """A data message around a payload."""
    return envelope(Message("token.BTC", 7, 5, 1_700_000_000_000, payload))


@given(value=JSON, indent=st.sampled_from([None, 0, 1]), ascii_only=st.booleans())
def test_payload_is_carried_byte_for_byte(value: Any, indent: int | None, ascii_only: bool) -> None:
    """Any JSON value, however written, stands in `data` with the very bytes that were published."""
    payload = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    frame = data_frame(payload)
    kind = value["type"] if isinstance(value, dict) and isinstance(value.get("type"), str) else "message"
    assert frame.endswith(b',"data":' + payload + b"}")
    assert json.loads(frame) == {
        "type": kind,
        "channel": "token.BTC",
        "seq": 7,
        "prev": 5,
        "ts": 1_700_000_000_000,
        "data": value,
    }


@given(kind=st.text())
def test_type_is_the_payloads_own(kind: str) -> None:
    """Whatever text stands in `type`, quotes and controls included, it is the frame's type."""
    assert json.loads(data_frame(json.dumps({"a": 1, "type": kind}).encode()))["type"] == kind


@pytest.mark.parametrize("kind", [None, 1, True, [], {}, ["x"]])
def test_type_that_is_no_text(kind: Any) -> None:
    """A `type` of another kind leaves the frame a plain message."""
    assert json.loads(data_frame(json.dumps({"type": kind}).encode()))["type"] == "message"


def test_repeated_and_nested_types() -> None:
    """Of two `type` members the last counts, as in a browser; one that is nested does not."""
    assert json.loads(data_frame(b'{"type":"a","type":"b"}'))["type"] == "b"
    assert json.loads(data_frame(b'{"x":{"type":"a"}}'))["type"] == "message"
    assert json.loads(data_frame(b'[{"type":"a"}]'))["type"] == "message"


@pytest.mark.parametrize(
    "payload",
    [b"0", b"-0", b"1e3", b"null", b'""', b"[]", b" {} ", b"\n{}\r\n", b"123456789012345678901234567890"],
)
def test_scalars_and_white_space_are_json(payload: bytes) -> None:
    """A payload need not be an object, nor without space around it."""
    assert json.loads(data_frame(payload))["data"] == json.loads(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"NaN",
        b"Infinity",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b"\xff",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'{"a":"\xc3"}',
        b'{"type":"x"',
        b'{"type":"x"}}',
        b'{"type":"x"}{"type":"y"}',
        b'{"type":"x"},"seq":1',
        b"{a:1}",
        b"{'a':1}",
        b"[1,]",
        b"01",
        b"1.",
        b'"\x01"',
        b"\xef\xbb\xbf{}",
        b"plain text",
        b"\x00\x01",
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_payloads_that_no_frame_can_carry(payload: bytes) -> None:
    """What is not JSON, or JSON nested beyond all bounds."""
    with pytest.raises(ValueError, match=r".") as caught:
        envelope(Message("global", 7, 5, 9, payload))
    assert not isinstance(caught.value, msgspec.MsgspecError)


@pytest.mark.parametrize(
    "payload",
    [b"1" * 5000, b"-1e999", b'"\\ud800"', b"[" * 1100 + b"]" * 1100],
    ids=lambda text: repr(text[:9]),
)
def test_json_that_decoders_do_not_read_is_carried(payload: bytes) -> None:
    """Byte for byte, as all JSON."""
    for text, kind in ((payload, b"message"), (b'{"type":"x", "v":%b}' % payload, b"x")):
        found = envelope(Message("global", 7, 5, 9, text))
        assert found == b'{"type":"%b","channel":"global","seq":7,"prev":5,"ts":9,"data":%b}' % (kind, text)


@given(payload=st.binary())
def test_any_payload_makes_a_good_frame_or_none(payload: bytes) -> None:
    """Noise raises `ValueError`, or the frame around it is valid JSON of its six members."""
    try:
        frame = data_frame(payload)
    except ValueError:
        return
    assert list(json.loads(frame)) == ["type", "channel", "seq", "prev", "ts", "data"]


# -- the other envelopes ---------------------------------------------------------------------------


def test_welcome() -> None:
    """The first frame, with all members of the interface."""
    message = Welcome(
        client_id="c-1",
        epoch="ODIN_TOKENS-1",
        strategy="sync-dict",
        variant="careful",
        reason="static",
        shards=16,
        shard_key="channel",
        server="odinws/0",
        heartbeat_seconds=25.0,
        limits={"max_errors": 100},
    )
    assert said(message) == {
        "type": "welcome",
        "client_id": "c-1",
        "epoch": "ODIN_TOKENS-1",
        "strategy": "sync-dict",
        "variant": "careful",
        "reason": "static",
        "shards": 16,
        "shard_key": "channel",
        "server": "odinws/0",
        "heartbeat_seconds": 25.0,
        "limits": {"max_errors": 100},
    }


def test_acks() -> None:
    """Acknowledgements name what changed, what is held, and what was rejected and why."""
    rejected = [Rejected("x", "INVALID_CHANNEL", "no")]
    assert said(SubscriptionAck(["global"], 3, rejected)) == {
        "type": "subscription_ack",
        "subscribed": ["global"],
        "count": 3,
        "rejected": [{"channel": "x", "code": "INVALID_CHANNEL", "message": "no"}],
    }
    assert said(UnsubscriptionAck(["global"], 2)) == {
        "type": "unsubscription_ack",
        "unsubscribed": ["global"],
        "count": 2,
    }


def test_pong_error_and_gap() -> None:
    """The small envelopes."""
    assert said(Pong(12)) == {"type": "pong", "ts": 12}
    assert said(Error("X", 'say "y"')) == {"type": "error", "code": "X", "message": 'say "y"'}
    assert read(JsonFormat().gap("token.BTC", 3, 9, "slow", "token.*")) == {
        "type": "gap",
        "channel": "token.BTC",
        "from": 3,
        "to": 9,
        "reason": "slow",
    }


def test_the_answers_to_replay_and_authenticate() -> None:
    """Sequences are called `from` and `to`."""
    numbers = {"channel": "global", "from": 3, "to": 9, "count": 4}
    assert said(ReplayComplete("global", 3, 9, 4)) == {"type": "replay_complete", **numbers}
    assert said(ReplayIncomplete("global", 3, 9, 4, "expired")) == {
        "type": "replay_incomplete",
        **numbers,
        "reason": "expired",
    }
    assert said(Authenticated("ann", None, ["user.a"])) == {
        "type": "authenticated",
        "subject": "ann",
        "expires_at": None,
        "unsubscribed": ["user.a"],
    }
    assert said(Stats("server.stats", 5, {"a": [1]})) == {
        "type": "server:stats",
        "channel": "server.stats",
        "ts": 5,
        "data": {"a": [1]},
    }


# -- frames ----------------------------------------------------------------------------------------


def test_messages_are_compressed_for_those_who_agreed() -> None:
    """From the least size on, and where it makes them shorter; answers and gaps never are."""
    message = Message("global", 7, 5, 9, b'"%b"' % (b"x" * 300))
    text = envelope(message)
    assert JsonFormat().message(message, "global") == frames.text(text)
    for bits in (9, 15):
        assert JsonFormat(bits, len(text) + 1).message(message, "global") == frames.text(text)
        ((head, payload),), _ = wire.split(JsonFormat(bits, len(text)).message(message, "global"))
        assert (head, inflate(payload, 1000)) == (0xC1, text)
        assert len(payload) < 150
        assert JsonFormat(bits).encode(Pong(1)) == JsonFormat().encode(Pong(1))
        assert JsonFormat(bits).gap("global", 1, 2, "slow", "global")[0] == 0x81


def test_a_frame_is_one_request() -> None:
    """A command, or why it can't be read; answers need no tag."""
    assert [*JsonFormat().decode(b'{"type":"heartbeat"}')] == [Request(Heartbeat())]
    (request,) = JsonFormat().decode(b"{")
    assert isinstance(request.command, CommandError)
    assert (request.command.code, request.tag) == ("INVALID_JSON", None)
