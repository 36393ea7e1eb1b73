"""Inputs that are kept, one file each, in a directory for each target; a name says what is in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")


def entries(target: str, corpus: Path = CORPUS) -> list[Path]:
    """The files of a target, by name."""
    return sorted((corpus / target).iterdir()) if (corpus / target).is_dir() else []


def name_of(data: bytes) -> str:
    """The name of an input's file."""
    return hashlib.sha256(data).hexdigest()[:16]


def keep(target: str, data: bytes, corpus: Path = CORPUS) -> Path:
    """Put an input into the corpus; its file."""
    path = corpus / target / name_of(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
