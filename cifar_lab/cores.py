"""CPU cores that other programs want too."""

import os

BUSY_LOAD = 0.5
"""Load of the last minute per core from which on a machine counts as busy."""
_POLITE = "1000"
_CHOSEN_BY_A_PERSON = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_politely_if_busy() -> bool:
    """Let the threads of OpenMP give a core away soon while they wait for each other, on a machine that has other work.

    GNU's OpenMP waits at every barrier by spinning, some milliseconds long. Alone that is fastest. Beside another busy
    process the thread that all others wait for gets no core while they spin: `experiment=quickstart` beside a training
    took 218 s, with this 26 s. A number is never changed by it. Call it before torch is imported, which reads the setting
    once.

    Returns:
        Whether it was set; not where a person has set one of its kind, or the system does not tell its load.
    """
    if any(name in os.environ for name in _CHOSEN_BY_A_PERSON) or not hasattr(os, "getloadavg"):
        return False
    if os.getloadavg()[0] < BUSY_LOAD * (os.cpu_count() or 1):
        return False
    os.environ["GOMP_SPINCOUNT"] = _POLITE
    return True
