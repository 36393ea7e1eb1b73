"""Many histories: `python -m tests.losses --histories 5000 --first 0`.

Half of them on a nats-server that is killed now and then. Exit status: 0 if all held, 1 if one failed; it is
printed as JSON, to be put into `examples.json`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import structlog

from tests.losses.history import make
from tests.losses.run import run

_AT_ONCE = 500  # on one nats-server


def main() -> int:
    """Run them, and say what failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.losses", description=__doc__)
    parser.add_argument("--histories", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    failures = 0
    end = options.first + options.histories
    for index, first in enumerate(range(options.first, end, _AT_ONCE)):
        restarts = index % 2 == 1
        seeds = range(first, min(first + _AT_ONCE, end))
        histories = {seed: make(seed, durable=restarts) for seed in seeds}
        with tempfile.TemporaryDirectory() as directory:
            failed = run(histories, Path(directory), threads=options.threads, restarts=restarts)
        for seed, wrong in failed.items():
            lines = [f"seed {seed}:", *wrong[:5], json.dumps(asdict(histories[seed]))]
            sys.stdout.write("\n  ".join(lines) + "\n")
        failures += len(failed)
        sys.stdout.write(f"{seeds.stop - options.first:,} histories, {failures} failed\n")
        sys.stdout.flush()
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
