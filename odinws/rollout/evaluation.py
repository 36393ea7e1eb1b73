"""The flag by OpenFeature, with flagd's evaluator behind a provider of our own.

flagd's provider would bring gRPC, which does not live with gevent. Its evaluator alone needs no network.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from openfeature import api
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata

import strategies
from odinws.choice import DEFAULT_STRATEGY, Choice
from odinws.rollout.flags import Document, FlagsError
from odinws.rollout.targeting import FLAG, targeting_key

_numbers = itertools.count()  # of providers in this process: each has a domain of its own


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
        """See `AbstractProvider`, as all of these."""
        return Metadata("odinws-file")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return self._core.resolve_boolean_value(flag_key, default_value, evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._core.resolve_string_value(flag_key, default_value, evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._core.resolve_integer_value(flag_key, default_value, evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return self._core.resolve_float_value(flag_key, default_value, evaluation_context)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        return self._core.resolve_object_value(flag_key, default_value, evaluation_context)


class Evaluation:
    """Asks the flag for the workers of one server.

    Args:
        deployment, host: of the server, as they stand in the targetingKey.
        places: its workers.
    """

    def __init__(self, deployment: str, host: str, places: int) -> None:
        self._deployment = deployment
        self._host = host
        self._places = places
        self._provider = FileProvider()
        domain = f"odinws-{next(_numbers)}"
        api.set_provider_and_wait(self._provider, domain)
        self._client = api.get_client(domain)

    def choose(self, path: str, document: Document, ordinal: int) -> Choice:
        """The choice for a place.

        Args:
            path: of the document, for the error.

        Raises:
            FlagsError: the flag gives no strategy.
        """
        try:
            self._provider.load(document)
        except OpenFeatureError as error:
            raise FlagsError(path, error.error_message or "flagd's evaluator does not take it") from None
        key = targeting_key(self._deployment, self._host, ordinal, self._places)
        context = EvaluationContext(
            key, {"deployment": self._deployment, "host": self._host, "place": ordinal}
        )
        details = self._client.get_string_details(FLAG, DEFAULT_STRATEGY, context)
        if details.reason == Reason.ERROR:
            raise FlagsError(path, f"flag {FLAG}: {details.error_message or f'gives {details.value!r}'}")
        try:
            strategies.check(details.value)
        except ValueError as error:
            raise FlagsError(path, f"flag {FLAG}: {error}") from None
        reason = str(details.reason or Reason.UNKNOWN).lower()
        return Choice(details.value, details.variant or details.value, reason)

    def choose_all(self, path: str, document: Document) -> list[Choice]:
        """The choices for all places, in their order.

        Raises:
            FlagsError: see `choose`.
        """
        return [self.choose(path, document, ordinal) for ordinal in range(self._places)]
