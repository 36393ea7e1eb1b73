"""Show what protects the server: `python -m tests.protection ramp|kill|drain|reload|slowloris|overload`.

Exit status: 0 if every check holds, 1 if not.
"""

from __future__ import annotations

import argparse
import sys

from tests.protection import drain, kill, overload, ramp, reload, slowloris
from tests.protection.proof import Plan

PROOFS = {
    "ramp": ramp,
    "kill": kill,
    "drain": drain,
    "reload": reload,
    "slowloris": slowloris,
    "overload": overload,
}


def main() -> int:
    """Run one and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.protection", description=__doc__)
    parser.add_argument("proof", choices=PROOFS)
    parser.add_argument("--connections", type=int, metavar="N", help="clients, or attackers in slowloris")
    parser.add_argument("--seconds", type=float, metavar="S", help="of the burden, the drain or the attack")
    parser.add_argument("--seed", type=int, metavar="N", help="of what is drawn")
    options = parser.parse_args()
    chosen = PROOFS[options.proof]
    asked = {name: getattr(options, name) for name in Plan._fields if getattr(options, name) is not None}
    proof = chosen.run(chosen.FULL._replace(**asked))
    proof.show()
    return 1 if proof.broken else 0


if __name__ == "__main__":
    sys.exit(main())
