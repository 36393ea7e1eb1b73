"""What goes wrong with access, as exceptions below `odinws.errors.OdinError`. No message holds a secret."""

from __future__ import annotations

from odinws.close_codes import CloseReason
from odinws.errors import OdinError

_STATUS = {CloseReason.UNAUTHORISED: 401, CloseReason.FORBIDDEN: 403}
_CODE = {CloseReason.UNAUTHORISED: "UNAUTHORISED", CloseReason.FORBIDDEN: "FORBIDDEN"}


class AccessError(OdinError):
    """A client may not do what it asks for.

    Attributes:
        reason: how an open connection ends for it: UNAUTHORISED (4401) or FORBIDDEN (4403).
        message: for people, at most 100 characters; never a token or a part of one.
        status: the HTTP status before the upgrade: 401, 403, or 400 for a request that contradicts itself.
        code: of an error frame.
    """

    def __init__(self, reason: CloseReason, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.status = _STATUS[reason] if status is None else status
        self.code = _CODE[reason]

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the HTTP answer must carry: a 401 names the scheme (RFC 9110 section 11.6.1)."""
        return (("WWW-Authenticate", "Bearer"),) if self.status == 401 else ()


class ExpiredError(AccessError):
    """The token was good, and has expired."""


class LimitError(AccessError):
    """The token's subject has as many connections as it may have."""


class KeysError(OdinError):
    """A source of keys gives none that can be used.

    Attributes:
        source: the file, or a name for what is no file.
        problem: what is wrong with it; never a key or a part of one.
    """

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem


def unauthenticated(message: str) -> AccessError:
    """Who the client is could not be established: 401 and 4401."""
    return AccessError(CloseReason.UNAUTHORISED, message)


def forbidden(message: str) -> AccessError:
    """The client is known and may not: 403 and 4403."""
    return AccessError(CloseReason.FORBIDDEN, message)
