"""Each scenario, briefly, through Locust's own command line against a real server."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from odinws.swarm.tally import BOUNDS_MS, COUNTS, TIMES
from tests.ledger import Publisher
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, ROOT, Server, free_port, wait_for

FINE = (0, 3)  # 3: on a busy machine the swarm may be the limit, and says so
SABOTAGED = (sys.executable, "-m", "gunicorn", "-c", "tests/sabotage/gunicorn_conf.py")


class Run(NamedTuple):
    """What a swarm left.

    Attributes:
        delivered: what the server says that it delivered meanwhile.
    """

    status: int
    output: str
    head: dict[str, Any]
    seconds: list[dict[str, Any]]
    delivered: float

    @property
    def last(self) -> dict[str, Any]:
        """The last line of the record."""
        return self.seconds[-1]


def command(scenario: str, server: Server, *options: str) -> list[str]:
    """Locust's command line."""
    host = server.ws.removesuffix("/ws")
    return [sys.executable, "-m", "locust", "-f", f"locustfiles/{scenario}.py", "--host", host, *options]


def delivered(server: Server) -> float:
    """Data messages that the server has handed to connections; none here ends with a full outbox."""
    return server.metric("ws_messages_delivered_total")


def run(
    scenario: str,
    server: Server,
    folder: Path,
    *options: str,
    until: Callable[[dict[str, Any]], bool] | None = None,
) -> Run:
    """Let a swarm run to its end, or end it when a second of its record is as it should be."""
    before, record = delivered(server), folder / "record.jsonl"
    process = subprocess.Popen(
        command(scenario, server, "--headless", "--only-summary", "--odin-record", str(record), *options),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        if until is not None:
            wait_for(lambda: any(map(until, _seconds(record))), 40, "such a second")
            process.terminate()
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert record.exists(), output
    head = json.loads(record.read_text().splitlines()[0])
    return Run(process.returncode, output, head, _seconds(record), delivered(server) - before)


def _seconds(record: Path) -> list[dict[str, Any]]:
    """The whole lines so far, without the first."""
    lines = record.read_text().split("\n")[1:-1] if record.exists() else []
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the demo feed, in whose limits nobody here comes."""
    with Server({"LOG_LEVEL": "warning", "WS_HUB_LAG_THRESHOLD_MS": "60000"}) as server:
        yield server


def test_two_processes_count_what_the_server_counts(server: Server, tmp_path: Path) -> None:
    """All get in, leave, and come back; each message counts once, in the record and for Locust."""
    port = str(free_port())
    options = ["--users", "3", "--spawn-rate", "10", "--run-time", "4s", "--csv", str(tmp_path / "swarm")]
    options += ["--processes", "2", "--master-port", port, "--master-bind-port", port]
    options += ["--odin-connections", "100", "--odin-ramp", "200", "--odin-mode", "random"]
    options += ["--odin-churn", "10", "--odin-probes", "5"]
    found = run("fanout", server, tmp_path, *options)
    assert found.status in FINE, found.output
    last = found.last
    assert last["delivered"] == found.delivered > 0
    assert max(second["connected"] for second in found.seconds) == 100
    assert last["attempts"] > 120
    wrong = ("failed", "refused", "lost", "duplicated", "disordered", "gaps", "cut")
    assert {name: last[name] for name in wrong} == dict.fromkeys(wrong, 0)
    with (tmp_path / "swarm_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert int(rows["message"]["Request Count"]) == last["delivered"]
    for row, times in (("connect", "connect"), ("subscribe", "ack"), ("delivery", "delivery")):
        assert int(rows[row]["Request Count"]) == sum(last["histograms"][times]) > 0
    assert int(rows["Aggregated"]["Failure Count"]) == 0

    assert found.head == {"bounds_ms": list(BOUNDS_MS), "names": list(TIMES), "seed": 1}
    assert [second.get("final", False) for second in found.seconds] == [
        *[False] * (len(found.seconds) - 1),
        True,
    ]
    assert last["limited"] == bool(last["why"])
    for before, after in zip(found.seconds, found.seconds[1:], strict=False):
        assert after["t"] > before["t"]
        assert all(after[name] >= before[name] for name in COUNTS)


@pytest.mark.parametrize("spoken", ["centrifugo", "protobuf", "sse"])
def test_formats(server: Server, tmp_path: Path, spoken: str) -> None:
    """Clients of each format come, leave, are cut off and resume: nothing is missing."""
    options = ["--odin-connections", "30", "--odin-ramp", "0", "--odin-churn", "5", "--odin-probes", "5"]
    options += ["--odin-storm-every", "2", "--odin-format", spoken]
    found = run("storm", server, tmp_path, *options, until=lambda second: second["reconnects"] >= 30)
    assert found.status in FINE, found.output
    last = found.last
    assert last["delivered"] > 0
    assert last["reconnects"] >= 30
    wrong = ("failed", "refused", "lost", "duplicated", "disordered", "gaps")
    assert {name: last[name] for name in wrong} == dict.fromkeys(wrong, 0), last["errors"]
    assert bool(sum(last["histograms"]["delivery"])) is (spoken == "sse")


PLATFORM = [
    "BTC.trade",
    "ETH.trade",
    "SOL.trade",
    "ODIN.trade",
    "DOGE.trade",
]  # of its load tester


def test_the_platforms_clients(tmp_path: Path) -> None:
    """With its channels all connections are confirmed, and messages arrive."""
    settings = {"WS_CHANNELS_FILE": str(ROOT / "conf/channels-odin.toml"), "WS_DEMO_FEED": "false"}
    subjects = [f"token.{name}" for name in PLATFORM]
    with (
        NatsServer(tmp_path / "nats") as feed,
        Server({"NATS_URL": feed.url, "LOG_LEVEL": "warning", **settings}) as server,
        Publisher(feed.url, subjects, 25.0),
    ):
        options = ["--odin-connections", "300", "--odin-ramp", "100", "--odin-sustain", "3"]
        found = run("capacity", server, tmp_path, *options, "--odin-channels", ",".join(PLATFORM))
    assert found.status in FINE, found.output
    assert max(second["connected"] for second in found.seconds) == 300
    assert found.last["failed"] == found.last["lost"] == 0
    assert found.last["delivered"] > 300


def test_storm(server: Server, tmp_path: Path) -> None:
    """All are cut off and resume: nothing is missing, and each came back."""
    options = ["--odin-connections", "50", "--odin-ramp", "0", "--odin-storm-every", "4"]
    found = run("storm", server, tmp_path, *options, until=lambda second: second["reconnects"] >= 50)
    assert found.status in FINE, found.output
    assert found.last["cut"] == found.last["reconnects"] == 50
    assert sum(found.last["histograms"]["reconnect"]) == 50
    assert found.last["lost"] == found.last["duplicated"] == found.last["disordered"] == 0


def test_capacity_with_a_worker_of_its_own(tmp_path: Path) -> None:
    """A full server refuses, and the table says how many; the worker has its options from the master."""
    port = str(free_port())
    with Server({"WS_MAX_CONNECTIONS": "30", "LOG_LEVEL": "error"}) as server:
        worker = command("capacity", server, "--worker", "--master-port", port)
        with subprocess.Popen(
            worker, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            options = ["--master", "--master-bind-port", port, "--expect-workers", "1"]
            options += ["--odin-connections", "45", "--odin-ramp", "20", "--odin-sustain", "1"]
            found = run(
                "capacity", server, tmp_path, *options, "--odin-table", "1", "--odin-admin", server.admin
            )
            assert process.wait(PATIENCE_SECONDS) == 0
    assert found.status == 1, found.output
    last = found.last
    assert (last["attempts"], last["failed"], last["refused"]) == (45, 15, 15)
    assert last["errors"] == {"refused with 503 (capacity)": 15}
    assert sum(last["histograms"]["ack"]) == 30
    assert last["cut"] == 0
    assert last["delivered"] == found.delivered
    assert "Time    Attempts  Active  Failed  Success Rate  Server CPU" in found.output
    assert "  15 times: refused with 503 (capacity)" in found.output
    # A busy machine may have no whole second before the server is full, nor get its /health in time.
    assert re.search(r"^\d+s +\d+ +\d+ +\d+ +\d+\.\d% +(\d+\.\d%|\?)$", found.output, re.MULTILINE)
    assert re.search(r"^FINAL +45 +30 +15 +66\.7% +\d+\.\d% \(peak\)$", found.output, re.MULTILINE)
    assert re.search(r"^FINAL +7000 +4000 +3000 +57\.1% +100\.0% \(peak\)$", found.output, re.MULTILINE)


def test_what_a_server_loses_is_found(tmp_path: Path) -> None:
    """Of 173 messages due one is not sent, and nobody is told: the swarm counts, and fails."""
    faults = {"SABOTAGE_DROP_EVERY": "173", "WS_WORKERS": "1", "LOG_LEVEL": "warning"}
    with Server(faults, command=SABOTAGED) as server:
        options = ["--run-time", "10s", "--odin-connections", "50", "--odin-ramp", "0"]
        found = run("fanout", server, tmp_path, *options)
    assert found.status == 1, found.output
    assert found.last["delivered"] == found.delivered
    assert found.last["duplicated"] == found.last["disordered"] == found.last["gaps"] == 0
    dropped = found.delivered // 172
    # What was dropped before the first message of a channel, or behind its last, shows to nobody.
    assert dropped - 10 <= found.last["lost"] <= dropped + 1
    assert found.last["lost"] > 0


def test_slow_readers(tmp_path: Path) -> None:
    """A tenth reads too slowly for a fast feed: it is told of its gaps, and the others get everything."""
    settings = {
        "WS_SLOW_POLICY": "drop-oldest",
        "WS_OUTBOX_BYTES": "4096",
        "WS_SEND_BUFFER_BYTES": "4096",
        "LOG_LEVEL": "warning",
    }
    publish = [sys.executable, "-m", "odinws", "publish", "--rate", "600", "--spacing", "even", "--nats-url"]
    with (
        NatsServer(tmp_path) as nats,
        Server({"NATS_URL": nats.url, **settings}) as server,
        subprocess.Popen([*publish, nats.url], cwd=ROOT, stdout=subprocess.DEVNULL) as publisher,
    ):
        wait_for(lambda: server.json("/stats")["feed"]["received"] > 0, 10, "the feed")
        options = ["--run-time", "8s", "--odin-connections", "20", "--odin-ramp", "0"]
        found = run("slow", server, tmp_path, *options)
        publisher.send_signal(signal.SIGINT)
    assert found.status in FINE, found.output
    assert found.last["gaps"] > 0
    assert found.last["lost"] == found.last["duplicated"] == found.last["disordered"] == 0


def test_the_page(server: Server) -> None:
    """A run is started, watched and stopped on Locust's page; SIGTERM ends it."""
    port = free_port()
    options = ["--web-port", str(port), "--web-host", "127.0.0.1", "--odin-connections", "20"]
    page = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command("churn", server, *options), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: "odin_churn" in _get(page), 10, "the page")
            form = {"user_count": "1", "spawn_rate": "1", "host": server.ws, "odin_connections": "30"}
            assert json.loads(_get(f"{page}/swarm", form))["success"]
            rows = wait_for(lambda: _rows(page, "message"), 10, "messages")
            assert rows[0]["num_failures"] == 0
            wait_for(lambda: _rows(page, "connect")[0]["num_requests"] > 30, 10, "clients that came back")
            assert json.loads(_get(f"{page}/stop", {}))["success"]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) in FINE


def test_a_bad_option(server: Server) -> None:
    """A host that the swarm can't speak to is named, with what may be."""
    full = command("fanout", server, "--headless", "--host", "wss://127.0.0.1:1")
    done = subprocess.run(full, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 2
    assert "--host 'wss://127.0.0.1:1' must be ws://HOST:PORT" in done.stderr


def _get(url: str, form: dict[str, str] | None = None) -> str:
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    try:
        with urllib.request.urlopen(url, data=data, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return str(answer.read().decode())
    except OSError:
        return ""


def _rows(page: str, name: str) -> list[dict[str, Any]]:
    stats = json.loads(_get(f"{page}/stats/requests") or "{}").get("stats", [])
    return [row for row in stats if row["name"] == name]
