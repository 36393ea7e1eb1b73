"""How many upgrades per second one address may make. Pure: time is an argument.

The generic cell rate algorithm (ITU-T I.371): a bucket is one number, the time at which it is full again.
It admits at most `burst + per_second × t` in any `t` seconds.

An address is an IPv4 address or the /64 of an IPv6 address: a household has a /64 for itself. Who has more
of them is bounded by the limit of the server alone, see `SharedState.spend_upgrade`.

Memory: a bucket that is full again says nothing, so it is dropped. Buckets that are not full are kept, up
to `max_addresses`; above that the one that was used longest ago goes, and its address may burst anew. To
make that happen, a client must be admitted from `max_addresses` other addresses within the `burst /
per_second` seconds in which its own would have filled up anyway: it then owns more bursts than it gains.
Refused requests make no bucket and renew none.

All of this is of one process. The workers of a server do not know each other's buckets, so N of them
admit N times as much from an address whose connections they share. `Limit.among` gives each worker its
part of the rate and the whole burst: one address then gets no less than its burst, and in t seconds of
all workers together at most `N × burst + per_second × t`. The limit of the server is exact over its
workers: its one number is in shared memory, and `step` is called under a lock.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from odinws.access.peer import network_of

_ROUNDING_SECONDS = 1e-6  # so that a client that waits exactly as told is admitted
_DROPS = 2  # per admission, while there is one more at most: so the full ones go in the end


class Limit(NamedTuple):
    """A token bucket.

    Attributes:
        per_second: sustained rate, above 0.
        burst: how many at once, at least 1.
    """

    per_second: float
    burst: int

    def among(self, workers: int) -> Limit:
        """The limit of one of several workers: its part of the rate, the whole burst."""
        return Limit(self.per_second / workers, self.burst)


def step(due: float, now: float, limit: Limit) -> tuple[float, float]:
    """Take one from a bucket.

    Args:
        due: when the bucket is full again, in seconds of any clock; 0 or any past time: it is full.
        now: by the same clock, which must not be set back.

    Returns:
        When it is full again now, and 0.0; or `due` as it was, and how many seconds to wait, above 0.
    """
    interval = 1.0 / limit.per_second
    start = max(due, now)
    wait = start - now - (limit.burst - 1) * interval
    if wait > _ROUNDING_SECONDS:
        return due, wait
    return start + interval, 0.0


class Rates:
    """The buckets of one worker.

    Args:
        limit: of each address; None: there is none.
        max_addresses: buckets that are kept, at least 1; about 200 bytes each.
    """

    def __init__(self, limit: Limit | None, *, max_addresses: int = 65_536) -> None:
        self._limit = limit
        self._max_addresses = max_addresses
        self._due: OrderedDict[bytes, float] = OrderedDict()  # least recently admitted first

    def __len__(self) -> int:
        """Addresses whose buckets are kept."""
        return len(self._due)

    def admit(self, client: str, now: float) -> float:
        """Count an upgrade, unless it is too much.

        Args:
            client: its address, see `peer.client_address`; all that is no address is one client.
            now: monotonic seconds.

        Returns:
            0.0, or the seconds after which it would be admitted; then it was not counted.
        """
        if self._limit is None:
            return 0.0
        key = network_of(client)
        due, wait = step(self._due.get(key, -math.inf), now, self._limit)
        if not wait:
            self._keep(key, due, now)
        return wait

    def wait(self, client: str, now: float) -> float:
        """What `admit` would return; nothing is counted."""
        if self._limit is None:
            return 0.0
        return step(self._due.get(network_of(client), -math.inf), now, self._limit)[1]

    def _keep(self, key: bytes, due: float, now: float) -> None:
        self._due[key] = due
        self._due.move_to_end(key)
        for _ in range(_DROPS):
            oldest, full_at = next(iter(self._due.items()))
            if full_at > now and len(self._due) <= self._max_addresses:
                return
            del self._due[oldest]
