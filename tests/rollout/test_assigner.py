"""`services.assigner` and `odinws.rollout.evaluation`: who wins, what stays, when a worker is outdated."""

from __future__ import annotations

from pathlib import Path

import pytest

from odinws.assignment import Assignment
from odinws.rollout import flags
from odinws.rollout.evaluation import FlagAssigner
from odinws.services import assigner
from odinws.settings import Settings
from tests.rollout.scene import flags_file


def settings(**environ: str) -> Settings:
    """Four workers."""
    return Settings.from_environ({"WS_WORKERS": "4", **environ})


def set_share(path: Path, percent: int) -> None:
    """Change it, as `rollout set` does."""
    flags.write(str(path), flags.with_share(flags.read(str(path)), "fnv-sharded", percent))


def test_nobody_chose() -> None:
    """Without a file and a setting."""
    assert assigner(settings(), 0).assignment == Assignment("sync-dict", "sync-dict", "default")


def test_the_setting_wins(tmp_path: Path) -> None:
    """WS_SHARD_STRATEGY stands above the flag, also when the file changes or is broken."""
    path = flags_file(tmp_path, 100)
    found = assigner(settings(WS_SHARD_STRATEGY="single-lock", WS_FLAGS_FILE=str(path)), 0)
    assert found.assignment == Assignment("single-lock", "single-lock", "explicit")
    path.write_text("{")
    assert (found.outdated(), found.problem) == ("", "")


def test_the_flag_chooses(tmp_path: Path) -> None:
    """One worker of four has a share of 25 %."""
    environ = settings(WS_FLAGS_FILE=str(flags_file(tmp_path, 25)))
    found = [assigner(environ, ordinal).assignment for ordinal in range(4)]
    assert sorted(assignment.strategy for assignment in found) == [
        "fnv-sharded",
        "sync-dict",
        "sync-dict",
        "sync-dict",
    ]
    assert {assignment.reason for assignment in found} == {"targeting_match"}
    assert found == [assigner(environ, ordinal).assignment for ordinal in range(4)]


def test_only_those_that_change_are_outdated(tmp_path: Path) -> None:
    """The same number as the share rises by; and none when it goes back before their turn."""
    path = flags_file(tmp_path, 25)
    workers = [FlagAssigner(str(path), "d", ordinal, 4, "h") for ordinal in range(4)]
    assert [worker.outdated() for worker in workers] == [""] * 4
    set_share(path, 75)
    why = [worker.outdated() for worker in workers]
    assert sorted(why) == [""] * 2 + ["flag says fnv-sharded, it has sync-dict"] * 2
    assert [worker.outdated() for worker in workers] == why, "a file that stays gives the same again"
    set_share(path, 25)
    assert [worker.outdated() for worker in workers] == [""] * 4


@pytest.mark.parametrize("text", ["{", '{"flags": {}}', None])
def test_a_file_that_breaks_replaces_nobody(tmp_path: Path, text: str | None) -> None:
    """The worker keeps what it has and says what is wrong, until the file is good again."""
    path = flags_file(tmp_path, 100)
    good = path.read_text()
    worker = FlagAssigner(str(path), "d", 0, 1, "h")
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    assert worker.outdated() == ""
    assert str(path) in worker.problem
    assert worker.assignment.strategy == "fnv-sharded"
    path.write_text(good + " ")
    assert (worker.outdated(), worker.problem) == ("", "")


def test_a_start_with_a_broken_file(tmp_path: Path) -> None:
    """The default variant runs, says why, and is replaced when the mended file says otherwise."""
    path = flags_file(tmp_path, 100, state="ON")
    worker = FlagAssigner(str(path), "d", 0, 1, "h")
    assert worker.assignment == Assignment("sync-dict", "sync-dict", "error")
    assert "'ON' is not one of" in worker.problem
    assert worker.outdated() == ""
    flags_file(tmp_path, 100)
    assert worker.outdated() == "flag says fnv-sharded, it has sync-dict"
