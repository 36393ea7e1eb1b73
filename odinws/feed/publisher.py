"""Publishes the simulated market to NATS.

The schedule is absolute: a late message does not delay those after it. If NATS becomes unavailable, the
publisher waits for it, however long, then sends what has become due meanwhile, with current timestamps, and
reports how late it was.

It uses core publishing, so delivery is at most once: what the server had not read when it died is lost, but
counts as published. Nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from odinws.errors import OdinError
from odinws.feed import simulator
from odinws.feed.simulator import Due, Kind, Market, Spacing

CLOSE_SECONDS = 2.0
_CONNECT_SECONDS = 2
_PING_SECONDS = 5  # a peer that vanished silently is noticed after about three of them
_BACKOFF_SECONDS = 2.0  # the maximum; with full jitter
_MESSAGES_PER_YIELD = 64  # while late: the connection's own tasks must run between them
_SCHEMES = ("nats", "tls", "ws", "wss")
_MAX = 1_000_000_000  # of any number: a slip of the hand above that
_PREFIX_PATTERN = re.compile(r"([A-Za-z0-9_-]+\.)*")


class OptionError(OdinError):
    """A publisher's option is out of bounds.

    Attributes:
        option: Its name, such as `rate`.
        value: What was given.
        allowed: What is allowed, in words.
    """

    def __init__(self, option: str, value: object, allowed: str) -> None:
        super().__init__(f"{option} is {value!r}: must be {allowed}")
        self.option = option
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOptions:
    """What to publish, where, how fast and how long. Without `count` and `duration_seconds`: forever.

    Raises:
        OptionError: A value is out of bounds.
    """

    nats_url: str
    """One server, or several with commas between them."""
    rate: float = simulator.DEFAULT_RATE
    """Price messages per second over all tokens together. Statistics come on top."""
    tokens: Sequence[str] = simulator.TOKENS
    spacing: Spacing = Spacing.BURST
    seed: int | None = None
    """Decides prices and nonces; None for a new one each time."""
    count: int | None = None
    """End after so many messages, statistics included."""
    duration_seconds: float | None = None
    """End after this time, counted from the first connection; what came due before is still sent."""
    prefix: str = simulator.DEFAULT_PREFIX
    """Of every subject; empty, or words that each end with a dot."""
    statistics_seconds: float | None = None
    """Distance of the market statistics on `<prefix>global`; None for none."""

    def __post_init__(self) -> None:
        for url in self.nats_url.split(","):
            if not _is_nats_url(url):
                # The value is not quoted: it may contain a password.
                raise OptionError("nats-url", "…", "nats://host:port, or several with commas between them")
        for option, number in (
            ("rate", self.rate),
            ("count", self.count),
            ("duration", self.duration_seconds),
            ("statistics", self.statistics_seconds),
        ):
            if number is not None and not 0 < number <= _MAX:
                raise OptionError(option, number, f"a number above 0, at most {_MAX:,}")
        if not self.tokens or len(set(self.tokens)) < len(self.tokens):
            raise OptionError("tokens", ",".join(self.tokens), "at least one name, none of them twice")
        for token in self.tokens:
            if not simulator.TOKEN_PATTERN.fullmatch(token):
                raise OptionError("tokens", token, "names of 1 to 64 of A-Z a-z 0-9 _ -")
        if not _PREFIX_PATTERN.fullmatch(self.prefix):
            raise OptionError(
                "prefix", self.prefix, "empty, or words of A-Z a-z 0-9 _ - that each end with a dot"
            )


def _is_nats_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


@dataclass(frozen=True, slots=True)
class PublishResult:
    """The progress of a publisher, or its result."""

    published: int
    """Messages handed to a live connection."""
    seconds: float
    """Since the first connection, up to now or to the end; 0 before it."""
    rate: float
    """Achieved price messages per second, to be compared with the requested rate."""
    late_seconds: float
    """How long after its due time the last message went out, or how long the next one is overdue by now."""
    longest_late_seconds: float
    reconnects: int
    connected: bool
    error: str
    """The last error of NATS or of the connection to it; empty if there was none."""
    confirmed: bool
    """Whether the server answered after the last message: then it has read all those of this connection."""


class Publisher:
    """One run over one schedule.

    Args:
        options: What to do.
        progress: Called every `progress_seconds` while running, also while NATS is away.
    """

    def __init__(
        self,
        options: PublishOptions,
        *,
        progress: Callable[[PublishResult], None] | None = None,
        progress_seconds: float = 1.0,
    ) -> None:
        self._options = options
        self._progress = progress
        self._progress_seconds = progress_seconds
        seed = random.getrandbits(64) if options.seed is None else options.seed
        self._market = Market(options.tokens, seed=seed)
        self._connection = _NatsConnection(options.nats_url)
        self._prices = self._statistics = 0
        self._late = self._longest_late = 0.0
        self._sending_due_seconds: float | None = None  # due time of the message that is being sent
        self._started: float | None = None
        self._ended: float | None = None
        self._confirmed = False

    async def run(self, *, close_seconds: float = CLOSE_SECONDS) -> PublishResult:
        """Publish until the end of the schedule, then have the server confirm, and close the connection.

        Cancelling ends it early, but as orderly: `result` then tells how far it came. Closing takes at most
        `close_seconds`. A connection error is never raised: the publisher waits and reconnects.

        Raises:
            nats.errors.MaxPayloadError: The server does not accept messages of this size.
        """
        reporting = asyncio.create_task(self._report())
        try:
            await self._connection.client()
            self._started = time.monotonic()
            await self._follow_schedule(self._started)
        finally:
            self._ended = time.monotonic()
            reporting.cancel()
            self._confirmed = await self._connection.close(close_seconds)
        return self.result()

    def result(self) -> PublishResult:
        """Return how far the run has come."""
        seconds, late = 0.0, self._late
        if self._started is not None:
            seconds = (time.monotonic() if self._ended is None else self._ended) - self._started
            if self._sending_due_seconds is not None:
                late = max(late, seconds - self._sending_due_seconds)
        # A message stands for the time until the next one is due: a run that ends right after a burst is not
        # credited with a rate above the one it kept.
        span = max(seconds, self._prices / self._options.rate + self._late)
        return PublishResult(
            published=self._prices + self._statistics,
            seconds=seconds,
            rate=self._prices / span if self._prices else 0.0,
            late_seconds=late,
            longest_late_seconds=max(late, self._longest_late),
            reconnects=self._connection.reconnects,
            connected=self._connection.connected,
            error=self._connection.error,
            confirmed=self._confirmed,
        )

    async def _follow_schedule(self, started: float) -> None:
        sent_without_sleep = 0
        for due in self._due():
            delay = started + due.due_seconds - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
                sent_without_sleep = 0
            elif (sent_without_sleep := sent_without_sleep + 1) % _MESSAGES_PER_YIELD == 0:
                await asyncio.sleep(0)
            self._sending_due_seconds = due.due_seconds
            client = await self._connection.client()
            # Encoded only now, so that a message that waited for NATS has the time at which it is sent.
            await client.publish(due.subject, self._payload(due))
            self._late = max(time.monotonic() - started - due.due_seconds, 0.0)
            self._longest_late = max(self._longest_late, self._late)
            self._sending_due_seconds = None
        if self._options.duration_seconds is not None and self._options.count is None:
            await asyncio.sleep(max(started + self._options.duration_seconds - time.monotonic(), 0.0))

    def _due(self) -> Iterator[Due]:
        options = self._options
        due = simulator.schedule(
            rate=options.rate,
            tokens=options.tokens,
            spacing=options.spacing,
            prefix=options.prefix,
            statistics_seconds=options.statistics_seconds,
        )
        if (limit := options.duration_seconds) is not None:
            due = itertools.takewhile(lambda message: message.due_seconds < limit, due)
        return itertools.islice(due, options.count)

    def _payload(self, due: Due) -> bytes:
        timestamp_ms = time.time_ns() // 1_000_000
        if due.kind is Kind.STATISTICS:
            self._statistics += 1
            return self._market.statistics(timestamp_ms)
        self._prices += 1
        return self._market.price_update(due.token, timestamp_ms)

    async def _report(self) -> None:
        if self._progress is None:
            return
        while True:
            await asyncio.sleep(self._progress_seconds)
            self._progress(self.result())


class _NatsConnection:
    """A connection to NATS that is replaced whenever it is lost.

    nats-py's own reconnecting is off: its delay is fixed where many clients need jitter, and its first
    connection follows other rules than the later ones.
    """

    def __init__(self, url: str) -> None:
        self._urls = url.split(",")
        self._client: Client | None = None
        self.reconnects = 0
        self.error = ""

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def client(self) -> Client:
        """Return a connected client, waiting for the server as long as it takes."""
        if self._client is not None and self._client.is_connected:
            return self._client
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((OSError, nats.errors.Error)),  # asyncio's timeouts are OSErrors
            wait=wait_random_exponential(multiplier=0.05, max=_BACKOFF_SECONDS),
        )
        client: Client = await retrying(self._connect)
        self.reconnects += self._client is not None
        self._client = client
        return client

    async def close(self, timeout_seconds: float) -> bool:
        """Close the connection within `timeout_seconds`; True when the server has read all that was sent."""
        if self._client is None:
            return False
        confirmed = False
        # TimeoutError is among the OSErrors. A quarter is kept back for closing.
        with contextlib.suppress(OSError, nats.errors.Error):
            async with asyncio.timeout(timeout_seconds * 0.75):
                # nats-py writes a PING at once, ahead of messages that still wait for its flusher. Only the
                # second PING is sure to come after them.
                await self._client.flush()
                await self._client.flush()
                confirmed = True
        with contextlib.suppress(OSError, nats.errors.Error):
            async with asyncio.timeout(timeout_seconds * 0.25):
                await self._client.close()
        return confirmed

    async def _connect(self) -> Client:
        client = Client()
        try:
            await client.connect(
                self._urls,
                name="odinws-publisher",
                allow_reconnect=False,
                max_reconnect_attempts=1,  # the least it knows: it dials twice
                reconnect_time_wait=0,
                connect_timeout=_CONNECT_SECONDS,
                ping_interval=_PING_SECONDS,
                error_cb=self._note,
            )
        except BaseException:  # cancelled too: it would reconnect for ever
            await client.close()
            raise
        return client

    async def _note(self, error: Exception) -> None:
        self.error = str(error) or type(error).__name__
