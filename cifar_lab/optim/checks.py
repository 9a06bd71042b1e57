"""The one wording for a keyword out of range, and the checks that several builders share."""

import math


def require(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a builder's keyword.

    Raises:
        ValueError: ``key=value; must be allowed``, unless ``ok``.
    """
    if not ok:
        raise ValueError(f"{key}={value}; must be {allowed}")


def require_not_negative(**values: float) -> None:
    """Refuse numbers that are negative, infinite or not a number."""
    for key, value in values.items():
        require(math.isfinite(value) and value >= 0, key, value, "a finite number, 0 or more")


def require_share(**values: float) -> None:
    """Refuse numbers outside 0 to 1 (both ends allowed)."""
    for key, value in values.items():
        require(0.0 <= value <= 1.0, key, value, "0 to 1")


def require_adam(lr: float, betas: tuple[float, float], eps: float, weight_decay: float, *, prefix: str = "") -> None:
    """Refuse keywords that Adam and its kin do not take; ``prefix`` is that of the first three keywords' names."""
    require_not_negative(**{f"{prefix}lr": lr, f"{prefix}eps": eps, "weight_decay": weight_decay})
    are_shares = len(betas) == 2 and all(0.0 <= beta < 1.0 for beta in betas)
    require(are_shares, f"{prefix}betas", list(betas), "two numbers, 0 or more and less than 1")


def require_sgd(lr: float, momentum: float, nesterov: bool, weight_decay: float) -> None:
    """Refuse keywords that SGD and what is built on it do not take."""
    require_not_negative(lr=lr, weight_decay=weight_decay)
    require(0.0 <= momentum < 1.0, "momentum", momentum, "0 or more and less than 1")
    require(not nesterov or momentum > 0, "nesterov", nesterov, "false where momentum=0")
