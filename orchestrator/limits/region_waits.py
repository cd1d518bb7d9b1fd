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
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import anyio

from orchestrator.cloud.error_codes import is_listed
from orchestrator.model import NOT_SENT, Code, Halt, Outcome, Reaction, Scope

EXPORT_CAP = "LimitExceeded.ExportImageTaskLimitExceeded"

_IDLE_REFUSALS = 60.0
"""Seconds of refusals, with no export running that could free capacity, after which the code is
believed to concern the region. Not where an export was accepted in this run: there the jobs that
are left fail one by one."""

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
        idle_since: since when no export of ours has been running there; infinity if one is.
    """

    outcome: Outcome
    since: float
    last_refused_at: float
    idle_since: float = math.inf


@dataclass(slots=True)
class _JobRefusals:
    """The refusals of one job with one code, since its region is suspected.

    Args:
        probes: how many of them were probes.
        last_at: time of the last one, on the event loop's clock; infinity before the first.
    """

    count: int = 0
    probes: int = 0
    last_at: float = math.inf


@dataclass(slots=True)
class _Refusals:
    """The permanent refusals with one code in one region.

    Args:
        in_a_row: jobs that were refused since the last acceptance.
        may_concern_region: stays true for the rest of the run. Otherwise a code that stands for the
            cap would fail some jobs after each acceptance.
        of_job: since then, the refusals of each job.
    """

    in_a_row: set[int] = field(default_factory=set)
    may_concern_region: bool = False
    of_job: defaultdict[int, _JobRefusals] = field(
        default_factory=lambda: defaultdict(_JobRefusals)
    )


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
        """Return an outcome that fails its job or puts it back.

        The job is put back if the refusal may concern the region, which is then suspected. An
        outcome that would not fail the job is returned unchanged.
        """
        code = outcome.code
        if code.reaction is not Reaction.FAIL:
            return outcome
        refusals = self._refusals[region, code.name]
        refusals.in_a_row.add(job_id)
        refusals.may_concern_region |= may_concern_region(code, len(refusals.in_a_row))
        if not refusals.may_concern_region:
            return outcome
        accepted_at, job = self._accepted_at.get(region, -math.inf), refusals.of_job[job_id]
        others_accepted = accepted_at > job.last_at and not is_probe
        job.count += 1
        job.probes += is_probe
        job.last_at = anyio.current_time()
        if region in self._accepted_at and concerns_job(
            job.count,
            probes=job.probes,
            others_accepted=others_accepted,
            is_idle=self._is_idle(region),
        ):
            return outcome
        return replace(outcome, code=replace(code, reaction=Reaction.SUSPECT_REGION))

    def record_refusal(self, region: str, outcome: Outcome) -> None:
        """Record a request that was refused for capacity or perhaps for its region."""
        code, now = outcome.code, anyio.current_time()
        if code.name == NOT_SENT:
            return
        if code.name == EXPORT_CAP:
            self._waits.pop(region, None)
        elif (wait := self._waits.get(region)) is not None:
            if wait.outcome.code.name != code.name:
                wait.idle_since = math.inf  # only refusals with one code in a row are believed
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

    def expire(self, exporting: Collection[str]) -> list[Halt]:
        """End the waits that have lasted too long; return a halt of the region for each.

        Args:
            exporting: regions in which an export of ours may be running.
        """
        halts = []
        for region, wait in list(self._waits.items()):
            is_idle = region not in exporting
            wait.idle_since = min(wait.idle_since, anyio.current_time()) if is_idle else math.inf
            if (halt := self._expired(region, wait)) is not None:
                del self._waits[region]
                halts.append(halt)
        return halts

    def clear(self) -> None:
        """Forget every wait, so that the maximum wait starts again."""
        self._waits.clear()

    def _is_idle(self, region: str) -> bool:
        """Return whether a waiting region had no running export of ours for a while."""
        wait = self._waits.get(region)
        return wait is not None and anyio.current_time() - wait.idle_since >= _IDLE

    def _expired(self, region: str, wait: _Wait) -> Halt | None:
        """Return the halt that ends a wait; ``None`` if it goes on."""
        code, remedy = wait.outcome.code, "Have the quota raised, or run again later."
        is_code_right = False
        if code.reaction is Reaction.SUSPECT_REGION:
            remedy = code.remedy
            is_long = wait.last_refused_at - wait.idle_since >= _IDLE_REFUSALS
            is_code_right = is_long and region not in self._accepted_at
        if is_code_right:
            reason = f"every request was refused like this for {_IDLE_REFUSALS:g} s"
        elif anyio.current_time() - wait.since >= self._longest:
            reason = f"no export was accepted for {self._longest:g} s"
        else:
            return None
        return Halt(
            Scope.REGION,
            region,
            code.name,
            f"{wait.outcome.message}; {reason}",
            remedy,
            is_temporary=not is_code_right,
        )
