"""Prove recovery at full size: `python -m tests.resuming chaos` or `storm`. Exit status 0 if all holds."""

from __future__ import annotations

import argparse
import resource
import sys

from rich.console import Console

import strategies
from tests.resuming import chaos, storm


def main() -> int:
    """Run one proof, or chaos for each strategy."""
    parser = argparse.ArgumentParser(prog="python -m tests.resuming", description=__doc__)
    parser.add_argument("proof", choices=("chaos", "storm"))
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seconds", type=float, default=180.0, help="of chaos, %(default)g")
    parser.add_argument("--strategy", choices=("all", *strategies.NAMES), default="sync-dict")
    parser.add_argument(
        "--hosts", type=int, choices=(1, 2), default=1, help="2: on a cluster, behind haproxy"
    )
    parser.add_argument("--stream", type=int, default=0, help="messages the stream keeps; 0: all")
    parser.add_argument(
        "--last-value", action="store_true", help="the stream keeps only the newest message of each channel"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    console = Console(width=120)

    def tell(line: str) -> None:
        console.print(line, style="dim", highlight=False)

    if options.proof == "storm":
        proofs = [storm.run(storm.Plan(clients=options.clients or 10_000, seed=options.seed), tell)]
    else:
        arms = strategies.NAMES if options.strategy == "all" else (options.strategy,)
        proofs = [
            chaos.run(
                chaos.Plan(
                    clients=options.clients or 1000,
                    seconds=options.seconds,
                    strategy=arm,
                    seed=options.seed,
                    hosts=options.hosts,
                    stream_messages=options.stream,
                    last_value=options.last_value,
                ),
                tell,
            )
            for arm in arms
        ]
    for proof in proofs:
        proof.show()
    return int(any(proof.broken for proof in proofs))


if __name__ == "__main__":
    sys.exit(main())
