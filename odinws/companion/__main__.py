"""`python -m odinws.companion`: the companion itself. Started by the server, not by hand.

Its first line on stdin is the URL of the NATS server to use, empty when it runs one. Once NATS is up, one
line of JSON goes to stdout: `{"nats_url": …, "nats_url_file": …}`. It ends when stdin ends or SIGTERM comes.
Without a first line it does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from odinws.companion import remove
from odinws.errors import OdinError
from odinws.feed.embedded import EmbeddedNats
from odinws.feed.simulator import DEFAULT_PREFIX, DEFAULT_STATISTICS_SECONDS

# Together well below companion.END_SECONDS.
_FEED_CLOSE_SECONDS = 0.4
_NATS_STOP_SECONDS = 1.0

_STDIN, _STDERR = 0, 2
_TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main() -> int:
    """Own what the options ask for until the end.

    Returns:
        0 after an orderly end; 1 after a failure, which one line on stderr tells.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the arbiter's business
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # until the event loop heeds it: removes the data
    options = _options()
    handler = logging.StreamHandler()
    handler.setFormatter(
        _JsonFormatter() if options.log_format == "json" else logging.Formatter(_TEXT_FORMAT)
    )
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])
    with open(
        _STDIN, "rb", buffering=0, closefd=False
    ) as stdin:  # unbuffered: the rest is for the event loop
        line = stdin.readline().decode()
    if not line:  # the arbiter has ended already
        return 0
    try:
        with _directory(options.directory):
            asyncio.run(_serve(options, line.strip()))
    except (OdinError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the arbiter shows it
        return 1
    return 0


@contextlib.contextmanager
def _directory(path: Path | None) -> Iterator[None]:
    """A directory for NATS, made now and removed in the end; None: none. Raises OSError: it exists."""
    if path is None:
        yield
        return
    path.mkdir(mode=0o700)
    try:
        yield
    finally:
        remove(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m odinws.companion", description=__doc__)
    parser.add_argument("--embedded", action="store_true", help="run a NATS server")
    parser.add_argument("--directory", type=Path, help="for its data; made, and removed in the end")
    parser.add_argument("--demo", action="store_true", help="publish the demo feed")
    parser.add_argument("--prefix", default=DEFAULT_PREFIX, help="of the demo feed's subjects")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", choices=("json", "text"), default="text")
    parser.add_argument("--stderr", type=int, default=_STDERR, help="descriptor to log to once NATS is up")
    options = parser.parse_args()
    if options.embedded != (options.directory is not None):
        parser.error("--embedded and --directory go together")
    return options


async def _serve(options: argparse.Namespace, nats_url: str) -> None:
    """Do the work until the end is asked for, or the work fails."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    loop.add_reader(_STDIN, _set_at_end_of_stdin, asked)
    work = asyncio.create_task(_work(options, nats_url))
    end = asyncio.create_task(asked.wait())
    await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
    loop.remove_reader(_STDIN)
    end.cancel()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


def _set_at_end_of_stdin(ended: asyncio.Event) -> None:
    if not os.read(_STDIN, 4096):
        ended.set()


async def _work(options: argparse.Namespace, nats_url: str) -> None:
    """Run what was asked for. Ends only by being cancelled, or by an error."""
    async with contextlib.AsyncExitStack() as stack:
        url_file = ""
        if options.embedded:
            nats = EmbeddedNats(options.directory)
            await nats.start()
            stack.push_async_callback(nats.stop, _NATS_STOP_SECONDS)
            nats_url, url_file = nats.url, str(nats.url_file)
        _announce(nats_url, url_file, options.stderr)
        if options.demo:
            await _publish_demo(nats_url, options.prefix)
        await asyncio.Event().wait()


async def _publish_demo(nats_url: str, prefix: str) -> None:
    from odinws.feed.publisher import Publisher, PublishOptions  # 6 MB that a companion without feed saves

    options = PublishOptions(nats_url=nats_url, prefix=prefix, statistics_seconds=DEFAULT_STATISTICS_SECONDS)
    await Publisher(options).run(close_seconds=_FEED_CLOSE_SECONDS)


def _announce(nats_url: str, url_file: str, stderr: int) -> None:
    """Say that NATS is up, and from now on log to where the arbiter logs."""
    sys.stdout.write(json.dumps({"nats_url": nats_url, "nats_url_file": url_file}) + "\n")
    sys.stdout.flush()
    if stderr != _STDERR:
        os.dup2(stderr, _STDERR)
        os.close(stderr)


class _JsonFormatter(logging.Formatter):
    """The keys of `odinws.logs`, without its libraries: they would be a fifth of this process's memory."""

    def format(self, record: logging.LogRecord) -> str:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "message": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": f"{second}.{int(record.msecs):03}Z",
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


if __name__ == "__main__":
    sys.exit(main())
