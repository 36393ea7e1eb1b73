"""Clients that behave, and how long they wait. A process of its own, which nobody but the server delays.

Some stay: each has the whole feed, and sends a heartbeat every now and then. Others come one after the other,
subscribe, get what they have missed of one channel, and leave. It reads words from its input and answers some
of them with a line of JSON:

warm      read the whole stream, as clients do that were away: what a server needs for that, it keeps
begin     forget what was found so far
found     how it was since then, as `Found`
come      let one come right now: how it was, as `Found`
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from odinws.swarm import frames
from tests import wire
from tests.attack.network import Network

COMMAND = (sys.executable, "-m", "tests.attack.honest")
ADDRESS = 60_000  # number of their address
STAYING = 10

_HEARTBEAT_SECONDS = 0.05
_COMING_SECONDS = 0.2
_ANSWER_SECONDS = 2.0  # for the last heartbeats to be answered
_RETURN_SECONDS = 0.2
_READERS = 20
_CHANNELS = ["token.BTC", "token.ETH", "token.SOL", "global"]
_MISSED = "token.h7"  # has old messages, see `scene`


class Target(msgspec.Struct, frozen=True):
    """Where they connect to, and how long they wait to be in: a person has left by then."""

    network: Network
    port: int
    tls: bool = False
    patience_seconds: float = 2.0


class Found(msgspec.Struct):
    """How they were served.

    Attributes:
        heartbeats: seconds from each heartbeat to its pong.
        deliveries: seconds from when NATS took a message until it was read.
        entries: seconds that newcomers needed to be in and to have the first message that they missed.
        refused: why newcomers were not let in, and why those who stay were sent away.
        missing: messages that did not come, by `prev`.
    """

    heartbeats: list[float] = msgspec.field(default_factory=list)
    deliveries: list[float] = msgspec.field(default_factory=list)
    entries: list[float] = msgspec.field(default_factory=list)
    refused: list[str] = msgspec.field(default_factory=list)
    missing: int = 0


class Stream:
    """A connection of theirs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._rest = b""
        self._frames: deque[tuple[int, bytes]] = deque()

    async def messages(self) -> AsyncIterator[Any]:
        """What comes, as JSON. Raises OSError, EOFError at its end."""
        while True:
            while self._frames:
                head, payload = self._frames.popleft()
                if head & 0x0F == wire.CLOSE:
                    raise EOFError(f"closed with {int.from_bytes(payload[:2], 'big')} {payload[2:].decode()}")
                if head & 0x0F == wire.TEXT:
                    yield json.loads(payload)
            more = await self.reader.read(1 << 16)
            if not more:
                raise EOFError("the stream ended")
            found, self._rest = frames.split(self._rest + more)
            self._frames.extend(found)


class Honest:
    """All of them.

    Attributes:
        found: since the last `begin`.
    """

    def __init__(self, target: Target) -> None:
        self.found = Found()
        self._target = target
        self._tls: ssl.SSLContext | None = None
        self._waiting: list[deque[float]] = []
        if target.tls:
            self._tls = ssl.create_default_context()
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    async def stay(self) -> None:
        """One of those who stay; comes back when it is sent away."""
        while True:
            try:
                async with asyncio.timeout(self._target.patience_seconds):
                    stream = await self._enter()
            except (OSError, EOFError) as error:
                self.found.refused.append(f"who stays: {_reason(error)}")
                await asyncio.sleep(_RETURN_SECONDS)
                continue
            sent: deque[float] = deque()
            self._waiting.append(sent)
            beating = asyncio.create_task(self._beat(stream.writer, sent))
            try:
                await self._listen(stream, sent)
            except (OSError, EOFError) as error:
                self.found.refused.append(f"who stays: {_reason(error)}")
            finally:
                beating.cancel()
                self._waiting.remove(sent)
                stream.writer.transport.abort()

    async def come(self) -> None:
        """Newcomers, one after the other, whatever became of those before."""
        async with asyncio.TaskGroup() as all_of_them:
            while True:
                all_of_them.create_task(self.enter_and_leave(self.found))
                await asyncio.sleep(_COMING_SECONDS)

    async def enter_and_leave(self, found: Found) -> None:
        """One newcomer."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._target.patience_seconds):
                stream = await self._enter()
                stream.writer.write(wire.command("subscribe", channels=[_MISSED], since={_MISSED: 1}))
                async for message in stream.messages():
                    if message.get("channel") == _MISSED and message["type"] != "gap":
                        break
        except (OSError, EOFError) as error:
            found.refused.append(_reason(error))
            return
        found.entries.append(time.monotonic() - started)
        stream.writer.write(wire.close(1000))
        stream.writer.close()

    async def read_all(self) -> None:
        """Come, replay the whole stream, and leave."""
        stream = await self._enter()
        stream.writer.write(wire.command("replay", channel="token.*", since=0))
        async for message in stream.messages():
            if message["type"].startswith("replay_"):
                break
        stream.writer.transport.abort()

    async def answered(self) -> Found:
        """What was found, once the heartbeats on their way are answered, or have waited for long."""
        found, asked = self.found, time.monotonic()
        while time.monotonic() < asked + _ANSWER_SECONDS:
            if not any(sent and sent[0] < asked for sent in self._waiting):
                break
            await asyncio.sleep(0.01)
        late = [time.monotonic() - at for sent in self._waiting for at in sent if at < asked]
        found.heartbeats.extend(late)
        return found

    async def _enter(self) -> Stream:
        """Connect, shake hands, subscribe. Raises OSError, EOFError."""
        sock = self._target.network.at(self._target.network.address(ADDRESS))
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(
                sock, (self._target.network.server, self._target.port)
            )
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=self._tls, server_hostname="localhost" if self._tls else None
            )
        except BaseException:
            sock.close()
            raise
        try:
            writer.write(wire.request())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head[:16]:
                body = await reader.read(200)
                raise ConnectionRefusedError(f"{head[9:12].decode()} {_code(body)}")
            writer.write(wire.command("subscribe", channels=_CHANNELS))
            stream = Stream(reader, writer)
            async for message in stream.messages():
                if message["type"] == "subscription_ack":
                    return stream
            raise EOFError
        except BaseException:
            writer.transport.abort()
            raise

    async def _beat(self, writer: asyncio.StreamWriter, sent: deque[float]) -> None:
        for _ in itertools.count():
            sent.append(time.monotonic())
            writer.write(wire.command("heartbeat"))
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _listen(self, stream: Stream, sent: deque[float]) -> None:
        last: dict[str, int] = {}
        async for message in stream.messages():
            if message["type"] == "pong":
                self.found.heartbeats.append(time.monotonic() - sent.popleft())
            elif "seq" in message:
                self.found.deliveries.append(time.time() - message["ts"] / 1000)
                channel = message["channel"]
                self.found.missing += message["prev"] != last.get(channel, message["prev"])
                last[channel] = message["seq"]


def _reason(error: BaseException) -> str:
    return "not in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _code(body: bytes) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["error"])
    return "without a word"


async def serve(target: Target) -> None:
    """Have them come and stay, and answer until the input ends."""
    honest = Honest(target)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as everybody:
        tasks = [everybody.create_task(honest.stay()) for _ in range(STAYING)]
        tasks.append(everybody.create_task(honest.come()))
        while word := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            match word:
                case "warm":
                    await asyncio.gather(*(honest.read_all() for _ in range(_READERS)))
                    _say(Found())
                case "begin":
                    honest.found = Found()
                case "found":
                    _say(await honest.answered())
                case "come":
                    found = Found()
                    await honest.enter_and_leave(found)
                    _say(found)
        for task in tasks:
            task.cancel()


def _say(found: Found) -> None:
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the target and serve."""
    with contextlib.suppress(PermissionError):  # so that our own turn is not what is measured
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    asyncio.run(serve(msgspec.json.decode(sys.stdin.readline(), type=Target)))


if __name__ == "__main__":
    main()
