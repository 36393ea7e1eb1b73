"""Who the client is, also when proxies stand before the server, and whether it may inspect the server. Pure.

Each proxy appends to `X-Forwarded-For` the address that it was called from. What a trusted proxy wrote is
true; what stood there before it is its caller's word. So the header is read from the right, for as long as
the addresses are trusted proxies: the first that is none is the client.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNIX = "unix:"
"""The other end of a Unix socket, as nginx calls it: a process of this machine."""

MAX_HOPS = 16

_HOST = re.compile(r"https?://(\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(?::[0-9]{1,5})?")
_MAX_CHARACTERS = 64  # of an address with its port
_CACHED = 1024  # addresses; one connection needs each several times, and `ipaddress` is slow
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


class Proxies(NamedTuple):
    """The proxies that are believed.

    Attributes:
        networks: that they are in.
        unix: whether the other end of a Unix socket is one.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False

    def believe(self, hop: Address | str) -> bool:
        """Whether an address, or `UNIX`, is one of them."""
        return self.unix if isinstance(hop, str) else any(hop in network for network in self.networks)


NOBODY = Proxies()


class Resolved(NamedTuple):
    """What the header came to.

    Attributes:
        address: of the client, else of the last proxy that could be believed.
        certain: whether it is the client's: False if the other end is not believed but says that it
            forwards, or if the proxy that was believed last named nobody.
    """

    address: str
    certain: bool


def parse_proxies(text: str) -> Proxies:
    """Read comma-separated networks or addresses (`10.0.0.0/8, ::1`), and `unix:`.

    Raises:
        ValueError: one is none, or has bits behind its prefix; the text names it.
    """
    networks: list[Network] = []
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part in ("", UNIX):
            continue
        try:
            network = ip_network(part)
        except ValueError:
            expected = f"an address, a network as 10.1.0.0/16 whose host bits are 0, or {UNIX}"
            raise ValueError(f"{part!r} is no network: expected {expected}") from None
        if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
            raise ValueError(f"{part!r} is a network of IPv4: write it as one")
        networks.append(network)
    return Proxies(tuple(networks), UNIX in parts)


def parse_address(text: str) -> Address | None:
    """An address as it compares: IPv4 in IPv6 as IPv4, without the zone of a link. None if it is none."""
    return _parse(text) if len(text) <= _MAX_CHARACTERS else None


@lru_cache(_CACHED)
def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def network_of(address: str) -> bytes:
    """Who an address stands for where connections or requests are counted: itself, or the /64 of IPv6.

    A household has a /64 for itself. All that is no address is one client, b"".
    """
    parsed = parse_address(address)
    return b"" if parsed is None else parsed.packed[: 4 if parsed.version == 4 else 8]


def client_address(peer: str, x_forwarded_for: str | None, trusted: Proxies) -> str:
    """The client's address, in its shortest form; see `resolve`."""
    return resolve(peer, x_forwarded_for, trusted).address


def resolve(peer: str, x_forwarded_for: str | None, trusted: Proxies) -> Resolved:
    """Walk from the peer towards the client.

    Args:
        peer: address of the other end of the socket, or `UNIX`; what is neither is given back as it is.
        x_forwarded_for: the header, several joined with commas; None: absent.
        trusted: the proxies that are believed.

    Returns:
        The first address that is no trusted proxy. If all are, the one farthest from here. An entry that is
        no address ends the walk, as do 16 proxies: the last one believed is given, and `certain` is False.
    """
    if x_forwarded_for is None:
        return _direct(peer)
    hop = UNIX if peer == UNIX else parse_address(peer)
    if hop is None or not trusted.believe(hop):
        return Resolved(peer if hop is None else str(hop), False)
    parts = x_forwarded_for.rsplit(",", MAX_HOPS)
    unread = parts.pop(0) if len(parts) > MAX_HOPS else None
    for part in reversed(parts):
        entry = UNIX if trusted.unix and part.strip(" \t") == UNIX else _entry(part)
        if entry is None:
            return Resolved(str(hop), False)
        hop = entry
        if not trusted.believe(hop):
            return Resolved(str(hop), True)
    return Resolved(str(hop), unread is None)


@lru_cache(_CACHED)
def _direct(peer: str) -> Resolved:
    """Of a peer that does not say that it forwards."""
    if peer == UNIX:
        return Resolved(UNIX, True)
    address = parse_address(peer)
    return Resolved(peer, False) if address is None else Resolved(str(address), True)


def _entry(part: str) -> Address | None:
    """The address of an entry, which may have a port and quotes."""
    text = part.strip(" \t").strip('"')
    if "%" in text:  # a zone may hold anything
        return None
    match = _WITH_PORT.fullmatch(text)
    return parse_address((match[1] or match[2]) if match else text)


def may_inspect(
    peer: str,
    authorization: str | None,
    admin_token: str,
    *,
    x_forwarded_for: str | None = None,
    forwarded: str | None = None,
    trusted: Proxies = NOBODY,
) -> bool:
    """Whether a request may see what is not for everybody.

    A proxy on this machine calls from loopback, or over a Unix socket, for the whole world. So a request that
    came through one is local only if a trusted proxy says so: by `X-Forwarded-For`, and without `Forwarded`,
    which is not read here and could say otherwise. A proxy that writes neither header can't be told from a
    local client.

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


@lru_cache(_CACHED)
def is_loopback(address: str) -> bool:
    """Whether an address is of this machine: 127.0.0.0/8, also within IPv6, ::1, or `UNIX`."""
    if address == UNIX:
        return True
    parsed = parse_address(address)
    return parsed is not None and parsed.is_loopback


def _has_token(authorization: str | None, admin_token: str) -> bool:
    scheme, _, given = (authorization or "").strip(" \t").partition(" ")
    return scheme.lower() == "bearer" and has_admin_token(given.strip(" \t"), admin_token)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
