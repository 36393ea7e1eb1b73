"""Each replay gives the same messages, and a NATS that went away is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from odinws.experiment import feed as experiment_feed
from odinws.experiment.feed import Feed, FeedLostError, recording
from odinws.experiment.plan import Feed as FeedPlan
from odinws.feed import stream
from odinws.settings import Settings

_PLAN = FeedPlan(rate=200.0, tokens=10, spacing="even")
_SECONDS = 0.2
_MESSAGES = 40


def test_replays_are_the_same(tmp_path: Path) -> None:
    """The same payloads under the same sequences, though clients came more slowly the second time."""
    first, second = asyncio.run(_two_replays(tmp_path))
    assert len(first) == _MESSAGES
    assert first == second


async def _two_replays(directory: Path) -> list[list[tuple[int, bytes]]]:
    found: list[list[tuple[int, bytes]]] = []
    async with Feed.started(directory) as feed:
        for _ in range(2):
            await feed.clear()
            await stream.find_or_create(feed._js, Settings.from_environ({}))
            messages = recording(_PLAN, _SECONDS, seed=3)
            come = asyncio.Event()
            leading = asyncio.create_task(feed.lead_in(messages, _SECONDS, 0.5, come))
            if found:  # clients that are late
                while await feed._mark() <= 200:
                    pass
            come.set()
            await leading
            replay = await feed.replay(messages, _SECONDS)
            assert (replay.first_seq, replay.last_seq) == (6002, 6001 + _MESSAGES)
            found.append(
                [
                    (seq, (await feed._js.get_msg(experiment_feed.STREAM, seq)).data or b"")
                    for seq in range(replay.first_seq, replay.last_seq + 1)
                ]
            )
    return found


def test_no_publisher(tmp_path: Path) -> None:
    """A rate of 0 is a feed too: of nothing, for as long."""

    async def silence() -> int:
        async with Feed.started(tmp_path) as feed:
            plan = FeedPlan(rate=0.0)
            await stream.find_or_create(feed._js, Settings.from_environ({}))
            replay = await feed.replay(recording(plan, _SECONDS, seed=3), _SECONDS)
            return replay.last_seq - replay.first_seq + 1

    assert asyncio.run(silence()) == 0


def test_nats_goes_away(tmp_path: Path) -> None:
    """It is told, even though the server is started again by itself."""

    async def lose() -> None:
        async with Feed.started(tmp_path) as feed:
            messages = recording(_PLAN, 60.0, seed=3)
            await stream.find_or_create(feed._js, Settings.from_environ({}))
            replaying = asyncio.create_task(feed.replay(messages, 60.0))
            await feed._mark()
            assert feed.pid is not None
            os.kill(feed.pid, signal.SIGKILL)
            await replaying

    with pytest.raises(FeedLostError, match="NATS was lost"):
        asyncio.run(lose())
