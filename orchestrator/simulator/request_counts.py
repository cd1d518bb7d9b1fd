"""Request counts for the rate limit, counted as the vendor counts them."""


class Limits:
    """Counts the requests within each second of the clock, per account and action."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}

    def count(self, account: str, action: str, now: float) -> int:
        """Count one request; return the count of this second, this request included.

        Args:
            now: seconds since the epoch.
        """
        second, count = self._counts.get((account, action), (0, 0))
        count = count + 1 if second == int(now) else 1
        self._counts[account, action] = int(now), count
        return count
