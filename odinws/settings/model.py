"""The settings of a server: one frozen value, read from the environment once at the start.

This is the only module that reads `os.environ`. The names are those of `docs/operations.md`; every
field says its unit and bounds. A value that is wrong, or a `WS_` name that nobody knows, is a
`SettingsError` whose text is one line.
"""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec
import psutil
from msgspec import Meta, field

import strategies
from odinws import cgroup
from odinws.access.channels import Channels
from odinws.access.origin import Origins
from odinws.access.peer import Proxies, is_loopback, parse_proxies
from odinws.errors import SettingsError
from odinws.settings import checks
from odinws.settings.documentation import expected

MAX_SHARDS = 1024
DEFAULT_ADMIN_ADDR = "127.0.0.1:3005"
_OWN_PREFIX = "WS_"
_LEAST_SHARE = 100  # connections that one client may have by default, however small the server is
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


# Variables whose names do not follow from those of their fields.
_VARIABLES = {
    "strategy": "WS_SHARD_STRATEGY",
    "stream_max_age_seconds": "JS_STREAM_MAX_AGE",
    "environment": "ENVIRONMENT",
}
_PREFIXES = {"nats": "", "stream": "JS_", "log": ""}  # of variables, by the first word of the field


def variable(field: str) -> str:
    """The environment variable of a field, as `WS_NUM_SHARDS` of `num_shards`."""
    prefix = _PREFIXES.get(field.partition("_")[0], _OWN_PREFIX)
    return _VARIABLES.get(field, prefix + field.upper())


def platform_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Variables that look like ours and are made by the platform, for a Service named `ws`; they are ignored.

    Args:
        environ: the variables; None: those of this process.
    """
    environ = os.environ if environ is None else environ
    return [
        name
        for name in sorted(environ)
        if name.startswith(_OWN_PREFIX) and checks.is_of_platform(_OWN_PREFIX, name, environ[name])
    ]


def about(description: str, ge: float | None = None, le: float | None = None, **more: Any) -> Meta:
    """What a field is, with its unit, and what it takes: from `ge` to `le`."""
    return Meta(description=description, ge=ge, le=le, **more)


class Settings(msgspec.Struct, frozen=True, kw_only=True, dict=True, rename=variable):
    """All that a deployment can choose. See each field's description for unit and bounds.

    The fields hold what was given; cached properties, for which there is a `__dict__`, have lists parsed.
    """

    addr: Annotated[str, about("host:port to listen on; `:port` means all interfaces")] = "127.0.0.1:3004"
    admin_addr: Annotated[
        str,
        about(
            "where the admin plane listens, host:port or unix:/path; with a host other than this machine's "
            "loopback it takes a token"
        ),
    ] = DEFAULT_ADMIN_ADDR
    nats_url: Annotated[
        str, about("NATS server URLs, comma-separated; unset: start an embedded nats-server")
    ] = ""
    nats_token: Annotated[str, about("token to authenticate to NATS with")] = ""
    nats_creds_file: Annotated[str, about("credentials file (JWT and seed) for NATS")] = ""
    nats_nkey_file: Annotated[str, about("file with an NKey seed for NATS")] = ""
    nats_ca_file: Annotated[
        str, about("CA certificates to verify NATS with over TLS; unset: the system's")
    ] = ""
    nats_cert_file: Annotated[str, about("client certificate, for a NATS that requires one")] = ""
    nats_key_file: Annotated[str, about("key of the client certificate, if it is not in the same file")] = ""
    demo_feed: Annotated[bool | None, about("publish the demo feed; unset: only if NATS is embedded")] = None
    subject_prefix: Annotated[
        str, about("prefix of NATS subjects: subject = prefix + channel", pattern=r"^([A-Za-z0-9_-]+\.)+$")
    ] = "odin."

    subjects: Annotated[
        str,
        about(
            "channels that the server carries, comma-separated, wildcards (`token.*`) "
            "included, with or without the prefix; unset: all",
            max_length=8192,
        ),
    ] = ""

    channels_file: Annotated[
        str,
        about(
            "file with the rules of channels, such as conf/channels.toml, read at the start and at a reload; "
            "unset: token.*, user.* and global"
        ),
    ] = ""

    strategy: Annotated[
        str,
        about("strategy: a name, or package.module:Class; unset: chosen by WS_FLAGS_FILE, else sync-dict"),
    ] = ""
    flags_file: Annotated[
        str, about("flag file that chooses the strategy of each worker, such as conf/flags.json")
    ] = ""
    num_shards: Annotated[int, about("number of shards of a sharded strategy", 1, MAX_SHARDS)] = 16
    shard_key: Annotated[Literal["channel", "connection"], about("what a sharded strategy partitions by")] = (
        "channel"
    )

    workers: Annotated[int, about("worker processes", 1, 128)] = field(
        default_factory=lambda: math.ceil(_cpu_cores())
    )
    max_connections: Annotated[
        int, about("WebSocket connections that the whole server may hold", 1, 10_000_000)
    ] = 10_000
    cpu_limit: Annotated[float, about("CPU cores that the server may use", gt=0, le=1024)] = field(
        default_factory=_cpu_cores
    )
    memory_limit: Annotated[int, about("bytes of memory that the server may use", 1 << 20)] = field(
        default_factory=_memory_bytes
    )
    client_memory: Annotated[
        Annotated[int, Meta(ge=1 << 20)] | None,
        about("bytes that the server may hold for its clients; above it those that hold most are closed"),
    ] = None
    cpu_reject_threshold: Annotated[
        float,
        about("percent of WS_CPU_LIMIT above which fewer connections are admitted; 100: off", gt=0, le=100),
    ] = 75.0
    memory_reject_threshold: Annotated[
        float, about("percent of WS_MEMORY_LIMIT above which fewer connections are admitted", gt=0, le=100)
    ] = 90.0
    memory_hard_threshold: Annotated[
        float, about("percent of WS_MEMORY_LIMIT at which no connection is admitted", gt=0, le=200)
    ] = 95.0
    hub_lag_threshold_ms: Annotated[
        float, about("lasting lag of an event loop above which fewer connections are admitted", 10, 60_000)
    ] = 250.0
    max_greenlets: Annotated[
        int, about("greenlets of the whole server; from nine tenths on fewer connections are admitted", 100)
    ] = 20_000

    admission_start_rate: Annotated[
        float, about("connections/s that the whole server admits when it begins to slow down", gt=0, le=1e6)
    ] = 200.0
    admission_floor_rate: Annotated[
        float,
        about(
            "connections/s that the whole server admits under full load; at least 1 per worker", gt=0, le=1e6
        ),
    ] = 10.0
    admission_dry_run: Annotated[
        bool, about("refuse nobody because of load, only count and log who would have been refused")
    ] = False
    max_per_address: Annotated[
        Annotated[int, Meta(ge=0)] | None, about("connections that one client address may have; 0: no limit")
    ] = None
    max_per_subject: Annotated[
        Annotated[int, Meta(ge=0)] | None, about("connections that one token's subject may have; 0: no limit")
    ] = None
    client_work: Annotated[
        int,
        about(
            "work of all connections of one client address, or one subject, in times of what one connection "
            "may make; above it each of them is served more slowly",
            1,
            1_000_000,
        ),
    ] = 10
    upgrade_rate: Annotated[
        float, about("upgrade requests per second from one client address; 0: no limit", 0, 1e6)
    ] = 100.0
    upgrade_burst: Annotated[int, about("upgrade requests from one address in a burst", 1, 1_000_000)] = 500
    server_upgrade_rate: Annotated[
        float, about("upgrade requests per second to the whole server; 0: no limit", 0, 1e6)
    ] = 0.0
    server_upgrade_burst: Annotated[
        int, about("upgrade requests to the whole server in a burst", 1, 1_000_000)
    ] = 100
    upgrade_exempt_loopback: Annotated[
        bool,
        about(
            "exempt programs on this machine from the upgrade rates, WS_MAX_PER_ADDRESS and WS_CLIENT_WORK; "
            "set it to false behind a proxy on this machine that names no client, as all its clients are "
            "exempt otherwise"
        ),
    ] = True
    trusted_proxies: Annotated[
        str,
        about(
            "networks of proxies whose X-Forwarded-For is trusted, comma-separated; `unix:`: the other end "
            "of a Unix socket"
        ),
    ] = ""

    origins: Annotated[
        str, about("origins that may connect, comma-separated, as `https://*.example.com` too; *: all")
    ] = "*"
    origin_required: Annotated[
        bool, about("refuse clients that send no origin; programs other than browsers usually send none")
    ] = False
    token_cookie: Annotated[
        str,
        about(
            "name of a cookie that may bring the token of an event stream; needs a list in WS_ORIGINS; "
            "unset: none may"
        ),
    ] = ""
    jwt_secret: Annotated[
        str, about("secret of HS256 tokens, at least 32 bytes; once any key is set, clients need a token")
    ] = ""
    jwt_secret_file: Annotated[str, about("file with that secret; reread when it changes")] = ""
    jwks_file: Annotated[
        str, about("file with public keys (JWKS) of RS256 and ES256 tokens; reread when it changes")
    ] = ""
    jwt_audience: Annotated[str, about("`aud` that a token must have; several separated by commas")] = ""
    jwt_issuer: Annotated[str, about("`iss` that a token must have; several separated by commas")] = ""
    jwt_leeway_seconds: Annotated[float, about("seconds by which the issuer's clock may differ", 0, 300)] = (
        5.0
    )
    jwt_require_exp: Annotated[bool, about("refuse tokens that never expire")] = True
    allow_anonymous: Annotated[
        bool, about("clients without a token may subscribe to the public channels (token.*, global)")
    ] = False
    admin_token: Annotated[
        str, about("bearer token of the admin plane, at least 16 characters; unset: none is asked for")
    ] = ""
    admin_token_file: Annotated[
        str, about("file with that token, which each worker reads when it starts")
    ] = ""
    admin_peers: Annotated[
        str,
        about(
            "origins of other servers' admin pages, comma-separated: they may watch this server, and this "
            "one's page may watch theirs"
        ),
    ] = ""

    max_subscriptions: Annotated[int, about("channels that one connection may subscribe to", 1, 100_000)] = (
        1_000
    )
    max_wildcards: Annotated[int, about("wildcards among these", 0, 100)] = 32
    max_message_bytes: Annotated[int, about("largest message from a client, in bytes", 128, 16 << 20)] = (
        64 << 10
    )
    command_rate: Annotated[
        float, about("commands per second from one connection, sustained", gt=0, le=1e6)
    ] = 100.0
    command_burst: Annotated[int, about("commands from one connection in a burst", 1, 100_000)] = 500
    max_errors: Annotated[int, about("bad commands before a connection is closed with 1008", 1, 100_000)] = (
        100
    )

    outbox_bytes: Annotated[
        int, about("bytes that may wait for a slow socket before WS_SLOW_POLICY applies", 1024, 1 << 30)
    ] = 1 << 20
    outbox_frames: Annotated[
        int, about("frames that may wait for a slow socket before WS_SLOW_POLICY applies", 16, 10_000_000)
    ] = 8192
    slow_policy: Annotated[
        Literal["disconnect", "conflate", "drop-oldest"],
        about("what happens to a client whose outbox is full"),
    ] = "disconnect"
    write_delay_ms: Annotated[
        float, about("milliseconds to wait for more messages before each pass", 0, 1000)
    ] = 0.0
    compression: Annotated[bool, about("offer permessage-deflate")] = True
    compression_min_bytes: Annotated[
        int, about("messages shorter than this are not compressed", 0, 1 << 30)
    ] = 256
    outbox_seconds: Annotated[
        float, about("seconds a socket may accept no data before it is closed with 4008", gt=0, le=3600)
    ] = 10.0
    send_buffer_bytes: Annotated[
        int, about("kernel send buffer of one connection, in bytes (SO_SNDBUF)", 4096, 16 << 20)
    ] = 64 << 10
    heartbeat_seconds: Annotated[
        float, about("seconds of silence after which the server pings a client", 0.1, 3600)
    ] = 25.0
    idle_seconds: Annotated[
        float, about("seconds without any frame before a connection is closed with 4009", 0.2, 7200)
    ] = 60.0
    first_command_seconds: Annotated[
        float,
        about("seconds to wait for a client's first command before closing with 1008; 0: no limit", 0, 86400),
    ] = 300.0
    close_seconds: Annotated[float, about("seconds a closing connection waits for its peer", 0.1, 60)] = 3.0
    drain_seconds: Annotated[
        float, about("seconds over which a draining worker spreads its close frames", 0, 3600)
    ] = 3.0
    stop_seconds: Annotated[
        float, about("seconds a draining worker waits for clients after its last close frame", 0.1, 600)
    ] = 1.0
    worker_max_age_seconds: Annotated[
        float, about("age at which a worker is replaced, up to a tenth later; 0: never", 0, 1e9)
    ] = 0.0
    worker_max_memory: Annotated[
        int,
        about(
            "resident bytes at which a worker is replaced, not in its first minute; 0: never", 0, _INT64_MAX
        ),
    ] = 0
    rebalance_rate: Annotated[
        float, about("connections/s that a worker far above its share sends to others; 0: none", 0, 1e5)
    ] = 10.0
    reconcile_seconds: Annotated[
        float, about("seconds between two reconciliations of all counts", 1, 3600)
    ] = 30.0
    feed_backlog: Annotated[int, about("messages that may wait between feed and hub", 100, 10_000_000)] = (
        20_000
    )

    ring_messages: Annotated[
        int, about("latest messages that each worker keeps for clients that resume", 1, 10_000_000)
    ] = 5_000
    ring_bytes: Annotated[int, about("bytes that these messages may take in each worker", 1024, 1 << 34)] = (
        8 << 20
    )
    replay_messages: Annotated[int, about("most messages that one replay sends", 1, 10_000_000)] = 10_000
    replay_rate: Annotated[
        float,
        about("pages of past messages per second of one connection, sustained", gt=0, le=1e6),
    ] = 20.0
    replay_readers: Annotated[int, about("concurrent reads of the stream by one worker", 1, 1000)] = 2

    test_echo: Annotated[
        bool, about("add /echo, which sends back what it receives, for a conformance suite")
    ] = False

    stream_name: Annotated[str, about("name of the JetStream stream", pattern=r"^[A-Za-z0-9_-]{1,64}$")] = (
        "ODIN_TOKENS"
    )
    stream_max_age_seconds: Annotated[
        float, about("age at which the stream drops a message; `90`, `30s`, `5m` or `1h`", 1, 1e9)
    ] = 3600.0
    stream_max_msgs: Annotated[int, about("most messages that the stream keeps", 1, _INT64_MAX)] = 1_000_000
    stream_max_bytes: Annotated[int, about("most bytes that the stream keeps", 1024, _INT64_MAX)] = 512 << 20

    stream_replicas: Annotated[int, about("NATS cluster nodes that each keep a copy of the stream", 1, 5)] = 1

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], about("lowest severity that is logged")
    ] = "info"
    log_format: Annotated[
        Literal["json", "text"], about("a JSON object or a line of text for each event")
    ] = "text"
    log_access: Annotated[bool, about("write gunicorn's access log to stdout, one line per request")] = False
    environment: Annotated[str, about("name of the deployment", max_length=64)] = "development"

    @property
    def host(self) -> str:
        """The address to bind, without the port."""
        return self._address[0]

    @property
    def port(self) -> int:
        """The port to bind; 0 lets the kernel choose."""
        return self._address[1]

    @cached_property
    def _address(self) -> tuple[str, int]:
        return checks.address("WS_ADDR", self.addr)

    @cached_property
    def admin_address(self) -> tuple[str, int] | str:
        """Where the admin plane listens: host and port, or the path of a Unix socket."""
        return checks.admin_address(self.admin_addr)

    @property
    def admin_host(self) -> str:
        """The host of that; "" for a Unix socket."""
        return "" if isinstance(self.admin_address, str) else self.admin_address[0]

    @property
    def admin_is_local(self) -> bool:
        """Whether nobody but programs on this machine can reach the admin plane."""
        return self.admin_host in ("", "localhost") or is_loopback(self.admin_host)

    @cached_property
    def admin_peer_origins(self) -> tuple[str, ...]:
        """The origins of pages that may watch this server (WS_ADMIN_PEERS)."""
        return checks.parsed("WS_ADMIN_PEERS", self.admin_peers, checks.http_origins)

    @property
    def admin_peer_sockets(self) -> tuple[str, ...]:
        """The same as origins of WebSockets."""
        return tuple(origin.replace("http", "ws", 1) for origin in self.admin_peer_origins)

    @cached_property
    def nats_urls(self) -> list[str]:
        """The NATS servers, in the given order; empty: embedded."""
        return checks.nats_urls(self.nats_url)

    @cached_property
    def channels(self) -> Channels:
        """The channels that there are (WS_CHANNELS_FILE), and what of them is carried (WS_SUBJECTS)."""
        rules, characters = checks.channel_rules(self.channels_file) if self.channels_file else (None, "")
        return checks.parsed(
            "WS_SUBJECTS",
            self.subjects,
            lambda listed: Channels(self.subject_prefix, listed, rules, characters),
        )

    @cached_property
    def allowed_origins(self) -> Origins:
        """The origins that may connect (WS_ORIGINS)."""
        return checks.parsed("WS_ORIGINS", self.origins, Origins.parse)

    @cached_property
    def believed_proxies(self) -> Proxies:
        """The proxies that are believed (WS_TRUSTED_PROXIES)."""
        return checks.parsed("WS_TRUSTED_PROXIES", self.trusted_proxies, parse_proxies)

    @cached_property
    def jwt_audiences(self) -> tuple[str, ...]:
        """Of which a token must name one; empty: its audience does not matter."""
        return checks.parts(self.jwt_audience)

    @cached_property
    def jwt_issuers(self) -> tuple[str, ...]:
        """Of which one must have issued a token; empty: its issuer does not matter."""
        return checks.parts(self.jwt_issuer)

    def read_admin_token(self) -> str:
        """The token of the admin plane; "": none is asked for.

        Raises:
            SettingsError: the file can't be used.
        """
        return checks.admin_token(self.admin_token_file) if self.admin_token_file else self.admin_token

    @property
    def client_memory_bytes(self) -> int:
        """What may be held for clients: a quarter of WS_MEMORY_LIMIT unless it is set."""
        return self.memory_limit // 4 if self.client_memory is None else self.client_memory

    @property
    def connections_per_address(self) -> int:
        """How many one address may have; 0: no limit."""
        return self._share(self.max_per_address)

    @property
    def connections_per_subject(self) -> int:
        """How many one subject may have; 0: no limit."""
        return self._share(self.max_per_subject)

    def _share(self, given: int | None) -> int:
        """Unless it is set: half, so that nobody keeps all others out, and hardly a proxy notices."""
        return max(_LEAST_SHARE, self.max_connections // 2) if given is None else given

    @property
    def embedded_nats(self) -> bool:
        """Whether the server brings its own nats-server."""
        return not self.nats_urls

    @property
    def runs_demo_feed(self) -> bool:
        """Whether the demo feed is published."""
        return self.embedded_nats if self.demo_feed is None else self.demo_feed

    @property
    def checks_tokens(self) -> bool:
        """Whether clients are asked who they are."""
        return bool(self.jwt_secret or self.jwt_secret_file or self.jwks_file)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Args:
            environ: the variables; None: those of this process. Space around a value means nothing, and an
                empty value counts as unset.

        Raises:
            SettingsError: a value is wrong, or a `WS_` variable is unknown and not of the platform.
        """
        environ = os.environ if environ is None else environ
        known = {f.encode_name for f in msgspec.structs.fields(cls)}
        of_platform = set(platform_variables(environ))
        for name in sorted(environ):
            if name.startswith(_OWN_PREFIX) and name not in known and name not in of_platform:
                close = difflib.get_close_matches(name, sorted(known), n=1)
                hint = f"did you mean {close[0]}?" if close else "see docs/operations.md for the list"
                value = checks.shown_of_unknown(name, environ[name])
                raise SettingsError(ascii(name)[1:-1], value, f"no setting has this name, {hint}")
        given: dict[str, Any] = {name: text for name in known if (text := environ.get(name, "").strip())}
        for name, text in given.items():
            checks.check_unicode(name, text)
        for name in ("LOG_LEVEL", "LOG_FORMAT", "WS_SHARD_STRATEGY", "WS_SHARD_KEY", "WS_SLOW_POLICY"):
            if name in given and ":" not in given[name]:  # a class of one's own is spelt as it is
                given[name] = given[name].lower()
        if "JS_STREAM_MAX_AGE" in given:
            given["JS_STREAM_MAX_AGE"] = checks.seconds("JS_STREAM_MAX_AGE", given["JS_STREAM_MAX_AGE"])
        try:
            settings = msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            name = str(error).rpartition("`$.")[2].rstrip("`")
            raise SettingsError(name, checks.shown(name, environ[name]), expected(cls, name)) from None
        settings._check()
        return settings

    def _check(self) -> None:
        """What one field alone can't say: lists, URLs, and values that depend on each other."""
        # Parsed now, and kept.
        _ = self._address, self.nats_urls, self.allowed_origins, self.believed_proxies, self.channels
        _ = self.admin_address, self.admin_peer_origins
        if self.strategy:
            try:
                strategies.check_name(self.strategy)
            except ValueError:
                allowed = f"expected one of {', '.join(strategies.names())}, or package.module:Class"
                raise SettingsError("WS_SHARD_STRATEGY", self.strategy, allowed) from None
        for above, below in (
            ("idle_seconds", "heartbeat_seconds"),
            ("memory_hard_threshold", "memory_reject_threshold"),
        ):
            value, bound = getattr(self, above), getattr(self, below)
            checks.check_above(variable(above), value, variable(below), bound)
        checks.check_alone("WS_ADMIN_TOKEN_FILE", self.admin_token_file, "WS_ADMIN_TOKEN", self.admin_token)
        if self.admin_token:
            checks.check_admin_token("WS_ADMIN_TOKEN", self.admin_token)
        if not self.admin_is_local and not self.admin_token and not self.admin_token_file:
            allowed = "others can reach it: set WS_ADMIN_TOKEN_FILE, or take 127.0.0.1 or unix:/path"
            raise SettingsError("WS_ADMIN_ADDR", self.admin_addr, allowed)
        if self.port and self.admin_address == self._address and self.admin_addr != DEFAULT_ADMIN_ADDR:
            raise SettingsError("WS_ADMIN_ADDR", self.admin_addr, "expected another port than WS_ADDR has")
        if self.token_cookie and self.allowed_origins.all_may:
            allowed = "pages of all sites could use it: list those that may in WS_ORIGINS"
            raise SettingsError("WS_TOKEN_COOKIE", self.token_cookie, allowed)
        checks.check_alone("WS_JWT_SECRET_FILE", self.jwt_secret_file, "WS_JWT_SECRET", self.jwt_secret)
        if self.allow_anonymous and not self.checks_tokens:
            allowed = "without WS_JWT_SECRET, WS_JWT_SECRET_FILE or WS_JWKS_FILE everybody may enter already"
            raise SettingsError("WS_ALLOW_ANONYMOUS", "true", allowed)
