"""Warn when the answers of ExportImages make no progress: only refusals, or unusable answers."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import anyio

from orchestrator.limits.region_waits import EXPORT_CAP
from orchestrator.model import NOT_SENT, Effect, Outcome, Reaction
from orchestrator.run_warnings import RunWarnings

_MANY = 10
"""Refusals of a region in a row."""

_LONG = 300.0
"""Seconds that they must last where this run has had an export accepted. The end of a batch, or the
images of one user, may cause ten refusals within a second. Also seconds of refusals for the cap
where nothing shows the ends of exports."""

_LONGEST_USUAL = 3600.0
"""Seconds for which refusals for the cap are usual while exports of this store may be running: an
export of a large image takes about an hour."""

_REPEATED = 2
"""Unusable answers of a host without an acceptance in between."""

_UNUSABLE = frozenset({"Client.HttpStatus", "Client.NotAnApiAnswer", "Client.NoTaskId"})


@dataclass(slots=True)
class _RefusalsInARow:
    """The refusals of a region since the last answer that shows progress.

    Args:
        since: time of the first one, on the event loop's clock.
    """

    since: float
    count: int = 0


class AnswerWarnings:
    """What one run has been answered, as far as it calls for a warning."""

    def __init__(self, warnings: RunWarnings) -> None:
        self._warnings = warnings
        self._refusals: dict[str, _RefusalsInARow] = {}
        self._accepted: set[str] = set()
        """Regions with an acceptance in this run."""
        self._exporting: set[str] = set()
        """Regions in which an export of this store may be running."""
        self._full_since: dict[str, float] = {}
        """By region: first refusal for the cap since the last acceptance, on the event loop's
        clock."""
        self._unusable: Counter[str] = Counter()
        """By host, since the last acceptance."""

    def record_exporting(self, regions: Collection[str]) -> None:
        """Record in which regions an export of this store may be running."""
        self._exporting = set(regions)

    async def record(
        self, host: str, region: str, outcome: Outcome, *, are_ends_visible: bool
    ) -> None:
        """Record an answer; a request without one does not count.

        Args:
            are_ends_visible: the buckets of the region may show when exports end.
        """
        if outcome.http_status is None or outcome.code.name == NOT_SENT:
            return
        await self._record_refusal(region, outcome, are_ends_visible=are_ends_visible)
        # a refusal does not show that an acceptance could be read
        if outcome.code.reaction is Reaction.ACCEPT:
            self._unusable[host] = 0
            await self._warnings.clear(_unusable_key(host))
        elif is_unusable(outcome):
            self._unusable[host] += 1
            if self._unusable[host] >= _REPEATED:
                await self._warnings.warn(
                    _unusable_key(host),
                    f"{host} answers ExportImages in a way that cannot be used "
                    f"({describe_answer(outcome)}); if this continues, one request at a time may "
                    "be sent. It is assumed that the exports may have begun, so their jobs are "
                    f"looked up in the bucket. {outcome.code.remedy}",
                )

    async def _record_refusal(
        self, region: str, outcome: Outcome, *, are_ends_visible: bool
    ) -> None:
        now = anyio.current_time()
        if outcome.code.reaction is Reaction.ACCEPT:
            self._accepted.add(region)
            self._exporting.add(region)
            self._refusals.pop(region, None)
            self._full_since.pop(region, None)
            await self._warnings.clear(_refusals_key(region))
        elif outcome.code.name == EXPORT_CAP and self._waits_for_own_exports(region, now):
            self._refusals.pop(region, None)
            lasted = now - self._full_since[region]
            if lasted >= _LONG and not are_ends_visible:
                await self._warnings.warn(
                    _refusals_key(region),
                    f"{region}: full for {lasted / 60:.0f} min. It is assumed that exports of this "
                    "store still run there, but nothing shows when they end, because verification "
                    f"is off or their bucket cannot be read. {self._remedy(region, outcome)}",
                )
            else:
                await self._warnings.clear(_refusals_key(region))
        elif outcome.code.effect is Effect.NO and not _has_own_warning(outcome):
            refusals = self._refusals.setdefault(region, _RefusalsInARow(now))
            refusals.count += 1
            lasted = now - refusals.since
            was_accepted = region in self._accepted
            if refusals.count >= _MANY and (lasted >= _LONG or not was_accepted):
                how_long = f"for {lasted / 60:.0f} min" if was_accepted else "in this run"
                await self._warnings.warn(
                    _refusals_key(region),
                    f"{region}: ExportImages has accepted nothing {how_long} (last answer: "
                    f"{describe_answer(outcome)}). It is assumed that this passes, or concerns "
                    f"single jobs, so the run continues. {self._remedy(region, outcome)}",
                )

    def _waits_for_own_exports(self, region: str, now: float) -> bool:
        """Return whether a refusal for the cap is usual in a region."""
        is_recent = now < self._full_since.setdefault(region, now) + _LONGEST_USUAL
        return region in self._exporting and is_recent

    def _remedy(self, region: str, outcome: Outcome) -> str:
        """Return what a person can do about refusals."""
        if outcome.code.name != EXPORT_CAP:
            return outcome.code.remedy
        if region in self._exporting:
            return "Check in the console whether the exports of this store still run there."
        return (
            "No export of this store is running there: check in the console which others of the "
            "account are."
        )


def is_unusable(outcome: Outcome) -> bool:
    """Return whether an answer without an error says nothing about the export.

    A web page is such an answer. These answers are reported here. A failing endpoint, which
    includes an error status of a gateway, is reported with the circuit breaker.
    """
    has_no_error = outcome.http_status is not None and outcome.http_status < 400
    return has_no_error and outcome.code.name in _UNUSABLE


def describe_answer(outcome: Outcome) -> str:
    """Return the code, the status and the first characters of an answer.

    If it has no text, its RequestId takes the place of the characters.
    """
    start = " ".join(outcome.message.split())[:200]  # a page has many lines
    if not start and outcome.request_id:
        start = f"RequestId {outcome.request_id}"
    return f"{outcome.code.name}, HTTP {outcome.http_status}{f': {start}' if start else ''}"


def _has_own_warning(outcome: Outcome) -> bool:
    """Return whether a refusal is reported as one that may concern its region."""
    return outcome.code.reaction is Reaction.SUSPECT_REGION


def _unusable_key(host: str) -> str:
    return f"unusable answers of {host}"


def _refusals_key(region: str) -> str:
    return f"refusals in {region}"
