"""Regions that wait: for a quota, or because a permanent refusal came for many jobs."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import anyio
import pytest

from orchestrator.cloud.error_codes import code_for
from orchestrator.limits.region_waits import RegionWaits, concerns_job, may_concern_region
from orchestrator.model import Halt, Outcome, Reaction
from tests.instant_loop import in_no_time

REGION, OTHER = "ap-singapore", "ap-tokyo"
WINDOWS = "UnsupportedOperation.WindowsImageExportUnsupported"
UNLISTED = "UnsupportedOperation.TooManyTasks"
LONGEST = 3600.0


def make(said: list[str] | None = None) -> RegionWaits:
    return RegionWaits(LONGEST, ([] if said is None else said).append)


def refuse(
    waits: RegionWaits, code: str, *job_ids: int, region: str = REGION, is_probe: bool = False
) -> list[Reaction]:
    """Refuse one request of each job with a code; return what follows for each."""
    reactions = []
    for job_id in job_ids:
        refusal = Outcome(code_for(code), "no", http_status=200)
        outcome = waits.reconsider(region, job_id, refusal, is_probe=is_probe)
        if outcome.code.reaction is not Reaction.FAIL:
            waits.record_refusal(region, outcome)
        reactions.append(outcome.code.reaction)
    return reactions


def over_time(step: Callable[[int], object], moments: Sequence[int]) -> None:
    """Take a step at each of these seconds."""

    async def work() -> None:
        for moment in moments:
            await anyio.sleep_until(moment)
            step(moment)

    in_no_time(work)


@pytest.mark.parametrize(
    ("code", "jobs", "suspected"),
    [(UNLISTED, 1, False), (UNLISTED, 2, True), (WINDOWS, 4, False), (WINDOWS, 5, True)],
)
def test_a_region_is_suspected_when_many_jobs_are_refused(
    code: str, jobs: int, suspected: bool
) -> None:
    """A code that the table does not have needs two jobs, a documented one five."""
    assert may_concern_region(code_for(code), jobs) is suspected


@pytest.mark.parametrize(
    ("refusals", "probes", "others_accepted", "is_idle", "alone"),
    [
        (4, 0, True, False, False),
        (5, 0, True, False, True),
        (9, 5, True, False, False),
        (9, 0, False, False, False),
        (2, 0, False, True, False),
        (3, 3, False, True, True),
    ],
)
def test_a_job_that_is_refused_while_others_are_accepted_fails(
    refusals: int, probes: int, others_accepted: bool, is_idle: bool, alone: bool
) -> None:
    """Repeated refusals concern the job if the region accepts others or is idle."""
    is_alone = concerns_job(
        refusals, probes=probes, others_accepted=others_accepted, is_idle=is_idle
    )
    assert is_alone is alone


@pytest.mark.parametrize(
    ("is_probe", "last"), [(True, Reaction.SUSPECT_REGION), (False, Reaction.FAIL)]
)
def test_a_job_does_not_fail_for_refused_probes(is_probe: bool, last: Reaction) -> None:
    """Refused probes do not fail a job, although other jobs are accepted.

    A cap under another name refuses probes, while free slots accept other jobs.
    """
    reactions: list[Reaction] = []

    def step(moment: int) -> None:
        if moment % 2:
            waits.record_acceptance(REGION)
        else:
            reactions.extend(refuse(waits, UNLISTED, 1, 2, is_probe=is_probe))

    waits = make()
    over_time(step, range(10))
    assert reactions[2:-1] == [Reaction.SUSPECT_REGION] * 7
    assert reactions[-1] is last


def test_a_refused_probe_does_not_complete_what_fails_a_job() -> None:
    """A refused probe does not fail a job, even after many other refusals.

    The refusal of the probe may only concern the cap.
    """
    results: list[Reaction] = []
    waits = make()
    over_time(lambda _: refuse(waits, UNLISTED, 1, 2), range(6))
    over_time(lambda _: waits.record_acceptance(REGION), (6,))
    over_time(lambda _: results.extend(refuse(waits, UNLISTED, 2, is_probe=True)), (7,))
    over_time(lambda _: waits.record_acceptance(REGION), (8,))
    over_time(lambda _: results.extend(refuse(waits, UNLISTED, 2)), (9,))
    assert results == [Reaction.SUSPECT_REGION, Reaction.FAIL]


def test_jobs_are_put_back_once_the_region_is_suspected() -> None:
    """The first ones fail; the others wait, and keep code, message and remedy."""

    async def work() -> None:
        waits = make()
        assert refuse(waits, WINDOWS, 1, 2, 3, 4) == [Reaction.FAIL] * 4
        assert waits.suspected() == frozenset()
        assert refuse(waits, WINDOWS, 5, 6) == [Reaction.SUSPECT_REGION] * 2
        assert waits.suspected() == {REGION}
        assert refuse(waits, WINDOWS, 7, region=OTHER) == [Reaction.FAIL]

    in_no_time(work)


def test_one_job_that_is_refused_again_raises_no_suspicion() -> None:
    """Jobs are counted, not refusals: an operator may retry the same one."""

    async def work() -> None:
        assert refuse(make(), UNLISTED, 1, 1, 1) == [Reaction.FAIL] * 3

    in_no_time(work)


def test_an_acceptance_ends_the_wait_but_not_the_suspicion() -> None:
    """After an acceptance the wait ends, but the next refusal still fails no job.

    Otherwise a code that stands for the cap would fail some jobs after each acceptance.
    """

    async def work() -> None:
        waits = make()
        refuse(waits, UNLISTED, 1, 2)
        waits.record_acceptance(REGION)
        assert waits.suspected() == frozenset()
        assert refuse(waits, UNLISTED, 3) == [Reaction.SUSPECT_REGION]

    in_no_time(work)


def test_acceptances_in_between_prevent_a_suspicion() -> None:
    """Single images may be wrong, however many there are."""

    async def work() -> None:
        waits = make()
        for job_id in range(50):
            assert refuse(waits, WINDOWS, job_id) == [Reaction.FAIL]
            waits.record_acceptance(REGION)

    in_no_time(work)


def halts_of(
    waits: RegionWaits, code: str, moments: Sequence[int], exporting: Sequence[str] = ()
) -> list[Halt]:
    """Refuse new jobs at these seconds; return the halts that follow."""
    halts: list[Halt] = []

    def step(moment: int) -> None:
        refuse(waits, code, *range(10 * moment, 10 * moment + 9))
        halts.extend(waits.expire(exporting))

    over_time(step, moments)
    return halts


def test_a_batch_that_is_refused_as_a_whole_is_halted_after_a_minute() -> None:
    """Nothing of ours is running that could be in the way, so the code is right."""
    (halt,) = halts_of(make(), WINDOWS, (0, 1, 3, 7, 15, 31, 63, 64))
    assert (halt.value, halt.code, halt.is_temporary) == (REGION, WINDOWS, False)
    assert halt.remedy == code_for(WINDOWS).remedy


def test_wrong_images_left_after_good_ones_halt_no_region() -> None:
    """The region has accepted exports in this run, so what is left fails job by job."""
    waits = make()
    over_time(lambda _moment: waits.record_acceptance(REGION), [0])
    assert not halts_of(waits, WINDOWS, range(0, 600, 10))


def test_a_region_with_running_exports_is_waited_for() -> None:
    """A region with running exports is halted only after the maximum wait.

    An export that ends may free what the refused jobs wait for.
    """
    assert not halts_of(make(), UNLISTED, range(0, 600, 10), exporting=[REGION])
    (halt,) = halts_of(make(), UNLISTED, range(0, 3610, 10), exporting=[REGION])
    assert (halt.code, halt.is_temporary) == (UNLISTED, True)


def test_a_quota_is_reported_when_its_wait_begins_and_ends() -> None:
    """It is not halted after a minute: a quota may be freed by others."""
    said: list[str] = []
    waits = make(said)
    quota = Outcome(code_for("LimitExceeded.BucketQuota"), "full", http_status=200)

    def step(_: int) -> None:
        waits.record_refusal(REGION, quota)
        assert waits.expire([]) == []

    over_time(step, (0, 100, 200))
    over_time(lambda _: waits.record_acceptance(REGION), (300,))
    assert ["waiting for this quota" in said[0], "accepted again" in said[1]] == [True, True]


def test_the_cap_ends_a_wait() -> None:
    """Our own exports free the cap, so waiting for it has no limit."""

    async def work() -> None:
        waits = make()
        quota = Outcome(code_for("LimitExceeded.BucketQuota"), "full", http_status=200)
        waits.record_refusal(REGION, quota)
        cap = code_for("LimitExceeded.ExportImageTaskLimitExceeded")
        waits.record_refusal(REGION, replace(quota, code=cap))
        await anyio.sleep(2 * LONGEST)
        assert waits.expire([]) == []

    in_no_time(work)
