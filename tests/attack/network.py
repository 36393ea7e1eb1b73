"""Two network namespaces with a cable between them: the server in one, everybody else in the other.

So clients have addresses that are not the loopback's, as many as they like, and the server is as on the
internet. A thread is in one namespace at a time; the sockets, threads and processes that it makes are in that
one for good.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

HELP = (
    "network namespaces can't be made here ({why}): run it as root with Debian's iproute2, in a container "
    "with CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged); or give --loopback, which proves less, "
    "as every client is local there"
)
_NET = 0x40000000  # CLONE_NEWNET, linux/sched.h
_CABLE = ("10.77.0.1", "10.77.0.2")
_CLIENTS = IPv4Address("10.78.0.0")
_LOCAL = IPv4Address("127.78.0.0")


class NetworkError(Exception):
    """There can be no namespaces."""


class Network(NamedTuple):
    """Where server and clients are.

    Attributes:
        inside, outside: files of the namespaces of the server and of the clients; "": ours, for both.
        server: address of the server for those outside.
    """

    inside: str = ""
    outside: str = ""
    server: str = "127.0.0.1"

    @property
    def is_loopback(self) -> bool:
        """Whether all are in one namespace, and every address is of the loopback."""
        return not self.inside

    def address(self, number: int) -> str:
        """The address of a client, 0 to 65,000."""
        return str((_LOCAL if self.is_loopback else _CLIENTS) + number + 1)

    def at(self, address: str) -> socket.socket:
        """A socket of a client that has this address; one of 127.0.0.0/8 is on the server's machine."""
        with entered(self.inside if address.startswith("127.") else self.outside):
            sock = socket.socket()
        try:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((address, 0))
        except BaseException:
            sock.close()
            raise
        return sock


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make the namespaces, and remove them in the end. Raises NetworkError."""
    inside, outside = (f"odinws-{os.getpid()}-{side}" for side in ("inside", "outside"))
    server, client = _CABLE
    with contextlib.ExitStack() as stack:
        for name in (inside, outside):
            _ip(f"netns add {name}")
            stack.callback(_ip, f"netns delete {name}")
            _ip(f"-n {name} link set lo up")
        _ip(f"-n {inside} link add cable type veth peer name cable netns {outside}")
        for name, own, other in ((inside, server, client), (outside, client, server)):
            _ip(f"-n {name} address add {own} peer {other} dev cable")
            _ip(f"-n {name} link set cable up")
        _ip(f"-n {inside} route add {_CLIENTS}/16 via {client}")
        _ip(f"-n {outside} route add local {_CLIENTS}/16 dev lo")  # all of them are ours
        yield Network(f"/run/netns/{inside}", f"/run/netns/{outside}", server)


def _ip(command: str) -> None:
    try:
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
    except OSError as error:
        raise NetworkError(f"ip: {error.strerror}") from error
    if done.returncode:
        raise NetworkError(f"ip {command}: {done.stderr.strip()}")


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Have this thread in a namespace; "": where it is."""
    if not namespace:
        yield
        return
    with open("/proc/thread-self/ns/net") as home, open(namespace) as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NET):  # os.setns is of Python 3.12
        number = ctypes.get_errno()
        raise NetworkError(f"setns: {os.strerror(number)}")
