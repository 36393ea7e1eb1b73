"""What the flag says for a worker: by OpenFeature, with flagd's evaluator behind a provider of our own.

flagd's provider would bring gRPC, which does not live with gevent. Its evaluator alone needs no network.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Callable
from typing import Any

import structlog
from openfeature import api
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, Metadata

from odinws import strategy_check
from odinws.assignment import DEFAULT_STRATEGY, Assigner, Assignment
from odinws.rollout.flags import Document, FlagsError, fallback, read
from odinws.rollout.targeting import FLAG, targeting_key

log = structlog.get_logger("odinws.rollout")

_numbers = itertools.count()  # of providers in this process: each has a domain of its own


def _resolver(kind: str) -> Any:
    """The method of a provider that asks flagd's evaluator for a value of this kind."""

    def resolve(
        self: FileProvider,
        flag_key: str,
        default_value: Any,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Any]:
        ask: Callable[..., FlagResolutionDetails[Any]] = getattr(self._core, f"resolve_{kind}_value")
        return ask(flag_key, default_value, evaluation_context)

    return resolve


class FileProvider(AbstractProvider):
    """Answers from a document in flagd's format."""

    def __init__(self) -> None:
        super().__init__()
        self._core = FlagdCore()

    def load(self, document: Document) -> None:
        """Answer from this one.

        Raises:
            OpenFeatureError: flagd's evaluator does not take it.
        """
        self._core.set_flags(json.dumps(document))  # as text: the evaluator changes what it is given

    def get_metadata(self) -> Metadata:
        """See `AbstractProvider`, as all below."""
        return Metadata("odinws-file")

    resolve_boolean_details = _resolver("boolean")
    resolve_string_details = _resolver("string")
    resolve_integer_details = _resolver("integer")
    resolve_float_details = _resolver("float")
    resolve_object_details = _resolver("object")


class Evaluation:
    """Asks the flag for the workers of one server.

    Args:
        deployment, host: of the server, as they stand in the targetingKey.
        workers: its workers.
    """

    def __init__(self, deployment: str, host: str, workers: int) -> None:
        self._deployment = deployment
        self._host = host
        self._workers = workers
        self._provider = FileProvider()
        domain = f"odinws-{next(_numbers)}"
        api.set_provider_and_wait(self._provider, domain)
        self._client = api.get_client(domain)

    def assign(self, path: str, document: Document, ordinal: int) -> Assignment:
        """The assignment for a worker.

        Args:
            path: of the document, for the error.

        Raises:
            FlagsError: the flag gives no strategy.
        """
        try:
            self._provider.load(document)
        except OpenFeatureError as error:
            raise FlagsError(path, error.error_message or "flagd's evaluator does not take it") from None
        key = targeting_key(self._deployment, self._host, ordinal, self._workers)
        context = EvaluationContext(
            key, {"deployment": self._deployment, "host": self._host, "place": ordinal}
        )
        details = self._client.get_string_details(FLAG, DEFAULT_STRATEGY, context)
        if details.reason == Reason.ERROR:
            raise FlagsError(path, f"flag {FLAG}: {details.error_message or f'gives {details.value!r}'}")
        try:
            strategy_check.check(details.value)
        except ValueError as error:
            raise FlagsError(path, f"flag {FLAG}: {error}") from None
        reason = str(details.reason or Reason.UNKNOWN).lower()
        return Assignment(details.value, details.variant or details.value, reason)

    def assign_all(self, path: str, document: Document) -> list[Assignment]:
        """The assignments for all workers, in their order.

        Raises:
            FlagsError: see `assign`.
        """
        return [self.assign(path, document, ordinal) for ordinal in range(self._workers)]


class FlagAssigner(Assigner):
    """Chooses for one worker, and again whenever the file changes.

    Args:
        path: of the file.
        deployment: name of the deployment.
        ordinal, workers: of the worker, and how many there are.
        host: name of the machine unless given.
    """

    def __init__(self, path: str, deployment: str, ordinal: int, workers: int, host: str = "") -> None:
        self._path = path
        self._ordinal = ordinal
        self._evaluation = Evaluation(deployment, host or socket.gethostname(), workers)
        self._mark = _mark(path)
        self._why = ""
        super().__init__(fallback(path))
        self.assignment = self._ask() or self.assignment

    def outdated(self) -> str:
        """As `Assigner`. Looks only at a file that changed; one that can't be used replaces nobody."""
        mark = _mark(self._path)
        if mark != self._mark:
            self._mark, self._why = mark, ""
            wanted = self._ask()
            if wanted is not None and wanted[:2] != self.assignment[:2]:
                self._why = f"flag says {wanted.variant}, it has {self.assignment.variant}"
        return self._why

    def _ask(self) -> Assignment | None:
        """What the file says now; None if it can't be used, which is logged."""
        try:
            assignment = self._evaluation.assign(self._path, read(self._path), self._ordinal)
        except FlagsError as error:
            self.problem = str(error)
            log.error("flags can't be used", problem=self.problem)
            return None
        self.problem = ""
        return assignment


def _mark(path: str) -> tuple[int, int, int] | None:
    """What differs when a file was written or replaced."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
