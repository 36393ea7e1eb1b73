"""Clients of centrifuge-python in one process, in an environment of its own."""

from __future__ import annotations

import asyncio

from centrifuge import (
    Client,
    ClientEventHandler,
    ConnectingContext,
    DisconnectedContext,
    ErrorContext,
    PublicationContext,
    SubscribedContext,
    SubscribingContext,
    SubscriptionEventHandler,
    UnsubscribedContext,
)

from tests.sdks.agents.lines import emit, plan, run

PLAN = plan()


class OfClient(ClientEventHandler):
    """Notes what becomes of a connection."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def on_connecting(self, ctx: ConnectingContext) -> None:
        """It is lost, or asked for."""
        if ctx.code:
            emit("lost", self.number, ctx.code, ctx.reason)

    async def on_disconnected(self, ctx: DisconnectedContext) -> None:
        """It ends for good."""
        emit("error", self.number, f"ended: {ctx.code} {ctx.reason}")

    async def on_error(self, ctx: ErrorContext) -> None:
        """It goes on all the same."""
        emit("lost", self.number, ctx.code, str(ctx.error))


class OfSubscription(SubscriptionEventHandler):
    """Notes what comes of a subscription."""

    def __init__(self, number: int, channel: str) -> None:
        self.number = number
        self.channel = channel

    async def on_subscribing(self, ctx: SubscribingContext) -> None:
        """It is lost, or asked for."""
        if ctx.code > 1:
            emit("lost", self.number, ctx.code, ctx.reason)

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        """It is there, perhaps again."""
        at = ctx.stream_position
        emit("subscribed", self.number, self.channel, at.epoch, at.offset, ctx.was_recovering, ctx.recovered)

    async def on_publication(self, ctx: PublicationContext) -> None:
        """One message."""
        channel = ctx.pub.tags.get("channel", self.channel)
        emit("message", self.number, self.channel, channel, ctx.pub.offset)

    async def on_unsubscribed(self, ctx: UnsubscribedContext) -> None:
        """It ends for good."""
        emit("error", self.number, f"{self.channel} ended: {ctx.code} {ctx.reason}")


async def follow(number: int, channels: list[str]) -> None:
    """Connect and subscribe."""
    longest = PLAN["longest_wait_ms"] / 1000
    client = Client(
        PLAN["url"],
        events=OfClient(number),
        use_protobuf=PLAN["protocol"] == "protobuf",
        max_reconnect_delay=longest,
    )
    for channel in channels:
        subscription = client.new_subscription(
            channel, events=OfSubscription(number, channel), max_resubscribe_delay=longest
        )
        await subscription.subscribe()
    await client.connect()


if __name__ == "__main__":
    asyncio.run(run(*(follow(number, channels) for number, channels in enumerate(PLAN["subscriptions"]))))
