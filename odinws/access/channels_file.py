"""Reads the rules of channels from the text of a file in TOML (WS_CHANNELS_FILE). Pure.

Every mistake is told, not the first alone. `docs/channels.md` describes the file.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, get_args

from odinws.access.channels import Channels, Keep, Rule, SlowPolicyName, Subscribe
from odinws.access.patterns import MAX_BYTES, MAX_TOKENS, ONE, REST, covers, intersection

MAX_RULES = 128
MAX_FILE_BYTES = 256 << 10

_NEVER_IN_TOKENS = '.*>,"\\${}'  # they mean something in names, lists, JSON or rules
_KEYS = {field.name for field in fields(Rule)}
_CHOICES = {
    "subscribe": get_args(Subscribe),
    "keep": get_args(Keep),
    "slow_policy": get_args(SlowPolicyName),
    "compression": (True, False),
}
_REFERENCE = re.compile(r"\$[1-9][0-9]?")
_SHOWN = 80  # characters of a value that a mistake quotes
_DEPTHS = (1, 2, 3)  # of what a `>` stands for, when two rules are tried on one subject


class File(NamedTuple):
    """What a file says.

    Attributes:
        rules: in order; not to be used if there are mistakes.
        characters: that tokens may have besides letters, digits, `_` and `-`.
        mistakes: a line each.
        notes: what may be meant, and is worth a look: a line each.
    """

    rules: list[Rule]
    characters: str
    mistakes: list[str]
    notes: list[str]


def read(text: str) -> File:
    """Read the text of a file."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        return File([], "", [f"it is longer than {MAX_FILE_BYTES >> 10} KiB"], [])
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        return File([], "", [f"it is not TOML: {_brief(str(error))}"], [])
    mistakes = [f"unknown key {_brief(key)}" for key in content if key not in ("characters", "channels")]
    characters = content.get("characters", "")
    if problem := _check_characters(characters):
        mistakes.append(problem)
        characters = ""
    entries = content.get("channels", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return File([], characters, [*mistakes, "channels is not a list of [[channels]]"], [])
    if not 1 <= len(entries) <= MAX_RULES:
        mistakes.append(f"expected 1 to {MAX_RULES} [[channels]], not {len(entries)}")
        return File([], characters, mistakes, [])
    form = Channels(rules=(), characters=characters)
    rules = []
    for number, entry in enumerate(entries, 1):
        problems = list(_problems(entry, form))
        mistakes += [f"{_place(number, entry)}: {problem}" for problem in problems]
        if not problems:
            rules.append(Rule(**entry))
    notes: list[str] = []
    if not mistakes:
        _compare(rules, characters, mistakes, notes)
    return File(rules, characters, mistakes, notes)


def _place(number: int, entry: dict[str, Any]) -> str:
    pattern = entry.get("pattern")
    return f"{_brief(pattern)} (number {number})" if isinstance(pattern, str) else f"number {number}"


def _check_characters(characters: object) -> str:
    if not isinstance(characters, str):
        return "characters is not a text"
    wrong = [c for c in characters if not ("!" <= c <= "~") or c in _NEVER_IN_TOKENS]
    if wrong:
        shown = _brief(" ".join(dict.fromkeys(wrong)))
        return f"characters has {shown}: expected printable ASCII but for {' '.join(_NEVER_IN_TOKENS)}"
    return ""


def _problems(entry: dict[str, Any], form: Channels) -> Iterator[str]:
    """What is wrong with one rule by itself."""
    for key, value in entry.items():
        if key not in _KEYS:
            yield f"unknown key {_brief(key)}; known are {', '.join(sorted(_KEYS))}"
        elif key in _CHOICES and not any(
            value is choice or (isinstance(choice, str) and value == choice) for choice in _CHOICES[key]
        ):
            allowed = ", ".join(str(choice).lower() for choice in _CHOICES[key])
            yield f"{key} is {_brief(str(value))}: expected one of {allowed}"
    pattern, subject = entry.get("pattern"), entry.get("subject", "")
    if not isinstance(pattern, str) or not form.is_name(pattern):
        yield f"pattern is {_brief(str(pattern))}: {_expected(form)}"
        return
    ones = pattern.split(".").count(ONE)
    if entry.get("subscribe") == "own" and not ones:
        yield "subscribe is own, but the pattern has no * that the subject of a token could stand for"
    if "subject" in entry:
        yield from _subject_problems(subject, pattern, ones, form)


def _subject_problems(subject: object, pattern: str, ones: int, form: Channels) -> Iterator[str]:
    if not isinstance(subject, str) or not subject:
        yield f"subject is {_brief(str(subject))}: expected tokens, and $1 for what the first * stands for"
        return
    tokens = subject.split(".")
    plain = [token for token in tokens if not _REFERENCE.fullmatch(token)]
    if len(subject) > MAX_BYTES or ONE in plain or (plain and not form.is_name(".".join(plain))):
        yield f"subject is {_brief(subject)}: {_expected(form)}, and $1 for what the first * stands for"
        return
    counts = Counter(token for token in tokens if _REFERENCE.fullmatch(token))
    wanted = {f"${number}": 1 for number in range(1, ones + 1)}
    if counts != wanted:
        expected = f"each of {', '.join(wanted)} once" if wanted else "none, as there is no *"
        yield f"subject has {', '.join(sorted(counts.elements())) or 'no reference'}: expected {expected}"
    if (REST in tokens) != pattern.endswith(REST):
        yield "subject ends with > if, and only if, the pattern does"


def _expected(form: Channels) -> str:
    characters = " ".join(["A-Z a-z 0-9 _ -", *form.characters])
    return f"expected at most {MAX_TOKENS} tokens of {characters}, or * and > as in NATS"


def _compare(rules: Sequence[Rule], characters: str, mistakes: list[str], notes: list[str]) -> None:
    """What is wrong with rules beside each other."""
    channels = Channels("", "", rules, characters)
    for at, rule in enumerate(rules):
        earlier = rules[:at]
        covering = next((before for before in earlier if covers(before.tokens, rule.tokens)), None)
        if covering is not None:
            mistakes.append(f"{rule.pattern} is never reached: {covering.pattern} before it has all of it")
            continue
        if shared := [r.pattern for r in earlier if intersection(r.tokens, rule.tokens) is not None]:
            notes.append(f"of {rule.pattern} some channels are decided on before it: by {', '.join(shared)}")
        mistakes.extend(
            f"{before.pattern} and {rule.pattern} both have the subject {subject}: "
            "a message would be of two channels"
            for before in earlier
            if (subject := _shared_subject(before, rule, channels))
        )


def _shared_subject(one: Rule, other: Rule, channels: Channels) -> str:
    """A subject that is of two different channels by these rules; "" if there is none."""
    forms = [tuple(ONE if token.startswith("$") else token for token in rule.form) for rule in (one, other)]
    common = intersection(*forms)
    if common is None:
        return ""
    # What stands for a wildcard does not matter, as long as no pattern names it: it is of no rule alone then.
    for depth in _DEPTHS:
        tokens: list[str] = []
        for number, token in enumerate(common):
            count = depth if token == REST else 1
            filler = [f"-{number}{extra}-" for extra in range(count)]
            tokens.extend(filler if token in (ONE, REST) else [token])
        found = [rule.channel_of(tokens) for rule in (one, other)]
        if found[0] != found[1] and all(
            channels.rule_of(channel) is rule for channel, rule in zip(found, (one, other), strict=True)
        ):
            return ".".join(common)
    return ""


def _brief(text: str) -> str:
    """A part of the file, as a line."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return repr(shown[:_SHOWN]) if len(shown) <= _SHOWN else repr(shown[:_SHOWN]) + "…"
