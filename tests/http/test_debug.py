"""`/debug` of a real server with injected faults: each view names the fault that belongs to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from odinws.cli import cli
from odinws.debug.profile import SPEEDSCOPE_SCHEMA
from tests.browser import Browser
from tests.sabotage.test_sabotage import COMMAND
from tests.server import Server, wait_for
from tests.wire import Peer

TOKEN = "a token of at least thirty-two bytes"  # noqa: S105 - of this test
BOXES = "[...document.querySelectorAll('#graph button')]"
FAULTS = {
    "SABOTAGE_PASS_MS": "100",
    "SABOTAGE_LOCK_MS": "100",  # longer than a busy machine keeps a worker from its core
    "SABOTAGE_LEAK_BYTES": "100000",
    "WS_SHARD_STRATEGY": "fnv-sharded",
    "WS_NUM_SHARDS": "4",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Two workers: slow passes, a lock that is held, a leak per connection."""
    with Server(FAULTS, command=COMMAND) as server:
        yield server


def results(server: Server, path: str) -> list[Any]:
    """What the workers answer; both do."""
    body = server.json(f"/debug/{path}")
    assert "workers" in body, body
    workers = body["workers"]
    assert sorted(worker["pid"] for worker in workers) == sorted(server.workers())
    assert not [worker for worker in workers if "error" in worker], (workers, server.log()[-3000:])
    return [worker["result"] for worker in workers]


def latest(server: Server) -> str:
    """The words of the latest event."""
    return str(server.json("/debug/events")["events"][0]["text"])


@contextlib.contextmanager
def comings_and_goings(server: Server) -> Iterator[None]:
    """Clients that connect and leave, one after another."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.02):
            with Peer(server.port) as peer:
                peer.upgrade()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_profile_names_the_slow_function(server: Server) -> None:
    """In every worker, as a file for speedscope, with the greenlet that it ran in."""
    body = server.json("/debug/profile?seconds=2")
    assert body["$schema"] == SPEEDSCOPE_SCHEMA
    assert {profile["name"] for profile in body["profiles"]} == {f"worker {pid}" for pid in server.workers()}
    frames = body["shared"]["frames"]
    seconds: dict[str, float] = {}
    for profile in body["profiles"]:
        assert (profile["type"], profile["unit"]) == ("sampled", "seconds")
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] == pytest.approx(sum(profile["weights"]))
        assert all(0 <= index < len(frames) for stack in profile["samples"] for index in stack)
        for stack, weight in zip(profile["samples"], profile["weights"], strict=True):
            names = [frames[index]["name"] for index in stack]
            if names[-1] == "burn_in_pass":
                assert names[:2] == ["greenlet Hub.run", "Hub.run"]
            seconds[names[-1]] = seconds.get(names[-1], 0.0) + weight
    assert max(seconds, key=lambda name: seconds[name]) == "burn_in_pass"


def test_one_at_a_time(server: Server) -> None:
    """While a profile is taken no other look of its price is: 409, with when to come again."""
    profile = threading.Thread(target=server.ask, args=("/debug/profile?seconds=4",))
    profile.start()

    wait_for(lambda: "profile of all workers for 4 s" in latest(server), 5, "a profile under way")
    status, headers, raw = server.ask("/debug/heap?seconds=1")
    body = json.loads(raw)
    assert status == 409
    profile.join()
    assert body["error"] == "busy"
    assert "a profile is under way, one at a time: try again in" in body["message"]
    assert int(headers["Retry-After"]) >= 1


def test_a_heap_difference_names_the_leak(server: Server) -> None:
    """In the worker that takes the clients, first of what grew."""
    with comings_and_goings(server):
        seen = results(server, "heap?seconds=2")
    grown = [place["place"] for result in seen for place in result["grown"][:1] if place["bytes"] >= 100_000]
    assert grown
    assert all(place.endswith(" leak_in_open") for place in grown)
    assert all(result["cost"]["tracer_bytes"] > 0 for result in seen)


def test_the_locks_name_the_shard_that_is_held(server: Server) -> None:
    """By far the longest held is shard 0, by the function that holds it."""
    for result in results(server, "locks?seconds=1"):
        longest = max(result["shards"], key=lambda shard: shard["hold_seconds"])
        assert longest["shard"] == 0
        assert longest["longest_hold_seconds"] >= 0.1
        assert longest["longest_holder"].startswith("hold_lock:")
        assert len(longest["holds"]) == len(result["bounds_seconds"]) + 1
        held = dict(zip([*result["bounds_seconds"], None], longest["holds"], strict=True))
        assert sum(count for bound, count in held.items() if bound is None or bound > 0.01) >= 2


def test_greenlets_are_shown_where_they_wait(server: Server) -> None:
    """Also the one that was there before the worker froze its objects."""
    for result in results(server, "greenlets"):
        places = {place["place"].split()[-1]: place["count"] for place in result["places"]}
        assert places["hold_lock"] == places["Clients.clock"] == places["Sensor.run"] == 1
        assert result["greenlets"] == sum(stack["count"] for stack in result["stacks"])


def test_connections_are_sorted_over_all_workers(server: Server) -> None:
    """The client with most channels comes first, whichever worker it is at."""
    with contextlib.ExitStack() as stack:
        for count in (1, 3, 2):
            peer = stack.enter_context(Peer(server.port))
            peer.upgrade()
            peer.ask("subscribe", channels=[f"token.T{number}" for number in range(count)])
        seen = results(server, "connections?sort=channels&limit=2")
        assert sum(result["count"] for result in seen) == 3
        found = [conn for result in seen for conn in result["connections"]]
        first = max(found, key=lambda conn: conn["channel_count"])
        assert first["channels"] == ["token.T0", "token.T1", "token.T2"]
        assert (first["peer"], first["state"], first["outbox_bytes"]) == ("127.0.0.1", "open", 0)
        assert first["format"] == "json"
        assert first["rtt_seconds"] > 0
        assert first["age_seconds"] >= 0
        for result in seen:
            counts = [conn["channel_count"] for conn in result["connections"]]
            assert counts == sorted(counts, reverse=True)
        assert sum(shard["subscriptions"] for result in results(server, "shards") for shard in result) == 6


def test_slow_passes_have_their_story(server: Server) -> None:
    """The slowest first, each with what it served."""
    for result in results(server, "slow"):
        assert [one["seconds"] for one in result] == sorted((one["seconds"] for one in result), reverse=True)
        assert result[0]["seconds"] >= 0.05
        assert result[0]["messages"] >= 1
        assert any("token.BTC" in one["channels"] for one in result)


def test_the_collector_is_watched(server: Server) -> None:
    """Its runs and their pauses are counted and add up."""
    for result in results(server, "gc"):
        assert sum(result["runs"]) == sum(result["pauses"]) > 0
        assert result["frozen_objects"] > 10_000


def test_events_are_told(server: Server) -> None:
    """What happened since the start, here and in `/stats`."""
    results(server, "heap?seconds=1")  # is an event too

    def told() -> bool:
        kinds = {event["kind"] for event in server.json("/debug/events")["events"]}
        return {"worker_started", "feed_up", "debug"} <= kinds

    wait_for(told, 20, "the events")
    events = server.json("/debug/events")["events"]
    assert {event["worker"] for event in events if event["kind"] == "worker_started"} == set(server.workers())
    assert server.json("/stats")["events"][-1] in events


def test_wrong_questions(server: Server) -> None:
    """Errors name the bounds, and the workers that exist."""
    status, _, body = server.ask("/debug/profile?seconds=500")
    assert (status, json.loads(body)["message"]) == (
        400,
        "seconds is '500', it must be a number from 0.1 to 120",
    )
    status, _, body = server.ask("/debug/gc?worker=1")
    assert status == 404
    for pid in server.workers():
        assert str(pid) in json.loads(body)["message"]


def test_pages_open_in_a_browser(server: Server) -> None:
    """Without an error, and without anything from elsewhere; the flame graph zooms and finds."""
    with Browser() as browser:
        for path in ("/debug", *(f"/debug/{name}?format=html" for name in ("connections", "locks", "slow"))):
            with browser.page(server.admin + path) as page:
                assert int(page.evaluate("document.querySelectorAll('tbody tr').length")) >= 2
                assert page.errors == page.failures == []
        with browser.page(server.admin + "/debug/profile?seconds=1.5&format=html") as page:
            assert page.evaluate(f"{BOXES}[0].textContent") == "all workers"
            width = f"parseFloat({BOXES}.find((box) => box.textContent.includes('burn_in_pass')).style.width)"
            page.evaluate(f"{BOXES}.find((box) => box.textContent.includes('burn_in_pass')).click()")
            assert float(page.evaluate(width)) == 100.0
            page.evaluate("(search.value = 'burn_in', search.dispatchEvent(new Event('input')))")
            assert "of the CPU time is in what matches" in page.evaluate("said.textContent")
            assert page.errors == page.failures == []
            assert [url for url in page.requests if not url.startswith((server.admin, "data:"))] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profile", "--seconds", "1"], ["burn_in_pass", "self %"]),
        (["heap", "--seconds", "1"], ["what stays", "grown in the second half"]),
        (["greenlets"], ["hold_lock", "Clients.clock"]),
        (["locks"], ["hold_lock:", "longest holder"]),
        (["gc"], ["garbage collector", "latest"]),
        (["connections"], ["0 of 0 connections"]),
        (["shards"], ["subscriptions"]),
        (["slow"], ["the slowest passes", "token."]),
        (["slow", "--json"], ['"view":"slow"']),
        (["top", "--count", "1", "--every", "0.5"], ["delivered/s", "shards", "a heap of all workers"]),
    ],
    ids=lambda value: value[0],
)
def test_on_a_terminal(server: Server, arguments: list[str], words: list[str]) -> None:
    """Each view has its verb, which shows tables; the latest events are among what `top` shows."""
    runner = CliRunner(env={"COLUMNS": "200"})
    if arguments[0] == "top":
        results(server, "heap?seconds=1")
    done = runner.invoke(cli, ["debug", *arguments, "--url", server.admin])
    assert done.exit_code == 0, done.output
    for word in words:
        assert word in done.output


def test_files(server: Server, tmp_path: Path) -> None:
    """The end of a name says what is written."""
    for name, begin in (
        ("a.html", b"<!doctype html>"),
        ("a.txt", b""),  # in so short a time perhaps nothing was sampled
        ("a.speedscope.json", b'{"$schema"'),
        ("a.json", b'{"options"'),
    ):
        out = tmp_path / name
        arguments = ["profile", "--seconds", "0.1", "--out", str(out), "--url", server.admin]
        done = CliRunner().invoke(cli, ["debug", *arguments])
        assert done.exit_code == 0, done.output
        assert out.read_bytes().startswith(begin)
    done = CliRunner().invoke(cli, ["debug", "profile", "--out", str(tmp_path / "a.pprof")])
    assert done.exit_code == 2


def test_errors_on_a_terminal(server: Server) -> None:
    """One line that says what to do."""
    arguments = ["debug", "shards", "--url", server.admin, "--worker", "1"]
    assert "no worker 1 runs" in str(CliRunner().invoke(cli, arguments, standalone_mode=False).exception)
    nobody = CliRunner().invoke(cli, ["debug", "gc", "--url", "http://127.0.0.1:1"], standalone_mode=False)
    assert "is the server there?" in str(nobody.exception)
    public = CliRunner().invoke(cli, ["debug", "gc", "--url", server.http], standalone_mode=False)
    assert "is on the admin plane" in str(public.exception)


def test_the_token_of_a_terminal(tmp_path: Path) -> None:
    """From a file, or from the environment; never an option, which every user of the machine can read."""
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    with Server({"WS_ADMIN_TOKEN": TOKEN, "WS_WORKERS": "1"}) as server:
        arguments = ["debug", "shards", "--url", server.admin, "--json"]
        for options, environ in (
            ([], {"WS_ADMIN_TOKEN": TOKEN}),
            ([], {"WS_ADMIN_TOKEN_FILE": str(path)}),
            (["--token-file", str(path)], {}),
        ):
            done = CliRunner(env=environ).invoke(cli, [*arguments, *options])
            assert done.exit_code == 0, done.output
        refused = CliRunner().invoke(cli, arguments, standalone_mode=False)
        assert "give it with --token-file" in str(refused.exception)
        option = CliRunner().invoke(cli, ["rollout", "status", "--token", TOKEN])
        assert "No such option" in option.output or option.exit_code == 2


def test_a_worker_that_dies_costs_its_own_part() -> None:
    """The other one answers; the next view includes the successor; the error says what happened."""
    with Server() as server:
        victim, other = server.workers()
        answers: list[Any] = []

        def look() -> None:
            with contextlib.suppress(OSError):  # the one that dies is the one that was asked
                answers.append(server.json("/debug/profile?seconds=2&format=json"))

        looking = threading.Thread(target=look)
        looking.start()
        wait_for(lambda: "profile of all workers" in latest(server), 5, "a profile under way")
        os.kill(victim, signal.SIGKILL)
        looking.join()
        for answer in answers:
            found = {worker["pid"]: worker for worker in answer["workers"]}
            assert found[victim]["error"]
            assert found[other]["result"]["samples"] >= 0
        wait_for(lambda: len(_whole(server) - {victim}) == 2, 15, "an answer of two workers")
        assert other in _whole(server)
        events = server.json("/debug/events")["events"]
        assert [event["worker"] for event in events if event["kind"] == "worker_killed"] == [0]


def _whole(server: Server) -> set[int]:
    """The workers that answer a question."""
    return {worker["pid"] for worker in server.json("/debug/gc")["workers"] if "error" not in worker}
