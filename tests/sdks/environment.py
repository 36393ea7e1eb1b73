"""Where the official clients run: their packages, pinned, in environments of their own below `build`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.environments import made, step
from tests.programs import find
from tests.server import ROOT

CACHE = ROOT / "build" / "sdks"
AGENTS = Path(__file__).with_name("agents")
_PACKAGES = [Path(__file__).with_name(name) for name in ("package.json", "package-lock.json")]
REQUIREMENTS = ROOT / "conf/requirements-sdks.txt"


def node() -> Path:
    """A directory with the packages of npm and the agents that use them.

    Raises:
        EnvironmentMissingError: the packages can't be had.
    """
    npm = find("npm", "npm")
    sources = [*_PACKAGES, *sorted(AGENTS.glob("*.js"))]

    def make(place: Path) -> None:
        place.mkdir()
        for source in sources:
            (place / source.name).write_bytes(source.read_bytes())
        step(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", directory=place)

    return made(CACHE / "node", b"".join(source.read_bytes() for source in sources), make)


def python() -> Path:
    """An interpreter that has the packages of PyPI.

    Raises:
        EnvironmentMissingError: the packages can't be had.
    """

    def make(place: Path) -> None:
        step(sys.executable, "-m", "venv", str(place))
        pip = ("-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--require-hashes")
        step(str(place / "bin/python"), *pip, "--requirement", str(REQUIREMENTS))

    return made(CACHE / "python", REQUIREMENTS.read_bytes() + sys.version.encode(), make) / "bin/python"
