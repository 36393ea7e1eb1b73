"""Which cases a run has. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

SECTIONS = (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13)  # 8 and 11 are empty
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_CASES = re.compile(r"\d+(\.\d+)*(\.\*)?")


def patterns(text: str) -> list[str]:
    """The suite's patterns for a list such as `1-7,10,9.1.*,12.1.3`.

    Raises:
        ValueError: a part is no section, range of sections or case; says which.
    """
    found: list[str] = []
    for part in text.split(","):
        if match := _RANGE.fullmatch(part.strip()):
            first, last = int(match[1]), int(match[2] or match[1])
            sections = [section for section in SECTIONS if first <= section <= last]
            if not sections:
                raise ValueError(
                    f"no such section: {part.strip()!r}; there are {', '.join(map(str, SECTIONS))}"
                )
            found += [f"{section}.*" for section in sections]
        elif _CASES.fullmatch(part.strip()):
            found.append(part.strip())
        else:
            raise ValueError(f"neither sections nor cases: {part.strip()!r}")
    return found


def everything() -> list[str]:
    """The patterns of all sections."""
    return [f"{section}.*" for section in SECTIONS]


def specification(agent: str, url: str, cases: Sequence[str], outdir: str) -> dict[str, object]:
    """What `wstest -m fuzzingclient` reads."""
    return {
        "outdir": outdir,
        "servers": [{"agent": agent, "url": url}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }


def key(case: str) -> tuple[int, ...]:
    """What sorts cases as the suite numbers them."""
    return tuple(int(number) for number in case.split("."))
