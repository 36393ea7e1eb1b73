"""What the connections of one client have had done together: their work has a price. Pure.

A client is an address, or the subject of a token. Each connection pays for its own work (`Connection.spend`).
What all of a client's together have had done is one number here: when they will have paid for it at the rate
that a client may have. For as long as that is further away than a burst, their work costs each of them more,
and the further, the more. So it settles where they are given just that rate, in equal shares: who asks for
little pays little and waits for nothing, whatever its neighbours at the same address do.

A client that owes nothing takes no memory. What it owes remains when its connections end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable

from odinws.access.rates import Limit

_DOUBLE_SECONDS = 0.1  # of debt beyond a burst, for which the price rises by 1
_LOOKS = 2  # at other clients for each that is new: so the paid ones go in the end


class SharedWork:
    """What the clients of one worker owe.

    Args:
        limit: units of work of one client, see `Connection.spend`.
    """

    def __init__(self, limit: Limit) -> None:
        self._unit_seconds = 1.0 / limit.per_second
        self._burst_seconds = limit.burst / limit.per_second
        self._paid_at: OrderedDict[Hashable, float] = OrderedDict()  # longest since it was looked at first

    def __len__(self) -> int:
        """Clients that are known."""
        return len(self._paid_at)

    def charge(self, clients: Collection[Hashable], units: float, now: float) -> float:
        """Charge work to each of these.

        Args:
            clients: those that a connection is of.
            units: of work.
            now: monotonic seconds.

        Returns:
            The price of a unit for the connection: 1.0, or more while one of them owes much.
        """
        known, excess = self._paid_at, 0.0
        for client in clients:
            paid_at = known.get(client)
            if paid_at is None:
                self._forget_some(now)
                paid_at = now
            known[client] = paid_at = max(paid_at, now) + units * self._unit_seconds
            excess = max(excess, paid_at - now - self._burst_seconds)
        return 1.0 + excess / _DOUBLE_SECONDS

    def debt(self, client: Hashable, now: float) -> float:
        """Seconds until all that a client has had done is paid; 0.0: it owes nothing."""
        return max(0.0, self._paid_at.get(client, now) - now)

    def _forget_some(self, now: float) -> None:
        known = self._paid_at
        for _ in range(min(_LOOKS, len(known))):
            client = next(iter(known))
            if known[client] <= now:
                del known[client]
            else:
                known.move_to_end(client)
