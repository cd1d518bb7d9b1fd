"""Regions that wait for a quota, or because a permanent refusal came for many jobs.

The cap on running exports is not meant here: our own exports free it as they end, so waiting for it
always helps. Any other quota may never be raised.

A code that is documented as permanent may stand for something else, such as the cap under another
name. A job that is refused with it fails. But many jobs that are refused with it, with none
accepted in between, say more about the region than about the jobs. Then the region is suspected: it
waits, and one job at a time is tried.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

import anyio

from orchestrator.cloud.error_codes import is_listed
from orchestrator.model import NOT_SENT, Code, Halt, Outcome, Reaction, Scope

EXPORT_CAP = "LimitExceeded.ExportImageTaskLimitExceeded"

_IDLE_REFUSALS = 60.0
"""Seconds of refusals, with no export running that could free capacity, after which the code is
believed."""

_IDLE = 10.0
"""Seconds without a running export after which capacity cannot be the reason of a refusal, unless
others of the account use it."""

_JOBS_WITH_LISTED_CODE = 5
"""Jobs in a row that must be refused with a documented code before their region is suspected. Some
wrong images may follow each other in a batch. The jobs before the fifth fail."""

_JOBS_WITH_UNLISTED_CODE = 2
"""The same for a code that the table of codes does not have. Nothing shows that it concerns one
image, so fewer jobs may fail because of it."""

_REFUSALS_AMONG_ACCEPTANCES = 5
"""Refusals after which a job fails if other jobs are accepted. Each refusal may have met a full
region by chance, so a few are not enough."""

_REFUSALS_WHILE_IDLE = 3
"""Refusals after which a job fails while no export of ours is running. They cannot mean that our
exports fill the region, so fewer are enough. Other users of the account may fill it for a moment,
so one is not."""


def may_concern_region(code: Code, refused_jobs: int) -> bool:
    """Return whether a permanent refusal may concern the region instead of the job.

    Args:
        refused_jobs: jobs of the region that were refused with this code, with none accepted in
            between.
    """
    return refused_jobs >= (
        _JOBS_WITH_LISTED_CODE if is_listed(code.name) else _JOBS_WITH_UNLISTED_CODE
    )


def concerns_job(refusals: int, *, probes: int, others_accepted: bool, is_idle: bool) -> bool:
    """Return whether a refusal that may concern the region concerns its job alone.

    Args:
        refusals: how often the job was refused with the code in this run.
        probes: how many of these were probes. While exports run, a probe may be refused for the cap
            under another name, which says nothing about its job.
        others_accepted: another job was accepted since the job was refused the last time.
        is_idle: no export of ours is running that could have used the capacity.
    """
    if is_idle and refusals >= _REFUSALS_WHILE_IDLE:
        return True
    return others_accepted and refusals - probes >= _REFUSALS_AMONG_ACCEPTANCES


@dataclass(slots=True)
class _Wait:
    """The wait of one region; times are on the event loop's clock.

    Args:
        outcome: the last refusal.
        idle_since: since when none of our exports has been running there; ``None`` if one is.
    """

    outcome: Outcome
    since: float
    last_refused_at: float
    idle_since: float | None = None


@dataclass(slots=True)
class _Refusals:
    """The permanent refusals with one code in one region.

    Args:
        in_a_row: jobs that were refused since the last acceptance.
        may_concern_region: stays true for the rest of the run. Otherwise a code that stands for the
            cap would fail some jobs after each acceptance.
        of_job: since then, the number of refusals of each job, how many of them were probes, and
            when the last one came.
    """

    in_a_row: set[int] = field(default_factory=set)
    may_concern_region: bool = False
    of_job: dict[int, tuple[int, int, float]] = field(default_factory=dict)


class RegionWaits:
    """The regions that wait, and are halted if it takes too long.

    Meanwhile probes are sent there as usual.

    Args:
        longest: maximum wait in seconds.
        notify: takes a sentence for the user.
    """

    def __init__(self, longest: float, notify: Callable[[str], None]) -> None:
        self._longest = longest
        self._notify = notify
        self._waits: dict[str, _Wait] = {}
        self._refusals: defaultdict[tuple[str, str], _Refusals] = defaultdict(_Refusals)
        """By region and code."""
        self._accepted_at: dict[str, float] = {}
        """By region: when this run's last export was accepted, on the event loop's clock."""

    def reconsider(self, region: str, job_id: int, outcome: Outcome, *, is_probe: bool) -> Outcome:
        """Return an outcome that fails its job, or puts it back because the region is suspected."""
        code, now = outcome.code, anyio.current_time()
        if code.reaction is not Reaction.FAIL:
            return outcome
        refusals = self._refusals[region, code.name]
        refusals.in_a_row.add(job_id)
        refusals.may_concern_region |= may_concern_region(code, len(refusals.in_a_row))
        if not refusals.may_concern_region:
            return outcome
        before, probes, refused_at = refusals.of_job.get(job_id, (0, 0, math.inf))
        refusals.of_job[job_id] = before + 1, probes + is_probe, now
        accepted_at, wait = self._accepted_at.get(region), self._waits.get(region)
        if accepted_at is not None and concerns_job(
            before + 1,
            probes=probes + is_probe,
            others_accepted=accepted_at > refused_at and not is_probe,
            is_idle=wait is not None
            and wait.idle_since is not None
            and now - wait.idle_since >= _IDLE,
        ):
            return outcome
        return replace(outcome, code=replace(code, reaction=Reaction.SUSPECT_REGION))

    def record_refusal(self, region: str, outcome: Outcome) -> None:
        """Record a request that was refused for capacity, or may have been for its region."""
        code, now = outcome.code, anyio.current_time()
        if code.name == NOT_SENT:
            return
        if code.name == EXPORT_CAP:
            self._waits.pop(region, None)
        elif (wait := self._waits.get(region)) is not None:
            if wait.outcome.code.name != code.name:
                wait.idle_since = None
            wait.outcome, wait.last_refused_at = outcome, now
        else:
            self._waits[region] = _Wait(outcome, since=now, last_refused_at=now)
            if code.reaction is Reaction.CAPACITY:
                self._notify(
                    f"{region}: {code.name} ({outcome.message}); waiting for this quota, at most "
                    f"{self._longest:g} s. {code.remedy}"
                )

    def record_acceptance(self, region: str) -> None:
        """Record an accepted export: the region takes exports again."""
        self._accepted_at[region] = anyio.current_time()
        for (of_region, _), refusals in self._refusals.items():
            if of_region == region:
                refusals.in_a_row.clear()
        wait = self._waits.pop(region, None)
        if wait is not None and wait.outcome.code.reaction is Reaction.CAPACITY:
            self._notify(f"{region}: exports are accepted again.")

    def suspected(self) -> frozenset[str]:
        """Return the regions that wait because permanent refusals may concern them."""
        return frozenset(
            region
            for region, wait in self._waits.items()
            if wait.outcome.code.reaction is Reaction.SUSPECT_REGION
        )

    def expire(self, exporting: Collection[str]) -> Iterator[Halt]:
        """End the waits that have lasted too long; yield the halt of each region.

        Args:
            exporting: regions in which an export of ours may be running.
        """
        now = anyio.current_time()
        for region, wait in list(self._waits.items()):
            code, message = wait.outcome.code, wait.outcome.message
            is_suspected = code.reaction is Reaction.SUSPECT_REGION
            if region in exporting:
                wait.idle_since = None
            elif wait.idle_since is None:
                wait.idle_since = now
            elif is_suspected and wait.last_refused_at - wait.idle_since >= _IDLE_REFUSALS:
                del self._waits[region]
                message += f"; every request was refused like this for {_IDLE_REFUSALS:g} s"
                yield Halt(Scope.REGION, region, code.name, message, code.remedy)
                continue
            if now - wait.since >= self._longest:
                del self._waits[region]
                message += f"; no export was accepted for {self._longest:g} s"
                remedy = "Have the quota raised, or run again later."
                yield Halt(
                    Scope.REGION,
                    region,
                    code.name,
                    message,
                    code.remedy if is_suspected else remedy,
                    is_temporary=True,
                )

    def clear(self) -> None:
        """Forget every wait, so that the maximum wait starts again."""
        self._waits.clear()
