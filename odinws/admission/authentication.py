"""What checks tokens, as the settings say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from odinws.access.errors import KeysError
from odinws.access.keys import KeyFile, Secret, Source, parse_jwks, parse_secret
from odinws.access.tokens import Tokens
from odinws.errors import SettingsError
from odinws.settings import Settings, shown, variable

_MAKERS: Mapping[str, Callable[[str, float], Source]] = {
    "jwt_secret": lambda secret, _: Secret(secret),
    "jwt_secret_file": lambda path, now: KeyFile(path, parse_secret, now),
    "jwks_file": lambda path, now: KeyFile(path, parse_jwks, now),
}
"""By the field of the settings."""


def tokens(settings: Settings, now: float) -> Tokens | None:
    """What checks tokens; None: nobody is asked for one.

    Args:
        now: seconds since 1970.

    Raises:
        SettingsError: a key can't be used.
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
        channels=settings.channels,
    )


def sources(settings: Settings, now: float) -> list[Source]:
    """Where keys come from; empty: there are none.

    Args:
        now: seconds since 1970.

    Raises:
        SettingsError: a key can't be used.
    """
    found: list[Source] = []
    for field, make in _MAKERS.items():
        value: str = getattr(settings, field)
        if value:
            try:
                found.append(make(value, now))
            except KeysError as error:
                name = variable(field)
                raise SettingsError(name, shown(name, value), error.problem) from None
    return found
