"""The settings of a server: one frozen value, read from the environment once at the start.

This is the only module that reads `os.environ`. The names are those of `docs/operations.md`; every
field says its unit and bounds. A value that is wrong, or a `WS_` name that nobody knows, is a
`SettingsError` whose text is one line.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec
import psutil
from msgspec import Meta, field, inspect

import strategies
from odinws import cgroup
from odinws.errors import SettingsError

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_PORT = re.compile(r"[0-9]{1,5}")
_DURATION_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_NATS_SCHEMES = ("nats", "tls", "ws", "wss")
_NATS_SCHEME = re.compile(rf"(?:{'|'.join(_NATS_SCHEMES)})://")
_OWN_PREFIX = "WS_"
_INT64_MAX = (1 << 63) - 1  # what NATS can hold


def usable_cores() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _cpu_cores() -> float:
    """Cores that the server may use: the control group's quota, else those it may run on."""
    return min(cgroup.cpu_cores() or math.inf, float(usable_cores()))


def _memory_bytes() -> int:
    """Bytes that the server may use: the control group's limit, else the machine's memory."""
    return min(cgroup.memory_bytes() or sys.maxsize, int(psutil.virtual_memory().total))


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that a deployment can choose. See each field's description for unit and bounds."""

    addr: Annotated[str, Meta(description="host:port to listen at; `:port` means all interfaces")] = field(
        name="WS_ADDR", default="127.0.0.1:3004"
    )
    nats_url: Annotated[
        str, Meta(description="NATS servers, comma-separated; unset: an embedded nats-server is started")
    ] = field(name="NATS_URL", default="")
    demo_feed: Annotated[
        bool | None, Meta(description="run the demo feed; unset: only if NATS is embedded")
    ] = field(name="WS_DEMO_FEED", default=None)
    subject_prefix: Annotated[
        str, Meta(pattern=r"^([A-Za-z0-9_-]+\.)+$", description="subject = prefix + channel")
    ] = field(name="WS_SUBJECT_PREFIX", default="odin.")

    strategy: Annotated[str, Meta(description="subscription registry, see docs/strategies.md")] = field(
        name="WS_SHARD_STRATEGY", default="sync-dict"
    )
    num_shards: Annotated[int, Meta(ge=1, le=1024, description="shards of a sharded strategy")] = field(
        name="WS_NUM_SHARDS", default=16
    )
    shard_key: Annotated[
        Literal["channel", "connection"], Meta(description="what a sharded strategy partitions by")
    ] = field(name="WS_SHARD_KEY", default="channel")

    workers: Annotated[int, Meta(ge=1, le=128, description="worker processes")] = field(
        name="WS_WORKERS", default_factory=lambda: math.ceil(_cpu_cores())
    )
    max_connections: Annotated[
        int, Meta(ge=1, le=10_000_000, description="open WebSockets of the whole server")
    ] = field(name="WS_MAX_CONNECTIONS", default=10_000)
    cpu_limit: Annotated[float, Meta(gt=0, le=1024, description="cores the server may use")] = field(
        name="WS_CPU_LIMIT", default_factory=_cpu_cores
    )
    memory_limit: Annotated[int, Meta(ge=1 << 20, description="bytes the server may use")] = field(
        name="WS_MEMORY_LIMIT", default_factory=_memory_bytes
    )
    cpu_reject_threshold: Annotated[
        float,
        Meta(gt=0, le=100, description="percent of WS_CPU_LIMIT above which health is degraded; 100: off"),
    ] = field(name="WS_CPU_REJECT_THRESHOLD", default=75.0)
    max_greenlets: Annotated[int, Meta(ge=100, description="greenlets of the whole server")] = field(
        name="WS_MAX_GREENLETS", default=20_000
    )

    max_subscriptions: Annotated[int, Meta(ge=1, le=100_000, description="channels of one connection")] = (
        field(name="WS_MAX_SUBSCRIPTIONS", default=1_000)
    )
    max_message_bytes: Annotated[
        int, Meta(ge=128, le=16 << 20, description="bytes of one message from a client")
    ] = field(name="WS_MAX_MESSAGE_BYTES", default=64 << 10)
    command_rate: Annotated[
        float, Meta(gt=0, le=1e6, description="commands per second of one connection, sustained")
    ] = field(name="WS_COMMAND_RATE", default=100.0)
    command_burst: Annotated[
        int, Meta(ge=1, le=100_000, description="commands at once of one connection")
    ] = field(name="WS_COMMAND_BURST", default=500)
    max_errors: Annotated[
        int, Meta(ge=1, le=100_000, description="bad commands before a connection closes with 1008")
    ] = field(name="WS_MAX_ERRORS", default=100)

    outbox_bytes: Annotated[
        int,
        Meta(ge=1024, le=1 << 30, description="bytes that wait for a slow socket before the policy acts"),
    ] = field(name="WS_OUTBOX_BYTES", default=1 << 20)
    outbox_frames: Annotated[
        int, Meta(ge=16, le=10_000_000, description="frames that wait for a socket before the policy acts")
    ] = field(name="WS_OUTBOX_FRAMES", default=8192)
    slow_policy: Annotated[
        Literal["disconnect", "conflate", "drop-oldest"],
        Meta(description="what becomes of a client whose outbox is full"),
    ] = field(name="WS_SLOW_POLICY", default="disconnect")
    write_delay_ms: Annotated[
        float, Meta(ge=0, le=1000, description="milliseconds to wait for more messages before a pass")
    ] = field(name="WS_WRITE_DELAY_MS", default=0.0)
    compression: Annotated[bool, Meta(description="offer permessage-deflate")] = field(
        name="WS_COMPRESSION", default=True
    )
    compression_min_bytes: Annotated[
        int, Meta(ge=0, le=1 << 30, description="shorter messages are not compressed")
    ] = field(name="WS_COMPRESSION_MIN_BYTES", default=256)
    outbox_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="seconds a socket may take nothing before it closes with 4008")
    ] = field(name="WS_OUTBOX_SECONDS", default=10.0)
    send_buffer_bytes: Annotated[
        int, Meta(ge=4096, le=16 << 20, description="kernel send buffer of one connection (SO_SNDBUF)")
    ] = field(name="WS_SEND_BUFFER_BYTES", default=64 << 10)
    heartbeat_seconds: Annotated[float, Meta(ge=0.1, le=3600, description="seconds between pings")] = field(
        name="WS_HEARTBEAT_SECONDS", default=25.0
    )
    idle_seconds: Annotated[
        float,
        Meta(ge=0.2, le=7200, description="seconds without any frame before a connection closes with 4009"),
    ] = field(name="WS_IDLE_SECONDS", default=60.0)
    close_seconds: Annotated[
        float, Meta(ge=0.1, le=60, description="seconds a closing connection may wait for its peer")
    ] = field(name="WS_CLOSE_SECONDS", default=3.0)
    stop_seconds: Annotated[
        float, Meta(ge=0.1, le=600, description="seconds a stopping worker gives its connections to close")
    ] = field(name="WS_STOP_SECONDS", default=2.0)
    feed_backlog: Annotated[
        int, Meta(ge=100, le=10_000_000, description="messages that may wait between feed and hub")
    ] = field(name="WS_FEED_BACKLOG", default=20_000)

    test_echo: Annotated[
        bool, Meta(description="add /echo, which echoes what it hears, for a conformance suite")
    ] = field(name="WS_TEST_ECHO", default=False)

    stream_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="JetStream stream")] = (
        field(name="JS_STREAM_NAME", default="ODIN_TOKENS")
    )
    stream_max_age_seconds: Annotated[
        float, Meta(ge=1, le=1e9, description="age at which the stream forgets; `90`, `30s`, `5m` or `1h`")
    ] = field(name="JS_STREAM_MAX_AGE", default=3600.0)
    stream_max_msgs: Annotated[
        int, Meta(ge=1, le=_INT64_MAX, description="messages that the stream keeps")
    ] = field(name="JS_STREAM_MAX_MSGS", default=1_000_000)
    stream_max_bytes: Annotated[
        int, Meta(ge=1024, le=_INT64_MAX, description="bytes that the stream keeps")
    ] = field(name="JS_STREAM_MAX_BYTES", default=512 << 20)

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severity that is logged")
    ] = field(name="LOG_LEVEL", default="info")
    log_format: Annotated[
        Literal["json", "text"], Meta(description="one JSON object or one line of text")
    ] = field(name="LOG_FORMAT", default="text")
    environment: Annotated[str, Meta(max_length=64, description="name of the deployment, for logs")] = field(
        name="ENVIRONMENT", default="development"
    )

    @property
    def host(self) -> str:
        """The address to bind, without the port."""
        return self.addr.rpartition(":")[0].strip("[]") or "0.0.0.0"  # noqa: S104 - `:port` asks for it

    @property
    def port(self) -> int:
        """The port to bind; 0 lets the kernel choose."""
        return int(self.addr.rpartition(":")[2])

    @property
    def nats_urls(self) -> list[str]:
        """The NATS servers, in the given order; empty: embedded."""
        return [url for url in (part.strip() for part in self.nats_url.split(",")) if url]

    @property
    def embedded_nats(self) -> bool:
        """Whether the server brings its own nats-server."""
        return not self.nats_urls

    @property
    def runs_demo_feed(self) -> bool:
        """Whether the demo feed is published."""
        return self.embedded_nats if self.demo_feed is None else self.demo_feed

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Args:
            environ: the variables; None: those of this process. Space around a value means nothing, and an
                empty value counts as unset.

        Raises:
            SettingsError: a value is wrong, or a `WS_` variable is unknown.
        """
        environ = os.environ if environ is None else environ
        known = {f.encode_name for f in msgspec.structs.fields(cls)}
        for name in sorted(environ):
            if name.startswith(_OWN_PREFIX) and name not in known:
                close = difflib.get_close_matches(name, sorted(known), n=1)
                hint = f"did you mean {close[0]}?" if close else "see docs/operations.md for the list"
                raise SettingsError(ascii(name)[1:-1], environ[name], f"no setting has this name, {hint}")
        given: dict[str, Any] = {name: text for name in known if (text := environ.get(name, "").strip())}
        for name, text in given.items():
            _check_unicode(name, text)
        for name in ("LOG_LEVEL", "LOG_FORMAT", "WS_SHARD_STRATEGY", "WS_SHARD_KEY", "WS_SLOW_POLICY"):
            if name in given:
                given[name] = given[name].lower()
        if "JS_STREAM_MAX_AGE" in given:
            given["JS_STREAM_MAX_AGE"] = _seconds("JS_STREAM_MAX_AGE", given["JS_STREAM_MAX_AGE"])
        try:
            settings = msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            name = str(error).rpartition("`$.")[2].rstrip("`")
            raise SettingsError(name, environ[name], _expected(name)) from None
        _check_addr(settings.addr)
        _check_nats_urls(settings)
        if settings.strategy not in strategies.NAMES:
            raise SettingsError(
                "WS_SHARD_STRATEGY", settings.strategy, f"expected one of {', '.join(strategies.NAMES)}"
            )
        if settings.idle_seconds <= settings.heartbeat_seconds:
            raise SettingsError(
                "WS_IDLE_SECONDS",
                f"{settings.idle_seconds:g}",
                f"expected more than WS_HEARTBEAT_SECONDS ({settings.heartbeat_seconds:g})",
            )
        return settings


class Description(NamedTuple):
    """One setting in words.

    Attributes:
        allowed: what it takes.
        default: its default; "" stands for unset.
        about: what it is, with its unit.
    """

    name: str
    allowed: str
    default: str
    about: str


def describe() -> list[Description]:
    """All settings, in the order of their definition."""
    described = []
    for field_type in cast("inspect.StructType", inspect.type_info(Settings)).fields:
        found = cast("inspect.Metadata", field_type.type)
        about = (found.extra_json_schema or {})["description"]
        default = _DERIVED_DEFAULTS.get(field_type.encode_name)
        if default is None:
            default = "" if field_type.default is None else f"{field_type.default}"
        described.append(Description(field_type.encode_name, _allowed(found.type), default, about))
    return described


_DERIVED_DEFAULTS = {
    "WS_WORKERS": "usable cores",
    "WS_CPU_LIMIT": "the cgroup's, else usable cores",
    "WS_MEMORY_LIMIT": "the cgroup's, else the machine's",
    "WS_DEMO_FEED": "with embedded NATS",
}


def _allowed(kind: inspect.Type) -> str:
    match kind:
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} {f'to {most}' if most else 'on'}"
        case inspect.FloatType(gt=above, ge=least, le=most):
            return f"a number {f'from {least:g}' if above is None else f'above {above:g}'} to {most:g}"
        case inspect.StrType(pattern=None, max_length=None):
            return "text"
        case inspect.StrType(pattern=None, max_length=most):
            return f"at most {most} characters"
        case inspect.StrType(pattern=pattern):
            return f"a match of {pattern}"
        case _:
            return "true or false"


def _expected(name: str) -> str:
    """What a setting takes and what it is, in words."""
    setting = next(setting for setting in describe() if setting.name == name)
    return f"expected {setting.allowed} ({setting.about})"


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(name, without_credentials(text), "expected UTF-8") from None


def _seconds(name: str, text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise SettingsError(name, text, "expected seconds, or a number with ms, s, m or h")
    return float(match[1]) * _DURATION_SECONDS[match[2]]


def _check_addr(addr: str) -> None:
    host, colon, port = addr.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535 or " " in host:
        raise SettingsError("WS_ADDR", addr, "expected host:port with a port from 0 to 65535")


def _check_nats_urls(settings: Settings) -> None:
    for url in settings.nats_urls:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in _NATS_SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            # The whole value: a comma in a password would leave one of its halves in a part of its own.
            shown = without_credentials(settings.nats_url)
            raise SettingsError("NATS_URL", shown, "expected nats://host:port, several with commas")


def without_credentials(url: str) -> str:
    """A URL as it may be logged: all that stands between its scheme and its last `@` is `***`."""
    before, found, host = url.rpartition("@")
    scheme = _NATS_SCHEME.match(before)
    return f"{scheme[0] if scheme else ''}***@{host}" if found else url
