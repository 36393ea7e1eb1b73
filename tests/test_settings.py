"""`odinws.settings`: defaults, bounds, and one-line errors that help and give no secret away."""

from __future__ import annotations

import os
import string
from typing import Any

import msgspec
import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import strategies
import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.errors import SettingsError
from odinws.settings import Settings, describe, platform_variables, usable_cores, without_credentials

FIELDS = {f.encode_name: f.name for f in msgspec.structs.fields(Settings)}

DEFAULTS: dict[str, Any] = {
    "WS_ADDR": "127.0.0.1:3004",
    "WS_ADMIN_ADDR": "127.0.0.1:3005",
    "NATS_URL": "",
    "NATS_TOKEN": "",
    "NATS_CREDS_FILE": "",
    "NATS_NKEY_FILE": "",
    "NATS_CA_FILE": "",
    "NATS_CERT_FILE": "",
    "NATS_KEY_FILE": "",
    "WS_DEMO_FEED": None,
    "WS_SUBJECT_PREFIX": "odin.",
    "WS_SUBJECTS": "",
    "WS_CHANNELS_FILE": "",
    "WS_SHARD_STRATEGY": "",
    "WS_FLAGS_FILE": "",
    "WS_NUM_SHARDS": 16,
    "WS_SHARD_KEY": "channel",
    "WS_WORKERS": usable_cores(),
    "WS_MAX_CONNECTIONS": 10_000,
    "WS_CPU_LIMIT": float(usable_cores()),
    "WS_MEMORY_LIMIT": psutil.virtual_memory().total,
    "WS_CLIENT_MEMORY": None,
    "WS_CPU_REJECT_THRESHOLD": 75.0,
    "WS_MEMORY_REJECT_THRESHOLD": 90.0,
    "WS_MEMORY_HARD_THRESHOLD": 95.0,
    "WS_HUB_LAG_THRESHOLD_MS": 250.0,
    "WS_MAX_GREENLETS": 20_000,
    "WS_ADMISSION_START_RATE": 200.0,
    "WS_ADMISSION_FLOOR_RATE": 10.0,
    "WS_ADMISSION_DRY_RUN": False,
    "WS_MAX_PER_ADDRESS": None,
    "WS_MAX_PER_SUBJECT": None,
    "WS_CLIENT_WORK": 10,
    "WS_UPGRADE_RATE": 100.0,
    "WS_UPGRADE_BURST": 500,
    "WS_SERVER_UPGRADE_RATE": 0.0,
    "WS_SERVER_UPGRADE_BURST": 100,
    "WS_UPGRADE_EXEMPT_LOOPBACK": True,
    "WS_TRUSTED_PROXIES": "",
    "WS_ORIGINS": "*",
    "WS_ORIGIN_REQUIRED": False,
    "WS_TOKEN_COOKIE": "",
    "WS_JWT_SECRET": "",
    "WS_JWT_SECRET_FILE": "",
    "WS_JWKS_FILE": "",
    "WS_JWT_AUDIENCE": "",
    "WS_JWT_ISSUER": "",
    "WS_JWT_LEEWAY_SECONDS": 5.0,
    "WS_JWT_REQUIRE_EXP": True,
    "WS_ALLOW_ANONYMOUS": False,
    "WS_ADMIN_TOKEN": "",
    "WS_ADMIN_TOKEN_FILE": "",
    "WS_ADMIN_PEERS": "",
    "WS_MAX_SUBSCRIPTIONS": 1_000,
    "WS_MAX_WILDCARDS": 32,
    "WS_MAX_MESSAGE_BYTES": 65_536,
    "WS_COMMAND_RATE": 100.0,
    "WS_COMMAND_BURST": 500,
    "WS_MAX_ERRORS": 100,
    "WS_OUTBOX_BYTES": 1_048_576,
    "WS_OUTBOX_FRAMES": 8192,
    "WS_SLOW_POLICY": "disconnect",
    "WS_WRITE_DELAY_MS": 0.0,
    "WS_COMPRESSION": True,
    "WS_COMPRESSION_MIN_BYTES": 256,
    "WS_OUTBOX_SECONDS": 10.0,
    "WS_SEND_BUFFER_BYTES": 65_536,
    "WS_HEARTBEAT_SECONDS": 25.0,
    "WS_IDLE_SECONDS": 60.0,
    "WS_CLOSE_SECONDS": 3.0,
    "WS_FIRST_COMMAND_SECONDS": 300.0,
    "WS_DRAIN_SECONDS": 3.0,
    "WS_STOP_SECONDS": 1.0,
    "WS_WORKER_MAX_AGE_SECONDS": 0.0,
    "WS_WORKER_MAX_MEMORY": 0,
    "WS_REBALANCE_RATE": 10.0,
    "WS_RECONCILE_SECONDS": 30.0,
    "WS_FEED_BACKLOG": 20_000,
    "WS_RING_MESSAGES": 5_000,
    "WS_RING_BYTES": 8_388_608,
    "WS_REPLAY_MESSAGES": 10_000,
    "WS_REPLAY_RATE": 20.0,
    "WS_REPLAY_READERS": 2,
    "WS_TEST_ECHO": False,
    "JS_STREAM_NAME": "ODIN_TOKENS",
    "JS_STREAM_MAX_AGE": 3600.0,
    "JS_STREAM_MAX_MSGS": 1_000_000,
    "JS_STREAM_MAX_BYTES": 536_870_912,
    "JS_STREAM_REPLICAS": 1,
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "text",
    "LOG_ACCESS": False,
    "ENVIRONMENT": "development",
}

INT64_MAX = (1 << 63) - 1
# name: least, most (None: no bound), and whether the least is itself allowed
BOUNDS: dict[str, tuple[float, float | None, bool]] = {
    "WS_NUM_SHARDS": (1, 1024, True),
    "WS_WORKERS": (1, 128, True),
    "WS_MAX_CONNECTIONS": (1, 10_000_000, True),
    "WS_CPU_LIMIT": (0, 1024, False),
    "WS_MEMORY_LIMIT": (1 << 20, None, True),
    "WS_CLIENT_MEMORY": (1 << 20, None, True),
    "WS_MAX_PER_ADDRESS": (0, None, True),
    "WS_MAX_PER_SUBJECT": (0, None, True),
    "WS_CLIENT_WORK": (1, 1_000_000, True),
    "WS_CPU_REJECT_THRESHOLD": (0, 100, False),
    "WS_MEMORY_REJECT_THRESHOLD": (0, 100, False),
    "WS_MEMORY_HARD_THRESHOLD": (0, 200, False),
    "WS_HUB_LAG_THRESHOLD_MS": (10, 60_000, True),
    "WS_MAX_GREENLETS": (100, None, True),
    "WS_ADMISSION_START_RATE": (0, 1_000_000, False),
    "WS_ADMISSION_FLOOR_RATE": (0, 1_000_000, False),
    "WS_UPGRADE_RATE": (0, 1_000_000, True),
    "WS_UPGRADE_BURST": (1, 1_000_000, True),
    "WS_SERVER_UPGRADE_RATE": (0, 1_000_000, True),
    "WS_SERVER_UPGRADE_BURST": (1, 1_000_000, True),
    "WS_JWT_LEEWAY_SECONDS": (0, 300, True),
    "WS_MAX_SUBSCRIPTIONS": (1, 100_000, True),
    "WS_MAX_WILDCARDS": (0, 100, True),
    "WS_MAX_MESSAGE_BYTES": (128, 16 << 20, True),
    "WS_COMMAND_RATE": (0, 1_000_000, False),
    "WS_COMMAND_BURST": (1, 100_000, True),
    "WS_MAX_ERRORS": (1, 100_000, True),
    "WS_OUTBOX_BYTES": (1024, 1 << 30, True),
    "WS_OUTBOX_FRAMES": (16, 10_000_000, True),
    "WS_WRITE_DELAY_MS": (0, 1000, True),
    "WS_COMPRESSION_MIN_BYTES": (0, 1 << 30, True),
    "WS_OUTBOX_SECONDS": (0, 3600, False),
    "WS_SEND_BUFFER_BYTES": (4096, 16 << 20, True),
    "WS_HEARTBEAT_SECONDS": (0.1, 3600, True),
    "WS_IDLE_SECONDS": (0.2, 7200, True),
    "WS_CLOSE_SECONDS": (0.1, 60, True),
    "WS_FIRST_COMMAND_SECONDS": (0, 86_400, True),
    "WS_DRAIN_SECONDS": (0, 3600, True),
    "WS_STOP_SECONDS": (0.1, 600, True),
    "WS_WORKER_MAX_AGE_SECONDS": (0, 1_000_000_000, True),
    "WS_WORKER_MAX_MEMORY": (0, INT64_MAX, True),
    "WS_REBALANCE_RATE": (0, 100_000, True),
    "WS_RECONCILE_SECONDS": (1, 3600, True),
    "WS_FEED_BACKLOG": (100, 10_000_000, True),
    "WS_RING_MESSAGES": (1, 10_000_000, True),
    "WS_RING_BYTES": (1024, 1 << 34, True),
    "WS_REPLAY_MESSAGES": (1, 10_000_000, True),
    "WS_REPLAY_RATE": (0, 1_000_000, False),
    "WS_REPLAY_READERS": (1, 1000, True),
    "JS_STREAM_MAX_AGE": (1, 1_000_000_000, True),
    "JS_STREAM_MAX_MSGS": (1, INT64_MAX, True),
    "JS_STREAM_REPLICAS": (1, 5, True),
    "JS_STREAM_MAX_BYTES": (1024, INT64_MAX, True),
}
OF_OTHERS = {"WS_CLIENT_MEMORY", "WS_MAX_PER_ADDRESS", "WS_MAX_PER_SUBJECT"}  # unset, it is a part of another
WHOLE = {name for name, value in DEFAULTS.items() if type(value) is int} | OF_OTHERS


def read(**environ: str) -> Settings:
    """The settings of an environment."""
    # Some depend on each other: let each of them be tried alone.
    if "WS_MEMORY_REJECT_THRESHOLD" in environ:
        environ.setdefault("WS_MEMORY_HARD_THRESHOLD", "200")
    if "WS_MEMORY_HARD_THRESHOLD" in environ:
        environ.setdefault("WS_MEMORY_REJECT_THRESHOLD", "0.0001")
    if "WS_ALLOW_ANONYMOUS" in environ:
        environ.setdefault("WS_JWKS_FILE", "/some/file")
    if "WS_HEARTBEAT_SECONDS" in environ:
        environ.setdefault("WS_IDLE_SECONDS", "7200")
    if "WS_IDLE_SECONDS" in environ:
        environ.setdefault("WS_HEARTBEAT_SECONDS", "0.1")
    return Settings.from_environ(environ)


def refusal(name: str, value: str, **others: str) -> str:
    """The text of the error that a value gives: one line that names the field and the value."""
    with pytest.raises(SettingsError) as caught:
        read(**{name: value}, **others)
    error = caught.value
    assert error.name == name
    assert str(error) == f"{error.name}={error.value!r} is not valid: {error.allowed}"
    assert len(str(error).splitlines()) == 1
    return str(error)


# -- values ----------------------------------------------------------------------------------------


def test_defaults() -> None:
    """An empty environment describes a server; every field has its documented name and default."""
    settings = Settings.from_environ({})
    assert {name: getattr(settings, FIELDS[name]) for name in FIELDS} == DEFAULTS


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the process's own variables count, and others than ours are left alone."""
    for name in list(os.environ):
        if name.startswith("WS_") or name in FIELDS:
            monkeypatch.delenv(name)
    monkeypatch.setenv("WS_NUM_SHARDS", "4")
    monkeypatch.setenv("OTHER_SETTING", "x")
    assert Settings.from_environ().num_shards == 4


def test_settings_are_frozen() -> None:
    """A server's settings do not change."""
    with pytest.raises(AttributeError):
        Settings.from_environ({}).workers = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_empty_counts_as_unset(name: str, value: str) -> None:
    """A variable that is there but empty is the default, as in a compose file with `${X:-}`."""
    assert Settings.from_environ({name: value}) == Settings.from_environ({})


@pytest.mark.parametrize("name", FIELDS)
def test_space_around_a_value_means_nothing(name: str) -> None:
    """A value from a file with a newline at its end is the value."""
    value = {
        "WS_ADDR": "h:1",
        "NATS_URL": "nats://h:1",
        "WS_DEMO_FEED": "true",
        **dict.fromkeys(OF_OTHERS, "2000000"),
        "WS_SUBJECT_PREFIX": "a.",
        "WS_SUBJECTS": "token.*",
        "WS_SHARD_STRATEGY": "single-lock",
        "WS_SHARD_KEY": "connection",
        "JS_STREAM_NAME": "S",
        "LOG_LEVEL": "error",
        "LOG_FORMAT": "json",
        "ENVIRONMENT": "e",
        "WS_IDLE_SECONDS": "61",
    }.get(name)
    if value is None:
        value = f"{DEFAULTS[name]}"
    assert read(**{name: f" {value}\n"}) == read(**{name: value})


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name: str) -> None:
    """The bounds themselves are allowed or not, what lies outside never; the error says both."""
    least, most, included = BOUNDS[name]
    step = 1 if name in WHOLE else 0.001
    text = "{}" if name in WHOLE else "{:.4f}"
    inside = least if included else least + step
    assert getattr(read(**{name: text.format(inside)}), FIELDS[name]) == pytest.approx(inside)
    below = refusal(name, text.format(least - step if included else least))
    assert f"{'from' if included else 'above'} {least:g}" in below or f"from {least} " in below
    if most is None:
        assert getattr(read(**{name: str(1 << 70)}), FIELDS[name]) == 1 << 70
        return
    assert getattr(read(**{name: text.format(most)}), FIELDS[name]) == most
    above = refusal(name, text.format(most + step))
    assert f"to {most:g} (" in above or f"to {most} (" in above


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize(
    "value", ["abc", "1_000", "0x10", "1,5", "--1", "nan", "inf", "-inf", "1 2", "९", "9" * 5000]
)
def test_what_is_no_number(name: str, value: str) -> None:
    """Not a number, or none that a computer has: the error says what would be."""
    assert "expected" in refusal(name, value)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_whole_numbers(name: str) -> None:
    """A fraction is no count."""
    assert "a whole number" in refusal(name, "1024.5")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("5m", 300), ("1h", 3600), ("1500ms", 1.5), ("0.5h", 1800), ("1.5", 1.5)],
)
def test_ages(text: str, seconds: float) -> None:
    """An age has a unit, or is in seconds."""
    assert read(JS_STREAM_MAX_AGE=text).stream_max_age_seconds == seconds


@pytest.mark.parametrize("text", ["1d", "s", "-1s", "1 s", "1s1m", "1e3", ".5s", "1.", "1S"])
def test_bad_ages(text: str) -> None:
    """The error names the units."""
    assert "ms, s, m or h" in refusal("JS_STREAM_MAX_AGE", text)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("LOG_LEVEL", ["debug", "info", "warning", "error"]),
        ("LOG_FORMAT", ["json", "text"]),
        ("WS_SHARD_KEY", ["channel", "connection"]),
        ("WS_SLOW_POLICY", ["disconnect", "conflate", "drop-oldest"]),
        ("WS_SHARD_STRATEGY", list(strategies.NAMES)),
    ],
)
def test_choices(name: str, allowed: list[str]) -> None:
    """Each choice in any case; anything else is answered with all of them."""
    for choice in allowed:
        assert getattr(read(**{name: choice.upper()}), FIELDS[name]) == choice
    text = refusal(name, "bogus")
    assert all(choice in text for choice in allowed)


def test_parts_of_others() -> None:
    """What is unset is a part of another setting; 0 is no limit where that is possible."""
    settings = read(WS_MEMORY_LIMIT="400000000", WS_MAX_CONNECTIONS="3000")
    assert settings.client_memory_bytes == 100_000_000
    assert (settings.connections_per_address, settings.connections_per_subject) == (1500, 1500)
    assert read(WS_MAX_CONNECTIONS="30").connections_per_address == 100
    settings = read(WS_CLIENT_MEMORY="2000000", WS_MAX_PER_ADDRESS="0", WS_MAX_PER_SUBJECT="7")
    assert settings.client_memory_bytes == 2_000_000
    assert (settings.connections_per_address, settings.connections_per_subject) == (0, 7)


@pytest.mark.parametrize(("value", "flag"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_demo_feed(value: str, flag: bool) -> None:
    """The demo feed is a switch."""
    assert read(WS_DEMO_FEED=value).runs_demo_feed is flag
    assert "true or false" in refusal("WS_DEMO_FEED", "maybe")


@pytest.mark.parametrize(("value", "flag"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_compression(value: str, flag: bool) -> None:
    """Compression is a switch."""
    assert read(WS_COMPRESSION=value).compression is flag
    assert "true or false" in refusal("WS_COMPRESSION", "maybe")


@pytest.mark.parametrize(("url", "runs"), [("", True), ("nats://h:4222", False)])
def test_demo_feed_follows_nats(url: str, runs: bool) -> None:
    """Unset, there is a demo feed only in a NATS of our own."""
    assert read(NATS_URL=url).runs_demo_feed is runs
    assert read(NATS_URL=url).embedded_nats is runs


@pytest.mark.parametrize("value", ["odin", ".odin.", "odin..", "o din.", "odin.>.", "*.", ".", "ödin."])
def test_bad_prefixes(value: str) -> None:
    """A prefix is whole tokens of NATS, each with its dot."""
    refusal("WS_SUBJECT_PREFIX", value)
    assert read(WS_SUBJECT_PREFIX="a.b-1.").subject_prefix == "a.b-1."


def test_bad_subjects() -> None:
    """What is no channel is named."""
    refusal("WS_SUBJECTS", "token.*,tokens")
    assert read(WS_SUBJECTS="token.*, odin.global").subjects == "token.*, odin.global"


@pytest.mark.parametrize("value", ["a b", "a.b", "a>", "ä", "x" * 65])
def test_bad_stream_names(value: str) -> None:
    """A stream's name is one token."""
    refusal("JS_STREAM_NAME", value)


def test_environment_is_short() -> None:
    """The name of the deployment has at most 64 characters."""
    assert "at most 64 characters" in refusal("ENVIRONMENT", "x" * 65)
    assert read(ENVIRONMENT="ü" * 64).environment == "ü" * 64


def test_idle_is_longer_than_the_heartbeat() -> None:
    """A client must get a chance to answer a ping."""
    for idle in ("5", "4"):
        text = refusal("WS_IDLE_SECONDS", idle, WS_HEARTBEAT_SECONDS="5")
        assert "more than WS_HEARTBEAT_SECONDS (5)" in text
    with pytest.raises(SettingsError):
        Settings.from_environ({"WS_HEARTBEAT_SECONDS": "60"})
    assert read(WS_IDLE_SECONDS="5.1", WS_HEARTBEAT_SECONDS="5").idle_seconds == 5.1


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addr", "host", "port"),
    [
        (":3004", "0.0.0.0", 3004),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("localhost:65535", "localhost", 65535),
        ("[::1]:80", "::1", 80),
        ("[::]:80", "::", 80),
    ],
)
def test_addr(addr: str, host: str, port: int) -> None:
    """Host and port apart; no host means all interfaces."""
    settings = read(WS_ADDR=addr)
    assert (settings.host, settings.port) == (host, port)


@pytest.mark.parametrize(
    "addr",
    [
        "3004",
        "host",
        "host:",
        "host:http",
        "host:-1",
        "host:९",
        "host:65536",
        "host:" + "9" * 5000,
        "a b:1",
        "h:1:",
    ],
)
def test_bad_addr(addr: str) -> None:
    """A port is needed, and is one."""
    assert "host:port" in refusal("WS_ADDR", addr)


def test_nats_urls() -> None:
    """Several servers with commas, space and empty parts ignored."""
    settings = read(NATS_URL=" nats://a:4222, tls://b ,,ws://u:p@c:80/x,")
    assert settings.nats_urls == ["nats://a:4222", "tls://b", "ws://u:p@c:80/x"]
    assert not settings.embedded_nats


@pytest.mark.parametrize(
    "url",
    [
        "localhost:4222",
        "http://h:4222",
        "nats://",
        "nats://:4222",
        "nats://h:0",
        "nats://h:x",
        "nats://h:70000",
        "nats://[::1",
        "nats://a:1,b:2",
    ],
)
def test_bad_nats_urls(url: str) -> None:
    """A NATS URL has a scheme of NATS, a host, and a port that is one if it has one."""
    assert "nats://host:port" in refusal("NATS_URL", url)


# -- secrets ---------------------------------------------------------------------------------------

SECRET = "s3cr3t"  # noqa: S105 - it is to be found, nowhere


@pytest.mark.parametrize(
    "url",
    [
        f"nats://user:{SECRET}@h:0",
        f"nats://{SECRET}@h:0",
        f"nats://user:{SECRET}/x@h:4222",
        f"nats://user:{SECRET}@x@h:0",
        f"nats://user:x@{SECRET}@h:0",
        f"nats://user:{SECRET}#x@h:4222",
        f"nats://user:{SECRET}?x@h:4222",
        f"nats://user:{SECRET},x@h:4222",
        f"nats://user:x,{SECRET}@h:4222",
        f"user:{SECRET}@h:4222",
        f"nats:/user:{SECRET}@h:4222",
        f"http://user:{SECRET}@h:4222",
        f"nats://a:4222,nats://user:{SECRET}@h:0",
        f"nats://user:{SECRET}@h:4222,b",
        f"nats://user:{SECRET}\udc80@h:4222",
    ],
)
def test_an_error_never_shows_credentials(url: str) -> None:
    """However wrong the URL is, what stands before an `@` is not printed."""
    text = refusal("NATS_URL", url)
    assert SECRET not in text
    assert "***" in text


@given(
    user=st.text(st.characters(codec="utf-8")),
    host=st.text(string.ascii_letters),
    scheme=st.sampled_from(["nats://", "tls://", "http://", "//", ""]),
)
@example(user=f"{SECRET}://", host="h", scheme="")
def test_credentials_are_cut_out(user: str, host: str, scheme: str) -> None:
    """Nothing between the scheme and the last `@` is left of a URL, whatever it is."""
    shown = without_credentials(f"{scheme}{user}@{host}")
    kept = scheme if scheme in ("nats://", "tls://") else ""
    if not user.startswith(("nats://", "tls://", "ws://", "wss://")):
        assert shown == f"{kept}***@{host}"


def test_a_url_without_credentials_is_shown_as_it_is() -> None:
    """There is nothing to hide."""
    assert without_credentials("nats://host:4222") == "nats://host:4222"


# -- unknown names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WS_NUM_SHARD", "WS_NUM_SHARDS"),
        ("WS_MAXCONNECTIONS", "WS_MAX_CONNECTIONS"),
        ("WS_STRATEGY", "WS_SHARD_STRATEGY"),
        ("WS_WORKER", "WS_WORKERS"),
        ("WS_ADDRESS", "WS_ADDR"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_right_one(name: str, meant: str) -> None:
    """The start stops, and says what was probably meant."""
    assert f"did you mean {meant}?" in refusal(name, "1")


def test_a_strange_name_points_to_the_list() -> None:
    """Nothing is near: the error names the variable and its value, and says where the names stand."""
    text = refusal("WS_QQQQQQQQ", "seventeen")
    assert "docs/operations.md" in text
    assert "seventeen" in text


def test_names_without_our_prefix_are_not_ours() -> None:
    """JS_, LOG_ and all others may be anything."""
    strange = {"JS_STREAM_NAM": "x", "LOG_LEVE": "x", "NATS_URLS": "x", "ws_addr": "x", "WSADDR": "x", "": ""}
    assert Settings.from_environ(strange) == Settings.from_environ({})


# -- any environment -------------------------------------------------------------------------------

texts = st.text() | st.text("0123456789.-+eE_naif") | st.characters(categories=["Cs"])


@given(
    environ=st.dictionaries(
        st.sampled_from(sorted(FIELDS)) | st.text().map("WS_{}".format), texts, max_size=4
    )
)
@example({"WS_ADDR": ":" + "1" * 5000})
@example({"ENVIRONMENT": "\udc80"})
@example({"WS_\n\u2028x": "1"})
@example({"NATS_URL": "nats://[v1.x]"})
def test_any_environment_is_settings_or_a_settings_error(environ: dict[str, str]) -> None:
    """Nothing else is raised, whatever stands in the environment, and an error is one printable line."""
    try:
        settings = Settings.from_environ(environ)
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - not every example raises
        str(error).encode()
    else:
        assert 0 <= settings.port <= 65535
        assert settings.host
        for value in msgspec.structs.asdict(settings).values():
            str(value).encode()


# -- who may ---------------------------------------------------------------------------------------


def test_lists_are_read_at_the_start() -> None:
    """An origin or a network that is none stops the start, and is named."""
    assert "'odin.example' is no origin" in refusal("WS_ORIGINS", "https://a.example, odin.example")
    assert "'10.0.0.1/8' is no network" in refusal("WS_TRUSTED_PROXIES", "::1, 10.0.0.1/8")
    assert read(WS_ORIGINS="https://*.odin.example,null").origins


def test_secrets_are_never_shown() -> None:
    """Neither one that is too short, nor one that is no text."""
    for name, value in (("WS_ADMIN_TOKEN", "hunter2"), ("WS_JWT_SECRET", "hunter2\udcff")):
        with pytest.raises(SettingsError) as caught:
            read(**{name: value})
        assert "hunter2" not in str(caught.value)
        assert caught.value.value == "***"


def test_what_contradicts_itself() -> None:
    """Two secrets, anonymity where nobody is asked, and thresholds the wrong way round."""
    assert "is set already" in refusal("WS_JWT_SECRET_FILE", "/x", WS_JWT_SECRET="y" * 32)
    assert "is set already" in refusal("WS_ADMIN_TOKEN_FILE", "/x", WS_ADMIN_TOKEN="y" * 16)
    assert "another port" in refusal("WS_ADMIN_ADDR", "127.0.0.1:3004")
    with pytest.raises(SettingsError, match="everybody may enter already"):
        Settings.from_environ({"WS_ALLOW_ANONYMOUS": "true"})
    with pytest.raises(SettingsError, match="more than WS_MEMORY_REJECT_THRESHOLD"):
        Settings.from_environ({"WS_MEMORY_HARD_THRESHOLD": "80"})


@pytest.mark.parametrize("addr", ["0.0.0.0:3005", ":3005", "10.0.0.1:3005", "[::]:3005", "odinws:3005"])
def test_others_need_a_token_for_the_admin_plane(addr: str) -> None:
    """Wherever they might reach it."""
    assert "others can reach it: set WS_ADMIN_TOKEN_FILE" in refusal("WS_ADMIN_ADDR", addr)
    assert not read(WS_ADMIN_ADDR=addr, WS_ADMIN_TOKEN="y" * 16).admin_is_local


@pytest.mark.parametrize(
    "addr", ["127.0.0.1:0", "127.8.8.8:3005", "[::1]:3005", "localhost:3005", "unix:/run/x"]
)
def test_programs_here_need_none(addr: str) -> None:
    """Loopback, and a Unix socket."""
    settings = read(WS_ADMIN_ADDR=addr)
    assert settings.admin_is_local
    assert settings.read_admin_token() == ""


@pytest.mark.parametrize("addr", ["unix:", "unix:relative", "unix:/" + "x" * 100, "nowhere", "h:99999"])
def test_where_no_admin_plane_can_be(addr: str) -> None:
    """It says what is expected."""
    assert "expected" in refusal("WS_ADMIN_ADDR", addr)


def test_peers_of_the_admin_page() -> None:
    """Origins, as browsers name them and as they are connected to."""
    settings = read(WS_ADMIN_PEERS="HTTP://127.0.0.1:3105, https://odin.example")
    assert settings.admin_peer_origins == ("http://127.0.0.1:3105", "https://odin.example")
    assert settings.admin_peer_sockets == ("ws://127.0.0.1:3105", "wss://odin.example")
    assert "is no origin" in refusal("WS_ADMIN_PEERS", "127.0.0.1:3105")
    assert "is no origin" in refusal("WS_ADMIN_PEERS", "http://a; script-src *")


def test_tokens_are_asked_for_with_any_key() -> None:
    """And not without one."""
    assert not Settings.from_environ({}).checks_tokens
    for name in ("WS_JWT_SECRET", "WS_JWT_SECRET_FILE", "WS_JWKS_FILE"):
        assert Settings.from_environ({name: "x"}).checks_tokens


# -- parsed values ---------------------------------------------------------------------------------


def test_lists_are_parsed_once() -> None:
    """What a worker asks for again and again is there already, and is what was given."""
    settings = read(
        WS_ADDR="[::1]:3006",
        NATS_URL=" nats://a:4222, nats://b:4222,",
        WS_SUBJECTS="odin.token.BTC, user.*",
        WS_ORIGINS="https://a.test,",
        WS_TRUSTED_PROXIES="10.0.0.0/8, ::1",
        WS_JWT_AUDIENCE="a, b",
    )
    assert (settings.host, settings.port) == ("::1", 3006)
    assert settings.nats_urls == ["nats://a:4222", "nats://b:4222"]
    assert settings.channels.subjects == ("odin.token.BTC", "odin.user.*")
    assert settings.allowed_origins.allow("https://a.test", without=False)
    assert not settings.allowed_origins.allow("https://b.test", without=True)
    assert [str(network) for network in settings.believed_proxies.networks] == ["10.0.0.0/8", "::1/128"]
    assert (settings.jwt_audiences, settings.jwt_issuers) == (("a", "b"), ())
    for name in ("nats_urls", "channels", "allowed_origins", "believed_proxies"):
        assert getattr(settings, name) is getattr(settings, name)


def test_settings_that_differ_have_values_of_their_own() -> None:
    """A changed copy does not keep what was parsed of its original."""
    settings = read(WS_SUBJECTS="global")
    other = msgspec.structs.replace(settings, subjects="token.*")
    assert settings.channels.carries("global")
    assert not other.channels.carries("global")
    assert settings == read(WS_SUBJECTS="global")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WS_PORT", "tcp://10.0.0.1:3004"),
        ("WS_SERVICE_HOST", "10.0.0.1"),
        ("WS_SERVICE_PORT", "3004"),
        ("WS_SERVICE_PORT_HTTP", "3004"),
        ("WS_PORT_3004_TCP", "tcp://10.0.0.1:3004"),
        ("WS_PORT_3004_TCP_PROTO", "tcp"),
        ("WS_PORT_3004_TCP_PORT", "3004"),
        ("WS_PORT_53_UDP_ADDR", "fd00::1"),
        ("WS_API_V2_SERVICE_HOST", "10.0.0.1"),
        ("WS_API_V2_PORT", "udp://10.0.0.1:3004"),
        ("WS_API_PORT_3004_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_a_platform_makes_of_a_service_is_ignored(name: str, text: str) -> None:
    """Kubernetes gives these to every pod beside a Service `ws`, or `ws-api`; Docker links were alike."""
    environ = {name: text, "WS_WORKERS": "3"}
    assert Settings.from_environ(environ).workers == 3
    assert platform_variables(environ) == [name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WS_PORT", "3004"),
        ("WS_PORT", "http://example.com"),
        ("WS_SERVICE", "10.0.0.1"),
        ("WS_SERVICE_HOSTS", "10.0.0.1"),
        ("WS_PORT_HTTP_TCP", "tcp://10.0.0.1:3004"),
        ("WS_PORT_3004_TCP_X", "tcp"),
        ("WS_WORKER", "3"),
    ],
)
def test_what_only_looks_like_it_stops_the_start(name: str, text: str) -> None:
    """A misspelt setting is never ignored."""
    assert platform_variables({name: text}) == []
    with pytest.raises(SettingsError, match="no setting has this name"):
        Settings.from_environ({name: text})


def test_no_setting_is_taken_for_a_platforms() -> None:
    """Whatever its value."""
    names = [setting.name for setting in describe(Settings)]
    assert platform_variables(dict.fromkeys(names, "tcp://10.0.0.1:3004")) == []
