"""One run of the suite: against a server that is there, or one of its own."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.autobahn.cases import specification
from tests.autobahn.environment import wstest
from tests.autobahn.verdict import Verdict
from tests.server import Server

AGENT = "odinws"
LOG = "wstest.log"
# Section 9 sends messages of 16 MB. One worker, as the suite makes one connection at a time.
SETTINGS = {
    "WS_TEST_ECHO": "1",
    "WS_MAX_MESSAGE_BYTES": str(16 << 20),
    "WS_WORKERS": "1",
    "WS_DEMO_FEED": "false",
}
_CASES = "Cases = "  # what the suite writes before the list of them


class SuiteError(Exception):
    """The suite itself did not run to its end; says what it wrote."""


def run(cases: Sequence[str], report: Path, seconds: float, url: str | None = None) -> Verdict:
    """Run cases and judge them.

    Args:
        cases: patterns of the suite.
        report: directory for the suite's report, `index.html` in it, and its log.
        seconds: that the suite may take.
        url: where the server echoes; None: one is started for the run.

    Raises:
        EnvironmentMissingError: the suite can't be had.
        SuiteError: it did not run to its end.
    """
    program = wstest()
    if url is not None:
        return _run(program, cases, report, seconds, url)
    with Server(SETTINGS) as server:
        return _run(program, cases, report, seconds, f"ws://127.0.0.1:{server.port}/echo")


def _run(program: Path, cases: Sequence[str], report: Path, seconds: float, url: str) -> Verdict:
    report.mkdir(parents=True, exist_ok=True)
    index = report / "index.json"
    index.unlink(missing_ok=True)  # of a run before, which would be judged if this one ends early
    spec = report / "fuzzingclient.json"
    spec.write_text(json.dumps(specification(AGENT, url, cases, str(report.resolve())), indent=2))
    with (report / LOG).open("w") as log:
        try:
            done = subprocess.run(
                (str(program), "-m", "fuzzingclient", "-s", str(spec)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
            ended = f"ended with {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"did not end within {seconds:g} s"
    wrote = (report / LOG).read_text(errors="replace")
    if not index.exists():
        raise SuiteError(f"the suite {ended}:\n{wrote[-4000:]}")
    return Verdict.of(json.loads(index.read_text()).get(AGENT, {}), expected(wrote))


def expected(wrote: str) -> list[str]:
    """The cases that the suite said it would run.

    Raises:
        SuiteError: it said nothing of them.
    """
    for line in wrote.splitlines():
        if line.startswith(_CASES):
            return [str(case) for case in ast.literal_eval(line.removeprefix(_CASES))]
    raise SuiteError(f"the suite named no cases:\n{wrote[-4000:]}")
