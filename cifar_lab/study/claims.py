"""What becomes of the statements that a study was made to check: supported, refuted or left open, with an interval."""

from dataclasses import dataclass

from cifar_lab.config import ClaimConfig
from cifar_lab.stats import Interval


@dataclass(frozen=True)
class ClaimVerdict:
    """A statement and what the runs say of it.

    Args:
        claim: The statement.
        verdict: ``supported``, ``refuted`` or ``inconclusive``.
        estimate: Difference, mean or share that it was judged by, in the metric's unit (a share of seeds for classes).
        interval: Of the estimate, 95 %; None where there is none.
        words: Numbers, n and the reason, as a person reads them.
    """

    claim: ClaimConfig
    verdict: str
    estimate: float | None
    interval: Interval | None
    words: str
