"""What one field alone can't say: addresses, URLs, lists, and values that depend on each other.

Every function raises `SettingsError`; none of its texts has a secret.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import strategies
from odinws.access.origin import Origins
from odinws.access.proxies import parse_networks
from odinws.errors import SettingsError
from odinws.feed.carried import Carried

if TYPE_CHECKING:
    from odinws.settings.model import Settings

# Their values are never shown.
SECRETS = frozenset({"WS_JWT_SECRET", "WS_ADMIN_TOKEN", "NATS_TOKEN"})
_SECRET_WORDS = ("SECRET", "TOKEN", "PASS", "SEED")
_LIKELY = 0.6  # of difflib: one of several letters wrong
_MIN_SECRET_CHARACTERS = 16  # of the token that opens the inside
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_PORT = re.compile(r"[0-9]{1,5}")
_DURATION_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_NATS_SCHEMES = ("nats", "tls", "ws", "wss")
_NATS_SCHEME = re.compile(rf"(?:{'|'.join(_NATS_SCHEMES)})://")


def shown(name: str, text: str) -> str:
    """The value of a setting as an error may show it."""
    return "***" if name in SECRETS and text else text


def shown_of_unknown(name: str, text: str) -> str:
    """The same where no setting has this name: it may be that of a secret, misspelt."""
    likely = difflib.get_close_matches(name, SECRETS, n=1, cutoff=_LIKELY)
    secret = bool(likely) or any(word in name.upper() for word in _SECRET_WORDS)
    return "***" if secret and text else text


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


def check(settings: Settings) -> None:
    """All that needs more than one look."""
    _check_addr(settings.addr)
    _check_nats_urls(settings)
    if settings.strategy:
        try:
            strategies.check_name(settings.strategy)
        except ValueError:
            allowed = f"expected one of {', '.join(strategies.names())}, or package.module:Class"
            raise SettingsError("WS_SHARD_STRATEGY", settings.strategy, allowed) from None
    _check_above("WS_IDLE_SECONDS", settings.idle_seconds, "WS_HEARTBEAT_SECONDS", settings.heartbeat_seconds)
    _check_above(
        "WS_MEMORY_HARD_THRESHOLD",
        settings.memory_hard_threshold,
        "WS_MEMORY_REJECT_THRESHOLD",
        settings.memory_reject_threshold,
    )
    _check_access(settings)
    try:
        Carried(settings.subjects, settings.subject_prefix)
    except ValueError as error:
        raise SettingsError("WS_SUBJECTS", settings.subjects, str(error)) from None


def _check_above(name: str, value: float, other: str, bound: float) -> None:
    if value <= bound:
        raise SettingsError(name, f"{value:g}", f"expected more than {other} ({bound:g})")


def _check_access(settings: Settings) -> None:
    for name, text, parse in (
        ("WS_ORIGINS", settings.origins, Origins.parse),
        ("WS_TRUSTED_PROXIES", settings.trusted_proxies, parse_networks),
    ):
        try:
            parse(text)
        except ValueError as error:
            raise SettingsError(name, text, f"expected a comma-separated list, and {error}") from None
    if settings.admin_token and len(settings.admin_token) < _MIN_SECRET_CHARACTERS:
        raise SettingsError("WS_ADMIN_TOKEN", "***", f"expected at least {_MIN_SECRET_CHARACTERS} characters")
    if settings.jwt_secret and settings.jwt_secret_file:
        raise SettingsError("WS_JWT_SECRET_FILE", settings.jwt_secret_file, "WS_JWT_SECRET is set already")
    if settings.allow_anonymous and not settings.checks_tokens:
        allowed = "without WS_JWT_SECRET, WS_JWT_SECRET_FILE or WS_JWKS_FILE everybody may enter already"
        raise SettingsError("WS_ALLOW_ANONYMOUS", "true", allowed)


def _check_addr(addr: str) -> None:
    host, colon, port = addr.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535 or " " in host:
        raise SettingsError("WS_ADDR", addr, "expected host:port with a port from 0 to 65535")


def _check_nats_urls(settings: Settings) -> None:
    for url in settings.nats_urls:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in _NATS_SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            # The whole value: a comma in a password would leave one of its halves in a part of its own.
            text = without_credentials(settings.nats_url)
            raise SettingsError("NATS_URL", text, "expected nats://host:port, several with commas")


def without_credentials(url: str) -> str:
    """A URL as it may be logged: all that stands between its scheme and its last `@` is `***`."""
    before, found, host = url.rpartition("@")
    scheme = _NATS_SCHEME.match(before)
    return f"{scheme[0] if scheme else ''}***@{host}" if found else url
