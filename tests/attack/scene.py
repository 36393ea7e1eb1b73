"""A server with its NATS, a stream that has old messages, and honest clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import nats
import psutil
from nats.js.errors import NotFoundError

from odinws.harness.process import Process
from tests import ledger
from tests.attack import honest
from tests.attack.honest import Found, Target
from tests.attack.network import Network, entered
from tests.attack.stages import Stage
from tests.certificate import self_signed
from tests.nats import NatsServer
from tests.server import GUNICORN, PATIENCE_SECONDS, ROOT, Server, free_port, wait_for

MEMORY_LIMIT_BYTES = 256 << 20
CLIENT_MEMORY_BYTES = 16 << 20
HISTORY_CHANNELS = 1000  # token.h0 and so on, with old messages
_HISTORY_MESSAGES = 20_000  # of all of them: more than a worker's ring has
_LOOK_SECONDS = 0.05
# As it is shipped, but for one worker, which meets all of an attack, and bounds that an attack can reach.
_SETTINGS = {
    "WS_WORKERS": "1",
    "WS_MEMORY_LIMIT": str(MEMORY_LIMIT_BYTES),
    "WS_CLIENT_MEMORY": str(CLIENT_MEMORY_BYTES),
    "WS_DEMO_FEED": "1",
    "WS_UPGRADE_EXEMPT_LOOPBACK": "0",
}

_NICE = -19

T = TypeVar("T")


def be_nice(pid: int, nice: int) -> None:
    """Set the niceness of a process, and of its session, between which Linux shares the CPU; where we may."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        with contextlib.suppress(FileNotFoundError):  # a kernel without autogroups
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))


class Talk:
    """A process of ours that is told things in lines, and answers in lines of JSON."""

    def __init__(self, process: Process) -> None:
        self._in, self._out = process.pipes
        self._process = process

    def tell(self, line: str) -> None:
        """Say a line."""
        self._in.write(line + "\n")
        self._in.flush()

    def hear(self, kind: type[T]) -> T:
        """The next answer. Raises ProcessError when there is none."""
        line = self._out.readline()
        if not line:
            self._process.wait()
            self._process.check()
        return msgspec.json.decode(line, type=kind)


@contextlib.contextmanager
def talk(command: tuple[str, ...], log: Path, namespace: str, nice: int = 0) -> Iterator[Talk]:
    """Run a process of ours in a namespace, until the block ends."""
    with entered(namespace):
        process = Process(command, log, directory=ROOT, piped=True).start()
    try:
        be_nice(process.pid, nice)
        yield Talk(process)
    finally:
        for pipe in process.pipes:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        process.end()


class Scene:
    """What attackers attack.

    Attributes:
        admin_port: where the inside is, for those on the server's machine.
    """

    def __init__(self, network: Network, stage: Stage, server: Server, honest: Talk) -> None:
        self.network = network
        self.stage = stage
        self.server = server
        self.port = server.port
        self.admin_port = server.admin_port
        self._honest = honest

    def begin(self) -> None:
        """Have the honest clients forget what they found."""
        self._honest.tell("begin")

    def found(self) -> Found:
        """What they found since then."""
        self._honest.tell("found")
        return self._honest.hear(Found)

    def newcomer(self) -> Found:
        """How one is served who comes right now."""
        self._honest.tell("come")
        return self._honest.hear(Found)

    def rss_bytes(self) -> int:
        """Of all workers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return sum(worker.memory_info().rss for worker in self.workers())
        return 0

    def cpu_seconds(self) -> float:
        """Of all workers since they began."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return sum(sum(worker.cpu_times()[:2]) for worker in self.workers())
        return 0.0

    def workers(self) -> list[psutil.Process]:
        """The workers that live: what the arbiter has forked, without what it has started."""
        arbiter = psutil.Process(self.server.pid)
        return [child for child in arbiter.children() if child.cmdline() == arbiter.cmdline()]

    def ends(self) -> dict[str, int]:
        """How often the server has refused and closed, by reason; empty: it does not answer."""
        try:
            with entered(self.network.inside):
                stats = self.server.json("/stats")
            return dict(Counter(stats["closed"]) + Counter(stats["refused"]))
        except (OSError, ValueError, KeyError):
            return {}

    def log_length(self) -> int:
        """Length of its log."""
        return len(self.server.log())

    def log_since(self, length: int) -> str:
        """What it has logged beyond so many characters."""
        return self.server.log()[length:]


class Watch:
    """Looks at the memory of a server every 50 ms, in a thread.

    Attributes:
        samples: monotonic seconds and bytes.
    """

    def __init__(self, scene: Scene) -> None:
        self.samples: list[tuple[float, int]] = []
        self._scene = scene
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self.samples.append((time.monotonic(), self._scene.rss_bytes()))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@contextlib.contextmanager
def scene(network: Network, stage: Stage, directory: Path, patience_seconds: float = 2.0) -> Iterator[Scene]:
    """Start all of it; the honest clients are in. Raises AssertionError if it does not come up.

    Args:
        directory: for files.
        patience_seconds: of honest clients that come.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = GUNICORN
    if stage.tls:
        certificate, key = self_signed(directory)
        command = (*GUNICORN, "--keyfile", str(key), "--certfile", str(certificate))
    with contextlib.ExitStack() as stack:
        with entered(network.inside):
            feed = stack.enter_context(NatsServer(directory / "nats"))
            port = free_port()
            given = {
                **_SETTINGS,
                **dict(stage.settings),
                "WS_ADDR": f":{port}",
                "NATS_URL": feed.url,
            }
            server = Server(given, command=command, port=port)
            stack.callback(server.stop)
            if stage.tls:
                server.launch()  # how it is, nobody can ask in plain HTTP
            else:
                server.start()
            wait_for(lambda: asyncio.run(_has_stream(feed.url)), PATIENCE_SECONDS, "a stream")
            ledger.publish(feed.url, _history())
        for process in (feed.pid, *(each.pid for each in server.processes())):
            be_nice(process, _NICE)  # what else the machine does is not measured
        clients = stack.enter_context(talk(honest.COMMAND, directory / "honest.log", network.outside))
        clients.tell(msgspec.json.encode(Target(network, port, stage.tls, patience_seconds)).decode())
        found = Scene(network, stage, server, clients)
        wait_for(lambda: found.newcomer().entries, PATIENCE_SECONDS, "the first to be in")
        clients.tell("warm")
        clients.hear(Found)
        yield found


async def _has_stream(url: str) -> bool:
    client = await nats.connect(url)
    try:
        await client.jetstream().stream_info(ledger.STREAM)
    except NotFoundError:
        return False
    finally:
        await client.close()
    return True


def _history() -> Iterator[tuple[str, bytes]]:
    for number in range(_HISTORY_MESSAGES):
        yield f"token.h{number % HISTORY_CHANNELS}", b'{"type":"old","filling":"%b"}' % (b"x" * 150)
