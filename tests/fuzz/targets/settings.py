"""Settings. An input is an environment as Linux keeps it: NAME=value, with a zero byte between them.

It describes a server, or is refused by one line. What is refused does not depend on a secret, but for its
length: so nothing of one is in that line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from odinws.errors import SettingsError
from odinws.settings import Settings, describe
from odinws.settings.checks import SECRETS
from tests.fuzz.targets.base import assert_one_line

SEPARATOR = b"\0"

_KNOWN = {setting.name for setting in describe(Settings)}
_MISSPELT = re.compile(r"WS_.*(SECRET|TOKEN)")  # a name that nobody knows, and may be meant for a secret
# Of a URL, without what says where it ends: other letters in their place leave it as valid as it was.
_CREDENTIALS = re.compile(r"(?<=://)[^/?#@,\[\]\\]*(?=@)")
_ROTATED = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    "bcdefghijklmnopqrstuvwxyzaBCDEFGHIJKLMNOPQRSTUVWXYZA1234567890",
)


def check(data: bytes) -> str:
    """Read it, and read it again with other secrets."""
    environ = environment(data)
    said = _read(environ)
    other = _read({name: _other(name, value) for name, value in environ.items()})
    assert said == other, f"{said!r} is {other!r} with other secrets"
    return re.sub(r"=.*(?= is not valid: )", "", said)[:60]


def environment(data: bytes) -> dict[str, str]:
    """The variables of an input."""
    pairs = (os.fsdecode(part).partition("=") for part in data.split(SEPARATOR))
    return {name: value for name, found, value in pairs if found and name}


def _read(environ: Mapping[str, str]) -> str:
    """Why it is refused, or ""."""
    try:
        settings = Settings.from_environ(environ)
    except SettingsError as error:
        assert_one_line(str(error))
        return str(error)
    assert 0 <= settings.port <= 65535
    assert settings.host
    assert settings.embedded_nats == (not settings.nats_urls)
    return ""


def _other(name: str, value: str) -> str:
    if name in SECRETS or (name not in _KNOWN and _MISSPELT.match(name)):
        return value.translate(_ROTATED)
    if name == "NATS_URL":
        return _CREDENTIALS.sub(lambda match: match[0].translate(_ROTATED), value)
    return value
