"""Whether a study's claims can be judged at all: refused before the launch, not after a day of training."""

import contextlib
from collections.abc import Sequence

from cifar_lab.config import ClaimConfig, StudyConfig
from cifar_lab.errors import ConfigError
from cifar_lab.study.design import choose_baseline
from cifar_lab.study.measures import METRICS, is_metric

CLASS_RELATIONS = ("worst_classes", "most_confused")


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
        sides = [find_variant(name, variant_names, where) if name else baseline for name in (claim.variant, claim.against)]
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


def find_variant(wanted: str, names: Sequence[str], where: str) -> str:
    """The one variant that is called so, or that alone has all the overrides that are named.

    Numbers may be written in another way: ``optimizer.weight_decay=5e-3`` is ``optimizer.weight_decay=0.005``.

    Raises:
        ConfigError: None or several are meant.
    """
    if wanted in names:
        return wanted
    parts = _canonical(wanted)
    found = [name for name in names if parts <= _canonical(name)]
    if len(found) == 1:
        return found[0]
    what = f"fits {len(found)} variants" if found else "is no variant"
    raise ConfigError(
        f"{where}: {wanted} {what} of this sweep",
        hint=f"variants are {'; '.join(names[:8])}; study.claims=[] leaves the claims out",
    )


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


def _canonical(name: str) -> set[tuple[str, str]]:
    """Overrides with numbers in one spelling."""
    found = set()
    for part in name.split(","):
        key, _, value = part.partition("=")
        with contextlib.suppress(ValueError):
            value = repr(float(value))
        found.add((key.strip(), value.strip()))
    return found
