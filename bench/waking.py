"""What a message costs the feed of each worker: `python -m bench.waking --help`.

Real nats-server, real feeds, each in a process of its own, and nothing behind them. A publisher sends
messages, or bursts of them, at equal distances. CPU times are those of the processes, by their clocks. With
several trees, the feeds are those of these checkouts in turn.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from odinws.harness.nats import NatsServer

HERE = Path(__file__).parents[1]
PAYLOAD_BYTES = 209
CHANNELS = 10
WARM_UP_SECONDS = 1.0


def consume(url: str) -> None:
    """One worker: its feed, until its standard input ends; then it says how many messages came."""
    from gevent import monkey

    monkey.patch_all()
    import gevent
    from gevent.fileobject import FileObject

    from odinws.feed.events import FeedEvent, Message
    from odinws.feed.nats import NatsFeed
    from odinws.settings import Settings
    from odinws.shared.worker_stats import WorkerStats

    count = 0

    def receive(event: FeedEvent) -> None:
        nonlocal count
        count += isinstance(event, Message)

    feed = NatsFeed(Settings.from_environ({}), [url], WorkerStats(), receive, lambda: 0)
    gevent.spawn(feed.run)
    while not feed.status.ready:
        gevent.sleep(0.01)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    FileObject(sys.stdin.buffer).read()
    sys.stdout.write(f"{count}\n")


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used, all threads: the clock that `clock_getcpuclockid` names."""
    return time.clock_gettime((~pid << 3) | 2)


def publish(url: str, rate: float, burst: int, seconds: float) -> int:
    """Publish bursts of `burst` messages, `rate` messages/s in all; returns how many."""
    where = urlsplit(url)
    body = b'{"type":"price:update","nonce":"%b"}'
    body %= b"x" * (PAYLOAD_BYTES - len(body) + 2)
    with socket.create_connection((where.hostname, where.port)) as sock:
        sock.sendall(b'CONNECT {"verbose":false}\r\n')
        started, sent = time.monotonic(), 0
        while (due := sent / rate) < seconds:
            time.sleep(max(0.0, started + due - time.monotonic()))
            sock.sendall(
                b"".join(
                    b"PUB odin.token.T%d %d\r\n%b\r\n" % (number % CHANNELS, len(body), body)
                    for number in range(sent, sent + burst)
                )
            )
            sent += burst
        time.sleep(max(0.0, started + seconds - time.monotonic()))
        sock.sendall(b"PING\r\n")
        while b"PONG" not in sock.recv(65536):
            pass
    return sent


def trial(tree: Path, workers: int, rate: float, burst: int, seconds: float) -> str:
    """One line: µs of CPU per message of one feed on average, and of nats-server."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        nats = stack.enter_context(NatsServer(Path(directory)))
        feeds: list[subprocess.Popen[str]] = []
        for _ in range(workers):
            feed = subprocess.Popen(
                [sys.executable, __file__, "--consume", nats.url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(tree)},
            )
            stack.callback(feed.wait)
            stack.callback(feed.kill)
            feeds.append(feed)
        for feed in feeds:
            if feed.stdout is not None:
                while feed.stdout.readline() not in ("ready\n", ""):  # the feed logs that it is up
                    pass
        pids = [nats.pid, *(feed.pid for feed in feeds)]
        sent = publish(nats.url, rate or 100.0, burst, WARM_UP_SECONDS)
        before = [cpu_seconds(pid) for pid in pids]
        started = time.monotonic()
        if rate:
            measured = publish(nats.url, rate, burst, seconds)
        else:
            measured = 0
            time.sleep(seconds)
        passed = time.monotonic() - started
        used = [cpu_seconds(pid) - since for pid, since in zip(pids, before, strict=True)]
        time.sleep(0.5)
        got = [int(feed.communicate()[0]) for feed in feeds]
        late = "" if got == [sent + measured] * workers else f", received {min(got)} of {sent + measured}"
        each = sum(used[1:]) / workers
        per = (
            f"{each / measured * 1e6:8.1f} µs/message, nats-server {used[0] / measured * 1e6:8.1f}, "
            if measured
            else ""
        )
        return (
            f"{tree.name:10} {workers:3} feeds {rate:7g}/s in bursts of {burst:2}: {per}"
            f"a feed uses {each / passed:8.3%} of a core, nats-server {used[0] / passed:8.3%}{late}"
        )


def main(arguments: Sequence[str]) -> None:
    """Run the trials, round by round."""
    parser = argparse.ArgumentParser(prog="python -m bench.waking", description=__doc__)
    parser.add_argument("--tree", type=Path, nargs="+", default=[HERE], help="checkouts to compare")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--rate", type=float, nargs="+", default=[20.0], help="messages/s; 0: none")
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--consume", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.consume:
        consume(options.consume)
        return
    for _ in range(options.rounds):
        for workers in options.workers:
            for rate in options.rate:
                for tree in options.tree:
                    sys.stdout.write(trial(tree, workers, rate, options.burst, options.seconds) + "\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
