"""The exceptions that odinws raises, as a tree.

OdinError
├── SettingsError          a setting is invalid: the start stops with one line
├── HeadError              (odinws.http.head) what came is no request head: it is answered, and closed
├── HandshakeError         an upgrade request violates RFC 6455 section 4.2.1
├── FrameError             bytes of a client violate RFC 6455: the connection closes
├── CommandError           a command of a client is invalid: it is answered with an error
├── FeedError              NATS is reachable, but the feed can't use it
│   └── RefusedError       NATS refuses what the feed asks: a permission, a limit, an API
├── BusyError              (odinws.shared.debug_lock) another expensive debug view is running
├── CompanionError         (odinws.companion) the embedded NATS or the demo feed did not start
├── PlanError              (odinws.experiment.plan) an experiment's plan can't be run
├── RecordError            (odinws.experiment.record) the records of a run can't be read or written
├── ArmError               (odinws.experiment.arms) a server of an experiment did not start, or exited
├── SwarmError             (odinws.experiment.load) the swarm of an experiment did not start, or exited
├── FeedLostError          (odinws.experiment.feed) NATS became unavailable during an experiment
├── FlagsError             (odinws.rollout.flags) the flags file is unusable: the default variant runs
├── FleetError             (odinws.rollout.fleet) a running server does not report its workers
├── ProcessError           (odinws.harness.process) a child process did not start, or exited
├── EmbeddedNatsError      (odinws.feed.embedded) the embedded nats-server is missing, or failed
└── OptionError            (odinws.feed.publisher) an option of the publisher is invalid

Expected outcomes (a full outbox, a refused upgrade, a closed peer) are values, not exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence

from odinws.close_codes import CloseReason


class OdinError(Exception):
    """The base of all exceptions; never raised itself."""


class SettingsError(OdinError):
    """A setting is invalid.

    Attributes:
        name: the environment variable.
        value: its value; never a secret (URLs come without credentials).
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
        status: the HTTP status of the response, 400 or 426.
        headers: headers that the response must have.
    """

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple(headers)


class FrameError(OdinError):
    """A client violated the protocol. The connection closes with `reason`."""

    def __init__(self, reason: CloseReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CommandError(OdinError):
    """A command of a client failed. The connection stays open.

    Attributes:
        code: the machine-readable code of the error frame.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class FeedError(OdinError):
    """NATS is reachable, but the feed can't use it, or a request failed. The feed retries."""


class RefusedError(FeedError):
    """NATS refuses what the feed asks. The text names the subject, or what JetStream says."""
