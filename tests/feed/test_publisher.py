"""`odinws.feed.publisher`, with a real nats-server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from odinws.feed.publisher import OptionError, Publisher, PublishOptions, PublishResult
from odinws.feed.simulator import Market, Spacing, token_names
from tests.nats import NatsServer

WAIT_SECONDS = 60.0
BUSY_SECONDS = 10.0  # by which a busy machine may be late


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


class Subscriber:
    """Collects everything on `subject`, in order of arrival."""

    def __init__(self, url: str, subject: str = "odin.>") -> None:
        self._url = url
        self._subject = subject
        self.messages: list[Msg] = []

    async def __aenter__(self) -> Subscriber:
        self._connection = await nats.connect(self._url)
        await self._connection.subscribe(self._subject, cb=self._take)
        await self._connection.flush()
        await self._connection.flush()  # the first PING may overtake the subscription
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def _take(self, message: Msg) -> None:
        self.messages.append(message)

    async def settled(self) -> list[Msg]:
        """Return what has arrived once everything sent so far is in."""
        await self._connection.flush()
        return self.messages


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def nonces(payloads: list[bytes]) -> list[str]:
    return [json.loads(payload)["nonce"] for payload in payloads]


def expected_nonces(seed: int, count: int, tokens: tuple[str, ...]) -> list[str]:
    market = Market(tokens, seed=seed)
    return nonces([market.price_update(tokens[number % len(tokens)], 0) for number in range(count)])


def test_count_and_order(server: NatsServer) -> None:
    """It publishes exactly `count` messages, in the schedule's order, and the server confirms them."""
    options = PublishOptions(nats_url=server.url, rate=2000.0, count=505, seed=7)

    async def run() -> tuple[PublishResult, list[Msg]]:
        async with Subscriber(server.url) as subscriber:
            return await Publisher(options).run(), await subscriber.settled()

    result, messages = asyncio.run(run())
    assert result.published == 505
    assert result.confirmed
    assert [message.subject for message in messages[:3]] == [
        "odin.token.BTC",
        "odin.token.ETH",
        "odin.token.ODIN",
    ]
    assert nonces([message.data for message in messages]) == expected_nonces(7, 505, tuple(options.tokens))


def test_bytes_follow_seed_and_timestamps(server: NatsServer) -> None:
    """A message is what a market of the same seed makes at the timestamp it carries."""
    options = PublishOptions(nats_url=server.url, rate=2000.0, count=40, seed=8)

    async def run() -> list[Msg]:
        async with Subscriber(server.url) as subscriber:
            await Publisher(options).run()
            return await subscriber.settled()

    market = Market(options.tokens, seed=8)
    for message in asyncio.run(run()):
        sent = json.loads(message.data)
        assert market.price_update(sent["tokenId"], sent["timestamp"]) == message.data


@pytest.mark.parametrize("spacing", Spacing)
def test_keeps_rate_and_duration(server: NatsServer, spacing: Spacing) -> None:
    """Over a duration it keeps the rate asked for, and ends on time."""
    options = PublishOptions(nats_url=server.url, rate=200.0, spacing=spacing, duration_seconds=1.0)
    result = asyncio.run(Publisher(options).run())
    assert result.published == 200
    assert 1.0 <= result.seconds < 1.0 + BUSY_SECONDS
    assert 200 / (1.0 + BUSY_SECONDS) < result.rate <= 200.0
    assert result.longest_late_seconds < BUSY_SECONDS


def test_statistics_and_prefix(server: NatsServer) -> None:
    """Statistics go to `<prefix>global`, prices to `<prefix>token.<token>`."""
    options = PublishOptions(
        nats_url=server.url,
        rate=50.0,
        tokens=token_names(12),
        prefix="x.y.",
        statistics_seconds=0.2,
        duration_seconds=0.5,
    )

    async def run() -> tuple[PublishResult, list[Msg]]:
        async with Subscriber(server.url, "x.y.>") as subscriber:
            return await Publisher(options).run(), await subscriber.settled()

    result, messages = asyncio.run(run())
    by_type: dict[str, list[str]] = {}
    for message in messages:
        by_type.setdefault(json.loads(message.data)["type"], []).append(message.subject)
    assert by_type["market:stats"] == ["x.y.global"] * 2
    assert set(by_type["price:update"]) == {f"x.y.token.{token}" for token in options.tokens}
    assert result.published == len(messages) == 2 + 36


def test_survives_a_killed_server(server: NatsServer) -> None:
    """Though killed and restarted, the server gets every message once, in order, by the schedule."""
    options = PublishOptions(nats_url=server.url, rate=20.0, count=60, seed=9)  # a burst of ten each 0.5 s
    outage_seconds, back_seconds, killed_ms = 0.3, 0.0, 0.0

    async def run() -> tuple[PublishResult, list[bytes]]:
        nonlocal back_seconds, killed_ms
        connection = await nats.connect(server.url)
        stream = connection.jetstream()
        await stream.add_stream(name="S", subjects=["odin.>"])
        publisher = Publisher(options)
        run = asyncio.create_task(publisher.run())

        async def stored() -> int:
            return (await stream.stream_info("S")).state.messages

        async with asyncio.timeout(WAIT_SECONDS):
            while await stored() < 20:  # the second burst is in, the third not due yet: nothing is on its way
                await asyncio.sleep(0.01)
        await connection.close()
        server.kill()
        killed_ms = time.time() * 1000
        await until(lambda: publisher.result().late_seconds > outage_seconds)
        assert not publisher.result().connected
        server.restart()
        await until(lambda: publisher.result().reconnects == 1)
        back_seconds = publisher.result().seconds
        result = await run
        connection = await nats.connect(server.url)
        stream = connection.jetstream()
        payloads = [(await stream.get_msg("S", seq)).data or b"" for seq in range(1, await stored() + 1)]
        await connection.close()
        return result, payloads

    result, payloads = asyncio.run(run())
    assert result.published == 60
    assert result.longest_late_seconds > outage_seconds
    assert result.error
    assert nonces(payloads) == expected_nonces(9, 60, tuple(options.tokens))
    assert result.seconds < max(back_seconds, 2.5) + 0.5, "the outage moved the schedule"
    waited_ms = json.loads(payloads[20])["timestamp"] - killed_ms
    assert waited_ms > outage_seconds * 1000, "what waited for NATS carries a stale time"


def test_waits_for_a_server_that_comes_later(server: NatsServer) -> None:
    """Started before the server, it waits and then publishes all of it."""
    server.kill()
    publisher = Publisher(PublishOptions(nats_url=server.url, rate=1000.0, count=20))

    async def run() -> PublishResult:
        run = asyncio.create_task(publisher.run())
        await until(lambda: publisher.result().error != "")
        assert publisher.result().published == 0
        server.restart()
        return await run

    result = asyncio.run(run())
    assert result.published == 20
    assert result.confirmed
    assert result.longest_late_seconds < BUSY_SECONDS, "the schedule starts with the first connection"


def test_falls_back_to_another_server(server: NatsServer) -> None:
    """Of several servers, it takes one that answers."""
    options = PublishOptions(nats_url=f"nats://127.0.0.1:1,{server.url}", rate=1000.0, count=20)
    assert asyncio.run(Publisher(options).run()).confirmed


@pytest.mark.parametrize("state", ["up", "paused", "down", "never up"])
def test_cancelling_ends_it_in_order(server: NatsServer, state: str) -> None:
    """Cancelled, it closes within its bound, whatever the server does, and still tells how far it came."""
    if state == "never up":
        server.kill()
    publisher = Publisher(PublishOptions(nats_url=server.url, rate=200.0))

    async def run() -> float:
        loop = asyncio.get_running_loop()
        run = asyncio.create_task(publisher.run(close_seconds=0.4))
        await until(
            lambda: (
                publisher.result().error != "" if state == "never up" else publisher.result().published >= 20
            )
        )
        if state == "paused":
            server.pause()
        elif state == "down":
            server.kill()
            await until(lambda: not publisher.result().connected)
        start = loop.time()
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        return loop.time() - start

    seconds = asyncio.run(run())
    assert seconds < 0.4 + BUSY_SECONDS
    result = publisher.result()
    assert result.confirmed is (state == "up")
    assert (result.published > 0) is (state != "never up")
    assert result == publisher.result(), "it still counts after its end"


def test_progress(server: NatsServer) -> None:
    """Progress is reported while it runs, also while NATS is away."""
    seen: list[PublishResult] = []
    publisher = Publisher(
        PublishOptions(nats_url=server.url, rate=100.0), progress=seen.append, progress_seconds=0.02
    )

    async def run() -> None:
        run = asyncio.create_task(publisher.run())
        await until(lambda: bool(seen) and seen[-1].published >= 20)
        assert seen[-1].connected
        server.kill()
        await until(lambda: seen[-1].late_seconds > 0.2)
        assert not seen[-1].connected
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run

    asyncio.run(run())
    assert [result.published for result in seen] == sorted(result.published for result in seen)


def test_an_unreachable_rate_is_told(server: NatsServer) -> None:
    """Asked for more than it can, it publishes all the same and tells rate and lateness."""
    options = PublishOptions(nats_url=server.url, rate=100_000_000.0, count=20_000)
    result = asyncio.run(Publisher(options).run())
    assert result.published == 20_000
    assert result.confirmed
    assert result.longest_late_seconds > 0.01
    assert result.rate == pytest.approx(20_000 / result.seconds, rel=0.05)


GOOD = PublishOptions(nats_url="nats://127.0.0.1:4222")


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("rate", {"rate": 0.0}),
        ("rate", {"rate": float("nan")}),
        ("rate", {"rate": float("inf")}),
        ("count", {"count": 0}),
        ("duration", {"duration_seconds": -1.0}),
        ("statistics", {"statistics_seconds": 0.0}),
        ("tokens", {"tokens": ()}),
        ("tokens", {"tokens": ("A", "A")}),
        ("tokens", {"tokens": ("A B",)}),
        ("tokens", {"tokens": ("*",)}),
        ("tokens", {"tokens": ("A" * 65,)}),
        ("prefix", {"prefix": "odin"}),
        ("prefix", {"prefix": "od*n."}),
        ("nats-url", {"nats_url": "http://127.0.0.1:4222"}),
        ("nats-url", {"nats_url": "nats://"}),
        ("nats-url", {"nats_url": "nats://127.0.0.1:99999"}),
        ("nats-url", {"nats_url": "nats://127.0.0.1:4222,"}),
    ],
)
def test_options_out_of_bounds(option: str, change: dict[str, object]) -> None:
    """An option out of bounds is refused, by name."""
    with pytest.raises(OptionError) as caught:
        replace(GOOD, **change)  # type: ignore[arg-type]
    assert caught.value.option == option
    assert caught.value.allowed in str(caught.value)


@pytest.mark.parametrize("url", ["https://user:secret@host", "secret@host", "user:secret@host", ""])
def test_a_bad_url_is_not_repeated(url: str) -> None:
    """A URL may hold a password, so the error does not repeat it."""
    with pytest.raises(OptionError) as caught:
        PublishOptions(nats_url=url)
    assert "secret" not in str(caught.value)
