"""How far a counted share may be from the true one."""

import math

Z_95 = 1.959963984540054
"""The normal quantile that leaves 2.5 % above it."""


def wilson(count: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share, without continuity correction.

    It stays within 0 and 1 and says something at 0 of N and N of N too, where the textbook interval has no width.

    Args:
        count: Successes, 0 to ``total``.
        total: Trials, 1 or more.
        z: Normal quantile; the default gives 95 %.

    Returns:
        Lower and upper end.

    Reference: Wilson, 1927, doi:10.1080/01621459.1927.10502953.
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count={count}, total={total}; must be 0 <= count <= total and total >= 1")
    share, weight = count / total, z * z / total
    middle = share + weight / 2
    half = z * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    low, high = (middle - half) / (1 + weight), (middle + half) / (1 + weight)
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    return (0.0 if count == 0 else low), (1.0 if count == total else high)
