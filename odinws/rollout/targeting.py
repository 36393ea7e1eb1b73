"""Targeting keys that make the shares of a `fractional` rule exact to a worker. Pure.

flagd hashes flag and targetingKey to one of 2^32 numbers and cuts these by the weights. The numbers of a few
workers fall anywhere: of four workers with a share of 25 % none may have it, or three. So each of the n
workers of a server gets the key `deployment/host/ordinal#salt`, with the first salt whose number falls just
above the middle of the worker's own stratum, the rank-th of n equal parts. Then a share s, counted from the
start of the rule, has the workers of the lowest round(s·n) ranks, for every s that is a whole percent: exact,
the same after each restart, and a larger share only adds workers. A share between two workers' worth
(s·n = 2.5) has the fewer. Ranks are drawn by deployment and host, so that a small share meets other workers
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


def rank(deployment: str, host: str, ordinal: int, workers: int) -> int:
    """When the worker gets a growing share: 0 is the first, `workers` - 1 the last."""

    def draw(index: int) -> bytes:
        return hashlib.sha256(f"{deployment}/{host}/{index}".encode()).digest()

    return sorted(range(workers), key=draw).index(ordinal)


def _encode(targeting_key: str) -> bytes:
    return cbor2.dumps([FLAG, targeting_key], canonical=True)


def targeting_key(deployment: str, host: str, ordinal: int, workers: int) -> str:
    """The key of a worker.

    It takes `_PARTS` × `workers` tries or so: 0.2 ms for four workers, 5 ms for a hundred.

    Args:
        ordinal: from 0; one beyond `workers` shares the stratum of another.
        workers: workers of the server, at least 1.
    """
    at = rank(deployment, host, ordinal % workers, workers)
    low = ((2 * at + 1) * _HASHES) // (2 * workers) + 1
    high = low + _HASHES // (workers * _PARTS)
    key = f"{deployment}/{host}/{ordinal}#"
    encoded = _encode(key + "0" * _SALT_DIGITS)[:-_SALT_DIGITS]  # of all keys that differ in the salt
    for number in range(10**_SALT_DIGITS):
        salt = f"{number:0{_SALT_DIGITS}}"
        if low <= mmh3.hash(encoded + salt.encode(), signed=False) < high:
            return key + salt
    raise AssertionError("unreachable: no salt of so many fits")
