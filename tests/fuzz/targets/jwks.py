"""Key files. An input is the content of one: a JWK Set, and a shared secret at the same time.

There are keys in it that can be used, or it is refused by one line that has nothing of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from odinws.access import keys
from odinws.access.errors import KeysError
from odinws.access.keys import (
    ALGORITHMS,
    MAX_KEYS,
    MIN_SECRET_BYTES,
    Key,
    Secret,
    parse_jwks,
    parse_secret,
)
from tests.fuzz.targets.base import assert_nothing_of, assert_one_line

_OWN = Path(keys.__file__).read_text()


def check(data: bytes) -> str:
    """Read it as both."""
    text = data.decode("latin-1")
    secrets = [*_texts(data), text]
    try:
        Secret(text)
    except KeysError as error:
        _check_words(str(error), secrets)
    return f"{_parse(parse_jwks, data, secrets)}; {_parse(parse_secret, data, secrets)}"


def _parse(parse: Callable[[bytes], tuple[Key, ...]], data: bytes, secrets: list[str]) -> str:
    try:
        found = parse(data)
    except ValueError as error:
        _check_words(str(error), secrets)
        return str(error)
    assert 1 <= len(found) <= MAX_KEYS
    for key in found:
        assert key.algorithm in ALGORITHMS
        assert isinstance(key.material.key, bytes) == (key.algorithm == "HS256")
        assert key.algorithm != "HS256" or len(key.material.key) >= MIN_SECRET_BYTES
    return " ".join(sorted({key.algorithm for key in found}))


def _check_words(text: str, secrets: list[str]) -> None:
    assert_one_line(text)
    for secret in secrets:
        assert_nothing_of(secret, text, _OWN)


def _texts(data: bytes) -> Iterator[str]:
    """All strings in a JSON document; none if it is none."""
    try:
        yield from _strings(json.loads(data))
    except (ValueError, RecursionError):
        return


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
