"""Data messages. An input is a payload from NATS.

A payload is refused with a ValueError, or the message around it is valid JSON that carries it byte for byte
and has its type.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from odinws.messages.json_format import envelope
from odinws.messages.protocol import Message


def check(data: bytes) -> str:
    """Wrap it as the hub does."""
    try:
        message = envelope(Message("token.BTC", 7, 5, 1_700_000_000_000, data))
    except ValueError:
        return "refused"
    assert message.endswith(b'"data":%b}' % data)
    try:
        payload, whole = _strict(data), _strict(message)
    except RecursionError:  # this reader's limit, not the format's
        return "deep"
    own = payload.get("type") if isinstance(payload, dict) else None
    assert whole == {
        "type": own if isinstance(own, _Text) else "message",
        "channel": "token.BTC",
        "seq": "7",
        "prev": "5",
        "ts": "1700000000000",
        "data": payload,
    }
    return "typed" if isinstance(own, _Text) else "untyped"


class _Text(str):
    """A JSON string, told from a number, which is kept as its text: so none is too large or rounded."""

    __slots__ = ()


def _strict(text: bytes) -> Any:
    """Another reader of JSON, by the letter of RFC 8259."""
    return _marked(json.loads(text.decode(), parse_constant=_refuse, parse_int=_Number, parse_float=_Number))


class _Number(str):
    __slots__ = ()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _marked(value: Any) -> Any:
    """The same with its strings as `_Text`; numbers stay."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, str):
        return _Text(value)
    if isinstance(value, list):
        return [_marked(each) for each in value]
    if isinstance(value, dict):
        return {name: _marked(each) for name, each in value.items()}
    return value
