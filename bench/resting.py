"""A process that opens connections, leaves them at rest and looks at them: `python -m bench.resting COUNT`.

Prints JSON. The connections are real, over loopback TCP, and subscribed by real frames to 5 channels of
`sync-dict`. The far ends are bare descriptors of the same process: next to nothing in its memory, half of the
kernel's.
"""

from __future__ import annotations

import array
import ctypes
import enum
import gc
import json
import os
import socket
import struct
import sys
import types
from collections.abc import Container
from pathlib import Path
from typing import Any, cast

import gevent
from gevent.event import Event

from bench import measure
from bench.client.driver import raise_open_files_limit
from odinws import logs
from odinws.connections.clients import Clients
from odinws.connections.commands import Commands
from odinws.connections.connection import Connection
from odinws.connections.limits import ConnectionLimits
from odinws.messages.frames import text
from odinws.messages.json_format import JsonFormat
from odinws.messages.wire_format import Bundle, Entry, FormatRegistry
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from odinws.swarm import frames
from strategies.sync_dict import SyncDict

ALL_SLAB = "all, whatever for (/proc/meminfo)"
_CACHES = ("TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "lsm_inode_cache", "lsm_file_cache")
_ONCE = (type, enum.Enum, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, Clients)
BUSY = 200  # connections that carry out a command at one time
_CHANNELS = [f"token.{number}" for number in range(5)]
_SUBSCRIBE = frames.subscribe(_CHANNELS)
_FRAME = Entry(text(b" " * 196), _CHANNELS[0], 1, 1, 1)
_TICKS = 99  # joins are spread over a heartbeat (100 ticks of the wheel), as those of a server in use
_WARM = 64  # connections before the first look: what is loaded once belongs to none
_SECONDS = 10.0  # nothing here waits longer
_NOTHING = cast("Any", None)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the far ends leave no TIME_WAIT that spoils the next run


def reach(root: object) -> dict[int, tuple[str, Any]]:
    """What an object leads to, by identity, with the way there; without what a worker has once."""
    stops = (*_ONCE, type(gevent.get_hub().loop))
    seen: dict[int, tuple[str, Any]] = {id(root): ("itself", root)}
    for slot in [slot for kind in type(root).__mro__ for slot in getattr(kind, "__slots__", ())]:
        value = getattr(root, slot)
        seen.setdefault(id(value), (slot, value))
    todo = list(seen.values())
    for way, obj in todo:
        for found in () if isinstance(obj, stops) else gc.get_referents(obj):
            if id(found) not in seen:
                seen[id(found)] = (f"{way} > {type(found).__name__}", found)
                todo.append(seen[id(found)])
    return {key: entry for key, entry in seen.items() if not isinstance(entry[1], stops)}


def own(root: object, shared: Container[int]) -> dict[str, int]:
    """Bytes of what it leads to, by way and type; objects whose identity is in `shared` do not count.

    `sys.getsizeof`, header of the garbage collector included, in the allocator's steps of 16.
    """
    sizes: dict[str, int] = {}
    for key, (way, obj) in reach(root).items():
        if key not in shared:
            name = f"{way} ({type(obj).__name__})"
            sizes[name] = sizes.get(name, 0) + -(-sys.getsizeof(obj) // 16) * 16
    return sizes


def resident() -> int:
    """Resident bytes of this process, counted page by page: the kernel's running count is 100s of KB off."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what tables left behind when they grew is nobody's
    return int(Path("/proc/self/smaps_rollup").read_text().partition("\nRss:")[2].split()[0]) * 1024


def slab() -> dict[str, int]:
    """Bytes of the kernel's objects on the whole machine: of caches that sockets use, if readable, and all.

    The kernel may merge caches of one object size under one name.
    """
    try:
        lines = [line.split() for line in Path("/proc/slabinfo").read_text().splitlines()[2:]]
    except OSError:
        lines = []
    named = {words[0]: int(words[1]) * int(words[3]) for words in lines if words[0] in _CACHES}
    return named | {ALL_SLAB: measure.slab()}


class World:
    """The connections of a worker, with the far ends of their sockets."""

    def __init__(self) -> None:
        settings, stats = Settings.from_environ({}), WorkerStats()
        limits = ConnectionLimits.of(settings)
        self.formats = FormatRegistry(JsonFormat, settings.compression_min_bytes)
        self.strategy: SyncDict[Connection] = SyncDict()
        present = cast("Any", types.SimpleNamespace(subscribe=self.strategy.subscribe))  # without a past
        self.commands: Commands[Connection] = Commands(
            settings, limits, self.strategy, stats, lambda old, _: old, present, _NOTHING
        )
        self.clients = Clients(limits, self.strategy, stats, self.formats.default, self._run)
        self.peers = array.array("i")
        self.gate = Event()  # while it is not set, commands wait
        self.gate.set()
        self.server = socket.create_server(("127.0.0.1", 0))
        for _ in range(512):  # places are small integers at first, which cost nothing
            self.clients._wheel.tick()

    def _run(self, conn: Connection) -> None:
        self.gate.wait()
        self.commands.run(conn)

    def settle(self, busy: int = 0) -> None:
        """Let the loop run until it is idle and so many connections carry out commands."""
        with gevent.Timeout(_SECONDS):
            gevent.idle()
            while self.clients.busy != busy:
                gevent.idle()

    def join(self) -> Connection:
        """A connection that has subscribed and whose answer was read."""
        theirs = socket.create_connection(self.server.getsockname(), _SECONDS)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        ours, address = self.server.accept()
        conn = self.clients.open(ours.detach(), address[0], self.formats.default)
        conn.start(b"")
        theirs.sendall(_SUBSCRIBE)
        with gevent.Timeout(_SECONDS):
            while len(conn.channels) < len(_CHANNELS) or conn.commands is not None:
                gevent.idle()
        theirs.recv(4096)
        self.peers.append(theirs.detach())
        return conn

    def fill(self, count: int, ticks: int = 0) -> list[Connection]:
        """Open connections while so many ticks pass, fewer than connections; returns two of one instant."""
        first = []
        for number in range(count):
            conn = self.join()
            if number < 2:
                first.append(conn)
            if (number + 1) * ticks // count > number * ticks // count:
                self.clients._wheel.tick()
                self.clients.now += self.clients._wheel.tick_seconds
        for channel in _CHANNELS:
            next(self.strategy.batches(channel))  # builds the snapshot, as a pass does
        return first

    def containers(self) -> dict[str, int]:
        """Bytes of what is there for all connections."""
        shard = self.strategy._shard
        channels: list[Any] = [shard.channels[name] for name in _CHANNELS]
        return {
            "strategy: dict of members": sys.getsizeof(shard.members.conns),
            "strategy: 5 dicts of subscribers": sum(sys.getsizeof(each.conns) for each in channels),
            "strategy: 5 snapshots": sum(sys.getsizeof(each.snapshot()) for each in channels),
            "wheel: sets of its places": sum(map(sys.getsizeof, self.clients._wheel._positions)),
            "clients: set of those open": sys.getsizeof(self.clients._open),
        }

    def states(self, conn: Connection, shared: set[int]) -> dict[str, dict[str, int]]:
        """What a connection, the first after the warm ones, holds more while it is not at rest."""
        rest = own(conn, shared)
        found: dict[str, dict[str, int]] = {}

        def note(state: str) -> None:
            more = {name: size - rest.get(name, 0) for name, size in own(conn, shared).items()}
            found[state] = {name: size for name, size in more.items() if size > 0}

        os.write(self.peers[_WARM], _SUBSCRIBE[:60])
        self.settle()
        note("60 bytes of a frame are there")
        os.write(self.peers[_WARM], _SUBSCRIBE[60:])
        self.settle()
        before = resident()
        self.gate.clear()
        for peer in self.peers[_WARM : _WARM + BUSY]:
            os.write(peer, _SUBSCRIBE)
        self.settle(BUSY)
        each = (resident() - before) // BUSY
        note("a command waits")
        found["a command waits"] = {"all, with its greenlet (resident)": each, **found["a command waits"]}
        self.gate.set()
        self.settle()
        bundle = Bundle.of([_FRAME])
        shared |= set(reach(bundle))
        while conn._outbox is None or len(conn._outbox) < 100:
            conn.send(bundle.data, (bundle,))
        note("its socket is full, and 100 frames wait")
        return found


def look(count: int) -> dict[str, Any]:
    """Open connections and look at one, at all and at the kernel; bytes, per connection where all are meant.

    `count` is `BUSY` or more. Raises OSError when the process may not have that many descriptors.
    """
    raise_open_files_limit()
    logs.configure("warning", "text")
    world = World()
    world.fill(_WARM)
    shared, kernel = world.containers(), slab()
    # Blocks that were freed so far would hide what comes: take a MB of each size.
    ballast: list[object] = [float(number) for number in range(1 << 15)]
    ballast += [bytes(size - 33) for size in range(48, 513, 16) for _ in range((1 << 20) // size)]
    before = resident()
    one, other = world.fill(count, _TICKS)
    grown = resident() - before
    kernel = {name: size - kernel[name] for name, size in slab().items()}
    io, watcher = type(one._read).__mro__[:2]
    same = set(reach(other)) | set(map(id, vars(world.clients).values()))
    return {
        "objects": own(one, same),
        "containers": {name: (size - shared[name]) / count for name, size in world.containers().items()},
        "resident": grown / count,
        "kernel": {name: size / count for name, size in kernel.items()},
        "states": world.states(one, same),
        "watcher_struct": io.__basicsize__ - watcher.__basicsize__,
        "send_buffer": one._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
    }


if __name__ == "__main__":
    json.dump(look(int(sys.argv[1])), sys.stdout)
