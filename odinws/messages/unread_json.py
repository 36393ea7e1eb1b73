"""JSON that is valid, but that no decoder here makes values of. Pure.

RFC 8259 lets receivers set limits (section 9), and decoders do: numbers beyond a double (`1e400`) or of
thousands of digits, escapes of lone surrogates (`"\\ud800"`), nesting deeper than their stack. A payload is
passed on byte for byte, so all that is asked of it is that it is JSON, and which `type` it has.
"""

from __future__ import annotations

import re

import msgspec

MAX_STEPS = 5_000  # levels, keys and runs of plain items in what is nested too deeply for the decoder: 15 ms

_WS = rb"[ \t\n\r]*+"
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})[^"\\\x00-\x1f]*+)*+"'
_SCALAR = rb"(?:" + _STRING + rb"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|null)"
_KEY = re.compile(_WS + rb"(" + _STRING + rb")" + _WS + rb":")
_ITEMS = re.compile(rb"(?:" + _WS + _SCALAR + _WS + rb",)*+")
_VALUE = re.compile(_WS + rb"(?:([\[{])(" + _WS + rb"[\]}])?+|(" + _SCALAR + rb"))" + _WS)
_NEXT = re.compile(rb"([,\]}])" + _WS)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ENDS = {b"[": b"]", b"{": b"}"}


class _Typed(msgspec.Struct, frozen=True):
    type: msgspec.Raw = msgspec.Raw(b"")


_object = msgspec.json.Decoder(_Typed)
_any = msgspec.json.Decoder(msgspec.Raw)


def own_type(text: bytes) -> bytes | None:
    """The `type` of an object, as it stands there, if that is a string; else None.

    Raises:
        ValueError: it is not JSON; or it is nested more deeply than the decoder's stack, or has a lone
            surrogate in its `type`, and has more than `MAX_STEPS` levels, keys and runs of items.
    """
    text.decode()  # the decoder does not look at text that it skips
    plain = _SURROGATE.sub(rb"\\u00", text)
    try:
        is_object = plain.lstrip().startswith(b"{")
        found = bytes(_object.decode(plain).type if is_object else _any.decode(plain))
        if is_object and plain != text and b"\\u00" in found:  # perhaps a surrogate was there
            found = _walk(text)
    except RecursionError:
        found, is_object = _walk(text), True
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    return found if is_object and found.startswith(b'"') else None


def _walk(text: bytes) -> bytes:
    """Read JSON of any depth: the `type` at its top, or b"".

    Raises:
        ValueError: see `own_type`.
    """
    ends: list[bytes] = []  # of what is open
    found, key, at = b"", b"", 0
    for _ in range(MAX_STEPS):
        # A value is due.
        if ends and ends[-1] == b"]":
            at = _matched(_ITEMS, text, at).end()
        value = _matched(_VALUE, text, at)
        at = value.end()
        opened, closed, scalar = value.groups()
        if opened and not closed:
            ends.append(_ENDS[opened])
        elif opened and closed.strip() != _ENDS[opened]:
            raise ValueError(f"wrong bracket at byte {at}")
        elif len(ends) == 1 and key == b'"type"':
            found = scalar or b""
        if not opened or closed:
            while ends and (after := _matched(_NEXT, text, at))[1] != b",":
                at = after.end()
                if after[1] != ends.pop():
                    raise ValueError(f"wrong bracket at byte {at}")
            if not ends:
                if at < len(text):
                    raise ValueError(f"trailing characters at byte {at}")
                return found
            at = after.end()
        key = b""
        if ends[-1] == b"}":
            named = _matched(_KEY, text, at)
            key, at = named[1], named.end()
    raise ValueError(f"nested deeply, in more than {MAX_STEPS} levels, keys and runs of items")


def _matched(pattern: re.Pattern[bytes], text: bytes, at: int) -> re.Match[bytes]:
    found = pattern.match(text, at)
    if found is None:
        raise ValueError(f"not JSON at byte {at}")
    return found
