"""`python -m odinws experiment check | compare | show`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from odinws.cli import main
from odinws.experiment.record import FILE, writing
from tests.experiment.synthetic import plan, run

ROOT = Path(__file__).parents[2]
PLAN = """
name = "equal"
question = "Is a the same as b?"
rounds = {rounds}
[[arm]]
name = "a"
baseline = true
settings = {{ {settings} }}
[[arm]]
name = "b"
"""


def _plan(path: Path, rounds: int = 6, settings: str = "") -> str:
    path.write_text(PLAN.format(rounds=rounds, settings=settings))
    return str(path)


def _run(directory: Path, factor: float = 1.0, seed: int = 1, rounds: int = 6) -> str:
    with writing(directory) as write:
        for record in run(plan(rounds=rounds), seed, {"b": {"cpu_us_per_message": factor}}, noise=0.3):
            write(record)
    return str(directory)


def test_check_of_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What speaks against it; only an error gives another exit status."""
    assert main(["experiment", "check", _plan(tmp_path / "plan.toml", settings="WS_WORKERS = 2")]) == 0
    assert "nothing speaks against it" in capsys.readouterr().out
    assert main(["experiment", "check", _plan(tmp_path / "plan.toml")]) == 0
    assert "note: b is the same as a" in capsys.readouterr().out
    assert main(["experiment", "check", _plan(tmp_path / "plan.toml", rounds=3)]) == 1
    assert "error: 3 rounds can't show a difference" in capsys.readouterr().out


def test_a_plan_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever one is, those that come with odinws are found; a file of that name goes first."""
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", "check", "a-a"]) == 0
    assert "a-a: " in capsys.readouterr().err
    _plan(tmp_path / "a-a", rounds=3)
    assert main(["experiment", "check", "a-a"]) == 1


@pytest.mark.parametrize("verb", [["check"], ["run", "--out", "out"]])
def test_a_plan_that_is_none(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The plans there are, and what else may be given."""
    assert main(["experiment", *verb, "nope"]) == 2
    error = capsys.readouterr().err
    assert (
        "'nope' is neither a file nor a plan that comes with odinws: give one of a-a, compression, " in error
    )
    assert error.endswith("write-delay, or the path of a TOML file\n")
    assert error.count("\n") == 1


def test_a_plan_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An installed odinws prints what it has: names, or one plan that can be used as it is."""
    assert main(["experiment", "plan"]) == 0
    names = capsys.readouterr().out.split()
    assert set(names) == {path.stem for path in (ROOT / "conf/experiments").glob("*.toml")}
    assert main(["experiment", "plan", "strategies"]) == 0
    mine = tmp_path / "mine.toml"
    mine.write_text(capsys.readouterr().out)
    assert main(["experiment", "check", str(mine)]) == 0
    capsys.readouterr()
    assert main(["experiment", "plan", "nope"]) == 2
    assert "no plan 'nope' comes with odinws: expected one of a-a, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            "WS_WORKRES = 1",
            "arm[0].settings.WS_WORKRES = '1': no setting has this name, did you mean WS_WORKERS?",
        ),
        ("WS_WORKERS = 0", "arm[0].settings.WS_WORKERS = '0': expected a whole number from 1 to 128"),
        ("WS_WORKERS = ", "this is no TOML: "),
    ],
)
def test_wrong_plans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, expected: str
) -> None:
    """One line with file, field, value and what is allowed; exit status 2."""
    path = _plan(tmp_path / "plan.toml", settings=settings)
    assert main(["experiment", "check", path]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"odinws: {path}: {expected}")
    assert error.count("\n") == 1


def test_a_plan_in_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no TOML."""
    (tmp_path / "plan.toml").write_bytes(b"name = '\xff'")
    assert main(["experiment", "check", str(tmp_path / "plan.toml")]) == 2
    assert "it is not UTF-8" in capsys.readouterr().err


def test_check_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same verb for a directory."""
    assert main(["experiment", "check", _run(tmp_path / "run")]) == 0
    assert "nothing speaks against it" in capsys.readouterr().out


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (0.5, 0), (2.0, 1)])
def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, status: int) -> None:
    """It writes result and page anew, prints the answer, and ends with the status of the verdict."""
    directory = _run(tmp_path / "run", factor)
    assert main(["experiment", "compare", directory]) == status
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert printed.startswith(result["answer"])
    assert result["answer"] in (tmp_path / "run" / "report.html").read_text()
    assert main(["experiment", "compare", directory, "--json"]) == status
    assert json.loads(capsys.readouterr().out) == result


def test_compare_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has changed from the first to the second."""
    before, after = _run(tmp_path / "before", 1.0, 1, 12), _run(tmp_path / "after", 3.0, 2, 12)
    assert main(["experiment", "compare", before, after, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["baseline"] == "the run before"
    assert {row["baseline"] for row in result["measures"]} == {"a before", "b before"}
    assert not (tmp_path / "after" / "result.json").exists()


def test_compare_of_a_partial_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Marked in the answer and in result.json; exit status 3."""
    directory = _run(tmp_path / "run")
    path = tmp_path / "run" / FILE
    path.write_bytes(path.read_bytes()[:-40])
    assert main(["experiment", "compare", directory]) == 3
    assert capsys.readouterr().out.startswith("Partial, the run was cut off: ")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "partial"


@pytest.mark.parametrize("verb", ["check", "compare", "show"])
def test_broken_records(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """One line that names the line; exit status 3. Where there are none it says what makes them."""
    (tmp_path / "run").mkdir()
    assert main(["experiment", verb, str(tmp_path / "run")]) == 3
    assert "`experiment run --out" in capsys.readouterr().err
    (tmp_path / "run" / FILE).write_bytes(b"{}\n{}\n")
    assert main(["experiment", verb, str(tmp_path / "run")]) == 3
    assert f"{FILE}: line 1: " in capsys.readouterr().err


def test_a_directory_that_takes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that could not be written is named."""
    directory = _run(tmp_path / "run")
    (tmp_path / "run" / "result.json").mkdir()
    assert main(["experiment", "compare", directory]) == 3
    assert capsys.readouterr().err == f"odinws: {directory}/result.json: Is a directory\n"


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the run was."""
    assert main(["experiment", "show", _run(tmp_path / "run")]) == 0
    assert "made up, 8 cores" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["check", "nowhere"], ["compare"], ["show", __file__]])
def test_wrong_arguments(arguments: list[str]) -> None:
    """Exit status 2."""
    assert main(["experiment", *arguments]) == 2


@pytest.mark.parametrize("library", ["scipy", "plotly"])
def test_a_missing_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """A server's environment has no statistics: one line says what brings them."""
    directory = _run(tmp_path / "run")
    for name in [name for name in sys.modules if name.startswith(("odinws.experiment.", library))]:
        if not name.endswith((".commands", ".plan", ".record", ".measures", ".kinds")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["experiment", "compare", directory]) == 3
    assert capsys.readouterr().err == (
        f"odinws: {library} is not installed: pip install 'odinws[experiment]'\n"
    )


def test_the_command_line_is_quick_without_them() -> None:
    """`--help`, and whatever else a server's environment uses, imports none of these libraries."""
    code = (
        "import sys; from odinws.cli import main; main(['experiment', '--help'])\n"
        "print(sorted({'numpy', 'scipy', 'plotly', 'rich', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
