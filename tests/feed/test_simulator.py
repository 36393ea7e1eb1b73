"""`odinws.feed.simulator`: the simulated market and its schedule."""

from __future__ import annotations

import itertools
import json
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.feed.simulator import TOKENS, Due, Kind, Market, Spacing, schedule, token_names

NOW_MS = 1_761_350_244_123
DAY_MS = 86_400_000

rates = st.floats(min_value=0.1, max_value=100_000.0)
spacings = st.sampled_from(Spacing)
token_lists = st.integers(min_value=1, max_value=40).map(token_names)


def take(count: int, rate: float, tokens: tuple[str, ...], spacing: Spacing) -> list[Due]:
    return list(itertools.islice(schedule(rate=rate, tokens=tokens, spacing=spacing), count))


class TestMarket:
    def test_size(self) -> None:
        """A message is about 209 bytes, whichever token and however long the walk."""
        market = Market(seed=1)
        sizes = [len(market.price_update(token, NOW_MS + step)) for step in range(2000) for token in TOKENS]
        assert abs(statistics.mean(sizes) - 209) < 3
        assert min(sizes) >= 195
        assert max(sizes) <= 220

    def test_price_update_fields(self) -> None:
        """A price message is JSON with the predecessor's fields, in its order."""
        message = json.loads(Market(seed=1).price_update("ODIN", NOW_MS))
        assert list(message) == [
            "type",
            "tokenId",
            "price",
            "volume24h",
            "marketCap",
            "priceChange24h",
            "timestamp",
            "source",
            "nonce",
        ]
        assert message["type"] == "price:update"
        assert message["tokenId"] == "ODIN"
        assert message["timestamp"] == NOW_MS

    def test_statistics(self) -> None:
        """Market statistics add up over all tokens and move no price."""
        market = Market(seed=1)
        caps = sum(json.loads(market.price_update(token, NOW_MS))["marketCap"] for token in TOKENS)
        first, second = (json.loads(market.statistics(NOW_MS)) for _ in range(2))
        assert first["type"] == "market:stats"
        assert first["tokens"] == first["rising"] + first["falling"] == len(TOKENS)
        assert first["totalMarketCap"] == pytest.approx(caps, abs=len(TOKENS))
        assert first.pop("nonce") != second.pop("nonce")
        assert first == second

    @given(st.integers(), st.lists(st.sampled_from([*TOKENS, ""]), max_size=30))
    def test_same_seed_same_bytes(self, seed: int, calls: list[str]) -> None:
        """The same seed, calls and timestamps give the same bytes."""

        def run() -> list[bytes]:
            market = Market(seed=seed)
            return [
                market.price_update(token, NOW_MS + step) if token else market.statistics(NOW_MS + step)
                for step, token in enumerate(calls)
            ]

        assert run() == run()

    def test_other_seed_other_prices(self) -> None:
        """Another seed gives other prices."""
        assert Market(seed=1).price_update("BTC", NOW_MS) != Market(seed=2).price_update("BTC", NOW_MS)

    def test_tokens_are_independent(self) -> None:
        """What one token does changes nothing about another."""
        alone, among = Market(["BTC"], seed=3), Market(seed=3)
        for token in TOKENS[1:]:
            among.price_update(token, NOW_MS)
        assert alone.price_update("BTC", NOW_MS) == among.price_update("BTC", NOW_MS)

    def test_nonces_differ(self) -> None:
        """No two messages of a run have the same nonce."""
        market = Market(seed=4)
        nonces = [json.loads(market.price_update(t, NOW_MS))["nonce"] for _ in range(500) for t in TOKENS]
        assert len(set(nonces)) == len(nonces)

    def test_price_stays_in_range(self) -> None:
        """A walk without end leaves no token worthless or beyond bounds."""
        market = Market(["DOGE"], seed=5)
        first = json.loads(market.price_update("DOGE", NOW_MS))["price"]
        prices = [json.loads(market.price_update("DOGE", NOW_MS))["price"] for _ in range(20_000)]
        assert len(set(prices)) > 15_000
        assert first / 11 < min(prices) < max(prices) < first * 11

    def test_change_starts_anew_each_day(self) -> None:
        """The change over 24 hours is measured from the day's start, not from the first message ever."""
        market = Market(["ODIN"], seed=6)
        for _ in range(5000):
            before = json.loads(market.price_update("ODIN", NOW_MS))
        after = json.loads(market.price_update("ODIN", NOW_MS + DAY_MS))
        assert abs(before["priceChange24h"]) > 1.0
        assert abs(after["priceChange24h"]) <= 0.4

    def test_unknown_token(self) -> None:
        """A token the market was not made with is refused."""
        with pytest.raises(KeyError):
            Market(["BTC"], seed=1).price_update("ETH", NOW_MS)


class TestTokenNames:
    @given(st.integers(min_value=0, max_value=2000))
    def test_count(self, count: int) -> None:
        """There are as many different names as asked for, the listed ones first."""
        names = token_names(count)
        assert len(set(names)) == len(names) == count
        assert names[:10] == TOKENS[:count]

    def test_made_up_tokens_have_prices(self) -> None:
        """A market of made-up tokens works like any other."""
        names = token_names(200)
        market = Market(names, seed=1)
        assert json.loads(market.price_update(names[-1], NOW_MS))["price"] > 0


class TestSchedule:
    @given(rates, token_lists, spacings)
    def test_order(self, rate: float, tokens: tuple[str, ...], spacing: Spacing) -> None:
        """It starts at once and never goes back in time."""
        due = [message.due_seconds for message in take(200, rate, tokens, spacing)]
        assert due[0] == 0
        assert due == sorted(due)

    @given(rates, token_lists, spacings)
    def test_each_round_has_every_token_once(
        self, rate: float, tokens: tuple[str, ...], spacing: Spacing
    ) -> None:
        """No token is published more often than another."""
        messages = take(5 * len(tokens), rate, tokens, spacing)
        for first in range(0, len(messages), len(tokens)):
            assert tuple(message.token for message in messages[first : first + len(tokens)]) == tokens

    @given(rates, token_lists)
    def test_burst(self, rate: float, tokens: tuple[str, ...]) -> None:
        """Bursts have all tokens at one instant, and lie len(tokens) / rate apart."""
        bursts = Counter(m.due_seconds for m in take(6 * len(tokens), rate, tokens, Spacing.BURST))
        assert set(bursts.values()) == {len(tokens)}
        assert list(bursts) == pytest.approx([number * len(tokens) / rate for number in range(6)])

    @given(rates, token_lists)
    def test_even(self, rate: float, tokens: tuple[str, ...]) -> None:
        """Even spacing has one message each 1 / rate seconds."""
        due = [message.due_seconds for message in take(100, rate, tokens, Spacing.EVEN)]
        assert due == pytest.approx([number / rate for number in range(100)])

    @given(rates, token_lists, spacings)
    def test_no_drift(self, rate: float, tokens: tuple[str, ...], spacing: Spacing) -> None:
        """After many rounds the due time is exactly that of the count, not a sum of rounded steps."""
        rounds = 300
        last = take(rounds * len(tokens) + 1, rate, tokens, spacing)[-1]
        assert last.due_seconds == rounds * len(tokens) / rate

    @given(rates, token_lists, spacings, st.floats(min_value=0.01, max_value=100.0))
    def test_statistics(
        self, rate: float, tokens: tuple[str, ...], spacing: Spacing, every_seconds: float
    ) -> None:
        """Statistics come on top, each at its time, and change nothing about the prices."""
        mixed = list(
            itertools.islice(
                schedule(rate=rate, tokens=tokens, spacing=spacing, statistics_seconds=every_seconds), 300
            )
        )
        prices = [message for message in mixed if message.kind is Kind.PRICE]
        extra = [message for message in mixed if message.kind is Kind.STATISTICS]
        assert prices == take(len(prices), rate, tokens, spacing)
        assert [m.due_seconds for m in extra] == [(n + 1) * every_seconds for n in range(len(extra))]
        assert {message.subject for message in extra} <= {"odin.global"}
        assert [m.due_seconds for m in mixed] == sorted(m.due_seconds for m in mixed)

    def test_original_feed(self) -> None:
        """By default ten tokens at 19.2 messages/s come as a burst of ten every 0.52 s."""
        messages = take(30, 19.2, TOKENS, Spacing.BURST)
        assert {m.due_seconds for m in messages} == {0.0, 10 / 19.2, 20 / 19.2}
        assert messages[2].subject == "odin.token.ODIN"

    def test_prefix(self) -> None:
        """The prefix stands before every subject."""
        messages = schedule(rate=1.0, tokens=["A"], spacing=Spacing.EVEN, prefix="x.", statistics_seconds=0.5)
        assert {next(messages).subject for _ in range(4)} == {"x.token.A", "x.global"}
