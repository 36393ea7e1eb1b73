"""Addresses. An input is the peer's, `X-Forwarded-For` (empty: absent), and the trusted proxies, by line.

The proxies are refused by one line. Else the client's address is the peer's, or one that stands in the
header; and the peer's, if it is not trusted.
"""

from __future__ import annotations

from odinws.access.peer import NOBODY, UNIX, client_address, parse_address, parse_proxies
from tests.fuzz.targets.base import assert_one_line, lines

_TRUSTED = parse_proxies("10.0.0.0/8,::/0,0.0.0.0/0")


def check(data: bytes) -> str:
    """Read the proxies, then find the client."""
    peer, forwarded, text = lines(data, 3, "utf-8")
    try:
        proxies = parse_proxies(text)
    except ValueError as error:
        assert_one_line(str(error))
        proxies = NOBODY
    address = client_address(peer, forwarded or None, proxies)
    own = UNIX if peer == UNIX else parse_address(peer)
    if own is None:
        assert address == peer
        return "no address"
    assert address == UNIX or parse_address(address) is not None
    if not forwarded or not proxies.believe(own):
        assert address == str(own)
    elif address != str(own):
        assert any(_names(part, address) for part in forwarded.split(","))
    return f"{bool(forwarded)} {proxies != NOBODY} {address == str(own)}"


def read(data: bytes) -> int:
    """All of it as `X-Forwarded-For`, behind a proxy that is trusted, and through many of them."""
    client_address("10.0.0.1", data.decode("latin-1"), _TRUSTED)
    return 0


def _names(part: str, address: str) -> bool:
    """Whether an entry can be this address: as it is, or with brackets, quotes and a port."""
    if address == UNIX:
        return part.strip(" \t") == UNIX
    text = part.strip(' \t"')
    bare = text.partition("]")[0].strip("[")
    return address in {str(parse_address(each)) for each in (text, bare, text.rpartition(":")[0])}
