"""Exponential back-off with a maximum and jitter."""

from datetime import timedelta


def backoff(misses: int, jitter: float, *, longest: float = 60.0) -> timedelta:
    """Return the wait after a failure: one second, doubled with each failure before.

    Args:
        misses: failures in a row before this one.
        jitter: a random number from 0 to 1, which spreads the waits over the upper half; 1 is the
            whole wait.
        longest: seconds, the maximum.
    """
    # the exponent is limited too: a float overflows at 2 to the 1024th
    whole = min(longest, 2.0 ** min(misses, 40))
    return timedelta(seconds=whole * (0.5 + jitter / 2))
