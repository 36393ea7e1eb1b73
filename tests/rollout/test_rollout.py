"""The proofs at a small size, and what else only a real server shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from odinws.cli import cli
from odinws.rollout.watch import Pace
from tests.rollout import proofs
from tests.rollout.scene import VARIANT, Plan, flags_file
from tests.server import Server, wait_for
from tests.wire import Peer

SMALL = Plan(clients=120, rate=60.0, drain_seconds=0.3)


def test_steps() -> None:
    """From 0 to 25 to 100 % on four workers under load; then the file breaks and is mended."""
    assert proofs.steps(SMALL).broken == []


def test_sabotaged() -> None:
    """Two workers, one with a variant that burns CPU time: it is taken back, and the report says why."""
    plan = Plan(clients=160, workers=2, rate=100.0, drain_seconds=0.3)
    pace = Pace(settle_seconds=1.0, window_seconds=1.5, windows=3)
    assert proofs.sabotaged(plan, pace).broken == []


def test_where_the_choice_is_told(tmp_path: Path) -> None:
    """Statistics, metrics, welcome and log carry strategy, variant and reason; `status` reads the fleet."""
    path = flags_file(tmp_path, 50, variants={"new": "single-lock", "old": "sync-dict"}, defaultVariant="old")
    document = json.loads(path.read_text())
    document["flags"]["shard-strategy"]["targeting"] = {"fractional": [["new", 50], ["old", 50]]}
    path.write_text(json.dumps(document))
    environ = {"WS_FLAGS_FILE": str(path), "LOG_FORMAT": "json", "LOG_LEVEL": "debug"}
    with Server(environ).start() as server:
        wait_for(lambda: len(server.json("/stats")["workers"]) == 2, 10, "two workers")
        with Peer(server.port) as peer:
            welcome = peer.upgrade()
        told = {(welcome["strategy"], welcome["variant"], welcome["reason"])}
        choices = server.json("/stats")["strategy"]["choices"]
        all_of = {(choice["strategy"], choice["variant"], choice["reason"]) for choice in choices}
        assert all_of == {
            ("single-lock", "new", "targeting_match"),
            ("sync-dict", "old", "targeting_match"),
        }
        assert told < all_of
        metrics = server.ask("/metrics")[2].decode()
        for strategy, variant, reason in all_of:
            labels = f'strategy="{strategy}",strategy_reason="{reason}",variant="{variant}"'
            assert f"ws_messages_delivered_total{{{labels}}}" in metrics
            assert re.search(rf"^ws_worker_info{{.*{labels}", metrics, re.MULTILINE)
        [opened] = wait_for(lambda: _opened(server), 10, "the line of the connection")
        assert (opened["strategy"], opened["variant"], opened["strategy_reason"]) in told
        arguments = ["rollout", "status", "--file", str(path), "--url", server.admin]
        result = CliRunner().invoke(cli, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["shares"] == {"new": 50, "old": 50}
        CliRunner().invoke(cli, ["rollout", "set", "0", "--file", str(path)])
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 1
        assert "this is not what the file wants (yet)" in result.output


def _opened(server: Server) -> list[Any]:
    whole = server.log().split("\n")[:-1]
    lines = [json.loads(line) for line in whole if line.startswith("{")]
    return [line for line in lines if line["message"] == "connection opened"]


def test_a_start_with_a_broken_file(tmp_path: Path) -> None:
    """The server starts with the default variant, and says so in its log, in `/health` and in `/stats`."""
    path = flags_file(tmp_path, 100, state="ON")
    with Server({"WS_WORKERS": "1", "WS_FLAGS_FILE": str(path)}).start() as server:
        assert "'ON' is not one of" in server.log()
        assert any("'ON' is not one of" in text for text in server.json("/health")["warnings"])
        strategy = server.json("/stats")["strategy"]
        assert (strategy["name"], strategy["reason"]) == ("sync-dict", "error")
        flags_file(tmp_path, 100)
        wait_for(lambda: server.json("/stats")["strategy"]["name"] == VARIANT, 30, "the mended file")


def test_words_of_the_command(tmp_path: Path) -> None:
    """Each mistake is one line that names what is allowed, and the file stays as it is."""
    path = flags_file(tmp_path, 25)
    before = path.read_text()
    run = CliRunner().invoke
    for arguments, words in (
        (["set", "30", "--variant", "no"], "--variant no: expected one of fnv-sharded"),
        (["set", "30", "--variant", "sync-dict"], "expected one of fnv-sharded"),
        (["watch", "--steps", "50,25", "--url", "http://127.0.0.1:1"], "whole percents that rise"),
        (["watch", "--url", "http://127.0.0.1:1"], "http://127.0.0.1:1: no answer"),
        (["watch", "--url", "ws://127.0.0.1:1"], "expected a URL such as"),
        (["status", "--url", "http://127.0.0.1:1"], "no answer"),
    ):
        result = run(cli, ["rollout", *arguments, "--file", str(path)])
        assert result.exit_code != 0
        assert words in result.output
    assert path.read_text() == before
    result = run(cli, ["rollout", "check", str(path), "--workers", "4"])
    assert result.output == f"fnv-sharded 1, sync-dict 3 of 4 workers, by {path}\n"
    result = run(cli, ["rollout", "set", "75", "--file", str(path)])
    assert result.output == f"{path}: fnv-sharded 75 %, sync-dict 25 %\n"
    path.write_text("{")
    assert "not JSON" in run(cli, ["rollout", "set", "5", "--file", str(path)]).output
