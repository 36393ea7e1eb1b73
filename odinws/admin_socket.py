"""The listening socket of the admin plane: made by the arbiter, inherited by workers, passed on by USR2.

gunicorn does not know of it: with `-b` or socket activation it binds what it is told, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Any

import structlog

from odinws.errors import SettingsError
from odinws.settings import Settings
from odinws.settings.model import DEFAULT_ADMIN_ADDR

_DESCRIPTOR = "ODINWS_ADMIN_FD"  # variable, from an arbiter to its successor
_BACKLOG = 128

log = structlog.get_logger("odinws.admin_socket")


class AdminSocket:
    """Open from its making until `close`, or until a worker takes it.

    If nobody has chosen its address and the default is taken, as by another server on the machine, it listens
    on a free port and says so.

    Args:
        server: the arbiter.

    Raises:
        SettingsError: the address can't be had.
    """

    def __init__(self, settings: Settings, server: Any) -> None:
        self._server = server
        self._address = settings.admin_address
        inherited = os.environ.pop(_DESCRIPTOR, "")
        try:
            self._sock = socket.socket(fileno=int(inherited)) if inherited else self._bind(settings)
        except OSError as error:
            raise SettingsError("WS_ADMIN_ADDR", settings.admin_addr, _advice(error)) from None
        self._sock.setblocking(False)

    @property
    def url(self) -> str:
        """Where it listens, as people may open it."""
        if isinstance(self._address, str):
            return f"unix:{self._address}"
        host, port = self._sock.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def port(self) -> int | None:
        """Where it listens; None: a Unix socket."""
        return None if isinstance(self._address, str) else self._sock.getsockname()[1]

    def take(self) -> int:
        """The descriptor, which is the caller's from now on: a worker's."""
        return self._sock.detach()

    def pass_on(self) -> None:
        """Have the arbiter that is started next use it too."""
        self._sock.set_inheritable(True)
        self._server.cfg.env_orig[_DESCRIPTOR] = str(self._sock.fileno())

    def close(self) -> None:
        """Accept nobody any more. Idempotent."""
        self._sock.close()
        alone = self._server.reexec_pid == self._server.master_pid == 0
        if isinstance(self._address, str) and alone:
            with contextlib.suppress(OSError):
                os.unlink(self._address)

    def _bind(self, settings: Settings) -> socket.socket:
        if isinstance(self._address, tuple):
            return _bind_tcp(*self._address, settings)
        path, cfg = self._address, self._server.cfg
        _remove_left_over(path)
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)  # for the server's user alone
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        if os.geteuid() == 0:
            os.chown(path, cfg.uid, cfg.gid)
        sock.listen(_BACKLOG)
        return sock


def _bind_tcp(host: str, port: int, settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_default = settings.admin_addr == DEFAULT_ADMIN_ADDR
    try:
        if is_default and port == settings.port:
            raise OSError(errno.EADDRINUSE, "the public port")
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if not is_default or error.errno != errno.EADDRINUSE:
            raise
    sock = socket.create_server((host, 0), family=family, backlog=_BACKLOG)
    log.warning(
        "the default address of the admin plane is taken, so it has another: set WS_ADMIN_ADDR to choose",
        taken=f"{host}:{port}",
        at=f"{host}:{sock.getsockname()[1]}",
    )
    return sock


def _remove_left_over(path: str) -> None:
    """A server that was killed leaves its socket behind; one that runs answers there."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "taken")


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "it is taken, perhaps by another server: give this one another port, or unix:/path"
    return f"it can't be had: {error.strerror or error}"
