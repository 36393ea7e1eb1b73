"""Where a request has its token. An input is `Authorization`, `Sec-WebSocket-Protocol` and the query.

One line each; an empty line is a header that is absent. A token is found, or not, or refused in a few words
that have nothing of it; one that was found has the form of a token, is not shown, and its URL can be
logged.
"""

from __future__ import annotations

import contextlib
import re
from urllib.parse import unquote_plus

from odinws.access.credentials import MAX_TOKEN_CHARACTERS, SUBPROTOCOL, check_form, find, redact
from odinws.access.errors import AccessError
from tests.fuzz.targets.base import assert_brief, assert_nothing_of, lines

_NAMES = ("token", "access_token")
_FORM = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")


def check(data: bytes) -> str:
    """Look at all three places."""
    authorization, protocols, query = lines(data, 3)
    _check_logged(query)
    try:
        token, subprotocol = found = find(authorization or None, protocols or None, query)
    except AccessError as error:
        assert_brief(error.message)
        for part in (authorization, protocols, query):
            assert_nothing_of(part, error.message)
        return f"{error.status} {error.message}"
    assert subprotocol in (None, SUBPROTOCOL)
    if token is None:
        return f"none {subprotocol}"
    assert _FORM.fullmatch(token)
    assert len(token) <= MAX_TOKEN_CHARACTERS
    check_form(token)
    assert_nothing_of(token, repr(found))
    return f"found {subprotocol}"


def read(data: bytes) -> int:
    """All of it in each place."""
    text = data.decode("latin-1")
    for places in ((text, None, ""), (None, text, ""), (None, None, text)):
        with contextlib.suppress(AccessError):
            find(*places)
    redact(f"GET /ws?{text} HTTP/1.1")
    return 0


def _check_logged(query: str) -> None:
    """A token in the query is not shown, unless it stands there a second time, as something else."""
    logged = redact(f"GET /ws?{query} HTTP/1.1")
    try:
        token = find(None, None, query).token
    except AccessError:
        return
    fields = [field.partition("=") for field in query.split("&")]
    plain = [value for name, _, value in fields if unquote_plus(name) in _NAMES]
    if token in plain and query.count(token) == 1:
        assert token not in logged, f"{logged!r} shows the token"
