"""From a token to an identity: JSON Web Tokens (RFC 7519), by PyJWT.

Signature, `aud` and `iss` are PyJWT's. The times are looked at here, as time is an argument: the moment
at which a connection ends must be the one at which its token is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jwt

from odinws.access import channels
from odinws.access.channels import Channels
from odinws.access.credentials import check_form
from odinws.access.errors import AccessError, ExpiredError, forbidden, unauthenticated
from odinws.access.keys import ALGORITHMS, Key, Source
from odinws.access.permissions import MAX_GRANTS, Permissions
from odinws.close_codes import CloseReason

MAX_SUBJECT_CHARACTERS = 256

_MAX_TIME = 1 << 53  # all whole numbers up to this are floats
_OPTIONS: Any = {
    "verify_signature": True,
    "enforce_minimum_key_length": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "verify_jti": False,
}


class Identity(NamedTuple):
    """Who a client is.

    Attributes:
        subject: the token's `sub`, 1 to 256 printable characters; None: nobody in particular.
        expires_at: seconds since 1970 from which on it counts no more, leeway included; None: never.
        permissions: by the claim `channels`; None: there is none, see `Channels.allows`.
        server_side: by the claim `subs`, the channels that the server subscribes a client of Centrifugo's
            protocol to.
    """

    subject: str | None
    expires_at: float | None
    permissions: Permissions | None
    server_side: tuple[str, ...] = ()


class ChannelToken(NamedTuple):
    """What a token of one channel says.

    Attributes:
        subject: whose it is; None: whoever brings it.
        channel: that it allows.
        expires_at: as that of an identity.
    """

    subject: str | None
    channel: str
    expires_at: float | None


ANONYMOUS = Identity(None, None, None)  # no token, where none is needed


class Tokens:
    """Checks tokens.

    Args:
        sources: where keys come from; at least one.
        audience: a token's `aud` must have one of these. Empty: a token that has an `aud` is refused, as
            it is meant for somebody who knows that name (RFC 7519 section 4.1.3).
        issuer: a token's `iss` must be one of these. Empty: any, or none.
        leeway_seconds: how far the issuer's clock and ours may differ, 0 or more.
        require_expiry: whether a token must have `exp`.
        allow_anonymous: whether a client without a token gets the public channels.
        channels: what a claim may grant.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        audience: Sequence[str] = (),
        issuer: Sequence[str] = (),
        leeway_seconds: float = 0.0,
        require_expiry: bool = True,
        allow_anonymous: bool = False,
        channels: Channels = channels.DEFAULT,
    ) -> None:
        self._sources = tuple(sources)
        self._audience = tuple(audience) or None
        self._issuer = tuple(issuer) or None
        self._leeway_seconds = leeway_seconds
        self._require_expiry = require_expiry
        self._allow_anonymous = allow_anonymous
        self._channels = channels

    def identify(self, token: str | None, now: float) -> Identity:
        """Who brings this token, or none.

        Args:
            token: as it came.
            now: seconds since 1970.

        Raises:
            AccessError: 401 for a token that is missing, unproven, expired, or not for us; 403 for one whose
                permissions can't be used. The text has nothing of the token.
        """
        if token is None:
            if self._allow_anonymous:
                return ANONYMOUS
            raise unauthenticated("a token is required")
        check_form(token)
        claims = self._verified(token, now)
        expires_at = self._lifetime(claims, now)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS:
            raise unauthenticated("the token's claim sub is not a text of 1 to 256 characters")
        if not subject.isprintable():
            raise unauthenticated("the token's claim sub has characters that can't be printed")
        permissions = self._channels.permissions_of(subject, claims.get("channels"))
        return Identity(subject, expires_at, permissions, self._server_side(claims.get("subs")))

    def of_channel(self, token: str, now: float) -> ChannelToken:
        """What a token of one channel says: `channel`, and whose it is.

        Raises:
            AccessError: as `identify`, but `sub` may be missing or "".
        """
        check_form(token)
        claims = self._verified(token, now)
        expires_at = self._lifetime(claims, now)
        subject, channel = claims.get("sub") or None, claims.get("channel")
        if not isinstance(channel, str) or not isinstance(subject, str | None):
            raise unauthenticated("the token is not that of a channel")
        return ChannelToken(subject, channel, expires_at)

    def _server_side(self, claim: object) -> tuple[str, ...]:
        if claim is None:
            return ()
        if not isinstance(claim, dict):
            raise unauthenticated("the token's claim subs is not an object")
        if len(claim) > MAX_GRANTS:
            raise forbidden(f"the token's claim subs has more than {MAX_GRANTS} entries")
        if not all(map(self._channels.valid, claim)):
            raise forbidden("the token's claim subs has what is no channel")
        return tuple(claim)

    def refresh(self, old: Identity, token: str, now: float) -> Identity:
        """The identity of an open connection that brings another token.

        Its permissions may be fewer than before. A connection without a subject may become any.

        Raises:
            AccessError: as `identify`; 403 if the token is of another subject than before.
        """
        new = self.identify(token, now)
        if old.subject is not None and new.subject != old.subject:
            raise forbidden("the token is of another subject than this connection")
        return new

    def _verified(self, token: str, now: float) -> dict[str, Any]:
        """The claims, once one key has proven them."""
        for key in self._candidates(token, now):
            try:
                return jwt.decode(
                    token,
                    key.material,
                    algorithms=[key.algorithm],
                    options=_OPTIONS,
                    audience=self._audience,
                    issuer=self._issuer,
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError as error:
                raise _refusal(error) from None
        raise unauthenticated("the token's signature is of no key that is known here")

    def _candidates(self, token: str, now: float) -> list[Key]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise _refusal(error) from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise unauthenticated(f"the token's algorithm is none of {', '.join(ALGORITHMS)}")
        found = self._find(algorithm, kid, now)
        if not found:
            renewed = [source.renew(now) for source in self._sources]
            if any(renewed):
                found = self._find(algorithm, kid, now)
        return found

    def _find(self, algorithm: str, kid: str | None, now: float) -> list[Key]:
        return [
            key
            for source in self._sources
            for key in source.keys(now)
            if key.algorithm == algorithm and (kid is None or key.kid is None or key.kid == kid)
        ]

    def _lifetime(self, claims: dict[str, Any], now: float) -> float | None:
        """When the token ends.

        Raises:
            AccessError: that is over, or it has not begun, or a time is no number.
        """
        leeway = self._leeway_seconds
        if max(_time(claims, "nbf") or 0.0, _time(claims, "iat") or 0.0) - leeway > now:
            raise unauthenticated("the token is not valid yet")
        expires = _time(claims, "exp")
        if expires is None:
            if self._require_expiry:
                raise unauthenticated("the token has no claim exp")
            return None
        if now >= expires + leeway:
            raise ExpiredError(CloseReason.UNAUTHORISED, "the token has expired")
        return expires + leeway


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise unauthenticated(f"the token's claim {name} is not a time in seconds since 1970")
    return float(value)


def _refusal(error: jwt.PyJWTError) -> AccessError:
    """In our words: PyJWT's may quote the token."""
    match error:
        case jwt.InvalidAudienceError() | jwt.MissingRequiredClaimError(claim="aud"):
            return unauthenticated("the token is for another audience (aud)")
        case jwt.InvalidIssuerError() | jwt.MissingRequiredClaimError(claim="iss"):
            return unauthenticated("the token is of another issuer (iss)")
        case _:
            return unauthenticated("the token is malformed")
