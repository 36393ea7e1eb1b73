"""Inputs that are nearly right, made by hypothesis, for each target."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from odinws.messages.deflate import Deflater
from odinws.settings import Settings, describe
from tests import wire
from tests.access.material import NOW, jwks, oct_jwk, token
from tests.fakes import JSON
from tests.fuzz.targets import commands, settings
from tests.fuzz.targets.base import MAX_BYTES
from tests.fuzz.targets.tokens import elliptic_key

Inputs = st.SearchStrategy[bytes]

_sizes = st.sampled_from([0, 1, 2, 3, 100, 125, 126, 127, 128, 129, 300])
_plain = st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | _sizes.map(lambda size: b"a" * size)
_payloads = _plain | _plain.map(Deflater(15).deflate)


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def _joined(separator: bytes, parts: Inputs, most: int) -> Inputs:
    return st.lists(parts, max_size=most).map(lambda found: separator.join(found)[:MAX_BYTES])


def _lines(*parts: Inputs) -> Inputs:
    return st.tuples(*parts).map(b"\n".join)


def _text(*known: str, most: int = 40) -> Inputs:
    return (st.sampled_from(known) | st.text(max_size=most)).map(lambda text: text.encode(errors="replace"))


def _listed(*known: str) -> Inputs:
    return _joined(b",", _text(*known), 6)


# -- what comes before a client is known ---------------------------------------------------------------

_line = st.builds(
    "{0} {1} {2}".format,
    st.sampled_from(["GET", "GET", "POST", "OPTIONS", "G T", ""]),
    st.sampled_from(["/ws", "/", "/ws?a=b%20", "*", "http://a/ws", "http://", "a:1", "/\x1b", "/\xe4"]),
    st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", ""]),
).map(lambda line: line.encode("latin-1"))
_field = st.builds(
    lambda name, colon, value: name + colon + value,
    _text("Host", "Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "X-A", "X_A", "Cookie"),
    st.sampled_from([b": "] * 8 + [b":", b" :", b""]),
    _text("test", "Upgrade", "websocket, h2c", "close", "5", "+5", "chunked", "\t", "\0", "a\nb", "\xe4"),
)
_end = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n "])
_HEADS = st.builds(
    lambda line, fields, last: line + b"\r\nHost: a\r\n" + b"".join(fields) + last,
    _line,
    st.lists(st.tuples(_field, _end).map(b"".join), max_size=8),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n\x81\x80", b"", b"\n"]),
).map(lambda data: data[:MAX_BYTES])

# -- what clients say --------------------------------------------------------------------------------

_frame = st.builds(
    wire.frame,
    st.sampled_from([0, 0, 1, 1, 1, 2, 8, 9, 10, 3, 15]),
    _payloads,
    final=st.booleans(),
    reserved=st.sampled_from([0, 0, 4, 4, 2]),
    masked=st.sampled_from([True] * 9 + [False]),
)
_FRAMES = _joined(b"", _frame | st.binary(max_size=6), 12)

_channel = st.sampled_from(["global", "token.A", "token.B", "user.42", "token.*", "", "token."]) | st.text()
_data = (
    JSON
    | st.fixed_dictionaries({"channels": st.lists(_channel, max_size=12) | JSON}, optional={"since": JSON})
    | st.fixed_dictionaries({"channel": _channel}, optional=dict.fromkeys(("since", "from", "to"), JSON))
    | st.fixed_dictionaries({"token": st.sampled_from([token(), token(sub="7"), token(exp=1)]) | st.text()})
)
_kind = st.sampled_from(["subscribe", "unsubscribe", "heartbeat", "replay", "authenticate"]) | JSON
_command = st.fixed_dictionaries({"type": _kind}, optional={"data": _data}) | JSON
_COMMANDS = _joined(commands.SEPARATOR, _command.map(_encoded), 8)

_ENVELOPES = (JSON | st.fixed_dictionaries({"type": JSON}, optional={"seq": JSON})).map(_encoded)

_parameter = _text(
    *("server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits", "x=1"),
    *(f"{side}_max_window_bits={bits}" for side in ("server", "client") for bits in (7, 8, 9, 12, 15, 16)),
)
_offer = st.tuples(_text("permessage-deflate", "x"), _joined(b"; ", _parameter, 4)).map(b";".join)
_DEFLATE = _joined(b", ", _offer, 4)

# -- what comes from whoever runs it -----------------------------------------------------------------

_variable = st.sampled_from([setting.name for setting in describe(Settings)]) | st.text(max_size=12)
_value = st.sampled_from(["1", "0", "true", "30s", "nats://u:p@h:4222", "h:1", "*", "-1", "1e9"]) | st.text()
_SETTINGS = _joined(
    settings.SEPARATOR,
    st.tuples(_variable, _value).map(lambda pair: f"{pair[0]}={pair[1]}".encode(errors="replace")),
    6,
)

_public = ECAlgorithm.to_jwk(elliptic_key().public_key(), as_dict=True)
_jwk = st.sampled_from([_public, oct_jwk(), {"kty": "RSA", "e": "AQAB", "n": "AQAB"}, {"kty": "OKP"}])
_member = st.builds(
    lambda jwk, more: {**jwk, **more},
    _jwk,
    st.dictionaries(st.sampled_from(["kid", "alg", "use", "key_ops", "k", "x", "y", "d", "crv", "n"]), JSON),
)
_JWKS = st.lists(_member | JSON, max_size=5).map(lambda members: jwks(*members)[:MAX_BYTES])

# -- what a request says -----------------------------------------------------------------------------

_bearer = st.sampled_from(["a.b.c", "a.b", token()])
_CREDENTIALS = _lines(
    _text("", "Bearer a.b.c", f"bearer  {token()}", "Basic eA=="),
    _listed("odinws", "bearer.a.b.c", "bearer.", f"bearer.{token()}"),
    _joined(b"&", _text("token=a.b.c", "access_token=a.b.c", "Token=x", "t%6fken=a.b.c", "x"), 5),
)

_changes = st.dictionaries(
    st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "channels", "kid"]),
    JSON | st.sampled_from([NOW, NOW - 5, NOW + 5, [], ["global", "token.*"], ["user.42"]]),
)
_CLAIMS = _lines(
    st.dictionaries(st.text(), JSON).map(lambda more: _encoded({"alg": "HS256", "typ": "JWT", **more})),
    _changes.map(lambda more: _encoded({"sub": "42", "exp": NOW + 60, **more})),
).map(lambda data: data[:MAX_BYTES])
_STRANGE = "another secret, of more than 32 bytes"
_good = st.sampled_from([token(), token(elliptic_key(), "ES256"), token(_STRANGE)])
_TOKENS = st.tuples(_good, _good, st.integers(0, 3)).map(
    lambda three: ".".join([*three[0].split(".")[: three[2]], *three[1].split(".")[three[2] :]]).encode()
) | _text("a.b.c", "..")

_host = _text(
    *(
        "https://example.com",
        "https://*.example.com",
        "http://[::1]:80",
        "null",
        "*",
        "https://example.com:443",
    ),
    "https://a.example.com",
)
_ORIGIN = _lines(_joined(b",", _host, 4), _host)

_said = _text("GET /ws?token=a.b.c&access_token=d HTTP/1.1", "\x1b[31mred", "eyJ", "-eyJ", "a\r\nb", token())
_LOGS = _joined(b"", _said, 12)

_address = _text("10.0.0.1", "::1", "[::1]:80", "10.0.0.1:9", "::ffff:10.0.0.1", "fe80::1%eth0", '"10.0.0.2"')
_networks = _listed("10.0.0.0/8", "::1", "fe80::/10", "10.0.0.1/8")
_PROXIES = _lines(_address, _joined(b",", _address, 20), _networks)

_name = _text("token.BTC", "*.trade", ">", "a.*.>", "a..b", "a.b.c.d.e.f.g.h.i", "user.42", "global", most=8)
_key = _text(
    'subscribe = "public"',
    'subscribe = "own"',
    'subject = "x.$1"',
    'subject = "$2.$1.>"',
    'keep = "none"',
    "compression = false",
    'slow_policy = "conflate"',
    "colour = 1",
    most=6,
)
_pattern = _name.map(lambda name: b"[[channels]]\npattern = '" + name + b"'")
_FILE = _joined(b"\n", _pattern | _key, 12)
_CHANNELS = _lines(_name, _FILE | _FILE.map(lambda text: b'characters = ":"\n' + text))
_subscription = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.sampled_from(["token.A", "global", "x", "", 7]),
        "recover": st.booleans(),
        "offset": st.integers(-1, 1 << 64),
        "epoch": st.text(max_size=3),
        "data": JSON,
        "flag": st.integers(0, 4),
        "tf": st.just({}),
        "type": st.integers(0, 2),
    },
)
_since = st.fixed_dictionaries({}, optional={"offset": st.integers(0, 9), "epoch": st.just("")})
_sdk_command = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(-1, 9) | st.just("1"),
        "connect": st.fixed_dictionaries(
            {}, optional={"token": st.text(max_size=3), "subs": st.just({"a": {}})}
        ),
        "subscribe": _subscription,
        "unsubscribe": st.just({"channel": "token.A"}),
        "history": st.fixed_dictionaries(
            {"channel": st.just("a")}, optional={"since": _since, "limit": st.just(-1)}
        ),
        "refresh": st.just({"token": "a"}),
        "rpc": JSON,
        "send": JSON,
    },
)
_CENTRIFUGO_JSON = _joined(b"\n", _sdk_command.map(_encoded) | st.sampled_from([b"{}", b"", b" ", b"{"]), 8)
_field_of_protobuf = st.builds(
    lambda number, data: bytes((number << 3 | 2, len(data))) + data,
    st.integers(1, 15),
    st.binary(max_size=20) | st.sampled_from([b"\x0a\x01a", b"\x0a\x01a\x18\x01\x38\x05", b"\x0a\xff"]),
)
_CENTRIFUGO_PROTOBUF = _joined(
    b"",
    st.builds(
        lambda tag, rest: bytes((2 + len(rest), 8, tag)) + rest,
        st.integers(0, 127),
        st.lists(_field_of_protobuf, max_size=3).map(b"".join),
    )
    | st.sampled_from([b"\x00", b"\x80", b"\x05"]),
    8,
)

STRUCTURED: dict[str, Inputs] = {
    "centrifugo-json": _CENTRIFUGO_JSON,
    "streams": _joined(b"&", _text("channel=token.A", "channel=token.*", "last=1", "last_event_id=E:5"), 6),
    "centrifugo-protobuf": _CENTRIFUGO_PROTOBUF,
    "heads": _HEADS,
    "frames": _FRAMES,
    "commands": _COMMANDS,
    "envelopes": _ENVELOPES,
    "deflate": _DEFLATE,
    "settings": _SETTINGS,
    "credentials": _CREDENTIALS,
    "tokens": _TOKENS,
    "claims": _CLAIMS,
    "jwks": _JWKS,
    "origin": _ORIGIN,
    "proxies": _PROXIES,
    "logs": _LOGS,
    "channels": _CHANNELS,
}
