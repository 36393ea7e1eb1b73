"""Prove that official clients lose nothing: `python -m tests.sdks chaos`. Or run their own suites: `suites`.

Exit status: 0 if all holds, 1 if not, 2 if a suite can't be had.
"""

from __future__ import annotations

import argparse
import resource
import sys

from rich.console import Console

import strategies
from tests.resuming import chaos
from tests.sdks import suites
from tests.sdks.guests import KINDS, run


def main() -> int:
    """Run what was asked for, for each strategy; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.sdks", description=__doc__.partition("\n")[0])
    parser.add_argument("proof", choices=("chaos", "suites"))
    parser.add_argument("--clients", type=int, default=50, help="of each kind (%(default)s)")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="may be repeated; all")
    parser.add_argument("--crowd", type=int, default=1000, help="our own clients beside them (%(default)s)")
    parser.add_argument("--seconds", type=float, default=180.0, help="of harm (%(default)g)")
    parser.add_argument("--strategy", choices=("all", *strategies.NAMES), default="sync-dict")
    parser.add_argument(
        "--hosts", type=int, choices=(1, 2), default=2, help="2: on a cluster, behind haproxy (%(default)s)"
    )
    parser.add_argument("--stream", type=int, default=0, help="messages the stream keeps; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    console = Console(width=140)
    if options.proof == "suites":
        bad, missing = suites.run(list(suites.SUITES))
        for line in (*bad, *missing):
            console.print(line, style="bold red", markup=False, highlight=False)
        return 1 if bad else 2 if missing else 0
    broken = 0
    for strategy in strategies.NAMES if options.strategy == "all" else (options.strategy,):
        plan = chaos.Plan(
            clients=options.crowd,
            seconds=options.seconds,
            strategy=strategy,
            seed=options.seed,
            hosts=options.hosts,
            stream_messages=options.stream,
        )
        kinds = options.kind or list(KINDS)
        proof = run(plan, options.clients, kinds, lambda line: console.print(line, style="dim"))
        proof.show()
        broken += len(proof.broken)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
