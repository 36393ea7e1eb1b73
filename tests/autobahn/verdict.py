"""What the suite found, and whether that will do. Pure.

A case must be OK, and so must its end. INFORMATIONAL will do too: it says that the specification leaves the
matter open. All else will not: FAILED, UNIMPLEMENTED, NON-STRICT, and ends that are UNCLEAN or have a wrong
code. Nor will a case that has no result, as the suite goes on without a server that does not answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.autobahn.cases import key

GOOD = ("OK", "INFORMATIONAL")


class Result(NamedTuple):
    """Of one case.

    Attributes:
        behavior: what became of its frames.
        close: what became of its end.
        seconds: how long it took.
    """

    case: str
    behavior: str
    close: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it will do."""
        return self.behavior in GOOD and self.close in GOOD

    @property
    def label(self) -> str:
        """Both verdicts in one word, or two if they differ."""
        return self.behavior if self.behavior == self.close else f"{self.behavior}/{self.close}"


class Verdict(NamedTuple):
    """Of a run.

    Attributes:
        results: of all cases that have one, in the suite's order.
        missing: cases that were asked for and have none.
    """

    results: Sequence[Result]
    missing: Sequence[str]

    @classmethod
    def of(cls, index: Mapping[str, Mapping[str, Any]], expected: Sequence[str]) -> Verdict:
        """Judge one agent's part of the suite's `index.json`.

        Args:
            index: what it says of each case.
            expected: the cases of the run.
        """
        results = [
            Result(case, found["behavior"], found["behaviorClose"], found["duration"] / 1000)
            for case, found in sorted(index.items(), key=lambda item: key(item[0]))
        ]
        return cls(results, [case for case in expected if case not in index])

    @property
    def bad(self) -> list[str]:
        """What will not do, one line each; empty if nothing."""
        bad = [f"{result.case} {result.label}" for result in self.results if not result.good]
        return bad + [f"{case} has no result" for case in self.missing]

    @property
    def informational(self) -> list[str]:
        """Cases that the specification leaves open."""
        return [result.case for result in self.results if result.good and result.label != "OK"]

    def table(self) -> str:
        """Sections with the counts of their results and the seconds they took."""
        lines = []
        for section in dict.fromkeys(result.case.partition(".")[0] for result in self.results):
            those = [result for result in self.results if result.case.partition(".")[0] == section]
            counts = Counter(result.label for result in those)
            said = ", ".join(f"{count} {label}" for label, count in counts.most_common())
            lines.append(f"section {section:>2} {sum(result.seconds for result in those):8.1f} s   {said}")
        return "\n".join(lines)
