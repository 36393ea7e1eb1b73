"""The arms: names, what they need, what the machine forbids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import pytest

from bench.__main__ import _smoke, build
from bench.arms import ARMS, REFERENCE, choose
from bench.arms.base import FeedKind, Place
from bench.arms.odinws import before
from bench.build import ROOT, MissingError, call, compile_c, install, tool
from bench.scenarios import SCENARIOS
from bench.trial import Trial, impossible
from strategies import NAMES
from tests.programs import miss

PEERS = {
    *("c-loop", "c-batch", "uwebsockets", "node-ws", "gorilla"),
    *("nats-websocket", "websockets", "picows", "flask-socketio"),
    *("nchan", "mosquitto", "socketio"),
}


OVER_TLS = {"odinws-tls", "odinws-haproxy", "odinws-nginx"}
FORMATS = {"odinws-centrifugo", "odinws-protobuf", "odinws-sse", "odinws-mixed"}
ON_REQUEST = {*FORMATS, "odinws-blind", "odinws-conflate", "odinws-drop-oldest", "odinws-watched", *OVER_TLS}


def test_the_arms() -> None:
    """odinws is there with each strategy, beside every peer; ratios have their reference."""
    assert set(ARMS) == {f"odinws:{strategy}" for strategy in NAMES} | PEERS | ON_REQUEST
    assert REFERENCE in ARMS


def test_choosing() -> None:
    """Names, kinds and `all`, each arm once."""
    assert [arm.name for arm in choose("c-loop,odinws:fnv-sharded,c-loop")] == [
        "c-loop",
        "odinws:fnv-sharded",
    ]
    assert len(choose("odinws")) == len(NAMES)
    assert {arm.name for arm in choose("all")} == set(ARMS) - ON_REQUEST
    assert [arm.name for arm in choose("odinws-conflate")] == ["odinws-conflate"]
    with pytest.raises(click.BadParameter, match="node names no arm; there are odinws:"):
        choose("c-loop,node")


def test_odinws_is_started_as_documented(tmp_path: Path) -> None:
    """odinws gets its settings by the environment, and the load's room."""
    place = Place(tmp_path, 4000, 4001, SCENARIOS["peak"][0])
    server = ARMS["odinws:single-lock"].server(place)
    assert server.command[1:] == ("-m", "gunicorn", "-c", "python:odinws.gunicorn_conf")
    assert server.settings["WS_SHARD_STRATEGY"] == "single-lock"
    assert server.settings["WS_WORKERS"] == "4"
    assert int(server.settings["WS_MAX_CONNECTIONS"]) >= 64_000
    assert server.settings["NATS_URL"] == "nats://127.0.0.1:4001"
    assert "WS_SLOW_POLICY" not in server.settings
    patient = ARMS["odinws-drop-oldest"].server(place).settings
    assert patient["WS_SLOW_POLICY"] == "drop-oldest"
    assert float(patient["WS_OUTBOX_SECONDS"]) > 30, "a stalled client must last the window"


def test_another_checkout(tmp_path: Path) -> None:
    """Its server runs where it lies, as it always did, with the settings of ours."""
    place = Place(tmp_path, 4000, 4001, SCENARIOS["single"][0])
    with pytest.raises(click.BadParameter, match=r"is no checkout of odinws: it has no gunicorn\.conf\.py"):
        before(tmp_path)
    (tmp_path / "gunicorn.conf.py").touch()
    arm, ours = before(tmp_path), ARMS["odinws:sync-dict"].server(place)
    server = arm.server(place)
    assert arm.on_request
    assert server._directory == tmp_path
    assert server.command[1:] == ("-m", "gunicorn", "-c", "gunicorn.conf.py")
    expected = {**ours.settings, "PYTHONPATH": str(tmp_path)}
    del expected["WS_ADMIN_ADDR"]  # an odinws without an admin plane knows no such setting
    assert server.settings == expected
    assert ours._directory == ROOT


def test_open_files_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that open files forbid says which limit; one process or four makes the difference."""
    monkeypatch.setattr("bench.trial.open_files_limit", lambda: 20_000)
    peak = SCENARIOS["peak"][0]
    alone, many = ARMS["gorilla"], ARMS["odinws:sync-dict"]
    reason = impossible(alone, peak)
    assert reason is not None
    assert "20,000 open files" in reason
    assert impossible(many, peak) is None
    assert impossible(many, replace(peak, workers=1)) is not None
    result = Trial(alone, peak, 1, say=lambda _: None).run()
    assert (result["status"], result["reasons"]) == ("impossible", [reason])


def test_who_compresses() -> None:
    """An arm without permessage-deflate says so."""
    compressed = SCENARIOS["compressed"][1]
    able = {arm.name for arm in ARMS.values() if impossible(arm, compressed) is None}
    unable = {
        "c-loop",
        "c-batch",
        "picows",
        "flask-socketio",
        "nchan",
        "mosquitto",
        "odinws-sse",
        "odinws-mixed",
    }
    assert able == set(ARMS) - unable
    assert impossible(ARMS["c-loop"], compressed) == "no permessage-deflate"
    assert impossible(ARMS["c-loop"], SCENARIOS["compressed"][0]) is None


@pytest.mark.parametrize("name", ["peak", "beyond"])
def test_the_ends_fit_into_20_000_open_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With those who join, what is to be shown at the end fits into the usual hard limit."""
    monkeypatch.setattr("bench.trial.open_files_limit", lambda: 20_000)
    (scenario,) = SCENARIOS[name]
    assert scenario.joins > 0
    assert impossible(ARMS["odinws:sync-dict"], scenario) is None
    assert impossible(ARMS["odinws:sync-dict"], replace(scenario, workers=scenario.workers - 1)) is not None


def test_only_python_is_pip_only() -> None:
    """The smoke needs no compiler of other languages and no other registry."""
    names = {arm.name for arm in ARMS.values() if arm.pip_only}
    assert names == {name for name in ARMS if name.startswith("odinws")} - OVER_TLS | {
        *("nats-websocket", "websockets", "picows", "flask-socketio")
    }
    assert {ARMS[name].feed for name in names} == set(FeedKind) - {FeedKind.HTTP, FeedKind.MQTT}
    assert not any(ARMS[name].debian for name in names)


def test_channels_of_one_connection() -> None:
    """An arm that can't have as many says so."""
    assert impossible(ARMS["nchan"], SCENARIOS["wide"][0]) == "255 channels for one connection at most"
    assert impossible(ARMS["nchan"], SCENARIOS["single"][0]) is None


@pytest.mark.parametrize("name", sorted(name for name, arm in ARMS.items() if arm.debian))
@pytest.mark.timeout(120)
def test_what_debian_brings(name: str) -> None:
    """Where its packages are installed, an arm delivers; else it is said what is missing."""
    present, _, missing = build([ARMS[name]])
    if missing:
        assert any(word in missing[name] for word in ("Debian: ", "Node", "cc"))
        miss(missing[name])
    assert _smoke(present[0]) == []


def test_packages_that_are_there_are_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """apt-get is not called for them; for the others it is."""
    calls: list[Sequence[str]] = []
    monkeypatch.setattr("bench.build.call", lambda words, **_: calls.append(words))
    install(["dpkg"])
    assert calls == []
    install(["dpkg", "no-such-package"])
    assert [words[-1] for words in calls] == ["no-such-package"]


def test_a_missing_tool_is_named() -> None:
    """What is not there is said, with the way to get it."""
    with pytest.raises(MissingError, match=r"no-such-tool is not installed \(Debian: nothing\)"):
        tool("no-such-tool", "Debian: nothing")


def test_a_failed_build_quotes_its_error(tmp_path: Path) -> None:
    """The line that speaks of an error is the reason; the last one when none does."""
    with pytest.raises(MissingError, match="sh -c: an Error"):
        call(["sh", "-c", "echo an Error >&2; echo second >&2; exit 3"], tmp_path)
    with pytest.raises(MissingError, match="second"):
        call(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], tmp_path)


def test_compiling_again_only_when_sources_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program newer than its sources is used as it is; a source that does not compile is a reason."""
    monkeypatch.setattr("bench.build.BUILD", tmp_path / "build")
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    program = compile_c(tmp_path, "program")
    made = program.stat().st_mtime_ns
    assert compile_c(tmp_path, "program").stat().st_mtime_ns == made
    source.write_text("int main(void) { return }\n")
    with pytest.raises(MissingError, match="error: expected"):
        compile_c(tmp_path, "program")
