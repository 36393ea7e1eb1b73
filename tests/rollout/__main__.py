"""`python -m tests.rollout [--clients N] [steps|sabotaged|harmless ...]`: the proofs at full size."""

from __future__ import annotations

import argparse
import sys

from odinws.rollout.watch import Pace
from tests.rollout import proofs
from tests.rollout.scene import Plan


def main() -> int:
    """0 if all holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.rollout", description=__doc__)
    parser.add_argument("proofs", nargs="*", metavar="steps|sabotaged|harmless", help="all unless given")
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=100.0, help="messages per second")
    options = parser.parse_args()
    plan = Plan(clients=options.clients, rate=options.rate)
    known = {
        "steps": lambda: proofs.steps(plan, (25, 50, 100)),
        "sabotaged": lambda: proofs.sabotaged(plan, Pace(), tell),
        "harmless": lambda: proofs.harmless(plan, Pace(), tell),
    }
    names = options.proofs or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no proof {unknown[0]}, there are {', '.join(known)}")
    broken = 0
    for name in names:
        proof = known[name]()
        proof.show()
        broken += len(proof.broken)
    return 1 if broken else 0


def tell(line: str, _: str) -> None:
    """Show how far it is."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
