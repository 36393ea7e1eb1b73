"""What is held: by an object alone, by this process, by the kernel. In bytes; Linux only."""

from __future__ import annotations

import ctypes
import enum
import gc
import sys
import types
from collections.abc import Container
from pathlib import Path
from typing import Any

import gevent

from bench import measure
from odinws.connections.clients import Clients

ALL_SLAB = "all, whatever for (/proc/meminfo)"
_CACHES = ("TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "lsm_inode_cache", "lsm_file_cache")
_ONCE = (type, enum.Enum, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, Clients)


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
    found = {ALL_SLAB: measure.memory([]).slab}
    try:
        workers = [line.split() for line in Path("/proc/slabinfo").read_text().splitlines()[2:]]
    except OSError:
        return found
    return {stats[0]: int(stats[1]) * int(stats[3]) for stats in workers if stats[0] in _CACHES} | found
