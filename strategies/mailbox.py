"""A mailbox whose owner executes commands in order of arrival.

The owner is a `threading.Thread`: a greenlet under gevent, elsewhere a thread. `threading` is looked up when
a mailbox is created, after the server has patched it.

A mailbox is bounded by its use: a sender waits for its result, so there is at most one command per greenlet.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar, cast

from strategies.locks import LockStats

# Commands that are executed before others may run: at 1 to 2 µs each, half a millisecond.
_BURST = 256

T = TypeVar("T")


class _Command:
    """An operation, and the gate at which its sender waits."""

    __slots__ = ("error", "gate", "held_seconds", "operation", "value")

    def __init__(self, operation: Callable[[], object], gate: threading.Lock) -> None:
        self.operation = operation
        self.gate = gate
        self.value: object = None
        self.error: Exception | None = None
        self.held_seconds = 0.0


class Mailbox:
    """A queue of commands and its owner, which runs until `close`. For senders of one OS thread."""

    __slots__ = (
        "_commands",
        "_done",
        "_longest_hold",
        "_longest_wait",
        "_make_gate",
        "_wait_seconds",
        "_wake_lock",
    )

    def __init__(self) -> None:
        self._make_gate = threading.Lock
        self._commands: deque[_Command | None] = deque()
        # Held while there is nothing new for the owner. Only the owner acquires it.
        self._wake_lock = self._make_gate()
        self._wake_lock.acquire()
        self._done = 0
        self._wait_seconds = 0.0
        self._longest_wait = 0.0
        self._longest_hold = 0.0
        threading.Thread(target=self._serve, name="shard owner", daemon=True).start()

    def call(self, operation: Callable[[], T]) -> T:
        """Have the owner run an operation, and wait for the result. What it raises is raised here.

        If the waiting greenlet is killed, the operation runs completely or not at all.
        """
        gate = self._make_gate()
        gate.acquire()
        command = _Command(operation, gate)
        asked_at = time.perf_counter()
        self._put(command)
        try:
            gate.acquire()
        except BaseException:  # this greenlet was killed: nobody waits for the command any more
            if command in self._commands:
                self._commands.remove(command)
            raise
        waited_seconds = time.perf_counter() - asked_at - command.held_seconds
        self._wait_seconds += waited_seconds
        self._longest_wait = max(self._longest_wait, waited_seconds)
        if command.error is not None:
            raise command.error
        return cast("T", command.value)

    def close(self) -> None:
        """Stop the owner after the queued commands. Never switches, so the garbage collector may call it."""
        self._put(None)

    def stats(self) -> LockStats:
        """Statistics in the form of a lock's; every command counts as a wait, for the owner to run it."""
        return LockStats(self._done, self._done, self._wait_seconds, self._longest_wait, self._longest_hold)

    def _put(self, command: _Command | None) -> None:
        self._commands.append(command)
        if self._wake_lock.locked():
            self._wake_lock.release()

    def _serve(self) -> None:
        is_open = True
        while is_open:
            self._wake_lock.acquire()
            is_open = self._drain()

    def _drain(self) -> bool:
        """Execute all queued commands, including those added meanwhile; False: the mailbox is closed."""
        done = 0
        while self._commands:
            command = self._commands.popleft()
            if command is None:
                return False
            self._execute(command)
            done += 1
            if done % _BURST == 0:
                time.sleep(0)
        return True

    def _execute(self, command: _Command) -> None:
        began = time.perf_counter()
        try:
            command.value = command.operation()
        except Exception as error:  # noqa: BLE001 - raised again in the sender; the owner must go on
            command.error = error
        held_seconds = command.held_seconds = time.perf_counter() - began
        self._longest_hold = max(self._longest_hold, held_seconds)
        self._done += 1
        command.gate.release()
