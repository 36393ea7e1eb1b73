"""Pages for people: one file each, with all they need in them, so that a saved one opens anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from odinws.debug.verbs import VERBS

_HERE = Path(__file__).parent
_STYLE = (_HERE / "page.css").read_text()
_FLAME = (_HERE / "flame.js").read_text()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Of what is in the page, by its digest, and of nothing else.
POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_FLAME)}; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def flame(tree: Mapping[str, Any], title: str) -> str:
    """A flame graph.

    Args:
        tree: as `formats.tree` makes it.
    """
    # `<` would end the element, or begin a comment in it.
    data = json.dumps(tree, separators=(",", ":")).replace("<", "\\u003c")
    return _page(
        title,
        '<p><input id="search" type="search" placeholder="find (/)" aria-label="find a function"> '
        "Click or Enter: zoom. Esc: all.</p>"
        '<p id="said" role="status"></p><div id="graph"></div>'
        f'<script type="application/json" id="data">{data}</script><script>{_FLAME}</script>',
    )


def index() -> str:
    """What there is under `/debug`."""
    rows = [
        (
            f'<a href="debug/{name}?format={"html" if name == "profile" else verb.formats[-1]}">{name}</a>',
            escape(verb.about),
            ", ".join(
                f"{key} ({escape(option.allowed)}; {option.default})" for key, option in verb.options.items()
            ),
            ", ".join(verb.formats),
        )
        for name, verb in VERBS.items()
    ]
    events = ('<a href="debug/events">events</a>', "what an operator must know, the latest first", "", "json")
    rows.append(events)
    return _page("odinws /debug", _table(("view", "shows", "options", "format"), rows))


def tables(title: str, workers: Sequence[Mapping[str, Any]]) -> str:
    """The answer of all workers as tables: lists of objects become rows, with the worker in front."""
    lists: dict[str, list[Mapping[str, Any]]] = {}
    facts: list[Mapping[str, Any]] = []
    for worker in workers:
        pid, result = worker["pid"], worker.get("result")
        if isinstance(result, list):
            lists.setdefault("", []).extend({"worker": pid, **row} for row in result)
            continue
        plain: dict[str, Any] = {"worker": pid}
        for name, value in (result or {"error": worker.get("error", "")}).items():
            if isinstance(value, list) and value and isinstance(value[0], Mapping):
                lists.setdefault(name, []).extend({"worker": pid, **row} for row in value)
            else:
                plain[name] = value
        facts.append(plain)
    sections = [("", facts), *lists.items()]
    body = "".join(
        (f"<h2>{escape(name)}</h2>" if name else "") + _objects(rows) for name, rows in sections if rows
    )
    return _page(title, '<p><a href="../debug">all views</a></p>' + body)


def _objects(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _table(names, [[_cell(row.get(name, "")) for name in names] for row in rows])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML already."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, list):
        separator = "\n" if value and isinstance(value[0], str) else " "
        return f"<pre>{escape(separator.join(map(str, value)))}</pre>"
    if isinstance(value, dict):
        return escape(", ".join(f"{name} {member}" for name, member in value.items()))
    return escape("" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value))
