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
from odinws.access.channel_filter import ChannelFilter
from odinws.access.origin import Origins
from odinws.access.proxies import Networks, parse_networks
from odinws.errors import SettingsError
from odinws.settings import checks
from odinws.settings.words import expected

MAX_SHARDS = 1024
_OWN_PREFIX = "WS_"
_INT64_MAX = (1 << 63) - 1  # what NATS can hold
_MIN_SECRET_CHARACTERS = 16  # of the token that opens the inside


def usable_cores() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _cpu_cores() -> float:
    """Cores that the server may use: the control group's quota, else those it may run on."""
    return min(cgroup.cpu_cores() or math.inf, float(usable_cores()))


def _memory_bytes() -> int:
    """Bytes that the server may use: the control group's limit, else the machine's memory."""
    return min(cgroup.memory_bytes() or sys.maxsize, int(psutil.virtual_memory().total))


class Settings(msgspec.Struct, frozen=True, kw_only=True, dict=True):  # dict: of cached properties
    """All that a deployment can choose. See each field's description for unit and bounds.

    The fields hold what was given; properties have lists parsed, once.
    """

    addr: Annotated[str, Meta(description="host:port to listen on; `:port` means all interfaces")] = field(
        name="WS_ADDR", default="127.0.0.1:3004"
    )
    nats_url: Annotated[
        str, Meta(description="NATS server URLs, comma-separated; unset: start an embedded nats-server")
    ] = field(name="NATS_URL", default="")
    nats_token: Annotated[str, Meta(description="token to authenticate to NATS with")] = field(
        name="NATS_TOKEN", default=""
    )
    nats_creds_file: Annotated[str, Meta(description="credentials file (JWT and seed) for NATS")] = field(
        name="NATS_CREDS_FILE", default=""
    )
    nats_nkey_file: Annotated[str, Meta(description="file with an NKey seed for NATS")] = field(
        name="NATS_NKEY_FILE", default=""
    )
    nats_ca_file: Annotated[
        str, Meta(description="CA certificates to verify NATS with over TLS; unset: the system's")
    ] = field(name="NATS_CA_FILE", default="")
    nats_cert_file: Annotated[str, Meta(description="client certificate, for a NATS that requires one")] = (
        field(name="NATS_CERT_FILE", default="")
    )
    nats_key_file: Annotated[
        str, Meta(description="key of the client certificate, if it is not in the same file")
    ] = field(name="NATS_KEY_FILE", default="")
    demo_feed: Annotated[
        bool | None, Meta(description="publish the demo feed; unset: only if NATS is embedded")
    ] = field(name="WS_DEMO_FEED", default=None)
    subject_prefix: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9_-]+\.)+$",
            description="prefix of NATS subjects: subject = prefix + channel",
        ),
    ] = field(name="WS_SUBJECT_PREFIX", default="odin.")

    subjects: Annotated[
        str,
        Meta(
            max_length=8192,
            description="channels that the server carries, comma-separated, wildcards (`token.*`) included, "
            "with or without the prefix; unset: all",
        ),
    ] = field(name="WS_SUBJECTS", default="")

    strategy: Annotated[
        str,
        Meta(
            description="strategy: a name, or package.module:Class; unset: chosen by WS_FLAGS_FILE, "
            "else sync-dict"
        ),
    ] = field(name="WS_SHARD_STRATEGY", default="")
    flags_file: Annotated[
        str, Meta(description="flag file that chooses the strategy of each worker, such as conf/flags.json")
    ] = field(name="WS_FLAGS_FILE", default="")
    num_shards: Annotated[
        int, Meta(ge=1, le=MAX_SHARDS, description="number of shards of a sharded strategy")
    ] = field(name="WS_NUM_SHARDS", default=16)
    shard_key: Annotated[
        Literal["channel", "connection"], Meta(description="what a sharded strategy partitions by")
    ] = field(name="WS_SHARD_KEY", default="channel")

    workers: Annotated[int, Meta(ge=1, le=128, description="worker processes")] = field(
        name="WS_WORKERS", default_factory=lambda: math.ceil(_cpu_cores())
    )
    max_connections: Annotated[
        int, Meta(ge=1, le=10_000_000, description="WebSocket connections that the whole server may hold")
    ] = field(name="WS_MAX_CONNECTIONS", default=10_000)
    cpu_limit: Annotated[float, Meta(gt=0, le=1024, description="CPU cores that the server may use")] = field(
        name="WS_CPU_LIMIT", default_factory=_cpu_cores
    )
    memory_limit: Annotated[int, Meta(ge=1 << 20, description="bytes of memory that the server may use")] = (
        field(name="WS_MEMORY_LIMIT", default_factory=_memory_bytes)
    )
    cpu_reject_threshold: Annotated[
        float,
        Meta(
            gt=0,
            le=100,
            description="percent of WS_CPU_LIMIT above which fewer connections are admitted; 100: off",
        ),
    ] = field(name="WS_CPU_REJECT_THRESHOLD", default=75.0)
    memory_reject_threshold: Annotated[
        float,
        Meta(
            gt=0, le=100, description="percent of WS_MEMORY_LIMIT above which fewer connections are admitted"
        ),
    ] = field(name="WS_MEMORY_REJECT_THRESHOLD", default=90.0)
    memory_hard_threshold: Annotated[
        float, Meta(gt=0, le=200, description="percent of WS_MEMORY_LIMIT at which no connection is admitted")
    ] = field(name="WS_MEMORY_HARD_THRESHOLD", default=95.0)
    hub_lag_threshold_ms: Annotated[
        float,
        Meta(
            ge=10,
            le=60_000,
            description="longest event loop iteration above which fewer connections are admitted",
        ),
    ] = field(name="WS_HUB_LAG_THRESHOLD_MS", default=250.0)
    max_greenlets: Annotated[
        int,
        Meta(
            ge=100,
            description="greenlets of the whole server; from nine tenths on fewer connections are admitted",
        ),
    ] = field(name="WS_MAX_GREENLETS", default=20_000)

    admission_start_rate: Annotated[
        float,
        Meta(
            gt=0, le=1e6, description="connections/s that the whole server admits when it begins to slow down"
        ),
    ] = field(name="WS_ADMISSION_START_RATE", default=200.0)
    admission_floor_rate: Annotated[
        float,
        Meta(
            gt=0,
            le=1e6,
            description="connections/s that the whole server admits under full load; at least 1 per worker",
        ),
    ] = field(name="WS_ADMISSION_FLOOR_RATE", default=10.0)
    admission_dry_run: Annotated[
        bool,
        Meta(description="refuse nobody because of load, only count and log who would have been refused"),
    ] = field(name="WS_ADMISSION_DRY_RUN", default=False)
    upgrade_rate: Annotated[
        float,
        Meta(ge=0, le=1e6, description="upgrade requests per second from one client address; 0: no limit"),
    ] = field(name="WS_UPGRADE_RATE", default=100.0)
    upgrade_burst: Annotated[
        int, Meta(ge=1, le=1_000_000, description="upgrade requests from one address in a burst")
    ] = field(name="WS_UPGRADE_BURST", default=500)
    server_upgrade_rate: Annotated[
        float, Meta(ge=0, le=1e6, description="upgrade requests per second to the whole server; 0: no limit")
    ] = field(name="WS_SERVER_UPGRADE_RATE", default=0.0)
    server_upgrade_burst: Annotated[
        int, Meta(ge=1, le=1_000_000, description="upgrade requests to the whole server in a burst")
    ] = field(name="WS_SERVER_UPGRADE_BURST", default=100)
    upgrade_exempt_loopback: Annotated[
        bool, Meta(description="exempt clients on this machine from the upgrade rates")
    ] = field(name="WS_UPGRADE_EXEMPT_LOOPBACK", default=True)
    trusted_proxies: Annotated[
        str, Meta(description="networks of proxies whose X-Forwarded-For is trusted, comma-separated")
    ] = field(name="WS_TRUSTED_PROXIES", default="")

    origins: Annotated[
        str,
        Meta(description="origins that may connect, comma-separated, as `https://*.example.com` too; *: all"),
    ] = field(name="WS_ORIGINS", default="*")
    origin_required: Annotated[
        bool,
        Meta(
            description="refuse clients that send no origin; programs other than browsers usually send none"
        ),
    ] = field(name="WS_ORIGIN_REQUIRED", default=False)
    jwt_secret: Annotated[
        str,
        Meta(
            description="secret of HS256 tokens, at least 32 bytes; once any key is set, clients need a token"
        ),
    ] = field(name="WS_JWT_SECRET", default="")
    jwt_secret_file: Annotated[str, Meta(description="file with that secret; reread when it changes")] = (
        field(name="WS_JWT_SECRET_FILE", default="")
    )
    jwks_file: Annotated[
        str,
        Meta(description="file with public keys (JWKS) of RS256 and ES256 tokens; reread when it changes"),
    ] = field(name="WS_JWKS_FILE", default="")
    jwt_audience: Annotated[
        str, Meta(description="`aud` that a token must have; several separated by commas")
    ] = field(name="WS_JWT_AUDIENCE", default="")
    jwt_issuer: Annotated[
        str, Meta(description="`iss` that a token must have; several separated by commas")
    ] = field(name="WS_JWT_ISSUER", default="")
    jwt_leeway_seconds: Annotated[
        float, Meta(ge=0, le=300, description="seconds by which the issuer's clock may differ")
    ] = field(name="WS_JWT_LEEWAY_SECONDS", default=5.0)
    jwt_require_exp: Annotated[bool, Meta(description="refuse tokens that never expire")] = field(
        name="WS_JWT_REQUIRE_EXP", default=True
    )
    allow_anonymous: Annotated[
        bool,
        Meta(description="clients without a token may subscribe to the public channels (token.*, global)"),
    ] = field(name="WS_ALLOW_ANONYMOUS", default=False)
    admin_token: Annotated[
        str,
        Meta(description="bearer token for /stats and /debug from other hosts; unset: loopback only"),
    ] = field(name="WS_ADMIN_TOKEN", default="")

    max_subscriptions: Annotated[
        int, Meta(ge=1, le=100_000, description="channels that one connection may subscribe to")
    ] = field(name="WS_MAX_SUBSCRIPTIONS", default=1_000)
    max_message_bytes: Annotated[
        int, Meta(ge=128, le=16 << 20, description="largest message from a client, in bytes")
    ] = field(name="WS_MAX_MESSAGE_BYTES", default=64 << 10)
    command_rate: Annotated[
        float, Meta(gt=0, le=1e6, description="commands per second from one connection, sustained")
    ] = field(name="WS_COMMAND_RATE", default=100.0)
    command_burst: Annotated[
        int, Meta(ge=1, le=100_000, description="commands from one connection in a burst")
    ] = field(name="WS_COMMAND_BURST", default=500)
    max_errors: Annotated[
        int, Meta(ge=1, le=100_000, description="bad commands before a connection is closed with 1008")
    ] = field(name="WS_MAX_ERRORS", default=100)

    outbox_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 30,
            description="bytes that may wait for a slow socket before WS_SLOW_POLICY applies",
        ),
    ] = field(name="WS_OUTBOX_BYTES", default=1 << 20)
    outbox_frames: Annotated[
        int,
        Meta(
            ge=16,
            le=10_000_000,
            description="frames that may wait for a slow socket before WS_SLOW_POLICY applies",
        ),
    ] = field(name="WS_OUTBOX_FRAMES", default=8192)
    slow_policy: Annotated[
        Literal["disconnect", "conflate", "drop-oldest"],
        Meta(description="what happens to a client whose outbox is full"),
    ] = field(name="WS_SLOW_POLICY", default="disconnect")
    write_delay_ms: Annotated[
        float, Meta(ge=0, le=1000, description="milliseconds to wait for more messages before each pass")
    ] = field(name="WS_WRITE_DELAY_MS", default=0.0)
    compression: Annotated[bool, Meta(description="offer permessage-deflate")] = field(
        name="WS_COMPRESSION", default=True
    )
    compression_min_bytes: Annotated[
        int, Meta(ge=0, le=1 << 30, description="messages shorter than this are not compressed")
    ] = field(name="WS_COMPRESSION_MIN_BYTES", default=256)
    outbox_seconds: Annotated[
        float,
        Meta(gt=0, le=3600, description="seconds a socket may accept no data before it is closed with 4008"),
    ] = field(name="WS_OUTBOX_SECONDS", default=10.0)
    send_buffer_bytes: Annotated[
        int,
        Meta(ge=4096, le=16 << 20, description="kernel send buffer of one connection, in bytes (SO_SNDBUF)"),
    ] = field(name="WS_SEND_BUFFER_BYTES", default=64 << 10)
    heartbeat_seconds: Annotated[
        float, Meta(ge=0.1, le=3600, description="seconds of silence after which the server pings a client")
    ] = field(name="WS_HEARTBEAT_SECONDS", default=25.0)
    idle_seconds: Annotated[
        float,
        Meta(
            ge=0.2, le=7200, description="seconds without any frame before a connection is closed with 4009"
        ),
    ] = field(name="WS_IDLE_SECONDS", default=60.0)
    first_command_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86400,
            description="seconds to wait for a client's first command before closing with 1008; 0: no limit",
        ),
    ] = field(name="WS_FIRST_COMMAND_SECONDS", default=300.0)
    close_seconds: Annotated[
        float, Meta(ge=0.1, le=60, description="seconds a closing connection waits for its peer")
    ] = field(name="WS_CLOSE_SECONDS", default=3.0)
    drain_seconds: Annotated[
        float,
        Meta(ge=0, le=3600, description="seconds over which a draining worker spreads its close frames"),
    ] = field(name="WS_DRAIN_SECONDS", default=3.0)
    stop_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="seconds a draining worker waits for clients after its last close frame",
        ),
    ] = field(name="WS_STOP_SECONDS", default=1.0)
    worker_max_age_seconds: Annotated[
        float,
        Meta(ge=0, le=1e9, description="age at which a worker is replaced, up to a tenth later; 0: never"),
    ] = field(name="WS_WORKER_MAX_AGE_SECONDS", default=0.0)
    worker_max_memory: Annotated[
        int,
        Meta(
            ge=0,
            le=_INT64_MAX,
            description="resident bytes at which a worker is replaced, not in its first minute; 0: never",
        ),
    ] = field(name="WS_WORKER_MAX_MEMORY", default=0)
    rebalance_rate: Annotated[
        float,
        Meta(
            ge=0,
            le=1e5,
            description="connections/s that a worker far above its share sends to others; 0: none",
        ),
    ] = field(name="WS_REBALANCE_RATE", default=10.0)
    reconcile_seconds: Annotated[
        float, Meta(ge=1, le=3600, description="seconds between two reconciliations of all counts")
    ] = field(name="WS_RECONCILE_SECONDS", default=30.0)
    feed_backlog: Annotated[
        int, Meta(ge=100, le=10_000_000, description="messages that may wait between feed and hub")
    ] = field(name="WS_FEED_BACKLOG", default=20_000)

    ring_messages: Annotated[
        int,
        Meta(
            ge=1, le=10_000_000, description="latest messages that each worker keeps for clients that resume"
        ),
    ] = field(name="WS_RING_MESSAGES", default=5_000)
    ring_bytes: Annotated[
        int, Meta(ge=1024, le=1 << 34, description="bytes that these messages may take in each worker")
    ] = field(name="WS_RING_BYTES", default=8 << 20)
    replay_messages: Annotated[
        int, Meta(ge=1, le=10_000_000, description="most messages that one replay sends")
    ] = field(name="WS_REPLAY_MESSAGES", default=10_000)
    replay_rate: Annotated[
        float, Meta(gt=0, le=1e6, description="replays per second of one connection, sustained")
    ] = field(name="WS_REPLAY_RATE", default=5.0)
    replay_readers: Annotated[
        int, Meta(ge=1, le=1000, description="concurrent reads of the stream by one worker")
    ] = field(name="WS_REPLAY_READERS", default=8)

    test_echo: Annotated[
        bool, Meta(description="add /echo, which sends back what it receives, for a conformance suite")
    ] = field(name="WS_TEST_ECHO", default=False)

    stream_name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="name of the JetStream stream")
    ] = field(name="JS_STREAM_NAME", default="ODIN_TOKENS")
    stream_max_age_seconds: Annotated[
        float,
        Meta(ge=1, le=1e9, description="age at which the stream drops a message; `90`, `30s`, `5m` or `1h`"),
    ] = field(name="JS_STREAM_MAX_AGE", default=3600.0)
    stream_max_msgs: Annotated[
        int, Meta(ge=1, le=_INT64_MAX, description="most messages that the stream keeps")
    ] = field(name="JS_STREAM_MAX_MSGS", default=1_000_000)
    stream_max_bytes: Annotated[
        int, Meta(ge=1024, le=_INT64_MAX, description="most bytes that the stream keeps")
    ] = field(name="JS_STREAM_MAX_BYTES", default=512 << 20)

    stream_replicas: Annotated[
        int, Meta(ge=1, le=5, description="NATS cluster nodes that each keep a copy of the stream")
    ] = field(name="JS_STREAM_REPLICAS", default=1)

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="lowest severity that is logged")
    ] = field(name="LOG_LEVEL", default="info")
    log_format: Annotated[
        Literal["json", "text"], Meta(description="a JSON object or a line of text for each event")
    ] = field(name="LOG_FORMAT", default="text")
    log_access: Annotated[
        bool, Meta(description="write gunicorn's access log to stdout, one line per request")
    ] = field(name="LOG_ACCESS", default=False)
    environment: Annotated[str, Meta(max_length=64, description="name of the deployment")] = field(
        name="ENVIRONMENT", default="development"
    )

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
        return checks.address(self.addr)

    @cached_property
    def nats_urls(self) -> list[str]:
        """The NATS servers, in the given order; empty: embedded."""
        return checks.nats_urls(self.nats_url)

    @cached_property
    def channel_filter(self) -> ChannelFilter:
        """The channels that are carried (WS_SUBJECTS)."""
        return checks.parsed(
            "WS_SUBJECTS", self.subjects, lambda listed: ChannelFilter(listed, self.subject_prefix)
        )

    @cached_property
    def allowed_origins(self) -> Origins:
        """The origins that may connect (WS_ORIGINS)."""
        return checks.parsed("WS_ORIGINS", self.origins, Origins.parse)

    @cached_property
    def trusted_networks(self) -> Networks:
        """The proxies that are believed (WS_TRUSTED_PROXIES)."""
        return checks.parsed("WS_TRUSTED_PROXIES", self.trusted_proxies, parse_networks)

    @cached_property
    def jwt_audiences(self) -> tuple[str, ...]:
        """Of which a token must name one; empty: its audience does not matter."""
        return checks.parts(self.jwt_audience)

    @cached_property
    def jwt_issuers(self) -> tuple[str, ...]:
        """Of which one must have issued a token; empty: its issuer does not matter."""
        return checks.parts(self.jwt_issuer)

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
            SettingsError: a value is wrong, or a `WS_` variable is unknown.
        """
        environ = os.environ if environ is None else environ
        known = {f.encode_name for f in msgspec.structs.fields(cls)}
        for name in sorted(environ):
            if name.startswith(_OWN_PREFIX) and name not in known:
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
        _ = self._address, self.nats_urls, self.allowed_origins, self.trusted_networks, self.channel_filter
        if self.strategy:
            try:
                strategies.check_name(self.strategy)
            except ValueError:
                allowed = f"expected one of {', '.join(strategies.names())}, or package.module:Class"
                raise SettingsError("WS_SHARD_STRATEGY", self.strategy, allowed) from None
        checks.check_above(
            "WS_IDLE_SECONDS", self.idle_seconds, "WS_HEARTBEAT_SECONDS", self.heartbeat_seconds
        )
        checks.check_above(
            "WS_MEMORY_HARD_THRESHOLD",
            self.memory_hard_threshold,
            "WS_MEMORY_REJECT_THRESHOLD",
            self.memory_reject_threshold,
        )
        if self.admin_token and len(self.admin_token) < _MIN_SECRET_CHARACTERS:
            allowed = f"expected at least {_MIN_SECRET_CHARACTERS} characters"
            raise SettingsError("WS_ADMIN_TOKEN", "***", allowed)
        if self.jwt_secret and self.jwt_secret_file:
            raise SettingsError("WS_JWT_SECRET_FILE", self.jwt_secret_file, "WS_JWT_SECRET is set already")
        if self.allow_anonymous and not self.checks_tokens:
            allowed = "without WS_JWT_SECRET, WS_JWT_SECRET_FILE or WS_JWKS_FILE everybody may enter already"
            raise SettingsError("WS_ALLOW_ANONYMOUS", "true", allowed)
