"""Every exception that odinws raises on purpose, as a tree.

OdinError
├── SettingsError          the environment does not describe a server: the start stops with one line
├── HandshakeError         an upgrade request that RFC 6455 section 4.2.1 does not allow
├── FrameError             bytes from a client that RFC 6455 does not allow: the connection closes
├── CommandError           a well-framed message that is no valid command: an error frame answers it
├── FeedError              NATS answered, but not with what the feed can use
├── BusyError              (odinws.shared.debug_lock) somebody else takes a dear look into the server
├── CompanionError         (odinws.companion) the embedded NATS or the demo feed did not come up
├── PlanError              (odinws.experiment.plan) a plan can't be carried out
├── RecordError            (odinws.experiment.record) the records of a run can't be read or written
├── ArmError               (odinws.experiment.arms) a server of an experiment does not start, or ends
├── SwarmError             (odinws.experiment.load) the swarm of an experiment does not start, or ends
├── FeedLostError          (odinws.experiment.feed) NATS went away during an experiment
├── FlagsError             (odinws.rollout.flags) the file of flags can't be used: the default variant runs
├── FleetError             (odinws.rollout.fleet) a running server does not tell of its workers
├── ProcessError           (odinws.harness.process) a process that we run does not start, or ends
├── EmbeddedNatsError      (odinws.feed.embedded) a nats-server that we run is missing or fails
└── OptionError            (odinws.feed.publisher) an option of the publisher is wrong

Expected outcomes (a full outbox, a refused upgrade, a closed peer) are values, not exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence

from odinws.close_codes import CloseReason


class OdinError(Exception):
    """The root of the tree; never raised itself."""


class SettingsError(OdinError):
    """A setting is wrong.

    Attributes:
        name: the environment variable.
        value: what it holds; never a secret (URLs are given without their credentials).
        allowed: what would be accepted.
    """

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}={value!r} is not valid: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class HandshakeError(OdinError):
    """An upgrade request is malformed.

    Attributes:
        status: the HTTP status of the answer, 400 or 426.
        headers: headers that the answer must carry.
    """

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple(headers)


class FrameError(OdinError):
    """A client broke the framing rules. The connection closes with `reason`."""

    def __init__(self, reason: CloseReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CommandError(OdinError):
    """A client sent a command that can't be carried out. The connection stays.

    Attributes:
        code: the machine-readable code of the error frame.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class FeedError(OdinError):
    """NATS is there, but the feed can't run on what it offers. The feed tries again."""
