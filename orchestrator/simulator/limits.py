"""The allowance of requests per second, counted as the vendor's front end counts."""


class Limits:
    """Counts the arrivals of each second of the clock, apart for each account and action."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}

    def count(self, account: str, action: str, now: float) -> int:
        """Counts one arrival; how many this second has had, this one included.

        Args:
            now: seconds since the epoch.
        """
        second, count = self._counts.get((account, action), (0, 0))
        count = count + 1 if second == int(now) else 1
        self._counts[account, action] = int(now), count
        return count
