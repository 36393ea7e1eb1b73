"""The way to every worker: each listens on a socket of its own, for processes of the same user alone.

The worker that is asked over HTTP asks all of them, itself included, in the same way. A question is one JSON
object, the answer another; then the socket closes. A worker that is gone refuses, and costs its own part of
the answer.

The sockets have names of Linux's abstract kind: no file, so nothing is left however a server ends, and no
permissions, so both ends ask the kernel who the other one is.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Any

import gevent
import msgspec
import structlog
from gevent import socket
from gevent.server import StreamServer

from odinws.debug.verbs import DebugError
from odinws.debug.views import Views

_PATIENCE_SECONDS = 15.0  # for the answer, beyond what was asked to be watched
_MAX_QUESTION_BYTES = 64 << 10
_CHUNK_BYTES = 256 << 10
_WAITING = 16
_CREDENTIALS = struct.Struct("iII")  # of SO_PEERCRED: process, user, group

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
        name: of the server.
        views: of this worker.
    """

    def __init__(self, name: str, views: Views) -> None:
        self._address = _address(name, os.getpid())
        self._views = views
        self._busy = ""  # the expensive view that is at work
        self._server: Any = None

    def start(self) -> None:
        """Listen for the life of the worker. Without a socket the others do not find it."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(self._address)
            listener.listen(_WAITING)
        except OSError as error:
            listener.close()
            log.error("this worker can't be looked into: no socket", problem=str(error))
            return
        self._server = StreamServer(listener, self._serve)
        self._server.start()

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.stop(0)

    def _serve(self, sock: Any, _: Any) -> None:
        with contextlib.suppress(OSError), contextlib.closing(sock):
            _check_peer(sock)
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
        expensive = question.verb in ("profile", "heap")  # whose client may be gone, and its lock with it
        if not expensive:
            return self._views.run(question.verb, question.options)
        if self._busy:
            raise DebugError(409, "busy", f"a {self._busy} is under way in this worker")
        self._busy = question.verb
        try:
            return self._views.run(question.verb, question.options)
        finally:
            self._busy = ""


def ask(name: str, pids: list[int], question: Question, seconds: float) -> dict[int, Answer]:
    """Ask workers at one time, and wait for all.

    Args:
        name: of the server.
        seconds: how long they are asked to watch.

    Returns:
        The answer of each; one that says why, for a worker that gave none.
    """
    asked = {pid: gevent.spawn(_ask, _address(name, pid), question, seconds) for pid in pids}
    gevent.joinall(list(asked.values()))
    return {pid: greenlet.value for pid, greenlet in asked.items()}


def _ask(address: str, question: Question, seconds: float) -> Answer:
    sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(sock):
        try:
            sock.settimeout(seconds + _PATIENCE_SECONDS)
            sock.connect(address)
            _check_peer(sock)
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


def _address(name: str, pid: int) -> str:
    return f"\0{name}-{pid}"


def _check_peer(sock: Any) -> None:
    """Whoever is at the other end must be of this user, or root.

    Raises:
        PermissionError: it is not.
    """
    _, user, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if user not in (os.geteuid(), 0):
        raise PermissionError(f"a process of user {user} is at the other end")
