"""The commands, and the whole way of one short run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.build import ROOT
from bench.scenarios import SCENARIOS, SMOKE
from tests.bench.results import TALLY

SHORT = replace(SMOKE, connections=20, window_seconds=0.5, warmup_seconds=0.1)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line, with `single` shortened to half a second."""
    monkeypatch.setitem(SCENARIOS, "single", (replace(SHORT, name="single"),))
    return CliRunner()


def test_list_names_everything(runner: CliRunner) -> None:
    """Arms and scenarios can be looked up."""
    text = runner.invoke(main, ["list"]).output
    assert all(word in text for word in ("odinws:fnv-sharded", "flask-socketio", "churn", "peak"))


@pytest.mark.parametrize(
    "words",
    [
        ["run", "nonsense"],
        ["run", "single", "--arms", "nonsense"],
        ["run", "single", "--arms", "c-loop", "--reference", "nonsense"],
    ],
)
def test_what_does_not_exist_is_refused(runner: CliRunner, words: list[str]) -> None:
    """A wrong name ends the command before anything runs, with the right ones."""
    result = runner.invoke(main, words)
    assert result.exit_code == 2
    assert "nonsense" in result.output
    assert "single" in result.output or "c-loop" in result.output


def test_a_run_from_build_to_picture(runner: CliRunner, tmp_path: Path) -> None:
    """A run leaves JSON with machine, seed, order, versions and results, a table and a picture."""
    out = tmp_path / "results" / "short"
    words = ["run", "single", "--arms", "c-loop,c-batch", "--rounds", "2", "--seed", "7"]
    words += ["--reference", "c-batch", "--out", str(out)]
    result = runner.invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(out.with_suffix(".json").read_text())
    assert (record["seed"], record["rounds"], len(record["order"])) == (7, 2, 4)
    assert record["machine"]["open_files_limit"] > 0
    assert set(record["versions"]) == {"c-loop", "c-batch"}
    assert [[each["scenario"], each["round"], each["arm"]] for each in record["results"]] == record["order"]
    for each in record["results"]:
        assert each["final"]["tail_missing"] == 0
        assert each["final"]["tally"] == TALLY, "all of it is 0"
        assert each["window"]["delivered"] > 0
    sound = Counter(each["arm"] for each in record["results"] if each["status"] == "ok")
    assert [row["arm"] for row in record["summary"]] == ["c-batch", "c-loop"]
    assert all(row["counted"] == sound[row["arm"]] for row in record["summary"]), "some may be void"
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "c-batch" in result.output

    again = runner.invoke(main, ["show", str(out.with_suffix(".json"))], catch_exceptions=False)
    assert "x c-batch" in again.output


def test_a_run_against_another_checkout(runner: CliRunner, tmp_path: Path) -> None:
    """Both servers run in turn, and the ratio is that to the other; here it is the same checkout."""
    out = tmp_path / "before"
    words = ["run", "single", "--before", str(ROOT), "--rounds", "1", "--out", str(out)]
    result = runner.invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["reference"] == "odinws-before"
    assert {each["arm"] for each in record["results"]} == {"odinws-before", "odinws:sync-dict"}
    for each in record["results"]:
        assert each["final"]["tally"] == TALLY, "all of it is 0"
        assert each["window"]["delivered"] > 0
    assert set(record["versions"]["odinws-before"]) > {"revision", "python", "gunicorn"}
    assert "x odinws-before" in result.output


def test_what_is_no_checkout_is_refused(runner: CliRunner, tmp_path: Path) -> None:
    """Before anything runs."""
    result = runner.invoke(main, ["run", "single", "--before", str(tmp_path)])
    assert result.exit_code == 2
    assert "is no checkout of odinws" in result.output


def test_the_smoke(runner: CliRunner) -> None:
    """odinws and every peer that needs only Python packages start and deliver without a fault."""
    arms = "odinws:sync-dict,nats-websocket,websockets,picows,flask-socketio"
    result = runner.invoke(main, ["smoke", "--arms", arms], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.output.count(": delivers") == 5
