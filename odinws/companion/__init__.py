"""The arbiter's side of its one child process, the companion.

The companion owns the embedded NATS server and the demo feed: workers come and go, and the arbiter should run
nothing but itself. The bond between the two is a pipe. The arbiter holds the only write end of the
companion's stdin. When the arbiter closes it, or ends in whatever way, `kill -9` included, the companion
reads the end of file, stops what it owns, removes the data and ends, within `END_SECONDS`.

The arbiter imports this before gevent patches anything, which is only safe while neither asyncio nor ssl has
been imported: the companion's own half is in `__main__`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Self, cast

from odinws.errors import OdinError
from odinws.feed.simulator import DEFAULT_PREFIX
from odinws.shared.memory import unnamed_file

START_SECONDS = 10.0  # for the companion to say that NATS is up
END_SECONDS = 2.0  # for the companion to end by itself
_CLOSE_SECONDS = END_SECONDS + 1.0  # on a busy machine, before it is killed
_ORPHAN_SECONDS = 1.0
_REMOVE_SECONDS = 1.0
_TAIL_BYTES = 4096
_STDERR = 2


class CompanionError(OdinError):
    """The companion did not come up.

    Attributes:
        reason: What happened, in one line.
        stderr_tail: The last of what it wrote to stderr; may be empty.
    """

    def __init__(self, reason: str, stderr_tail: str = "") -> None:
        super().__init__(f"{reason}: {stderr_tail}" if stderr_tail else reason)
        self.reason = reason
        self.stderr_tail = stderr_tail


class Companion:
    """The arbiter's handle on its companion. Made by `start`.

    Nothing here relies on the companion's exit status: the arbiter reaps every child it has, so it may be
    gone. That the companion has ended is known by the end of file on its stdout.

    Attributes:
        nats_url: Where NATS is, with the credentials for it.
        nats_url_file: The file that has the URL of an embedded NATS; else empty.
        pid: Of the companion.
    """

    def __init__(self, process: subprocess.Popen[bytes], directory: Path | None) -> None:
        self._process = process
        self._stdin = cast(IO[bytes], process.stdin)  # pipes, see _spawn
        self._stdout = cast(IO[bytes], process.stdout)
        self._directory = directory
        self._owner = os.getpid()
        self._closed = False
        self.nats_url = ""
        self.nats_url_file = ""
        self.pid = process.pid

    @classmethod
    def start(
        cls,
        *,
        embedded: bool,
        demo: bool,
        nats_url: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        log_level: str = "info",
        log_format: str = "text",
        timeout_seconds: float = START_SECONDS,
    ) -> Self:
        """Start the companion and wait until NATS is up. Blocks; call it before any fork, without gevent.

        A NATS that is not ours is not waited for: it may come up later.

        Args:
            embedded: Whether it runs a NATS server of its own, with its data in a temporary directory.
            demo: Whether it publishes the demo feed.
            nats_url: The server to use when not embedded, or several with commas between them.
            prefix: Of the demo feed's subjects.
            log_level: Least severity of its log lines, which go to the arbiter's stderr.
            log_format: "text", or "json" for one object per line.
            timeout_seconds: How long to wait.

        Raises:
            ValueError: Not exactly one of `embedded` and `nats_url`, or nothing to do.
            CompanionError: It ended or was not ready in time. Nothing is left running or lying around.
        """
        if embedded == (nats_url is not None):
            raise ValueError("either an embedded server or the URL of another one")
        if not embedded and not demo:
            raise ValueError("a companion with nothing to do")
        deadline = time.monotonic() + timeout_seconds
        arguments = ["--prefix", prefix, "--log-level", log_level, "--log-format", log_format]
        directory = None
        if demo:
            arguments.append("--demo")
        if embedded:
            # Only a name: nobody would remove the directory if we ended before the companion runs.
            try:
                directory = Path(tempfile.gettempdir(), f"odinws-nats-{secrets.token_hex(8)}")
            except OSError as error:
                raise CompanionError(f"no place for the data of NATS: {error.strerror}") from None
            arguments += ["--directory", str(directory), "--embedded"]
        # Until it is ready its stderr goes to a file, for the error message; then where the arbiter's goes.
        with unnamed_file() as log:
            companion = cls(_spawn(arguments, log), directory)
            try:
                companion._await_ready(nats_url or "", deadline)
            except CompanionError as error:
                companion.close()  # first, so that all it has to say is in the log
                raise CompanionError(error.reason, _tail(log)) from None
            except BaseException:  # Ctrl-C too: nobody else would end it
                companion.close()
                raise
        return companion

    def close(self) -> None:
        """End the companion and all it owns: by the pipe, by SIGKILL when it has not ended 3 s later.

        Its NATS server and its data are gone afterwards even if it was killed itself. Idempotent. In a forked
        child it only lets go, as `forget` does.
        """
        if os.getpid() != self._owner:
            self.forget()
        if self._closed:
            return
        self._closed = True
        self._stdin.close()
        with contextlib.suppress(TimeoutError):
            deadline = time.monotonic() + _CLOSE_SECONDS
            while self._read(deadline):
                pass
        self._process.kill()  # which polls first: a process that was reaped, here or elsewhere, is left alone
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_REMOVE_SECONDS)
        self._stdout.close()
        if self._directory is not None:
            _await_orphan(self._directory)
            remove(self._directory)

    def forget(self) -> None:
        """Let go of the companion; for a worker, right after the fork.

        A copy of the pipe's write end in a worker would keep the companion alive after the arbiter's death.
        """
        self._closed = True
        self._stdin.close()
        self._stdout.close()

    def _await_ready(self, nats_url: str, deadline: float) -> None:
        # Through the pipe: a URL may hold a password, and every user of the machine can read argument lists.
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(f"{nats_url}\n".encode())
        line = b""
        try:
            while not line.endswith(b"\n"):
                if not (chunk := self._read(deadline)):
                    raise CompanionError("the companion ended before NATS was up")
                line += chunk
        except TimeoutError:
            raise CompanionError("the companion did not say in time that NATS is up") from None
        said = json.loads(line)
        self.nats_url, self.nats_url_file = said["nats_url"], said["nats_url_file"]

    def _read(self, deadline: float) -> bytes:
        """Read from the companion's stdout; empty at its end.

        Raises:
            TimeoutError: Nothing came before `deadline`.
        """
        poller = select.poll()
        poller.register(self._stdout, select.POLLIN)
        if not poller.poll(max(deadline - time.monotonic(), 0.0) * 1000):
            raise TimeoutError
        return self._stdout.read(4096)


def remove(directory: Path) -> None:
    """Remove `directory`, with a second's patience: a nats-server that is being killed may still write."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            time.sleep(0.02)


def _await_orphan(directory: Path) -> None:
    """Wait until the nats-server of a killed companion has ended too, for at most a second.

    The kernel kills it with the companion (see `feed.embedded.death_signal`), but its threads take some more
    milliseconds to end, in which it may listen and write. It is nobody's child of ours, so its process id is
    read from the name of its ports file. After an orderly end there is no such file. Elsewhere than on Linux
    nothing is waited for.
    """
    if sys.platform != "linux":
        return
    for path in directory.glob("*.ports"):
        try:
            process = os.pidfd_open(int(path.stem.rpartition("_")[2]))
        except OSError:  # it is gone; or a container's rules forbid the call
            continue
        try:
            poller = select.poll()
            poller.register(process, select.POLLIN)  # readable when its last thread has ended
            poller.poll(_ORPHAN_SECONDS * 1000)
        finally:
            os.close(process)


def _spawn(arguments: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    stderr = os.dup(_STDERR)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, "--stderr", str(stderr), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            cwd=Path(__file__).parents[2],  # `-m` finds the package there, installed or not
            start_new_session=True,  # a terminal's Ctrl-C is the arbiter's business
            pass_fds=(stderr,),
        )
    finally:
        os.close(stderr)


def _tail(log: IO[bytes]) -> str:
    log.seek(max(log.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
    return log.read().decode("utf-8", "replace").strip()
