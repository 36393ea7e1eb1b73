"""What a client has received, and how it asks for the rest. No input or output.

The state outlives connections. It drops what comes twice, and sees a hole that nobody told of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        type: of the payload, or `message`.
        seq: its sequence; rises on each channel.
        ts_ms: when NATS took it, milliseconds since 1970.
        data: the payload.
    """

    channel: str
    seq: int
    type: str
    ts_ms: int
    data: Any


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that will not come: `first` to `last` of the stream's sequences, inclusive.

    Attributes:
        reason: as the server says; `unknown` if it did not tell, which is a defect of somebody. `epoch`: the
            numbers have begun anew, and what was missed is not known. `too_big`: a frame was longer than this
            client takes. `unreadable`: the payload is JSON, but nested more deeply than Python's decoder can
            read.
    """

    channel: str
    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A channel that can't be had, or a command that failed (channel ""). `code` is for programs.

    TOO_BIG is the client's own: a frame was longer than it takes.
    """

    channel: str
    code: str
    message: str


Event = Message | Gap | Rejected


# As the server writes a message; what follows is the payload.
_HEAD = re.compile(r'\{"type":"(?:[^"\\]|\\.)*","channel":"([^"]+)","seq":([0-9]+),"prev":([0-9]+),"ts":')
_NO_EPOCH = "none"  # of a worker that has not heard from NATS yet


class ProtocolError(ValueError):
    """A frame is not of the protocol: the server is another one, or broken."""


class SubscriptionState:
    """What one client wants, and how far it has received it.

    Args:
        channels: that it wants; wildcards are fine.
        last: whether a channel that was never heard begins with its newest message.
    """

    def __init__(self, channels: Iterable[str], *, last: bool) -> None:
        self.channels: dict[str, None] = {}
        self._wildcards: list[str] = []
        self.add(channels)
        self._last = last
        self._heard: dict[str, int] = {}  # by what was subscribed: the sequence up to which all is known
        self._seen: dict[str, int] = {}  # by channel: the last message
        self._epoch = ""  # of the numbers in the two above
        self._current = ""  # of the connection
        self._is_greeted = False
        self._skipped: set[str] = set()  # channels of which nothing came since `skip`
        self._begins_anew = False  # nothing came at all since then
        self.expires_at_ms: int | None = None

    def add(self, channels: Iterable[str]) -> None:
        """Want more channels."""
        self.channels.update(dict.fromkeys(channels))
        self._wildcards = [name for name in self.channels if _is_wildcard(name)]

    def connected(self) -> None:
        """A new connection begins: its first frame is a welcome."""
        self._is_greeted = False

    def subscription(self, channels: Iterable[str] | None = None) -> str:
        """The command that subscribes, resuming where something was heard."""
        wanted = list(self.channels if channels is None else channels)
        since = {channel: self._heard[channel] for channel in wanted if channel in self._heard}
        data: dict[str, Any] = {"channels": wanted}
        if since:
            data |= {"since": since, "epoch": self._epoch}
        if self._last and not self._begins_anew:
            data["last"] = True
        return json.dumps({"type": "subscribe", "data": data})

    def skip(self) -> None:
        """Ask for nothing that was published until now: the next message of a channel tells what it was."""
        self._heard.clear()
        self._skipped = set(self._seen)
        self._begins_anew = True

    def forget(self, channels: Iterable[str]) -> str:
        """The command that unsubscribes."""
        gone = list(channels)
        for channel in gone:
            self.channels.pop(channel, None)
            self._heard.pop(channel, None)
        return json.dumps({"type": "unsubscribe", "data": {"channels": gone}})

    def read(self, text: str | bytes) -> list[Event]:
        """What a frame says to the user; mostly one event, or none.

        Raises:
            ProtocolError: it is not JSON, lacks what its type needs, or is no welcome where one is due.
        """
        try:
            return self._read(json.loads(text, parse_int=_whole))
        except RecursionError:
            return self._unreadable(text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"not the protocol: {text[:100]!r}") from error

    def _read(self, message: dict[str, Any]) -> list[Event]:
        kind = message.get("type")
        if not self._is_greeted and kind != "welcome":
            raise ValueError("a connection begins with a welcome")
        if "seq" in message:
            return self._message(message)
        if kind == "gap":
            return self._gap(message)
        if kind == "welcome":
            return self._welcome(message["epoch"])
        if kind == "subscription_ack":
            if self._current != _NO_EPOCH:
                self._epoch = self._current  # what is of another one is told by gaps, which follow
            return [Rejected(r["channel"], r["code"], r["message"]) for r in message["rejected"]]
        if kind == "authenticated":
            self.expires_at_ms = message["expires_at"]
        if kind == "error":
            return [Rejected("", message["code"], message["message"])]
        return []

    def _welcome(self, epoch: str) -> list[Event]:
        """The first of a connection names its epoch; a later one says that the numbers have begun anew."""
        before, self._current = self._current, epoch
        if not self._is_greeted:
            self._is_greeted = True
            return []
        self._epoch = epoch
        if before == _NO_EPOCH:
            return []  # nothing came yet; what is of another one is told by gaps, which follow
        self._seen.clear()
        self._heard.clear()
        return [Gap(channel, 0, 0, "epoch") for channel in self.channels]

    def _message(self, message: dict[str, Any]) -> list[Event]:
        channel, seq, prev = message["channel"], message["seq"], message["prev"]
        seen = self._seen.get(channel, 0)
        if seq <= seen:
            return []
        event = Message(channel, seq, message["type"], message["ts"], message["data"])
        return [*self._hole(channel, seq, prev), event]

    def _hole(self, channel: str, seq: int, prev: int) -> list[Event]:
        """What is missing before a message, up to which all is known from now on."""
        seen, why = self._seen.get(channel, 0), "too_big" if channel in self._skipped else "unknown"
        self._note(channel, seq)
        self._skipped.discard(channel)
        self._begins_anew = False
        return [Gap(channel, seen + 1, prev, why)] if seen and prev > seen else []

    def _unreadable(self, text: str | bytes) -> list[Event]:
        """What is nested too deeply for the decoder."""
        head = _HEAD.match(text if isinstance(text, str) else text.decode())
        if head is None or not self._is_greeted:
            raise ProtocolError(f"not the protocol: {text[:100]!r}")
        channel, seq, prev = head[1], int(head[2]), int(head[3])
        if seq <= self._seen.get(channel, 0):
            return []
        return [*self._hole(channel, seq, prev), Gap(channel, seq, seq, "unreadable")]

    def _gap(self, message: dict[str, Any]) -> list[Event]:
        gap = Gap(message["channel"], message["from"], message["to"], message["reason"])
        if gap.reason == "epoch":
            self._restart(gap.channel)
        self._note(gap.channel, gap.last)
        return [gap]

    def _note(self, channel: str, seq: int) -> None:
        self._seen[channel] = max(self._seen.get(channel, 0), seq)
        names = [channel]
        if not _is_wildcard(channel):  # a gap of one says nothing of the others
            names += [name for name in self._wildcards if _has(name, channel)]
        for name in names:
            if name in self.channels:
                self._heard[name] = max(self._heard.get(name, 0), seq)

    def _restart(self, channel: str) -> None:
        """The numbers begin anew: what was heard says nothing."""
        for name in [name for name in self._seen if name == channel or _has(channel, name)]:
            del self._seen[name]
        self._heard.pop(channel, None)


def _is_wildcard(name: str) -> bool:
    return "*" in name or ">" in name


@lru_cache(4096)
def _has(wildcard: str, channel: str) -> bool:
    """Whether a wildcard has a channel: `*` is one token, `>` at its end one or more."""
    form = re.escape(wildcard).replace(r"\*", r"[^.]+").replace(">", ".+")
    return re.fullmatch(form, channel) is not None


def _whole(text: str) -> float:
    """A whole number; Python reads none of thousands of digits."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def authentication(token: str) -> str:
    """The command that brings another token to an open connection."""
    return json.dumps({"type": "authenticate", "data": {"token": token}})
