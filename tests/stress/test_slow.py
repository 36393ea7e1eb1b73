"""Readers that sip: each policy does to them exactly what it says, and nothing to anybody else."""

from __future__ import annotations

import json
import random
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.ledger import Ledger, read
from tests.server import PATIENCE_SECONDS, wait_for
from tests.stress.conftest import RunningServer, stand
from tests.stress.leaks import assert_no_leaks, measure_baseline
from tests.stress.scenario import QUICK, Listeners, seeded_random
from tests.wire import CLOSE, END, PING, PONG, TEXT, Frame, Peer, frame

POLICIES = ["disconnect", "conflate", "drop-oldest"]
LISTENERS = 30
SLOW = 6
SHARED = ["token.A", "token.B"]
BULK = "token.BULK"  # only the slow ones hear it
CHANNELS = [*SHARED, BULK]
BULK_BYTES = 20_000
MESSAGES = 320
RATE = 360.0
SIPS = 3  # frames at once, at most
PAUSE_SECONDS = 0.25  # between two sips, at most


def payload(number: int) -> bytes:
    """A short message for what is shared, a long one for the bulk."""
    filling = "x" * (BULK_BYTES if CHANNELS[number % len(CHANNELS)] == BULK else 100)
    return json.dumps({"type": "price:update", "number": number, "filling": filling}).encode()


class Sipper:
    """A client that reads a few frames now and then, until it may read on to the end.

    Attributes:
        messages: all data and gaps so far, in their order.
        code: of the close frame; 0: none came.
    """

    def __init__(self, port: int, draw: random.Random) -> None:
        self.peer = Peer(port, receive_buffer_bytes=2048)
        self.peer.upgrade()
        assert self.peer.ask("subscribe", channels=CHANNELS)["count"] == len(CHANNELS)
        self.messages: list[Any] = []
        self.code = 0
        self._draw = draw
        self._hurry = threading.Event()
        self._done: Callable[[], bool] = lambda: False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def finish(self, newest: dict[str, int] | None) -> None:
        """Read on until it knows of the newest message of each channel, or (None) to the end."""
        if newest is not None:
            self._done = lambda: self._last() == newest
        self._hurry.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "it is not told all"
        assert self._failure is None, self._failure

    def _main(self) -> None:
        try:
            while not self.code and not self._done():
                for _ in range(self._draw.randint(1, SIPS)):
                    if self._done() or not self._take(self.peer.next()):
                        return
                self._hurry.wait(self._draw.uniform(0, PAUSE_SECONDS))
        except BaseException as error:
            self._failure = error
            raise

    def _take(self, got: Frame) -> bool:
        if got.opcode == TEXT:
            self.messages.append(got.json)
        elif got.opcode == PING:
            self.peer.send(frame(PONG, got.payload))
        else:
            assert got is END or got.opcode == CLOSE, got
            self.code = got.code if got.opcode == CLOSE else -1
        return not self.code

    def _last(self) -> dict[str, int]:
        """The newest sequence of each channel that it knows of, by a message or a gap."""
        return {message["channel"]: message.get("seq") or message["to"] for message in self.messages}


def read_sequences(sipper: Sipper, taken: Ledger, channel: str) -> tuple[list[int], int]:
    """What a reader knows of a channel: sequences that came or that gaps name; how many were named."""
    seqs, told, named = taken.seqs[channel], [], 0
    for message in sipper.messages:
        if message.get("channel") != channel:
            continue
        if message["type"] == "gap":
            assert message["reason"] == "slow"
            missed = seqs[bisect_left(seqs, message["from"]) : bisect_right(seqs, message["to"])]
            assert (missed[0], missed[-1]) == (message["from"], message["to"])
            told += missed
            named += len(missed)
        else:
            told.append(message["seq"])
    return told, named


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningServer]]:
    """One of each policy."""
    settings = [{**QUICK, "WS_SLOW_POLICY": policy} for policy in POLICIES]
    with stand(tmp_path_factory.mktemp("slow"), *settings) as standing:
        yield dict(zip(POLICIES, standing, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_slow_readers(servers: dict[str, RunningServer], policy: str) -> None:
    """Those that stay get every message or a gap for it; disconnected ones get 4008 at the end."""
    server, url, _ = servers[policy]
    before = measure_baseline(server)
    was = server.json("/stats")
    draw = seeded_random(policy)
    with Listeners(
        server, url, LISTENERS, channels=CHANNELS, subscribed=SHARED, rate=RATE, payload=payload
    ) as listeners:
        slow = [Sipper(server.port, random.Random(draw.random())) for _ in range(SLOW)]
        wait_for(lambda: listeners.publisher.published >= MESSAGES, 10, "all messages")
        listeners.publisher.stop()
        taken = read(url)
        newest = {channel: seqs[-1] for channel, seqs in taken.seqs.items()}
        for sipper in slow:
            sipper.finish(None if policy == "disconnect" else newest)
        stats = server.json("/stats")
        shed = stats["fan_out"]["shed"] - was["fan_out"]["shed"]
        closed = stats["closed"]["slow"] - was["closed"]["slow"]
        named = 0
        for sipper in slow:
            for channel in CHANNELS:
                told, gaps = read_sequences(sipper, taken, channel)
                due = [seq for seq in taken.seqs[channel] if told and seq >= told[0]]
                named += gaps
                assert told == due[: len(told)]
                assert policy == "disconnect" or len(told) == len(due)
            newest_came = {m["channel"]: m["seq"] for m in sipper.messages if "seq" in m} == newest
            assert newest_came or policy != "conflate"
        if policy == "disconnect":
            assert [sipper.code for sipper in slow] == [4008] * SLOW
            assert (closed, shed, named) == (SLOW, 0, 0)
        else:
            assert [sipper.code for sipper in slow] == [0] * SLOW
            assert closed == 0
            assert shed == named > 0
        for sipper in slow:
            sipper.peer.shut()
        listeners.assert_complete()
    assert_no_leaks(server, before)
