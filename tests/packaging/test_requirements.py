"""What pyproject.toml asks for is what the requirement files pin."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import odinws
from tests.image.check import normal, read_pins

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = {
    "server": "conf/requirements-runtime.txt",
    "bench": "bench/requirements.txt",
    "dev": "requirements.txt",
    "audit": "conf/requirements-audit.txt",
}
UNGENERATED = tuple(f"conf/requirements-{name}.txt" for name in ("autobahn", "sdks", "virtualenv"))


def asked_for(extra: str) -> list[Requirement]:
    """What an extra asks for, with the extras that it names."""
    found = [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
    named = [name for requirement in found if requirement.name == "odinws" for name in requirement.extras]
    own = [requirement for requirement in found if requirement.name != "odinws"]
    return own + [requirement for name in named for requirement in asked_for(name)]


@pytest.mark.parametrize("extra", FILES)
def test_pins_are_within_their_ranges(extra: str) -> None:
    """`make lock` was run after the last change of pyproject.toml."""
    pins = read_pins(ROOT / FILES[extra])
    base = [Requirement(text) for text in PROJECT["dependencies"]]
    for requirement in base + asked_for(extra):
        assert requirement.specifier.contains(pins[normal(requirement.name)]), requirement


@pytest.mark.parametrize("path", [*FILES.values(), *UNGENERATED])
def test_every_pin_has_hashes(path: str) -> None:
    """And no file names an index: that is the machine's choice."""
    text = (ROOT / path).read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(blocks) == len(read_pins(ROOT / path))
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "index-url" not in text
    assert "://" not in text


def test_whatever_is_installed_is_checked_against_them() -> None:
    """Each place that installs from a requirement file wants hashes."""
    places = [ROOT / name for name in ("Makefile", "Dockerfile", ".ci/run", "tests/packaging/python")]
    places += (ROOT / "tests").rglob("*.py")
    found = 0
    for path in places:
        for command in re.findall(r"\binstall\b(?:.|\\\n)*?(?:-r|--requirement)\b", path.read_text()):
            found += 1
            assert "--require-hashes" in command, (path, command)
    assert found >= 4


@pytest.mark.parametrize("extra", ["server", "bench"])
def test_files_agree(extra: str) -> None:
    """What the image or a benchmark installs is what the tests ran with."""
    assert read_pins(ROOT / FILES[extra]).items() <= read_pins(ROOT / FILES["dev"]).items()


def test_every_dependency_has_its_reason() -> None:
    """Each line of a dependency in pyproject.toml says what it is for."""
    text = (ROOT / "pyproject.toml").read_text()
    dependencies = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line for line in dependencies.splitlines() if line.startswith('    "') and "odinws[" not in line]
    assert len(lines) > 40
    assert [line for line in lines if not re.search(r'", +# \w', line)] == []


def test_the_client_needs_no_server() -> None:
    """Its extra brings the WebSocket library and nothing else."""
    assert [requirement.name for requirement in asked_for("client")] == ["websockets"]
    assert [Requirement(text).name for text in PROJECT["dependencies"]] == ["click"]


def test_the_version_is_in_one_place() -> None:
    """The build reads it from the package."""
    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", odinws.__version__)
