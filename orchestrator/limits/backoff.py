"""How long to wait after the n-th refusal in a row: capped, exponential, jittered."""

from datetime import timedelta


def backoff(misses: int, jitter: float, *, first: float = 1.0, longest: float = 60.0) -> timedelta:
    """The wait after `misses` refusals in a row.

    Args:
        misses: refusals before this one; 0 for the first.
        chance: a number from 0 to 1; spreads the waits of many over the upper half.
        first: seconds, the wait after the first refusal.
        longest: seconds, the wait that no number of refusals exceeds.
    """
    # the exponent is capped too: a float overflows at 2 to the 1024th
    whole = min(longest, first * 2.0 ** min(misses, 40))
    return timedelta(seconds=whole * (0.5 + jitter / 2))
