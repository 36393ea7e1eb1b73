"""`odinws.access.errors`: what goes on the wire and into HTTP for each kind of refusal."""

from __future__ import annotations

from odinws.access.errors import AccessError, KeysError, forbidden, unauthenticated
from odinws.close_codes import CloseReason
from odinws.errors import OdinError


def test_unauthenticated() -> None:
    """401 with the scheme to use, 4401, and a code for error frames."""
    error = unauthenticated("why")
    assert (error.status, error.reason.code, error.code, error.message) == (401, 4401, "UNAUTHORISED", "why")
    assert error.headers == (("WWW-Authenticate", "Bearer"),)


def test_forbidden() -> None:
    """403 and 4403; no other scheme would help."""
    error = forbidden("why")
    assert (error.status, error.reason.code, error.code, str(error)) == (403, 4403, "FORBIDDEN", "why")
    assert error.headers == ()


def test_a_request_that_contradicts_itself() -> None:
    """400 asks for no credentials."""
    error = AccessError(CloseReason.UNAUTHORISED, "why", 400)
    assert (error.status, error.headers) == (400, ())


def test_keys_error() -> None:
    """One line with source and problem; both errors are of the server's tree."""
    error = KeysError("keys.json", "not JSON")
    assert (str(error), error.source, error.problem) == ("keys.json: not JSON", "keys.json", "not JSON")
    assert isinstance(error, OdinError)
    assert isinstance(forbidden(""), OdinError)
