"""Quotas other than the cap on running exports: how long each keeps its region waiting.

The cap is freed by our own exports as they end. Another quota may never be freed, so a run waits
for it only so long, and says so.
"""

from collections.abc import Callable

import anyio

from orchestrator.model import NOT_SENT, Halt, Outcome, Scope

EXPORT_CAP = "LimitExceeded.ExportImageTaskLimitExceeded"


class QuotaWaits:
    """The regions that wait for a quota.

    Args:
        longest: seconds after which a region is given up for this run.
        tell: takes a sentence for the user when a wait begins or ends.
    """

    def __init__(self, longest: float, notify: Callable[[str], None]) -> None:
        self._longest = longest
        self._notify = notify
        self._waiting: dict[str, tuple[float, Outcome]] = {}

    def record_refusal(self, region: str, outcome: Outcome) -> None:
        """Take note of a request that was refused for capacity."""
        if outcome.code.name == NOT_SENT:
            return
        if outcome.code.name == EXPORT_CAP:
            self._waiting.pop(region, None)
        elif region not in self._waiting:
            self._waiting[region] = anyio.current_time(), outcome
            self._notify(
                f"{region}: {outcome.code.name} ({outcome.message}); waiting for this quota, "
                f"{self._longest:g} s at most. {outcome.code.remedy}"
            )

    def record_acceptance(self, region: str) -> None:
        """Take note of an accepted export: there is room."""
        if self._waiting.pop(region, None) is not None:
            self._notify(f"{region}: exports are accepted again.")

    def expired(self) -> list[Halt]:
        """End the waits that have lasted too long; each as a stop of its region."""
        now = anyio.current_time()
        ended = {
            region: outcome
            for region, (since, outcome) in self._waiting.items()
            if now - since >= self._longest
        }
        for region in ended:
            del self._waiting[region]
        return [
            Halt(
                Scope.REGION,
                region,
                outcome.code.name,
                f"{outcome.message}; no export was accepted for {self._longest:g} s",
                "Have the quota raised, or run again later.",
                passes=True,
            )
            for region, outcome in ended.items()
        ]

    def clear(self) -> None:
        """Begin every wait anew."""
        self._waiting.clear()
