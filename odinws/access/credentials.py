"""Where a request carries its token, and how a URL with one is logged. No input or output.

Three places, of which a request uses one:

- `Authorization: Bearer <token>`: the usual one; browsers can't set it for a WebSocket.
- `Sec-WebSocket-Protocol: odinws, bearer.<token>`: for browsers. The answer names `odinws`, never the
  token; a browser gives up a connection whose answer names none of what it offered.
- `?token=<token>` or `?access_token=<token>`: URLs end up in logs and histories, so the last resort.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from odinws.access.errors import AccessError, unauthenticated
from odinws.close_codes import CloseReason

SUBPROTOCOL = "odinws"
MAX_TOKEN_CHARACTERS = 8192

_BEARER = "bearer."
TOKEN_FIELDS = ("token", "access_token")  # of a query
_MAX_FIELDS = 64  # of a query
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")  # RFC 7515 section 7.1, signed
_FIELD_STARTS = re.compile(r"([?;#])")
_VERSION = re.compile(r" HTTP/[0-9.]+['\"]?$")


class Credentials(NamedTuple):
    """What a request brings.

    Attributes:
        token: of the form of a JWT and of bounded length, else unchecked; None: the request has none.
        subprotocol: `Sec-WebSocket-Protocol` of the answer; None: the answer has no such header.
    """

    token: str | None
    subprotocol: str | None

    def __repr__(self) -> str:
        """Without the token: this may get into a log."""
        return f"Credentials(token={'***' if self.token else None}, subprotocol={self.subprotocol!r})"


_NONE = Credentials(None, None)


def find(
    authorization: str | None,
    protocols: str | None,
    query: str,
    formats: Collection[str] = (),
    tokens: Sequence[str] = (),
) -> Credentials:
    """Find the token of a request, and the subprotocol to agree on.

    Args:
        authorization: the header; None: absent. A scheme other than Bearer is somebody else's business.
        protocols: `Sec-WebSocket-Protocol`, several headers joined with commas; None: absent.
        query: what follows `?` in the URL, still percent-encoded.
        formats: further subprotocols that are known, each of a wire format; the first one offered counts.
        tokens: that were found elsewhere in the request.

    Raises:
        AccessError: 401 for a token that can't be one, 400 for more than one or for a query or
            subprotocols that can't be answered.
    """
    if not authorization and not protocols and not query and not tokens:
        return _NONE
    offered = _offered(protocols)
    found = [part[len(_BEARER) :] for part in offered if part.startswith(_BEARER)]
    agreed = _agreed(offered, formats)
    if found and agreed is None:
        raise _bad_request(f"offer the subprotocol {SUBPROTOCOL} beside the token")
    scheme, _, rest = (authorization or "").strip(" \t").partition(" ")
    if scheme.lower() == "bearer":
        found.append(rest.strip(" \t"))
    found += [*_of_query(query), *tokens]
    if len(found) > 1:
        raise _bad_request("more than one token; send it once")
    if found:
        check_form(found[0])
    return Credentials(found[0] if found else None, agreed)


def without_token(protocols: str | None, formats: Collection[str] = ()) -> Credentials:
    """The subprotocol to agree on where nobody is asked for a token. One that is there is somebody else's."""
    return Credentials(None, _agreed(_offered(protocols), formats)) if protocols else _NONE


def check_form(token: str) -> None:
    """Look at length and form before anything decodes a token.

    Raises:
        AccessError: 401, it can't be a signed JWT.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise unauthenticated(f"the token is longer than {MAX_TOKEN_CHARACTERS} characters")
    if not _JWT.fullmatch(token):
        raise unauthenticated("the token is not a signed JWT")


def redact(target: str) -> str:
    """A path, query, URL or request line as it may be logged: the value of a token is `***`.

    Masks more rather than less: names in any case, also behind `;` and `#`, and all up to the next `&`.
    """
    return "&".join(_redact_part(part) for part in target.split("&"))


def _redact_part(part: str) -> str:
    pieces = _FIELD_STARTS.split(part)
    for place, piece in enumerate(pieces):
        name, found, _ = piece.partition("=")
        if found and unquote_plus(name).strip().lower() in TOKEN_FIELDS:
            version = _VERSION.search(part)
            return f"{''.join(pieces[:place])}{name}=***{version[0] if version else ''}"
    return part


def _offered(protocols: str | None) -> list[str]:
    return [part for part in (part.strip(" \t") for part in (protocols or "").split(",")) if part]


def _agreed(offered: list[str], formats: Collection[str]) -> str | None:
    return next((name for name in offered if name == SUBPROTOCOL or name in formats), None)


def _of_query(query: str) -> list[str]:
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise _bad_request(f"more than {_MAX_FIELDS} fields in the query") from None
    return [value for name, value in fields if name in TOKEN_FIELDS]


def _bad_request(message: str) -> AccessError:
    return AccessError(CloseReason.UNAUTHORISED, message, 400)
