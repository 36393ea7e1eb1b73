"""Targeting keys that make the shares of a `fractional` rule exact to a worker. Pure.

flagd hashes flag and targetingKey to one of 2^32 numbers and cuts these by the weights. The numbers of a few
workers fall anywhere: of four workers with a share of 25 % none may have it, or three. So each of the n
places of a server gets the key `deployment/host/place#salt`, with the first salt whose number falls just
above the middle of the place's own stratum, the rank-th of n equal parts. Then a share s, counted from the
start of the rule, has the places of the lowest round(s·n) ranks, for every s that is a whole percent: exact,
the same after each restart, and a larger share only adds places. A share between two workers' worth
(s·n = 2.5) has the fewer. Ranks are drawn by deployment and host, so that a small share meets other places
on other hosts.
"""

from __future__ import annotations

import hashlib

import cbor2
import mmh3

FLAG = "shard-strategy"
_HASHES = 1 << 32
_PARTS = 100  # of a stratum; the number falls into the first one above its middle
_SALT_DIGITS = 8


def rank(deployment: str, host: str, ordinal: int, places: int) -> int:
    """When the place gets a growing share: 0 is the first, `places` - 1 the last."""

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{deployment}/{host}/{index}".encode()).digest()

    return sorted(range(places), key=draw).index(ordinal)


def _encode(targeting_key: str) -> bytes:
    return cbor2.dumps([FLAG, targeting_key], canonical=True)


def targeting_key(deployment: str, host: str, ordinal: int, places: int) -> str:
    """The key of a place.

    It takes `_PARTS` × `places` tries or so: 0.2 ms for four places, 5 ms for a hundred.

    Args:
        place: from 0; one that is no place of these, of a worker beyond `places`, shares another's stratum.
        places: workers of the server, at least 1.
    """
    at = rank(deployment, host, ordinal % places, places)
    low = ((2 * at + 1) * _HASHES) // (2 * places) + 1
    high = low + _HASHES // (places * _PARTS)
    key = f"{deployment}/{host}/{ordinal}#"
    encoded = _encode(key + "0" * _SALT_DIGITS)[:-_SALT_DIGITS]  # of all keys that differ in the salt
    for number in range(10**_SALT_DIGITS):
        salt = f"{number:0{_SALT_DIGITS}}"
        if low <= mmh3.hash(encoded + salt.encode(), signed=False) < high:
            return key + salt
    raise AssertionError("unreachable: no salt of so many fits")
