"""`odinws check`: every problem is told, with real nats-servers."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import nats
import pytest

from odinws import cli
from odinws.check import Finding, State, channel, findings
from tests.access.material import SECRET, token
from tests.nats import NatsServer
from tests.server import ROOT

KEYS = {"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": "AA", "y": "AA"}]}
ADVICE = "; correct it or unset it"
PERMIT = "; permit it to our user"


def told(state: State, environ: dict[str, str], *, offline: bool = True) -> list[tuple[str, str]]:
    """What is found of one state: what it is about, and its text."""
    return [(f.about, f.text) for f in findings(environ, offline=offline) if f.state is state]


def problems(environ: dict[str, str]) -> list[tuple[str, str]]:
    """The problems, NATS included."""
    return told(State.PROBLEM, environ, offline=False)


def test_nothing_wrong() -> None:
    """Without a setting a server starts: a line for each thing that was looked at."""
    assert findings({}, offline=True) == [
        Finding(State.OK, "settings", "can be used"),
        Finding(State.OK, "channels", "carried from odin.>"),
        Finding(State.OK, "admin", "at 127.0.0.1:3005, without a token"),
        Finding(State.OK, "keys", "none: no client needs a token, and none can have user.* channels"),
        Finding(State.OK, "flags", "all workers run sync-dict"),
    ]


def test_embedded_nats() -> None:
    """Without NATS_URL the program of the embedded server must be there."""
    [(about, text)] = [(f.about, f.text) for f in findings({}) if f.about == "nats"]
    assert (about, Path(text.removeprefix("embedded: ")).name) == ("nats", "nats-server")


def test_all_wrong_settings_are_told() -> None:
    """Not the first alone; and what they would have decided is not judged by its default."""
    environ = {
        "WS_MAX_CONECTIONS": "5",
        "WS_WORKERS": "0",
        "WS_SUBJECTS": "nothing",
        "WS_ADMIN_TOKEN": "short",
        "NATS_URL": "http://user:password@broker",
    }
    text = " ".join(text for about, text in problems(environ) if about == "settings")
    assert {about for about, _ in problems(environ)} == {"settings"}
    assert [about for about, _ in problems(environ)] == ["settings"] * len(environ)
    assert (
        "WS_MAX_CONECTIONS='5' is not valid: no setting has this name, did you mean WS_MAX_CONNECTIONS?"
        in text
    )
    assert "WS_WORKERS='0' is not valid: expected a whole number from 1 to 128" in text
    assert "WS_SUBJECTS='nothing' is not valid" in text
    assert "WS_ADMIN_TOKEN='***' is not valid: expected at least 16 characters" in text
    assert "NATS_URL='***@broker' is not valid" in text
    assert text.count(ADVICE) == len(environ)


def test_variables_of_the_platform_are_noted() -> None:
    """They are no settings, and no problem."""
    found = findings({"WS_PORT": "tcp://10.96.0.7:3004", "WS_SERVICE_HOST": "10.96.0.7"}, offline=True)
    [note] = [finding for finding in found if finding.state is State.NOTE]
    assert note.text == "ignored, as they tell of a Kubernetes Service: WS_PORT, WS_SERVICE_HOST"
    assert not any(finding.state is State.PROBLEM for finding in found)


def test_a_setting_that_another_makes_wrong() -> None:
    """The default of one is wrong beside the value of another: that does not hide what else is wrong."""
    found = told(State.PROBLEM, {"WS_HEARTBEAT_SECONDS": "100", "WS_WORKERS": "many"})
    assert sorted(text.partition(" ")[0] for _, text in found) == [
        "WS_IDLE_SECONDS='60'",
        "WS_WORKERS='many'",
    ]


def test_all_wrong_keys_are_told(tmp_path: Path) -> None:
    """One source does not hide another; no secret is shown."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(KEYS))
    found = told(State.PROBLEM, {"WS_JWT_SECRET": "too-short", "WS_JWKS_FILE": str(path)})
    assert [about for about, _ in found] == ["keys", "keys"]
    assert found[0][1] == (
        f"WS_JWT_SECRET='***' is not valid: a shared secret of 9 bytes; expected at least 32{ADVICE}"
    )
    assert found[1][1].startswith(f"WS_JWKS_FILE='{path}' is not valid: no usable key: ")


def test_the_token_of_the_admin_plane(tmp_path: Path) -> None:
    """Its file is read, and not shown."""
    path = tmp_path / "token"
    [problem] = told(State.PROBLEM, {"WS_ADMIN_TOKEN_FILE": str(path)})
    assert problem[0] == "admin"
    assert problem[1].startswith(f"WS_ADMIN_TOKEN_FILE='{path}' is not valid: it can't be read: No such file")
    path.write_text("hunter2\n")
    [problem] = told(State.PROBLEM, {"WS_ADMIN_TOKEN_FILE": str(path)})
    assert "expected at least 16 characters" in problem[1]
    assert "hunter2" not in problem[1]
    path.write_text("a secret of some length\n")
    where = {"WS_ADMIN_ADDR": ":3005", "WS_ADMIN_TOKEN_FILE": str(path)}
    assert ("admin", "at :3005, with a token") in told(State.OK, where)


def test_keys_are_named() -> None:
    """What tokens are checked with."""
    assert ("keys", "HS256 (no name)") in told(State.OK, {"WS_JWT_SECRET": "x" * 32})


def test_flags(tmp_path: Path) -> None:
    """What they give, or why they can't be used and what runs instead; a strategy of the settings wins."""
    flags = str(Path(__file__).parents[1] / "conf/flags.json")
    environ = {"WS_FLAGS_FILE": flags, "WS_WORKERS": "4"}
    assert ("flags", f"{flags} gives sync-dict 4 of 4 workers") in told(State.OK, environ)
    both = told(State.OK, environ | {"WS_SHARD_STRATEGY": "hybrid"})
    assert ("flags", f"all workers run hybrid; WS_SHARD_STRATEGY wins over {flags}") in both
    missing = str(tmp_path / "flags.json")
    assert told(State.PROBLEM, {"WS_FLAGS_FILE": missing}) == [
        (
            "flags",
            f"WS_FLAGS_FILE: {missing}: No such file or directory; until it is mended, workers run sync-dict",
        )
    ]


def test_a_strategy_that_is_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported, as at a start."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "brought_to_check.py").write_text(
        "from strategies.sync_dict import SyncDict\nclass Mine(SyncDict): name = 'mine'\nNotOne = 1\n"
        "class Ends(SyncDict):\n    def __init__(self, **options): __import__('os')._exit(0)\n"
    )
    good = {"WS_SHARD_STRATEGY": "brought_to_check:Mine"}
    assert ("flags", "all workers run brought_to_check:Mine") in told(State.OK, good)
    [(_, text)] = told(State.PROBLEM, {"WS_SHARD_STRATEGY": "brought_to_check:Ends"})
    assert "'brought_to_check:Ends' can't be used: importing or constructing it ends the process" in text
    [(about, text)] = told(State.PROBLEM, {"WS_SHARD_STRATEGY": "brought_to_check:NotOne"})
    assert about == "settings"
    assert text.startswith(
        "WS_SHARD_STRATEGY: strategy 'brought_to_check:NotOne' can't be used: it is no subclass of "
    )
    assert text.endswith("; the server does not start")


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line each; the exit status says whether there is a problem."""
    monkeypatch.delenv("NATS_URL", raising=False)
    assert cli.main(["check", "--offline"]) == 0
    output = capsys.readouterr().out
    assert [line.split()[:2] for line in output.splitlines()] == [
        ["ok", about] for about in ("settings", "channels", "admin", "keys", "flags")
    ]
    monkeypatch.setenv("WS_WORKERS", "0")
    assert cli.main(["check", "--offline"]) == 1
    assert capsys.readouterr().out.startswith("problem  settings  WS_WORKERS='0' is not valid")


# -- NATS --------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "nats"


async def _stream(url: str, **options: int) -> None:
    connection = await nats.connect(url)
    js = connection.jetstream()
    await js.add_stream(
        name="ODIN_TOKENS",
        subjects=["odin.>"],
        max_age=3600.0,
        max_msgs=options.get("max_msgs", 1_000_000),
        max_bytes=512 << 20,
        allow_direct=True,
    )
    await js.publish("odin.token.BTC", b"{}")
    await connection.close()


async def _streams_and_consumers(url: str) -> tuple[int, int]:
    connection = await nats.connect(url)
    info = await connection.jetstream().account_info()
    await connection.close()
    return info.streams, info.consumers


def test_nats_without_stream(store: Path) -> None:
    """The stream will be created: it may be, and it is not created now."""
    with NatsServer(store) as server:
        environ = {"NATS_URL": server.url}
        assert problems(environ) == []
        assert told(State.NOTE, environ, offline=False) == [
            ("nats", "stream ODIN_TOKENS is not there: the first worker will create it")
        ]
        assert asyncio.run(_streams_and_consumers(server.url)) == (0, 0)


def test_nats_with_stream(store: Path) -> None:
    """The stream is there, and all that the feed does with it works. Nothing stays behind."""
    with NatsServer(store) as server:
        asyncio.run(_stream(server.url))
        found = findings({"NATS_URL": server.url})
        assert [finding.text for finding in found if finding.about == "nats"] == [
            f"{server.url} takes our credentials",
            "stream ODIN_TOKENS is as the settings say, 1 messages",
            "the feed consumes it",
            "clients can resume from it",
            "the feed answers flow control",
        ]
        assert {finding.state for finding in found} == {State.OK}
        assert asyncio.run(_streams_and_consumers(server.url)) == (1, 0)


def test_stream_that_differs(store: Path) -> None:
    """It is told how; the server runs all the same."""
    with NatsServer(store) as server:
        asyncio.run(_stream(server.url, max_msgs=7))
        environ = {"NATS_URL": server.url}
        assert problems(environ) == []
        assert told(State.NOTE, environ, offline=False) == [
            (
                "nats",
                "stream ODIN_TOKENS differs from the settings and stays as it is: max_msgs is 7, not 1000000",
            )
        ]


def test_nats_without_jetstream(store: Path) -> None:
    """Core NATS will do, but nobody can resume."""
    with NatsServer(store, jetstream=False) as server:
        environ = {"NATS_URL": server.url}
        assert problems(environ) == []
        assert told(State.NOTE, environ, offline=False) == [
            ("nats", "no JetStream for us: core NATS, and nobody can resume")
        ]


def test_wrong_token(store: Path) -> None:
    """It is told, without the token."""
    with NatsServer(store, config='authorization { token: "right" }') as server:
        assert problems({"NATS_URL": server.url, "NATS_TOKEN": "right"}) == []
        assert problems({"NATS_URL": server.url, "NATS_TOKEN": "wrong"}) == [
            (
                "nats",
                f"{server.url} refuses our credentials; "
                "correct NATS_TOKEN, NATS_CREDS_FILE, NATS_NKEY_FILE or the URL",
            )
        ]


def test_credentials_that_can_not_be_used(store: Path, tmp_path: Path) -> None:
    """A file that is not there, and one that is none of its kind."""
    path = tmp_path / "seed.nk"
    with NatsServer(store) as server:
        environ = {"NATS_URL": server.url, "NATS_NKEY_FILE": str(path)}
        assert problems(environ) == [("nats", f"NATS_NKEY_FILE='{path}' can't be read{ADVICE}")]
        path.write_text("no seed")
        [(_, text)] = problems(environ)
        assert text.startswith("our credentials can't be used: nkeys: ")


def test_one_server_of_two_is_down(store: Path) -> None:
    """Each is looked at by itself."""
    with NatsServer(store) as down:
        pass
    with NatsServer(store.with_name("other")) as up:
        [(_, text)] = problems({"NATS_URL": f"{down.url},{up.url}"})
        assert text.startswith(f"{down.url} can't be used: ")
        assert text.endswith("; correct NATS_URL, or start it")


def restricted(
    store: Path, publish: list[str], subscribe: list[str], *, jetstream: bool = True
) -> NatsServer:
    """A server on which the user `odinws` may do just this, and `root` everything."""
    permissions = json.dumps({"publish": publish, "subscribe": subscribe})
    users = f"{{user: odinws, password: x, permissions: {permissions}}}, {{user: root, password: x}}"
    return NatsServer(store, jetstream=jetstream, config=f"authorization {{ users = [ {users} ] }}")


def urls(server: NatsServer) -> tuple[str, dict[str, str]]:
    """The address for root, and the environment of the user."""
    return f"nats://root:x@127.0.0.1:{server.port}", {"NATS_URL": f"nats://odinws:x@127.0.0.1:{server.port}"}


NEEDED = [
    "$JS.API.STREAM.INFO.ODIN_TOKENS",
    "$JS.API.CONSUMER.CREATE.ODIN_TOKENS",
    "$JS.API.CONSUMER.DELETE.ODIN_TOKENS.>",
    "$JS.API.DIRECT.GET.ODIN_TOKENS",
    "$JS.API.DIRECT.GET.ODIN_TOKENS.>",
    "$JS.FC.ODIN_TOKENS.>",
]


def test_permissions_that_suffice(store: Path) -> None:
    """What the feed does and nothing more; the stream is there already."""
    with restricted(store, NEEDED, ["_INBOX.>"]) as server:
        root, environ = urls(server)
        asyncio.run(_stream(root))
        assert problems(environ) == []


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("API.STREAM.INFO", 'permissions violation for publish to "$JS.API.STREAM.INFO.ODIN_TOKENS"'),
        ("API.CONSUMER.CREATE", "not so: the feed consumes it: permissions violation for publish to"),
        ("FC", "not so: the feed answers flow control: permissions violation for publish to"),
        ("API.DIRECT.GET", "not so: clients can resume from it: permissions violation for publish to"),
    ],
)
def test_permission_that_is_missing(store: Path, missing: str, text: str) -> None:
    """NATS's own words say which subject it is about."""
    publish = [subject for subject in NEEDED if f"$JS.{missing}." not in f"{subject}."]
    with restricted(store, publish, ["_INBOX.>"]) as server:
        root, environ = urls(server)
        asyncio.run(_stream(root))
        [(about, found)] = problems(environ)
        assert about == "nats"
        assert found.startswith(text)
        assert f"$JS.{missing}." in found
        assert found.endswith(PERMIT)


def test_stream_that_may_not_be_created(store: Path) -> None:
    """It is not there, and we may not make it."""
    with restricted(store, NEEDED, ["_INBOX.>"]) as server:
        _, environ = urls(server)
        [(_, text)] = problems(environ)
    assert text.startswith("the stream can't be created: permissions violation for publish to ")
    assert text.endswith("; create it, or permit it to our user")


def test_core_subjects_that_are_not_permitted(store: Path) -> None:
    """Without JetStream the feed subscribes to what it carries."""
    with restricted(store, ["nothing"], ["_INBOX.>"], jetstream=False) as server:
        _, environ = urls(server)
        [(_, text)] = problems(environ)
    assert text == f'permissions violation for subscription to "odin.>"{PERMIT}'


# -- channels ------------------------------------------------------------------------------------


def test_the_file_of_channels(tmp_path: Path) -> None:
    """A line for each mistake, and for what may be one; a file that is not there is a mistake."""
    file = tmp_path / "channels.toml"
    file.write_text(
        '[[channels]]\npattern = "a..b"\n[[channels]]\npattern = "c"\nkeep = "x"\n'
        '[[channels]]\npattern = "d"\n'
    )
    found = problems({"WS_CHANNELS_FILE": str(file)})
    assert [about for about, _ in found] == ["channels", "channels"]
    assert found[1][1] == f"{file}: 'c' (number 2): keep is 'x': expected one of all, newest, none"
    file.write_text('[[channels]]\npattern = "a.b"\n[[channels]]\npattern = "a.*"\n')
    environ = {"WS_CHANNELS_FILE": str(file), "WS_SUBJECTS": "a.b"}
    assert told(State.NOTE, environ) == [
        ("channels", f"{file}: of a.* some channels are decided on before it: by a.b")
    ]
    assert ("channels", "carried from odin.a.b") in told(State.OK, environ)
    [(about, text)] = problems({"WS_CHANNELS_FILE": "nowhere.toml"})
    assert (about, text) == ("channels", "nowhere.toml: it can't be read: No such file or directory")


def lines(name: str, token_text: str | None = None, **environ: str) -> list[str]:
    """What is said of a channel."""
    return [str(finding) for finding in channel(name, token_text, environ)]


def test_one_channel() -> None:
    """The rule, the subject, what is kept, and who may."""
    odin = {"WS_CHANNELS_FILE": str(ROOT / "conf" / "channels-odin.toml")}
    assert lines("BTC.trade", **odin) == [
        f"ok       rule      *.trade, number 1 of {odin['WS_CHANNELS_FILE']}: everybody",
        "ok       subject   odin.token.BTC.trade",
        "ok       kept      all; slow clients: disconnect; compressed",
        "ok       token     somebody without a token may: the rule says so",
    ]
    assert lines("user.*", **odin)[1] == "note     rule      *.trade decides on some of it: everybody"
    assert lines("nothing", **odin) == [
        "problem  rule      expected a channel of this server, or a wildcard within one of its patterns; "
        "at most 255 bytes and 8 tokens of A-Z a-z 0-9 _ -"
    ]
    assert lines("user.42", WS_WORKERS="0")[0].startswith("problem  settings  WS_WORKERS='0'")
    keys = {"WS_JWT_SECRET": SECRET}
    mine, listed = token(exp=time.time() + 60), token(exp=time.time() + 60, channels=["token.*"])
    assert lines("user.42", **keys)[-1] == "problem  token     a token is required"
    assert lines("user.42", mine, **keys)[-1] == "ok       token     the subject '42' may: the rule says so"
    assert lines("user.43", mine, **keys)[-1] == (
        "problem  token     the subject '42' may not: this channel needs a token that allows it"
    )
    assert lines("token.A", listed, **keys)[-1] == (
        "ok       token     the subject '42' may: the claim channels lists it"
    )
    assert lines("token.A", "x", **keys)[-1].startswith("problem  token     the token is")
    assert lines("token.A", mine)[-1] == (
        "problem  token     can't be checked without keys, and nobody is asked for one"
    )


def test_one_channel_by_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status says whether it can be subscribed to."""
    monkeypatch.setenv("WS_SUBJECTS", "token.*")
    assert cli.main(["check", "channel", "token.BTC"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "ok       subject   odin.token.BTC"
    assert cli.main(["check", "channel", "global"]) == 1
    assert capsys.readouterr().out.rstrip().endswith("may not: this server does not carry this channel")
