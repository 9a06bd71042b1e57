"""Whether a study's claims can be judged at all: refused before the launch, not after a day of training."""

from collections.abc import Sequence

from cifar_lab.config import ClaimConfig, StudyConfig
from cifar_lab.errors import ConfigError
from cifar_lab.study.measures import METRICS, is_metric
from cifar_lab.study.naming import choose_baseline, find_variant

CLASS_RELATIONS = ("worst_classes", "most_confused")
_LEAVE_OUT = "; study.claims=[] leaves the claims out"


def check_claims(settings: StudyConfig, variant_names: Sequence[str], class_names: Sequence[str] = ()) -> None:
    """Refuse claims that no run of the study could ever decide.

    Args:
        settings: Of the study.
        variant_names: Of all its variants.
        class_names: Of the data; empty where they are not known yet.

    Raises:
        ConfigError: Naming the claim and what it asks for that does not exist.
    """
    if not is_metric(settings.metric, class_names):
        raise ConfigError(f"study.metric={settings.metric} is no column of report.csv", hint=f"columns are {', '.join(METRICS)}")
    baseline = choose_baseline(settings.baseline, variant_names)
    for number, claim in enumerate(settings.claims):
        where = f"study.claims[{number}]"
        sides = [
            find_variant(name, variant_names, where, _LEAVE_OUT) if name else baseline for name in (claim.variant, claim.against)
        ]
        if claim.relation in CLASS_RELATIONS:
            _check_classes(claim, class_names, where)
            continue
        if not is_metric(claim.metric, class_names):
            raise ConfigError(
                f"{where}.metric={claim.metric} is no column of report.csv", hint=f"columns are {', '.join(METRICS)}"
            )
        if claim.relation == "between":
            _check_ends(claim, where)
        elif sides[0] == sides[1]:
            raise ConfigError(f"{where}: {claim.relation} compares {sides[0]} with itself")


def _check_ends(claim: ClaimConfig, where: str) -> None:
    if claim.low is None and claim.high is None:
        raise ConfigError(f"{where}: between needs low or high")
    if claim.low is not None and claim.high is not None and claim.low > claim.high:
        raise ConfigError(f"{where}: low={claim.low:g} is above high={claim.high:g}")


def _check_classes(claim: ClaimConfig, class_names: Sequence[str], where: str) -> None:
    if claim.relation == "most_confused" and len(claim.classes) != 2:
        raise ConfigError(f"{where}: most_confused needs two classes, the true one and the answer")
    if not claim.classes or len(set(claim.classes)) < len(claim.classes):
        raise ConfigError(f"{where}.classes={claim.classes}: {claim.relation} needs classes, each once")
    for name in claim.classes if class_names else ():
        if name not in class_names:
            raise ConfigError(f"{where}.classes: {name} is no class of the data", hint=f"classes are {', '.join(class_names)}")
