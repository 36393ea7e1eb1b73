"""How a value given as text is read, checked and shown. No text of a `SettingsError` has a secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from odinws.access import channels_file
from odinws.access.channels import Rule
from odinws.errors import SettingsError

# Their values are never shown.
SECRETS = frozenset({"WS_JWT_SECRET", "WS_ADMIN_TOKEN", "NATS_TOKEN"})
_SECRET_WORDS = ("SECRET", "TOKEN", "PASS", "SEED")
_LIKELY = 0.6  # of difflib: one of several letters wrong
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_PORT = re.compile(r"[0-9]{1,5}")
_DURATION_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_OF_SERVICE = re.compile(
    r"(?:_[A-Z0-9_]+)?_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_PORT_OF_SERVICE = re.compile(r"(?:_[A-Z0-9_]+)?_PORT")
_LINK = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)
_UNIX = "unix:"
_MAX_PATH_BYTES = 100  # of a Unix socket: the kernel takes 107
_MIN_SECRET_CHARACTERS = 16  # of the token that opens the inside
_HTTP_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_NATS_SCHEMES = ("nats", "tls", "ws", "wss")
_NATS_SCHEME = re.compile(rf"(?:{'|'.join(_NATS_SCHEMES)})://")

T = TypeVar("T")


def shown(name: str, text: str) -> str:
    """The value of a setting as an error may show it."""
    return "***" if name in SECRETS and text else text


def shown_of_unknown(name: str, text: str) -> str:
    """The same where no setting has this name: it may be that of a secret, misspelt."""
    likely = difflib.get_close_matches(name, SECRETS, n=1, cutoff=_LIKELY)
    secret = bool(likely) or any(word in name.upper() for word in _SECRET_WORDS)
    return "***" if secret and text else text


def is_of_platform(prefix: str, name: str, text: str) -> bool:
    """Whether a variable tells of a Kubernetes Service or a Docker link; these platforms make them.

    Those of a Service `ws-api` begin with `WS_API_`.

    Args:
        prefix: of our variables, with its `_`, which `name` has.
    """
    rest = name[len(prefix) - 1 :]
    return bool(_OF_SERVICE.fullmatch(rest) or (_PORT_OF_SERVICE.fullmatch(rest) and _LINK.match(text)))


def check_unicode(name: str, text: str) -> None:
    """Variables may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(name, without_credentials(shown(name, text)), "expected UTF-8") from None


def seconds(name: str, text: str) -> float:
    """Read a duration."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise SettingsError(name, text, "expected seconds, or a number with ms, s, m or h")
    return float(match[1]) * _DURATION_SECONDS[match[2]]


def parts(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated list, in their order."""
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def parsed(name: str, text: str, parse: Callable[[str], T]) -> T:
    """What a comma-separated list comes to; `parse` raises `ValueError`."""
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(name, text, f"expected a comma-separated list, and {error}") from None


def check_above(name: str, value: float, other: str, bound: float) -> None:
    """A value must be above that of another setting."""
    if value <= bound:
        raise SettingsError(name, f"{value:g}", f"expected more than {other} ({bound:g})")


def check_alone(name: str, value: str, other: str, given: str) -> None:
    """One of two settings that exclude each other must be empty."""
    if value and given:
        raise SettingsError(name, value, f"{other} is set already: leave one of them out")


def address(name: str, text: str) -> tuple[str, int]:
    """Where to listen: host and port."""
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535 or " " in host:
        raise SettingsError(name, text, "expected host:port with a port from 0 to 65535")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - `:port` asks for it


def admin_address(text: str) -> tuple[str, int] | str:
    """The same for the admin plane, or the absolute path of a Unix socket."""
    if not text.startswith(_UNIX):
        return address("WS_ADMIN_ADDR", text)
    path = text.removeprefix(_UNIX)
    if not path.startswith("/") or len(path.encode()) > _MAX_PATH_BYTES or "\0" in path:
        allowed = f"expected unix: and an absolute path of at most {_MAX_PATH_BYTES} bytes"
        raise SettingsError("WS_ADMIN_ADDR", text, allowed)
    return path


def check_admin_token(name: str, token: str) -> None:
    """What opens the inside must not be guessed, and must fit into a header."""
    if len(token) < _MIN_SECRET_CHARACTERS or not token.isprintable() or not token.isascii():
        allowed = f"expected at least {_MIN_SECRET_CHARACTERS} characters of ASCII"
        raise SettingsError(name, "***", allowed)


def admin_token(path: str) -> str:
    """Read the token of the admin plane."""
    name = "WS_ADMIN_TOKEN_FILE"
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "expected ASCII"
        raise SettingsError(name, path, f"it can't be read: {reason}") from None
    check_admin_token(name, token)
    return token


def read_channels_file(path: str) -> channels_file.File:
    """Read the rules of channels; that the file can't be read is a mistake as others are."""
    try:
        with open(path, "rb") as file:
            text = file.read(channels_file.MAX_FILE_BYTES + 1).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "expected UTF-8"
        return channels_file.File([], "", [f"it can't be read: {reason}"], [])
    return channels_file.read(text)


def channel_rules(path: str) -> tuple[list[Rule], str]:
    """The rules of channels in a file, and the characters that it adds to tokens."""
    found = read_channels_file(path)
    if found.mistakes:
        first, *others = found.mistakes
        more = f"; and {len(others)} more, see odinws check" if others else ""
        raise SettingsError("WS_CHANNELS_FILE", path, first + more)
    return found.rules, found.characters


def http_origins(text: str) -> tuple[str, ...]:
    """Origins of HTTP, comma-separated, in lower case; raises ValueError."""
    origins = tuple(part.lower() for part in parts(text))
    for origin in origins:
        if not _HTTP_ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin: expected http://host:port without a path")
    return origins


def nats_urls(text: str) -> list[str]:
    """Where NATS is: URLs, comma-separated, in their order."""
    urls = list(parts(text))
    for url in urls:
        try:
            found = urlsplit(url)
            usable = found.scheme in _NATS_SCHEMES and bool(found.hostname) and found.port != 0
        except ValueError:
            usable = False
        if not usable:
            # The whole value: a comma in a password would leave one of its halves in a part of its own.
            shown_text = without_credentials(text)
            raise SettingsError("NATS_URL", shown_text, "expected nats://host:port, several with commas")
    return urls


def without_credentials(url: str) -> str:
    """A URL as it may be logged: all that stands between its scheme and its last `@` is `***`."""
    before, found, host = url.rpartition("@")
    scheme = _NATS_SCHEME.match(before)
    return f"{scheme[0] if scheme else ''}***@{host}" if found else url
