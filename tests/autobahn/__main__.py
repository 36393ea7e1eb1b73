"""Run the Autobahn|Testsuite: `python -m tests.autobahn --all`, or `--sections "1-7,10,12.1.*"`.

Exit status: 0 if every case will do; 1 if not, and the cases are named; 2 if the suite could not be run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.autobahn import cases
from tests.autobahn.run import SuiteError, run
from tests.environments import EnvironmentMissingError

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__.partition("\n")[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true", help="every section")
    chosen.add_argument(
        "--sections", metavar="LIST", help='such as "1-7,10", or cases such as "9.1.*,12.1.3"'
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=ROOT / ".cache/autobahn",
        help="directory for the suite's report (%(default)s)",
    )
    parser.add_argument("--url", help="where a server echoes; without it one is started")
    parser.add_argument("--seconds", type=float, default=7200.0, help="that the suite may take (%(default)g)")
    options = parser.parse_args()
    try:
        patterns = cases.everything() if options.all else cases.patterns(options.sections)
    except ValueError as error:
        parser.error(str(error))
    try:
        verdict = run(patterns, options.report, options.seconds, options.url)
    except (EnvironmentMissingError, SuiteError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    bad, informational = verdict.bad, verdict.informational
    sys.stdout.write(f"{verdict.table()}\n")
    if informational:
        sys.stdout.write(f"informational: {', '.join(informational)}\n")
    sys.stdout.write("".join(f"not good enough: {line}\n" for line in bad))
    sys.stdout.write(f"report: {options.report / 'index.html'}\n")
    sys.stdout.write(f"{len(verdict.results)} cases, {len(bad)} not good enough\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
