"""Official clients beside the crowd of a chaos: a process for each kind, and a check of all that they saw."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

from odinws.harness.process import Process
from tests.ledger import Ledger
from tests.protection.proof import Proof
from tests.resuming import chaos
from tests.sdks import environment
from tests.sdks.records import Heard, Wrong, decode
from tests.sdks.tracks import Client
from tests.server import PATIENCE_SECONDS, ROOT, wait_for

_CENTRIFUGO, _SSE = "ws://127.0.0.1:{port}/connection/websocket", "http://127.0.0.1:{port}/sse"
SETTINGS = {
    "WS_ORIGINS": "*",  # the page of Chromium is not the server's
    "WS_CPU_REJECT_THRESHOLD": "100",  # agents use the same machine
}
LONGEST_WAIT_MS = 4000  # of a client's backoff, else a run would have to wait for the last of them
_WILD_EVERY, _TWO_EVERY = 25, 5


class Kind(NamedTuple):
    """One kind of client.

    Attributes:
        url: where it connects, of the server's port.
        command: of its agent.
        protocol: of Centrifugo's.
    """

    url: str
    command: Callable[[], Sequence[str]]
    protocol: str = ""


def _node(script: str) -> Callable[[], Sequence[str]]:
    return lambda: ("node", str(environment.node() / script))


def _module(name: str) -> Callable[[], Sequence[str]]:
    return lambda: (sys.executable, "-m", f"tests.sdks.agents.{name}")


def _centrifuge_python() -> Sequence[str]:
    return (str(environment.python()), "-m", "tests.sdks.agents.centrifuge_python")


KINDS = {
    "centrifuge-js": Kind(_CENTRIFUGO, _node("centrifuge.js"), "json"),
    "centrifuge-js-protobuf": Kind(_CENTRIFUGO, _node("centrifuge.js"), "protobuf"),
    "centrifuge-python": Kind(_CENTRIFUGO, _centrifuge_python, "json"),
    "centrifuge-python-protobuf": Kind(_CENTRIFUGO, _centrifuge_python, "protobuf"),
    "eventsource": Kind(_SSE, _node("eventsource.js")),
    "chromium": Kind(_SSE, _module("chromium")),
    "curl": Kind(_SSE, _module("curl")),
}


class Agent:
    """The clients of one kind, in a process of their own, and what they see.

    Args:
        wanted: the channels of each client.
        log: what the process says besides.
    """

    def __init__(self, name: str, port: int, wanted: Sequence[Sequence[str]], log: Path) -> None:
        kind = KINDS[name]
        self.name = name
        self.clients = [Client(channels, one_order=kind.url is _SSE) for channels in wanted]
        self.faults: list[str] = []
        self.messages = 0
        plan = {
            "url": kind.url.format(port=port),
            "protocol": kind.protocol,
            "longest_wait_ms": LONGEST_WAIT_MS,
            "subscriptions": wanted,
        }
        command = [*kind.command(), json.dumps(plan)]
        self._process = Process(command, log, directory=ROOT, piped=True)
        self._reading = threading.Thread(target=self._read, daemon=True)

    @property
    def waiting(self) -> int:
        """Clients that have not all their subscriptions yet."""
        return sum(any(track.start < 0 for track in client.tracks.values()) for client in self.clients)

    def _read(self) -> None:
        _, lines = self._process.pipes
        for line in lines:
            record = decode(line)
            if record.client < 0:
                assert isinstance(record, Wrong)
                self.faults.append(record.text)
                continue
            self.messages += isinstance(record, Heard)
            self.clients[record.client].take(record)

    def faults_of(self, truth: Ledger, *, whole: bool) -> Iterator[str]:
        """All that is wrong, a line each; `whole`: nothing else was published."""
        if self._process.status is not None:
            yield f"{self.name} {self._process.exit_summary()}"
        yield from (f"{self.name}: {text}" for text in self.faults)
        for number, client in enumerate(self.clients):
            yield from (f"{self.name} {number}: {text}" for text in client.wrong(truth.seqs, whole=whole))

    def __repr__(self) -> str:
        said = [text for client in self.clients for text in client.faults]
        what = f"{self.name}, lost {dict(self.lost())}, faults {[*self.faults, *said][:3]}"
        return f"{what}, {self._process.last_words()}"

    def lost(self) -> Counter[str]:
        """How often something was lost, by code and reason."""
        return sum((Counter(client.lost) for client in self.clients), Counter())

    def __enter__(self) -> Self:
        self._process.start()
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        into, out = self._process.pipes
        with contextlib.suppress(BrokenPipeError):
            into.close()
        self._process.end()
        self._reading.join(10.0)
        out.close()


class Guests:
    """All of them, from `with` to the end of its block."""

    def __init__(
        self, port: int, kinds: Sequence[str], count: int, channels: Sequence[str], directory: Path
    ) -> None:
        wanted = [_wanted(number, channels) for number in range(count)]
        self.agents = [Agent(name, port, wanted, directory / f"{name}.log") for name in kinds]
        self._running = contextlib.ExitStack()

    def arrive(self) -> None:
        """Wait until all are subscribed. Raises AssertionError: some are not."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not any(agent.waiting for agent in self.agents), PATIENCE_SECONDS, "guests")
        late = [f"{agent.waiting} of {agent}" for agent in self.agents if agent.waiting]
        assert not late, "; ".join(late)

    def behind(self, truth: Ledger) -> int:
        """Subscriptions that still want messages."""
        tracks = (
            track for agent in self.agents for client in agent.clients for track in client.tracks.values()
        )
        return sum(track.is_behind(truth.seqs) for track in tracks)

    def judge(self, proof: Proof, truth: Ledger, plan: chaos.Plan) -> None:
        """Hold all that was seen against what was published; where the stream forgets, some must be told."""
        for agent in self.agents:
            told = sum(len(track.told) for client in agent.clients for track in client.tracks.values())
            lost = ", ".join(f"{count} x {what}" for what, count in agent.lost().most_common(4))
            proof.fact(agent.name, f"{agent.messages:,} messages, {told} told; lost: {lost}")
            wrong = list(agent.faults_of(truth, whole=not plan.mirror_forgets))
            proof.check(f"{agent.name}: all was heard or told, once, in order", not wrong, wrong[:3])
            what = f"{agent.name}: {'some' if plan.forgets else 'no'} losses told"
            proof.check(what, bool(told) is plan.forgets, told)

    def __enter__(self) -> Self:
        with self._running as stack:
            for agent in self.agents:
                stack.enter_context(agent)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


def _wanted(number: int, channels: Sequence[str]) -> Sequence[str]:
    """Mostly one channel, sometimes two or all of them."""
    if number % _WILD_EVERY == 0:
        return (f"{channels[0].rpartition('.')[0]}.*",)
    return tuple(channels[(number + step) % len(channels)] for step in range(1 + (number % _TWO_EVERY == 1)))


def run(
    plan: chaos.Plan,
    count: int,
    kinds: Sequence[str] = tuple(KINDS),
    tell: Callable[[str], None] = lambda _: None,
) -> Proof:
    """A chaos with so many clients of each kind beside its crowd."""
    room = {"WS_MAX_CONNECTIONS": str(2 * (plan.clients + count * len(kinds)))}
    plan = replace(plan, settings={**SETTINGS, **room, **plan.settings})
    return chaos.run(
        plan, tell, lambda port, directory: Guests(port, kinds, count, chaos.CHANNELS, directory)
    )
