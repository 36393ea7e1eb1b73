"""What the feed asks of NATS, and how NATS says that it may not have it."""

from __future__ import annotations

import asyncio
import json

from nats.aio.client import Client

_SECONDS = 2
_NO_SEQ = (1 << 63) - 1  # no message has it


def published(stream: str) -> tuple[str, ...]:
    """The subjects that the feed publishes to for a stream that exists, as permissions are written."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.DELETE.{stream}.>",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.FC.{stream}.>",
    )


def is_refusal(error: Exception) -> bool:
    """Whether NATS says by this that our user may not publish or subscribe to something."""
    return "permissions violation" in str(error).lower()


def words(error: Exception, stream: str, subjects: tuple[str, ...]) -> str:
    """A refusal in words that are always the same for one permission.

    nats-py makes all of an error lower-case, and part of some subjects is random.

    Args:
        subjects: that the feed subscribes to without JetStream.
    """
    text = " ".join(str(error).removeprefix("nats: ").split())
    done = "subscription" if "subscription" in text.lower() else "publish"
    known = (*published(stream), f"$JS.API.STREAM.CREATE.{stream}", "_INBOX.>", *subjects)
    for subject in known:
        if f'"{subject.removesuffix(">")}'.lower() in text.lower():
            return f'permissions violation for {done} to "{subject}"'
    return text


async def provoke(client: Client, stream: str) -> None:
    """Publish to all that the feed and recovery will publish to later, so that NATS refuses it now.

    Nothing else comes of it: the consumer and the message do not exist, and nobody waits for answers. That
    consumers may be created shows only when one is.
    """
    inbox = client.new_inbox()
    for subject in published(stream):
        asked = json.dumps({"seq": _NO_SEQ}) if ".DIRECT." in subject else "{}"
        if ".CONSUMER.CREATE." not in subject:
            await client.publish(subject.replace(">", "odinws.none"), asked.encode(), reply=inbox)
    await settle(client)


async def settle(client: Client) -> None:
    """Wait until NATS has said what it thinks of all that was sent.

    Raises:
        nats.errors.Error: the connection is lost, or NATS does not answer.
    """
    for _ in range(2):  # nats-py's PING overtakes what still waits in its buffer
        await client.flush(_SECONDS)
        await asyncio.sleep(0)
