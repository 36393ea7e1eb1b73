"""The rules of channels: which there are, who may subscribe, and which subject of NATS each one is. Pure.

A rule has a pattern, and the first rule whose pattern has a channel decides on it. A wildcard of a client
lies within one pattern; who may have it must be allowed it by every rule that decides on any of its channels.

Without a file there are the channels `token.{id}`, `user.{id}` and `global`. `channels_file` reads others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from typing import Literal, Protocol

from odinws.access.errors import forbidden, unauthenticated
from odinws.access.patterns import (
    MAX_BYTES,
    MAX_TOKENS,
    ONE,
    REST,
    PatternSet,
    covers,
    disjoint,
    intersection,
    is_wildcard,
)
from odinws.access.permissions import MAX_GRANTS, Permissions
from odinws.messages.protocol import STATS_CHANNEL, Rejected, short

CHARACTERS = r"A-Za-z0-9_\-"  # of tokens, always
MAX_TOKEN_BYTES = 64  # without a file
SHOWN_BYTES = 80  # of a name that an error quotes

_KEPT = ("all", "newest", "none")  # from the most to the least
_REMEMBERED = 8192  # names whose rule is known

Subscribe = Literal["public", "own", "claim"]
Keep = Literal["all", "newest", "none"]
SlowPolicyName = Literal["disconnect", "conflate", "drop-oldest"]


@dataclass(frozen=True)
class Rule:
    """What holds for the channels of a pattern.

    Attributes:
        pattern: of channels.
        subscribe: who may, unless a claim `channels` says it: `public`: everybody; `own`: the subject that
            stands in place of the first `*`; `claim`: nobody.
        subject: of NATS, without the prefix: the pattern of the messages, with `$1` for what the first `*` of
            `pattern` stands for, and so on. "": as the channel.
        keep: what a client that resumes can get of what it missed: `all` that stream and ring have, the
            `newest` message, or `none`.
        slow_policy: of these channels, see `WS_SLOW_POLICY`; None: that one.
        compression: whether messages may be compressed.
    """

    pattern: str
    subscribe: Subscribe = "claim"
    subject: str = ""
    keep: Keep = "all"
    slow_policy: SlowPolicyName | None = None
    compression: bool = True

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the pattern."""
        return tuple(self.pattern.split("."))

    @cached_property
    def form(self) -> tuple[str, ...]:
        """The tokens of the subject, with references."""
        if self.subject:
            return tuple(self.subject.split("."))
        numbers = count(1)
        return tuple(f"${next(numbers)}" if token == ONE else token for token in self.tokens)

    def permits(self, subject: str | None, name: Sequence[str]) -> bool:
        """Whether somebody without a claim may have this.

        Args:
            subject: who asks.
            name: the tokens of a channel or pattern that the pattern has.
        """
        if self.subscribe != "own":
            return self.subscribe == "public"
        return subject == name[self.tokens.index(ONE)] and not is_wildcard(subject)

    def subject_of(self, name: Sequence[str]) -> str:
        """The subject, without prefix, of a channel or pattern that the pattern has; of its tokens."""
        ones = [name[at] for at, token in enumerate(self.tokens) if token == ONE]
        found: list[str] = []
        for token in self.form:
            if token == REST:
                found.extend(name[len(self.tokens) - 1 :])
            else:
                found.append(ones[int(token[1:]) - 1] if token.startswith("$") else token)
        return ".".join(found)

    def channel_of(self, subject: Sequence[str]) -> str:
        """The channel of a subject without prefix, of its tokens; "" if it is none by this rule."""
        form, rest = self.form, subject[:0]
        if form[-1] == REST:
            form, subject, rest = form[:-1], subject[: len(form) - 1], subject[len(form) - 1 :]
            if not rest:
                return ""
        if len(form) != len(subject):
            return ""
        ones: dict[str, str] = {}
        for expected, token in zip(form, subject, strict=True):
            if expected.startswith("$"):
                ones[expected] = token
            elif expected != token:
                return ""
        numbers = count(1)
        found: list[str] = []
        for token in self.tokens:
            if token == REST:
                found.extend(rest)
            else:
                found.append(ones[f"${next(numbers)}"] if token == ONE else token)
        return ".".join(found)


class Holder(Protocol):
    """Who asks, as `Identity`."""

    @property
    def subject(self) -> str | None:
        """Of the token, if there is one."""

    @property
    def permissions(self) -> Permissions | None:
        """By the claim `channels`, if there is one."""


DEFAULT_RULES = (
    Rule("token.*", "public"),
    Rule("user.*", "own"),
    Rule("global", "public"),
)
_DEFAULT_EXPECTED = "expected token.{id}, user.{id}, global, token.* or user.*; id is 1-64 of A-Z a-z 0-9 _ -"


class Channels:
    """The channels of a server.

    Args:
        prefix: of every subject.
        listed: what of all that is carried, as `WS_SUBJECTS`: channels and wildcards, comma-separated, with
            or without `prefix`; "": all.
        rules: those of a file, in order; None: the channels without one.
        characters: that tokens may have besides `CHARACTERS`.

    Attributes:
        rules: in order.
        max_bytes: of a name.
        subjects: what is subscribed to at NATS; none contains another's messages.
        all_subjects: one that has all messages of all channels.
        characters: as given.
        has_file: whether the rules are those of a file.
        keeps_all: whether everything is kept of every channel.

    Raises:
        ValueError: an entry of `listed` is neither a channel nor a wildcard; its text says which.
    """

    def __init__(
        self,
        prefix: str = "odin.",
        listed: str = "",
        rules: Sequence[Rule] | None = None,
        characters: str = "",
    ) -> None:
        self.has_file = rules is not None
        self.rules = tuple(DEFAULT_RULES if rules is None else rules)
        self.keeps_all = all(rule.keep == "all" for rule in self.rules)
        self.max_bytes = MAX_BYTES if self.has_file else len("token.") + MAX_TOKEN_BYTES
        self._prefix = prefix
        self.characters = characters
        most = "" if self.has_file else MAX_TOKEN_BYTES
        token = rf"(?:[{CHARACTERS}{re.escape(characters)}]{{1,{most}}}|[*]|>\Z)"
        self._name = re.compile(rf"{token}(?:\.{token}){{0,{MAX_TOKENS - 1}}}\Z")
        self.rule_of = lru_cache(_REMEMBERED)(self._find_rule)
        self.all_subjects = prefix + REST
        entries = [entry.removeprefix(prefix) for entry in map(str.strip, listed.split(",")) if entry]
        for entry in entries:
            if not self.valid(entry):
                expected = "a wildcard within a pattern" if self.has_file else "token.* or user.*"
                raise ValueError(f"{entry[:SHOWN_BYTES]!r} is neither a channel nor {expected}")
        self._listed = [entry.split(".") for entry in entries]
        self.subjects = self._apart(self.subjects_of(*entries)) if entries else (self.all_subjects,)

    # -- names ---------------------------------------------------------------------------------------

    @staticmethod
    def is_wildcard(name: str) -> bool:
        """Whether a valid name is a wildcard."""
        return is_wildcard(name)

    def is_name(self, name: str) -> bool:
        """Whether this has the form of a channel or a pattern, be there a rule for it or not."""
        return len(name) <= self.max_bytes and self._name.match(name) is not None

    def valid(self, name: str) -> bool:
        """Whether this is a channel of a rule, or a wildcard within a pattern."""
        return len(name) <= self.max_bytes and self.rule_of(name) is not None

    def _find_rule(self, name: str) -> Rule | None:
        """The rule that decides on a channel, or whose pattern has the wildcard; None: there is none.

        `rule_of` is the same, and remembers.
        """
        if not self.is_name(name) or name == STATS_CHANNEL:
            return None
        tokens = name.split(".")
        return next((rule for rule in self.rules if covers(rule.tokens, tokens)), None)

    def rules_of(self, name: str) -> Iterator[tuple[Rule, Sequence[str]]]:
        """The rules that decide on a channel, or on some channels of a pattern.

        Yields:
            The rule, and the tokens of what the name and the rule's pattern have in common.
        """
        tokens = name.split(".")
        for rule in self.rules:
            common = intersection(rule.tokens, tokens)
            if common is not None:
                yield rule, common
                if covers(rule.tokens, tokens):
                    return

    # -- who may -------------------------------------------------------------------------------------

    def allows(self, identity: Holder, name: str) -> bool:
        """Whether somebody may have a valid channel, or all of a valid wildcard."""
        subject, permissions = identity.subject, identity.permissions
        if permissions is not None:
            return permissions.grants(name, subject)
        if not is_wildcard(name):
            rule = self.rule_of(name)
            return rule is not None and (rule.subscribe == "public" or rule.permits(subject, name.split(".")))
        return all(rule.permits(subject, common) for rule, common in self.rules_of(name))

    def carries(self, name: str) -> bool:
        """Whether a valid channel, or all of a valid wildcard, is received from NATS."""
        if not self._listed:
            return True
        tokens = name.split(".")
        return any(covers(entry, tokens) for entry in self._listed)

    def refusal(self, identity: Holder, name: str) -> Rejected | None:
        """Why somebody may not subscribe to this, whatever it is; None: they may."""
        if not self.valid(name):
            return Rejected(short(name), "INVALID_CHANNEL", self._expected)
        if not self.allows(identity, name):
            return Rejected(name, "FORBIDDEN", "this channel needs a token that allows it")
        if not self.carries(name):
            return Rejected(name, "NOT_CARRIED", "this server does not carry this channel")
        return None

    @property
    def _expected(self) -> str:
        if not self.has_file:
            return _DEFAULT_EXPECTED
        return (
            f"expected a channel of this server, or a wildcard within one of its patterns; at most "
            f"{MAX_BYTES} bytes and {MAX_TOKENS} tokens of A-Z a-z 0-9 _ -{self.characters}"
        )

    def permissions_of(self, subject: str, claim: object) -> Permissions | None:
        """The permissions by the claim `channels`.

        Args:
            subject: the token's `sub`.
            claim: as decoded from JSON; None: there is none.

        Raises:
            AccessError: the claim is no list of texts (4401), or lists too many, or what is no grant (4403).
                What has the form of a pattern is one if there is a file: rules may come and go.
        """
        if claim is None:
            return None
        if not isinstance(claim, list) or not all(isinstance(grant, str) for grant in claim):
            raise unauthenticated("the token's claim channels is not a list of texts")
        if len(claim) > MAX_GRANTS:
            raise forbidden(f"the token's claim channels has more than {MAX_GRANTS} entries")
        is_grant, kinds = (self.is_name, "a pattern") if self.has_file else (self.valid, "token.* or user.*")
        for place, grant in enumerate(claim):
            if not is_grant(grant):
                raise forbidden(f"the token's claim channels[{place}] is neither a channel nor {kinds}")
        return Permissions.of(claim, subject)

    # -- what holds for a channel --------------------------------------------------------------------

    def keep_of(self, name: str) -> Keep:
        """What is kept of a valid channel; of a wildcard, the least that is kept of any of its channels."""
        if self.keeps_all:
            return "all"
        return max((rule.keep for rule, _ in self.rules_of(name)), key=_KEPT.index, default="all")

    @property
    def slow_policies(self) -> set[SlowPolicyName]:
        """Those that rules name."""
        return {rule.slow_policy for rule in self.rules if rule.slow_policy is not None}

    def slow_policy_of(self, name: str) -> SlowPolicyName | None:
        """The slow policy that a rule names for a channel or wildcard; None: it names none."""
        rule = self.rule_of(name)
        return None if rule is None else rule.slow_policy

    @property
    def compress_all(self) -> bool:
        """Whether no rule forbids compression."""
        return all(rule.compression for rule in self.rules)

    def compresses(self, channel: str) -> bool:
        """Whether messages of a channel may be compressed."""
        rule = self.rule_of(channel)
        return rule is None or rule.compression

    # -- NATS ----------------------------------------------------------------------------------------

    def subjects_of(self, *names: str) -> tuple[str, ...]:
        """The subjects of channels, or of all channels of valid wildcards; none has another's messages.

        Those of wildcards may have messages of other channels too.
        """
        found = [
            self._prefix + rule.subject_of(common) for name in names for rule, common in self.rules_of(name)
        ]
        return self._apart(found) if any(map(is_wildcard, names)) else tuple(found)

    def channel_of(self, subject: str) -> str | None:
        """The channel of a subject; None: there is none, or it is not carried."""
        if not subject.startswith(self._prefix):
            return None
        tokens = subject[len(self._prefix) :].split(".")
        for rule in self.rules:
            channel = rule.channel_of(tokens)
            if channel and not is_wildcard(channel) and self.rule_of(channel) is rule:
                return channel if self.carries(channel) else None
        return None

    def _apart(self, subjects: Iterable[str]) -> tuple[str, ...]:
        """Subjects without those that another one has already; all of ours, if some still overlap."""
        given = dict.fromkeys(subjects)
        patterns = PatternSet()
        for subject in filter(is_wildcard, given):
            patterns.add(subject)
        found = [s for s in given if set(patterns.covering(s)) <= {s}]
        return tuple(found) if disjoint(list(filter(is_wildcard, found))) else (self.all_subjects,)


DEFAULT = Channels()
