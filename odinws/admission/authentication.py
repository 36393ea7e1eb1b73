"""What checks tokens, as the settings say."""

from __future__ import annotations

from odinws.access.keys import KeyFile, Secret, Source, parse_jwks, parse_secret
from odinws.access.tokens import Tokens
from odinws.settings import Settings


def tokens(settings: Settings, now: float) -> Tokens | None:
    """What checks tokens; None: nobody is asked for one.

    Args:
        now: seconds since 1970.

    Raises:
        KeysError: a key can't be used.
    """
    if not settings.checks_tokens:
        return None
    return Tokens(
        sources(settings, now),
        audience=settings.jwt_audiences,
        issuer=settings.jwt_issuers,
        leeway_seconds=settings.jwt_leeway_seconds,
        require_expiry=settings.jwt_require_exp,
        allow_anonymous=settings.allow_anonymous,
    )


def sources(settings: Settings, now: float) -> list[Source]:
    """Where keys come from; empty: there are none.

    Args:
        now: seconds since 1970.

    Raises:
        KeysError: a key can't be used.
    """
    found: list[Source] = []
    if settings.jwt_secret:
        found.append(Secret(settings.jwt_secret))
    if settings.jwt_secret_file:
        found.append(KeyFile(settings.jwt_secret_file, parse_secret, now))
    if settings.jwks_file:
        found.append(KeyFile(settings.jwks_file, parse_jwks, now))
    return found
