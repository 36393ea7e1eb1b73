"""A simulated market, and the schedule of its messages. Pure.

Time is an argument, and randomness comes from a seed: the same seed, the same order of calls and the same
timestamps give the same bytes.

The defaults resemble the feed that the server was first measured with: ten tokens, about 209 bytes of JSON
each, all at one instant, so that 19.2 messages/s are a burst of ten every 0.52 s.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

DEFAULT_RATE = 19.2  # messages/s over all tokens, as in the original feed
DEFAULT_PREFIX = "odin."
DEFAULT_STATISTICS_SECONDS = 30.0

TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")

_DAY_MS = 86_400_000
_RANGE = 10.0  # a price stays between a tenth and ten times its first value

# token: (first price, coins in circulation, largest relative change of the price in one message)
_LISTED: dict[str, tuple[float, float, float]] = {
    "BTC": (67_000.0, 19_700_000.0, 0.001),
    "ETH": (3_500.0, 120_000_000.0, 0.0015),
    "ODIN": (0.42, 21_000_000_000.0, 0.004),
    "SOL": (150.0, 465_000_000.0, 0.002),
    "DOGE": (0.14, 145_000_000_000.0, 0.003),
    "USDT": (1.0, 112_000_000_000.0, 0.00001),
    "BNB": (590.0, 147_000_000.0, 0.0015),
    "XRP": (0.53, 55_000_000_000.0, 0.002),
    "ADA": (0.45, 35_700_000_000.0, 0.002),
    "MATIC": (0.71, 9_900_000_000.0, 0.002),
}
TOKENS: tuple[str, ...] = tuple(_LISTED)


class Spacing(enum.StrEnum):
    """How the messages of one round (one message of each token) are spread over time."""

    BURST = "burst"
    """All at one instant, then silence until the next round."""
    EVEN = "even"
    """One at a time, at equal distances."""


class Kind(enum.Enum):
    """What a scheduled message carries."""

    PRICE = enum.auto()
    STATISTICS = enum.auto()


class Due(NamedTuple):
    """One message of a schedule."""

    due_seconds: float
    """Since the start of the schedule."""
    subject: str
    kind: Kind
    token: str
    """Empty for statistics."""


class _Coin:
    """One token's random walk. It has its own random source, so other tokens do not affect its prices."""

    __slots__ = (
        "_day",
        "_high",
        "_low",
        "_random",
        "_step",
        "price",
        "reference",
        "supply",
        "token",
        "volume",
    )

    def __init__(self, token: str, seed: int) -> None:
        self._random = random.Random(f"{seed}:{token}")
        made_up = (self._random.uniform(0.01, 100.0), self._random.uniform(1e8, 1e10), 0.002)
        first, self.supply, self._step = _LISTED.get(token, made_up)
        self.token = token
        self.price = first
        self.reference = first * (
            1.0 + self._random.uniform(-20.0, 20.0) * self._step
        )  # the price of 24 hours ago
        self.volume = first * self.supply * self._random.uniform(0.01, 0.05)
        self._low, self._high = first / _RANGE, first * _RANGE
        self._day = -1

    @property
    def change_percent(self) -> float:
        return (self.price / self.reference - 1.0) * 100.0

    def step(self, timestamp_ms: int) -> str:
        """Advance the price by one step, and return a nonce."""
        day = timestamp_ms // _DAY_MS
        if day != self._day:
            # The reference price is updated once a day, so that the change shown is over 24 hours even after
            # months. The first day keeps the initial reference.
            if self._day >= 0:
                self.reference = self.price
            self._day = day
        moved = self.price * (1.0 + self._random.uniform(-self._step, self._step))
        self.price = min(max(moved, self._low), self._high)
        # The volume reverts to 3 % of the capitalisation, so it neither vanishes nor explodes.
        self.volume += (self.price * self.supply * 0.03 - self.volume) * 0.01 * self._random.random()
        return f"{self._random.getrandbits(64):016x}"


class Market:
    """The state of all tokens.

    Args:
        tokens: Names, each matching `TOKEN_PATTERN`. Unlisted names get a made-up price.
        seed: Decides every price and nonce.

    Not promised: the same bytes across versions of this module.
    """

    def __init__(self, tokens: Sequence[str] = TOKENS, *, seed: int) -> None:
        self._coins = {token: _Coin(token, seed) for token in tokens}
        self._random = random.Random(seed)

    def price_update(self, token: str, timestamp_ms: int) -> bytes:
        """Advance `token` by one step and return its message, about 209 bytes of compact JSON.

        Raises:
            KeyError: The market has no such token.
        """
        coin = self._coins[token]
        nonce = coin.step(timestamp_ms)
        # Formatted by hand, as json.dumps can't set the precision of a price. Names need no escaping.
        return (
            f'{{"type":"price:update","tokenId":"{token}","price":{coin.price:.8g},'
            f'"volume24h":{coin.volume:.0f},"marketCap":{coin.price * coin.supply:.0f},'
            f'"priceChange24h":{coin.change_percent:.2f},"timestamp":{timestamp_ms},'
            f'"source":"odinws-simulator","nonce":"{nonce}"}}'
        ).encode("ascii")

    def statistics(self, timestamp_ms: int) -> bytes:
        """Return the market as a whole, as one JSON object. Prices do not move."""
        coins = self._coins.values()
        rising = sum(coin.price > coin.reference for coin in coins)
        leader = max(coins, key=lambda coin: coin.change_percent)
        return (
            f'{{"type":"market:stats","tokens":{len(coins)},'
            f'"totalMarketCap":{sum(coin.price * coin.supply for coin in coins):.0f},'
            f'"totalVolume24h":{sum(coin.volume for coin in coins):.0f},'
            f'"rising":{rising},"falling":{len(coins) - rising},"leader":"{leader.token}",'
            f'"timestamp":{timestamp_ms},"source":"odinws-simulator",'
            f'"nonce":"{self._random.getrandbits(64):016x}"}}'
        ).encode("ascii")


def token_names(count: int) -> tuple[str, ...]:
    """Return `count` token names: the listed ones first, then `T011`, `T012` and so on."""
    made_up = (f"T{number:03}" for number in itertools.count(len(TOKENS) + 1))
    return tuple(itertools.islice(itertools.chain(TOKENS, made_up), count))


def schedule(
    *,
    rate: float,
    tokens: Sequence[str],
    spacing: Spacing,
    prefix: str = DEFAULT_PREFIX,
    statistics_seconds: float | None = None,
) -> Iterator[Due]:
    """Yield messages and their due times, in order, forever.

    Args:
        rate: Price messages per second over all tokens together; above 0. Statistics come on top.
        tokens: At least one. Every round has each of them once, in this order.
        spacing: Whether a round is one instant or spread evenly.
        prefix: Of every subject: `<prefix>token.<token>` and `<prefix>global`.
        statistics_seconds: Distance of the statistics, the first after one distance; None for none.

    Each due time is computed from the start, so rounding errors do not accumulate.
    """
    prices = _prices(rate, tokens, spacing, prefix)
    if statistics_seconds is None:
        return prices
    statistics = (
        Due(number * statistics_seconds, f"{prefix}global", Kind.STATISTICS, "")
        for number in itertools.count(1)
    )
    return heapq.merge(prices, statistics, key=lambda due: due.due_seconds)


def _prices(rate: float, tokens: Sequence[str], spacing: Spacing, prefix: str) -> Iterator[Due]:
    named = [(f"{prefix}token.{token}", token) for token in tokens]
    size = len(named)
    for first in itertools.count(0, size):
        for offset, (subject, token) in enumerate(named):
            number = first if spacing is Spacing.BURST else first + offset
            yield Due(number / rate, subject, Kind.PRICE, token)
