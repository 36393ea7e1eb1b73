"""The feed of an experiment: recorded once, and replayed to each trial.

The experiment runs a nats-server of its own. The simulated market of the plan's seed is recorded once, each
message with the time at which it is due. For a trial the stream that the servers consume is made anew, and
what was recorded is published into it with the same payloads and the same spacing. So message n of one trial
is message n of every other, and arms are paired by `seq`, counted from the first of the replay.

Delivery is timed from when NATS took a message, so a replay that is late makes no arm look slow. How late it
was is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from odinws.errors import OdinError
from odinws.experiment.plan import Feed as FeedPlan
from odinws.feed import simulator
from odinws.feed.embedded import EmbeddedNats, EmbeddedNatsError
from odinws.feed.simulator import DEFAULT_PREFIX, Market, Spacing

STREAM = "ODIN_TOKENS"
"""What the servers of the arms consume; also the default of JS_STREAM_NAME."""

_EPOCH_MS = 1_761_350_400_000  # of the payloads' timestamps: the same bytes in every run
_ANSWER_SECONDS = 5
_FILLING = f"{DEFAULT_PREFIX}filling"  # servers count such messages as ignored
_LEAST_STEP = 500
_STEP_SECONDS = 30.0  # trials whose lead-ins differ by less begin at one `seq`, nearly always
_PING_SECONDS = 2
_TROUBLE = (nats.errors.Error, OSError)  # asyncio's timeouts are OSErrors


class FeedLostError(OdinError):
    """NATS went away. Every trial that ran is spoilt, so the run can't go on."""

    def __init__(self, error: object) -> None:
        super().__init__(f"NATS was lost: {error}")


class Recorded(NamedTuple):
    due_seconds: float
    subject: str
    payload: bytes


@functools.cache
def recording(plan: FeedPlan, seconds: float, seed: int) -> Sequence[Recorded]:
    """The messages that are due within `seconds`, the same ones each time; none for a rate of 0."""
    if not plan.rate:
        return []
    tokens = simulator.token_names(plan.tokens)
    market = Market(tokens, seed=seed)
    schedule = simulator.schedule(
        rate=plan.rate, tokens=tokens, spacing=Spacing(plan.spacing), prefix=DEFAULT_PREFIX
    )
    return [
        Recorded(due, subject, market.price_update(token, _EPOCH_MS + int(1000 * due)))
        for due, subject, _, token in itertools.takewhile(lambda d: d.due_seconds < seconds, schedule)
    ]


class Replay(NamedTuple):
    """What a trial was given."""

    first_seq: int
    last_seq: int
    longest_late_seconds: float


class Feed:
    """What is published on a nats-server of the experiment's own."""

    def __init__(self, server: EmbeddedNats, client: Client) -> None:
        self._server = server
        self._client = client
        self._js = client.jetstream(timeout=_ANSWER_SECONDS)
        self.url = server.url
        self.pid = server.pid  # of the nats-server that was started

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, directory: Path) -> AsyncIterator[Self]:
        """One with its data in a directory, which is made if missing.

        Raises EmbeddedNatsError when NATS does not come up.
        """
        directory.mkdir(parents=True, exist_ok=True)
        client = Client()
        async with EmbeddedNats(directory) as server:
            try:
                await client.connect(
                    server.url,
                    name="odinws-experiment",
                    allow_reconnect=False,
                    ping_interval=_PING_SECONDS,
                    max_outstanding_pings=2,
                    error_cb=_ignore,
                )
            except _TROUBLE as error:
                raise EmbeddedNatsError(f"NATS does not answer: {error}") from error
            try:
                yield cls(server, client)
            finally:
                with contextlib.suppress(*_TROUBLE):  # it is gone already
                    await client.close()

    def check(self) -> None:
        """Raises FeedLostError when NATS has gone away since the start, even if it has come back."""
        if self._server.pid != self.pid:
            raise FeedLostError("the nats-server ended and was started again")
        if not self._client.is_connected:
            raise FeedLostError(self._client.last_error or "the connection is closed")

    async def clear(self) -> None:
        """Remove the stream of the servers: the next server makes a new one. Raises FeedLostError."""
        with _needing_nats(), contextlib.suppress(nats.js.errors.NotFoundError):
            await self._js.delete_stream(STREAM)

    async def lead_in(
        self, messages: Sequence[Recorded], period: float, seconds: float, enough: asyncio.Event
    ) -> None:
        """Replay again and again for `seconds`; then on, second by second, until `enough`.

        Then the stream is filled up with messages that are no channel's, so that the replay that follows
        begins at the same `seq` in each trial, however long its clients took. Raises FeedLostError.

        Args:
            period: what the recording covers, in seconds.
        """
        await self._play(_stretched(messages, period, seconds), seconds)
        while not enough.is_set():
            await self._play(_stretched(messages, period, 1.0), 1.0)
        step = max(_LEAST_STEP, math.ceil(len(messages) / period * _STEP_SECONDS))
        filling = -await self._mark() % step
        await self._play([Recorded(0.0, _FILLING, b"{}")] * filling, 0.0)

    async def replay(self, messages: Sequence[Recorded], seconds: float) -> Replay:
        """Replay once in `seconds`. Raises FeedLostError: NATS went away, or did not take all messages."""
        before = await self._mark()
        late = await self._play(messages, seconds)
        after = await self._mark()
        taken = after - before - 1
        if taken != len(messages):
            raise FeedLostError(f"its stream took {taken} of {len(messages)} messages")
        return Replay(before + 1, after - 1, late)

    async def _mark(self) -> int:
        """Publish a message that is no channel's; its `seq`, once it and all before it are in the stream."""
        with _needing_nats():
            seq = (await self._js.publish(_FILLING, b"{}", stream=STREAM)).seq
        # nats-py relies on `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes
        # together with the answer.
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError
        return seq

    async def _play(self, messages: Sequence[Recorded], seconds: float) -> float:
        started, late = time.monotonic(), 0.0
        for message in messages:
            remaining = started + message.due_seconds - time.monotonic()
            if remaining > 0:
                await asyncio.sleep(remaining)
            else:
                late = max(late, -remaining)
            with _needing_nats():
                await self._client.publish(message.subject, message.payload)
        await asyncio.sleep(max(0.0, started + seconds - time.monotonic()))
        return late


@contextlib.contextmanager
def _needing_nats() -> Iterator[None]:
    try:
        yield
    except _TROUBLE as error:
        raise FeedLostError(error) from error


def _stretched(messages: Sequence[Recorded], period: float, seconds: float) -> list[Recorded]:
    """What is due within `seconds`, if the messages come again after each `period`."""
    again = itertools.product(range(math.ceil(seconds / period)), messages)
    repeated = (message._replace(due_seconds=n * period + message.due_seconds) for n, message in again)
    return list(itertools.takewhile(lambda message: message.due_seconds < seconds, repeated))


async def _ignore(error: Exception) -> None:
    """`check` and the calls themselves tell; nats-py would log."""
