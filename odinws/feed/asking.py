"""From a greenlet to asyncio and back: something is asked in the feed's event loop, and the asker waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import gevent
import nats.errors
from gevent.event import AsyncResult

from odinws.errors import FeedError

_SPARE_SECONDS = 1.0  # for an event loop that is busy

T = TypeVar("T")


def ask(loop: asyncio.AbstractEventLoop, question: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
    """Run a coroutine in another greenlet's event loop and wait for what it gives.

    Raises:
        FeedError: NATS does not answer in time, or not with what is asked for.
    """
    answer: AsyncResult = AsyncResult()

    async def run() -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                answer.set(await question)
        except Exception as error:  # noqa: BLE001 - the one who asked shall know
            answer.set_exception(error)

    loop.call_soon_threadsafe(loop.create_task, run())
    try:
        return cast("T", answer.get(timeout=timeout_seconds + _SPARE_SECONDS))
    except (nats.errors.Error, OSError, TimeoutError, gevent.Timeout) as error:
        raise FeedError(f"NATS does not answer: {type(error).__name__}") from error
