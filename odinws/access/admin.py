"""Who may use the admin plane: hosts, pages, the token. No input or output: time is an argument.

On this machine alone the address itself keeps strangers out, but not pages in a browser of this machine: any
page may send requests to it. What tells them apart:

- `Host` names what the browser believes it talks to. A page under a foreign name that leads here (DNS
  rebinding) has that name.
- `Origin` comes with every WebSocket and every POST of a page, `Sec-Fetch-Site` with all else, images and
  links too. Programs send neither.

A token is never sent by a browser on its own, so whoever brings it is no foreign page.

A proxy on this machine brings strangers to the address and often names itself as `Host`, so what one says it
forwards needs a token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import unquote

from odinws.access.credentials import SUBPROTOCOL
from odinws.access.peer import is_loopback, parse_address
from odinws.access.rates import Limit, Rates

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_OWN_SITE = (None, "none", "same-origin")  # none: typed, or a bookmark
_BEARER = "bearer."
WRONG_GUESSES = Limit(0.2, 10)  # of one address, and of one worker


class AdminRequest(NamedTuple):
    """What a request brings; headers that are absent are None.

    Attributes:
        peer: address of the other end of the socket; "" for a Unix socket.
        protocols: `Sec-WebSocket-Protocol`: a page can't set `Authorization` for a WebSocket.
        is_forwarded: a proxy says that it forwards it, see `peer.is_forwarded`.
        is_open: it asks for what everybody who reaches the address may have: the page without its figures.
    """

    peer: str
    host: str | None = None
    origin: str | None = None
    fetch_site: str | None = None
    authorization: str | None = None
    protocols: str | None = None
    is_forwarded: bool = False
    is_open: bool = False


class Denied(NamedTuple):
    """A refusal, as HTTP says it."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


class Gate:
    """Decides on requests to the admin plane of one worker.

    Args:
        host: that the plane is bound to; "": a Unix socket.
        token: what a request must bring; "": none, then `host` must be of this machine.
        peers: origins of other servers' admin pages that may watch this server.
    """

    def __init__(self, host: str, token: str, peers: Collection[str] = ()) -> None:
        self._host = host.lower()
        address = parse_address(host)
        self._on_all = address is not None and address.is_unspecified
        self._token = _digest(token) if token else b""
        self._peers = frozenset(peers)
        self._guesses = Rates(WRONG_GUESSES)

    def denied(self, asked: AdminRequest, now: float) -> Denied | None:
        """Why a request may not go on; None: it may.

        Args:
            now: monotonic seconds.
        """
        if asked.is_forwarded and not self._token:
            return Denied(403, "forwarded", "a proxy forwards this: set WS_ADMIN_TOKEN to let others in")
        given = _token_of(asked)
        if self._token and given is not None:
            denied = self._check(given, asked.peer, now)
            if denied is not None:
                return denied
        elif not self._is_host(asked.host):
            return Denied(403, "host", "it has no such name: ask for it by its address, or as localhost")
        if asked.origin is not None:
            if not self._is_own(asked.origin, asked.host) and asked.origin not in self._peers:
                return Denied(403, "origin", "pages of other sites may not ask here")
        elif asked.fetch_site not in _OWN_SITE:
            return Denied(403, "site", "pages of other sites may not ask here: open this address by itself")
        if self._token and given is None and not asked.is_open:
            return _unauthorised("no_token", "WS_ADMIN_TOKEN is needed, as a bearer token")
        return None

    def _check(self, given: str, peer: str, now: float) -> Denied | None:
        wait = self._guesses.wait(peer, now)
        if wait:
            headers = (("Retry-After", str(max(1, round(wait)))),)
            return Denied(429, "guesses", "too many wrong tokens from this address", headers)
        # Digests, so that not even the length shows in the time it takes.
        if hmac.compare_digest(_digest(given), self._token):
            return None
        self._guesses.admit(peer, now)
        return _unauthorised("wrong_token", "this is not WS_ADMIN_TOKEN")

    def _is_host(self, host: str | None) -> bool:
        if host is None:  # no browser
            return True
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = match[1].strip("[]")
        address = parse_address(name)
        if address is not None and self._on_all:  # an address is no name that could be made to lead here
            return True
        return name in ("localhost", self._host) or is_loopback(name)

    @staticmethod
    def _is_own(origin: str, host: str | None) -> bool:
        scheme, _, site = origin.partition("://")
        return scheme in ("http", "https") and host is not None and site.lower() == host.lower()


def _token_of(asked: AdminRequest) -> str | None:
    """What the request brings as a token."""
    scheme, _, given = (asked.authorization or "").strip(" \t").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip(" \t")
    offered = [part.strip(" \t") for part in (asked.protocols or "").split(",")]
    if SUBPROTOCOL in offered:
        return next((unquote(part[len(_BEARER) :]) for part in offered if part.startswith(_BEARER)), None)
    return None


def _unauthorised(code: str, message: str) -> Denied:
    return Denied(401, code, message, (("WWW-Authenticate", "Bearer"),))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
