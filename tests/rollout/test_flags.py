"""`odinws.rollout.flags` and `evaluation`: files that are right, files that are not, and what then runs."""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odinws import resources
from odinws.assignment import Assignment
from odinws.cli import main
from odinws.rollout import flags
from odinws.rollout.evaluation import Evaluation
from odinws.rollout.flags import FlagsError
from tests.rollout.scene import flags_file
from tests.server import ROOT

Flag = dict[str, Any]


def put(path: Path, **changes: object) -> str:
    """A file whose flag differs from a good one."""
    return str(flags_file(path, 25, **changes))


def assignments(path: str, workers: int = 4) -> list[Assignment]:
    """What four workers run by a file."""
    return Evaluation("d", "h", workers).assign_all(path, flags.read(path))


def test_the_file_we_ship() -> None:
    """It is right, names every strategy that is its own variant, and changes nothing."""
    document = flags.read(str(ROOT / "conf" / "flags.json"))
    assert flags.shares(document) == {"sync-dict": 100}
    assert {assignment[:2] for assignment in assignments(str(ROOT / "conf" / "flags.json"))} == {
        ("sync-dict", "sync-dict")
    }
    assert flags.rollout(document) == ("fnv-sharded", 0)


BROKEN: dict[str, tuple[Callable[[Flag], object], str]] = {
    "state": (lambda flag: flag.pop("state"), "'state' is a required property"),
    "state's value": (lambda flag: flag.update(state="ON"), "'ON' is not one of"),
    "no variants": (lambda flag: flag.update(variants={}), "variants"),
    "variants of another type": (lambda flag: flag["variants"].update(x=1), "not of type 'string'"),
    "an unknown strategy": (
        lambda flag: flag["variants"].update(x="fast"),
        "variant x is 'fast', expected one",
    ),
    "no default": (lambda flag: flag.pop("defaultVariant"), "'defaultVariant' is a required property"),
    "an unknown default": (
        lambda flag: flag.update(defaultVariant="x"),
        "defaultVariant is 'x', expected one",
    ),
    "a negative weight": (
        lambda flag: flag.update(targeting={"fractional": [["sync-dict", -1]]}),
        "-1 is less than the minimum",
    ),
    "a weight that is text": (
        lambda flag: flag.update(targeting={"fractional": [["sync-dict", "50"]]}),
        "at $.flags['shard-strategy'].targeting.fractional",
    ),
    "a misspelt member": (lambda flag: flag.update(targetting={}), "'targetting' was unexpected"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_flag_is_one_line(tmp_path: Path, broken: str) -> None:
    """Each names the file, the place and what is wrong; the default variant runs if there is one."""
    change, text = BROKEN[broken]
    path = flags_file(tmp_path, 25)
    document = json.loads(path.read_text())
    change(document["flags"]["shard-strategy"])
    path.write_text(json.dumps(document))
    with pytest.raises(FlagsError) as caught:
        flags.read(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert flags.fallback(str(path)) == Assignment("sync-dict", "sync-dict", "error")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "No such file"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "expected a JSON object"),
        (b"{}", "'flags' is a required property"),
        (b'{"flags": {}}', "'shard-strategy' is a required property"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (1 << 20) + b"{}", "longer than"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: bytes | None, problem: str) -> None:
    """Whatever stands there, one line says why it can't be used, and `sync-dict` runs."""
    path = tmp_path / "flags.json"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(FlagsError, match=problem):
        flags.read(str(path))
    assert flags.fallback(str(path)) == Assignment("sync-dict", "sync-dict", "error")


def test_a_broken_flag_falls_back_to_its_own_default(tmp_path: Path) -> None:
    """The default variant is the file's, not ours, as long as that can be read."""
    path = put(tmp_path, defaultVariant="fnv-sharded", state="ON")
    assert flags.fallback(path) == Assignment("fnv-sharded", "fnv-sharded", "error")


@pytest.mark.parametrize(
    ("fails", "problem"),
    [
        ("1 / 0", "its constructor fails: ZeroDivisionError: division by zero"),
        ("__import__('os')._exit(0)", "importing or constructing it ends the process: exit status 0"),
    ],
)
def test_a_strategy_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, problem: str
) -> None:
    """A live flag that names one would end every worker that it replaces: it can't be used."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "brought_by_a_flag.py").write_text(
        "from strategies.sync_dict import SyncDict\n"
        f"class Fails(SyncDict):\n def __init__(self, **options): {fails}\n"
    )
    path = put(tmp_path, variants={"bad": "brought_by_a_flag:Fails"}, defaultVariant="bad", targeting={})
    with pytest.raises(FlagsError, match=problem):
        Evaluation("d", "h", 1).assign(path, flags.read(path), 0)
    assert flags.fallback(path) == Assignment("sync-dict", "sync-dict", "error")


@pytest.mark.parametrize(
    ("changes", "variant", "reason"),
    [
        ({"targeting": {}}, "sync-dict", "static"),
        ({"state": "DISABLED"}, "sync-dict", "disabled"),
        (
            {"targeting": {"if": [{"==": [{"var": "host"}, "h"]}, "fnv-sharded", "sync-dict"]}},
            "fnv-sharded",
            "",
        ),
        ({"targeting": {"if": [{"==": [{"var": "place"}, 9]}, "fnv-sharded", None]}}, "sync-dict", "default"),
        ({"targeting": {"fractional": [["fnv-sharded"]]}}, "fnv-sharded", ""),
    ],
)
def test_reasons(tmp_path: Path, changes: Flag, variant: str, reason: str) -> None:
    """What OpenFeature says, in small letters."""
    found = set(assignments(put(tmp_path, **changes)))
    assert found == {Assignment(variant, variant, reason or "targeting_match")}


@pytest.mark.parametrize("targeting", [{"fractionall": [["sync-dict", 1]]}, {"if": [True, "no-such", None]}])
def test_a_rule_that_gives_nothing(tmp_path: Path, targeting: Flag) -> None:
    """What only the evaluator can know is an error too."""
    with pytest.raises(FlagsError, match="flag shard-strategy"):
        assignments(put(tmp_path, targeting=targeting))


def test_three_variants(tmp_path: Path) -> None:
    """Shares are exact at each boundary of a rule."""
    path = put(
        tmp_path,
        variants={name: name for name in ("sync-dict", "fnv-sharded", "single-lock")},
        targeting={"fractional": [["fnv-sharded", 25], ["single-lock", 50], ["sync-dict", 25]]},
    )
    names = sorted(assignment.strategy for assignment in assignments(path))
    assert names == ["fnv-sharded", "single-lock", "single-lock", "sync-dict"]
    assert flags.shares(flags.read(path)) == {"fnv-sharded": 25, "single-lock": 50, "sync-dict": 25}


def test_shares_of_other_rules(tmp_path: Path) -> None:
    """A rule that is no plain share says so."""
    rule = {"if": [True, "sync-dict", None]}
    assert flags.shares(flags.read(put(tmp_path, targeting=rule))) is None
    assert flags.rollout(flags.read(put(tmp_path, targeting=rule))) is None


def test_a_share_is_set_and_read(tmp_path: Path) -> None:
    """What was set is what is read; other members of the file stay."""
    path = put(tmp_path, metadata={"owner": "prices"})
    document = flags.read(path)
    before = copy.deepcopy(document)
    flags.write(path, flags.with_share(document, "fnv-sharded", 40))
    assert document == before
    assert flags.rollout(flags.read(path)) == ("fnv-sharded", 40)
    assert flags.read(path)["flags"]["shard-strategy"]["metadata"] == {"owner": "prices"}
    assert [name.name for name in tmp_path.iterdir()] == ["flags.json"]


def test_a_reader_never_sees_half(tmp_path: Path) -> None:
    """While the file is written again and again it is right at each moment, and keeps its mode."""
    path = put(tmp_path)
    Path(path).chmod(0o640)
    done = threading.Event()

    def write() -> None:
        for percent in range(20):
            flags.write(path, flags.with_share(flags.read(path), "fnv-sharded", percent))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        flags.read(path)
    thread.join()
    assert Path(path).stat().st_mode & 0o777 == 0o640


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What a link leads to is replaced, as where configuration is mounted."""
    put(tmp_path)
    link = tmp_path / "link.json"
    link.symlink_to("flags.json")
    flags.write(str(link), flags.with_share(flags.read(str(link)), "fnv-sharded", 50))
    assert link.is_symlink()
    assert flags.rollout(flags.read(str(tmp_path / "flags.json"))) == ("fnv-sharded", 50)


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    """One line, and the file is as it was."""
    document = flags.read(put(tmp_path))
    with pytest.raises(FlagsError, match="can't be written"):
        flags.write(str(tmp_path / "no" / "such" / "flags.json"), document)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Reading one would wait for a writer, for ever."""
    path = tmp_path / "flags"
    os.mkfifo(path)
    with pytest.raises(FlagsError, match="not a regular file"):
        flags.read(str(path))


@pytest.mark.parametrize("verb", [["status"], ["watch", "--variant", "x"], ["set", "5"]])
def test_without_a_file_of_flags(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Away from a checkout there is no default: one line says how to name it, and where to get one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WS_FLAGS_FILE", raising=False)
    assert main(["rollout", *verb]) == 2
    assert capsys.readouterr().err == (
        "odinws: conf/flags.json: no such file: name the one that the servers read with --file or "
        f"WS_FLAGS_FILE; {resources.find('conf/flags.json')} is one to copy\n"
    )
