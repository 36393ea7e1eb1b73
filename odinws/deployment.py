"""The arbiter's side of a server: what is made once, before any worker is forked.

`gunicorn.conf.py` hands these hooks to gunicorn. They run in the arbiter, unpatched, except
`post_fork`, which runs in the child.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
from gunicorn import sock
from gunicorn.pidfile import Pidfile

from odinws import logs, strategy_check
from odinws.access.peer import is_loopback
from odinws.admin_socket import AdminSocket
from odinws.assignment import DEFAULT_STRATEGY
from odinws.companion import Companion, CompanionError
from odinws.errors import SettingsError
from odinws.settings import MAX_SHARDS, Settings, platform_variables, without_credentials
from odinws.shared import SharedState

_DETAILS_BYTES = 8 << 10
_DETAILS_BYTES_PER_SHARD = 512  # of all that a resize may ask for: memory that is not used costs nothing
_CHECK_SECONDS = 60.0  # for a check in a process of its own
_DESCRIPTORS_BESIDE_CONNECTIONS = 2000  # of one worker: mostly HTTP requests under way

log = structlog.get_logger("odinws.arbiter")

_current: Deployment | None = None


class Deployment:
    """Settings, shared state and companion of a server.

    Attributes:
        admin: the socket of the admin plane, from `on_starting` on.
    """

    admin: AdminSocket

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shared = SharedState(
            _DETAILS_BYTES + MAX_SHARDS * _DETAILS_BYTES_PER_SHARD, settings.max_connections
        )
        self.nats_urls = settings.nats_urls
        self._companion: Companion | None = None
        self._page = ""
        self._said = mmap.mmap(-1, 1)  # shared with the workers; 1: one of them has said that all accept
        self._strategy = settings.strategy or DEFAULT_STRATEGY

    @classmethod
    def load(cls) -> Deployment:
        """The deployment of this process. A reload (SIGHUP) keeps it: settings, shared state and NATS.

        Of the settings only the file of channels is read again.

        Raises:
            SystemExit: a setting is wrong, or there is no memory to share; a line on standard error says it.
        """
        global _current
        if _current is None:
            settings = _usable_settings()
            try:
                _current = cls(settings)
            except OSError as error:
                sys.exit(f"odinws: the system gives no memory to share: {error.strerror or error}")
        return _current

    def on_starting(self, server: Any) -> None:
        """Start the embedded NATS and the demo feed, if they are wanted."""
        logs.configure(self.settings.log_level, self.settings.log_format, access=self.settings.log_access)
        _check_configuration(server.cfg, self.settings)
        if ignored := platform_variables():
            log.info("variables of a Kubernetes Service are no settings: ignored", names=ignored)
        _guard_reload(server, self)
        self._make_room_for_descriptors()
        try:
            self.admin = AdminSocket(self.settings, server)
        except SettingsError as error:
            sys.exit(f"odinws: {error}")
        _before_stop(server, self._stops)
        if self.settings.flags_file:
            self._strategy = self._check_flags()
        if self.settings.embedded_nats or self.settings.runs_demo_feed:
            try:
                self._companion = Companion.start(
                    embedded=self.settings.embedded_nats,
                    demo=self.settings.runs_demo_feed,
                    nats_url=",".join(self.nats_urls) or None,
                    prefix=self.settings.subject_prefix,
                    log_level=self.settings.log_level,
                    log_format=self.settings.log_format,
                )
            except CompanionError as error:
                sys.exit(f"odinws: {error}")
            if self.settings.embedded_nats:
                self.nats_urls = [self._companion.nats_url]
                if self.settings.checks_tokens:
                    log.warning("clients need tokens, but NATS is embedded: it is for trying things out")

    def _stops(self) -> None:
        self.shared.mark_stop()  # workers ask whether they alone are told to stop, or all
        self.admin.close()

    def pre_exec(self, server: Any) -> None:
        """Another arbiter is about to take the place of this one (USR2)."""
        self.admin.pass_on()
        arguments = server.START_CTX["args"]
        if os.path.basename(arguments[1]) == "__main__.py":
            # `python -m gunicorn`. By its path, its own directory would come first, with another `http`.
            arguments[1:2] = ["-m", "gunicorn"]

    def _check_flags(self) -> str:
        """Look at the file of flags before anything starts, as at the keys; what the workers will run."""
        settings = self.settings
        if settings.strategy:
            log.info("WS_SHARD_STRATEGY wins over the flag", strategy=settings.strategy)
            return settings.strategy
        command = (sys.executable, "-m", "odinws", "rollout", "check", settings.flags_file)
        options = ("--workers", str(settings.workers), "--deployment", settings.environment)
        done = subprocess.run((*command, *options), capture_output=True, text=True)
        lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or [""]
        if not done.returncode:
            return lines[-1]
        log.error("flags can't be used: workers fall back", problem=lines[-1].removeprefix("odinws: "))
        return "the flag's default, see the log"

    def reread(self) -> Settings:
        """The same settings, with what is said by the file of channels now.

        Raises:
            SystemExit: it can't be used; one line says why.
        """
        settings = msgspec.structs.replace(self.settings)  # without what was parsed
        try:
            _ = settings.channels
        except SettingsError as error:
            sys.exit(f"odinws: {error}")
        return settings

    def on_reload(self, server: Any) -> None:
        """SIGHUP: all workers that run now are to be replaced, one after another."""
        self.shared.mark_reload()
        self.shared.event_log.add("config_reload", "SIGHUP: all workers are replaced, one after another")

    def _make_room_for_descriptors(self) -> None:
        """Let one worker hold all connections. A shell's usual limit of 1024 is there to be raised."""
        needed = self.settings.max_connections + _DESCRIPTORS_BESIDE_CONNECTIONS
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        if soft != resource.RLIM_INFINITY and soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            log.warning("too few file descriptors for all connections", allowed=allowed, needed=needed)

    def when_ready(self, server: Any) -> None:
        """Say what runs and how to stop it."""
        settings = self.settings
        names = [listener.sock.getsockname() for listener in server.LISTENERS]
        address = _shown_address(names or [(settings.host, settings.port)])
        secure = "s" if server.cfg.is_ssl else ""
        public = f"http{secure}://{address}/"
        self._page = public if isinstance(settings.admin_address, str) else self.admin.url
        if any(not isinstance(name, tuple) for name in names) and not settings.believed_proxies.unix:
            log.warning(
                "clients of the Unix socket are all one: WS_TRUSTED_PROXIES=unix: has them told apart by "
                "X-Forwarded-For"
            )
        reachable = [name[0] for name in names if isinstance(name, tuple) and not is_loopback(name[0])]
        if reachable and not settings.checks_tokens:
            log.warning("open to everybody who reaches it: without keys no client needs a token", at=address)
        nats = ", ".join(without_credentials(url) for url in self.nats_urls)
        facts = {
            "page": public,
            "admin": self.admin.url,
            "websocket": f"ws{secure}://{address}/ws",
            "strategy": self._strategy,
            "shards": settings.num_shards,
            "shard_key": settings.shard_key,
            "workers": settings.workers,
            "max_connections": settings.max_connections,
            "nats": f"{nats} (embedded)" if settings.embedded_nats else nats,
            "demo_feed": settings.runs_demo_feed,
            "stop": f"Ctrl-C or kill {server.pid}",
        }
        if self._companion is not None and self._companion.nats_url_file:
            facts["nats_url_file"] = self._companion.nats_url_file
        if settings.log_format == "json":
            log.info("odinws is up", **facts)
        else:
            lines = [f"  {name:<16} {value}" for name, value in facts.items()]
            _write("\n".join(["", "odinws is up", *lines, "", ""]))

    def say_open(self) -> None:
        """The last line of a start: once, by the first worker who sees that all accept."""
        if self._said[0] or not self.shared.is_warm(self.settings.workers):
            return
        self._said[0] = 1
        if self.settings.log_format == "json":
            log.info("all workers accept", page=self._page)
        else:
            _write(f"\nopen {self._page}\n\n")

    def pre_fork(self, server: Any, worker: Any) -> None:
        """Take a slot for a worker; in the parent, so that no two can take the same."""
        worker.deployment = self
        worker.slot = self.shared.claim()

    def post_fork(self, server: Any, worker: Any) -> None:
        """In the worker: drop what is the arbiter's."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            # The arbiter's handlers would swallow a stop that comes before the worker has its own.
            signal.signal(number, signal.SIG_DFL)
        if self._companion is not None:
            self._companion.forget()

    def child_exit(self, server: Any, worker: Any) -> None:
        """Clear the stats of a worker that is gone, however it went."""
        if self.shared.workers[worker.slot].recycling and server.num_workers > self.settings.workers:
            server.num_workers -= 1  # it had asked for its successor with SIGTTIN
        if not self.shared.workers[worker.slot].drained:
            self.shared.event_log.add("worker_killed", f"worker {worker.pid} ended without a goodbye")
        self.shared.retire(worker.slot)

    def on_exit(self, server: Any) -> None:
        """End the embedded NATS and the demo feed, after the workers."""
        if self._companion is not None:
            self._companion.close()


class _ReloadError(Exception):
    """What a reload has read can't be used."""


def _guard_reload(server: Any, deployment: Deployment) -> None:
    """Have a reload change nothing unless its workers could start; gunicorn would end the whole server.

    gunicorn has no hook there: `on_reload` comes when the configuration is read and in use.
    """
    app, read, reload = server.app, server.app.reload, server.reload

    def read_or_refuse() -> None:
        told = io.StringIO()  # gunicorn writes there what it does not like
        try:
            with contextlib.redirect_stderr(told):
                read()
            _usable_settings()
            settings = deployment.reread()
            _check_configuration(app.cfg, settings)
            _check_replaced(server.cfg, app.cfg, server.log)
            deployment.settings = settings
        except (SystemExit, Exception) as problem:  # noqa: BLE001 - a configuration is code
            # Not in `reload_or_stay`: workers are forked there, and end with SystemExit too.
            _write(told.getvalue())
            code = problem.code if isinstance(problem, SystemExit) else str(problem)
            last = (told.getvalue().strip().splitlines() or ["its log says why"])[-1]
            text = code if isinstance(code, str) else f"gunicorn can't read its configuration: {last}"
            raise _ReloadError(text.removeprefix("odinws: ")) from None

    def reload_or_stay() -> None:
        environ = dict(os.environ)  # gunicorn and the configuration, which is code, may change it
        try:
            reload()
        except _ReloadError as error:
            app.cfg = server.cfg
            os.environ.clear()
            os.environ.update(environ)
            deployment.shared.refuse_reload(str(error))
            log.error("reload refused: all workers stay as they are", problem=str(error))

    app.reload, server.reload = read_or_refuse, reload_or_stay


def _check_replaced(before: Any, after: Any, gunicorn_log: Any) -> None:
    """Look at what gunicorn replaces in its own process at a reload: where it fails, it ends the server.

    Args:
        before, after: its configuration.

    Raises:
        Exception: it can't be done; the text says why.
    """
    try:
        _ = after.worker_class  # imports it
    except RuntimeError as error:  # gunicorn puts a traceback into its text
        raise RuntimeError(str(error).partition("\n")[0].rstrip(": ")) from None
    if after.pidfile:
        if Pidfile(after.pidfile).validate() not in (None, os.getpid()):
            raise RuntimeError(f"{after.pidfile} is of another process")
        with tempfile.TemporaryFile(dir=Path(after.pidfile).parent, buffering=0) as file:
            file.write(b"%d" % os.getpid())
    if before.address == after.address:
        return
    if set(before.address) & set(after.address):
        # Workers that run still listen there, so nobody else can.
        raise RuntimeError("a reload can replace all addresses (-b), but not some: restart the server")
    for address in after.address:
        try:
            sock._sock_type(address)(address, after, gunicorn_log).close()
        except OSError as error:
            raise RuntimeError(f"nobody can listen at {address}: {error.strerror}") from None


def _check_configuration(configuration: Any, settings: Settings) -> None:
    """Look at what gunicorn's options may have changed.

    Raises:
        SystemExit: workers would not start, or the server would never be ready; its text is one line.
    """
    if configuration.workers != settings.workers:
        sys.exit(
            f"odinws: gunicorn is told to run {configuration.workers} workers (-w, --workers or a "
            f"configuration file), but WS_WORKERS={settings.workers} counts: leave out gunicorn's option "
            "and set WS_WORKERS"
        )
    concurrency = configuration.settings["workers"].default
    if concurrency not in (1, settings.workers):
        log.warning("WS_WORKERS wins over WEB_CONCURRENCY", workers=settings.workers, ignored=concurrency)
    if configuration.is_ssl:
        try:
            sock.ssl_context(configuration)
        except (OSError, ValueError) as error:
            files = f"certfile={configuration.certfile!r}, keyfile={configuration.keyfile!r}"
            reason = getattr(error, "strerror", None) or error
            sys.exit(f"odinws: gunicorn's {files} can't be used: {reason}")


def _shown_address(names: Sequence[Any]) -> str:
    """The first address of the network, else the first Unix socket in nginx's form; as part of a URL."""
    for name in names:
        if isinstance(name, tuple):
            host, port = name[:2]
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    path = os.fsdecode(names[0])
    return f"unix:{path.replace(chr(0), '@', 1)}:"


def _write(text: str) -> None:
    """To standard error, which may be a file on a full disk, or closed."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)


def _before_stop(server: Any, call: Callable[[], None]) -> None:
    """Have something called before the arbiter tells its workers that the whole server ends.

    gunicorn has no hook there: `on_exit` comes when the workers are gone, no signal comes when the arbiter
    gives up because a worker does not boot, and a configuration file can't choose another arbiter.
    """
    stop = server.stop

    def call_and_stop(graceful: bool = True) -> None:
        call()
        stop(graceful)

    server.stop = call_and_stop


def _usable_settings() -> Settings:
    """The settings of this environment, once keys and strategy can be used too.

    Raises:
        SystemExit: they can't be; one line says why.
    """
    try:
        settings = Settings.from_environ()
        settings.read_admin_token()
    except SettingsError as error:
        sys.exit(f"odinws: {error}")
    if settings.checks_tokens:
        _check_keys()
    if settings.strategy:
        try:
            strategy_check.check(settings.strategy)
        except ValueError as error:
            sys.exit(f"odinws: WS_SHARD_STRATEGY: {error}")
    return settings


def _check_keys() -> None:
    """Look at the keys before anything starts.

    In a process of its own: their libraries must not be loaded before gevent patches a worker.

    Raises:
        SystemExit: they can't be used; one line on standard error says why.
    """
    command = (sys.executable, "-m", "odinws", "keys")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        sys.exit(f"odinws: the check of the keys did not end within {_CHECK_SECONDS:g} s")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        sys.exit(lines[-1] if lines else f"odinws: the check of the keys ended with {done.returncode}")
