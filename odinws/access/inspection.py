"""Who may read the inside (`/debug`, `/stats`, `server.stats`): this machine, or who has the token. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re

from odinws.access.proxies import Networks, parse_address, resolve

_HOST = re.compile(r"https?://(\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(?::[0-9]{1,5})?")


def may_inspect(
    peer: str,
    authorization: str | None,
    admin_token: str,
    *,
    x_forwarded_for: str | None = None,
    forwarded: str | None = None,
    trusted: Networks = (),
) -> bool:
    """Whether a request may see what is not for everybody.

    A proxy on this machine calls from loopback for the whole world. So a request that came through one is
    local only if a trusted proxy says so: by `X-Forwarded-For`, and without `Forwarded`, which is not read
    here and could say otherwise. A proxy that writes neither header can't be told from a local client.

    Args:
        peer: address of the other end of the socket.
        authorization: the header; None: absent.
        admin_token: what `Authorization: Bearer` must carry; empty: no token opens.
        x_forwarded_for: the header; None: absent.
        forwarded: the header of RFC 7239; None: absent.
        trusted: the proxies that are believed.
    """
    if _has_token(authorization, admin_token):
        return True
    if forwarded is not None:
        return False
    client = resolve(peer, x_forwarded_for, trusted)
    return client.certain and is_loopback(client.address)


def is_local_page(origin: str | None) -> bool:
    """Whether a request is of no page, or of a page that this machine served.

    A browser opens a WebSocket to this machine for whatever page its user looks at, so being local is not
    enough there. The name counts, not where it leads to: a foreign name may lead here too.

    Args:
        origin: the header; None: absent, as from programs.
    """
    if origin is None:
        return True
    host = _HOST.fullmatch(origin)
    return host is not None and (host[1] == "localhost" or is_loopback(host[1].strip("[]")))


def has_admin_token(given: str | None, admin_token: str) -> bool:
    """Whether this is the admin token; an empty one opens nothing."""
    if not admin_token or given is None:
        return False
    # Digests, so that not even the length shows in the time it takes.
    return hmac.compare_digest(_digest(given), _digest(admin_token))


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine: 127.0.0.0/8, also within IPv6, or ::1."""
    parsed = parse_address(address)
    return parsed is not None and parsed.is_loopback


def _has_token(authorization: str | None, admin_token: str) -> bool:
    scheme, _, given = (authorization or "").strip(" \t").partition(" ")
    return scheme.lower() == "bearer" and has_admin_token(given.strip(" \t"), admin_token)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
