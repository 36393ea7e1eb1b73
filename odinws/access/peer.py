"""Who the client is, also when proxies stand before the server. Pure.

Each proxy appends to `X-Forwarded-For` the address that it was called from. What a trusted proxy wrote is
true; what stood there before it is its caller's word. So the header is read from the right, for as long as
the addresses are trusted proxies: the first that is none is the client.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNIX = "unix:"
"""The other end of a Unix socket, as nginx calls it: a process of this machine."""

MAX_HOPS = 16

_MAX_CHARACTERS = 64  # of an address with its port
_CACHED = 1024  # addresses; one connection needs each several times, and `ipaddress` is slow
# What proxies add, in the names of WSGI.
_FORWARDING = frozenset(
    f"HTTP_{name}"
    for name in (
        "FORWARDED", "VIA", "X_REAL_IP", "X_CLIENT_IP", "CLIENT_IP", "X_CLUSTER_CLIENT_IP",
        "TRUE_CLIENT_IP", "CF_CONNECTING_IP", "CF_RAY", "FASTLY_CLIENT_IP", "X_ENVOY_EXTERNAL_ADDRESS",
        "X_ORIGINAL_FORWARDED_FOR", "X_FORWARDED", "X_FORWARDED_BY", "X_FORWARDED_FOR", "X_FORWARDED_HOST",
        "X_FORWARDED_PORT", "X_FORWARDED_PREFIX", "X_FORWARDED_PROTO", "X_FORWARDED_SCHEME",
        "X_FORWARDED_SERVER", "X_FORWARDED_SSL", "X_FORWARDED_URI",
    )
)  # fmt: skip
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


@lru_cache(_CACHED)
def network_of(address: str) -> bytes:
    """Who an address stands for where connections or requests are counted: itself, or the /64 of IPv6.

    A household has a /64 for itself. All that is no address is one client, b"".
    """
    parsed = parse_address(address)
    return b"" if parsed is None else parsed.packed[: 4 if parsed.version == 4 else 8]


def client_address(peer: str, x_forwarded_for: str | None, trusted: Proxies) -> str:
    """Walk from the peer towards the client.

    Args:
        peer: address of the other end of the socket, or `UNIX`; what is neither is given back as it is.
        x_forwarded_for: the header, several joined with commas; None: absent.
        trusted: the proxies that are believed.

    Returns:
        The first address that is no trusted proxy, in its shortest form. If all are, the one farthest from
        here. An entry that is no address ends the walk, as do 16 proxies: the last one believed is given.
    """
    hop = UNIX if peer == UNIX else parse_address(peer)
    if hop is None:
        return peer
    if x_forwarded_for is not None and trusted.believe(hop):
        for part in reversed(x_forwarded_for.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            entry = UNIX if trusted.unix and part.strip(" \t") == UNIX else _entry(part)
            if entry is None:
                break
            hop = entry
            if not trusted.believe(hop):
                break
    return str(hop)


def is_local(peer: str, environ: Collection[str]) -> bool:
    """Whether a request is of a program on this machine, as far as one can tell.

    Its socket is local, and no header says that anybody forwards it. A proxy on this machine that sets no
    header at all can't be told from a local program.

    Args:
        peer: address of the other end of the socket.
        environ: names of a WSGI environ.
    """
    return is_loopback(peer) and not is_forwarded(environ)


def is_forwarded(environ: Collection[str]) -> bool:
    """Whether a header says that somebody forwards a request.

    Args:
        environ: names of a WSGI environ.
    """
    return not _FORWARDING.isdisjoint(environ)


def _entry(part: str) -> Address | None:
    """The address of an entry, which may have a port and quotes."""
    text = part.strip(" \t").strip('"')
    if "%" in text:  # a zone may hold anything
        return None
    match = _WITH_PORT.fullmatch(text)
    return parse_address((match[1] or match[2]) if match else text)


@lru_cache(_CACHED)
def is_loopback(address: str) -> bool:
    """Whether an address is of this machine: 127.0.0.0/8, also within IPv6, ::1, or `UNIX`."""
    if address == UNIX:
        return True
    parsed = parse_address(address)
    return parsed is not None and parsed.is_loopback
