"""`python -m tests.packaging.audit`: whether anything that is pinned has a known vulnerability.

Asks the sources of pip-audit one after the other. The first that knows all pins decides. Where none can be
reached the pins are not audited: that is said so that nobody overlooks it, and is no failure.

pip-audit has an environment of its own, build/audit: its dozens of packages are nobody else's business.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "conf/requirements-audit.txt"
# Not Autobahn's: its packages are of the time of Python 2.7, and talk to nobody but a server of the tests.
PINS = (
    ROOT / "requirements.txt",
    ROOT / "conf/requirements-runtime.txt",
    ROOT / "bench/requirements.txt",
    TOOL,
)
SOURCES = (("-s", "osv"), ("-s", "pypi"))
_ASK_SECONDS = 600.0
_SOCKET_SECONDS = "15"
_FRAME = "!" * 88


def main() -> int:
    """0: nothing is known, or nobody could be asked; 1: something is."""
    program = installed()
    found = audit(program, PINS, SOURCES)
    if found is None:
        say(_FRAME, "The pins are NOT audited: no source of known vulnerabilities can be reached.", _FRAME)
        return 0
    say(*found, f"{len(found)} known vulnerabilities in the pins")
    return 1 if found else 0


def say(*lines: str) -> None:
    """Write lines to stdout."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def installed() -> Path:
    """pip-audit, installed by its pins unless it is there. Raises CalledProcessError."""
    place = ROOT / "build/audit"
    done = place / "pins.txt"
    if not done.exists() or done.read_bytes() != TOOL.read_bytes():
        venv.create(place, clear=True, with_pip=True)
        pip = (str(place / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet")
        subprocess.run((*pip, "install", "--require-hashes", "-r", str(TOOL)), check=True)
        done.write_bytes(TOOL.read_bytes())
    return place / "bin/pip-audit"


def audit(program: Path, pins: Sequence[Path], sources: Sequence[Sequence[str]]) -> list[str] | None:
    """A line for each package with a known vulnerability; None: no source knows all pins.

    Args:
        program: pip-audit.
        pins: requirement files with hashes.
        sources: options of pip-audit that choose a source each.
    """
    files = [option for path in pins for option in ("-r", str(path))]
    asked = ("--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off")
    for source in sources:
        command = [str(program), *asked, "--timeout", _SOCKET_SECONDS, *source, *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS)
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except ValueError:
            lines = done.stderr.strip().splitlines() or ["no answer"]
            say(f"{' '.join(source)}: {lines[-1][:300]}")
            continue
        # A package that a source does not know is skipped, and pip-audit calls that success.
        if skipped := [package["skip_reason"] for package in packages if "skip_reason" in package]:
            say(f"{' '.join(source)}: {len(skipped)} skipped, {skipped[0][:200]}")
            continue
        return [
            f"{package['name']} {package['version']}: {', '.join(known['id'] for known in package['vulns'])}"
            for package in packages
            if package["vulns"]
        ]
    return None


if __name__ == "__main__":
    sys.exit(main())
