"""The way to every worker: each listens on a socket of its own in a directory that only the server may enter.

The worker that is asked over HTTP asks all of them, itself included, in the same way. A question is one JSON
object, the answer another; then the socket closes. A worker that is gone refuses, and costs its own part of
the answer.

The directory is made by the arbiter. A worker takes its socket away when it ends, and the directory too if
the arbiter has not lived to do it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import gevent
import msgspec
import structlog
from gevent import socket
from gevent.server import StreamServer

from odinws.debug.errors import DebugError
from odinws.debug.views import Views

_PATIENCE_SECONDS = 15.0  # for the answer, beyond what was asked to be watched
_MAX_QUESTION_BYTES = 64 << 10
_CHUNK_BYTES = 256 << 10

log = structlog.get_logger("odinws.debug")


class Question(msgspec.Struct):
    """What one worker is asked."""

    verb: str
    options: dict[str, Any]


class Answer(msgspec.Struct):
    """What it says.

    Attributes:
        result: what the view gave.
        error: why there is none; "" if there is one.
    """

    result: Any = None
    error: str = ""


class Agent:
    """Answers for this worker.

    Args:
        directory: of the server.
        views: of this worker.
    """

    def __init__(self, directory: Path, views: Views) -> None:
        self._path = _path(directory, os.getpid())
        self._views = views
        self._busy = ""  # the dear view that is at work
        self._server: Any = None

    def start(self) -> None:
        """Listen for the life of the worker. Without a socket the others find this worker gone."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(self._path))
            listener.listen(16)
        except OSError as error:
            listener.close()
            log.error("this worker can't be looked into", path=str(self._path), problem=str(error))
            return
        self._server = StreamServer(listener, self._serve)
        self._server.start()

    def close(self, *, last: bool) -> None:
        """Take the socket away.

        Args:
            last: whether the arbiter is gone, so that whoever is last removes the directory.
        """
        if self._server is not None:
            self._server.stop(0)
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            if last and not list(self._path.parent.glob("*.sock")):
                for left in self._path.parent.iterdir():
                    left.unlink()
                self._path.parent.rmdir()

    def _serve(self, sock: Any, _: Any) -> None:
        with contextlib.suppress(OSError), contextlib.closing(sock):
            sock.settimeout(_PATIENCE_SECONDS)
            try:
                question = msgspec.json.decode(_read_all(sock, _MAX_QUESTION_BYTES), type=Question)
                answer = Answer(result=self._answer(question))
            except (msgspec.DecodeError, DebugError) as error:
                answer = Answer(error=str(error))
            except Exception as error:  # a defect of a view costs its answer, not the worker
                log.exception("a view failed")
                answer = Answer(error=f"{type(error).__name__}: {error}")
            sock.sendall(msgspec.json.encode(answer))

    def _answer(self, question: Question) -> Any:
        dear = question.verb in ("profile", "heap")  # whose asker may be gone, and its turn with it
        if not dear:
            return self._views.look(question.verb, question.options)
        if self._busy:
            raise DebugError(409, "busy", f"a {self._busy} is under way in this worker")
        self._busy = question.verb
        try:
            return self._views.look(question.verb, question.options)
        finally:
            self._busy = ""


def ask(directory: Path, pids: list[int], question: Question, seconds: float) -> dict[int, Answer]:
    """Ask workers at one time, and wait for all.

    Args:
        seconds: how long they are asked to watch.

    Returns:
        The answer of each; one that says why, for a worker that gave none.
    """
    asked = {pid: gevent.spawn(_ask, _path(directory, pid), question, seconds) for pid in pids}
    gevent.joinall(list(asked.values()))
    return {pid: greenlet.value for pid, greenlet in asked.items()}


def _ask(path: Path, question: Question, seconds: float) -> Answer:
    sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(sock):
        try:
            sock.settimeout(seconds + _PATIENCE_SECONDS)
            sock.connect(str(path))
            sock.sendall(msgspec.json.encode(question))
            sock.shutdown(socket.SHUT_WR)
            raw = _read_all(sock)
        except TimeoutError:
            return Answer(error=f"no answer within {seconds + _PATIENCE_SECONDS:g} s")
        except OSError as error:
            return Answer(error=f"the worker starts, or has ended: {error.strerror or error}")
    if not raw:
        return Answer(error="the worker ended before it answered")
    return msgspec.json.decode(raw, type=Answer)


def _read_all(sock: Any, limit: int = 1 << 30) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := sock.recv(_CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise OSError(f"more than {limit} bytes")
    return b"".join(chunks)


def _path(directory: Path, pid: int) -> Path:
    return directory / f"{pid}.sock"
