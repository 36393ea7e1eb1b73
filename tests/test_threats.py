"""docs/threats.md: each promise names what proves it, and that exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.attack.vectors import VECTORS
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "threats.md").read_text()
HEADER = ["what it sends", "promise", "proof"]


class Row(NamedTuple):
    """One promise, under the heading of whom it is made against."""

    who: str
    sends: str
    promise: str
    proof: str


def rows() -> list[Row]:
    """Those of all tables."""
    found, who = [], ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            who = line[3:]
        elif line.startswith("|") and not line.startswith("|---"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            assert len(cells) == len(HEADER), line
            if cells != HEADER:
                found.append(Row(who, *cells))
    return found


@functools.cache
def names_in(path: str) -> set[str]:
    """Names of the tests in a file; none where there is no such file."""
    file = ROOT / path
    tree = ast.parse(file.read_text() if file.exists() else "")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def exists(proof: str) -> bool:
    """Whether there is such a test, vector or target."""
    kind, _, name = proof.partition(": ")
    if kind == "attack":
        return name in VECTORS
    if kind == "fuzz":
        return name in TARGETS
    path, _, name = proof.partition("::")
    return name in names_in(path)


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.who}: {row.sends}"[:60])
def test_a_promise_has_its_proof(row: Row) -> None:
    """Nothing but names of what there is, and at least one."""
    proofs = re.findall(r"`([^`]+)`", row.proof)
    assert row.proof == ", ".join(f"`{proof}`" for proof in proofs)
    assert proofs
    assert [proof for proof in proofs if not exists(proof)] == []


def test_everybody_is_there() -> None:
    """All boundaries of the server have their promises."""
    whom = " ".join(dict.fromkeys(row.who.lower() for row in rows()))
    for word in ("page", "remote client", "proxy", "same machine", "same network", "nats", "operator"):
        assert word in whom


def test_every_vector_and_target_proves_something() -> None:
    """What is attacked and fuzzed is also promised."""
    named = set(re.findall(r"`((?:attack|fuzz): [^`]+)`", TEXT))
    assert {f"attack: {name}" for name in VECTORS} | {f"fuzz: {name}" for name in TARGETS} <= named


def test_a_proof_that_is_missing_is_noticed() -> None:
    """Whatever its kind."""
    for proof in (
        "tests/test_threats.py::test_nothing",
        "tests/nowhere.py::test_a",
        "attack: love",
        "fuzz: wine",
    ):
        assert not exists(proof)
    assert exists("tests/test_threats.py::test_a_proof_that_is_missing_is_noticed")
