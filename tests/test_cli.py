"""The command line, as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from odinws import cli
from tests.nats import NatsServer

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 60.0
SUMMARY = re.compile(
    r"published (\d+) messages in [\d.]+ s: ([\d.]+)/s of ([\d.]+)/s, "
    r"longest lateness [\d.]+ ms, reconnects 0(.*)\n"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats", jetstream=False) as server:
        yield server


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "odinws", *arguments]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=WAIT_SECONDS,
        check=False,
    )


def test_count(server: NatsServer) -> None:
    """It publishes as many messages as asked for, and says what it achieved."""
    ended = run("publish", "--nats-url", server.url, "--rate", "500", "--tokens", "A,B", "--count", "51")
    assert ended.returncode == 0, ended.stderr
    assert (summary := SUMMARY.fullmatch(ended.stdout))
    assert summary.group(1, 3, 4) == ("51", "500", "")
    assert 0 < float(summary[2]) <= 500


def test_duration_and_url_from_the_environment(server: NatsServer) -> None:
    """It ends after the duration; the server may come from NATS_URL."""
    ended = run(
        "publish",
        "--duration",
        "0.4",
        "--rate",
        "100",
        "--spacing",
        "even",
        "--statistics",
        "0.15",
        NATS_URL=server.url,
    )
    assert ended.returncode == 0, ended.stderr
    assert (summary := SUMMARY.fullmatch(ended.stdout))
    assert summary[1] == "42"


def test_what_is_on_the_wire(server: NatsServer) -> None:
    """Subject and payload are those of the feed, under the prefix."""

    async def receive() -> tuple[str, dict[str, object]]:
        connection = await nats.connect(server.url)
        subscription = await connection.subscribe("x.>")
        await connection.flush()
        await connection.flush()  # the first PING may overtake the subscription
        publisher = await asyncio.create_subprocess_exec(
            *command("publish", "--nats-url", server.url, "--count", "1", "--prefix", "x.", "--seed", "1"),
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
        )
        message = await subscription.next_msg(WAIT_SECONDS)
        assert await publisher.wait() == 0
        await connection.close()
        return message.subject, json.loads(message.data)

    subject, payload = asyncio.run(receive())
    assert subject == "x.token.BTC"
    assert payload["tokenId"] == "BTC"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ctrl_c(server: NatsServer, number: signal.Signals) -> None:
    """Ctrl-C ends it cleanly, with the same summary."""
    arguments = command("publish", "--nats-url", server.url, "--rate", "1000")
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        wait_until_connected(server)
        process.send_signal(number)
        output, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0
    assert errors == ""
    assert (summary := SUMMARY.fullmatch(output))
    assert int(summary[1]) > 0
    assert summary[4] == ""


def test_ctrl_c_while_there_is_no_server(server: NatsServer) -> None:
    """Without a server it waits, and Ctrl-C still ends it cleanly."""
    server.kill()
    with on_a_terminal("publish", "--nats-url", server.url) as (process, terminal):
        seen = read_until(terminal, b"waiting for NATS: ")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0
    assert b"0.0 s: 0 messages" in seen
    assert output.startswith(b"published 0 messages")
    assert b"NATS did not take any: [Errno 111]" in output


def test_progress_on_a_terminal(server: NatsServer) -> None:
    """On a terminal the progress is live, and only the summary stays."""
    with on_a_terminal("publish", "--nats-url", server.url, "--rate", "100") as (process, terminal):
        seen = read_until(terminal, b" messages, ")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=WAIT_SECONDS)
    assert b"\x1b[" in seen
    assert SUMMARY.fullmatch(output.decode())


def test_progress_in_a_log(
    server: NatsServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the progress is plain lines on stderr, now and then."""
    monkeypatch.setattr(cli, "_LINE_SECONDS", 0.1)
    assert cli.main(["publish", "--nats-url", server.url, "--rate", "100", "--duration", "0.55"]) == 0
    output, errors = capsys.readouterr()
    lines = errors.splitlines()
    assert 2 <= len(lines) <= 12  # five, on a machine that does nothing else
    for line in lines:
        assert re.fullmatch(r"[\d.]+ s: \d+ messages, [\d.]+/s", line)
    assert SUMMARY.fullmatch(output)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["publish", "--rate", "0"], "--rate is 0.0: must be a number above 0, at most 1,000,000,000"),
        (["publish", "--rate", "1e300"], "--rate is 1e+300: must be"),
        (["publish", "--duration", "nan"], "--duration is nan: must be"),
        (["publish", "--rate", "fast"], "--rate"),
        (["publish", "--count", "-1"], "--count is -1"),
        *(
            (
                ["publish", f"--tokens={text}"],
                f"--tokens is {text}: must be a whole number from 1 to 1000, or ",
            )
            for text in ("0", "-1", "1001", "1.5", "99999999999999999999")
        ),
        (["publish", "--tokens", ""], "--tokens is '': must be names"),
        (["publish", "--tokens", "A,A"], "none of them twice"),
        (["publish", "--spacing", "odd"], "'burst', 'even'"),
        (["publish", "--nats-url", "redis://x"], "--nats-url is '…': must be nats://host:port"),
        (["publish", "--prefix", "odin"], "--prefix is 'odin'"),
        (["publish", "--no-such-option"], "--no-such-option"),
        (["publish", "surplus"], "surplus"),
        (["no-such-verb"], "no-such-verb"),
    ],
)
def test_bad_options(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad option is one clear line on stderr, and exit code 2."""
    assert cli.main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("odinws: ")
    assert errors.count("\n") == 1
    assert told in errors


def test_bad_option_as_a_process() -> None:
    """The exit code of a bad option reaches the shell."""
    ended = run("publish", "--rate", "-1")
    assert ended.returncode == 2
    assert ended.stderr == "odinws: --rate is -1.0: must be a number above 0, at most 1,000,000,000\n"


_CLIENT_ALONE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {"click", "websockets", "odinws", "strategies"} | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from odinws.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("serve", "server"),
        ("check", "server"),
        ("publish --count 1", "server"),
        ("settings", "server"),
        ("metrics", "server"),
        ("keys", "server"),
        ("rollout status", "server"),
        ("lab cluster", "server"),
        ("lab redelivery", "server"),
        ("lab redelivery --out picture.png", "bench"),
        ("experiment run a-a --out out", "experiment"),
        ("experiment check a-a", "experiment"),
        ("experiment compare .", "experiment"),
        ("experiment show .", "experiment"),
    ],
)
def test_what_to_install(arguments: str, extra: str) -> None:
    """With the client library alone, each verb names the extra with all that it needs."""
    ended = subprocess.run(
        [sys.executable, "-c", _CLIENT_ALONE, *arguments.split()], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert re.fullmatch(rf"odinws: \w+ is not installed: pip install 'odinws\[{extra}\]'\n", ended.stderr)


@pytest.mark.parametrize(
    "arguments", ["strategies list", "strategies load hybrid", "experiment plan", "debug"]
)
def test_what_needs_nothing(arguments: str) -> None:
    """These work with the client library alone."""
    command = [sys.executable, "-c", _CLIENT_ALONE, *arguments.split()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(arguments: list[str]) -> None:
    """Without a verb, or when asked, it lists the verbs."""
    ended = run(*arguments)
    assert ended.returncode == 0
    assert "publish" in ended.stdout
    assert ended.stderr == ""


@contextlib.contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run with a terminal as stderr; give the process and the terminal's other end."""
    terminal, stderr = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT, env=environment
    ) as process:
        os.close(stderr)
        try:
            yield process, terminal
        finally:
            process.kill()
            os.close(terminal)


def read_until(terminal: int, wanted: bytes) -> bytes:
    """Return what the terminal shows up to and with `wanted`. pytest's timeout bounds it."""
    seen = b""
    while wanted not in seen:
        seen += os.read(terminal, 4096)
    return seen


def wait_until_connected(server: NatsServer) -> None:
    """Return once a message has gone through the server."""

    async def wait() -> None:
        connection = await nats.connect(server.url)
        await (await connection.subscribe("odin.>")).next_msg(WAIT_SECONDS)
        await connection.close()

    asyncio.run(wait())


@pytest.mark.parametrize("verb", ["settings", "metrics", "close-codes", "check --offline"])
@pytest.mark.parametrize("where", ["full", "closed pipe"])
def test_output_that_can_not_be_written(verb: str, where: str) -> None:
    """One line about a full disk; none about a reader that has left."""
    if where == "full":
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, out = os.pipe()
        os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "odinws", *verb.split()],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(out)
    assert done.returncode == 1
    told = "odinws: the output can't be written: No space left on device\n"
    assert done.stderr == (told if where == "full" else "")
