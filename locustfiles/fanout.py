"""A swarm that holds connections and checks what they get.

    locust -f locustfiles/fanout.py --headless -u 500 -r 100 -t 60s --host ws://127.0.0.1:3004

A user is one connection that subscribes to `--channels` of the ten tokens. Locust's statistics show the time
to connect, from subscribe to acknowledgement, and from NATS to the user (a sample, by the message's `ts`, so
both clocks must agree). A message that does not follow the one before it is a failure.
"""

from __future__ import annotations

import json
import random
import time
from argparse import ArgumentParser
from typing import Any

import websocket
from locust import User, constant, events, task

TOKENS = ("BTC", "ETH", "ODIN", "SOL", "DOGE", "USDT", "BNB", "XRP", "ADA", "MATIC")
SAMPLE = 20  # one message in so many is timed
LISTEN_SECONDS = 5.0


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=5, help="tokens of each user, 1 to 10")


class Subscriber(User):
    """One connection to `/ws`."""

    host = "ws://127.0.0.1:3004"
    wait_time = constant(0)

    def on_start(self) -> None:
        """Connect and subscribe."""
        self._last: dict[str, int] = {}
        started = time.perf_counter()
        try:
            self._socket = websocket.create_connection(f"{(self.host or '').rstrip('/')}/ws", timeout=30)
            self._expect("welcome")
        except (OSError, ValueError, websocket.WebSocketException) as error:
            self._report("connect", started, error)
            raise
        self._report("connect", started)
        count = self.environment.parsed_options.channels
        channels = [f"token.{token}" for token in random.sample(TOKENS, count)]
        started = time.perf_counter()
        self._socket.send(json.dumps({"type": "subscribe", "data": {"channels": channels}}))
        self._expect("subscription_ack")
        self._report("subscribe", started)

    def on_stop(self) -> None:
        """Say goodbye."""
        self._socket.close()

    @task
    def listen(self) -> None:
        """Read what comes for a while."""
        until = time.monotonic() + LISTEN_SECONDS
        while time.monotonic() < until:
            self._socket.settimeout(max(0.01, until - time.monotonic()))
            try:
                self._check(json.loads(self._socket.recv()))
            except websocket.WebSocketTimeoutException:
                return
            except (OSError, websocket.WebSocketException) as error:
                self._report("connection lost", time.perf_counter(), error)
                self.stop()
                return

    def _expect(self, kind: str) -> None:
        while (message := json.loads(self._socket.recv()))["type"] != kind:
            self._check(message)

    def _check(self, message: dict[str, Any]) -> None:
        if "seq" not in message:
            return
        channel, seq = message["channel"], message["seq"]
        before = self._last.get(channel)
        if before is not None and message["prev"] != before:
            error = ValueError(f"{channel}: {seq} follows {message['prev']}, not {before}")
            self._report("order", time.perf_counter(), error)
        self._last[channel] = seq
        if seq % SAMPLE == 0:
            lag_ms = max(0.0, time.time() * 1000 - message["ts"])
            self.environment.events.request.fire(
                request_type="WS", name="delivery", response_time=lag_ms, response_length=0, exception=None
            )

    def _report(self, name: str, started: float, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="WS",
            name=name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=0,
            exception=error,
        )
