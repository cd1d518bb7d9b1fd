"""Halt a region that has waited too long for a quota.

The cap on running exports is not meant here: our own exports free it as they end, so waiting for it
always helps. Any other quota may never be raised.
"""

from collections.abc import Callable, Iterator

import anyio

from orchestrator.model import NOT_SENT, Halt, Outcome, Scope

EXPORT_CAP = "LimitExceeded.ExportImageTaskLimitExceeded"


class QuotaHalts:
    """The regions that wait for a quota and are halted if it takes too long.

    Meanwhile probes are sent there as usual.

    Args:
        longest: maximum wait in seconds.
        notify: takes a sentence for the user.
    """

    def __init__(self, longest: float, notify: Callable[[str], None]) -> None:
        self._longest = longest
        self._notify = notify
        self._waiting: dict[str, tuple[float, Outcome]] = {}
        """By region: when the wait began, and the refusal that began it."""

    def record_refusal(self, region: str, outcome: Outcome) -> None:
        """Record a request that was refused for capacity."""
        if outcome.code.name == NOT_SENT:
            return
        if outcome.code.name == EXPORT_CAP:
            self._waiting.pop(region, None)
        elif region not in self._waiting:
            self._waiting[region] = anyio.current_time(), outcome
            self._notify(
                f"{region}: {outcome.code.name} ({outcome.message}); waiting for this quota, at "
                f"most {self._longest:g} s. {outcome.code.remedy}"
            )

    def record_acceptance(self, region: str) -> None:
        """Record an accepted export: the quota has room again."""
        if self._waiting.pop(region, None) is not None:
            self._notify(f"{region}: exports are accepted again.")

    def expire(self) -> Iterator[Halt]:
        """End the waits that have lasted too long; yield the halt of each region."""
        for region, (since, outcome) in list(self._waiting.items()):
            if anyio.current_time() - since >= self._longest:
                del self._waiting[region]
                yield Halt(
                    Scope.REGION,
                    region,
                    outcome.code.name,
                    f"{outcome.message}; no export was accepted for {self._longest:g} s",
                    "Have the quota raised, or run again later.",
                    is_temporary=True,
                )

    def clear(self) -> None:
        """Forget every wait, so that the maximum wait starts again."""
        self._waiting.clear()
