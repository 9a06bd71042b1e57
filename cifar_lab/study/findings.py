"""What a study's report says, as plain values: outcomes of variants, comparisons with the baseline, notes and claims."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cifar_lab.stats import Interval
from cifar_lab.study.claims import ClaimVerdict
from cifar_lab.study.design import Study


@dataclass(frozen=True)
class Outcome:
    """What a variant's runs came to in one metric.

    Args:
        variant: Its name.
        label: The same in fewer words.
        n: Finished runs with a value.
        planned: Runs that the plan has of it.
        failed: How many runs failed or diverged, by error code (``E-OOM``) or else by status.
        mean: Over finished runs; None without any, and where some missed the milestone that they were to reach.
        sd: Standard deviation (n - 1); None below two.
        values: By seed.
        missed: Finished runs that never reached the milestone that the metric is about; then there is no mean.
    """

    variant: str
    label: str
    n: int
    planned: int
    failed: Mapping[str, int]
    mean: float | None
    sd: float | None
    values: Mapping[int, float]
    missed: int = 0


@dataclass(frozen=True)
class Comparison:
    """A variant and the baseline, by the seeds that are done on both sides.

    Args:
        variant: Its name.
        label: The same in fewer words.
        n: Pairs.
        difference: Mean of variant less baseline, whichever way is better; None without a pair, and where a run on either side
            missed the milestone that it was to reach.
        interval95: Student's t interval of the difference; None below two pairs, and where all differ by the same.
        interval90: The same at 90 %, which decides about equivalence.
        p: Of the sign-flip test, two-sided.
        p_corrected: By Holm for all comparisons of the study.
        verdict: ``better``, ``worse``, ``equivalent``, ``no evidence``; empty where there is none to be given.
        note: Why, where that needs to be said.
    """

    variant: str
    label: str
    n: int
    difference: float | None
    interval95: Interval | None
    interval90: Interval | None
    p: float | None
    p_corrected: float | None
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class Findings:
    """All that a study's report says.

    Args:
        study: It.
        metric: What was judged.
        margin: Difference of the metric that would matter.
        outcomes: Of every variant, the baseline included, in the order of the plan.
        comparisons: Of every variant but the baseline.
        attainable_p: Smallest p that so many pairs can give, before correction; None below two pairs.
        detectable: Difference that so many pairs detect with 80 % power after correction; None where none can be.
        notes: What a reader must know, the most important first.
        claims: Judged statements.
        other_metrics: Outcomes by metric and variant.
        pairs: Number of pairs that ``attainable_p`` and ``detectable`` are of: the most that a comparison has.
    """

    study: Study
    metric: str
    margin: float
    outcomes: list[Outcome]
    comparisons: list[Comparison]
    attainable_p: float | None
    detectable: float | None
    notes: list[str]
    claims: list[ClaimVerdict]
    other_metrics: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    pairs: int = 0
