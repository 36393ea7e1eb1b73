"""Who may read the inside of the server (`/debug`, `/stats`): this machine, or who has the token. Pure."""

from __future__ import annotations

import hashlib
import hmac

from odinws.access.proxies import Networks, parse_address, resolve


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


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine: 127.0.0.0/8, also within IPv6, or ::1."""
    parsed = parse_address(address)
    return parsed is not None and parsed.is_loopback


def _has_token(authorization: str | None, admin_token: str) -> bool:
    scheme, _, given = (authorization or "").strip(" \t").partition(" ")
    if not admin_token or scheme.lower() != "bearer":
        return False
    # Digests, so that not even the length shows in the time it takes.
    return hmac.compare_digest(_digest(given.strip(" \t")), _digest(admin_token))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
