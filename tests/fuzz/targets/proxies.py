"""Addresses. An input is the peer's, `X-Forwarded-For` (empty: absent), and the trusted networks, by line.

The networks are refused by one line. Else the client's address is the peer's, or one that stands in the
header; and the peer's, if it is not trusted.
"""

from __future__ import annotations

from odinws.access.peer import parse_address, parse_networks, resolve
from tests.fuzz.targets.base import assert_one_line, lines


def check(data: bytes) -> str:
    """Read the networks, then find the client."""
    peer, forwarded, text = lines(data, 3, "utf-8")
    try:
        networks = parse_networks(text)
    except ValueError as error:
        assert_one_line(str(error))
        networks = ()
    address, certain = resolve(peer, forwarded or None, networks)
    own = parse_address(peer)
    if own is None:
        assert (address, certain) == (peer, False)
        return "no address"
    assert parse_address(address) is not None
    if not forwarded:
        assert (address, certain) == (str(own), True)
    elif not any(own in network for network in networks):
        assert (address, certain) == (str(own), False)
    elif address != str(own):
        assert any(_names(part, address) for part in forwarded.split(","))
    return f"{certain} {bool(forwarded)} {bool(networks)} {address == str(own)}"


def _names(part: str, address: str) -> bool:
    """Whether an entry can be this address: as it is, or with brackets, quotes and a port."""
    text = part.strip(' \t"')
    bare = text.partition("]")[0].strip("[")
    return address in {str(parse_address(each)) for each in (text, bare, text.rpartition(":")[0])}
