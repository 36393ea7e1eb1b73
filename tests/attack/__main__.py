"""Attack a server: `python -m tests.attack`, `--vector pings --vector since`, `--quick`, `--list`.

Exit status: 0 if all held, 1 if not, 2 if there can be no network namespaces and --loopback was not given.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from tests.attack import report
from tests.attack.judging import Trial, faults
from tests.attack.network import HELP, Network, NetworkError, network
from tests.attack.run import Scenes, run
from tests.attack.trial import LONG, SHORT
from tests.attack.vectors import VECTORS
from tests.server import ROOT

_WIDTH = 170  # tables are wide; a pipe has no width of its own


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack and tell; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__.partition("\n")[0])
    parser.add_argument("--vector", action="append", choices=list(VECTORS), help="may be repeated; all")
    parser.add_argument("--quick", action="store_true", help="the vectors and times of the test suite")
    parser.add_argument("--attempts", type=int, default=2, help="of what breaks something (%(default)s)")
    parser.add_argument("--list", action="store_true", help="say what there is, and attack nobody")
    parser.add_argument("--loopback", action="store_true", help="without namespaces: all clients are local")
    parser.add_argument("--before", type=Path, help="figures of an earlier run, to compare with")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build/attack", help="figures, picture (%(default)s)"
    )
    options = parser.parse_args(arguments)
    console = Console()
    console.width = max(console.width, _WIDTH)
    if options.list:
        console.print(report.vectors(VECTORS.values()))
        return 0
    names = options.vector or [name for name, vector in VECTORS.items() if vector.quick or not options.quick]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    before = msgspec.json.decode(options.before.read_bytes(), type=list[Trial]) if options.before else []
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            place = Network() if options.loopback else stack.enter_context(network())
        except NetworkError as error:
            console.print(HELP.format(why=error), style="bold red", highlight=False, markup=False)
            return 2
        if place.is_loopback:
            console.print(report.LOOPBACK, style="bold yellow", highlight=False)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scenes = stack.enter_context(Scenes(place, folder))
        times = SHORT if options.quick else LONG
        trials = run([VECTORS[name] for name in names], scenes, times, options.attempts, console)
    (options.out / "attack.json").write_bytes(msgspec.json.encode(trials))
    (options.out / "attack.md").write_text(report.markdown(trials, before))
    report.picture(options.out / "attack.png", trials, before)
    console.print(report.table(trials, before))
    console.print(f"figures and picture: {options.out}", highlight=False)
    return 1 if any(map(faults, trials)) else 0


if __name__ == "__main__":
    sys.exit(main())
