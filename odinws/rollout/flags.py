"""The file of flags: read, checked by its schema, and written with another share."""

from __future__ import annotations

import copy
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import jsonschema

import strategies
from odinws import strategy_check
from odinws.assignment import DEFAULT_STRATEGY, Assignment
from odinws.errors import OdinError
from odinws.rollout.targeting import FLAG

Document = dict[str, Any]

_SCHEMA = jsonschema.Draft202012Validator(
    json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
)
_LONGEST_BYTES = 1 << 20


class FlagsError(OdinError):
    """The file, or the flag in it, can't be used.

    Attributes:
        path: of the file.
        problem: what is wrong, in one line.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {' '.join(problem.split())}")
        self.path = path
        self.problem = problem


def read(path: str) -> Document:
    """The file as JSON, of the right form, with strategies that there are.

    Raises:
        FlagsError: it is not.
    """
    document = _parse(path)
    for error in [jsonschema.exceptions.best_match(_SCHEMA.iter_errors(document))]:
        if error is not None:
            raise FlagsError(path, f"at {error.json_path}: {error.message}")
    flag = document["flags"][FLAG]
    for variant, strategy in flag["variants"].items():
        try:
            strategies.check_name(strategy)
        except ValueError:
            known = ", ".join(strategies.names())
            problem = f"variant {variant} is {strategy!r}, expected one of {known}, or package.module:Class"
            raise FlagsError(path, problem) from None
    if flag["defaultVariant"] not in flag["variants"]:
        names = ", ".join(flag["variants"])
        raise FlagsError(path, f"defaultVariant is {flag['defaultVariant']!r}, expected one of {names}")
    return document


def _parse(path: str) -> Document:
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # reading would wait for a writer
            raise FlagsError(path, "not a regular file")
        with open(path, "rb") as file:
            text = file.read(_LONGEST_BYTES + 1)
    except OSError as error:
        raise FlagsError(path, error.strerror or str(error)) from None
    if len(text) > _LONGEST_BYTES:
        raise FlagsError(path, f"longer than {_LONGEST_BYTES} bytes")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FlagsError(path, f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise FlagsError(path, "expected a JSON object with flags")
    return document


def fallback(path: str) -> Assignment:
    """What runs where the file can't be used: its default variant if that can be read, else `sync-dict`."""
    try:
        flag = _parse(path)["flags"][FLAG]
        variant = flag["defaultVariant"]
        strategy = flag["variants"][variant]
    except (FlagsError, LookupError, TypeError):
        variant = strategy = DEFAULT_STRATEGY
    try:
        strategy_check.check(strategy)
    except (ValueError, AttributeError):
        variant = strategy = DEFAULT_STRATEGY
    return Assignment(strategy, variant, "error")


def shares(document: Document) -> dict[str, float] | None:
    """Percent of each variant that has any, in the rule's order; None: the rule is no plain `fractional`."""
    flag = document["flags"][FLAG]
    targeting = flag.get("targeting")
    if flag["state"] == "DISABLED":
        return None
    if not targeting:
        return {flag["defaultVariant"]: 100.0}
    weights = targeting.get("fractional")
    if weights is None or not all(isinstance(part, list) for part in weights):
        return None
    found: dict[str, float] = {}
    for variant, *weight in weights:
        if not isinstance(variant, str) or not all(isinstance(number, int) for number in weight):
            return None
        found[variant] = found.get(variant, 0) + (weight[0] if weight else 1)
    total = sum(found.values())
    return {variant: 100.0 * weight / total for variant, weight in found.items() if weight} if total else None


def rollout(document: Document) -> tuple[str, float] | None:
    """The variant that is rolled out, the first of the rule, and its percent; None: the rule is another."""
    flag = document["flags"][FLAG]
    weights = (flag.get("targeting") or {}).get("fractional")
    if shares(document) is None or not weights or weights[0][0] == flag["defaultVariant"]:
        return None
    variant: str = weights[0][0]
    return variant, (shares(document) or {}).get(variant, 0.0)


def with_share(document: Document, variant: str, percent: int) -> Document:
    """The document with `percent` of the workers for `variant`, and the rest for the default variant."""
    changed = copy.deepcopy(document)
    flag = changed["flags"][FLAG]
    flag["state"] = "ENABLED"
    flag["targeting"] = {"fractional": [[variant, percent], [flag["defaultVariant"], 100 - percent]]}
    return changed


def write(path: str, document: Document) -> None:
    """Replace the file at one instant: who reads it sees all of the old or all of the new.

    Raises:
        FlagsError: it can't be written.
    """
    real = Path(path).resolve()  # behind a symbolic link the file itself is replaced
    try:
        descriptor, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
                os.fchmod(descriptor, real.stat().st_mode & 0o777 if real.exists() else 0o644)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, real)
        except BaseException:  # Ctrl-C too: the half-written copy must not stay
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FlagsError(path, f"can't be written: {error.strerror}") from None
