"""`odinws.messages.unread_json`: JSON and nothing else is let through, whatever decoders make of it."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.messages.unread_json import _SURROGATE, MAX_STEPS, _walk, own_type

LEVELS = 1100
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "a", "\\", "\u00fc"]), inner),
)


def deep(text: bytes, levels: int = LEVELS) -> bytes:
    """The same, deeply nested."""
    return b"[" * levels + text + b"]" * levels


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"1e400", None),
        (b'"\\ud800"', None),
        (b"9" * 5000, None),
        (b'{"type":"x","v":-1e400}', b'"x"'),
        (b'{"v":[{"type":"no"}],"type":"\\u00fc\\\\","w":"\\udc00\\ud800"}', b'"\\u00fc\\\\"'),
        (b'{"type":"a","type":"b","v":1e400}', b'"b"'),
        (b'{"type":"\\ud800","v":"\\udc00"}', b'"\\ud800"'),
        (b'{"v":"\\ud800","type":"\\udfffx\\ud83d\\ude00"}', b'"\\udfffx\\ud83d\\ude00"'),
        (b'{"type":"\\ud800","v":"\\u0000"}', b'"\\ud800"'),
        (b'["\\ud800","\\u0000"]', None),
        (b'{"type":1,"v":1e400}', None),
        (b'{"type":{"type":"no"},"v":1e400}', None),
        (b' {"v":' + deep(b"") + b', "type" : "deep" } ', b'"deep"'),
        (b'{"v":' + deep(b'{"type":"no"}') + b"}", None),
        (deep(b'1e400,"\\ud800",[],{ },{"a":[1,2]}'), None),
        (b'{"a":' * LEVELS + b"1" + b"}" * LEVELS, None),
    ],
    ids=lambda text: repr(text)[:40],
)
def test_what_decoders_do_not_read(text: bytes, kind: bytes | None) -> None:
    """The `type` is that at the top, the last one, as it stands there."""
    assert own_type(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"[1e400,]",
        b'["\\ud8"]',
        b'["\xff",1e400]',
        b"\xef\xbb\xbf1e400",
        b"[" * LEVELS,
        deep(b"")[:-1],
        deep(b"") + b"]",
        deep(b"") + b" 1",
        deep(b"1,"),
        deep(b",1"),
        deep(b"01"),
        deep(b"1e"),
        deep(b"NaN"),
        deep(b'"\x01"'),
        deep(b'"\\x"'),
        deep(b'{"a"}'),
        deep(b'{"a":1,}'),
        deep(b'{"a":}'),
        deep(b"{1:2}"),
        deep(b"[}"),
        deep(b'{"a":1]'),
        deep(b"1 2"),
    ],
    ids=lambda text: repr(text.strip(b"[]"))[:40],
)
def test_what_is_not_json(text: bytes) -> None:
    """However deep the fault lies."""
    with pytest.raises(ValueError, match=r"."):
        own_type(text)


def test_what_takes_too_long_is_not_looked_at() -> None:
    """The bound is on what is nested too deeply; nothing else has one."""
    with pytest.raises(ValueError, match=f"more than {MAX_STEPS}"):
        _walk(deep(b"", MAX_STEPS + 1))
    assert own_type(b"[" + b"[1]," * MAX_STEPS + b"1e400]") is None
    assert own_type(deep(b",".join([b"1"] * 10 * MAX_STEPS))) is None


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


@given(value=values, data=st.data())
def test_walking_agrees_with_the_decoder(value: object, data: st.DataObject) -> None:
    """On JSON, and on what a change of some bytes has made of it."""
    text = bytearray(json.dumps(value, indent=data.draw(st.sampled_from([None, 1]))).encode())
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(list(map(str.encode, '[]{},:"\\0-1.e n')))
        )
    changed = bytes(text)
    try:
        read = msgspec.json.decode(changed, type=msgspec.Raw)
    except msgspec.DecodeError:
        # The decoder refuses half of a surrogate pair, which JSON may have.
        if _is_json(_SURROGATE.sub(rb"\\u00", changed)):
            assert _walk(changed) is not None
        else:
            with pytest.raises(ValueError, match=r"."):
                _walk(changed)
    else:
        assert _walk(changed) == (_type(read) if bytes(read).startswith(b"{") else b"")


def _type(text: bytes) -> bytes:
    """As Python's own decoder finds it."""

    class Raw(msgspec.Struct):
        type: msgspec.Raw = msgspec.Raw(b"")

    found = bytes(msgspec.json.decode(text, type=Raw).type)
    return b"" if found[:1] in (b"[", b"{") else found
